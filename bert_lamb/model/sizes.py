"""The sizes of a BERT without a library: what formulas of operations, parameters and bytes need. No torch."""

from dataclasses import dataclass
from typing import Any, Protocol, Self

TYPE_VOCAB_SIZE = 2  # segments A and B


class Sizes(Protocol):
    """transformers' BertConfig has these, and `BertSizes`. vocab_size: padded, see `padded_vocab_size`."""

    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...


@dataclass(frozen=True)
class BertSizes:
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    vocab_size: int
    max_position_embeddings: int

    @classmethod
    def of_model(cls, model: dict[str, Any], *, vocab_size: int) -> Self:
        """From the group `model` of a configuration; `vocab_size` before padding."""
        return cls(
            model["num_layers"],
            model["hidden_size"],
            model["intermediate_size"],
            model["num_heads"],
            padded_vocab_size(vocab_size, model["vocab_size_multiple"]),
            model["max_position_embeddings"],
        )


def padded_vocab_size(vocab_size: int, multiple: int) -> int:
    return -(-vocab_size // multiple) * multiple


def num_parameters(sizes: Sizes) -> int:
    """Of BERT with both pretraining heads; the vocabulary's matrix is shared by embedding and masked-LM head.

    H hidden size, I intermediate size, V vocabulary, P positions:

        embeddings    (V + P + 2) H, LayerNorm 2 H
        each layer    attention 4 (H^2 + H), feed-forward 2 H I + I + H, two LayerNorms 4 H
        pooler        H^2 + H
        heads         transform H^2 + H, LayerNorm 2 H, bias V; the sentence task's two classes 2 H + 2
    """
    hidden, inner = sizes.hidden_size, sizes.intermediate_size
    dense = hidden**2 + hidden
    embeddings = (sizes.vocab_size + sizes.max_position_embeddings + TYPE_VOCAB_SIZE) * hidden + 2 * hidden
    layer = 4 * dense + 2 * hidden * inner + inner + hidden + 4 * hidden
    heads = dense + 2 * hidden + sizes.vocab_size + 2 * hidden + 2
    return embeddings + sizes.num_hidden_layers * layer + dense + heads
