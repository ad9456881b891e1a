"""One view of the state of every optimizer an engine may hold: LAMB, LARS, torch's own, apex's FusedLAMB."""

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Optimizer

from bert_lamb.optim import LayerwiseOptimizer, NormRecord


def moments_of(optimizer: Optimizer, tensor: Tensor) -> dict[str, Tensor]:
    """The optimizer's moments of a tensor by name, made where there are none yet, so that they can be saved and set."""
    if isinstance(optimizer, LayerwiseOptimizer):
        state = optimizer.state_of(tensor)
        return {name: state[name] for name in optimizer.MOMENTS}
    state = optimizer.state[tensor]
    names = _moments_of_torch(optimizer)
    if not state:  # as torch makes it; apex's FusedLAMB counts its steps in the groups instead
        device = tensor.device if optimizer.defaults.get("fused") else "cpu"
        state["step"] = torch.zeros((), device=device)
        state.update({name: torch.zeros_like(tensor) for name in names})
    return {name: state[name] for name in names}


def _moments_of_torch(optimizer: Optimizer) -> tuple[str, ...]:
    """Names as torch has them. A momentum of 0 is as good as none: torch begins with the gradient in its place."""
    if isinstance(optimizer, SGD):
        return ("momentum_buffer",)
    return ("sum",) if isinstance(optimizer, Adagrad) else ("exp_avg", "exp_avg_sq")


def optimizer_step(optimizer: Optimizer) -> int:
    """Steps applied, as the first tensor of the optimizer's state counts them; momentum counts none and needs none."""
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
