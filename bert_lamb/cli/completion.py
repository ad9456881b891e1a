"""Completion in bash and zsh: `bert-lamb completion bash` prints a script that asks `bert-lamb completion words LINE`.

What can be typed is read from the schema and conf/: commands, groups and their options, keys, and the values of
switches. Where none of these fits, the shell completes the names of files. Hydra's own completion knows no commands,
offers options of other commands and composes a whole configuration at every key press.
"""

import types
from collections.abc import Collection, Iterator, Sequence
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from bert_lamb.cli.compose import conf_dir
from bert_lamb.errors import UserError

FLAGS = ("--cfg", "--config-dir", "--help", "--info", "--multirun", "--verbose")
HIDDEN_GROUPS = {"schema", "quiet"}  # parts of every command, which nobody chooses

BASH = """\
_bert_lamb() {
    local line=${COMP_LINE:0:COMP_POINT}
    local typed=${line##*[[:space:]]} before= found
    mapfile -t found < <("${COMP_WORDS[0]}" completion words "$line" 2>/dev/null)
    case $COMP_WORDBREAKS in # readline replaces what follows the last of these
    *=*) before=${typed%"${typed##*[=:@]}"} ;;
    esac
    COMPREPLY=("${found[@]#"$before"}")
    case ${found[*]-} in
    *[=.]) compopt -o nospace 2>/dev/null ;;
    esac
}
complete -o default -F _bert_lamb bert-lamb
"""
ZSH = """\
_bert_lamb() {
    local -a found
    found=(${(f)"$("${words[1]}" completion words "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*[=.]}
        compadd -- ${found:#*[=.]}
    else
        compset -P '*='
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _bert_lamb bert-lamb
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}


def completion(arguments: Sequence[str], commands: Collection[str]) -> int:
    """`completion SHELL` prints the script, `completion words LINE` what can stand in place of the line's last word."""
    if len(arguments) == 2 and arguments[0] == "words":
        print("".join(f"{word}\n" for word in words_for(arguments[1], commands)), end="")
        return 0
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        raise UserError(
            found=f"completion {' '.join(arguments)}".strip(),
            expected=f"completion {' or completion '.join(SCRIPTS)}",
            fix='add to ~/.bashrc: eval "$(bert-lamb completion bash)"',
        )
    print(SCRIPTS[arguments[0]], end="")
    return 0


def words_for(line: str, commands: Collection[str]) -> list[str]:
    """What the last word of a command line can become, in order. line: up to the cursor, from the program's name on."""
    _program, *words = line.split() or [""]
    typed = words.pop() if words and not line[-1].isspace() else ""
    words = [word for word in words if word not in ("-v", "--verbose")]
    if not words:
        found: Iterator[str] = iter([*commands, "completion"])
    elif words[0] == "completion":
        found = iter(SCRIPTS)
    elif words[0] not in commands:
        return []
    elif typed.startswith("-"):
        found = iter(FLAGS)
    elif "=" in typed:
        found = _values(words[0], words[1:], typed)
    else:
        found = _keys(words[0], words[1:], typed)
    return sorted({word for word in found if word.startswith(typed)})


def _keys(command: str, words: Sequence[str], typed: str) -> Iterator[str]:
    """Groups, and the keys of the section that has been typed."""
    from bert_lamb.cli.overrides import type_at

    key = typed.lstrip("+~")
    prefix = typed.removesuffix(key)
    yield from (f"{prefix}{group}=" for group in _groups(command))
    section = key.rpartition(".")[0]
    names = section.split(".") if section else []
    start = prefix + (f"{section}." if section else "")
    hint = type_at(_schema(command), names)
    if is_dataclass(hint):
        yield from (f"{start}{name}{_end(below)}" for name, below in get_type_hints(hint).items())
    elif get_origin(hint) is dict:
        yield from (f"{start}{name}{_end(get_args(hint)[1])}" for name in _entries(command, words, names))


def _end(hint: Any) -> str:
    return "." if is_dataclass(hint) or get_origin(hint) is dict else "="


def _entries(command: str, words: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names that the chosen options give to a mapping of the configuration, such as the phases of a recipe."""
    own = _read(conf_dir() / f"{command}.yaml")
    options = {name: part[name] for part in own.get("defaults", []) if isinstance(part, dict) for name in part}
    options |= {key: value for key, _, value in (word.partition("=") for word in words) if key in options}
    files = [(conf_dir() / group / f"{options[name]}.yaml", name) for name, group in _groups(command).items()]
    contents = [own, *(_in_its_place(file, name) for file, name in files if file.is_file())]
    return [str(entry) for content in contents for entry in _section(content, names)]


def _in_its_place(file: Path, name: str) -> dict[str, Any]:
    """The content of an option, below its package unless that is the whole configuration."""
    content = _read(file)
    package = [] if _is_global(file) else (name.partition("@")[2] or name).split(".")
    for part in reversed(package):
        content = {part: content}
    return content


def _section(content: Any, names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _values(command: str, words: Sequence[str], typed: str) -> Iterator[str]:
    """Options of a group, or the values of a switch; of a sweep (a,b) those for its last value."""
    from bert_lamb.cli.overrides import type_at

    key, _, value = typed.partition("=")
    start = f"{key}={value.removesuffix(value.rpartition(',')[2])}"
    name = key.lstrip("+~")
    if group := _groups(command).get(name):
        found = _options(command, group, words)
    else:
        found = _choices(type_at(_schema(command), name.split(".")))
    yield from (f"{start}{choice}" for choice in found)


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) in (Union, types.UnionType):
        return [choice for one in get_args(hint) for choice in _choices(one)]
    if hint is bool:
        return ["false", "true"]
    return [one.name for one in hint] if isinstance(hint, type) and issubclass(hint, Enum) else []


@cache
def _groups(command: str) -> dict[str, str]:
    """What chooses an option in a command line -> its group in conf/: optimizer, glue_task@tasks.cola."""
    parts = _read(conf_dir() / f"{command}.yaml").get("defaults", [])
    chosen = [str(name) for part in parts if isinstance(part, dict) for name in part]
    groups = {name: name.partition("@")[0] for name in chosen}
    return {name: group for name, group in groups.items() if group not in HIDDEN_GROUPS and " " not in group}


def _options(command: str, group: str, words: Sequence[str]) -> list[str]:
    """The options of a group that fit the command: a recipe of images is none for pretrain."""
    given = dict(pairwise(words))
    own = given.get("--config-dir") or given.get("-cd")
    folders = [conf_dir(), *([Path(own)] if own else [])]
    options = {
        file.relative_to(folder / group).with_suffix("").as_posix(): file
        for folder in folders
        for file in sorted((folder / group).rglob("*.yaml"))
    }
    return [
        option
        for option, file in options.items()
        if option.rpartition("/")[0] in ("", command) and _fits(command, file)  # spread/study/ is of study
    ]


def _fits(command: str, file: Path) -> bool:
    if not _is_global(file):
        return True
    fields = get_type_hints(_schema(command)).keys() | {"defaults", "hydra"}
    content = _read(file)
    parts = [name for part in content.get("defaults", []) if isinstance(part, dict) for name in part]
    chosen = {name.removeprefix("override /") for name in parts if name.startswith("override /")}
    return content.keys() <= fields and {name for name in chosen if "/" not in name} <= _groups(command).keys()


def _is_global(file: Path) -> bool:
    return file.read_text(encoding="utf-8").startswith("# @package _global_")


def _read(file: Path) -> dict[str, Any]:
    import yaml

    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _schema(command: str) -> type[Any]:
    from bert_lamb.config import door

    return door.SCHEMAS[command]
