"""Which elements of a tensor belong to which parameter, and how its norms become global: the port to the machines.

A plain parameter is one segment of itself. A flat partition of ZeRO is cut into segments of several parameters, of
which it may hold only a part, and padding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PADDING = -1


def keep_local(squared_norms: Tensor) -> Tensor:
    """The reducer of a tensor that holds its parameters whole: nothing to add."""
    return squared_norms


@dataclass(frozen=True)
class Segments:
    """The cut of one flat tensor, in order and without gaps.

    names: the parameters whose norms this tensor contributes to, the same on every rank that shares them.
    slots: per segment the index into names, or PADDING. sizes: per segment the number of elements.
    reduce_norms: makes squared norms, [2, len(names)] float64, global by adding what other ranks hold; in place or not.
    """

    names: tuple[str, ...]
    slots: tuple[int, ...]
    sizes: tuple[int, ...]
    reduce_norms: Callable[[Tensor], Tensor] = keep_local

    def __post_init__(self) -> None:
        if len(self.slots) != len(self.sizes):
            raise ValueError(f"{len(self.slots)} slots for {len(self.sizes)} sizes")
        wrong = [slot for slot in self.slots if not PADDING <= slot < len(self.names)]
        if wrong:
            raise ValueError(f"slots {wrong} are outside {PADDING}..{len(self.names) - 1}")

    def split(self, flat: Tensor) -> list[Tensor]:
        """One view per segment; `flat` has as many elements as the sizes add up to."""
        return [flat] if len(self.sizes) == 1 else list(torch.split(flat.view(-1), list(self.sizes)))

    @staticmethod
    def of_whole(name: str, parameter: Tensor) -> "Segments":
        """The cut of a tensor that is one whole parameter."""
        return Segments(names=(name,), slots=(0,), sizes=(parameter.numel(),))


def trust_ratios(squared_norms: Tensor) -> Tensor:
    """||w|| / ||u|| per parameter, 1 where either norm is 0; [2, n] squared norms of w and u -> [n].

    Source: LAMB (You et al. 2020), Algorithm 2, with phi the identity; the guard at 0 is the authors' code.
    """
    param_norm, update_norm = squared_norms.sqrt()
    is_defined = (param_norm > 0) & (update_norm > 0)
    return torch.where(is_defined, param_norm / update_norm, torch.ones_like(param_norm))
