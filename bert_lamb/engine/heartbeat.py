"""How far every rank is, reported through the store in which they met, so that a waiting rank can say for which one.

A rank that waits inside a collective cannot be asked. A thread of each therefore writes its place to the store, over a
connection of its own; when a collective fails, the rank that is silent or behind is named.
"""

import atexit
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

from bert_lamb.engine.place import rank_label
from bert_lamb.errors import UserError

BEAT_SECONDS = 2.0
SILENT_BEATS = 3  # a rank that misses so many is stopped, dead or cut off
HANGING_SECONDS = 30.0  # beyond the timeout, for a rank that the others have given up
STORE_SECONDS = 10.0  # that the store may take; the rank that serves it may be the one that is gone
OF_GLOO = "gloo/transport"  # in the text of whatever gloo raises, which has no type of its own
LOOK = "look at that machine and its log"
GO_ON = "start again with if_exists=resume"
NOBODY = "no answer between the ranks"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Beat:
    """One rank's last word. place: what it was at; num_entered: places so far, the same on all ranks that keep up."""

    host: str
    num_beats: int
    place: str
    num_entered: int
    seconds: float  # in that place

    def describe(self, rank: int) -> str:
        return f"rank {rank} ({self.host})"


class Heartbeat:
    """This rank's place, and a thread that tells it. warns: print who is behind before the group times out."""

    def __init__(self, store: Any, *, rank: int, world_size: int, timeout_seconds: float, warns: bool = False) -> None:
        self.store, self.rank, self.world_size, self.timeout_seconds = store, rank, world_size, timeout_seconds
        self.warns = warns
        self.step, self.part = "before the first step", ""
        self._num_entered, self._entered_at, self._num_beats = 0, time.monotonic(), 0
        self._has_warned = False
        self.is_explained = False  # a rank has failed, and has said why
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """The first beat is there on return, so that the host of a rank that is lost at once is known."""
        with suppress(torch.distributed.DistError):
            self.store.set_timeout(timedelta(seconds=STORE_SECONDS))
            self._tell()
        self._thread.start()

    def stop(self) -> None:
        """Waits for the beat on its way: the interpreter's end aborts a process whose thread is in torch's C++."""
        self._is_over.set()
        self._thread.join(STORE_SECONDS)

    def enter(self, part: str, *, step: str | None = None) -> None:
        """This rank begins another part of a step; costs no time."""
        self.step, self.part = step or self.step, part
        self._num_entered += 1
        self._entered_at = time.monotonic()

    def beat(self) -> Beat:
        place = f"{self.step}, {self.part}" if self.part else self.step
        seconds = time.monotonic() - self._entered_at
        return Beat(socket.gethostname(), self._num_beats, place, self._num_entered, seconds)

    def _tell(self) -> None:
        self._num_beats += 1
        self.store.set(f"beat/{self.rank}", json.dumps(asdict(self.beat())))

    def _run(self) -> None:
        try:
            while not self._is_over.wait(BEAT_SECONDS):
                self._tell()
                self.is_explained = self._is_explained()  # before the rank that serves the store leaves
                if self.warns and not self._has_warned and self.beat().seconds > 0.9 * self.timeout_seconds:
                    self._has_warned = True
                    threading.Thread(target=self._warn, name="who is behind", daemon=True).start()
        except torch.distributed.DistError:  # who serves the store has left
            self._end_if_hanging()

    def _end_if_hanging(self) -> None:
        """End this process where its main thread hangs outside collectives: the others are gone, its launcher waits.

        In a collective it would have noticed by itself, and said so.
        """
        while not self._is_over.wait(BEAT_SECONDS):
            here = self.beat()
            if here.seconds > self.timeout_seconds + HANGING_SECONDS:
                hanging = UserError(
                    found=f"the other ranks gone, and this one for {here.seconds:.0f} s at {here.place}",
                    expected="a part of a step within runtime.collective_timeout_seconds",
                    fix=f"{LOOK} (its disk, if it reads or writes); {GO_ON}",
                )
                print(f"{rank_label()}{hanging}", file=sys.stderr, flush=True)
                os._exit(1)

    def _warn(self) -> None:
        """NCCL ends the process where Python catches nothing; who is behind is said before, where anybody is."""
        with suppress(torch.distributed.DistError):
            error = self.diagnosis()
            if error is not None and NOBODY not in error.found:
                print(error, file=sys.stderr, flush=True)

    def _is_explained(self) -> bool:
        """See agreement.is_first_to_fail, which counts."""
        return bool(self.store.check(["failed"]) and int(self.store.get("failed")) > 0)

    def beats(self) -> list[Beat | None]:
        """Every rank's last word, None where there is none yet."""
        found: list[Beat | None] = []
        for rank in range(self.world_size):
            key = f"beat/{rank}"
            found.append(Beat(**json.loads(self.store.get(key))) if self.store.check([key]) else None)
        return found

    def diagnosis(self) -> UserError | None:
        """Who is silent, or behind; takes SILENT_BEATS. None where another rank has said why it failed.

        It is this rank's error alone; the words are the same on every rank that waits.
        """
        here = self.beat()
        before = self.beats()
        self._is_over.wait(SILENT_BEATS * BEAT_SECONDS)
        if self._is_explained():
            return None
        return explain(before, self.beats(), here, rank=self.rank, timeout_seconds=self.timeout_seconds)


