"""The group `optimizer`: LAMB, LARS, AdamW, and what the LAMB paper compares them with on images."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, check_if_positive
from bert_lamb.config.runtime import EngineName, RuntimeConfig


@dataclass
class OptimizerConfig:
    """What every optimizer has."""

    name: str = MISSING
    weight_decay: float = 0.01  # not on bias and LayerNorm
    exempt_embeddings: bool = False  # tables of embeddings are treated like bias and LayerNorm: no decay, no adaptation


class OptimizerImplementation(Enum):
    """How LAMB and LARS are computed; does not change the outcome beyond rounding."""

    auto = "auto"  # fused where it can be, else foreach
    reference = "reference"  # one tensor, one equation a line
    foreach = "foreach"  # many tensors per kernel
    fused = "fused"  # Triton, on a GPU
    apex = "apex"  # NVIDIA apex's FusedLAMB, where it is installed; LAMB with engine=torch only


class Nesterov(Enum):
    none = "none"
    first = "first"  # N-LAMB
    both = "both"  # NN-LAMB


class NormName(Enum):
    l2 = "l2"
    l1 = "l1"
    linf = "linf"


@dataclass
class LayerwiseConfig(OptimizerConfig):
    """What LAMB and LARS share; bert_lamb/optim/README.md has the formulas."""

    adapt_undecayed: bool = False  # a trust ratio for bias and LayerNorm too (NVLAMB)
    norm: NormName = NormName.l2  # of weights and directions
    param_norm_bounds: list[float] | None = None  # [lower, upper]: phi clips the weights' norm
    trust_ratio_bounds: list[float] | None = None  # [lower, upper]: the ratio is clipped
    implementation: OptimizerImplementation = OptimizerImplementation.auto


@dataclass
class LambConfig(LayerwiseConfig):
    name: str = "lamb"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    bias_correction: bool = True  # on the moments: the paper's v5; off: its v3 and Google's code
    nesterov: Nesterov = Nesterov.none


@dataclass
class LarsConfig(LayerwiseConfig):
    name: str = "lars"
    beta: float = 0.9  # decay of the momentum


@dataclass
class AdamWConfig(OptimizerConfig):
    name: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6


@dataclass
class AdamConfig(OptimizerConfig):
    name: str = "adam"
    weight_decay: float = 0.0  # added to the gradient, as in the two below: not decoupled
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass
class AdagradConfig(OptimizerConfig):
    name: str = "adagrad"
    weight_decay: float = 0.0
    eps: float = 1e-10


@dataclass
class MomentumConfig(OptimizerConfig):
    name: str = "momentum"
    weight_decay: float = 0.0
    beta: float = 0.9


CLASSES: dict[str, type[OptimizerConfig]] = {
    "lamb": LambConfig,
    "lars": LarsConfig,
    "adamw": AdamWConfig,
    "adam": AdamConfig,
    "adagrad": AdagradConfig,
    "momentum": MomentumConfig,
}


def check_optimizer(optimizer: OptimizerConfig, runtime: RuntimeConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(
        type(optimizer) is CLASSES.get(optimizer.name),
        "optimizer.name",
        optimizer.name,
        f"one of {', '.join(CLASSES)}, chosen with optimizer=NAME; a yaml of your own begins with "
        "defaults: [/schema/optimizer/NAME@_here_]",
    )
    complaints.unless(optimizer.weight_decay >= 0, "optimizer.weight_decay", optimizer.weight_decay, "0 or more")
    if isinstance(optimizer, AdamConfig | AdagradConfig | MomentumConfig):
        complaints.unless(
            runtime.engine is EngineName.torch,
            "runtime.engine",
            runtime.engine.value,
            f"torch with optimizer={optimizer.name}, which is here to compare with and is not tested on ranks",
        )
    if isinstance(optimizer, AdagradConfig):
        check_if_positive(complaints, "optimizer.", optimizer, "eps")
    if isinstance(optimizer, LambConfig | AdamWConfig | AdamConfig):
        is_right = _are_two_numbers(optimizer.betas) and all(0 <= beta < 1 for beta in optimizer.betas)
        shown = tuple(optimizer.betas) if _are_two_numbers(optimizer.betas) else optimizer.betas
        complaints.unless(is_right, "optimizer.betas", shown, "two numbers in [0, 1)")
        check_if_positive(complaints, "optimizer.", optimizer, "eps")
    if isinstance(optimizer, LarsConfig | MomentumConfig):
        complaints.unless(0 <= optimizer.beta < 1, "optimizer.beta", optimizer.beta, "a number in [0, 1)")
    if isinstance(optimizer, LayerwiseConfig):
        for name in ("param_norm_bounds", "trust_ratio_bounds"):
            bounds = getattr(optimizer, name)
            is_right = bounds is None or (_are_two_numbers(bounds) and 0 <= bounds[0] <= bounds[1])
            complaints.unless(is_right, f"optimizer.{name}", bounds, "[lower, upper] with 0 <= lower <= upper, or null")
        if optimizer.implementation is OptimizerImplementation.apex:
            complaints.extend(check_apex(optimizer, runtime))
    if isinstance(optimizer, LambConfig):
        complaints.unless(
            optimizer.nesterov is Nesterov.none or optimizer.bias_correction,
            "optimizer.bias_correction",
            optimizer.bias_correction,
            f"true with optimizer.nesterov={optimizer.nesterov.value}",
        )
    return complaints


def check_apex(optimizer: LayerwiseConfig, runtime: RuntimeConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(
        runtime.engine is EngineName.torch,
        "optimizer.implementation",
        "apex",
        "runtime.engine=torch: of ZeRO's partitions apex's FusedLAMB would take one trust ratio each",
    )
    if not isinstance(optimizer, LambConfig):
        complaints.unless(False, "optimizer.implementation", "apex", "optimizer=lamb: apex has no such LARS")
        return complaints
    for name in ("nesterov", "norm", "param_norm_bounds", "trust_ratio_bounds"):
        found = getattr(optimizer, name)
        complaints.unless(
            found == getattr(LambConfig(), name),
            f"optimizer.{name}",
            found.value if isinstance(found, Enum) else found,
            "its default: apex's FusedLAMB has no other",
        )
    return complaints


def _are_two_numbers(value: Any) -> bool:
    """Hydra puts whatever an interpolation gives, and lists of lists, where the schema says list[float]."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(one, int | float) for one in value)
