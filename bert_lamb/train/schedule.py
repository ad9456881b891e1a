"""What happens at which step: the learning rate (warm-up, decay, perhaps a cool-down), and what recurs. Pure."""

import math
from dataclasses import dataclass
from typing import Literal

DecayName = Literal["polynomial", "cosine", "constant", "exponential"]
DecayOriginName = Literal["start", "warmup_end"]
DecayEndName = Literal["last_step", "after_last_step"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step of a stage, as a function of the step alone; see `multiplier`.

    total_steps: of the stage. steps_before, steps_after: of the stages that share the curve with it, so that one curve
    goes on over several stages; proportions are of all of them.
    """

    total_steps: int
    peak_lr: float
    warmup_proportion: float
    decay_power: float = 1.0
    decay_origin: DecayOriginName = "warmup_end"
    decay_end: DecayEndName = "last_step"
    decay: DecayName = "polynomial"
    end_share: float = 0.0
    decay_rate: float | None = None
    decay_interval_steps: int | None = None
    cooldown_proportion: float = 0.0
    warmup_power: float = 1.0
    warmup_start_share: float = 0.0
    steps_before: int = 0
    steps_after: int = 0

    @property
    def curve_steps(self) -> int:
        """The steps of all stages that share the curve."""
        return self.steps_before + self.total_steps + self.steps_after

    def lr(self, step: int) -> float:
        """The learning rate of optimizer step `step` of the stage, 1 for the first."""
        return self.peak_lr * self.multiplier(step)

    def multiplier(self, step: int) -> float:
        """What the peak lr is multiplied with for optimizer step `step`, in 0..1.

        step: number of the update in the stage, 1 for the first.
        warmup_proportion: share of the curve's steps; the product need not be a whole number. The multiplier rises from
        warmup_start_share to 1, as the power warmup_power of the step.
        decay, then: "polynomial" (1 - progress)^decay_power; "cosine" half a wave; "constant"; "exponential"
        decay_rate^(steps / decay_interval_steps), which falls a little at every step. It is stretched to fall to
        end_share in the place of 0.
        decay_origin: "start" measures progress from step 0, so the lr drops at once when warm-up ends; "warmup_end"
        measures it from the end of warm-up, so the lr is continuous.
        cooldown_proportion: over this last share of the curve's steps a straight line to 0, from where decay is then.
        decay_end: "last_step" reaches the end of the curve in the last step; "after_last_step" counts the warm-up in
        whole steps and reaches it one step later, so that every step of a short fine-tuning moves the weights.

        Source: polynomial from the start is the rule of Google's BERT `create_optimizer` and NVIDIA's
        `PolyWarmUpScheduler`; NVIDIA numbers updates from 1 as we do, Google from 0 (its first update has lr 0 and its
        last 1/total). Exponential with warmup_power 2 is DeepSpeed's `warmup_exp_decay_exp`.
        Raises ValueError for a step outside 1..total_steps.
        """
        if not 1 <= step <= self.total_steps:
            raise ValueError(f"step {step} is outside 1..{self.total_steps}")
        step += self.steps_before
        warmup_steps = self.warmup_proportion * self.curve_steps
        if self.decay_end == "after_last_step":
            warmup_steps = int(warmup_steps)
            if step <= warmup_steps:
                return self._rising(step / warmup_steps)
            step -= 1
        elif step < warmup_steps:
            return self._rising(step / warmup_steps)
        cooldown_steps = self.cooldown_proportion * self.curve_steps
        cooldown_start = self.curve_steps - cooldown_steps
        if step > cooldown_start:
            return self._falling(cooldown_start, warmup_steps) * (self.curve_steps - step) / cooldown_steps
        return self._falling(step, warmup_steps)

    def _rising(self, progress: float) -> float:
        return self.warmup_start_share + (1 - self.warmup_start_share) * float(progress**self.warmup_power)

    def _falling(self, step: float, warmup_steps: float) -> float:
        origin = 0.0 if self.decay_origin == "start" else min(warmup_steps, self.curve_steps)
        if origin == self.curve_steps:
            return 1.0
        left = (self.curve_steps - step) / (self.curve_steps - origin)
        match self.decay:
            case "polynomial":
                share = left**self.decay_power
            case "cosine":
                share = (1 + math.cos(math.pi * (1 - left))) / 2
            case "constant":
                share = 1.0
            case "exponential":
                assert self.decay_rate is not None
                assert self.decay_interval_steps is not None
                share = self.decay_rate ** ((step - origin) / self.decay_interval_steps)
        return self.end_share + (1 - self.end_share) * float(share)

    @property
    def moves_nothing(self) -> bool:
        """Whether the learning rate is 0 at every step of the stage."""
        return not any(self.lr(step) for step in range(1, self.total_steps + 1))

    def describe(self) -> str:
        """The curve in words, for the start of a run."""
        steps = self.curve_steps
        shape = {
            "polynomial": "linear decay" if self.decay_power == 1 else f"decay of power {self.decay_power:g}",
            "cosine": "cosine decay",
            "constant": "constant",
            "exponential": f"x {self.decay_rate} every {self.decay_interval_steps} steps",
        }[self.decay]
        parts = [f"peak lr {self.peak_lr:g}", f"warm-up {self.warmup_proportion * steps:,.0f} steps", shape]
        if self.end_share:
            parts.append(f"to {self.end_share:.3g} of the peak")
        if self.cooldown_proportion:
            parts.append(f"cool-down {self.cooldown_proportion * steps:,.0f} steps")
        if steps > self.total_steps:
            first = self.steps_before + 1
            parts.append(f"steps {first:,} to {self.steps_before + self.total_steps:,} of one curve of {steps:,}")
        return ", ".join(parts)


def is_due(step: int, interval_steps: int) -> bool:
    """Whether something that recurs every `interval_steps` steps happens after step `step`; 0 means never."""
    return interval_steps > 0 and step % interval_steps == 0
