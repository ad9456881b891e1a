"""BERT that answers with a class or a number for each text, or pair of texts, over rows laid end to end.

Letters: T tokens of the micro-batch, B rows, C classes (1: a number).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import BertForSequenceClassification

from bert_lamb.model.dropout import replace_dropout
from bert_lamb.model.encoder import Execution, encode, first_states, prepare


class SequenceClassifier(nn.Module):
    """transformers' BertForSequenceClassification, called without padding: its modules, under its parameters' names.

    The modules it is given are changed, as `prepare` says.
    """

    def __init__(self, model: BertForSequenceClassification, execution: Execution = Execution()) -> None:  # noqa: B008
        super().__init__()
        self.bert, self.dropout, self.classifier = model.bert, model.dropout, model.classifier
        prepare(self, self.bert, execution)
        replace_dropout(self)

    def forward(
        self,
        input_ids: Tensor,  # [T] int64
        token_type_ids: Tensor,  # [T] int64
        position_ids: Tensor,  # [T] int64
        cu_seqlens: Tensor,  # [B + 1] int32
        max_length: int,
    ) -> Tensor:
        """[B, C] logits of each row's classes, or [B, 1] its number; see `encode`."""
        hidden = encode(self.bert, input_ids, token_type_ids, position_ids, cu_seqlens, max_length)
        pooled = self.bert.pooler(first_states(hidden, cu_seqlens))  # type: ignore[misc]  # it has one
        answers: Tensor = self.classifier(self.dropout(pooled))
        return answers


def classification_loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of [B, C] logits and [B] int64 classes, in fp32 or wider, in nats."""
    return cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="sum")


def regression_loss_sum(answers: Tensor, targets: Tensor) -> Tensor:
    """Sum of the squared errors of [B, 1] answers and [B] floating targets, in fp32 or wider."""
    answers = answers[:, 0].to(torch.promote_types(answers.dtype, torch.float32))
    return mse_loss(answers, targets.to(answers.dtype), reduction="sum")
