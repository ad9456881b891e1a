"""Files made by others, read as bytes -> text -> json, and refused by name when they are something else.

What a file is follows from its first bytes, never from its name.
"""

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PULL = "fetch the file itself with `git lfs pull`"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UNPACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\xfd7zXZ\x00": lzma.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
}
UNPACKING_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)
OTHER_KINDS = {
    LFS_POINTER: "a git-lfs pointer",
    b"\xff\xfe\x00\x00": "UTF-32 text",
    b"\x00\x00\xfe\xff": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"PK": "a zip archive",
    b"PAR1": "a parquet file",
    b"\x89HDF": "an HDF5 file",
    b"\x80": "a pickle",
    b"<": "markup such as a web page",
}


def kind_of(head: bytes) -> str | None:
    """What a file that begins with `head` is, if it is one of the things that are often found in place of another."""
    if not head:
        return "empty"
    if len(head) > 3 and 0 in (head[0], head[1]) and head[0] != head[1]:
        return "UTF-16 text"
    return next((kind for start, kind in OTHER_KINDS.items() if head.startswith(start)), None)


def read_bytes(file: Path, *, expected: str, fix: str) -> bytes:
    """The bytes of a file; UserError if there is none or it cannot be read."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        what = f"a folder at {file}" if file.is_dir() else f"no file {file}"
        raise UserError(found=what, expected=expected, fix=fix) from error
    except OSError as error:
        raise UserError(
            found=f"{file} that cannot be read ({error.strerror})", expected=expected, fix="check its permissions"
        ) from error


def read_json(file: Path, *, expected: str, fix: str) -> Any:
    """The json in a file; a byte order mark and packing with xz, gz or bz2 are accepted.

    expected, fix: what a UserError says of a file that is not there or holds something else. A key that an object has
    twice is refused, since all but its last value would be lost.
    """
    content = read_bytes(file, expected=expected, fix=fix)
    while unpack := next((unpack for start, unpack in UNPACKERS.items() if content.startswith(start)), None):
        try:
            content = unpack(content)
        except UNPACKING_ERRORS as error:
            raise UserError(
                found=f"{file} that cannot be unpacked ({_one_line(error)})",
                expected="the whole of what was packed",
                fix="fetch the file again",
            ) from error
    what = kind_of(content)
    if what is not None:
        is_pointer = content.startswith(LFS_POINTER)
        raise UserError(found=f"{file} that is {what}", expected=expected, fix=PULL if is_pointer else fix)
    try:
        text = content.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            found=f"{file} that is not UTF-8 text (byte {error.start:,} is 0x{content[error.start]:02x})",
            expected="UTF-8",
            fix=f"convert it, for example with iconv -f {'UTF-16' if 0 in content else 'LATIN1'} -t UTF-8",
        ) from error
    try:
        return json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except RecursionError as error:
        raise UserError(found=f"{file} whose json is nested too deeply", expected=expected, fix=fix) from error
    except ValueError as error:
        raise UserError(found=f"{file} that is not json ({_one_line(error)})", expected=expected, fix=fix) from error


def require_utf8(text: str, place: str) -> None:
    """Refuse half of a surrogate pair, which json can write ("\\ud800") and no tokenizer and no file can take."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            found=f"half of a surrogate pair (\\u{ord(text[error.start]):04x}) at character {error.start:,} of {place}",
            expected="whole characters",
            fix="correct the file",
        ) from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"an object with the key {max(keys, key=keys.count)!r} more than once")
    return content


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name}, which json does not have")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
