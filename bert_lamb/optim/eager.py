"""The passes of a step with one kernel for each operation: `reference` and `foreach`. Directions are kept between them.

Steps are counted on the host, and where steps may be skipped the device is asked whether this one is.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from bert_lamb.optim import foreach, reference
from bert_lamb.optim.passes import Gate, NormRecord, Work
from bert_lamb.optim.trust_ratio import TrustRatio


class Math(Protocol):
    """What `reference` and `foreach` have besides the directions."""

    def partial_norms(self, tensors: list[Tensor], norm: str) -> Tensor: ...
    def apply(self, params: list[Tensor], updates: list[Tensor], step_sizes: Tensor) -> None: ...


MATH: dict[str, Math] = {"reference": reference, "foreach": foreach}


class EagerPasses:
    """Implements `Passes`.

    directions: the rule's, from gradients in the parameters' dtype and the numbers of this step, 1 for the first.
    """

    def __init__(
        self,
        work: Work,
        math: Math,
        directions: Callable[[list[Tensor], list[int]], list[Tensor]],
        trust_ratio: TrustRatio,
    ) -> None:
        self.work, self.math, self.directions, self.trust_ratio = work, math, directions, trust_ratio
        self.device = work.params[0].device

    def grad_squares(self) -> Tensor:
        return self._partial_norms(self.work.grads, "l2")

    def advance(self, gate: Gate) -> None:
        work = self.work
        self.partial = self._nothing()
        self.step_sizes = self.partial[0] + work.group["lr"]
        self.is_skipped = gate.is_skipped is not None and bool(gate.is_skipped)
        if self.is_skipped:
            return
        for state in work.states:
            state["step"] += 1
        grads = [gradient.to(w.dtype) for gradient, w in zip(work.grads, work.params, strict=True)]
        if gate.multiplier is not None:
            grads = list(torch._foreach_mul(grads, gate.multiplier.to(self.device, grads[0].dtype)))
        self.updates = self.directions(grads, [int(state["step"]) for state in work.states])
        if work.group["adapt"]:
            norm = self.trust_ratio.norm
            self.partial = torch.stack([self._partial_norms(tensors, norm) for tensors in (work.params, self.updates)])

    def adapt(self) -> NormRecord:
        layout = self.work.layout
        whole = layout.reduce(self.partial, self.trust_ratio.reduce_operation)
        param_norm, update_norm, ratio = self.trust_ratio(whole)
        self.step_sizes = ratio * self.work.group["lr"]
        return NormRecord(layout.names, param_norm, update_norm, ratio)

    def apply(self) -> None:
        if self.is_skipped:
            return
        work = self.work
        pieces = work.layout.pieces(work.params)
        if pieces:
            self.math.apply(pieces, work.layout.pieces(self.updates), work.layout.by_piece(self.step_sizes))
        if work.copies:
            torch._foreach_copy_(work.copies, work.params)

    def _partial_norms(self, tensors: list[Tensor], norm: str) -> Tensor:
        pieces = self.work.layout.pieces(tensors)
        return self.work.layout.by_parameter(self.math.partial_norms(pieces, norm)) if pieces else self._nothing()[0]

    def _nothing(self) -> Tensor:
        return torch.zeros(2, len(self.work.layout.names), dtype=torch.float64, device=self.device)
