"""The loss of masked words without keeping logits: on a CPU they take more memory traffic than all of a small encoder.

Letters: M masked tokens, H hidden size, V (padded) vocabulary.
"""

from itertools import pairwise, starmap
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

ROWS_PER_CHUNK = 320  # whose logits are in memory at once; fewer make the matrix products slower


def masked_lm_sums(
    hidden: Tensor,  # [M, H]
    weight: Tensor,  # [V, H]
    bias: Tensor,  # [V]
    labels: Tensor,  # [M] int64
) -> tuple[Tensor, Tensor]:
    """(sum of the cross-entropies in nats, number of right guesses), 0-d float32 or wider each.

    The logits are hidden @ weight.T + bias. On a CPU in fp32 they are made and used chunk by chunk; elsewhere at once,
    since sums of gradients over chunks would be rounded to half precision, and a GPU has the memory.
    """
    if hidden.device.type == "cpu" and hidden.dtype.itemsize >= 4 and not torch.is_autocast_enabled("cpu"):
        loss, num_correct = _ChunkedSums.apply(hidden, weight, bias, labels)
        return loss, num_correct
    return sums_of_logits(linear(hidden, weight, bias), labels)


def sums_of_logits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of the cross-entropies in nats, number of right guesses), 0-d float32 or wider, of any [n, classes]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(logits, labels, reduction="sum"), (logits.argmax(dim=-1) == labels).sum().to(logits.dtype)


class _ChunkedSums(torch.autograd.Function):
    """Gradients are made in the forward pass, while the logits of a chunk are at hand, and scaled in the backward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, num_correct = hidden.new_zeros(()), hidden.new_zeros(())
        needs_gradient = any(ctx.needs_input_grad[:3])
        if needs_gradient:
            of_hidden, of_weight, of_bias = torch.empty_like(hidden), torch.zeros_like(weight), torch.zeros_like(bias)
        num_chunks = max(1, -(-len(hidden) // ROWS_PER_CHUNK))  # of equal size: the last is as fast as the others
        bounds = [len(hidden) * number // num_chunks for number in range(num_chunks + 1)]
        for rows in starmap(slice, pairwise(bounds)):
            chunk, of_chunk = hidden[rows], labels[rows, None]
            logits = torch.addmm(bias, chunk, weight.t())
            largest, guesses = logits.max(dim=1, keepdim=True)
            num_correct += (guesses == of_chunk).sum()
            at_label = logits.gather(1, of_chunk)
            probabilities = torch.softmax(logits, dim=1, out=logits)
            # The largest probability is exp(largest - log(sum of exp)) and at least 1 / V, so its logarithm is safe.
            loss += (largest - probabilities.gather(1, guesses).log() - at_label).sum()
            if needs_gradient:
                of_logits = probabilities.scatter_add_(1, of_chunk, -torch.ones_like(largest))
                torch.mm(of_logits, weight, out=of_hidden[rows])
                of_weight.addmm_(of_logits.t(), chunk)
                of_bias += of_logits.sum(dim=0)
        if needs_gradient:
            ctx.save_for_backward(of_hidden, of_weight, of_bias)
        ctx.mark_non_differentiable(num_correct)
        return loss, num_correct

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor, _: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return *(gradient * of_loss for gradient in ctx.saved_tensors), None
