"""Where a run stands, and how a phase hands over to the next."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Position:
    """Where a run stands: after `step` optimizer steps of `phase`.

    optimizer_step: applied steps as bias correction counts them. loss_scale, loss_scale_counters: of fp16, else None.
    """

    phase: str
    step: int
    optimizer_step: int
    loss_scale: float | None = None
    loss_scale_counters: list[int] | None = None  # see Engine


def hand_over(finished: Position, *, next_phase: str) -> Position:
    """Where the next phase starts: weights and moments are kept, the schedule and bias correction start again.

    Source: NVIDIA's BERT keeps the optimizer's moments and resets its step for phase 2; the paper (section 4.1)
    re-warms the learning rate up from zero.
    """
    return replace(finished, phase=next_phase, step=0, optimizer_step=0)
