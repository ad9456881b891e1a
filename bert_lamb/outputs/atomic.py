"""Files that appear whole or not at all: written under another name, flushed to the disk, and renamed."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bert_lamb.errors import UserError

PARTIAL_SUFFIX = ".partial"  # of what is being written; a finished file or folder never ends in it


def write_atomically(path: Path, text: str, *, is_shared: bool = False) -> None:
    """Write a text file (UTF-8) that appears under its name with all of its text. is_shared: see appearing_whole."""
    with appearing_whole(path, is_shared=is_shared) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def appearing_whole(path: Path, *, is_shared: bool = False, is_flushed: bool = True) -> Iterator[Path]:
    """Another name to write a file to; at the end of the block the file is called `path`.

    is_shared: several processes may write it at the same time, so each has a name of its own; otherwise what a killed
    process left is overwritten by the next. is_flushed: the file is on the disk before it gets its name; without, a
    machine that loses its power may lose or empty it.
    """
    temporary = temporary_of(path) if is_shared else beside(path, PARTIAL_SUFFIX)
    yield temporary
    if is_flushed:
        flush_to_disk(temporary)
    temporary.replace(path)


def temporary_of(path: Path) -> Path:
    """A name beside `path` that no other process, on any machine, has for it."""
    return beside(path, f".{platform.node()}.{os.getpid()}{PARTIAL_SUFFIX}")


def beside(path: Path, suffix: str) -> Path:
    """The path with its name continued; UserError for one that ends in no name, such as / and a dot."""
    if not path.name:
        raise UserError(
            found=f"the output {path}", expected="a path that ends in a name", fix="name what is to be written"
        )
    return path.with_name(path.name + suffix)


def flush_to_disk(path: Path) -> None:
    """fsync of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
