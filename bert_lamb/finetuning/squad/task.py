"""What fine-tuning on questions learns: to point at the first and last token of the answer.

Letters: B features of a micro-batch, G features of a global batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BertConfig

from bert_lamb.engine.protocol import Engine
from bert_lamb.finetuning.squad.features import Feature, FeatureBatch, lay_out
from bert_lamb.model.flops import question_answering_flops
from bert_lamb.model.span import span_loss_sum
from bert_lamb.sampling.dealing import deal, micro_batch_number
from bert_lamb.sampling.sampler import global_batch
from bert_lamb.train.task import Stage

Batch = tuple[FeatureBatch, Tensor]  # the model's inputs; first and last token of the answers, int64 [B, 2]


@dataclass(frozen=True)
class FeatureCounts:
    """The normalizers of one global batch."""

    num_sequences: int
    num_tokens: int  # without padding
    sum_squared_lengths: int  # what attention grows with


class SquadTask:
    """Implements `Task` for one rank. positions: the first and last answer token of each feature.

    model_config: of the model that is trained; its sizes alone are read.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        positions: Sequence[tuple[int, int]],
        stage: Stage,
        *,
        model_config: BertConfig,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> None:
        self.features, self.positions, self.stage = features, positions, stage
        self.lengths = np.array([len(feature.input_ids) for feature in features])
        self.model_config = model_config
        self.seed, self.device = seed, device
        self.rank, self.world_size = rank, world_size

    def global_batch(self, step: int) -> NDArray[np.int64]:
        """The features of a step, [G]."""
        chosen, _ = global_batch(
            step,
            global_batch_size=self.stage.plan.global_batch_size,
            num_instances=len(self.features),
            seed=self.seed,
        )
        return chosen

    def micro_batches(self, first_step: int) -> Iterator[Batch]:
        plan, max_length = self.stage.plan, int(self.lengths.max())
        for step in range(first_step, self.stage.schedule.total_steps + 1):
            batch = self.global_batch(step)
            dealt = batch[deal(self.lengths[batch], plan.gradient_accumulation_steps * self.world_size)]
            for micro_step in range(plan.gradient_accumulation_steps):
                members = dealt[micro_batch_number(micro_step, rank=self.rank, world_size=self.world_size)]
                inputs = lay_out([self.features[i] for i in members], max_length)
                targets = torch.tensor([self.positions[i] for i in members])
                if self.device.type == "cuda":  # so that the host does not wait for what the GPU does before
                    inputs, targets = inputs.pin_memory(), targets.pin_memory()
                yield inputs.to(self.device), targets.to(self.device, non_blocking=True)

    def counts(self, step: int) -> FeatureCounts:
        lengths = self.lengths[self.global_batch(step)]
        return FeatureCounts(len(lengths), int(lengths.sum()), int((lengths**2).sum()))

    def loss(self, model: Any, batch: Batch, counts: FeatureCounts) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        total = span_loss_sum(model(*inputs), inputs.position_ids, inputs.cu_seqlens, inputs.max_length, targets)
        return total / counts.num_sequences, total.detach()[None]

    def metrics(self, sums: list[float], counts: FeatureCounts) -> dict[str, float]:
        return {"loss": sums[0] / counts.num_sequences}

    def flops(self, counts: FeatureCounts) -> int:
        return question_answering_flops(
            self.model_config, num_tokens=counts.num_tokens, sum_squared_lengths=counts.sum_squared_lengths
        )

    def evaluate(self, engine: Engine) -> None:
        """Nothing: the questions are scored when training is over."""


def num_steps(num_features: int, global_batch_size: int, num_epochs: float) -> int:
    """Optimizer steps after which every feature was seen at least `num_epochs` times on average."""
    return math.ceil(num_features * num_epochs / global_batch_size)
