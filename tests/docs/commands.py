"""The `bert-lamb` commands that a page of Markdown shows, as lists of words that compose."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^(?: {4}.*\n|\n)+|^```(?:bash|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(bert-lamb [^`\n]*=[^`\n]*)`")
SCRIPT = re.compile(r"scripts/launch/(one_machine|hostfile|slurm)\.sh$")
WITHOUT_VALUES = {"-m", "--multirun"}  # flags of Hydra's that take no word after them
WITH_VALUES = {"--cfg", "-c"}


@dataclass(frozen=True)
class Command:
    """page: where it stands. line: as it is shown. name: the command; words: its overrides, `...` among them."""

    page: Path
    line: str
    name: str
    words: tuple[str, ...]


def commands_of(page: Path) -> Iterator[Command]:
    """Every command of a page: of indented and shell blocks, and of inline code that sets a key."""
    text = page.read_text(encoding="utf-8")
    shown = "\n".join(match.group(0) for match in BLOCK.finditer(text))
    inline = [f"{code} ..." for code in INLINE.findall(text)]  # names the keys that a sentence is about, and no others
    for line in [*shown.replace("\\\n", " ").splitlines(), *inline]:
        if found := command_of(page, line.strip()):
            yield found


def command_of(page: Path, line: str) -> Command | None:
    """The command in a line, after whatever launcher comes before it; None where there is none."""
    line = re.sub(r"\$\(seq [^)]*\)", "0/64", line)
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # prose with an apostrophe
        return None
    for index, word in enumerate(words):
        rest = words[index + 1 :]
        if word in ("bert-lamb", "bert_lamb") and rest and not rest[0].startswith("-") and "|" not in rest:
            return Command(page, line, rest[0], tuple(rest[1:]))
        if SCRIPT.search(word) and rest:
            return Command(page, line, "pretrain", tuple(rest[rest.index("--") + 1 :] if "--" in rest else rest))
    return None


def overrides_of(command: Command) -> list[str]:
    """The words that the Compose API takes: no flags, the first value of a sweep, launchers of Hydra's left out."""
    kept: list[str] = []
    words = iter(command.words)
    is_sweep = bool(WITHOUT_VALUES & set(command.words)) or "spread=" in " ".join(command.words)
    for word in words:
        if word in WITH_VALUES:
            next(words)
        elif word in WITHOUT_VALUES or word == "...":
            continue
        elif not re.match(r"(hydra[./]|spread=)", word):
            key, equals, value = word.partition("=")
            kept.append(f"{key}={value.split(',')[0]}" if is_sweep and equals and not value.startswith("[") else word)
    return kept
