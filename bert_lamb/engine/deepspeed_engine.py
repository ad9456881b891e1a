"""The DeepSpeed machine: ZeRO stages 0 to 3, with LAMB bound to its partitions."""

import gc
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bert_lamb.engine import zero_lamb
from bert_lamb.engine.launch import Process, join_process_group
from bert_lamb.engine.optimizer_state import moments_of, norms_of, optimizer_step, set_optimizer_step
from bert_lamb.engine.protocol import Fragment, StepResult
from bert_lamb.engine.zero_layout import FlatPartition, read_layout, views
from bert_lamb.errors import UserError
from bert_lamb.optim import LayerwiseOptimizer, NormRecord

SETTLED_ELSEWHERE = {
    "train_batch_size": "phases.*.global_batch_size",
    "train_micro_batch_size_per_gpu": "runtime.micro_batch_size",
    "gradient_accumulation_steps": "the batch sizes",
    "gradient_clipping": "max_grad_norm",
    "optimizer": "optimizer=...",
    "scheduler": "phases.*",
    "bf16.enabled": "runtime.precision",
    "fp16.enabled": "runtime.precision",
    "zero_optimization.stage": "runtime.zero_stage",
}
REFUSED_OVERRIDES = {
    **{key: f"it follows from {where}" for key, where in SETTLED_ELSEWHERE.items()},
    "managed_gradient_accumulation": "the engine counts micro-steps as DeepSpeed does by default",
    "data_types": "gradients are accumulated in fp32",
    "zero_optimization.round_robin_gradients": "DeepSpeed's own parameter map is wrong with it",
    "zero_optimization.elastic_checkpoint": "broken in DeepSpeed 0.19.8; checkpoints here change world size anyway",
}


def deepspeed_json(
    *,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    world_size: int,
    precision: str,
    zero_stage: int,
    offload_optimizer: bool,
    max_grad_norm: float,
    initial_loss_scale: float | None,
    overrides: dict[str, Any],
) -> dict[str, Any]:
    """DeepSpeed's configuration from ours; `overrides` is merged last, key by key.

    Gradients are accumulated in fp32 wherever DeepSpeed can (it cannot in stage 0 with bf16 or fp16 weights).
    Raises UserError for overrides that would make the training wrong.
    """
    for key, reason in REFUSED_OVERRIDES.items():
        if _has_key(overrides, key):
            raise UserError(
                found=f"runtime.deepspeed_overrides.{key}", expected=f"no such override: {reason}", fix="remove it"
            )
    config: dict[str, Any] = {
        "train_batch_size": micro_batch_size * gradient_accumulation_steps * world_size,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": {"stage": zero_stage},
        "zero_allow_untested_optimizer": True,  # LAMB is not on DeepSpeed's list; read_layout and bind make it exact
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    if offload_optimizer:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    if precision == "bf16":
        config["bf16"] = {"enabled": True}
    if precision == "fp16":
        power = 16 if initial_loss_scale is None else int(math.log2(initial_loss_scale))
        config["fp16"] = {"enabled": True, "initial_scale_power": power}
    if precision != "fp32" and zero_stage > 0:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return _merge(config, overrides)


def _has_key(tree: dict[str, Any], dotted: str) -> bool:
    for key in dotted.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        is_subtree = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if is_subtree else value
    return merged


class DeepSpeedEngine:
    """Wraps `deepspeed.initialize`; implements `Engine`.

    model: on any device, with the weights to start from (cast and partitioned by DeepSpeed). The masters hold those
    weights rounded to the compute dtype until a checkpoint is loaded. optimizer: over model's named parameters, with
    lr 0, since DeepSpeed may call step() while it initialises; LAMB and LARS with awaits_binding=True.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, *, process: Process, json: dict[str, Any]) -> None:
        import deepspeed

        join_process_group(process)
        self.rank, self.world_size, self.device = process.rank, process.world_size, process.device
        self._named_shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self._engine, self._zero, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=json)
        self.model = self._engine
        self.optimizer = optimizer
        self.partitions: list[FlatPartition] = read_layout(self._zero, optimizer, self._engine.module)
        optimizer.state.clear()  # whatever the call during initialisation left behind
        if isinstance(optimizer, LayerwiseOptimizer):
            zero_lamb.bind(optimizer, self.partitions)
            optimizer.skip_nonfinite = self._zero is optimizer  # DeepSpeed's wrappers skip by themselves
        for partition in self.partitions:
            moments_of(optimizer, partition.flat)

    @property
    def loss_scale(self) -> float | None:
        return float(self._zero.loss_scale) if self._engine.fp16_enabled() else None

    def backward(self, loss: Tensor) -> None:
        # DeepSpeed averages over ranks; the losses are shares of one global mean and must be summed.
        self._engine.backward(loss * self.world_size, scale_wrt_gas=False)
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
