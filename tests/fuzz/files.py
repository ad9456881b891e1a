"""Files broken by kind: bytes, text, json, and what stands in a file's place."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ODD_VALUES: list[Any] = [
    *(None, [], {}, "", "x", -1, 0, 1.5, True, "é\u0000\u001b[31m", "\ud800", [[]], 10**18, -(10**18)),
    *(float("nan"), float("inf"), 10**400, "../../x", "/etc/passwd", ["x"], {"x": 1}, "x" * 20_000),
]
OTHER_KINDS = {
    "a web page": b"<!DOCTYPE html><html><body>404 not found</body></html>\n",
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 1000\n",
    "a zip": b"PK\x05\x06" + bytes(18),
    "a gzip header": b"\x1f\x8b\x08\x00" + bytes(6),
    "a pickle": b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00}.",
    "null bytes": bytes(4096),
    "UTF-16": '{"a": 1}\n'.encode("utf-16"),
    "words": b"these are\nonly some words\n",
    "a json list": b"[]",
    "a json string": b'"x"',
    "a json number": b"3",
    "json null": b"null",
    "deep json": b"[" * 100_000 + b"]" * 100_000,
    "deep json objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
}


def _in_bytes(change: Callable[[bytearray, random.Random], bytes | bytearray]) -> Callable[[Path, random.Random], None]:
    def apply(file: Path, draws: random.Random) -> None:
        file.write_bytes(change(bytearray(file.read_bytes()), draws))

    return apply


def _flipped(content: bytearray, draws: random.Random, times: int = 1) -> bytearray:
    for _ in range(times if content else 0):
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    return content


def _inserted(content: bytearray, draws: random.Random) -> bytearray:
    at = draws.randrange(len(content) + 1)
    content[at:at] = draws.randbytes(draws.choice((1, 3, 64)))
    return content


def _without_a_part(content: bytearray, draws: random.Random) -> bytearray:
    at = draws.randrange(len(content) + 1)
    del content[at : at + draws.choice((1, 7, 100))]
    return content


def _number_changed(content: bytearray, draws: random.Random) -> bytearray:
    digits = [at for at, byte in enumerate(content) if 48 <= byte <= 57]
    if digits:
        content[draws.choice(digits)] = 48 + draws.randrange(10)
    return content


BYTES: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": _in_bytes(lambda content, draws: content[: draws.randrange(max(len(content), 1))]),
    "cut by a few bytes": _in_bytes(lambda content, draws: content[: -draws.randint(1, 9)]),
    "emptied": _in_bytes(lambda content, draws: b""),
    "a bit flipped": _in_bytes(_flipped),
    "many bits flipped": _in_bytes(lambda content, draws: _flipped(content, draws, 40)),
    "bytes inserted": _in_bytes(_inserted),
    "bytes taken out": _in_bytes(_without_a_part),
    "garbage behind": _in_bytes(lambda content, draws: bytes(content) + draws.randbytes(50)),
    "twice": _in_bytes(lambda content, draws: bytes(content) * 2),
    "CRLF": _in_bytes(lambda content, draws: bytes(content).replace(b"\n", b"\r\n")),
    "a byte order mark": _in_bytes(lambda content, draws: b"\xef\xbb\xbf" + bytes(content)),
    "a byte that is not UTF-8": _in_bytes(lambda content, draws: bytes(content[:5]) + b"\xe9" + bytes(content[5:])),
    "a digit changed": _in_bytes(_number_changed),
    "random bytes": _in_bytes(lambda content, draws: draws.randbytes(len(content))),
} | {kind: _in_bytes(lambda content, draws, instead=instead: instead) for kind, instead in OTHER_KINDS.items()}


def _gone(file: Path, draws: random.Random) -> None:
    file.unlink()


def _folder(file: Path, draws: random.Random) -> None:
    file.unlink()
    file.mkdir()
    if draws.random() < 0.5:
        (file / "x").write_text("x")


def _link_to(target: str) -> Callable[[Path, random.Random], None]:
    def apply(file: Path, draws: random.Random) -> None:
        file.unlink()
        file.symlink_to(target if target != "itself" else file.name)

    return apply


PLACES: dict[str, Callable[[Path, random.Random], None]] = {
    "gone": _gone,
    "a folder instead": _folder,
    "a dangling link": _link_to("nowhere"),
    "a link to itself": _link_to("itself"),
    "a link to /dev/null": _link_to("/dev/null"),
    "a link to /proc/self/mem": _link_to("/proc/self/mem"),
}


def another_file(file: Path, draws: random.Random) -> None:
    """What another file beside it holds."""
    others = sorted(one for one in file.parent.rglob("*") if one.is_file() and one != file)
    if others:
        shutil.copy(draws.choice(others), file)


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(one for key, below in items for one in _paths(below, (*path, key)))]


def _holder(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree


def _with_odd_value(tree: Any, draws: random.Random) -> Any:
    path = draws.choice(_paths(tree))
    value = draws.choice(ODD_VALUES)
    if not path:
        return value
    _holder(tree, path)[path[-1]] = value
    return tree


def _without_a_key(tree: Any, draws: random.Random) -> Any:
    paths = [path for path in _paths(tree) if path]
    if paths:
        path = draws.choice(paths)
        del _holder(tree, path)[path[-1]]
    return tree


def _with_another_key(tree: Any, draws: random.Random) -> Any:
    paths = [path for path in _paths(tree) if path and isinstance(path[-1], str)]
    if paths:
        path = draws.choice(paths)
        holder = _holder(tree, path)
        holder[draws.choice(["", "é", "__class__", f"{path[-1]}x", "x" * 500])] = holder.pop(path[-1])
    return tree


def _of_another_type(tree: Any, draws: random.Random) -> Any:
    """A number as a text, a mapping as a list of pairs, and so on."""
    path = draws.choice(_paths(tree))
    found = _holder(tree, (*path, None)) if path else tree
    changed = (
        [list(pair) for pair in found.items()]
        if isinstance(found, dict)
        else {str(i): one for i, one in enumerate(found)}
        if isinstance(found, list)
        else str(found)
        if not isinstance(found, str)
        else [found]
    )
    if not path:
        return changed
    _holder(tree, path)[path[-1]] = changed
    return tree


def _repeated(tree: Any, draws: random.Random) -> Any:
    lists = [path for path in _paths(tree) if path and isinstance(_holder(tree, (*path, None)), list)]
    if lists:
        path = draws.choice(lists)
        found = _holder(tree, path)
        found[path[-1]] = found[path[-1]] * 2
    return tree


def _in_json(change: Callable[[Any, random.Random], Any]) -> Callable[[Path, random.Random], None]:
    """On the whole of a .json file, or on one line of a .jsonl."""

    def apply(file: Path, draws: random.Random) -> None:
        if file.suffix == ".jsonl":
            lines = file.read_text().splitlines()
            at = draws.randrange(len(lines))
            lines[at] = json.dumps(change(json.loads(lines[at]), draws))
            file.write_text("\n".join(lines) + "\n")
        else:
            file.write_text(json.dumps(change(json.loads(file.read_text()), draws)))

    return apply


def _doubled_key(file: Path, draws: random.Random) -> None:
    text = file.read_text()
    at = text.index("{") + 1
    file.write_text(text[:at] + text[at : text.index(",") + 1] + text[at:])


JSON: dict[str, Callable[[Path, random.Random], None]] = {
    "json: an odd value": _in_json(_with_odd_value),
    "json: a key less": _in_json(_without_a_key),
    "json: a key renamed": _in_json(_with_another_key),
    "json: another type": _in_json(_of_another_type),
    "json: a list twice": _in_json(_repeated),
    "json: a key twice": _doubled_key,
}


def _in_a_line(change: Callable[[str, random.Random], str]) -> Callable[[Path, random.Random], None]:
    def apply(file: Path, draws: random.Random) -> None:
        lines = file.read_text(errors="surrogateescape").split("\n")
        at = draws.randrange(len(lines))
        lines[at] = change(lines[at], draws)
        file.write_text("\n".join(lines), errors="surrogateescape")

    return apply


LINES: dict[str, Callable[[Path, random.Random], None]] = {
    "a line emptied": _in_a_line(lambda line, draws: ""),
    "a line twice": _in_a_line(lambda line, draws: f"{line}\n{line}"),
    "a column more": _in_a_line(lambda line, draws: line + "\tx"),
    "a column less": _in_a_line(lambda line, draws: line.rpartition("\t")[0]),
    "a quote": _in_a_line(lambda line, draws: '"' + line),
    "a null byte": _in_a_line(lambda line, draws: line + "\0"),
    "an escape": _in_a_line(lambda line, draws: "\x1b[31m" + line),
    "a long line": _in_a_line(lambda line, draws: line + "x" * 200_000),
    "a separator of lines": _in_a_line(lambda line, draws: line + "\u2028\x85x"),
}
TEXT_SUFFIXES = {".txt", ".tsv", ".jsonl", ".md", ".xml", ".yaml", ".tokens", ""}


def kinds_for(file: Path) -> dict[str, Callable[[Path, random.Random], None]]:
    """The ways in which this file may be broken."""
    kinds = {**BYTES, **PLACES, "another file": another_file}
    if file.suffix in (".json", ".jsonl"):
        kinds |= JSON
    if file.suffix in TEXT_SUFFIXES:
        kinds |= LINES
    return kinds
