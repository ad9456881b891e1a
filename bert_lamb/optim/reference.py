"""LAMB one tensor at a time, one equation a line. `foreach` has the same stages with the same arguments.

Letters: w parameter, g gradient, m and v first and second moment, u direction, t step (1 for the first update).
Source: You et al. 2020 (arXiv 1904.00962v5), Algorithm 2; weight decay joins the direction before its norm is taken.
"""

import torch
from torch import Tensor


def direction_of_one(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    t: int,
    *,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    bias_correction: bool,
) -> Tensor:
    """The direction u of one tensor; updates m and v in place. All tensors have w's shape and dtype."""
    m.mul_(beta1).add_(g, alpha=1 - beta1)  # m = beta1 m + (1 - beta1) g
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)  # v = beta2 v + (1 - beta2) g^2
    m_hat = m / (1 - beta1**t) if bias_correction else m
    v_hat = v / (1 - beta2**t) if bias_correction else v
    r = m_hat / (v_hat.sqrt() + eps)
    return r + weight_decay * w


def directions(
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
) -> list[Tensor]:
    """Stage 1, elementwise on whatever slice we hold: the directions; moments are updated in place."""
    return [
        direction_of_one(
            w, g, m, v, t, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, bias_correction=bias_correction
        )
        for w, g, m, v, t in zip(params, grads, exp_avgs, exp_avg_sqs, steps, strict=True)
    ]


def squared_norms(tensors: list[Tensor]) -> Tensor:
    """Stage 2: the squared l2 norm of each tensor, [n] float64."""
    return torch.stack([tensor.double().square().sum() for tensor in tensors])


def scale(updates: list[Tensor], ratios: Tensor) -> None:
    """Stage 3a: u = ratio u, in place; ratios [n] float64 on the tensors' device."""
    for update, ratio in zip(updates, ratios, strict=True):
        update.mul_(ratio)


def apply(params: list[Tensor], updates: list[Tensor], lr: float) -> None:
    """Stage 3b: w = w - lr u, in place."""
    for w, u in zip(params, updates, strict=True):
        w.sub_(u, alpha=lr)
