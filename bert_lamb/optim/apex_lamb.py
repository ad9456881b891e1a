"""NVIDIA apex's FusedLAMB as an optional peer: for images that carry apex, and to compare with. Never required."""

import importlib
from typing import Any

import torch
from torch.optim import Optimizer

from bert_lamb.errors import UserError

NEVER_CLIPS = 1e30  # apex divides by it; the engine has clipped already


def build_apex_lamb(
    groups: list[dict[str, Any]],
    *,
    betas: tuple[float, float],
    eps: float,
    bias_correction: bool,
    adapt_undecayed: bool,
) -> Optimizer:
    """apex.optimizers.FusedLAMB over `groups` (see `parameter_groups`), with the same formula as `Lamb`, lr 0 for now.

    It has one trust ratio for each tensor it is given, so it must be given whole parameters, and it computes in the
    parameters' dtype. Raises UserError when NVIDIA's apex is not there or a parameter is not fp32.
    """
    dtypes = {parameter.dtype for group in groups for _, parameter in group["params"]}
    if dtypes != {torch.float32}:
        raise UserError(
            found=f"parameters of {', '.join(sorted(map(str, dtypes)))} for apex's FusedLAMB",
            expected="torch.float32: it keeps no fp32 masters, and steps are lost in the rounding of anything less",
            fix="set optimizer.implementation=fused",
        )
    plain = [{"params": [p for _, p in group["params"]], "weight_decay": group["weight_decay"]} for group in groups]
    optimizer: Optimizer = _fused_lamb()(
        plain,
        lr=0.0,
        betas=betas,
        eps=eps,
        bias_correction=bias_correction,
        max_grad_norm=NEVER_CLIPS,
        use_nvlamb=adapt_undecayed,
    )
    return optimizer


def _fused_lamb() -> Any:
    """The class; raises UserError where there is no apex, or another package of that name."""
    fix = "install apex from github.com/NVIDIA/apex, use NVIDIA's PyTorch image, or set optimizer.implementation=fused"
    try:
        apex = importlib.import_module("apex")
    except ImportError:
        raise UserError(found="no package apex", expected="NVIDIA's apex", fix=fix) from None
    try:
        return importlib.import_module("apex.optimizers").FusedLAMB
    except (ImportError, AttributeError):
        raise UserError(
            found=f"{getattr(apex, '__file__', None) or 'apex'} without apex.optimizers.FusedLAMB",
            expected="NVIDIA's apex, built with its CUDA extensions (PyPI's apex is an unrelated package)",
            fix=fix,
        ) from None
