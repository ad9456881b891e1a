"""Packed files (.gz, .bz2, .xz, .zst): their bytes, and what is said where they cannot be had.

A packed file can only be read from its beginning. A sound one is never called damaged: what our readers cannot do is
told apart from what is wrong with the file.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from bert_lamb.errors import UserError

PACKED_BYTES = 1 << 16  # read at a time from an archive
DAMAGED_ARCHIVE_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)
TOOLS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
MAX_ZSTD_WINDOW = 1 << 27  # bytes: that of zstd's readers where nothing else is asked for
# What a reader says of a sound file: (words of its message, what the file is, what to do).
UNSUPPORTED = (
    (
        "requires too much memory",
        f"packed by zstd with a window above {MAX_ZSTD_WINDOW >> 20} MB, which is not supported",
        "pack it again without --long: zstd -dc --long=31 {name} | zstd -o new.zst",
    ),
    ("Dictionary mismatch", "packed by zstd with a dictionary, which is not supported", "unpack it with zstd -D"),
    ("Unsupported frame parameter", "of a form of zstd that is not supported", "unpack it: zstd -d --long=31 {name}"),
    ("Invalid or unsupported options", "of a form of xz that is not supported", "unpack it: xz -d {name}"),
    ("Memory usage limit", "of a form of xz that is not supported", "unpack it: xz -d {name}"),
    ("Unknown compression method", "of a form of gzip that is not supported", "unpack it: gzip -d {name}"),
)


class _Unpacked(io.RawIOBase):
    """All streams of a .bz2 or .xz one after the other; OSError or EOFError where one is damaged.

    bz2.open and lzma.open take whatever follows a stream for the end of the file if it does not begin like another, so
    a damaged stream would be lost, and all after it, without a word.
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
                # Zeros may fill up the space between and after the streams of .xz.
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


def _open_gzip(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb")  # type: ignore[return-value]


def _open_bz2(path: Path) -> IO[bytes]:
    return unpack_bz2(path.open("rb"))


def _open_xz(path: Path) -> IO[bytes]:
    return io.BufferedReader(_Unpacked(path.open("rb"), lzma.LZMADecompressor), 1 << 18)


def _open_zstd(path: Path) -> IO[bytes]:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="zstd"), 1 << 20)  # type: ignore[type-var]


OPENERS: dict[str, Callable[[Path], IO[bytes]]] = {
    ".gz": _open_gzip,
    ".bz2": _open_bz2,
    ".xz": _open_xz,
    ".zst": _open_zstd,
}


def is_packed(path: Path) -> bool:
    return path.suffix.lower() in OPENERS


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in .gz, .bz2, .xz or .zst."""
    opener = OPENERS.get(path.suffix.lower())
    return path.open("rb") if opener is None else opener(path)


def unsupported_form(path: Path, error: BaseException) -> UserError | None:
    """What is said of a file that need not be damaged, but is of a form that cannot be read here; else None."""
    reason = " ".join(str(error).split())
    for words, what, fix in UNSUPPORTED:
        if words in reason:
            return UserError(
                found=f"{path}, {what} (it need not be damaged: {reason})",
                expected="a file as gzip, bzip2, xz or zstd write it unless told otherwise",
                fix=fix.format(name=path.name),
            )
    return None


def unreadable(path: Path, num_bytes: int, error: BaseException) -> UserError:
    """What is said of a file that gave an error after `num_bytes` bytes of text."""
    if (unsupported := unsupported_form(path, error)) is not None:
        return unsupported
    reason = " ".join(str(error).split()) or type(error).__name__
    tool = TOOLS.get(path.suffix.lower())
    if tool is None:
        return UserError(
            found=f"{path} that cannot be read past byte {num_bytes} ({reason})",
            expected="a file that can be read",
            fix="check its permissions and its disk",
        )
    return UserError(
        found=f"{path} that cannot be read past byte {num_bytes} of its text ({reason})",
        expected=f"what {tool} writes, whole and with nothing after its end",
        fix=f"check it with {tool} -t; if that finds it sound, unpack it, else fetch it again",
    )
