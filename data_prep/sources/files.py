"""Find files, cut them where a document ends, and read their lines, packed or not.

A plain file can be cut into stretches that are read apart, on other processes or machines. A packed one can only be
read from its beginning, so it is one stretch.
"""

import bz2
import glob
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bert_lamb.errors import UserError
from data_prep.sources.source import Source, Stretch

CUT_WINDOW_BYTES = 1 << 16  # read at a time while looking for the next place to cut
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def _open_zstd(path: Path, mode: str) -> IO[bytes]:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), 1 << 20)  # type: ignore[type-var]


OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstd,
}
DAMAGED_ARCHIVE_ERRORS = (OSError, EOFError, lzma.LZMAError)


def find_files(source: Source, *, suffixes: tuple[str, ...] | None) -> list[tuple[str, Path]]:
    """(key, path) of the files that source.path names: a file, a folder with all below it, or a glob pattern.

    suffixes: taken from a folder (also with .gz, .bz2, .xz or .zst behind); None takes every file. The key is the path
    below the folder, or below the part of the pattern that holds no wildcard. Sorted by key. UserError if there is
    none.
    """
    path = Path(source.path).expanduser()
    if path.is_file():
        found = [(path.name, path)]
    elif path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        found = [
            (file.relative_to(path).as_posix(), file)
            for file in files
            if suffixes is None or _suffix_within_archive(file) in suffixes
        ]
    else:
        fixed: list[str] = []
        for part in path.parts:
            if glob.has_magic(part):
                break
            fixed.append(part)
        root = Path(*fixed)
        files = (Path(name) for name in glob.glob(str(path), recursive=True))
        found = [(file.relative_to(root).as_posix(), file) for file in files if file.is_file() and root != path]
    if not found:
        raise UserError(
            found=f"no file at {source.path}",
            expected=f"a file, folder or glob pattern of {source.kind} files",
            fix=f"set sources.{source.name}.path",
        )
    return sorted(found)


def is_packed(path: Path) -> bool:
    return path.suffix in OPENERS


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in .gz, .bz2, .xz or .zst."""
    stream: IO[bytes] = OPENERS.get(path.suffix, open)(path, "rb")
    return stream


def whole_file(key: str, path: Path) -> Stretch:
    num_bytes = path.stat().st_size
    return Stretch(key, str(path), 0, num_bytes, num_bytes, is_whole=True)


def cut_file(
    key: str, path: Path, *, stretch_bytes: int, find_cut: Callable[[IO[bytes], int, int], int]
) -> Iterator[Stretch]:
    """A file as stretches of at least `stretch_bytes` that begin and end where `find_cut` allows.

    find_cut(stream, earliest, size): the first place from `earliest` on where a document begins, or `size`.
    """
    size = path.stat().st_size
    start = 0
    with path.open("rb") as stream:
        while start < size or start == 0:
            stop = find_cut(stream, start + stretch_bytes, size) if start + stretch_bytes < size else size
            yield Stretch(key, str(path), start, stop, stop - start, is_whole=start == 0 and stop == size)
            if stop == size:
                return
            start = stop


def cut_behind(pattern: re.Pattern[bytes], *, longest_match: int) -> Callable[[IO[bytes], int, int], int]:
    """A `find_cut` that cuts behind the pattern, which matches at most `longest_match` bytes."""

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


def read_lines(stretch: Stretch) -> Iterator[tuple[int, str]]:
    """(byte offset in the unpacked file, line without its end) of a UTF-8 stretch; UserError with a bad byte's offset.

    A byte order mark and carriage returns at line ends are dropped.
    """
    path, offset = Path(stretch.path), stretch.start
    stop = None if is_packed(path) else stretch.stop
    try:
        with open_binary(path) as stream:
            if offset:
                stream.seek(offset)
            for raw in stream:
                line = raw.removeprefix(BYTE_ORDER_MARK) if offset == 0 else raw
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    place = offset + len(raw) - len(line) + error.start
                    raise UserError(
                        found=f"byte 0x{line[error.start]:02x} that is not UTF-8 at byte {place} of {path}",
                        expected="UTF-8",
                        fix="convert the file (iconv -f ... -t utf-8)",
                    ) from error
                yield offset, text.rstrip("\r\n")
                offset += len(raw)
                if stop is not None and offset >= stop:
                    return
    except DAMAGED_ARCHIVE_ERRORS as error:
        raise UserError(
            found=f"{path} that cannot be read past byte {offset} ({error})",
            expected="a sound file",
            fix="fetch it again",
        ) from error


def _suffix_within_archive(path: Path) -> str:
    return PurePosixPath(path.stem).suffix if path.suffix in OPENERS else path.suffix
