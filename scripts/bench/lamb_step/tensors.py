"""The memory that all candidates of a form share: parameters, gradients and moments."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lamb_step.fixed_point import fill
from lamb_step.groups import Group

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHORT = {dtype: name for name, dtype in DTYPES.items()}
FP32_BYTES = 4


class Tensors:
    """What the candidates of one form step on: w, m, v, g, g32 and low each hold a list of tensors for each group.

    form: "list" has one tensor for each of the model's parameters, "flat" one for a group, as ZeRO makes them.
    g is of `grad_dtype`; g32 has the same values in fp32, for optimizers that take nothing else. low: the parameters
    that follow their fp32 masters w; empty with fp32 parameters, and in form "flat", where they are the engine's.
    """

    def __init__(
        self, groups: list[Group], form: str, *, device: str, params_dtype: torch.dtype, grad_dtype: torch.dtype
    ) -> None:
        self.groups, self.form = groups, form

        def make(dtype: torch.dtype) -> list[list[Tensor]]:
            shapes = [group.shapes if form == "list" else (torch.Size([group.numel]),) for group in groups]
            return [[torch.zeros(shape, dtype=dtype, device=device) for shape in group] for group in shapes]

        self.w, self.m, self.v, self.g32 = (make(torch.float32) for _ in range(4))
        self.g = self.g32 if grad_dtype is torch.float32 else make(grad_dtype)
        has_low = form == "list" and params_dtype is not torch.float32
        self.low = make(params_dtype) if has_low else []
        self.grad_bytes = grad_dtype.itemsize
        self.copy_bytes = params_dtype.itemsize if has_low else 0
        w = f"w {SHORT[params_dtype]} + fp32" if has_low else "w fp32"
        self.dtypes = f"{w}, g {SHORT[grad_dtype]}"

    def by_parameter(self, per_group: list[list[Tensor]]) -> list[Tensor]:
        """One tensor for each parameter of the model, in its order; views in form "flat"."""
        if self.form == "list":
            return flatten(per_group)
        return [
            piece.view(shape)
            for group, (flat,) in zip(self.groups, per_group, strict=True)
            for piece, shape in zip(flat.split(list(group.sizes)), group.shapes, strict=True)
        ]

    def reset(self) -> None:
        """Go back to the fixed point; gradients are rounded to `grad_dtype`, in g32 too."""
        together = zip(*(self.by_parameter(kind) for kind in (self.w, self.g32, self.m, self.v)), strict=True)
        for number, tensors in enumerate(together):
            fill(number, *tensors)
        if self.g is not self.g32:
            for low, wide in zip(flatten(self.g), flatten(self.g32), strict=True):
                low.copy_(wide)
                wide.copy_(low)
        if self.low:
            for low, w in zip(flatten(self.low), flatten(self.w), strict=True):
                low.copy_(w)


def flatten(per_group: list[list[Tensor]]) -> list[Tensor]:
    return [tensor for tensors in per_group for tensor in tensors]


def parameter_on(value: Tensor, gradient: Tensor) -> torch.nn.Parameter:
    """A parameter that shares its memory with `value`, and that of its gradient with `gradient`."""
    parameter = torch.nn.Parameter(value)
    if gradient.dtype is not value.dtype:
        parameter.grad_dtype = gradient.dtype  # type: ignore[assignment]
    parameter.grad = gradient
    return parameter


# Makes an optimizer whose parameters and state are these tensors, by the settings of the command.
Build = Callable[[Tensors, argparse.Namespace], torch.optim.Optimizer]


def give_state(
    optimizer: torch.optim.Optimizer,
    tensors: Tensors,
    *,
    step: Callable[[], Any],
    group_step: Callable[[], Any] | None = None,
) -> None:
    """Put the shared moments, and masters, into the optimizer's state under the names that all candidates use.

    step and group_step make the number of steps taken, which some keep with each parameter and some with the group.
    """
    for group, ws, ms, vs in zip(optimizer.param_groups, tensors.w, tensors.m, tensors.v, strict=True):
        for parameter, w, m, v in zip(group["params"], ws, ms, vs, strict=True):
            state = {"step": step(), "exp_avg": m, "exp_avg_sq": v}
            optimizer.state[parameter] = state if parameter.dtype is torch.float32 else {**state, "master": w}
        if group_step is not None:
            group["step"] = group_step()
