"""Which parameters are decayed and adapted: everything but biases and LayerNorm, as in the LAMB authors' code."""

from collections.abc import Collection, Iterable
from typing import Any

from torch.nn import Parameter


def is_exempt(name: str) -> bool:
    """Whether a parameter is neither decayed nor adapted: a bias, or a LayerNorm's scale or shift."""
    return name.endswith("bias") or "LayerNorm" in name


def parameter_groups(
    named_parameters: Iterable[tuple[str, Parameter]],
    *,
    weight_decay: float,
    adapt_undecayed: bool = False,
    idle: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Two torch param groups with names: first the decayed and adapted parameters, then the exempt ones.

    adapt_undecayed: the exempt ones have a trust ratio too (NVLAMB: NVIDIA's use_nvlamb, timm's always_adapt).
    idle: names of parameters whose gradients are always zero. They are exempt, since decay alone would move them.
    Source: the exclusion list ["LayerNorm", "layer_norm", "bias"] of the authors' LAMB optimizer for BERT.
    An empty group is left out. Parameters keep their order.
    """
    named = list(named_parameters)
    regular = [(name, parameter) for name, parameter in named if not is_exempt(name) and name not in idle]
    exempt = [(name, parameter) for name, parameter in named if is_exempt(name) or name in idle]
    groups: list[dict[str, Any]] = [
        {"params": regular, "weight_decay": weight_decay, "adapt": True},
        {"params": exempt, "weight_decay": 0.0, "adapt": adapt_undecayed},
    ]
    return [group for group in groups if group["params"]]
