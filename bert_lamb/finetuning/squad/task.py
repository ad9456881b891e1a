"""What fine-tuning on questions learns: to point at the first and last token of the answer."""

from typing import Any

from torch import Tensor

from bert_lamb.finetuning.task import FeatureCounts, FineTuningTask
from bert_lamb.finetuning.tokens import FeatureBatch
from bert_lamb.model.flops import question_answering_flops
from bert_lamb.model.span import span_loss_sum


class SquadTask(FineTuningTask):
    """Implements `Task` for one rank; its rows are features, its targets the first and last token of their answers."""

    def loss_sum(self, model: Any, inputs: FeatureBatch, targets: Tensor) -> Tensor:
        return span_loss_sum(model(*inputs), inputs.position_ids, inputs.cu_seqlens, inputs.max_length, targets)

    def flops(self, counts: FeatureCounts) -> int:
        return question_answering_flops(
            self.model_config, num_tokens=counts.num_tokens, sum_squared_lengths=counts.sum_squared_lengths
        )