def explain(
    before: list[Beat | None], after: list[Beat | None], here: Beat, *, rank: int, timeout_seconds: float
) -> UserError:
    """Whom rank `rank`, which is at `here`, was waiting for, from all ranks' beats some beats apart."""
    silent: list[str] = []
    behind: list[str] = []
    for other, (first, last) in enumerate(zip(before, after, strict=True)):
        if other == rank:
            continue
        if last is None:
            silent.append(f"rank {other}, of which nothing was heard")
        elif first is not None and first.num_beats == last.num_beats:
            silent.append(f"{last.describe(other)}, last heard at {last.place}")
        elif last.num_entered < here.num_entered:
            behind.append(f"{last.describe(other)}, alive, at {last.place}")
    setting = f"runtime.collective_timeout_seconds={timeout_seconds:g}"
    if silent:
        return UserError(
            found=f"no sign of life from {'; '.join(silent)}", expected="every rank", fix=f"{LOOK}; {GO_ON}"
        )
    if behind:
        return UserError(
            found=f"the other ranks waiting for {'; '.join(behind)}",
            expected=f"every rank as far within {setting}",
            fix=f"{LOOK} (its disk, if it reads or writes); {GO_ON}, or set a longer time",
        )
    return UserError(
        found=f"{NOBODY} at {here.place}: all ranks are alive and equally far",
        expected=f"an answer within {setting}",
        fix=f"see that the network between the machines is up (bert-lamb doctor); {GO_ON}",
    )


_here: Heartbeat | None = None  # as the process group, there is one in a process


def start(*, rank: int, world_size: int, timeout_seconds: float) -> None:
    """Tell the others from now on; after the process group is joined."""
    global _here
    store: Any = torch.distributed.distributed_c10d._get_default_store()
    warns = torch.distributed.get_backend() == "nccl"
    here = Heartbeat(store.clone(), rank=rank, world_size=world_size, timeout_seconds=timeout_seconds, warns=warns)
    here.start()
    _here = here
    atexit.register(stop)  # whichever way the process ends


def stop() -> None:
    global _here
    if _here is not None:
        _here.stop()
    _here = None


def enter(part: str, *, step: str | None = None) -> None:
    """See Heartbeat.enter; nothing where there are no other ranks."""
    if _here is not None:
        _here.enter(part, step=step)


def is_lost_contact(error: BaseException) -> bool:
    """Whether a collective failed because another rank did not answer, or its connection closed."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and OF_GLOO in str(error))


def lost_contact(error: BaseException) -> UserError | None:
    """For an error of `is_lost_contact`: who is to be looked at, or None where another rank has said so itself."""
    here = _here
    if here is None or here.is_explained:
        return None
    longest = SILENT_BEATS * BEAT_SECONDS + STORE_SECONDS
    unreachable: UserError | None = UserError(
        found=f"neither the other ranks nor rank 0's store ({_address()}) reachable, after {here.beat().place}",
        expected="the machine of rank 0, and the network to it",
        fix=f"{LOOK}; {GO_ON}",
    )
    return within(longest, here.diagnosis, otherwise=unreachable)


def _address() -> str:
    return f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"


def linger() -> None:
    """Before rank 0 leaves alone: while it serves the store, the others look there for what has happened."""
    if _here is not None and _here.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        time.sleep((SILENT_BEATS + 2) * BEAT_SECONDS)


def within(seconds: float, ask: Callable[[], Value], *, otherwise: Value) -> Value:
    """What `ask` returns; `otherwise` where the store has left, or does not answer: torch would wait without end."""
    answers: list[Value] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception:  # the rank that holds the store has left
            answers.append(otherwise)

    thread = threading.Thread(target=run, name="store", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else otherwise
