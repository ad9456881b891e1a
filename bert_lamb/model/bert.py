"""BERT with its two pretraining heads, returning sums and counts so that the caller can normalize over a global batch.

Letters: B sequences, S tokens, M masked tokens of the micro-batch, H hidden size, V (padded) vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForPreTraining


class PretrainingSums(NamedTuple):
    """Sums over one micro-batch, 0-d float32; losses in nats. nsp: of the sentence task; without labels both are 0."""

    mlm_loss: Tensor
    mlm_correct: Tensor
    nsp_loss: Tensor
    nsp_correct: Tensor


def bert_config(
    *,
    vocab_size: int,
    vocab_size_multiple: int,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    intermediate_size: int,
    dropout: float,
    max_position_embeddings: int,
    init_std: float,
    pad_token_id: int,
) -> BertConfig:
    """transformers' configuration for these sizes; the vocabulary is padded up to a multiple."""
    return BertConfig(
        vocab_size=-(-vocab_size // vocab_size_multiple) * vocab_size_multiple,
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=intermediate_size,
        hidden_act="gelu",
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=max_position_embeddings,
        type_vocab_size=2,
        initializer_range=init_std,
        pad_token_id=pad_token_id,
    )


def is_of_sentence_head(name: str) -> bool:
    """Whether a parameter serves the sentence task alone; without one its gradients are zero."""
    return ".pooler." in name or ".seq_relationship." in name


class BertPretrainingModel(nn.Module):
    """transformers' BertForPreTraining as `bert`, called for the losses of masked-LM and of the sentence task.

    Weights start from normal(0, init_std) with the given seed, independent of any global random state.
    """

    def __init__(self, config: BertConfig, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.bert = BertForPreTraining._from_config(config, attn_implementation="sdpa")
        self.bert.float()

    def forward(
        self,
        input_ids: Tensor,  # [B, S] int64
        token_type_ids: Tensor,  # [B, S] int64
        attention_mask: Tensor,  # [B, S] int64, 0 at padding
        masked_positions: Tensor,  # [M] int64, indices into the flattened [B * S]
        masked_labels: Tensor,  # [M] int64
        sentence_labels: Tensor | None,  # [B] int64, 1: the second half is random, or swapped; None: no sentence task
    ) -> PretrainingSums:
        encoded = self.bert.bert(input_ids=input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask)
        hidden = encoded.last_hidden_state  # [B, S, H]
        masked_hidden = hidden.flatten(0, 1).index_select(0, masked_positions)  # [M, H]
        logits = self.bert.cls.predictions(masked_hidden).float()  # [M, V]
        mlm_loss = cross_entropy(logits, masked_labels, reduction="sum")
        mlm_correct = (logits.argmax(dim=-1) == masked_labels).sum().float()
        pair_logits = self.bert.cls.seq_relationship(encoded.pooler_output).float()  # [B, 2]
        if sentence_labels is None:
            # Gradients of zero rather than none: every machine then sees the same parameters in every backward pass.
            return PretrainingSums(mlm_loss, mlm_correct, 0.0 * pair_logits.sum(), mlm_loss.new_zeros(()))
        nsp_loss = cross_entropy(pair_logits, sentence_labels, reduction="sum")
        nsp_correct = (pair_logits.argmax(dim=-1) == sentence_labels).sum().float()
        return PretrainingSums(mlm_loss, mlm_correct, nsp_loss, nsp_correct)
