"""LAMB and LARS with many tensors per kernel launch. Same functions, arguments and results as `reference`."""

import math

import torch
from torch import Tensor

CPU_CHUNK = 2**17  # elements whose float64 copy stays in the cache
ORDER = {"l2": 2.0, "l1": 1.0, "linf": float("inf")}


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
    if nesterov == "none" and all(t.device.type == "cpu" and t.is_contiguous() for t in (*grads, *exp_avgs)):
        directions = _adam_on_cpu(
            grads, exp_avgs, exp_avg_sqs, steps, beta1=beta1, beta2=beta2, eps=eps, bias_correction=bias_correction
        )
        if weight_decay != 0:
            torch._foreach_add_(directions, params, alpha=weight_decay)
        return directions
    torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)  # m = m + (1 - beta1) (g - m)
    torch._foreach_mul_(exp_avg_sqs, beta2)
    torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)
    if nesterov == "none":
        # m^ / (sqrt(v^) + eps) = m / (sqrt(v) c1 / sqrt(c2) + eps c1): the corrections cost no pass of their own
        c1 = [1 - beta1**t if bias_correction else 1.0 for t in steps]
        c2 = [1 - beta2**t if bias_correction else 1.0 for t in steps]
        denominators = torch._foreach_sqrt(exp_avg_sqs)
        torch._foreach_mul_(denominators, [first / second**0.5 for first, second in zip(c1, c2, strict=True)])
        torch._foreach_add_(denominators, [eps * first for first in c1])
        updates = torch._foreach_div(exp_avgs, denominators)
    else:
        updates = torch._foreach_mul(exp_avgs, [beta1 / (1 - beta1 ** (t + 1)) for t in steps])
        torch._foreach_add_(updates, torch._foreach_mul(grads, [(1 - beta1) / (1 - beta1**t) for t in steps]))
        looks_ahead = nesterov == "both"
        seconds = torch._foreach_mul(exp_avg_sqs, [beta2 / (1 - beta2 ** (t + looks_ahead)) for t in steps])
        if looks_ahead:
            squares = torch._foreach_mul(grads, grads)
            torch._foreach_mul_(squares, [(1 - beta2) / (1 - beta2**t) for t in steps])
            torch._foreach_add_(seconds, squares)
        torch._foreach_sqrt_(seconds)
        torch._foreach_add_(seconds, eps)
        torch._foreach_div_(updates, seconds)
    if weight_decay != 0:
        torch._foreach_add_(updates, params, alpha=weight_decay)
    return list(updates)


def _adam_on_cpu(
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[int],
    *,
    beta1: float,
    beta2: float,
    eps: float,
    bias_correction: bool,
) -> list[Tensor]:
    """Moments in place and m^ / (sqrt(v^) + eps) in one pass over memory: PyTorch's AdamW, with lr -1, from zeros.

    One kernel for each operation would take seven passes and page in a temporary as large as the tensors twice.
    """
    updates = [torch.zeros_like(m) for m in exp_avgs]
    counts = [torch.tensor(float(t) if bias_correction else math.inf) for t in steps]  # 1 - beta^inf = 1
    torch._fused_adamw_(
        updates,
        grads,
        exp_avgs,
        exp_avg_sqs,
        [],
        counts,
        lr=-1.0,
        beta1=beta1,
        beta2=beta2,
        weight_decay=0.0,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )
    return updates


def lars_directions(
    params: list[Tensor], grads: list[Tensor], exp_avgs: list[Tensor], *, beta: float, weight_decay: float
) -> list[Tensor]:
    """LARS's directions: m = beta m + (1 - beta) (g + weight_decay w), in place, and u = m."""
    decayed = torch._foreach_add(grads, params, alpha=weight_decay)
    torch._foreach_lerp_(exp_avgs, decayed, 1 - beta)
    torch._foreach_copy_(decayed, exp_avgs)
    return list(decayed)


def partial_norms(tensors: list[Tensor], norm: str) -> Tensor:
    """Per tensor the sum of squares (l2), sum (l1) or maximum (linf) of absolute values, [n] float64; 0 when empty."""
    # float64 while adding up, not after: fp32 sums of millions of squares are off by 1e-4 and more on a CPU, and
    # differently for every cut of the tensor.
    if norm == "l2" and all(tensor.device.type == "cpu" for tensor in tensors):
        return torch.stack([_squares_on_cpu(tensor) for tensor in tensors])
    filled = [tensor if tensor.numel() else tensor.new_zeros(1) for tensor in tensors]
    norms = torch.stack(torch._foreach_norm(filled, ORDER[norm], dtype=torch.float64))
    return norms.square() if norm == "l2" else norms


def _squares_on_cpu(tensor: Tensor) -> Tensor:
    """In chunks: PyTorch would write a float64 copy of the whole tensor to memory."""
    total = torch.zeros((), dtype=torch.float64)
    for chunk in tensor.reshape(-1).split(CPU_CHUNK):
        wide = chunk.double()
        total += torch.dot(wide, wide)
    return total


def apply(params: list[Tensor], updates: list[Tensor], step_sizes: Tensor) -> None:
    """w = w - step_size u, in place; step_sizes [n] on the tensors' device. `updates` is used up."""
    if step_sizes.device.type == "cpu":  # numbers are at hand there, and spare a pass
        for w, u, step_size in zip(params, updates, step_sizes.tolist(), strict=True):
            w.sub_(u, alpha=step_size)
        return
    torch._foreach_mul_(updates, list(step_sizes.to(updates[0].dtype).unbind()))
    torch._foreach_sub_(params, updates)
