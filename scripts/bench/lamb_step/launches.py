"""Kernels that one step launches."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lamb_step.rows import Row


def count_launches(rows: list[Row], device: str) -> None:
    """Fill in what one step launches: on a GPU kernels, without the driver's copies and fills; on a CPU operators."""
    probe = torch.ones(8, device=device)
    if not _launches(lambda: probe.mul_(2.0), device):
        return  # the profiler is blind on this machine
    for row in rows:
        if row.optimizer is not None:
            row.launches = _launches(row.optimizer.step, device)


class _CountOperators(TorchDispatchMode):
    """Counts calls of ATen operators from Python: one for a list of tensors, and none for those inside another."""

    num_operators = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_operators += 1
        return function(*args, **(kwargs or {}))


def _launches(call: Callable[[], Any], device: str) -> int:
    if device == "cpu":
        with _CountOperators() as count:
            call()
        return count.num_operators
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as of_kernels:
        call()
        torch.cuda.synchronize()
    return sum(
        event.device_type == torch.autograd.DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)
        and not event.name.startswith(("Memcpy", "Memset", "Optimizer.", "ProfilerStep"))
        for event in of_kernels.events() or []
    )
