"""How far a run is, and how a phase hands over to the next."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Position:
    """How far a run is: after `step` optimizer steps of `phase`.

    optimizer_step: applied steps as bias correction counts them. loss_scale, loss_scale_counters: of fp16, else None.
    batches_skipped: of this phase, so that step k trains on batch k + batches_skipped; num_rollbacks: of the run.
    lowest_loss, calm_step, recent_losses: what the guard of the phase remembers (train/guards.py).
    is_target_reached: the run is done.
    """

    phase: str
    step: int
    optimizer_step: int
    loss_scale: float | None = None
    loss_scale_counters: list[int] | None = None  # see Engine
    batches_skipped: int = 0
    num_rollbacks: int = 0
    lowest_loss: float | None = None
    calm_step: int = 0
    recent_losses: list[float] = field(default_factory=list)
    is_target_reached: bool = False


def hand_over(finished: Position, *, next_phase: str, keeps_count: bool = False) -> Position:
    """Where the next phase starts: weights and moments are kept, the schedule and bias correction start again.

    keeps_count: bias correction goes on instead, as it must where one curve of the learning rate goes on: to start it
    again would blow up moments that are warm already, without a warm-up to soften it.

    Source: NVIDIA's BERT keeps the optimizer's moments and resets its step for phase 2; the paper (section 4.1)
    re-warms the learning rate up from zero.
    """
    return Position(
        next_phase,
        step=0,
        optimizer_step=finished.optimizer_step if keeps_count else 0,
        loss_scale=finished.loss_scale,
        loss_scale_counters=finished.loss_scale_counters,
        num_rollbacks=finished.num_rollbacks,
    )
