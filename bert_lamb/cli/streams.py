"""Standard streams that never end the work, whatever terminal, batch system or cron job started the program.

A reader that has gone away costs the lines, not the run:
`| tee` that died, a closed terminal and a stopped launcher raise BrokenPipeError or EIO at the next line, and a full
disk under a log file ENOSPC. What is printed here is never the result of a command (results are files), so from then
on the lines go nowhere.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, TextIO


class PatientStream:
    """A text stream whose writes and flushes do not raise OSError; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_full = False  # the disk under it had no room: what was printed has a reader, and is lost for it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            self._give_up(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Point the descriptor at nothing, so that what is still buffered, C libraries and children do not fail."""
        if isinstance(error, UnicodeError) or (isinstance(error, ValueError) and not self._stream.closed):
            raise error
        self.is_full = self.is_full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):  # no descriptor below: nothing is buffered either
            pass


@contextmanager
def patient_streams() -> Iterator[PatientStream]:
    """Standard output, which is yielded, and error are patient inside.

    They are flushed at the end, so that the interpreter's exit cannot fail.
    """
    make_streams_safe()
    before = sys.stdout, sys.stderr
    output, errors = (PatientStream(stream) for stream in before)
    sys.stdout, sys.stderr = output, errors  # type: ignore[assignment]
    try:
        yield output
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def make_streams_safe() -> None:
    """Open what is closed on /dev/null, and print what a terminal has no character for as \\xe9, \\u4e2d or the like.

    A closed stream is None in Python, and its number is given to the next file that is opened, which then gets the
    output of libraries and child processes.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if not _is_open(number):
            null = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
