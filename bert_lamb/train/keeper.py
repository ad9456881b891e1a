"""When a run saves, and what it keeps: checkpoints by steps, by the clock, at the end of a stage and at a signal.

Training stops for a copy to host memory; a thread writes it (saving.py). One checkpoint is in flight at most.
"""

import secrets
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Self

from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.writing import HostCopy, Plan, begin, shapes_of
from bert_lamb.engine.agreement import from_rank_0, together
from bert_lamb.engine.launch import Process
from bert_lamb.engine.protocol import Engine
from bert_lamb.errors import UserError
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.saving import Saving, refused
from bert_lamb.train.schedule import is_due
from bert_lamb.train.settings import CheckpointSettings
from bert_lamb.train.task import Stage


class Keeper:
    """Saves one run's checkpoints. about: facts for checkpoint.json beside the position.

    As a context it waits, when an error ends the run, for what is being written: on all ranks when all have the error,
    else on this one, since the others may not come.
    """

    def __init__(
        self, run_dir: RunDir, process: Process, settings: CheckpointSettings, *, about: Mapping[str, Any]
    ) -> None:
        self.run_dir, self.process, self.settings, self.about = run_dir, process, settings, about
        self._copy = HostCopy()
        self._thread: ThreadPoolExecutor | None = None  # from a stage's first save to its end
        self._saving: Saving | None = None
        self.start_clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with suppress(Exception):  # the error that is on its way is the one to report
            if isinstance(error, UserError) and error.reporter == "rank 0":
                self.settle()
            elif self._saving is not None:
                self._saving.leave()
        self._saving = None
        self._let_go()

    def start_clock(self) -> None:
        self._started_at = time.monotonic()

    def is_due_by_clock(self) -> bool:
        """Whether the last checkpoint, or the stage's start, is longer ago than settings.interval_minutes."""
        interval_seconds = 60 * self.settings.interval_minutes
        return 0 < interval_seconds <= time.monotonic() - self._started_at

    def is_due(self, step: int) -> bool:
        return is_due(step, self.settings.interval_steps)

    def save(self, engine: Engine, stage: Stage, position: Position, *, is_by_clock: bool) -> None:
        """Copy the state, and write it while training continues; waits for the previous save. Every rank calls it.

        Raises UserError on every rank when any could not write this one or the one before.
        """
        self.settle()
        directory = self.run_dir.checkpoint_dir(stage.name, position.step)
        about = {"total_step": stage.steps_before + position.step, "is_by_clock": is_by_clock, **self.about}
        attempt = from_rank_0(self.process, secrets.token_hex(4))
        buffers = shapes_of(engine.buffers)
        plan = Plan(directory, position, engine.world_size, engine.shapes, about, attempt, buffers)
        with together(self.process), refused(directory):
            if self.process.is_main:
                begin(plan)
        share = self._copy.take(engine)
        tidy_up = partial(self._tidy_up, stage.name, position.step)
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving = Saving(plan, share, self.process.rank, self._thread, after=tidy_up)
        if not self.settings.is_asynchronous:
            self.finish()
        self.start_clock()

    def known_here(self) -> tuple[bool, bool]:
        """(this rank is writing, its writing has failed), which the loop adds up over the ranks at every step."""
        if self._saving is None:
            return False, False
        is_writing = self._saving.is_writing  # asked first: who is not writing has failed by now, or has not
        return is_writing, self._saving.has_failed

    def heed(self, *, is_writing: bool, has_failed: bool) -> None:
        """What holds for any rank, at the same step on each. Raises UserError on all ranks when one has failed."""
        if has_failed:
            self.settle()
        elif self._saving is not None and not is_writing:
            self._saving.publish()

    def settle(self) -> None:
        """Wait until the checkpoint in flight is there; every rank calls it. Raises UserError on every rank."""
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        with together(self.process):
            saving.wait()
        with together(self.process):
            saving.publish()
            saving.wait()

    def finish(self) -> None:
        """`settle`, and let go of the thread and of the host memory."""
        self.settle()
        self._let_go()

    def _let_go(self) -> None:
        self._copy = HostCopy()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _tidy_up(self, stage: str, step: int) -> None:
        """Remove what is not to be kept; what cannot be removed stays, since the new checkpoint is there."""
        settings = self.settings
        try:
            self.run_dir.forget_damaged(stage, step)
            self.run_dir.remove_old_checkpoints(stage, keep_last=settings.keep_last, keep_every=settings.keep_every)
        except OSError as error:
            where, why = error.filename or self.run_dir.path, error.strerror or error
            print(f"keep     {where} cannot be removed ({why}); tried again at the next save", file=sys.stderr)
