"""Machines that give no worker processes: one line that says so, or the work done without them.

Mutations that must turn it red: errors of semaphores and processes let through, no fall-back where no number was asked.
"""

import errno
import multiprocessing.synchronize
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest

from bert_lamb.errors import UserError
from data_prep.pool import Pool, require_workers


@pytest.fixture(params=[errno.EROFS, errno.ENOENT, errno.ENOSPC, errno.EACCES, errno.ENOSYS])
def without_semaphores(request, monkeypatch):
    """As where /dev/shm is read-only, absent or full."""

    def refuse(*arguments, **keywords):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", refuse)
    return os.strerror(request.param)


def test_no_semaphores_for_a_number_that_was_asked_for(without_semaphores):
    for begin in (require_workers, lambda number: Pool(number).__enter__()):
        with pytest.raises(UserError, match=rf"{without_semaphores}.*a /dev/shm that may be written.*num_workers=1"):
            begin(2)


def test_no_semaphores_where_no_number_was_asked_for(without_semaphores, monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    require_workers(None)
    with Pool(None) as pool:
        assert list(pool.run(partial(abs, -number) for number in range(9))) == list(range(9))
        assert pool.num_workers == 1
    assert capsys.readouterr().err == f"working in one process: worker processes need /dev/shm ({without_semaphores})\n"


def test_one_worker_needs_no_semaphores(without_semaphores):
    require_workers(1)
    with Pool(1) as pool:
        assert list(pool.run([partial(abs, -3)])) == [3]


@pytest.mark.parametrize(
    ("error", "needed"),
    [
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "processes that may be started"),
        (OSError(errno.EMFILE, "Too many open files"), "files that may be open"),
        (RuntimeError("can't start new thread"), "processes that may be started"),
    ],
)
def test_processes_that_cannot_be_started(monkeypatch, error, needed):
    def refuse(self, *arguments):
        raise error

    monkeypatch.setattr(ProcessPoolExecutor, "submit", refuse)
    with Pool(2) as pool, pytest.raises(UserError, match=f"for num_workers=2: {needed}.*set num_workers=1"):
        list(pool.run([partial(abs, -3)]))


def test_an_error_of_a_task_stays_what_it_is():
    with Pool(2) as pool, pytest.raises(ValueError, match="invalid literal"):
        list(pool.run([partial(int, "x")]))
