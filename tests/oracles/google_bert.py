"""BERT's forward pass by the variables of Google's checkpoints, in float64 with numpy alone.

Follows modeling.py and run_pretraining.py of google-research/bert: y = x @ kernel + bias, LayerNorm with eps 1e-12
after each residual, exact gelu, output layer tied to the word embeddings. No name or orientation is PyTorch's.
"""

import math
from collections.abc import Mapping

import numpy as np

Array = np.ndarray
gelu = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def logits(variables: Mapping[str, Array], config: Mapping[str, int], ids: Array, types: Array) -> tuple[Array, Array]:
    """(masked LM [B, S, V], sentence task [B, 2]) of whole sequences; ids, types: [B, S]."""
    of = {name: value.astype(np.float64) for name, value in variables.items()}

    def dense(x: Array, name: str) -> Array:
        return x @ of[f"{name}/kernel"] + of[f"{name}/bias"]

    def norm(x: Array, name: str) -> Array:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-12) * of[f"{name}/LayerNorm/gamma"] + of[f"{name}/LayerNorm/beta"]

    def heads(x: Array) -> Array:  # [B, S, H] -> [B, heads, S, size]
        return x.reshape(*x.shape[:2], config["num_attention_heads"], -1).transpose(0, 2, 1, 3)

    embeddings = "bert/embeddings"
    x = of[f"{embeddings}/word_embeddings"][ids] + of[f"{embeddings}/token_type_embeddings"][types]
    x = norm(x + of[f"{embeddings}/position_embeddings"][: ids.shape[1]], embeddings)
    for layer in (f"bert/encoder/layer_{i}" for i in range(config["num_hidden_layers"])):
        query, key, value = (heads(dense(x, f"{layer}/attention/self/{part}")) for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        context = (weights / weights.sum(-1, keepdims=True)) @ value
        context = context.transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(dense(context, f"{layer}/attention/output/dense") + x, f"{layer}/attention/output")
        inner = gelu(dense(x, f"{layer}/intermediate/dense"))
        x = norm(dense(inner, f"{layer}/output/dense") + x, f"{layer}/output")
    transformed = norm(gelu(dense(x, "cls/predictions/transform/dense")), "cls/predictions/transform")
    words = transformed @ of[f"{embeddings}/word_embeddings"].T + of["cls/predictions/output_bias"]
    pooled = np.tanh(dense(x[:, 0], "bert/pooler/dense"))
    return words, pooled @ of["cls/seq_relationship/output_weights"].T + of["cls/seq_relationship/output_bias"]
