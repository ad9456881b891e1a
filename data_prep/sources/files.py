"""Find the files of a source, cut them where a document ends, and read their lines, packed or not.

A plain file can be cut into stretches that are read apart, on other processes or machines. A packed one can only be
read from its beginning, so it is one stretch.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bert_lamb.errors import UserError
from data_prep.sources import content
from data_prep.sources.listing import list_files
from data_prep.sources.packing import (
    DAMAGED_ARCHIVE_ERRORS,
    OPENERS,
    is_packed,
    open_binary,
    unpack_bz2,
    unreadable,
)
from data_prep.sources.source import Source, Stretch

__all__ = [
    "DAMAGED_ARCHIVE_ERRORS",
    "OPENERS",
    "cut_behind",
    "cut_file",
    "file_errors",
    "find_files",
    "is_packed",
    "open_binary",
    "read_lines",
    "unpack_bz2",
    "whole_file",
]

CUT_WINDOW_BYTES = 1 << 16  # read at a time while looking for the next place to cut
LINES_BYTES = 1 << 18  # read at a time while reading lines
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
END_OF_FILE = b"\x1a"  # with which programs of DOS closed a text


def find_files(source: Source, *, suffixes: tuple[str, ...] | None) -> list[tuple[str, Path]]:
    """(key, path) of the files that source.path names, sorted.

    Raises UserError for what listing.list_files and content.look_at_heads refuse.
    """
    files = list_files(source, suffixes=suffixes).files
    content.look_at_heads(files, source)
    return files


def whole_file(key: str, path: Path) -> Stretch:
    with file_errors(path):
        num_bytes = path.stat().st_size
    return Stretch(key, str(path), 0, num_bytes, num_bytes, num_bytes, is_whole=True)


def cut_file(
    key: str, path: Path, *, stretch_bytes: int, find_cut: Callable[[IO[bytes], int, int], int]
) -> Iterator[Stretch]:
    """A file as stretches of at least `stretch_bytes` that begin and end where `find_cut` allows.

    find_cut(stream, earliest, size): the first place from `earliest` on where a document begins, or `size`.
    """
    start = 0
    with file_errors(path), path.open("rb") as stream:
        size = path.stat().st_size
        while start < size or start == 0:
            stop = find_cut(stream, start + stretch_bytes, size) if start + stretch_bytes < size else size
            yield Stretch(key, str(path), start, stop, stop - start, size, is_whole=start == 0 and stop == size)
            if stop == size:
                return
            start = stop


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """UserError where a file is gone or may not be read."""
    try:
        yield
    except OSError as error:
        raise UserError(
            found=f"{path} that cannot be read ({error.strerror})",
            expected="a file that stays there and may be read",
            fix="check the path, its permissions and its disk",
        ) from error


def cut_behind(pattern: re.Pattern[bytes], *, longest_match: int) -> Callable[[IO[bytes], int, int], int]:
    """A `find_cut` that cuts after the pattern, which looks at `longest_match` bytes at most."""

    def find_cut(stream: IO[bytes], earliest: int, size: int) -> int:
        position = max(0, earliest - longest_match)
        stream.seek(position)
        window = b""
        while block := stream.read(CUT_WINDOW_BYTES):
            window += block
            for match in pattern.finditer(window):
                if position + match.end() >= earliest:
                    return position + match.end()
            position += max(0, len(window) - longest_match)
            window = window[-longest_match:]
        return size

    return find_cut


def read_lines(stretch: Stretch, *, may_hold_nul: bool = False) -> Iterator[tuple[int, str]]:
    """(byte offset in the unpacked file, line without its end) of a UTF-8 stretch.

    A line ends with a line feed, carriage returns before one or a carriage return alone. Byte order marks are dropped.
    UserError for a byte that is not UTF-8 and for NUL, with the byte's offset, and for a file that is no text at all.
    may_hold_nul: the lines are parsed by what refuses NUL itself.
    """
    path = Path(stretch.path)
    for offset, lines in _chunks(path, stretch, may_hold_nul=may_hold_nul):
        for raw in lines:
            line = raw.removeprefix(BYTE_ORDER_MARK)
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                place = offset + len(raw) - len(line) + error.start
                raise UserError(
                    found=f"byte 0x{line[error.start]:02x} that is not UTF-8 at byte {place} of {path}",
                    expected="UTF-8",
                    fix="convert the file (iconv -f ... -t utf-8)",
                ) from error
            if "\r" in text:
                yield from _lines_of_carriage_returns(offset, raw)
            else:
                yield offset, text
            offset += len(raw) + 1


def _lines_of_carriage_returns(offset: int, raw: bytes) -> Iterator[tuple[int, str]]:
    """What is between two line feeds, cut at carriage returns; those before the line feed belong to it."""
    for part in raw.rstrip(b"\r").split(b"\r"):
        yield offset, part.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
        offset += len(part) + 1


def _chunks(path: Path, stretch: Stretch, *, may_hold_nul: bool) -> Iterator[tuple[int, list[bytes]]]:
    """(byte offset, whole lines from there on), so that no kind of line end makes a large file one line.

    Lines are what is between line feeds. Where there are none, carriage returns end the lines.
    """
    position = stretch.start  # of what is read next
    left = None if is_packed(path) else stretch.stop - stretch.start
    begun: list[bytes] = []  # parts of a line whose end has not been read
    try:
        with open_binary(path) as stream:
            if position:
                stream.seek(position)
            while data := stream.read(LINES_BYTES if left is None else min(LINES_BYTES, left)):
                if position == 0 and (form := content.form_of(data)) is not None:
                    raise content.unlike(path, *form, "NAME", "text")
                if not may_hold_nul and (place := data.find(b"\0")) >= 0:
                    raise content.no_text(path, position + place, data[max(0, place - 100) : place + 100])
                offset = position - sum(map(len, begun))
                position += len(data)
                left = None if left is None else left - len(data)
                stop, end = data.rfind(b"\n"), b"\n"
                if stop < 0:  # a return at the end may be followed by a line feed
                    stop, end = data.rstrip(b"\r").rfind(b"\r"), b"\r"
                if stop < 0:
                    begun.append(data)
                else:
                    yield offset, b"".join((*begun, data[:stop])).split(end)
                    begun = [data[stop + 1 :]]
        if last := b"".join(begun).rstrip(END_OF_FILE):
            yield position - sum(map(len, begun)), [last]
    except DAMAGED_ARCHIVE_ERRORS as error:
        raise unreadable(path, position, error) from error
