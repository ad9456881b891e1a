"""Standard output and error that never end the work: a reader that has gone away costs the lines, not the run.

`| tee` that died, a closed terminal and a stopped launcher raise BrokenPipeError or EIO at the next line, and a full
disk under a log file ENOSPC. What is printed here is never the result of a command (results are files), so from then
on the lines go nowhere.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class PatientStream:
    """A text stream whose writes and flushes do not raise OSError; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

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
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):  # no descriptor below: nothing is buffered either
            pass


@contextmanager
def patient_streams() -> Iterator[None]:
    """Standard output and error are patient inside; flushed at the end, so that the interpreter's exit cannot fail.

    A descriptor that was closed before the start (`2>&-`) gets the null device, or a file opened later would get its
    number and the lines of others.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_patient(stream, number) for number, stream in enumerate(before, start=1))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _patient(stream: TextIO | None, descriptor: int) -> Any:
    if stream is None:
        stream = _nowhere(descriptor)
    return PatientStream(stream)


def _nowhere(descriptor: int) -> TextIO:
    opened = os.open(os.devnull, os.O_WRONLY)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)
    return open(descriptor, "w", closefd=False)
