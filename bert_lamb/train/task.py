"""The port between the loop and what is learnt: pretraining's phases, SQuAD, GLUE and images are tasks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

from bert_lamb.engine.protocol import Engine
from bert_lamb.train.batch_plan import BatchPlan
from bert_lamb.train.schedule import Schedule


@dataclass(frozen=True)
class Stage:
    """A part of a run with its own batch and schedule: a phase of pretraining, or a fine-tuning.

    Where the schedule continues the curve of the stage before, bias correction goes on counting too.

    index: among the stages of the run. num_instances: rows that it trains on. steps_before: optimizer steps of
    earlier stages. heldout_kind: of the lines in metrics.jsonl that hold what `Task.evaluate` finds.
    """

    name: str
    index: int
    plan: BatchPlan
    schedule: Schedule
    num_instances: int
    steps_before: int = 0
    heldout_kind: str = "heldout"

    @property
    def continues_curve(self) -> bool:
        return self.schedule.steps_before > 0

    def describe(self) -> list[str]:
        """Schedule and batch arithmetic in full, for the start of a run."""
        schedule, plan = self.schedule, self.plan
        return [
            f"{schedule.total_steps:,} steps, {schedule.describe()},"
            f" {self.num_instances:,} instances ({plan.total_sequences / self.num_instances:.2f} epochs)",
            *plan.describe(),
        ]


class Counts(Protocol):
    """What is known of a step's global batch, over all ranks, before any loss is; a task may count more."""

    @property
    def num_sequences(self) -> int: ...
    @property
    def num_tokens(self) -> int:
        """Without padding."""


CountsType = TypeVar("CountsType", bound=Counts)
Batch = TypeVar("Batch")


class Task(Protocol[CountsType, Batch]):
    """What a stage learns, on one rank."""

    def micro_batches(self, first: int, last: int) -> Iterator[Batch]:
        """This rank's micro-batches of the global batches first..last, in order, on the device.

        The stage's first global batch is 1, and there is no last one: who passes over some goes beyond total_steps.
        """

    def counts(self, number: int) -> CountsType:
        """The normalizers of a global batch, the same on every rank."""

    def loss(self, model: Any, batch: Batch, counts: CountsType) -> tuple[Tensor, Tensor]:
        """(this micro-batch's share of the global batch's mean loss, its sums for `metrics`: [K] without gradient)."""

    def metrics(self, sums: list[float], counts: CountsType) -> dict[str, float]:
        """Fields of a step's line in metrics.jsonl, of sums over all ranks and micro-steps; "loss" among them."""

    def flops(self, counts: CountsType) -> int:
        """Floating-point operations of forward and backward over a global batch, by formula; padding does not count."""

    def evaluate(self, engine: Engine) -> dict[str, float] | None:
        """Fields of a held-out line, of which rank 0's are written; None where there is nothing to evaluate on."""
