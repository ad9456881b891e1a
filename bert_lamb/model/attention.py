"""Attention over sequences that are laid end to end, so that no padding is computed: one call for each machine.

Letters: T tokens of the micro-batch, B sequences, N heads, D size of a head, L tokens of one sequence.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from bert_lamb.model.dropout import keep_mask

VARLEN = "bert_lamb_varlen"  # under this name transformers' modules find `varlen_attention`
HALF = (torch.bfloat16, torch.float16)
FLASH_CAPABILITY = (8, 0)  # of a GPU, at least


def varlen_attention(
    module: nn.Module,
    query: Tensor,  # [1, N, T, D], and so key and value
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    cu_seqlens: Tensor,  # [B + 1] int32
    max_length: int,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[1, T, N, D] attention of each token to those of its own sequence, with dropout of the probabilities.

    Has the form that transformers' AttentionInterface asks for. On a GPU in half precision it is the variable-length
    flash kernel, elsewhere each sequence by itself.
    """
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))  # [T, N, D]
    if query.dtype in HALF and query.device.type != "cpu":
        attended = flash_attention(query, key, value, cu_seqlens, max_length, scaling=scaling, dropout=dropout)
    elif dropout > 0 and query.device.type == "cpu":
        attended = dropped_attention(query, key, value, cu_seqlens, scaling, dropout)
    else:
        attended = attention_by_sequence(query, key, value, cu_seqlens, scaling=scaling, dropout=dropout)
    return attended[None], None


AttentionInterface.register(VARLEN, varlen_attention)


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_length: int, *, scaling: float, dropout: float
) -> Tensor:
    """[T, N, D] by PyTorch's own variable-length flash kernel, which its `varlen_attn` calls without dropout."""
    attended: Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        cu_seqlens,
        cu_seqlens,
        max_length,
        max_length,
        dropout,
        is_causal=False,
        return_debug_mask=False,
        scale=scaling,
    )[0]
    return attended


@torch.compiler.disable
def attention_by_sequence(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, *, scaling: float, dropout: float
) -> Tensor:
    """[T, N, D] by one call of PyTorch's attention for each sequence: the plainest statement of what is meant."""
    lengths = cu_seqlens.diff().tolist()
    pieces = (states.transpose(0, 1).split(lengths, dim=1) for states in (query, key, value))  # [N, L, D] each
    attended = [
        scaled_dot_product_attention(q[None], k[None], v[None], dropout_p=dropout, scale=scaling)[0]
        for q, k, v in zip(*pieces, strict=True)
    ]
    return torch.cat(attended, dim=1).transpose(0, 1)


@torch.compiler.disable
def dropped_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scaling: float, dropout: float
) -> Tensor:
    """[T, N, D] with dropout on a CPU, where PyTorch's attention takes four times as many passes over memory."""
    attended: Tensor = _DroppedAttention.apply(query, key, value, cu_seqlens.tolist(), scaling, dropout)
    return attended


class _DroppedAttention(torch.autograd.Function):
    """softmax(scaling q k^T) with dropout, times v, one sequence after the other; computed in fp32 or wider.

    Kept for backward are the probabilities and the mask, N L^2 numbers each for every sequence.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bounds: list[int], scaling: float, dropout: float
    ) -> Tensor:
        wide = torch.promote_types(query.dtype, torch.float32)
        num_heads = query.shape[1]
        sizes = [num_heads * (end - start) ** 2 for start, end in pairwise(bounds)]
        probabilities = query.new_empty(sum(sizes), dtype=wide)
        mask = keep_mask(probabilities, dropout)
        attended = query.new_empty(query.shape)
        for (start, end), kept, scores in zip(
            pairwise(bounds), mask.split(sizes), probabilities.split(sizes), strict=True
        ):
            length = end - start
            q, k, v = (states[start:end].transpose(0, 1).to(wide) for states in (query, key, value))
            p = scores.view(num_heads, length, length)
            torch.softmax(torch.baddbmm(p, q, k.transpose(1, 2), beta=0, alpha=scaling, out=p), dim=-1, out=p)
            attended[start:end] = torch.bmm(p * kept.view_as(p), v).transpose(0, 1)
        ctx.save_for_backward(query, key, value, probabilities, mask)
        ctx.bounds, ctx.sizes, ctx.scaling = bounds, sizes, scaling
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, probabilities, mask = ctx.saved_tensors
        wide, num_heads = probabilities.dtype, query.shape[1]
        gradients = [torch.empty_like(states) for states in (query, key, value)]
        for (start, end), kept, scores in zip(
            pairwise(ctx.bounds), mask.split(ctx.sizes), probabilities.split(ctx.sizes), strict=True
        ):
            length = end - start
            q, k, v, g = (states[start:end].transpose(0, 1).to(wide) for states in (query, key, value, gradient))
            p, kept = scores.view(num_heads, length, length), kept.view(num_heads, length, length)
            of_probabilities = torch.bmm(g, v.transpose(1, 2)).mul_(kept)
            of_scores = torch._softmax_backward_data(of_probabilities, p, -1, wide).mul_(ctx.scaling)
            of_pieces = (
                torch.bmm(of_scores, k),
                torch.bmm(of_scores.transpose(1, 2), q),
                torch.bmm((p * kept).transpose(1, 2), g),
            )
            for whole, piece in zip(gradients, of_pieces, strict=True):
                whole[start:end] = piece.transpose(0, 1)
        return *gradients, None, None, None
