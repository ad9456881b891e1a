"""Standard streams that can be written to, whatever terminal, batch system or cron job has started the program."""

import os
import sys
from io import TextIOWrapper


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
