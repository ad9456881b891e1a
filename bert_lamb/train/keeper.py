"""When a run saves, and what it keeps: checkpoints by steps, by the clock, at the end of a stage and at a signal."""

import time
from collections.abc import Mapping
from typing import Any

from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.writing import save_checkpoint
from bert_lamb.engine.protocol import Engine
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.schedule import is_due
from bert_lamb.train.settings import CheckpointSettings
from bert_lamb.train.task import Stage


class Keeper:
    """Saves one run's checkpoints. about: facts for checkpoint.json beside the position."""

    def __init__(self, run_dir: RunDir, settings: CheckpointSettings, *, about: Mapping[str, Any]) -> None:
        self.run_dir, self.settings, self.about = run_dir, settings, about
        self.start_clock()

    def start_clock(self) -> None:
        self._started_at = time.monotonic()

    def is_due_by_clock(self) -> bool:
        """Whether the last checkpoint, or the stage's start, is longer ago than settings.interval_minutes."""
        interval_seconds = 60 * self.settings.interval_minutes
        return 0 < interval_seconds <= time.monotonic() - self._started_at

    def is_due(self, step: int) -> bool:
        return is_due(step, self.settings.interval_steps)

    def save(self, engine: Engine, stage: Stage, position: Position, *, is_by_clock: bool) -> None:
        """Write a checkpoint and remove those that are no longer kept; every rank calls it."""
        about = {"total_step": stage.steps_before + position.step, "is_by_clock": is_by_clock, **self.about}
        save_checkpoint(engine, self.run_dir.checkpoint_dir(stage.name, position.step), position=position, about=about)
        if engine.rank == 0:
            settings = self.settings
            self.run_dir.forget_damaged(stage.name, position.step)
            self.run_dir.remove_old_checkpoints(
                stage.name, keep_last=settings.keep_last, keep_every=settings.keep_every
            )
        self.start_clock()
