"""Our optimizers, built on the shared tensors."""

import argparse
from typing import Any

import torch
from torch import Tensor

from bert_lamb.optim import Lars, LayerwiseOptimizer, Segments
from lamb_step.fixed_point import BETAS, EPS, LR, STEPS_BEFORE
from lamb_step.groups import Group
from lamb_step.tensors import Build, Tensors, give_state, parameter_on


def ours(optimizer_type: type[LayerwiseOptimizer], implementation: str, *, knows_segments: bool = True) -> Build:
    """How to build one of them. knows_segments: it knows which parameters a flat tensor consists of."""

    def build(tensors: Tensors, settings: argparse.Namespace) -> torch.optim.Optimizer:
        values = tensors.low or tensors.w
        groups = []
        for group, of_values, of_gradients in zip(tensors.groups, values, tensors.g, strict=True):
            parameters = [parameter_on(w, g) for w, g in zip(of_values, of_gradients, strict=True)]
            groups.append({"params": parameters, "weight_decay": group.weight_decay, "adapt": group.adapt})
        options: dict[str, Any] = {} if optimizer_type is Lars else {"betas": BETAS, "eps": EPS}
        optimizer = optimizer_type(
            groups,
            lr=LR,
            implementation=implementation,
            skip_nonfinite=settings.skip_nonfinite == "on",
            awaits_binding=tensors.form == "flat",
            **options,
        )
        if tensors.form == "flat":
            flats = (parameter for group in optimizer.param_groups for parameter in group["params"])
            cuts = [_cut(group, knows_segments=knows_segments) for group in tensors.groups]
            optimizer.bind(zip(flats, cuts, strict=True))
        give_state(optimizer, tensors, step=lambda: torch.tensor(float(STEPS_BEFORE)))
        return optimizer

    return build


def _cut(group: Group, *, knows_segments: bool) -> Segments:
    """The cut that the ZeRO adapter makes of a partition of whole parameters, or one big parameter."""
    names, sizes = (group.names, group.sizes) if knows_segments else (("all",), (group.numel,))
    return Segments(names, tuple(range(len(names))), sizes, reduce_norms=_over_one_rank)


def _over_one_rank(partial: Tensor, operation: str) -> Tensor:
    """A reducer that makes `bind` leave skipping to the engine, as under ZeRO."""
    return partial
