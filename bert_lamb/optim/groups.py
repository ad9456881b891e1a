"""Which parameters are decayed and adapted: everything but biases and normalization, as in the LAMB authors' code."""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

NORMALIZATION = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
NAMES_OF_NORMALIZATION = ("layernorm", "layer_norm")  # in lower case; LayerNorm and layer_norm are the authors' list
NAMES_OF_EMBEDDINGS = ("embedding", "embeddings", "embed_tokens")  # ends of a table's own name, in lower case


def is_exempt(name: str, parameter: Parameter, module: nn.Module | None = None) -> bool:
    """Whether a parameter is neither decayed nor adapted: a bias, or a normalization's scale or shift.

    Decided by what it is rather than by its name, which differs between models: every parameter of one dimension or
    none, and every parameter of a normalization `module`. Names add what is left: a bias of two dimensions, and a
    normalization of two whose module is not known.
    Raises ValueError for a flat tensor of several parameters (FSDP1), of which none can be told from the others.
    """
    if type(parameter).__name__ == "FlatParameter":
        raise ValueError(
            f"{name} is a flat tensor of several parameters (FSDP1), whose trust ratio would be one for all of them;"
            " use FSDP2 (fully_shard), or make the groups and the optimizer before the model is wrapped"
        )
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)  # a partition of ZeRO stage 3 is flat
    is_normalization = isinstance(module, NORMALIZATION) or any(part in name.lower() for part in NAMES_OF_NORMALIZATION)
    return len(shape) <= 1 or name.endswith("bias") or is_normalization


def is_embedding(name: str, module: nn.Module | None = None) -> bool:
    """Whether a parameter is a table of embeddings, by its module where that is known, else by name."""
    if module is not None:
        return isinstance(module, nn.Embedding)
    return name.removesuffix(".weight").lower().endswith(NAMES_OF_EMBEDDINGS)


def parameter_groups(
    parameters: nn.Module | Iterable[tuple[str, Parameter]],
    *,
    weight_decay: float,
    adapt_undecayed: bool = False,
    exempt_embeddings: bool = False,
    idle: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Two torch param groups with names: first the decayed and adapted parameters, then the exempt ones (`is_exempt`).

    parameters: a model, or its named parameters; of a model the types of its modules are looked at too.
    adapt_undecayed: the exempt ones have a trust ratio too (NVLAMB: NVIDIA's use_nvlamb, timm's always_adapt).
    exempt_embeddings: tables of embeddings are exempt too, as in HPLT's and GPT-BERT's code. One that is tied to the
    output layer is the table, as long as its name comes first.
    idle: names of parameters whose gradients are always zero. They are exempt, since decay alone would move them.
    Source: the exclusion list ["LayerNorm", "layer_norm", "bias"] of the authors' LAMB optimizer for BERT.
    An empty group is left out. Parameters keep their order. Raises ValueError as `is_exempt`.
    """
    modules = dict(parameters.named_modules()) if isinstance(parameters, nn.Module) else {}
    named = parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters
    regular: list[tuple[str, Parameter]] = []
    exempt: list[tuple[str, Parameter]] = []
    for name, parameter in named:
        module = modules.get(name.rpartition(".")[0])
        is_regular = name not in idle and not is_exempt(name, parameter, module)
        is_regular = is_regular and not (exempt_embeddings and is_embedding(name, module))
        (regular if is_regular else exempt).append((name, parameter))
    groups: list[dict[str, Any]] = [
        {"params": regular, "weight_decay": weight_decay, "adapt": True},
        {"params": exempt, "weight_decay": 0.0, "adapt": adapt_undecayed},
    ]
    return [group for group in groups if group["params"]]
