"""Each candidate's first step, compared with that of `reference`: one that differs is not timed."""

import argparse
import contextlib
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bert_lamb.optim import Lamb, Lars
from lamb_step.fixed_point import BETAS, EPS, LR, LR_COMPARED, STEPS_BEFORE, fill
from lamb_step.groups import Group
from lamb_step.kinds import KINDS, counted_bytes
from lamb_step.peers import UnavailableError
from lamb_step.rows import Row
from lamb_step.tensors import DTYPES, Tensors, flatten, parameter_on
from lamb_step.tilings import tiling_of
from lamb_step.timing import synchronize

TOLERANCE = 1e-3  # fp32 norms of millions of elements, as timm takes them, are off by 1e-4 on a CPU


@dataclass(frozen=True)
class Expected:
    """`reference` after its step from the fixed point. lengths: the largest change of an element of each parameter."""

    w: list[Tensor]
    lengths: list[Tensor]


def expect(formula: str, groups: list[Group], *, device: str, grad_dtype: torch.dtype) -> Expected:
    """Let `reference` step on one parameter at a time: that needs little memory, and none of the candidates'."""
    expected = Expected([], [])
    optimizer_type = {"lamb": Lamb, "lars": Lars}[formula]
    for group in groups:
        for index, shape in enumerate(group.shapes):
            w, g, m, v = (torch.zeros(shape, device=device) for _ in range(4))
            fill(group.first + index, w, g, m, v)
            before = w.clone()
            parameter = parameter_on(w, g.to(grad_dtype).to(torch.float32))
            own = {"params": [parameter], "weight_decay": group.weight_decay, "adapt": group.adapt}
            options: dict[str, Any] = {} if formula == "lars" else {"betas": BETAS, "eps": EPS}
            optimizer = optimizer_type([own], lr=LR_COMPARED, implementation="reference", **options)
            optimizer.state[parameter] = {
                "step": torch.tensor(float(STEPS_BEFORE)),
                "exp_avg": m,
                "exp_avg_sq": v,
            }
            optimizer.step()
            expected.w.append(w)
            expected.lengths.append((w - before).abs().max())
    return expected


def difference(tensors: Tensors, expected: Expected, *, has_copies: bool) -> float:
    """Largest difference of an element, as a share of the largest change of an element of the same parameter.

    Infinite if a low-precision parameter is not its master rounded.
    """
    shares = [
        (found - right).abs().max() / length
        for found, right, length in zip(tensors.by_parameter(tensors.w), expected.w, expected.lengths, strict=True)
    ]
    if has_copies:
        pairs = zip(flatten(tensors.low), flatten(tensors.w), strict=True)
        if not all(torch.equal(low, w.to(low.dtype)) for low, w in pairs):
            return math.inf
    return float(torch.stack(shares).nan_to_num(nan=math.inf).max())


def set_up(kinds: Iterable[str], forms: dict[str, Tensors], settings: argparse.Namespace) -> list[Row]:
    """The rows, each with an optimizer whose first step was right, or with the reason why there is none."""
    groups = next(iter(forms.values())).groups
    grad_dtype = DTYPES[settings.grad_dtype]
    expected = {
        formula: expect(formula, groups, device=settings.device, grad_dtype=grad_dtype)
        for formula in ("lamb", "lars")
        if any(KINDS[kind].formula == formula for kind in kinds)
    }
    rows = []
    for form, tensors in forms.items():
        for kind in kinds:
            candidate = KINDS[kind]
            if form in candidate.forms:
                dtypes = tensors.dtypes if candidate.is_ours else "w fp32, g fp32"
                can_sweep = kind in ("lamb-fused", "lars-fused")
                for tiling in (None, *settings.tilings) if can_sweep else (None,):
                    title = candidate.title if tiling is None else f"{candidate.title} {tiling}"
                    row = Row(kind, title, form, dtypes, tiling)
                    rows.append(row)
                    _try(row, tensors, None if candidate.formula is None else expected[candidate.formula], settings)
    return rows


def _try(row: Row, tensors: Tensors, expected: Expected | None, settings: argparse.Namespace) -> None:
    """Build the row's optimizer and take the compared step.

    Any error becomes the row's reason: what is not installed, does not compile or does not fit into memory differs from
    machine to machine, and must not cost the other rows.
    """
    print(f"{row.title}, {row.form} ...", file=sys.stderr, flush=True)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # DeepSpeed prints how it compiles
            tensors.reset()
            optimizer = KINDS[row.kind].build(tensors, settings)
            if row.tiling is not None:
                optimizer.tiling = tiling_of(row.tiling)
            _set_lr(optimizer, LR_COMPARED)
            optimizer.step()
            synchronize(settings.device)
            _set_lr(optimizer, LR)
            row.chunks = [memory.chunks.chunk for memory in getattr(optimizer, "fused_memory", {}).values()] or None
            if expected is not None:
                has_copies = KINDS[row.kind].is_ours and bool(tensors.low)
                row.max_relative_difference = difference(tensors, expected, has_copies=has_copies)
    except UnavailableError as error:
        row.reason = str(error)
        return
    except Exception as error:
        kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
        row.reason = kind + " ".join(str(error).split())[:300]
        return
    if row.max_relative_difference is not None and not row.max_relative_difference <= TOLERANCE:
        row.reason = f"wrong, so not timed: it differs from reference by {row.max_relative_difference:.1e} of a step"
        return
    row.optimizer = optimizer
    reads_norm = getattr(optimizer, "skip_nonfinite", False) or getattr(optimizer, "max_grad_norm", None) is not None
    row.counted_bytes = counted_bytes(row.kind, tensors, reads_norm=reads_norm)


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
