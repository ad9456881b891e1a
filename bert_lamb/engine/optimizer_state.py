"""One view of the state of every optimizer an engine may hold: LAMB, LARS, torch's AdamW, apex's FusedLAMB."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from bert_lamb.optim import LayerwiseOptimizer, NormRecord


def moments_of(optimizer: Optimizer, tensor: Tensor) -> dict[str, Tensor]:
    """The optimizer's moments of a tensor by name, made where there are none yet, so that they can be saved and set."""
    if isinstance(optimizer, LayerwiseOptimizer):
        state = optimizer.state_of(tensor)
        return {name: state[name] for name in optimizer.MOMENTS}
    state = optimizer.state[tensor]
    if not state:  # as torch's AdamW makes it; apex's FusedLAMB counts its steps in the groups instead
        device = tensor.device if optimizer.defaults.get("fused") else "cpu"
        state["step"] = torch.zeros((), device=device)
        state["exp_avg"] = torch.zeros_like(tensor)
        state["exp_avg_sq"] = torch.zeros_like(tensor)
    return {name: state[name] for name in ("exp_avg", "exp_avg_sq")}


def optimizer_step(optimizer: Optimizer) -> int:
    """Steps applied, as the first tensor of the optimizer's state counts them."""
    if _counts_in_groups(optimizer):
        return int(optimizer.param_groups[0].get("step", 0))
    return next((int(state["step"]) for state in optimizer.state.values() if "step" in state), 0)


def set_optimizer_step(optimizer: Optimizer, step: int) -> None:
    """Set the count of every tensor."""
    if _counts_in_groups(optimizer):
        for group in optimizer.param_groups:
            group["step"] = step
    for state in optimizer.state.values():
        state["step"].fill_(step)


def _counts_in_groups(optimizer: Optimizer) -> bool:
    return type(optimizer).__name__ == "FusedLAMB"


def norms_of(optimizer: Optimizer) -> list[NormRecord]:
    """Trust ratios of the last step; empty for optimizers that keep none."""
    return optimizer.last_norms if isinstance(optimizer, LayerwiseOptimizer) else []
