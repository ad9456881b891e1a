"""LAMB and LARS in Triton: as many launches for 400 tensors as for one, and no wait for the device.

Per step and group: count the steps, pass 1, the trust ratios, pass 3; with clipping or skipping one more pass over the
gradients. Pass 3 computes the direction again from the moments instead of reading what pass 1 stored; README.md has
both counts of bytes. lr may be a tensor; steps, clip, loss scale and the skip flag live on the device, so that a step
can be captured in a CUDA graph: take one step before, and keep lr in a tensor if it is to change.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bert_lamb.optim.fused_tables import AddressTable, ChunkTable, Tiling, num_multiprocessors
from bert_lamb.optim.passes import Gate, NormRecord, Work
from bert_lamb.optim.segments import Layout
from bert_lamb.optim.trust_ratio import TrustRatio

NORMS_AT_A_TIME = 256  # partial norms that a program of pass 2 has in registers
GRADIENT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def _triton() -> tuple[Any, Any, Any]:
    """(triton.language, the kernels of passes 1 and 3, those of pass 2)."""
    import triton.language

    from bert_lamb.optim import fused_kernels, fused_norm_kernels

    return triton.language, fused_kernels, fused_norm_kernels


@cache
def _why_no_triton(device_type: str) -> str | None:
    try:
        import triton
    except ImportError:
        return "triton is not installed (torch's CUDA builds bring it)"
    if device_type == "cpu" and not triton.knobs.runtime.interpret:
        return "the tensors are on the CPU, where only Triton's interpreter (TRITON_INTERPRET=1) runs"
    return None


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one: Triton launches there, wherever the tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def why_no_launch(device: torch.device) -> str | None:
    """Why no kernel can be compiled and launched on a device, in a line, or None; tried once, with a tiny launch.

    Besides its package Triton needs a C compiler and Python's header files when it runs.
    """
    reason = _why_no_triton(device.type)
    if reason is not None:
        return reason
    _, kernels, _ = _triton()
    step = torch.zeros(1, device=device)
    addresses = torch.zeros(6, 1, dtype=torch.int64, device=device)
    addresses[-1] = step.data_ptr()
    try:
        with on_device(device):
            kernels.count_steps[(1,)](
                addresses, 1, torch.empty(4, 1, device=device), None, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5,
                HAS_BIAS_CORRECTION=False, NESTEROV="none", BLOCK=128,
            )  # fmt: skip
            counted = float(step)
    except Exception as error:  # of the compiler, the linker, the driver: each has its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        hint = "; Triton needs a C compiler (gcc) and Python's header files (python3-dev) at run time"
        return f"a kernel cannot be compiled and launched ({type(error).__name__}: {' '.join(lines)[:200]}){hint}"
    return None if counted == 1.0 else f"a kernel counted {counted} steps where there was one"


def complaint(work: Work) -> str | None:
    """Why this implementation cannot do a step, or None."""
    first = work.params[0]
    if first.device.type not in ("cuda", "cpu"):
        return f"the tensors are on {first.device}"
    if first.dtype is not torch.float32:
        return f"parameters of {first.dtype}"
    if work.grads[0].dtype not in GRADIENT_DTYPES:
        return f"gradients of {work.grads[0].dtype}"
    if not all(_is_dense(w) for w in work.copies or work.params):
        return "a parameter with gaps between its elements"
    followers = [work.copies or work.params, *work.moments.values()]
    if any(t.stride() != w.stride() for tensors in followers for t, w in zip(tensors, work.params, strict=True)):
        return "moments or masters that do not lie in memory as their parameters do"
    # Nothing can be tried while a graph is captured; a step before it, which it needs anyway, has tried.
    can_try = first.is_cuda and not torch.cuda.is_current_stream_capturing()
    return why_no_launch(first.device) if can_try else _why_no_triton(first.device.type)


def _is_dense(tensor: Tensor) -> bool:
    if tensor.is_contiguous() or tensor.numel() == 0:
        return True
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return last + 1 == tensor.numel()


@dataclass
class Memory:
    """What is kept between the steps of the same tensors."""

    layout: Layout
    chunks: ChunkTable
    addresses: AddressTable


class FusedPasses:
    """What `LambPasses` and `LarsPasses` share. Raises RuntimeError where this implementation cannot do the step."""

    def __init__(self, work: Work, memory: dict[Any, Memory], trust_ratio: TrustRatio, tiling: Tiling) -> None:
        reason = complaint(work)
        if reason is not None:
            raise RuntimeError(f"implementation='fused' cannot do this step: {reason}; use 'foreach', or 'auto'")
        self.language, self.kernels, self.norm_kernels = _triton()
        self.work, self.trust_ratio, self.tiling = work, trust_ratio, tiling
        self.norm, self.device = trust_ratio.norm, work.params[0].device
        with on_device(self.device):
            self._prepare(memory)

    def _prepare(self, memory: dict[Any, Memory]) -> None:
        work = self.work
        key = tuple(id(tensor) for tensor in work.keys)
        if key not in memory or memory[key].layout is not work.layout:
            chunk = self.tiling.chunk_for(work.layout.num_elements, num_multiprocessors(self.device))
            memory[key] = Memory(work.layout, ChunkTable(work.layout, self.device, chunk=chunk), AddressTable())
        self.table = memory[key].chunks
        for state in work.states:
            if state["step"].device != self.device or state["step"].dtype is not torch.float32:
                state["step"] = state["step"].to(self.device, torch.float32)
        self.grads = [_laid_out_like(w, g) for g, w in zip(work.grads, work.params, strict=True)]
        moments = list(work.moments.values())
        addresses = [
            [t.data_ptr() for t in tensors]
            for tensors in (
                work.params,
                self.grads,
                moments[0],
                moments[-1],
                work.copies or work.params,
                [state["step"] for state in work.states],
            )
        ]
        self.addresses = memory[key].addresses.on(self.device, addresses)
        self.common = {
            "chunks": self.table.chunks,
            "num_chunks": self.table.num_chunks,
            "addresses": self.addresses,
            "num_tensors": len(work.params),
            "GRAD": self._dtype(work.grads[0].dtype),
            # Apart: an engine may hand a view of its flat gradient, which begins anywhere (DeepSpeed's BF16_Optimizer).
            "IS_ALIGNED": _are_aligned(work.params, *moments, work.copies),
            "IS_GRAD_ALIGNED": _are_aligned(self.grads),
            "CHUNK": self.table.chunk,
            "BLOCK": self.tiling.block,
            "num_warps": self.tiling.num_warps,
        }
        self.copy = {
            "COPY": self._dtype(work.copies[0].dtype if work.copies else torch.float32),
            "HAS_COPY": bool(work.copies),
        }
        self.is_adapted: bool = work.group["adapt"]
        lr = work.group["lr"]
        is_here = isinstance(lr, Tensor) and lr.device == self.device
        self.lr = {"lr": 0.0, "lr_at": lr} if is_here else {"lr": float(lr), "lr_at": None}

    def _dtype(self, dtype: torch.dtype) -> Any:
        return getattr(self.language, str(dtype).removeprefix("torch."))

    def grad_squares(self) -> Tensor:
        partial = self._empty(1, self.table.num_chunks)
        with on_device(self.device):
            if self.table.num_chunks:
                self.kernels.gradient_squares[(self.table.num_chunks,)](partial=partial, **self.common)
            return self._gather(partial, norm="l2", is_skipped=None)[0]

    def advance(self, gate: Gate) -> None:
        self.is_skipped = None if gate.is_skipped is None else gate.is_skipped.to(self.device, torch.int32)
        self.multiplier = None if gate.multiplier is None else gate.multiplier.to(self.device)
        self.partial = self._empty(2, self.table.num_chunks) if self.is_adapted else None
        with on_device(self.device):
            self._count_steps()
            if self.table.num_chunks:
                self._advance(self.partial)

    def adapt(self) -> NormRecord:
        assert self.partial is not None
        layout, table = self.work.layout, self.table
        partial, ranges = self.partial, table.ranges if layout.is_local else None
        with on_device(self.device):
            if not layout.is_local:
                partial = self._gather(partial, norm=self.norm, is_skipped=self.is_skipped)
                partial = layout.reduce(partial, self.trust_ratio.reduce_operation).contiguous()
            norms = self._empty(3, table.num_slots)
            self.step_sizes = torch.empty(table.num_slots, device=self.device)
            phi, ratio = (
                bounds or (None, None) for bounds in (self.trust_ratio.param_norm_bounds, self.trust_ratio.ratio_bounds)
            )
            self.norm_kernels.trust_ratios[(table.num_slots,)](
                partial, table.num_chunks, ranges, table.num_slots, self.is_skipped,
                norms=norms, step_sizes=self.step_sizes, NORM=self.norm,
                LOWEST_PHI=phi[0], HIGHEST_PHI=phi[1], LOWEST_RATIO=ratio[0], HIGHEST_RATIO=ratio[1],
                BLOCK=NORMS_AT_A_TIME, **self.lr,
            )  # fmt: skip
        return NormRecord(layout.names, *norms.unbind())

    def apply(self) -> None:
        if self.is_adapted and self.table.num_chunks:  # else pass 1 did it all
            with on_device(self.device):
                self._apply(self.step_sizes)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.float64, device=self.device)

    def _gather(self, partial: Tensor, *, norm: str, is_skipped: Tensor | None) -> Tensor:
        out = self._empty(len(partial), self.table.num_slots)
        self.norm_kernels.gather_chunks[(self.table.num_slots, len(partial))](
            partial, self.table.num_chunks, self.table.ranges, self.table.num_slots, is_skipped, out,
            NORM=norm, BLOCK=NORMS_AT_A_TIME,
        )  # fmt: skip
        return out

    def _count_steps(self) -> None:
        group = self.work.group
        beta1, beta2 = group.get("betas", (0.0, 0.0))
        self.coefficients = torch.empty(4, len(self.work.params), device=self.device)
        block = 128
        self.kernels.count_steps[(math.ceil(len(self.work.params) / block),)](
            self.addresses,
            len(self.work.params),
            self.coefficients,
            self.is_skipped,
            _log(beta1),
            _log(beta2),
            beta1,
            1 - beta1,
            beta2,
            1 - beta2,
            HAS_BIAS_CORRECTION=group.get("bias_correction", False),
            NESTEROV=group.get("nesterov", "none"),
            BLOCK=block,
        )

    def _advance(self, partial: Tensor | None) -> None:
        raise NotImplementedError

    def _apply(self, step_sizes: Tensor) -> None:
        raise NotImplementedError


def _are_aligned(*lists: list[Tensor]) -> bool:
    """Whether 16 bytes can be moved at a time from the beginning of every tensor."""
    return all(tensor.data_ptr() % 16 == 0 for tensors in lists for tensor in tensors)


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf


def _laid_out_like(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the parameter's order of elements; almost always the gradient itself."""
    if gradient.stride() == parameter.stride() or (gradient.is_contiguous() and parameter.is_contiguous()):
        return gradient
    return torch.empty_like(parameter, dtype=gradient.dtype, memory_format=torch.preserve_format).copy_(gradient)


