"""Parameters that PyTorch itself shards (FSDP2's DTensor): the shard this rank holds, and who holds the rest.

A DTensor keeps its parameter's bounds, so nothing has to be bound: each shard is one segment whose norms are added up
over the mesh dimensions that shard it. This is the only file of the room that speaks to torch.distributed.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bert_lamb.optim.segments import Reducer, Segments, keep_local


def is_dtensor(tensor: Tensor) -> bool:
    """Whether PyTorch distributes this tensor; a process without distribution never imports its machinery."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def local(tensor: Any) -> Tensor:
    """The part of a tensor that this rank holds, sharing its memory."""
    held: Tensor = tensor.to_local() if is_dtensor(tensor) else tensor
    return held


def cut_of(name: str, parameter: Any) -> Segments:
    """The cut of a parameter's local part.

    Raises RuntimeError for a parameter whose ranks hold summands of it (placement Partial): it has no norm of its own.
    """
    if not is_dtensor(parameter):
        return Segments.of_whole(name, parameter)
    if any(placement.is_partial() for placement in parameter.placements):
        raise RuntimeError(f"{name} is distributed as {parameter.placements}: expected Shard or Replicate")
    sharded = tuple(dim for dim, placement in enumerate(parameter.placements) if not placement.is_replicate())
    with torch.no_grad():
        held = parameter.to_local().numel()
    return Segments((name,), (0,), (held,), _sum_over_mesh(parameter.device_mesh, sharded))


@functools.cache
def _sum_over_mesh(mesh: Any, dims: Sequence[int]) -> Reducer:
    """One function for each way of sharding, so that the norms of all its parameters travel together."""
    if not dims:
        return keep_local
    from torch.distributed import ReduceOp, all_reduce

    operations = {"sum": ReduceOp.SUM, "max": ReduceOp.MAX}

    def reduce_norms(partial: Tensor, operation: str) -> Tensor:
        for dim in dims:
            all_reduce(partial, op=operations[operation], group=mesh.get_group(dim))
        return partial

    return reduce_norms
