"""Room on the disk for the checkpoints of a run. No torch."""

import math
from collections.abc import Sequence

from bert_lamb.train.settings import CheckpointSettings

MOMENTS = {"lamb": 2, "adamw": 2, "lars": 1}


def checkpoint_bytes(num_parameters: int, optimizer: str) -> int:
    """Of one checkpoint: weights and moments in fp32, whatever the precision and the number of ranks."""
    return num_parameters * 4 * (1 + MOMENTS[optimizer])


def checkpoints_at_once(steps_of_phases: Sequence[int], settings: CheckpointSettings) -> int:
    """In the run's folder at most: those kept of each phase (RunDir.remove_old_checkpoints), and the new one."""
    by_steps = settings.keep_last if settings.interval_steps else 1
    by_clock = 1 if settings.interval_minutes else 0
    kept = 0
    if settings.keep_every:  # the clock may strike at any multiple
        multiple = settings.keep_every if by_clock else math.lcm(settings.keep_every, settings.interval_steps)
        kept = sum(num_steps // multiple for num_steps in steps_of_phases) if multiple else 0
    return len(steps_of_phases) * (by_steps + by_clock) + kept + 1
