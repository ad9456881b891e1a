"""Which elements of DeepSpeed's flat fp32 partitions belong to which parameter.

Everything read from DeepSpeed's private attributes is read here, for exactly the three optimizer wrappers of
DeepSpeed 0.19.8, and checked element by element against the parameters when it is read: an upgrade that changes the
layout is refused, never trained with.

| wrapper                       | stages           | flat fp32 tensors               | parameters, in flat order |
|-------------------------------|------------------|---------------------------------|---------------------------|
| the client optimizer itself   | 0, fp32          | the parameters                  | -                         |
| DeepSpeedZeroOptimizer        | 1 and 2          | single_partition_of_fp32_groups | round_robin_bit16_groups  |
| BF16_Optimizer                | 1, bf16          | fp32_groups_flat_partition      | bf16_groups               |
| DeepSpeedZeroOptimizer_Stage3 | 3                | fp32_partitioned_groups_flat    | fp16_groups, by sub-group |
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class UnknownLayoutError(RuntimeError):
    """DeepSpeed laid parameters out in a way that this adapter does not know."""


@dataclass(frozen=True)
class Piece:
    """Consecutive elements of a flat tensor: of one parameter from element `start`, or padding when name is None."""

    name: str | None
    start: int
    numel: int


@dataclass(frozen=True)
class FlatPartition:
    """One flat fp32 tensor that the optimizer steps on, on this rank.

    pieces: its cut, in order, without gaps. names: the parameters of its group, the same on every rank.
    process_group: the ranks that share these parameters; None when this rank holds them whole.
    """

    flat: Tensor  # [N] float32 (stage 0: the parameter's own shape)
    pieces: tuple[Piece, ...]
    names: tuple[str, ...]
    process_group: Any | None


def read_layout(optimizer: Any, client: Optimizer, module: nn.Module) -> list[FlatPartition]:
    """The verified layout of this rank, right after `deepspeed.initialize` and before anything was changed.

    optimizer: what DeepSpeed returned; client: what it was given. Raises UnknownLayoutError when the wrapper is not one
    of the table above, when a piece differs from its parameter, or when the ranks together do not hold every element
    exactly once.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    wrapper = type(optimizer).__name__
    if optimizer is client:
        partitions = list(_whole_parameters(client.param_groups, names))
    elif wrapper == "DeepSpeedZeroOptimizer":
        partitions = list(_stage_1_and_2(optimizer, names))
    elif wrapper == "BF16_Optimizer":
        partitions = list(_bf16(optimizer, names))
    elif wrapper == "DeepSpeedZeroOptimizer_Stage3":
        partitions = list(_stage_3(optimizer, names))
    else:
        raise UnknownLayoutError(
            f"DeepSpeed wrapped the optimizer in {wrapper}, which this adapter for DeepSpeed 0.19.8 does not know"
        )
    _check_against_parameters(partitions, module)
    _check_if_complete(partitions, module)
    return partitions


def _whole_parameters(groups: Sequence[dict[str, Any]], names: dict[int, str]) -> Iterator[FlatPartition]:
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            yield FlatPartition(parameter, (Piece(name, 0, parameter.numel()),), (name,), None)


def _stage_1_and_2(optimizer: Any, names: dict[int, str]) -> Iterator[FlatPartition]:
    for index, flat in enumerate(optimizer.single_partition_of_fp32_groups):
        yield _slice_of_flat_group(
            flat,
            parameters=optimizer.round_robin_bit16_groups[index],
            offsets=optimizer.round_robin_bit16_offsets[index],
            group_numel=optimizer.bit16_groups_flat[index].numel(),
            process_group=optimizer.real_dp_process_group[index],
            names=names,
        )


def _bf16(optimizer: Any, names: dict[int, str]) -> Iterator[FlatPartition]:
    for index, flat in enumerate(optimizer.fp32_groups_flat_partition):
        parameters = optimizer.bf16_groups[index]
        offsets = [0]
        for parameter in parameters:
            offsets.append(offsets[-1] + parameter.numel())
        process_group = optimizer.real_dp_process_group[index]
        group_numel = flat.numel() * torch.distributed.get_world_size(process_group)
        yield _slice_of_flat_group(
            flat,
            parameters=parameters,
            offsets=offsets[:-1],
            group_numel=group_numel,
            process_group=process_group,
            names=names,
        )