class LambPasses(FusedPasses):
    """LAMB: m, v and norms in pass 1, the direction again in pass 3."""

    def _advance(self, partial: Tensor | None) -> None:
        group = self.work.group
        beta1, beta2 = group["betas"]
        self.rule = {
            "coefficients": self.coefficients,
            "multiplier": self.multiplier,
            "is_skipped": self.is_skipped,
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
            "IS_NESTEROV": group["nesterov"] != "none",
        }
        self.kernels.lamb_advance[(self.table.num_chunks,)](
            partial=partial,
            beta1=beta1,
            rest1=1 - beta1,
            beta2=beta2,
            rest2=1 - beta2,
            IS_ADAPTED=self.is_adapted,
            NORM=self.norm,
            **self.lr,
            **self.common,
            **self.copy,
            **self.rule,
        )

    def _apply(self, step_sizes: Tensor) -> None:
        self.kernels.lamb_apply[(self.table.num_chunks,)](
            step_sizes=step_sizes, **self.common, **self.copy, **self.rule
        )


class LarsPasses(FusedPasses):
    """LARS: m and norms in pass 1; m is the direction."""

    def _advance(self, partial: Tensor | None) -> None:
        self._launch(None, partial, advances=True, applies=not self.is_adapted)

    def _apply(self, step_sizes: Tensor) -> None:
        self._launch(step_sizes, None, advances=False, applies=True)

    def _launch(self, step_sizes: Tensor | None, partial: Tensor | None, *, advances: bool, applies: bool) -> None:
        group = self.work.group
        self.kernels.lars_pass[(self.table.num_chunks,)](
            multiplier=self.multiplier,
            is_skipped=self.is_skipped,
            step_sizes=step_sizes,
            partial=partial,
            beta=group["beta"],
            rest=1 - group["beta"],
            weight_decay=group["weight_decay"],
            ADVANCES=advances,
            APPLIES=applies,
            NORM=self.norm,
            **self.lr,
            **self.common,
            **self.copy,
        )
