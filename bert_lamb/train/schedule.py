"""What happens at which step: the learning rate (linear warm-up, then polynomial decay), and what recurs. Pure."""

from dataclasses import dataclass
from typing import Literal

DecayOriginName = Literal["start", "warmup_end"]
DecayEndName = Literal["last_step", "after_last_step"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step of a stage; see `lr_multiplier`."""

    total_steps: int
    peak_lr: float
    warmup_proportion: float
    decay_power: float = 1.0
    decay_origin: DecayOriginName = "warmup_end"
    decay_end: DecayEndName = "last_step"

    def lr(self, step: int) -> float:
        """The learning rate of optimizer step `step`, 1 for the first."""
        return self.peak_lr * lr_multiplier(
            step,
            total_steps=self.total_steps,
            warmup_proportion=self.warmup_proportion,
            decay_power=self.decay_power,
            decay_origin=self.decay_origin,
            decay_end=self.decay_end,
        )


def lr_multiplier(
    step: int,
    *,
    total_steps: int,
    warmup_proportion: float,
    decay_power: float,
    decay_origin: DecayOriginName,
    decay_end: DecayEndName = "last_step",
) -> float:
    """What the peak lr is multiplied with for optimizer step `step`, in 0..1.

    step: number of the update, 1 for the first.
    warmup_proportion: share of total_steps; the product need not be a whole number.
    decay_origin: "start" measures progress from step 0, (1 - step/total)^power, so the lr drops at once when warm-up
    ends; "warmup_end" measures it from the end of warm-up, so the lr is continuous.
    decay_end: "last_step" gives the last step 0; "after_last_step" counts the warm-up in whole steps and reaches 0 one
    step later, so that every step of a short fine-tuning moves the weights.

    Source: "start" is the rule of Google's BERT `create_optimizer` and NVIDIA's `PolyWarmUpScheduler`; NVIDIA numbers
    updates from 1 as we do, Google from 0 (its first update has lr 0 and its last 1/total).
    Raises ValueError for a step outside 1..total_steps.
    """
    if not 1 <= step <= total_steps:
        raise ValueError(f"step {step} is outside 1..{total_steps}")
    warmup_steps = warmup_proportion * total_steps
    if decay_end == "after_last_step":
        warmup_steps = int(warmup_steps)
        if step <= warmup_steps:
            return step / warmup_steps
        step -= 1
    elif step < warmup_steps:
        return step / warmup_steps
    origin = 0.0 if decay_origin == "start" else min(warmup_steps, total_steps)
    if origin == total_steps:
        return 1.0
    return float(((total_steps - step) / (total_steps - origin)) ** decay_power)


def is_due(step: int, interval_steps: int) -> bool:
    """Whether something that recurs every `interval_steps` steps happens after step `step`; 0 means never."""
    return interval_steps > 0 and step % interval_steps == 0
