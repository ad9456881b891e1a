"""Many tasks over a pool of processes, their results in order."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from bert_lamb.errors import UserError

TASKS_IN_FLIGHT_PER_WORKER = 2  # bounds the memory: one being worked on, one waiting

Result = TypeVar("Result")


class Pool:
    """`num_workers` processes; none, where it is 1: the work is done in this one."""

    def __init__(self, num_workers: int | None) -> None:
        self.num_workers = num_workers or len(os.sched_getaffinity(0))
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Pool":
        if self.num_workers > 1:
            self._executor = ProcessPoolExecutor(
                self.num_workers, mp_context=get_context("spawn"), initializer=_begin_worker
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def run(self, tasks: Iterable[Callable[[], Result]]) -> Iterator[Result]:
        """The result of each task, in order; only so many are taken ahead as keep the workers busy.

        Raises what a task raises, and UserError if a process dies.
        """
        if self._executor is None:
            for task in tasks:
                yield task()
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._executor.submit(task))
                if len(waiting) >= TASKS_IN_FLIGHT_PER_WORKER * self.num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                found="a worker process that died",
                expected=f"{self.num_workers} workers, each with memory for the text of a partition and a shard",
                fix="if the memory ran out, set a smaller num_workers, partition_bytes or instances_per_shard",
            ) from error


def _begin_worker() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the pool is the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Where the parent is killed alone, nobody else ends its workers: they would wait for tasks for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
