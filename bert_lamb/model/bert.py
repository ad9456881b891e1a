"""BERT with its two pretraining heads, returning sums and counts so that the caller can normalize over a global batch.

Letters: T tokens and B sequences of the micro-batch, M masked tokens, H hidden size, V (padded) vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForPreTraining

from bert_lamb.model.encoder import Execution, encode, first_states, prepare
from bert_lamb.model.masked_lm import masked_lm_sums, sums_of_logits
from bert_lamb.model.sizes import TYPE_VOCAB_SIZE, padded_vocab_size


class PretrainingSums(NamedTuple):
    """Sums over one micro-batch, 0-d float32 or wider; losses in nats. nsp: the sentence task's, 0 without labels."""

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
        vocab_size=padded_vocab_size(vocab_size, vocab_size_multiple),
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=intermediate_size,
        hidden_act="gelu",
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=max_position_embeddings,
        type_vocab_size=TYPE_VOCAB_SIZE,
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

    def __init__(self, config: BertConfig, *, seed: int, execution: Execution = Execution()) -> None:  # noqa: B008
        super().__init__()
        self.has_whole_weights = execution.has_whole_weights
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.bert = BertForPreTraining._from_config(config, attn_implementation="sdpa")
        self.bert.float()
        prepare(self, self.bert.bert, execution)

    def forward(
        self,
        input_ids: Tensor,  # [T] int64
        token_type_ids: Tensor,  # [T] int64
        position_ids: Tensor,  # [T] int64
        cu_seqlens: Tensor,  # [B + 1] int32
        max_length: int,
        masked_positions: Tensor,  # [M] int64, indices into [T]
        masked_labels: Tensor,  # [M] int64
        sentence_labels: Tensor | None,  # [B] int64, 1: the second half is random, or swapped; None: no sentence task
    ) -> PretrainingSums:
        """The sums of one micro-batch, whose sequences are laid end to end; see `encode` for the first five."""
        bert, heads = self.bert.bert, self.bert.cls
        hidden = encode(bert, input_ids, token_type_ids, position_ids, cu_seqlens, max_length)  # [T, H]
        masked_hidden = hidden.index_select(0, masked_positions)  # [M, H]
        if self.has_whole_weights:
            decoder = heads.predictions.decoder
            transformed = heads.predictions.transform(masked_hidden)
            mlm_loss, mlm_correct = masked_lm_sums(transformed, decoder.weight, decoder.bias, masked_labels)
        else:
            mlm_loss, mlm_correct = sums_of_logits(heads.predictions(masked_hidden), masked_labels)
        pair_logits = heads.seq_relationship(bert.pooler(first_states(hidden, cu_seqlens)))  # [B, 2]
        if sentence_labels is None:
            # Gradients of zero rather than none: every machine then sees the same parameters in every backward pass.
            return PretrainingSums(mlm_loss, mlm_correct, 0.0 * pair_logits.float().sum(), mlm_loss.new_zeros(()))
        return PretrainingSums(mlm_loss, mlm_correct, *sums_of_logits(pair_logits, sentence_labels))
