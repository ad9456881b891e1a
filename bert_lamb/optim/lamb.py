"""LAMB as a drop-in torch.optim.Optimizer that stays exact when its parameters are flattened and partitioned.

On plain parameters it needs nothing else. Where an engine swaps them for flat partitions (DeepSpeed ZeRO), the engine
says with `bind` which elements belong to which parameter; without that, `step` refuses, because one trust ratio per
slice of the network is not LAMB.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from bert_lamb.optim import foreach, reference
from bert_lamb.optim.segments import PADDING, Segments, trust_ratios

Implementation = Literal["reference", "foreach"]
IMPLEMENTATIONS: dict[str, ModuleType] = {"reference": reference, "foreach": foreach}


@dataclass(frozen=True)
class NormRecord:
    """Norms of one step, per adapted parameter; all [len(names)] float64 on the parameters' device."""

    names: tuple[str, ...]
    param_norm: Tensor
    update_norm: Tensor
    trust_ratio: Tensor


class Lamb(Optimizer):
    """Layer-wise adaptive moments (You et al. 2020, Algorithm 2).

    params: tensors, named tensors, or groups of either; a group may set lr, betas, eps, weight_decay, bias_correction
    and adapt (False: no trust ratio, for biases and LayerNorm; see `parameter_groups`).
    lr: learning rate eta. betas: decay of the moments. eps: added outside the root. weight_decay: lambda, joins the
    direction before its norm is taken. bias_correction: on the moments (paper v5) or off (v3, Google's code).
    implementation: "reference" or "foreach"; they agree to rounding.
    awaits_binding: True when an engine will swap the parameters and call `bind`; until then `step` does nothing on
    zero gradients (DeepSpeed makes such a call while it initialises) and refuses others.

    State per tensor: step (0-d float32), exp_avg and exp_avg_sq (like the tensor).
    Raises ValueError for values out of range, RuntimeError for tensors that it was neither built with nor bound to.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        bias_correction: bool = True,
        adapt: bool = True,
        implementation: Implementation = "foreach",
        awaits_binding: bool = False,
    ) -> None:
        if not lr >= 0:
            raise ValueError(f"lr={lr} is outside 0..inf")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={betas} are outside [0, 1)")
        if not eps >= 0:
            raise ValueError(f"eps={eps} is outside 0..inf")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay={weight_decay} is outside 0..inf")
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(f"implementation={implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
        self._reset_bindings(implementation, awaits_binding)
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "adapt": adapt,
        }
        super().__init__(params, defaults)

    def _reset_bindings(self, implementation: str, awaits_binding: bool) -> None:
        self.implementation = implementation
        self.awaits_binding = awaits_binding
        self._segments: dict[int, Segments] = {}  # by id of the tensor
        self._records: dict[int, NormRecord] = {}  # by id of the group's first tensor

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        first = sum(len(other["params"]) for other in self.param_groups[:-1])
        names = group.get("param_names") or [str(first + index) for index in range(len(group["params"]))]
        for name, parameter in zip(names, group["params"], strict=True):
            self._segments[id(parameter)] = Segments.of_whole(name, parameter)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "implementation": self.implementation, "awaits_binding": self.awaits_binding}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy has other tensors: what it was built with is what it holds now; bindings to partitions do not carry.
        super().__setstate__(state)
        self._reset_bindings(self.implementation, self.awaits_binding)
        for group in self.param_groups:
            names = group.get("param_names") or [str(index) for index in range(len(group["params"]))]
            for name, parameter in zip(names, group["params"], strict=True):
                self._segments[id(parameter)] = Segments.of_whole(name, parameter)

    def bind(self, cuts: Iterable[tuple[Tensor, Segments]]) -> None:
        """Say which elements of the engine's tensors belong to which parameter; forgets all state made before.

        cuts: every tensor that the engine will put into the param groups, with its cut.
        Raises ValueError when a cut does not cover its tensor.
        """
        self._segments, self._records = {}, {}
        self.state.clear()
        for tensor, segments in cuts:
            if sum(segments.sizes) != tensor.numel():
                raise ValueError(f"segments of {sum(segments.sizes)} elements for a tensor of {tensor.numel()}")
            self._segments[id(tensor)] = segments
            self._state_of(tensor)  # eager: ZeRO links state to parameters after the first group's first step
        self.awaits_binding = False

    @property
    def last_norms(self) -> list[NormRecord]:
        """Norms and trust ratios of the last step, one record per adapted group; no extra pass over memory."""
        return list(self._records.values())

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every tensor that has a gradient; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if self.awaits_binding:
                self._check_if_only_initialising(params)
            elif params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        cuts = [self._segments_of(p) for p in params]
        states = [self._state_of(p) for p in params]
        for state in states:
            state["step"] += 1
        math = IMPLEMENTATIONS[self.implementation]
        beta1, beta2 = group["betas"]
        updates = math.directions(
            params,
            [p.grad for p in params],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [int(state["step"]) for state in states],
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            bias_correction=group["bias_correction"],
        )
        if group["adapt"]:
            self._adapt(math, params, updates, cuts)
        math.apply(params, updates, group["lr"])

    def _adapt(self, math: ModuleType, params: list[Tensor], updates: list[Tensor], cuts: list[Segments]) -> None:
        """Multiply the directions by their parameters' trust ratios, in place."""
        names: list[str] = []
        slots: list[int] = []
        weights: list[Tensor] = []
        pieces: list[Tensor] = []
        for parameter, update, cut in zip(params, updates, cuts, strict=True):
            for slot, weight, piece in zip(cut.slots, cut.split(parameter), cut.split(update), strict=True):
                if slot != PADDING:
                    slots.append(len(names) + slot)
                    weights.append(weight)
                    pieces.append(piece)
            names.extend(cut.names)

        squared = torch.zeros(2, len(names), dtype=torch.float64, device=params[0].device)
        slot_of_piece = torch.tensor(slots, dtype=torch.int64, device=params[0].device)
        if pieces:
            squared[0].index_add_(0, slot_of_piece, math.squared_norms(weights))
            squared[1].index_add_(0, slot_of_piece, math.squared_norms(pieces))
        first = 0
        for cut in cuts:
            share = slice(first, first + len(cut.names))
            squared[:, share] = cut.reduce_norms(squared[:, share].contiguous())
            first = share.stop

        ratios = trust_ratios(squared)
        if pieces:
            math.scale(pieces, ratios[slot_of_piece])
        param_norm, update_norm = squared.sqrt()
        self._records[id(params[0])] = NormRecord(tuple(names), param_norm, update_norm, ratios)

    def _segments_of(self, parameter: Tensor) -> Segments:
        segments = self._segments.get(id(parameter))
        if segments is None:
            raise RuntimeError(
                f"LAMB was asked to update a tensor of shape {tuple(parameter.shape)} that it was not built with:"
                " an engine swapped the parameters for flat partitions, whose trust ratios would be wrong."
                " Build it with awaits_binding=True and call bind() after the engine's initialisation."
            )
        return segments

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state

    def _check_if_only_initialising(self, params: list[Tensor]) -> None:
        if any(p.grad is not None and bool(p.grad.any()) for p in params):
            raise RuntimeError("LAMB awaits binding: call bind() after the engine's initialisation, before training.")
