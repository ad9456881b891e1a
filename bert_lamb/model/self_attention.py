"""BERT's self-attention with query, key and value in one matrix product; the parameters stay three."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertModel, BertSelfAttention, eager_attention_forward


class FusedSelfAttention(BertSelfAttention):
    """transformers' module with another forward: three small products keep a machine less busy than a large one.

    Not for a machine that gathers weights as their own module is called (ZeRO 3), since query, key and value are not.
    """

    def forward(  # type: ignore[override]  # of an encoder there are no past keys
        self,
        hidden_states: Tensor,  # [B, S, H]
        attention_mask: Tensor | None = None,
        past_key_values: None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        parts = (self.query, self.key, self.value)
        weight, bias = (torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias"))
        together = linear(hidden_states, weight, bias).unflatten(-1, (3, self.num_attention_heads, -1))
        query, key, value = (states.transpose(1, 2) for states in together.unbind(-3))  # [B, N, S, D]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended, probabilities = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout.p if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return attended.flatten(-2), probabilities


def fuse_self_attention(bert: BertModel) -> None:
    """Make every self-attention of `bert` a FusedSelfAttention, with the parameters and names that it has."""
    for layer in bert.encoder.layer:
        layer.attention.self.__class__ = FusedSelfAttention  # type: ignore[union-attr]
