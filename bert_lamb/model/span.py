"""BERT that points at the first and last token of an answer, over questions laid end to end.

Letters: T tokens of the micro-batch, B features.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertForQuestionAnswering

from bert_lamb.model.encoder import Execution, encode, padded_places, prepare


class SpanModel(nn.Module):
    """transformers' BertForQuestionAnswering, called without padding: its modules, under its parameters' names.

    The modules it is given are changed, as `prepare` says.
    """

    def __init__(self, model: BertForQuestionAnswering, execution: Execution = Execution()) -> None:  # noqa: B008
        super().__init__()
        self.bert, self.qa_outputs = model.bert, model.qa_outputs
        prepare(self, self.bert, execution)

    def forward(
        self,
        input_ids: Tensor,  # [T] int64
        token_type_ids: Tensor,  # [T] int64
        position_ids: Tensor,  # [T] int64
        cu_seqlens: Tensor,  # [B + 1] int32
        max_length: int,
    ) -> Tensor:
        """[T, 2] logits of each token as the first and as the last of the answer; see `encode`."""
        hidden = encode(self.bert, input_ids, token_type_ids, position_ids, cu_seqlens, max_length)
        logits: Tensor = self.qa_outputs(hidden)
        return logits


def span_loss_sum(
    logits: Tensor,  # [T, 2]
    position_ids: Tensor,  # [T] int64
    cu_seqlens: Tensor,  # [B + 1] int32
    max_length: int,
    targets: Tensor,  # [B, 2] int64: first and last token, counted from the feature's start
) -> Tensor:
    """Sum over the features of (cross-entropy of the start + cross-entropy of the end) / 2, in fp32 or wider, in nats.

    The softmax is over the feature's own tokens; transformers' loss lets padding take part, and so depends on how much
    is padded.
    """
    num_features = len(cu_seqlens) - 1
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    of_rows = logits.new_full((num_features * max_length, 2), -math.inf)
    of_rows = of_rows.index_copy(0, padded_places(cu_seqlens, position_ids, max_length), logits)
    starts, ends = of_rows.view(num_features, max_length, 2).unbind(-1)
    start_loss = cross_entropy(starts, targets[:, 0], reduction="sum")
    end_loss = cross_entropy(ends, targets[:, 1], reduction="sum")
    return (start_loss + end_loss) / 2
