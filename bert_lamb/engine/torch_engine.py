"""The plain machine: one process, PyTorch alone. The shortest statement of what every engine must compute."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bert_lamb.engine.optimizer_state import moments_of, norms_of, optimizer_step, set_optimizer_step
from bert_lamb.engine.protocol import Fragment, StepResult, buffers_of
from bert_lamb.optim import NormRecord


class TorchEngine:
    """fp32 parameters; with precision="bf16" the forward pass runs under autocast. Implements `Engine`."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, device: torch.device, precision: str, max_grad_norm: float
    ) -> None:
        self.rank, self.world_size, self.device = 0, 1, device
        self.loss_scale: float | None = None
        self.loss_scale_floor: float | None = None
        self.loss_scale_counters: list[int] | None = None
        self.module = model.to(device)
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.model = _Autocast(self.module, device) if precision == "bf16" else self.module
        self.named_parameters = dict(self.module.named_parameters())
        self.shapes = {name: parameter.shape for name, parameter in self.named_parameters.items()}

    @property
    def buffers(self) -> dict[str, Tensor]:
        return buffers_of(self.module)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float) -> StepResult:
        gradients = [p.grad for p in self.named_parameters.values() if p.grad is not None]
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float64)
        grad_norm = torch.linalg.vector_norm(torch.stack(norms)).float()
        norm = float(grad_norm)  # the one number of a step that the host waits for
        is_applied = math.isfinite(norm)
        if is_applied:
            if self.max_grad_norm > 0:
                torch.nn.utils.clip_grads_with_norm_(self.named_parameters.values(), self.max_grad_norm, grad_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(norm, is_applied)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        return values

    def barrier(self) -> None:
        pass

    def norms(self) -> list[NormRecord]:
        return norms_of(self.optimizer)

    def owned_fragments(self) -> Iterator[Fragment]:
        return self.held_fragments()

    def held_fragments(self) -> Iterator[Fragment]:
        for name, parameter in self.named_parameters.items():
            tensors = {"weight": parameter.data, **moments_of(self.optimizer, parameter)}
            yield Fragment(name, 0, {kind: tensor.view(-1) for kind, tensor in tensors.items()})

    def close(self) -> None:
        pass

    @property
    def optimizer_step(self) -> int:
        return optimizer_step(self.optimizer)

    def set_optimizer_step(self, step: int) -> None:
        set_optimizer_step(self.optimizer, step)


class _Autocast(nn.Module):
    """Calls a module under bf16 autocast."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module, self.device_type = module, device.type

    def forward(self, *args: Tensor, **kwargs: Tensor) -> object:
        with torch.autocast(self.device_type, dtype=torch.bfloat16):
            return self.module(*args, **kwargs)
