"""Which elements of a tensor belong to which parameter, and how its norms become global: the port to the machines.

A plain parameter is one segment of itself. A flat partition of ZeRO is cut into segments of several parameters, of
which it may hold only a part, and padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

PADDING = -1

Reducer = Callable[[Tensor, str], Tensor]  # (what this rank holds, "sum" or "max") -> the same over all ranks


def keep_local(partial: Tensor, operation: str) -> Tensor:
    """The reducer of a tensor that holds its parameters whole: nothing to add."""
    return partial


@dataclass(frozen=True)
class Segments:
    """The cut of one flat tensor, in order and without gaps.

    names: the parameters whose norms this tensor contributes to, the same on every rank that shares them.
    slots: per segment the index into names, or PADDING; a parameter has at most one segment in a tensor.
    sizes: per segment the number of elements.
    reduce_norms: makes partial norms, [2, len(names)] float64, global over the ranks that share the parameters.
    Raises ValueError when these do not fit together.
    """

    names: tuple[str, ...]
    slots: tuple[int, ...]
    sizes: tuple[int, ...]
    reduce_norms: Reducer = keep_local

    def __post_init__(self) -> None:
        if len(self.slots) != len(self.sizes):
            raise ValueError(f"{len(self.slots)} slots for {len(self.sizes)} sizes")
        wrong = [slot for slot in self.slots if not PADDING <= slot < len(self.names)]
        if wrong:
            raise ValueError(f"slots {wrong} are outside {PADDING}..{len(self.names) - 1}")
        taken = [slot for slot in self.slots if slot != PADDING]
        if len(set(taken)) != len(taken):
            raise ValueError(f"slots {self.slots} name a parameter twice: its elements must lie together")

    def split(self, flat: Tensor) -> list[Tensor]:
        """One view per segment; `flat` has as many elements as the sizes add up to."""
        return [flat] if len(self.sizes) == 1 else list(torch.split(flat.view(-1), list(self.sizes)))

    @staticmethod
    def of_whole(name: str, parameter: Tensor) -> "Segments":
        """The cut of a tensor that is one whole parameter."""
        return Segments(names=(name,), slots=(0,), sizes=(parameter.numel(),))


@dataclass(frozen=True)
class Layout:
    """The cuts of several tensors with one numbering of all their parameters."""

    cuts: tuple[Segments, ...]
    names: tuple[str, ...] = field(init=False)
    slots: tuple[int, ...] = field(init=False)  # of every segment that is not padding, in the order of `pieces`
    _runs: tuple[tuple[slice, Reducer], ...] = field(init=False)  # neighbours with the same reducer travel together
    _slots_on: dict[torch.device, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        slots: list[int] = []
        runs: list[tuple[slice, Reducer]] = []
        first = 0
        for _, neighbours in groupby(self.cuts, key=lambda cut: id(cut.reduce_norms)):
            begin = first
            for cut in neighbours:
                slots.extend(first + slot for slot in cut.slots if slot != PADDING)
                first += len(cut.names)
            runs.append((slice(begin, first), cut.reduce_norms))
        object.__setattr__(self, "names", tuple(name for cut in self.cuts for name in cut.names))
        object.__setattr__(self, "slots", tuple(slots))
        object.__setattr__(self, "_runs", tuple(runs))

    @property
    def is_local(self) -> bool:
        """Whether these tensors hold all their parameters whole: nothing is added over ranks."""
        return all(reduce is keep_local for _, reduce in self._runs)

    @property
    def num_elements(self) -> int:
        """Of all parameters, without padding."""
        return sum(
            size for cut in self.cuts for slot, size in zip(cut.slots, cut.sizes, strict=True) if slot != PADDING
        )

    def pieces(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Views of every segment that is not padding; tensors are laid out like the cuts."""
        return [
            piece
            for cut, tensor in zip(self.cuts, tensors, strict=True)
            for slot, piece in zip(cut.slots, cut.split(tensor), strict=True)
            if slot != PADDING
        ]

    def by_parameter(self, by_piece: Tensor) -> Tensor:
        """[..., len(slots)] -> [..., len(names)]; 0 for parameters of which these tensors hold nothing."""
        if self.slots == tuple(range(len(self.names))):
            return by_piece
        out = by_piece.new_zeros(*by_piece.shape[:-1], len(self.names))
        out[..., self._slots(by_piece.device)] = by_piece
        return out

    def by_piece(self, by_parameter: Tensor) -> Tensor:
        """[..., len(names)] -> [..., len(slots)]."""
        if self.slots == tuple(range(len(self.names))):
            return by_parameter
        return by_parameter[..., self._slots(by_parameter.device)]

    def reduce(self, partial: Tensor, operation: str) -> Tensor:
        """Partial norms of this rank, [k, len(names)] float64, made global; operation is "sum" or "max"."""
        parts = [reduce(partial[:, share].contiguous(), operation) for share, reduce in self._runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _slots(self, device: torch.device) -> Tensor:
        if device not in self._slots_on:
            self._slots_on[device] = torch.tensor(self.slots, dtype=torch.int64, device=device)
        return self._slots_on[device]
