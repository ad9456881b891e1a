"""Many tasks over a pool of processes, their results in order."""

import errno
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context, parent_process
from typing import TypeVar

from bert_lamb.errors import UserError

TASKS_IN_FLIGHT_PER_WORKER = 2  # bounds the memory: one being worked on, one waiting

Result = TypeVar("Result")


def require_workers(num_workers: int | None) -> None:
    """UserError where so many worker processes were asked for, and this machine gives them no semaphores."""
    if num_workers is not None and num_workers > 1:
        try:
            get_context("spawn").Lock()
        except OSError as error:
            raise _no_workers(num_workers, error) from error


class Pool:
    """`num_workers` processes; none, where it is 1: the work is done in this one.

    num_workers: None for one a core, or for none with a line that says so, where this machine gives workers no
    semaphores (they are in /dev/shm). UserError where that happens to a number that was asked for.
    """

    def __init__(self, num_workers: int | None) -> None:
        self.is_asked_for = num_workers is not None
        self.num_workers = num_workers or len(os.sched_getaffinity(0))
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Pool":
        if self.num_workers > 1:
            try:
                self._executor = ProcessPoolExecutor(
                    self.num_workers, mp_context=get_context("spawn"), initializer=_begin_worker
                )
            except OSError as error:
                if self.is_asked_for:
                    raise _no_workers(self.num_workers, error) from error
                print(f"working in one process: worker processes need /dev/shm ({error.strerror})", file=sys.stderr)
                self.num_workers = 1
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            with suppress(RuntimeError):  # where its own thread could not be started, there is nothing to wait for
                self._executor.shutdown(cancel_futures=True)

    def run(self, tasks: Iterable[Callable[[], Result]]) -> Iterator[Result]:
        """The result of each task, in order; only so many are taken ahead as keep the workers busy.

        Raises what a task raises, and UserError if a process dies or cannot be started.
        """
        if self._executor is None:
            for task in tasks:
                yield task()
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._submit(task))
                if len(waiting) >= TASKS_IN_FLIGHT_PER_WORKER * self.num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                found="a worker process that died",
                expected=f"{self.num_workers} workers, each with memory for the text of a partition and a shard",
                fix="if the memory ran out, set a smaller num_workers, partition_bytes or instances_per_shard; "
                "num_workers=1 needs no worker",
            ) from error
        except Exception as error:
            if os.strerror(errno.EAGAIN) in str(error):  # of a thread that a library wants, in whatever it raises
                raise _no_workers(self.num_workers, BlockingIOError(errno.EAGAIN, "no more threads")) from error
            raise

    def _submit(self, task: Callable[[], Result]) -> Future[Result]:
        """Give a task to a worker; one more is started if all are busy."""
        assert self._executor is not None
        try:
            return self._executor.submit(task)
        except BrokenProcessPool:
            raise
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            raise _no_workers(self.num_workers, error) from error


def _no_workers(num_workers: int, error: OSError | RuntimeError) -> UserError:
    reason = getattr(error, "strerror", None) or str(error)
    code = getattr(error, "errno", None)
    if code == errno.EMFILE:
        needed, fix = "files that may be open (ulimit -n)", "raise the limit"
    elif code == errno.EAGAIN or isinstance(error, RuntimeError):
        needed, fix = "processes that may be started (ulimit -u, the container's pids limit)", "raise the limit"
    else:
        needed, fix = "a /dev/shm that may be written", "mount it (in a container: --shm-size)"
    return UserError(
        found=f"worker processes that cannot be started ({reason})",
        expected=f"for num_workers={num_workers}: {needed}",
        fix=f"set num_workers=1, which needs no worker, or {fix}",
    )


def _begin_worker() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the pool is the parallelism
    with suppress(RuntimeError):  # no thread can be started: the worker does its work without
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Where the parent is killed alone, nobody else ends its workers: they would wait for tasks for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
