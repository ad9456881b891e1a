"""What fine-tuning on questions learns: to point at the first and last token of the answer.

Letters: M features of a micro-batch, T tokens of the longest of them, G features of a global batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig

from bert_lamb.engine.protocol import Engine
from bert_lamb.finetuning.squad.features import Feature, pad
from bert_lamb.model.flops import question_answering_flops
from bert_lamb.sampling.sampler import global_batch
from bert_lamb.train.task import Stage

Batch = tuple[dict[str, Tensor], Tensor]  # the model's inputs, int64 [M, T] each; first and last token, int64 [M, 2]


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
        pad_token_id: int,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> None:
        self.features, self.positions, self.stage = features, positions, stage
        self.model_config = model_config
        self.pad_token_id, self.seed, self.device = pad_token_id, seed, device
        self.rank, self.world_size = rank, world_size

    def global_batch(self, step: int) -> list[int]:
        """The features of a step, [G], shortest first: micro-batches of like length need little padding."""
        chosen, _ = global_batch(
            step,
            global_batch_size=self.stage.plan.global_batch_size,
            num_instances=len(self.features),
            seed=self.seed,
        )
        return sorted(chosen.tolist(), key=lambda i: (len(self.features[i].input_ids), i))

    def micro_batches(self, first_step: int) -> Iterator[Batch]:
        """Ranks take turns in the row of the global batch's micro-batches, so that all pad alike."""
        size, accumulation = self.stage.plan.micro_batch_size, self.stage.plan.gradient_accumulation_steps
        for step in range(first_step, self.stage.schedule.total_steps + 1):
            batch = self.global_batch(step)
            for micro_step in range(accumulation):
                first = (micro_step * self.world_size + self.rank) * size
                members = batch[first : first + size]
                inputs = pad([self.features[i] for i in members], self.pad_token_id)
                targets = torch.tensor([self.positions[i] for i in members])
                yield {name: self._on_device(rows) for name, rows in inputs.items()}, self._on_device(targets)

    def _on_device(self, rows: Tensor) -> Tensor:
        """Copied from pinned memory to a GPU, so that the host does not wait for what the GPU does before."""
        if self.device.type != "cuda":
            return rows
        return rows.pin_memory().to(self.device, non_blocking=True)

    def counts(self, step: int) -> FeatureCounts:
        lengths = [len(self.features[i].input_ids) for i in self.global_batch(step)]
        return FeatureCounts(len(lengths), sum(lengths), sum(length**2 for length in lengths))

    def loss(self, model: Any, batch: Batch, counts: FeatureCounts) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        output = model(**inputs)
        total = span_loss_sum(output.start_logits, output.end_logits, inputs["attention_mask"].bool(), targets)
        return total / counts.num_sequences, total.detach()[None]

    def metrics(self, sums: list[float], counts: FeatureCounts) -> dict[str, float]:
        return {"loss": sums[0] / counts.num_sequences}

    def flops(self, counts: FeatureCounts) -> int:
        return question_answering_flops(
            self.model_config, num_tokens=counts.num_tokens, sum_squared_lengths=counts.sum_squared_lengths
        )

    def evaluate(self, engine: Engine) -> None:
        """Nothing: the questions are scored when training is over."""


def span_loss_sum(start_logits: Tensor, end_logits: Tensor, is_token: Tensor, targets: Tensor) -> Tensor:
    """Sum over the features of (cross-entropy of the start + cross-entropy of the end) / 2, in fp32, in nats.

    Padding takes no part in the softmax; transformers' own loss lets it, and so depends on how much is padded.
    start_logits, end_logits: [M, T]. is_token: bool [M, T]. targets: int64 [M, 2].
    """
    start_logits, end_logits = (one.float().masked_fill(~is_token, -math.inf) for one in (start_logits, end_logits))
    start_loss = F.cross_entropy(start_logits, targets[:, 0], reduction="sum")
    end_loss = F.cross_entropy(end_logits, targets[:, 1], reduction="sum")
    return (start_loss + end_loss) / 2


def num_steps(num_features: int, global_batch_size: int, num_epochs: float) -> int:
    """Optimizer steps after which every feature was seen at least `num_epochs` times on average."""
    return math.ceil(num_features * num_epochs / global_batch_size)
