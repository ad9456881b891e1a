"""What LAMB and LARS share: everything but the direction of a step.

    0  is the gradient finite, and by what is it multiplied           (clipping, loss scale)
    1  directions u, elementwise, on whatever slice we hold           (lamb.py, lars.py)
    2  partial norms of w and u per parameter, made global            (the port: segments.py)
    3  w -= lr ratio u, elementwise, the ratio looked up per segment

The passes are an implementation's (`eager.py`: reference and foreach; `fused.py`: Triton). The order of events is
here, and no implementation reads a number back from the device to decide it, but where `eager.py` says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from bert_lamb.optim import dtensor, fused
from bert_lamb.optim.bindings import Bindings
from bert_lamb.optim.fused_tables import Tiling
from bert_lamb.optim.gate import Gatekeeper
from bert_lamb.optim.passes import IMPLEMENTATIONS, LOW_PRECISION, Implementation, NormRecord, Passes, Work
from bert_lamb.optim.segments import Segments, keep_local
from bert_lamb.optim.trust_ratio import NORMS, Bounds, Norm, TrustRatio


class LayerwiseOptimizer(Optimizer, ABC):
    """An optimizer whose step is, per parameter, lr phi(||w||) / ||u|| long. See `Lamb` for the arguments.

    State per tensor: step (0-d float32), the subclass's moments (fp32 or wider, like the tensor), and for tensors of
    low precision `master`, their fp32 values.
    Raises ValueError for values out of range, RuntimeError for tensors that it was neither built with nor bound to.
    """

    MOMENTS: ClassVar[tuple[str, ...]]
    tiling = Tiling()  # of the fused kernels; another one before the first step, to measure it
    _step_supports_amp_scaling = (
        True  # torch.amp.GradScaler hands over found_inf and its scale; nothing is unscaled twice
    )

    def __init__(
        self,
        params: Iterable[Any],
        defaults: dict[str, Any],
        *,
        norm: Norm,
        param_norm_bounds: Bounds | None,
        trust_ratio_bounds: Bounds | None,
        max_grad_norm: float | None,
        skip_nonfinite: bool,
        implementation: Implementation,
        awaits_binding: bool,
    ) -> None:
        require("norm", norm, norm in NORMS, f"one of {', '.join(NORMS)}")
        for name, bounds in (("param_norm_bounds", param_norm_bounds), ("trust_ratio_bounds", trust_ratio_bounds)):
            require(name, bounds, bounds is None or 0 <= bounds[0] <= bounds[1], "0 <= lower <= upper, or None")
        require("max_grad_norm", max_grad_norm, max_grad_norm is None or max_grad_norm > 0, "above 0, or None")
        require(
            "implementation", implementation, implementation in IMPLEMENTATIONS, f"one of {', '.join(IMPLEMENTATIONS)}"
        )
        self.implementation = implementation
        self.trust_ratio = TrustRatio(norm, param_norm_bounds, trust_ratio_bounds)
        self.max_grad_norm, self.skip_nonfinite = max_grad_norm, skip_nonfinite
        self.awaits_binding = awaits_binding
        self._forget_tensors()
        super().__init__(params, defaults)

    # -- which elements belong to which parameter ------------------------------------------------------------------

    def _forget_tensors(self) -> None:
        self._bindings, self._gatekeeper = Bindings(), Gatekeeper()
        self._records: dict[int, NormRecord] = {}  # by id of the work's first tensor
        self.fused_memory: dict[Any, Any] = {}  # what the fused implementation keeps between steps
        self._is_bound = False  # an engine calls step once for each group

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self.check_group(self.param_groups[-1])
        first = sum(len(other["params"]) for other in self.param_groups[:-1])
        self._bindings.bind_parameters(self.param_groups[-1], first)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise ValueError for a hyperparameter of a group that is out of range."""
        require("lr", group["lr"], bool(group["lr"] >= 0), "0 or more")
        require("weight_decay", group["weight_decay"], group["weight_decay"] >= 0, "0 or more")

    def __getstate__(self) -> dict[str, Any]:
        kept = ("implementation", "trust_ratio", "max_grad_norm", "skip_nonfinite", "awaits_binding", "_is_bound")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in kept}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy has other tensors: what it was built with is what it holds now. Bindings to partitions do not carry.
        super().__setstate__(state)
        self._forget_tensors()
        if state.get("_is_bound", False):
            return
        first = 0
        for group in self.param_groups:
            self._bindings.bind_parameters(group, first)
            first += len(group["params"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but moments and masters keep their fp32, and lie in memory as their parameters do.

        Of a model that has been cast meanwhile, masters are made or dropped.
        """
        bindings, is_bound = self._bindings, self._is_bound
        super().load_state_dict(state_dict)  # ends in __setstate__, which forgets them; the tensors are the same
        self._bindings, self._is_bound = bindings, is_bound
        packed = (index for group in state_dict["param_groups"] for index in group["params"])
        held = (parameter for group in self.param_groups for parameter in group["params"])
        for index, parameter in zip(packed, held, strict=True):
            saved, state = state_dict["state"].get(index, {}), self.state[parameter]
            is_low = parameter.dtype in LOW_PRECISION
            if saved and is_low and "master" not in saved:  # of a model that was cast meanwhile
                state["master"] = parameter.detach().to(torch.float32)
            elif not is_low:
                state.pop("master", None)
            for name in (*self.MOMENTS, "master"):
                if name in saved and name in state and (is_low or state[name].stride() != parameter.stride()):
                    dtype = torch.float32 if is_low else parameter.dtype
                    like = torch.empty_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
                    state[name] = like.detach().copy_(saved[name])

    def bind(self, cuts: Iterable[tuple[Tensor, Segments]]) -> None:
        """Say which elements of the engine's tensors belong to which parameter; forgets all state made before.

        cuts: every tensor that the engine will put into the param groups, with its cut. The engine clips gradients and
        skips what is not finite, since it calls `step` for one group at a time.
        Raises ValueError when a cut does not cover its tensor, or when this optimizer was to clip partitions.
        """
        self._forget_tensors()
        self.state.clear()
        for tensor, segments in cuts:
            if segments.reduce_norms is not keep_local:
                if self.max_grad_norm is not None:
                    raise ValueError(
                        f"max_grad_norm={self.max_grad_norm} with partitions: one call sees one group, which has no"
                        " global norm; let the engine clip (DeepSpeed: gradient_clipping)"
                    )
                self.skip_nonfinite = False
            self._bindings.bind(tensor, segments)
            self.state_of(tensor)  # at once: ZeRO links state to parameters after the first group's first step
        self._is_bound = True
        self.awaits_binding = False

    def _cut_of(self, parameter: Tensor) -> Segments:
        segments = self._bindings.cut_of(parameter)
        if segments is None:
            raise RuntimeError(
                f"{type(self).__name__} was asked to update a tensor of shape {tuple(parameter.shape)} that it was not"
                " built with: an engine swapped the parameters for flat partitions, whose trust ratios would be wrong."
                " Build it with awaits_binding=True and call bind() after the engine's initialization."
            )
        return segments

    # -- a step ----------------------------------------------------------------------------------------------------

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
        if self.awaits_binding:
            self._check_if_only_initializing()
            return loss
        if not self._is_bound:
            self._records.clear()
        todo = [(work, self._passes(work)) for group in self.param_groups for work in self._works(group)]
        gate = self._gatekeeper.gate(
            todo,
            grad_scale=getattr(self, "grad_scale", None),  # set by torch.amp.GradScaler, for one call
            found_inf=getattr(self, "found_inf", None),
            max_grad_norm=self.max_grad_norm,
            skip_nonfinite=self.skip_nonfinite,
        )
        for work, passes in todo:
            passes.advance(gate)
            if work.group["adapt"]:
                self._records[id(work.keys[0])] = passes.adapt()
            passes.apply()
        return loss

    def _works(self, group: dict[str, Any]) -> list[Work]:
        """The group's tensors that have a gradient, sorted by device and dtypes; one Work for nearly every model."""
        sorted_: dict[tuple[Any, ...], list[Tensor]] = {}
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                raise RuntimeError(f"{type(self).__name__} does not take sparse gradients")
            sorted_.setdefault((parameter.device, parameter.dtype, gradient.dtype), []).append(parameter)
        return [self._work(group, keys) for keys in sorted_.values()]

    def _work(self, group: dict[str, Any], keys: list[Tensor]) -> Work:
        cuts = [self._cut_of(key) for key in keys]
        states = [self.state_of(key) for key in keys]
        is_low = keys[0].dtype in LOW_PRECISION
        return Work(
            group=group,
            keys=keys,
            params=[dtensor.local(state["master"]) for state in states] if is_low else [dtensor.local(k) for k in keys],
            grads=[dtensor.local(key.grad) for key in keys],
            copies=[dtensor.local(key) for key in keys] if is_low else [],
            moments={name: [dtensor.local(state[name]) for state in states] for name in self.MOMENTS},
            states=states,
            layout=self._bindings.layout_of(keys, cuts),
        )

    def state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """The state of one tensor, made where there is none yet."""
        state: dict[str, Tensor] = self.state[parameter]
        is_low = parameter.dtype in LOW_PRECISION
        dtype = torch.float32 if is_low else parameter.dtype
        if "step" in state:
            moment = state[self.MOMENTS[0]]
            if (moment.device, moment.dtype, "master" in state) != (parameter.device, dtype, is_low):
                raise RuntimeError(
                    f"a parameter of {parameter.dtype} on {parameter.device} with moments of {moment.dtype} on"
                    f" {moment.device}{' and an fp32 master' if 'master' in state else ''}: the model was cast or moved"
                    f" after the first step. Cast and move it before, or build a new {type(self).__name__} and load"
                    " this one's state_dict() into it."
                )
        else:
            with torch.no_grad():
                state["step"] = torch.tensor(0.0)
                for name in self.MOMENTS:
                    state[name] = torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
                if is_low:
                    state["master"] = parameter.detach().to(torch.float32)
        return state

    def _passes(self, work: Work) -> Passes:
        name = self.implementation
        if name == "auto":
            name = "fused" if work.params[0].is_cuda and fused.complaint(work) is None else "foreach"
        return self._fused_passes(work) if name == "fused" else self._eager_passes(name, work)

    @abstractmethod
    def _eager_passes(self, implementation: str, work: Work) -> Passes:
        """Passes with one kernel for each operation."""

    @abstractmethod
    def _fused_passes(self, work: Work) -> Passes:
        """Passes with one kernel each."""

    # -- what a step did -------------------------------------------------------------------------------------------

    @property
    def last_norms(self) -> list[NormRecord]:
        """Norms and trust ratios of the last step, one record per adapted group; no extra pass over memory."""
        return list(self._records.values())

    @property
    def num_skipped_steps(self) -> int:
        """Steps skipped so far because a gradient was not finite; reading it waits for the device."""
        return 0 if self._gatekeeper.num_skipped is None else int(self._gatekeeper.num_skipped)

    def _check_if_only_initializing(self) -> None:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if any(bool(gradient.any()) for gradient in gradients):
            raise RuntimeError(
                f"{type(self).__name__} awaits binding: call bind() after the engine's initialization, before training."
            )


def require(name: str, value: object, is_right: bool, expected: str) -> None:
    if not is_right:
        raise ValueError(f"{name}={value!r}: expected {expected}")