def _slice_of_flat_group(
    flat: Tensor,
    *,
    parameters: Sequence[Tensor],
    offsets: Sequence[int],
    group_numel: int,
    process_group: Any,
    names: dict[int, str],
) -> FlatPartition:
    """Cut the slice of this rank out of a group that is flattened first and then divided evenly among ranks."""
    world_size = torch.distributed.get_world_size(process_group)
    if flat.numel() * world_size != group_numel:
        raise UnknownLayoutError(f"{world_size} partitions of {flat.numel()} elements for a group of {group_numel}")
    first = torch.distributed.get_rank(process_group) * flat.numel()
    last = first + flat.numel()
    pieces: list[Piece] = []
    position = first
    for parameter, offset in zip(parameters, offsets, strict=True):
        begin, end = max(offset, first), min(offset + parameter.numel(), last)
        if begin >= end:
            continue
        if begin > position:
            pieces.append(Piece(None, 0, begin - position))
        pieces.append(Piece(names[id(parameter)], begin - offset, end - begin))
        position = end
    if position < last:
        pieces.append(Piece(None, 0, last - position))
    return FlatPartition(flat, tuple(pieces), tuple(names[id(p)] for p in parameters), process_group)


def _stage_3(optimizer: Any, names: dict[int, str]) -> Iterator[FlatPartition]:
    """Stage 3 divides every parameter among all ranks; the tail of the last ones is padding that nobody initializes."""
    for index, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
        parameters = optimizer.fp16_groups[index]
        process_group = optimizer.sub_group_process_groups[index]
        rank = torch.distributed.get_rank(process_group)
        pieces: list[Piece] = []
        for parameter in parameters:
            share = parameter.partition_numel()
            start = min(rank * share, parameter.ds_numel)
            numel = min(share, parameter.ds_numel - start)
            if numel:
                pieces.append(Piece(names[id(parameter)], start, numel))
            if share > numel:
                pieces.append(Piece(None, 0, share - numel))
        yield FlatPartition(flat, tuple(pieces), tuple(names[id(p)] for p in parameters), process_group)


def views(partition: FlatPartition, tensor: Tensor) -> Iterator[tuple[Piece, Tensor]]:
    """Each piece with its view into `tensor`, which is laid out like the partition's flat tensor."""
    pieces = partition.pieces
    yield from zip(pieces, tensor.view(-1).split([piece.numel for piece in pieces]), strict=True)


def _check_against_parameters(partitions: Sequence[FlatPartition], module: nn.Module) -> None:
    """Refuse a layout whose elements are not the parameters' own values, rounded as the parameters are."""
    parameters = dict(module.named_parameters())
    for partition in partitions:
        covered = sum(piece.numel for piece in partition.pieces)
        if covered != partition.flat.numel():
            raise UnknownLayoutError(f"pieces of {covered} elements for a partition of {partition.flat.numel()}")
        for piece, values in views(partition, partition.flat.detach()):
            if piece.name is None:
                continue
            parameter = parameters[piece.name]
            if hasattr(parameter, "ds_tensor"):  # stage 3: the parameter's own shard of this rank
                expected = parameter.ds_tensor.detach().view(-1)[: piece.numel]
            else:
                expected = parameter.detach().view(-1)[piece.start : piece.start + piece.numel]
            if not torch.equal(values.to(expected.device, expected.dtype), expected):
                raise UnknownLayoutError(
                    f"elements {piece.start}..{piece.start + piece.numel} of {piece.name} are not where this adapter"
                    " expects them in DeepSpeed's flat partition"
                )


def _check_if_complete(partitions: Sequence[FlatPartition], module: nn.Module) -> None:
    """Refuse a layout that leaves out or repeats elements, counted over all ranks."""
    parameters = dict(module.named_parameters())
    index = {name: i for i, name in enumerate(parameters)}
    held = torch.zeros(len(index), dtype=torch.float64)
    for partition in partitions:
        num_copies = 1 if partition.process_group is not None else torch.distributed.get_world_size()
        for piece in partition.pieces:
            if piece.name is not None:
                held[index[piece.name]] += piece.numel / num_copies
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    held = held.to(device)
    torch.distributed.all_reduce(held)
    wrong = [
        name
        for (name, parameter), count in zip(parameters.items(), held.tolist(), strict=True)
        if round(count) != getattr(parameter, "ds_numel", parameter.numel())
    ]
    if wrong:
        raise UnknownLayoutError(f"the ranks together do not hold every element exactly once of {', '.join(wrong[:5])}")
