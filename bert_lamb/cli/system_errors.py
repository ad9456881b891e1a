"""Errors of the operating system (a full disk, no permission, a path that is a file) as UserErrors, in one place.

Every room writes files through other libraries, each with exceptions of its own: OSError with and without a number,
safetensors' SafetensorError, torch's RuntimeError, the plain Exception of the tokenizers library. The command line
hands them here.
"""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from bert_lamb.errors import UserError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_LEAVE = {errno.EACCES, errno.EPERM, errno.EROFS}
IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY}
NO_NAME = {errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP}
BROKEN = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO}
TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}
KNOWN = NO_SPACE | NO_LEAVE | IN_THE_WAY | NO_NAME | BROKEN | TOO_MANY_FILES
# What writing to or opening a file raises without a path; others name theirs, or are defects, or of the network.
WITHOUT_A_PATH = NO_SPACE | TOO_MANY_FILES | BROKEN - {errno.ETIMEDOUT, errno.ENOTCONN}

_NUMBER = re.compile(r"(?:os error|errno) (\d+)", re.IGNORECASE)  # as Rust's and Arrow's libraries write it
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written|unexpected pos \d+ vs \d+")  # numpy's, and torch.save's
# Of torch's allocators: MemoryError is only Python's, numpy's and Arrow's.
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|CUDA out of memory|storage size calculation overflow", re.I
)
_WRITERS_OF_TEXT = ("SafetensorError", "RuntimeError", "Exception")  # say what happened in words alone


def user_error_of(error: BaseException, *, output: Path | None, how_to_go_on: str) -> UserError | None:
    """The same as a UserError, or None for what is no refusal of the system.

    output: what the command writes, for errors that name no file. how_to_go_on: what to do after the cause is gone.
    """
    for cause in _chain(error):
        if isinstance(cause, MemoryError) or (isinstance(cause, RuntimeError) and _NO_MEMORY.search(str(cause))):
            return _without_memory(cause)
        number = _number_of(cause)
        path = _path_of(cause)
        if number in KNOWN and (path is not None or number in WITHOUT_A_PATH):
            return _said(number, path or output, _wanted(cause), how_to_go_on)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _number_of(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if type(error) is OSError or type(error).__name__ in _WRITERS_OF_TEXT:
        found = _NUMBER.search(str(error))
        if found:
            return int(found[1])
        if _CUT_SHORT.search(str(error)):
            return errno.ENOSPC
    return None


def _path_of(error: BaseException) -> str | None:
    """The file that could not be written: of a renaming its new name."""
    if not isinstance(error, OSError):
        return None
    name = error.filename2 if error.filename2 is not None else error.filename
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else None


def _wanted(error: BaseException) -> str:
    """How much was to be written, where it is said."""
    found = re.search(r"(\d+) requested and (\d+) written", str(error))
    return f"{int(found[1]):,} bytes wanted, {int(found[2]):,} written, " if found else ""


def _said(number: int, path: str | Path | None, wanted: str, how_to_go_on: str) -> UserError:
    where = path or "the output"
    what = os.strerror(number).lower()
    if number in NO_SPACE:
        return UserError(
            found=f"{what} at {where} ({wanted}{_free(path or Path())})",
            expected="room for what is being written",
            fix=f"make room, and {how_to_go_on}; what was complete is kept",
        )
    if number in TOO_MANY_FILES:
        return UserError(found=f"{what} at {where}", expected="more of them", fix=f"ulimit -n 4096, and {how_to_go_on}")
    if number in NO_LEAVE:
        remedy = "mount it for writing" if number == errno.EROFS else "change its owner or mode"
        expected, fix = "leave to read or write there", f"choose another path, or {remedy}"
    elif number in BROKEN:
        expected, fix = "a file system that answers", f"look after it, and {how_to_go_on}"
    else:
        expected, fix = "a path that can be used", "choose another path, or move away what is there"
    return UserError(found=f"{what}: {where}", expected=expected, fix=fix)


def _without_memory(error: BaseException) -> UserError:
    asked = str(error).strip().splitlines()
    return UserError(
        found=f"no memory for what is asked for ({asked[0][:300] if asked else type(error).__name__})",
        expected="sizes that fit into this machine",
        fix="set a smaller model, batch, length or count, or take a machine with more memory",
    )


def _free(path: str | Path) -> str:
    """How much the file system of the path has left."""
    folder = Path(path).absolute()
    while True:
        try:
            found = os.statvfs(folder)
        except OSError:
            if folder == folder.parent:
                return "free space unknown"
            folder = folder.parent
            continue
        inodes = "" if found.f_favail or not found.f_files else ", and no file more"
        return f"{found.f_bavail * found.f_frsize / 1e6:,.1f} MB free{inodes}"
