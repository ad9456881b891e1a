"""Bytes of what a micro-batch keeps for its backward pass, by formula. No torch."""

from bert_lamb.model.sizes import Sizes

# Bytes of activations a token and layer in units of hidden_size, in half precision, with attention that keeps no
# scores: Korthikanti et al. 2022 (arXiv 2205.05198), section 4.1. Of a masked token: logits in half precision and fp32,
# their gradient and the softmax. An estimate; runtime.micro_batch_size=auto measures.
ACTIVATION_UNITS, LOGIT_BYTES = 34, 16


def activation_bytes(
    sizes: Sizes, *, precision: str, activation_checkpointing: bool, num_tokens: float, num_predictions: float
) -> float:
    """Of a micro-batch at its backward pass, by the formula above; without attention scores."""
    width = 2 if precision == "fp32" else 1
    layers = sizes.num_hidden_layers
    of_token = (2 * layers + ACTIVATION_UNITS) if activation_checkpointing else ACTIVATION_UNITS * layers
    return width * of_token * sizes.hidden_size * num_tokens + LOGIT_BYTES * sizes.vocab_size * num_predictions
