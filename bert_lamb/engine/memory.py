"""Bytes: of a device, and of the peak of what runs on it; state_size.py has those of the state that an engine keeps."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from bert_lamb.engine.state_size import USABLE_SHARES

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


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
