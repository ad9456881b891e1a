"""An optimizer by its name and settings, over a model's parameters with BERT's usual exemptions."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from bert_lamb.optim.apex_lamb import build_apex_lamb
from bert_lamb.optim.groups import parameter_groups
from bert_lamb.optim.lamb import Lamb
from bert_lamb.optim.lars import Lars


@dataclass(frozen=True)
class OptimizerSettings:
    """What README.md of this room has formulas for; a field that the optimizer of this name does not have is None."""

    name: Literal["lamb", "lars", "adamw", "adam", "adagrad", "momentum"]
    weight_decay: float
    exempt_embeddings: bool = False
    betas: Any = None  # LAMB, AdamW, Adam
    eps: Any = None  # LAMB, AdamW, Adam, Adagrad
    beta: Any = None  # LARS, momentum
    bias_correction: Any = None  # LAMB
    nesterov: Any = None  # LAMB
    adapt_undecayed: bool = False  # LAMB, LARS
    norm: Any = None  # LAMB, LARS
    param_norm_bounds: Any = None
    trust_ratio_bounds: Any = None
    implementation: Any = None  # LAMB, LARS: auto, reference, foreach, fused or apex


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, *, idle: Collection[str] = (), awaits_binding: bool
) -> Optimizer:
    """LAMB, LARS or one of torch's own; lr is 0 until an engine sets it at each step.

    idle: names of parameters without a gradient in this run, which stay as they are: under LAMB, decay alone would
    shrink them at the rate of lr. awaits_binding: an engine will swap the parameters for flat partitions.
    """
    groups = parameter_groups(
        model,
        weight_decay=settings.weight_decay,
        adapt_undecayed=settings.adapt_undecayed,
        exempt_embeddings=settings.exempt_embeddings,
        idle=list(idle),
    )
    match settings.name:
        case "adamw":
            return AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)
        case "adam":  # decay is added to the gradient, as in the two below
            return Adam(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)
        case "adagrad":
            return Adagrad(groups, lr=0.0, eps=settings.eps)
        case "momentum":
            return SGD(groups, lr=0.0, momentum=settings.beta, fused=True)
    if settings.implementation == "apex":
        return build_apex_lamb(
            groups,
            betas=settings.betas,
            eps=settings.eps,
            bias_correction=settings.bias_correction,
            adapt_undecayed=settings.adapt_undecayed,
        )
    shared: dict[str, Any] = {
        "lr": 0.0,
        "norm": settings.norm,
        "param_norm_bounds": settings.param_norm_bounds,
        "trust_ratio_bounds": settings.trust_ratio_bounds,
        "skip_nonfinite": False,  # the engine does, from the norm it has anyway
        "implementation": settings.implementation,
        "awaits_binding": awaits_binding,
    }
    if settings.name == "lars":
        return Lars(groups, beta=settings.beta, **shared)
    return Lamb(
        groups,
        betas=settings.betas,
        eps=settings.eps,
        bias_correction=settings.bias_correction,
        nesterov=settings.nesterov,
        **shared,
    )
