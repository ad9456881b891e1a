"""Watch a check that the ranks take together: a rank that fails, or gets no answer, does not hold up the report.

A rank that waits inside a collective cannot be reached by Python, so a thread watches the store, over a connection of
its own, and ends the process: rank 0's after the report is complete.
"""

import os
import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

import torch

from bert_lamb.doctor.finding import failed, name_ranks
from bert_lamb.doctor.ranks import Ranks
from bert_lamb.doctor.report import Report

POLL_SECONDS = 0.2
GRACE_SECONDS = 2.0  # that ranks which fail alike get to find each other, and others to read rank 0's last word


class Watch:
    """Around one check. Use it as a context; `back` and `fail` say how this rank came out."""

    def __init__(self, name: str, ranks: Ranks, report: Report) -> None:
        self.name, self.ranks, self.report = name, ranks, report
        self.is_over = threading.Event()
        self.store: Any = None
        self.thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.ranks.world_size > 1:
            self.store = self.ranks.store.clone()
            self.thread = threading.Thread(target=self._watch, name=f"watch {self.name}", daemon=True)
            self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.is_over.set()
        if self.thread is not None:
            self.thread.join()

    def back(self) -> None:
        self._set(f"back/{self.ranks.rank}", "")

    def fail(self, line: str) -> None:
        """Tell the ranks that wait for this one."""
        self._set("failed", f"{line} (on {name_ranks([self.ranks.rank], self.report.hosts)})")

    def _set(self, key: str, text: str) -> None:
        if self.ranks.world_size > 1:
            self.ranks.store.set(f"{self.name}/{key}", text)

    def _watch(self) -> None:
        until = time.monotonic() + self.ranks.timeout_seconds
        try:
            while not self.is_over.wait(POLL_SECONDS):
                if self.store.check([f"{self.name}/failed"]):
                    if not self.is_over.wait(GRACE_SECONDS):
                        self._end(self.store.get(f"{self.name}/failed").decode())
                    return
                if time.monotonic() > until:
                    self._end(self._unanswered())
                    return
        except torch.distributed.DistError:  # who serves the store has left
            os._exit(1)

    def _unanswered(self) -> str:
        every = range(self.ranks.world_size)
        inside = [rank for rank in every if not self.store.check([f"{self.name}/back/{rank}"])]
        who = name_ranks(inside, self.report.hosts) if inside else "all ranks back"
        return f"no answer in {self.ranks.timeout_seconds:g} s; still inside: {who}"

    def _end(self, found: str) -> None:
        """Leave, whatever the main thread waits for; rank 0 when the report is complete, the others after it."""
        ended = f"{self.name}/ended"
        try:
            if self.ranks.rank == 0:
                fix = "fix that rank's error; or see that the link between these machines is up, without a firewall"
                self.report.add_last(self.name, failed(found, fix=fix))
                self.report.finish()
                self.store.set(ended, "")
                time.sleep(GRACE_SECONDS / 2)  # the others leave before the store does
            else:
                until = time.monotonic() + 5 * GRACE_SECONDS
                while not self.store.check([ended]) and time.monotonic() < until:
                    time.sleep(POLL_SECONDS)
        except Exception as error:  # such as a disk without room for the json
            print(f"bert-lamb doctor: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(1)
