"""LAMB and LARS under ZeRO: tell the optimizer which elements of DeepSpeed's partitions belong to which parameter.

The whole adapter: a table of segments and an all-reduce of 2 x num_parameters partial norms per group. The math stays
in `bert_lamb.optim`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bert_lamb.engine.zero_layout import FlatPartition
from bert_lamb.optim import LayerwiseOptimizer, Segments
from bert_lamb.optim.segments import PADDING, Reducer, keep_local


def bind(optimizer: LayerwiseOptimizer, partitions: Sequence[FlatPartition]) -> None:
    """Make LAMB or LARS exact on these partitions; call it on every rank, after `deepspeed.initialize`."""
    optimizer.bind((partition.flat, _segments(partition)) for partition in partitions)


def _segments(partition: FlatPartition) -> Segments:
    index = {name: i for i, name in enumerate(partition.names)}
    return Segments(
        names=partition.names,
        slots=tuple(PADDING if piece.name is None else index[piece.name] for piece in partition.pieces),
        sizes=tuple(piece.numel for piece in partition.pieces),
        reduce_norms=keep_local if partition.process_group is None else _over(partition.process_group),
    )


def _over(process_group: Any) -> Reducer:
    """All-reduce over a process group; with offloaded state the norms travel through the GPU, as nccl needs."""
    operations = {"sum": torch.distributed.ReduceOp.SUM, "max": torch.distributed.ReduceOp.MAX}

    def reduce_norms(partial: Tensor, operation: str) -> Tensor:
        needs_gpu = torch.distributed.get_backend(process_group) == "nccl" and not partial.is_cuda
        travelling = partial.cuda() if needs_gpu else partial
        torch.distributed.all_reduce(travelling, op=operations[operation], group=process_group)
        return travelling.to(partial.device)

    return reduce_norms
