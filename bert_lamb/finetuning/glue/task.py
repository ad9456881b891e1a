"""What fine-tuning on a GLUE task learns: the class of each row, or its number."""

from typing import Any

import torch
from torch import Tensor, nn

from bert_lamb.finetuning.glue.tasks import GlueTask
from bert_lamb.finetuning.task import FeatureCounts, FineTuningTask
from bert_lamb.finetuning.tokens import FeatureBatch
from bert_lamb.model.classifier import classification_loss_sum, regression_loss_sum
from bert_lamb.model.flops import classification_flops


class ClassifierTask(FineTuningTask):
    """Implements `Task` for one rank; its targets are numbers of classes (int64) or similarities (float32)."""

    def loss_sum(self, model: Any, inputs: FeatureBatch, targets: Tensor) -> Tensor:
        loss = regression_loss_sum if targets.is_floating_point() else classification_loss_sum
        return loss(model(*inputs), targets)

    def flops(self, counts: FeatureCounts) -> int:
        return classification_flops(
            self.model_config,
            num_sequences=counts.num_sequences,
            num_tokens=counts.num_tokens,
            sum_squared_lengths=counts.sum_squared_lengths,
            num_classes=self.model_config.num_labels or 1,
        )


def loss_of_full_rows(task: GlueTask, model: nn.Module, batch: FeatureBatch, num_rows: int) -> Tensor:
    """The loss of so many rows whose answers do not matter."""
    targets = torch.zeros(num_rows, dtype=torch.float32 if task.is_regression else torch.int64)
    loss = regression_loss_sum if task.is_regression else classification_loss_sum
    return loss(model(*batch), targets.to(batch.input_ids.device))
