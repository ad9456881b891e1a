"""The one place where global batch, micro-batch, accumulation and world size meet."""

from dataclasses import dataclass

from bert_lamb.errors import UserError


@dataclass(frozen=True)
class BatchPlan:
    """How one stage's global batch is cut into micro-batches.

    All counts are sequences unless the name says otherwise. `gradient_accumulation_steps` is derived, never given.
    max_micro_batch_size: what was asked for, or fits. micro_batch_size: the largest divisor of a rank's share within.
    """

    global_batch_size: int
    max_micro_batch_size: int
    micro_batch_size: int
    world_size: int
    total_steps: int
    max_seq_length: int  # tokens

    @property
    def gradient_accumulation_steps(self) -> int:
        return self.global_batch_size // (self.micro_batch_size * self.world_size)

    @property
    def sequences_per_rank_and_step(self) -> int:
        return self.global_batch_size // self.world_size

    @property
    def total_sequences(self) -> int:
        return self.global_batch_size * self.total_steps

    @property
    def total_tokens(self) -> int:
        """Token positions, padding included."""
        return self.total_sequences * self.max_seq_length

    def describe(self) -> list[str]:
        """The arithmetic in full, one fact a line, for the start of a run."""
        reason = ""
        if self.micro_batch_size < self.max_micro_batch_size:
            reason = (
                f" (at most {self.max_micro_batch_size:,}; the largest divisor of"
                f" {self.sequences_per_rank_and_step:,} below it)"
            )
        return [
            f"{_counted(self.micro_batch_size, 'sequence')} per micro-batch and rank{reason}"
            f" x {self.gradient_accumulation_steps:,} accumulation = {self.sequences_per_rank_and_step:,} per rank",
            f"{self.sequences_per_rank_and_step:,} per rank x {_counted(self.world_size, 'rank')}"
            f" = {_counted(self.global_batch_size, 'sequence')} per step"
            f" = {self.global_batch_size * self.max_seq_length:,} token positions",
            f"{self.global_batch_size:,} x {_counted(self.total_steps, 'step')} = {self.total_sequences:,} sequences"
            f" = {self.total_tokens:,} token positions of length {self.max_seq_length}",
        ]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def plan_batch(
    *,
    key: str,
    global_batch_size: int,
    max_micro_batch_size: int,
    world_size: int,
    total_steps: int,
    max_seq_length: int,
) -> BatchPlan:
    """The plan of one stage, whose global batch is set by `key`; raises UserError when ranks cannot share it evenly."""
    if global_batch_size % world_size != 0:
        raise UserError(
            found=f"{key}={global_batch_size}, which {world_size} ranks do not share evenly",
            expected="a multiple of the number of ranks",
            fix=f"start {largest_divisor(global_batch_size, world_size)} ranks or set {key}",
        )
    micro_batch_size = largest_divisor(global_batch_size // world_size, max_micro_batch_size)
    return BatchPlan(global_batch_size, max_micro_batch_size, micro_batch_size, world_size, total_steps, max_seq_length)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`; both at least 1."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)
