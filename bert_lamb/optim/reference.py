"""LAMB and LARS one tensor at a time, one equation a line. `foreach` has the same functions with the same arguments.

Letters: w parameter, g gradient, m and v first and second moment, u direction, t step (1 for the first update).
Source: You et al. 2020 (arXiv 1904.00962v5), Algorithms 1 and 2, and 3 and 4 for the Nesterov variants.
"""

import torch
from torch import Tensor


def lamb_directions(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[int],
    *,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias_correction: bool,
    nesterov: str,
) -> list[Tensor]:
    """LAMB's directions, elementwise on whatever slice we hold; moments are updated in place."""
    updates = []
    for w, g, m, v, t in zip(params, grads, exp_avgs, exp_avg_sqs, steps, strict=True):
        m.mul_(beta1).add_(g, alpha=1 - beta1)  # m = beta1 m + (1 - beta1) g
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)  # v = beta2 v + (1 - beta2) g^2
        m_hat, v_hat = m, v
        if bias_correction:
            m_hat = m / (1 - beta1**t)
            v_hat = v / (1 - beta2**t)
        if nesterov in ("first", "both"):
            m_hat = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
            v_hat = beta2 * v / (1 - beta2**t)
        if nesterov == "both":
            v_hat = beta2 * v / (1 - beta2 ** (t + 1)) + (1 - beta2) * g * g / (1 - beta2**t)
        updates.append(m_hat / (v_hat.sqrt() + eps) + weight_decay * w)
    return updates


def lars_directions(
    params: list[Tensor], grads: list[Tensor], exp_avgs: list[Tensor], *, beta: float, weight_decay: float
) -> list[Tensor]:
    """LARS's directions: m = beta m + (1 - beta) (g + weight_decay w), in place, and u = m."""
    for w, g, m in zip(params, grads, exp_avgs, strict=True):
        m.mul_(beta).add_(g + weight_decay * w, alpha=1 - beta)
    return [m.clone() for m in exp_avgs]


def partial_norms(tensors: list[Tensor], norm: str) -> Tensor:
    """Per tensor the sum of squares (l2), sum (l1) or maximum (linf) of absolute values, [n] float64; 0 when empty."""
    wide = [tensor.double().abs() for tensor in tensors]
    if norm == "l2":
        return torch.stack([x.square().sum() for x in wide])
    if norm == "l1":
        return torch.stack([x.sum() for x in wide])
    return torch.stack([x.max() if x.numel() else x.new_zeros(()) for x in wide])


def apply(params: list[Tensor], updates: list[Tensor], step_sizes: Tensor) -> None:
    """w = w - step_size u, in place; step_sizes [n] on the tensors' device. `updates` is used up."""
    for w, u, step_size in zip(params, updates, step_sizes, strict=True):
        w.sub_(step_size.to(w.dtype) * u)
