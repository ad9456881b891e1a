"""Bytes: of a device, of the state that an engine keeps on it, and of the peak of what runs on it."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

if TYPE_CHECKING:
    from bert_lamb.engine.build import RuntimeSettings

# What a training may fill. The rest of a GPU is for CUDA's context, NCCL and gaps between tensors; on a CPU others live
# in the same memory, and there is less to gain.
USABLE_SHARES = {"cuda": 0.9, "cpu": 0.5}
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
FP32, HALF = 4, 2  # bytes
REDUCE_BUCKET_SIZE = 500_000_000  # elements; DeepSpeed's default


def usable_bytes(device: torch.device, *, ranks_on_host: int) -> int:
    """What one rank may fill of the memory of its GPU, or its share of the machine's; of all of it, used or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * USABLE_SHARES["cuda"])
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in CGROUP_LIMITS:
        text = file.read_text().strip() if file.is_file() else ""
        if text.isdecimal():  # or "max"
            limits.append(int(text))
    return int(min(limits) * USABLE_SHARES["cpu"] / ranks_on_host)


def state_bytes(runtime: "RuntimeSettings", num_parameters: int, world_size: int) -> float:
    """Weights, gradients, masters, moments and buffers on one rank in the middle of a step; at most.

    In fp32 on one device a parameter has its weight 4, gradient 4 and moments 8. Engines for several ranks keep the
    weight of the forward pass (2 in half precision), a micro-batch's gradient (2), the accumulated one (4), and a
    rank's share of masters 4, moments 8 and, but for ZeRO in half precision, the reduced gradient 4. ZeRO stages 2 and
    3 are given what stage 1 needs, and their buffer for gradients, which DeepSpeed makes as large as
    `reduce_bucket_size` says, however small the model.
    """
    if runtime.engine == "torch" or (runtime.engine == "deepspeed" and runtime.zero_stage == 0):
        return 4 * FP32 * num_parameters
    of_gradient_too = runtime.engine == "fsdp" or runtime.precision == "fp32"
    of_forward = FP32 if runtime.precision == "fp32" else 2 * HALF
    of_share = FP32 if runtime.offload_optimizer else 4 * FP32 if of_gradient_too else 3 * FP32
    buffers = 0
    if runtime.engine == "deepspeed" and (runtime.zero_stage >= 2 or runtime.offload_optimizer):
        zero = runtime.deepspeed_overrides.get("zero_optimization", {})
        bucket = int(zero.get("reduce_bucket_size", REDUCE_BUCKET_SIZE))
        num_buckets = 2 if zero.get("overlap_comm", runtime.zero_stage == 3) else 1
        buffers = num_buckets * bucket * (FP32 if runtime.precision == "fp32" else HALF)
    return (of_forward + FP32 + of_share / world_size) * num_parameters + buffers


class Peak:
    """bytes: the largest sum of the tensors that were made inside and alive at the same time."""

    bytes = 0


@contextmanager
def peak_of(device: torch.device) -> Iterator[Peak]:
    """The peak of what the block allocates beyond what was there: by CUDA's allocator, or by counting on a CPU."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    with _Count() as count:
        yield peak
    peak.bytes = count.peak


class _Count(TorchDispatchMode):
    """Adds each tensor's storage when an operator returns it, and takes it off when it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        arguments = {a.untyped_storage()._cdata for a in tree_iter((args, kwargs)) if isinstance(a, Tensor)}
        for result in tree_iter(results):
            if isinstance(result, Tensor) and result.untyped_storage()._cdata not in arguments | self.alive:
                self._add(result.untyped_storage())
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, num_bytes = storage._cdata, storage.nbytes()
        self.alive.add(key)
        self.now += num_bytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, num_bytes)

    def _remove(self, key: int, num_bytes: int) -> None:
        self.alive.discard(key)
        self.now -= num_bytes
