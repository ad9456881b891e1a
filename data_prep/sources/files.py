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
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bert_lamb.errors import UserError
from data_prep.sources.source import Source, Stretch

CUT_WINDOW_BYTES = 1 << 16  # read at a time while looking for the next place to cut
PACKED_BYTES = 1 << 16  # read at a time from an archive
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _Unpacked(io.RawIOBase):
    """All streams of a .bz2 or .xz one after the other; OSError or EOFError where one is damaged.

    bz2.open and lzma.open take whatever follows a stream for the end of the file if it does not begin like another, so
    a damaged stream would be lost, and all behind it, without a word.
    """

    def __init__(self, packed: IO[bytes], new_decompressor: Callable[[], Any]) -> None:
        self.packed, self.new_decompressor = packed, new_decompressor
        self.decompressor = new_decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self.decompressor.eof:
                # Zeros may fill up the space between and behind the streams of .xz.
                data = self.decompressor.unused_data.lstrip(b"\0")
                while not data:
                    data = self.packed.read(PACKED_BYTES)
                    if not data:
                        return 0
                    data = data.lstrip(b"\0")
                self.decompressor = self.new_decompressor()
            elif self.decompressor.needs_input:
                data = self.packed.read(PACKED_BYTES)
                if not data:
                    raise EOFError("it ends in the middle of a stream")
            unpacked = self.decompressor.decompress(data, len(buffer))
            if unpacked:
                buffer[: len(unpacked)] = unpacked
                return len(unpacked)

    def close(self) -> None:
        self.packed.close()
        super().close()


def unpack_bz2(packed: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(_Unpacked(packed, bz2.BZ2Decompressor), 1 << 18)


def _open_bz2(path: Path, mode: str) -> IO[bytes]:
    return unpack_bz2(path.open("rb"))


def _open_xz(path: Path, mode: str) -> IO[bytes]:
    return io.BufferedReader(_Unpacked(path.open("rb"), lzma.LZMADecompressor), 1 << 18)


def _open_zstd(path: Path, mode: str) -> IO[bytes]:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), 1 << 20)  # type: ignore[type-var]


OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": _open_bz2,
    ".xz": _open_xz,
    ".zst": _open_zstd,
}
DAMAGED_ARCHIVE_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)


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
    for _, file in found:
        _require_text(file)
    return sorted(found)


def _require_text(path: Path) -> None:
    """A name that is no UTF-8 can make no key."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            found=f"a file name that is not UTF-8: {bytes(path)!r}", expected="UTF-8", fix="rename the file"
        ) from error


def is_packed(path: Path) -> bool:
    return path.suffix in OPENERS


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in .gz, .bz2, .xz or .zst."""
    stream: IO[bytes] = OPENERS.get(path.suffix, open)(path, "rb")
    return stream


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
