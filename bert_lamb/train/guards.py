"""When to give up: a run that takes no step any more is stopped with a sentence instead of running on."""

from bert_lamb.errors import UserError

MAX_CONSECUTIVE_SKIPS = 50  # steps; a dynamic loss scale needs some, a diverged run never stops


class SkippedSteps:
    """Watches for steps that were skipped because their gradient was not finite.

    has_applied: whether the stage had applied one when this process began.
    """

    def __init__(self, stage: str, *, has_applied: bool = False) -> None:
        self.stage, self.num_in_a_row, self.has_applied = stage, 0, has_applied

    def watch(self, step: int, *, is_applied: bool, is_last: bool) -> None:
        """Raises UserError after too many skipped steps in a row, and at the end of a stage that applied none."""
        self.num_in_a_row = 0 if is_applied else self.num_in_a_row + 1
        self.has_applied = self.has_applied or is_applied
        if self.num_in_a_row > MAX_CONSECUTIVE_SKIPS or (is_last and not self.has_applied):
            raise UserError(
                found=f"{self.num_in_a_row} steps in a row with a gradient that is not finite"
                f" ({self.stage}, step {step})",
                expected="a finite gradient",
                fix="start again in another run_dir with a lower peak_lr, or with runtime.precision=fp32",
            ).reported_by("rank 0")
