"""What an implementation of LAMB and LARS is given and gives: the port between the step and its kernels.

The passes of a step are an implementation's (`eager.py`: reference and foreach; `fused.py`: Triton).
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from bert_lamb.optim.segments import Layout

Implementation = Literal["auto", "reference", "foreach", "fused"]
IMPLEMENTATIONS: tuple[str, ...] = get_args(Implementation)
LOW_PRECISION = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class NormRecord:
    """Norms of one step, per adapted parameter; all [len(names)] float64 on the parameters' device."""

    names: tuple[str, ...]
    param_norm: Tensor
    update_norm: Tensor
    trust_ratio: Tensor


@dataclass(frozen=True)
class Work:
    """What one step touches together: tensors of one group, device and combination of dtypes, in order.

    params: fp32 or wider, local; the masters where the parameters are of low precision. grads: of any dtype.
    copies: the low-precision parameters that follow their masters; empty where there are none.
    moments: by name. states: the optimizer's own, of which an implementation counts the steps.
    """

    group: dict[str, Any]
    keys: list[Tensor]  # the tensors as the optimizer knows them
    params: list[Tensor]
    grads: list[Tensor]
    copies: list[Tensor]
    moments: dict[str, list[Tensor]]
    states: list[dict[str, Tensor]]
    layout: Layout


@dataclass(frozen=True)
class Gate:
    """What comes before the update, on the device: whether to skip it, and the gradients' multiplier.

    is_skipped: 0-d bool; multiplier: 0-d float32; None: never skipped, multiplied by 1.
    """

    is_skipped: Tensor | None = None
    multiplier: Tensor | None = None


class Passes(Protocol):
    """An implementation at work on one step of one `Work`."""

    def grad_squares(self) -> Tensor:
        """Local sums of squares of the gradients as they are, [len(layout.names)] float64."""

    def advance(self, gate: Gate) -> None:
        """Pass 1: moments in place, and where the group is adapted partial norms of w and u."""

    def adapt(self) -> NormRecord:
        """Pass 2, for a group that is adapted: the norms made global, and a step size for each parameter."""

    def apply(self) -> None:
        """Pass 3: w -= step_size u; the step size is lr where the group is not adapted."""
