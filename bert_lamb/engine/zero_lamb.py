"""LAMB under ZeRO: tell the optimizer which elements of DeepSpeed's partitions belong to which parameter.

The whole adapter: a table of segments and an all-reduce of 2 x num_parameters squared norms per group. The math stays
in `bert_lamb.optim`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bert_lamb.engine.zero_layout import FlatPartition
from bert_lamb.optim import Lamb, Segments
from bert_lamb.optim.segments import PADDING, keep_local


def bind(lamb: Lamb, partitions: Sequence[FlatPartition]) -> None:
    """Make `lamb` exact on these partitions; call it on every rank, after `deepspeed.initialize`."""
    lamb.bind((partition.flat, _segments(partition)) for partition in partitions)


def _segments(partition: FlatPartition) -> Segments:
    index = {name: i for i, name in enumerate(partition.names)}
    return Segments(
        names=partition.names,
        slots=tuple(PADDING if piece.name is None else index[piece.name] for piece in partition.pieces),
        sizes=tuple(piece.numel for piece in partition.pieces),
        reduce_norms=keep_local if partition.process_group is None else _sum_over(partition.process_group),
    )


def _sum_over(process_group: Any) -> Callable[[Tensor], Tensor]:
    """All-reduce over a process group; with offloaded state the norms travel through the GPU, as nccl needs."""

    def reduce_norms(squared_norms: Tensor) -> Tensor:
        needs_gpu = torch.distributed.get_backend(process_group) == "nccl" and not squared_norms.is_cuda
        travelling = squared_norms.cuda() if needs_gpu else squared_norms
        torch.distributed.all_reduce(travelling, group=process_group)
        return travelling.to(squared_norms.device)

    return reduce_norms
