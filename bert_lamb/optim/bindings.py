"""Which elements of which tensor belong to which parameter, as an optimizer knows it."""

import weakref
from typing import Any

from torch import Tensor

from bert_lamb.optim import dtensor
from bert_lamb.optim.segments import Layout, Segments


class Bindings:
    """The cut of every tensor that an optimizer holds, and the layouts of tensors that step together."""

    def __init__(self) -> None:
        self._cuts: dict[int, tuple[weakref.ref[Tensor], Segments]] = {}  # by id of the tensor
        self._layouts: dict[tuple[int, ...], Layout] = {}

    def bind(self, tensor: Tensor, segments: Segments) -> None:
        """Raises ValueError when the segments do not cover the tensor."""
        if sum(segments.sizes) != tensor.numel():
            raise ValueError(f"segments of {sum(segments.sizes)} elements for a tensor of {tensor.numel()}")
        self._cuts[id(tensor)] = (weakref.ref(tensor), segments)

    def bind_parameters(self, group: dict[str, Any], first: int) -> None:
        """Every parameter of a group as itself, named or, without names, numbered from `first`."""
        names = group.get("param_names") or [str(first + index) for index in range(len(group["params"]))]
        for name, parameter in zip(names, group["params"], strict=True):
            self._cuts[id(parameter)] = (weakref.ref(parameter), dtensor.cut_of(name, parameter))

    def cut_of(self, tensor: Tensor) -> Segments | None:
        """None for a tensor that nobody has bound."""
        known, segments = self._cuts.get(id(tensor), (None, None))
        return segments if known is not None and known() is tensor else None

    def layout_of(self, tensors: list[Tensor], cuts: list[Segments]) -> Layout:
        """The layout of tensors that step together; made once."""
        identity = tuple(id(tensor) for tensor in tensors)
        layout = self._layouts.get(identity)
        if layout is None or any(known is not cut for known, cut in zip(layout.cuts, cuts, strict=True)):
            layout = self._layouts[identity] = Layout(tuple(cuts))  # an id comes back when its tensor is gone
        return layout
