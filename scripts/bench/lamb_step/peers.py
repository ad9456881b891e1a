"""Other people's optimizers, built on the shared tensors: of PyTorch, timm, DeepSpeed and NVIDIA's apex."""

import argparse
import importlib
import importlib.util
import sys
import types
from typing import Any

import torch

from lamb_step.fixed_point import BETAS, EPS, LR, STEPS_BEFORE
from lamb_step.tensors import Build, Tensors, give_state, parameter_on


class UnavailableError(Exception):
    """This optimizer cannot run here; the message says why in one line."""


def _plain_groups(tensors: Tensors) -> list[dict[str, Any]]:
    """Groups of fp32 parameters with fp32 gradients, which all of them take."""
    return [
        {"params": [parameter_on(w, g) for w, g in zip(ws, gs, strict=True)], "weight_decay": group.weight_decay}
        for group, ws, gs in zip(tensors.groups, tensors.w, tensors.g32, strict=True)
    ]


def torch_adamw(implementation: str) -> Build:
    def build(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(_plain_groups(tensors), lr=LR, betas=BETAS, eps=EPS, **{implementation: True})
        device = tensors.w[0][0].device if implementation == "fused" else "cpu"
        give_state(optimizer, tensors, step=lambda: torch.tensor(float(STEPS_BEFORE), device=device))
        return optimizer

    return build


def timm_lamb(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
    specification = importlib.util.find_spec("timm")
    if specification is None or not specification.submodule_search_locations:
        raise UnavailableError("timm is not installed")
    # timm's optimizers without timm's models, which need torchvision.
    root = next(iter(specification.submodule_search_locations))
    for name, path in (("timm", root), ("timm.optim", f"{root}/optim")):
        module = types.ModuleType(name)
        module.__path__ = [path]
        sys.modules[name] = module
    optimizer: torch.optim.Optimizer = importlib.import_module("timm.optim.lamb").Lamb(
        _plain_groups(tensors), lr=LR, betas=BETAS, eps=EPS, max_grad_norm=None
    )

    def step() -> torch.Tensor:
        return torch.tensor(float(STEPS_BEFORE))

    give_state(optimizer, tensors, step=step, group_step=step)
    return optimizer


def deepspeed_lamb(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
    if settings.device != "cuda":
        raise UnavailableError("its kernel is for CUDA only")
    if importlib.util.find_spec("deepspeed") is None:
        raise UnavailableError("deepspeed is not installed")
    from deepspeed.ops.lamb import FusedLamb

    optimizer: torch.optim.Optimizer = FusedLamb(_plain_groups(tensors), lr=LR, betas=BETAS, eps=EPS)
    give_state(optimizer, tensors, step=lambda: STEPS_BEFORE)
    return optimizer


def apex_lamb(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
    if settings.device != "cuda":
        raise UnavailableError("its kernel is for CUDA only")
    if importlib.util.find_spec("apex") is None:
        raise UnavailableError("NVIDIA's apex is not installed")
    if not hasattr(importlib.import_module("apex"), "__path__") or importlib.util.find_spec("apex.optimizers") is None:
        raise UnavailableError("apex is not NVIDIA's (PyPI's apex is another package)")
    optimizer: torch.optim.Optimizer = importlib.import_module("apex.optimizers").FusedLAMB(
        _plain_groups(tensors), lr=LR, betas=BETAS, eps=EPS, max_grad_norm=1e30
    )
    give_state(optimizer, tensors, step=lambda: STEPS_BEFORE, group_step=lambda: STEPS_BEFORE)
    return optimizer
