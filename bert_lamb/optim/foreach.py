"""LAMB with many tensors per kernel launch. Same stages, same arguments and same results as `reference`."""

import torch
from torch import Tensor


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
    torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)  # m = m + (1 - beta1) (g - m)
    torch._foreach_mul_(exp_avg_sqs, beta2)
    torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)
    denominators = torch._foreach_sqrt(exp_avg_sqs)
    if bias_correction:
        torch._foreach_div_(denominators, [(1 - beta2**t) ** 0.5 for t in steps])
    torch._foreach_add_(denominators, eps)
    updates = torch._foreach_div(exp_avgs, denominators)
    if bias_correction:
        torch._foreach_div_(updates, [1 - beta1**t for t in steps])
    if weight_decay != 0:
        torch._foreach_add_(updates, params, alpha=weight_decay)
    return list(updates)


def squared_norms(tensors: list[Tensor]) -> Tensor:
    """Stage 2: the squared l2 norm of each tensor, [n] float64."""
    # float64 while adding up, not after: fp32 sums of millions of squares are off by 1e-4 and more on a CPU, and
    # differently for every cut of the tensor.
    return torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float64)).square()


def scale(updates: list[Tensor], ratios: Tensor) -> None:
    """Stage 3a: u = ratio u, in place; ratios [n] float64 on the tensors' device."""
    torch._foreach_mul_(updates, list(ratios.to(updates[0].dtype).unbind()))


def apply(params: list[Tensor], updates: list[Tensor], lr: float) -> None:
    """Stage 3b: w = w - lr u, in place."""
    torch._foreach_add_(params, updates, alpha=-lr)
