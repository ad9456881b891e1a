"""When to give up: a run that no longer learns is stopped with a diagnosis, or rolled back, instead of running on.

Whatever is watched is the same on every rank, so all give up after the same step.
"""

import torch

from bert_lamb.checkpoint.position import Position
from bert_lamb.engine.protocol import Engine, NormRecord, StepResult
from bert_lamb.errors import UserError
from bert_lamb.train.settings import GuardSettings


class Diverged(UserError):
    """A run that learns nothing any more."""


class Spike(Diverged):
    """The loss has risen at `step` of a stage. calm_step: the last one whose checkpoint is from before the rise."""

    step: int = 0
    calm_step: int = 0


class Guard:
    """Watches one stage from `position` to its end. Its public attributes are kept in checkpoints."""

    def __init__(self, settings: GuardSettings, position: Position) -> None:
        self.stage, self.settings = position.phase, settings
        self.lowest_loss, self.calm_step = position.lowest_loss, position.calm_step
        self._num_skipped, self._has_applied = 0, position.optimizer_step > 0
        self.recent_losses = position.recent_losses[-settings.window_steps :]

    def watch(self, step: int, loss: float, result: StepResult, engine: Engine, *, is_last: bool) -> None:
        """Raises Diverged where steps are skipped without end, and Spike; on every rank, for rank 0 to print."""
        if result.is_applied:
            self._num_skipped, self._has_applied = 0, True
            self._watch_loss(step, loss, engine)
            return
        self._num_skipped += 1
        where = f"{self.stage}, step {step}"
        if engine.loss_scale is not None and engine.loss_scale == engine.loss_scale_floor:
            raise Diverged(
                found=f"a gradient that is not finite at the loss scale's floor, {engine.loss_scale:g} ({where})",
                expected="a loss scale at which fp16 holds the gradient",
                fix="start again in another run_dir with runtime.precision=bf16, or with a lower peak_lr",
            ).reported_by("rank 0")
        if self._num_skipped > self.settings.max_skipped_steps or (is_last and not self._has_applied):
            raise Diverged(
                found=f"{self._num_skipped} steps in a row with a gradient that is not finite ({where})",
                expected=f"a finite gradient (guards.max_skipped_steps={self.settings.max_skipped_steps})",
                fix="start again in another run_dir with a lower peak_lr, or with runtime.precision=fp32",
            ).reported_by("rank 0")

    def _watch_loss(self, step: int, loss: float, engine: Engine) -> None:
        self.recent_losses = [*self.recent_losses, loss][-self.settings.window_steps :]
        if len(self.recent_losses) < self.settings.window_steps:
            return
        mean, bound = sum(self.recent_losses) / self.settings.window_steps, self.settings.max_loss_rise
        self.lowest_loss = mean if self.lowest_loss is None else min(self.lowest_loss, mean)
        if mean < self.lowest_loss + bound / 2:
            self.calm_step = max(self.calm_step, step - self.settings.window_steps)
        if mean > self.lowest_loss + bound and self.settings.on_spike != "ignore":
            raise self._spike(step, mean, mean - self.lowest_loss, engine)

    def _spike(self, step: int, mean: float, rise: float, engine: Engine) -> Spike:
        spike = Spike(
            found=f"a loss of {mean:.3f} over {self.settings.window_steps} steps, {rise:.3f} above the lowest"
            f" ({self.stage}, step {step}{of_largest(engine.norms())})",
            expected=f"a rise of at most guards.max_loss_rise={self.settings.max_loss_rise:g}",
            fix="start again in another run_dir with a lower peak_lr or a longer warm-up, or resume with"
            " guards.on_spike=rollback, which goes back to before the rise and passes over these batches",
        )
        spike.step, spike.calm_step = step, self.calm_step
        spike.reported_by("rank 0")
        return spike


def of_largest(norms: list[NormRecord]) -> str:
    """The parameters of the last step with the largest update and the largest trust ratio; nothing without LAMB."""
    if not norms:
        return ""
    names = [name for record in norms for name in record.names]
    ratios = torch.cat([record.trust_ratio for record in norms])
    updates = ratios * torch.cat([record.update_norm for record in norms])
    update, ratio = int(updates.argmax()), int(ratios.argmax())
    return (
        f"; largest update {float(updates[update]):.3g} x lr, of {names[update]};"
        f" largest trust ratio {float(ratios[ratio]):.3g}, of {names[ratio]}"
    )
