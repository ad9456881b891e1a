"""The torch-native machine for many ranks: FSDP2 shards every parameter by rows, with its gradient and moments.

Weights are gathered once a step and gradients reduced once a step, layer by layer, while other layers compute.
"""

import gc
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.optim import Optimizer

from bert_lamb.engine.launch import Process, join_process_group
from bert_lamb.engine.optimizer_state import moments_of, norms_of, optimizer_step, set_optimizer_step
from bert_lamb.engine.protocol import Fragment, StepResult, buffers_of
from bert_lamb.optim import NormRecord
from bert_lamb.optim.dtensor import local


def shard(model: nn.Module, *, process: Process, precision: str) -> None:
    """Shard the fp32 parameters of `model` over all ranks, in place: they become DTensors, the fp32 masters.

    Each layer travels by itself and what is left of the model together, so that weights that layers do not share, as
    the embeddings and the decoder do, stay one parameter. An optimizer must be built afterwards.
    """
    join_process_group(process)
    mesh = init_device_mesh(process.device.type, (process.world_size,))
    # With a low param_dtype, gradients are accumulated between micro-steps in reduce_dtype too.
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if precision == "bf16"
        else MixedPrecisionPolicy()
    )
    for module in (*dict.fromkeys(_layers(model)), model):
        sharded = fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        # Losses arrive as shares of one global mean: gradients are summed over ranks, never divided.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of modules: the layers of a transformer, whatever the model is called."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)


class FsdpEngine:
    """Trains a model that `shard` has sharded, with an optimizer over its DTensors; implements `Engine`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        process: Process,
        gradient_accumulation_steps: int,
        max_grad_norm: float,
    ) -> None:
        self.rank, self.world_size, self.device = process.rank, process.world_size, process.device
        self.loss_scale: float | None = None
        self.loss_scale_floor: float | None = None
        self.loss_scale_counters: list[int] | None = None
        self.model: Any = model
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self._micro_steps = 0  # of the step at work
        # The masters: while a step is at work, the model holds gathered weights under these names.
        self.masters: dict[str, Any] = dict(model.named_parameters())
        self.shapes = {name: master.shape for name, master in self.masters.items()}

    @property
    def buffers(self) -> dict[str, Tensor]:
        return buffers_of(self.model)

    def backward(self, loss: Tensor) -> None:
        self._micro_steps += 1
        is_last = self._micro_steps == self.gradient_accumulation_steps
        self.model.set_requires_gradient_sync(is_last)
        self.model.set_reshard_after_backward(is_last)  # until then the next micro-step needs no gathering
        loss.backward()

    def step(self, lr: float) -> StepResult:
        if self._micro_steps != self.gradient_accumulation_steps:
            raise RuntimeError(f"step after {self._micro_steps} micro-steps of {self.gradient_accumulation_steps}")
        self._micro_steps = 0
        gradients = [local(master.grad) for master in self.masters.values() if master.grad is not None]
        grad_norm = self._global_norm(gradients)
        norm = float(grad_norm)  # the same on every rank; the one number of a step that the host waits for
        is_applied = math.isfinite(norm)
        if is_applied:
            if self.max_grad_norm > 0:
                torch._foreach_mul_(gradients, (self.max_grad_norm / (grad_norm + 1e-6)).clamp(max=1.0))
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(norm, is_applied)

    def _global_norm(self, gradients: list[Tensor]) -> Tensor:
        """The l2 norm over all ranks of gradients of which each holds its rows; one collective."""
        squares = torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float64)).square().sum()
        torch.distributed.all_reduce(squares)
        return squares.sqrt().float()

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        torch.distributed.all_reduce(values)
        return values

    def barrier(self) -> None:
        torch.distributed.barrier()

    def norms(self) -> list[NormRecord]:
        return norms_of(self.optimizer)

    def owned_fragments(self) -> Iterator[Fragment]:
        return self.held_fragments()  # no rank holds a copy of another's

    def held_fragments(self) -> Iterator[Fragment]:
        for name, master in self.masters.items():
            tensors = {"weight": master, **moments_of(self.optimizer, master)}
            flat = {kind: local(tensor.detach()).view(-1) for kind, tensor in tensors.items()}
            if flat["weight"].numel():
                yield Fragment(name, _first_element(master), flat)

    def close(self) -> None:
        # FSDP's modules and their states refer to each other, so the collector must look for them.
        del self.model, self.optimizer, self.masters
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def optimizer_step(self) -> int:
        return optimizer_step(self.optimizer)

    def set_optimizer_step(self, step: int) -> None:
        set_optimizer_step(self.optimizer, step)


def _first_element(master: Any) -> int:
    """Where this rank's rows begin in the flattened parameter."""
    (placement,), mesh = master.placements, master.device_mesh
    _, first_row = placement.local_shard_size_and_offset(master.shape[0], mesh.size(), mesh.get_local_rank())
    return int(first_row) * master.shape[1:].numel()
