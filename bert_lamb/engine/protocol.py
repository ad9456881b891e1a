"""What the training loop needs from a machine, and nothing more."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bert_lamb.optim import NormRecord


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did. grad_norm: global l2 norm before clipping."""

    grad_norm: float
    is_applied: bool  # False: skipped, because the gradient was not finite


@dataclass(frozen=True)
class Fragment:
    """A contiguous piece of one parameter's fp32 training state, as live views: writing to them changes the training.

    name: of the parameter. start: first element in the flattened parameter. tensors: "weight" and the
    optimizer's moments by name, each 1-D with the same number of elements.
    """

    name: str
    start: int
    tensors: dict[str, Tensor]

    @property
    def numel(self) -> int:
        return self.tensors["weight"].numel()


def buffers_of(module: nn.Module) -> dict[str, Tensor]:
    """The floating-point buffers of a module by name, live; counters and tables of indices are not learnt."""
    return {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}


class Engine(Protocol):
    """One process's view of the machine that computes a phase.

    The gradient of a step is the sum, over ranks and micro-steps, of the gradients of the losses handed to `backward`:
    whoever calls it has already divided by the counts of the whole global batch.
    """

    rank: int
    world_size: int
    device: torch.device
    model: Any  # the module to call; it may wrap the caller's
    shapes: dict[str, torch.Size]  # of every parameter, whole, by name

    @property
    def buffers(self) -> dict[str, Tensor]:
        """What the model remembers beside its parameters, by name, whole and live: BatchNorm's running statistics.

        Only rank 0's are saved and evaluated; see the README of this room.
        """

    @property
    def loss_scale(self) -> float | None:
        """The dynamic loss scale of fp16, None elsewhere."""

    @property
    def loss_scale_floor(self) -> float | None:
        """Below which the loss scale does not go, None where there is none."""

    loss_scale_counters: list[int] | None
    """What decides when that scale changes next: steps so far, the last that overflowed (-1: none), overflows that are
    left until the scale is halved. None where there is no such scale; setting None changes nothing."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of one micro-step's loss; call it gradient_accumulation_steps times per step."""

    def step(self, lr: float) -> StepResult:
        """Reduce, clip and apply the accumulated gradient with learning rate `lr`."""

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over ranks."""

    def barrier(self) -> None:
        """Wait for every rank."""

    def norms(self) -> list[NormRecord]:
        """Trust ratios of the last step, the same on every rank; empty for optimizers without them."""

    def owned_fragments(self) -> Iterator[Fragment]:
        """The training state that this rank writes to a checkpoint; over all ranks each element comes once."""

    def held_fragments(self) -> Iterator[Fragment]:
        """The training state that this rank computes with: what it owns, and its copies of what others own."""

    def close(self) -> None:
        """Let go of memory; the engine is not used afterwards."""

    @property
    def optimizer_step(self) -> int:
        """Steps applied since the optimizer's counter was last reset; bias correction depends on it."""

    def set_optimizer_step(self, step: int) -> None:
        """Set that counter."""
