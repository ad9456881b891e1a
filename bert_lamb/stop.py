"""Stopping between two steps when the machine's owner asks, on every rank after the same one."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """is_asked: this rank was told to stop. is_agreed: every rank knows, after the same step."""

    is_asked = False
    is_agreed = False


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """SIGTERM and SIGUSR1 (as SLURM sends before a time limit) end the run after the step, with a checkpoint."""
    flag = StopFlag()

    def ask(number: int, frame: FrameType | None) -> None:
        flag.is_asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
