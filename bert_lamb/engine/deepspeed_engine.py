"""The DeepSpeed machine: ZeRO stages 0 to 3, with LAMB bound to its partitions."""

import gc
import math
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bert_lamb.engine import zero_lamb
from bert_lamb.engine.launch import Process, join_process_group, lend_to_deepspeed
from bert_lamb.engine.optimizer_state import moments_of, norms_of, optimizer_step, set_optimizer_step
from bert_lamb.engine.protocol import Fragment, StepResult, buffers_of
from bert_lamb.engine.zero_layout import FlatPartition, read_layout, views
from bert_lamb.errors import UserError
from bert_lamb.optim import LayerwiseOptimizer, NormRecord

# Of DeepSpeed's DynamicLossScaler, in the order of Engine.loss_scale_counters.
SCALE_COUNTERS = ("cur_iter", "last_overflow_iter", "cur_hysteresis")


class DeepSpeedEngine:
    """Wraps `deepspeed.initialize`; implements `Engine`.

    model: on any device, with the fp32 weights to start from; DeepSpeed casts and partitions them, the masters keep
    them as they are. optimizer: over model's named parameters, with lr 0, since DeepSpeed may call step() while it
    initializes; LAMB and LARS with awaits_binding=True. json: of `deepspeed_json`.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, process: Process, json: dict[str, Any]) -> None:
        import deepspeed

        join_process_group(process)
        lend_to_deepspeed(process)
        self.rank, self.world_size, self.device = process.rank, process.world_size, process.device
        self.shapes = {name: parameter.shape for name, parameter in model.named_parameters()}  # before any is cut
        # Losses arrive as shares of one global mean: where DeepSpeed averages over ranks, that is undone beforehand.
        self._loss_factor = self.world_size if json["gradient_allreduce_op"] == "mean" else 1
        is_fp32 = not any(json.get(key, {}).get("enabled") for key in ("bf16", "fp16"))
        # DeepSpeed makes the masters of weights that it has cast already.
        exact = {} if is_fp32 else {name: p.detach().cpu().clone() for name, p in model.named_parameters()}
        with redirect_stdout(StringIO()):  # in bf16 it prints the memory of the device, ten times
            self._engine, self._zero, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=json)
        self._has_dynamic_scale = self._engine.fp16_enabled() and bool(self._zero.loss_scaler.dynamic)
        if self._has_dynamic_scale:
            self._zero.loss_scaler.raise_error_at_min_scale = False  # the loop stops there, and says more
        self.model = self._engine
        self.optimizer = optimizer
        self.partitions: list[FlatPartition] = read_layout(self._zero, optimizer, self._engine.module)
        for partition in self.partitions if exact else ():
            for piece, values in views(partition, partition.flat.data):
                if piece.name is not None:
                    values.copy_(exact[piece.name].view(-1)[piece.start : piece.start + piece.numel])
        optimizer.state.clear()  # whatever the call during initialization left behind
        if isinstance(optimizer, LayerwiseOptimizer):
            zero_lamb.bind(optimizer, self.partitions)
            optimizer.skip_nonfinite = self._zero is optimizer  # DeepSpeed's wrappers skip by themselves
        for partition in self.partitions:
            moments_of(optimizer, partition.flat)

    @property
    def loss_scale(self) -> float | None:
        return float(self._zero.loss_scale) if self._engine.fp16_enabled() else None

    @property
    def loss_scale_floor(self) -> float | None:
        return float(self._zero.loss_scaler.min_scale) if self._has_dynamic_scale else None

    @property
    def loss_scale_counters(self) -> list[int] | None:
        if not self._has_dynamic_scale:
            return None
        return [getattr(self._zero.loss_scaler, name) for name in SCALE_COUNTERS]

    @loss_scale_counters.setter
    def loss_scale_counters(self, counters: list[int] | None) -> None:
        if counters is not None and self.loss_scale_counters is not None:
            for name, value in zip(SCALE_COUNTERS, counters, strict=True):
                setattr(self._zero.loss_scaler, name, value)

    @property
    def buffers(self) -> dict[str, Tensor]:
        return buffers_of(self._engine.module)

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss * self._loss_factor, scale_wrt_gas=False)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()

    def step(self, lr: float) -> StepResult:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self._zero is self.optimizer:
            return self._step_unwrapped()
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return StepResult(float("nan") if norm is None else float(norm), is_applied=self._engine.was_step_applied())

    def _step_unwrapped(self) -> StepResult:
        """Stage 0 in fp32: DeepSpeed clips, but keeps the norm to itself and looks for nothing."""
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        grad_norm = float(torch.nn.utils.get_total_norm(gradients))
        is_finite = math.isfinite(grad_norm)
        if not is_finite and not isinstance(self.optimizer, LayerwiseOptimizer):
            raise UserError(
                found=f"a gradient norm of {grad_norm}",
                expected=f"a finite one: {type(self.optimizer).__name__} in ZeRO stage 0 and fp32 cannot skip a step",
                fix="set runtime.zero_stage=1, which can, or a lower peak_lr",
            )
        self._engine.step()
        return StepResult(grad_norm, is_applied=is_finite)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        torch.distributed.all_reduce(values)
        return values

    def barrier(self) -> None:
        torch.distributed.barrier()

    def norms(self) -> list[NormRecord]:
        return norms_of(self.optimizer)

    def owned_fragments(self) -> Iterator[Fragment]:
        return self._fragments(with_copies=self.rank == 0)

    def held_fragments(self) -> Iterator[Fragment]:
        return self._fragments(with_copies=True)

    def _fragments(self, *, with_copies: bool) -> Iterator[Fragment]:
        for partition in self.partitions:
            if partition.process_group is None and not with_copies:
                continue
            tensors = {"weight": partition.flat.data, **moments_of(self.optimizer, partition.flat)}
            cuts = {kind: list(views(partition, tensor)) for kind, tensor in tensors.items()}
            for index, piece in enumerate(partition.pieces):
                if piece.name is not None:
                    yield Fragment(piece.name, piece.start, {kind: cut[index][1] for kind, cut in cuts.items()})

    def close(self) -> None:
        # DeepSpeed's hooks and modules refer to each other, so the collector must look for them.
        self._engine.destroy()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def optimizer_step(self) -> int:
        return optimizer_step(self.optimizer)

    def set_optimizer_step(self, step: int) -> None:
        set_optimizer_step(self.optimizer, step)
