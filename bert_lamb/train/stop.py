"""Stopping between two steps when the machine's owner asks, on every rank after the same one."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# SIGTERM: launchers, SLURM at the end of its patience. SIGUSR1: SLURM some minutes before a time limit. SIGHUP: a lost
# terminal. SIGINT: Ctrl-C. SIGQUIT (Ctrl-\) stays what it is, the end at once.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
AT_ONCE = (signal.SIGTERM, signal.SIGINT)  # whose repetition ends the process
STOPPED_BY_SIGNAL = 143  # exit status of a run that saved and can be continued
END = 0  # no signal has this number; it ends the listener
ECHO_SECONDS = 1.0  # a terminal, a launcher and its launcher may all pass on one request


class StopFlag:
    """is_agreed: every rank knows that a rank was asked, after the same step."""

    def __init__(self) -> None:
        self.is_agreed = False
        self._is_told = False
        self._began_at, self._until = time.monotonic(), math.inf

    @property
    def is_asked(self) -> bool:
        """Whether this rank was told to stop, or its time is up."""
        return self._is_told or time.monotonic() >= self._until

    def tell(self) -> None:
        self._is_told = True

    def limit(self, minutes: float | None) -> None:
        """Time is up so long after the flag was made, with the process; None: never."""
        self._until = math.inf if minutes is None else self._began_at + 60 * minutes


_active: StopFlag | None = None  # signals belong to the process, so there is one flag however often it is asked for


@contextmanager
def stop_on_signals(*, after_minutes: float | None = None) -> Iterator[StopFlag]:
    """The first of SIGNALS ends the run after the step, with a checkpoint; a second SIGINT or SIGTERM ends it at once.

    What the process was started to ignore stays ignored, such as SIGHUP under nohup. Inside another
    `stop_on_signals` the flag is that one's: the command line asks first thing, so that a signal which comes while
    libraries are loaded is not lost. Outside the main thread, which alone may handle signals, none raises the flag.
    after_minutes: since the outermost was asked for, the run is stopped as by a signal; None: never.
    """
    global _active
    if _active is not None or threading.current_thread() is not threading.main_thread():
        flag = _active or StopFlag()
        flag.limit(after_minutes)
        yield flag
        return
    flag = _active = StopFlag()
    flag.limit(after_minutes)
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {number: signal.signal(number, _ask) for number in heard}
    # The interpreter writes each signal's number there even while the main thread waits for other ranks in C code,
    # where no Python handler would run.
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(reader, flag), name="signals", daemon=True)
    listener.start()
    try:
        yield flag
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(writer, bytes([END]))
        listener.join()
        os.close(writer)
        os.close(reader)
        _active = None


def _leave_to_parent() -> None:
    """A forked child has its own fate: its signals are not the trainer's, and end it as usual."""
    if _active is not None:
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if signal.getsignal(number) is _ask:
                signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_leave_to_parent)


def _ask(number: int, frame: FrameType | None) -> None:
    if _active is not None:
        _active.tell()


def _listen(reader: int, flag: StopFlag) -> None:
    asked_at: float | None = None
    while (number := os.read(reader, 1)[0]) != END:
        if number not in SIGNALS:
            continue
        if asked_at is None:
            flag.tell()
            asked_at = time.monotonic()
            if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
                name = signal.Signals(number).name
                _say(f"{name}: stopping after this step, with a checkpoint (a second SIGINT or SIGTERM: at once)")
        elif number in AT_ONCE and time.monotonic() - asked_at > ECHO_SECONDS:
            os._exit(128 + number)  # the main thread may be waiting for a rank that is gone


def _say(text: str) -> None:
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
