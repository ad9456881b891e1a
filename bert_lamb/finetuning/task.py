"""What the tasks of fine-tuning share: which rows a step trains on, and how the ranks share them.

Letters: N training rows, G rows of a global batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BertConfig

from bert_lamb.engine.protocol import Engine
from bert_lamb.finetuning.tokens import FeatureBatch, TokenRow, lay_out
from bert_lamb.sampling.dealing import deal, micro_batch_number
from bert_lamb.sampling.sampler import global_batch
from bert_lamb.train.task import Stage

Batch = tuple[FeatureBatch, Tensor]  # the model's inputs; what it should answer, a row for each


@dataclass(frozen=True)
class FeatureCounts:
    """The normalizers of one global batch."""

    num_sequences: int
    num_tokens: int  # without padding
    sum_squared_lengths: int  # what attention grows with


class FineTuningTask(ABC):
    """Implements `Task` for one rank; a subclass adds the loss of a batch, as a sum, and its operations.

    targets: what the model should answer to each row: N numbers or tuples of numbers. model_config: of the model that
    is trained; its sizes alone are read.
    """

    def __init__(
        self,
        rows: Sequence[TokenRow],
        targets: Sequence[Any],
        stage: Stage,
        *,
        model_config: BertConfig,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> None:
        self.rows, self.targets, self.stage = rows, torch.tensor(targets), stage
        self.lengths = np.array([len(row.input_ids) for row in rows])
        self.model_config, self.seed, self.device = model_config, seed, device
        self.rank, self.world_size = rank, world_size

    @abstractmethod
    def loss_sum(self, model: Any, inputs: FeatureBatch, targets: Tensor) -> Tensor:
        """Sum over the rows of what is minimized on average."""

    @abstractmethod
    def flops(self, counts: FeatureCounts) -> int:
        """See `Task`."""

    def global_batch(self, number: int) -> NDArray[np.int64]:
        """The rows of a global batch, [G]."""
        chosen, _ = global_batch(
            number,
            global_batch_size=self.stage.plan.global_batch_size,
            num_instances=len(self.rows),
            seed=self.seed,
        )
        return chosen

    def micro_batches(self, first: int, last: int) -> Iterator[Batch]:
        plan, max_length = self.stage.plan, int(self.lengths.max())
        for number in range(first, last + 1):
            batch = self.global_batch(number)
            dealt = batch[deal(self.lengths[batch], plan.gradient_accumulation_steps * self.world_size)]
            for micro_step in range(plan.gradient_accumulation_steps):
                members = dealt[micro_batch_number(micro_step, rank=self.rank, world_size=self.world_size)]
                inputs = lay_out([self.rows[i] for i in members], max_length)
                targets = self.targets[torch.from_numpy(members)]
                if self.device.type == "cuda":  # so that the host does not wait for what the GPU does before
                    inputs, targets = inputs.pin_memory(), targets.pin_memory()
                yield inputs.to(self.device), targets.to(self.device, non_blocking=True)

    def counts(self, number: int) -> FeatureCounts:
        lengths = self.lengths[self.global_batch(number)]
        return FeatureCounts(len(lengths), int(lengths.sum()), int((lengths**2).sum()))

    def loss(self, model: Any, batch: Batch, counts: FeatureCounts) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        total = self.loss_sum(model, inputs, targets)
        return total / counts.num_sequences, total.detach()[None]

    def metrics(self, sums: list[float], counts: FeatureCounts) -> dict[str, float]:
        return {"loss": sums[0] / counts.num_sequences}

    def evaluate(self, engine: Engine) -> None:  # noqa: B027 (no subclass has more to say)
        """Nothing: what was learnt is scored when training is over."""


def num_steps(num_rows: int, global_batch_size: int, num_epochs: float) -> int:
    """Optimizer steps after which every row was seen at least `num_epochs` times on average."""
    return math.ceil(num_rows * num_epochs / global_batch_size)
