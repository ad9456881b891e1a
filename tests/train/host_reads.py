"""Count where the host reads something back from tensors: on a GPU each such place waits for the device.

On a CPU nothing waits, so the calls are counted: what reads a number (item, float, bool, int, and what does so inside
torch), what has a size that depends on data (nonzero, masks as indices), what copies (tolist, numpy, cpu), and tensors
made of the host's numbers on a given device.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bert_lamb.train.meter import Meter

aten = torch.ops.aten
WAITING = {
    operation.default
    for operation in (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.equal)
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
COPYING = ("tolist", "numpy", "cpu")
# Their branches for a CPU read where sequences begin. That for a GPU reads nothing: on `meta`, where it runs in
# tests/model, nothing can be read.
ON_A_CPU = ("bert_lamb/model/attention.py", "bert_lamb/model/dropout.py")
PACKAGES = Path(torch.__file__).parents[1]
CHECKOUT = Path(__file__).parents[2]


class HostReads(TorchDispatchMode):
    """counts: (part of the step, file whose code asked) -> how often, since it was entered."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.num_entered: Counter[str] = Counter()
        self.part = "before"

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_mask = function in INDEXING and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if function in WAITING or is_mask:
            self.add()
        return function(*args, **(kwargs or {}))

    def add(self) -> None:
        self.counts[self.part, asking_file()] += 1

    def by_part(self) -> dict[str, dict[str, int]]:
        """Part of the step -> file -> how often; and "times", how often each part began."""
        parts: dict[str, dict[str, int]] = {"times": dict(self.num_entered)}
        for (part, file), count in self.counts.items():
            parts.setdefault(part, {})[file] = count
        return parts

    @contextmanager
    def watching(self) -> Iterator[None]:
        enter, make = Meter.enter, torch.tensor

        def entering(meter: Meter, part: str) -> None:
            self.part = part
            self.num_entered[part] += 1
            enter(meter, part)

        def making(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("device") is not None:
                self.add()
            return make(*args, **kwargs)

        def copying(original: Callable[..., Any]) -> Callable[..., Any]:
            def copy(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
                self.add()
                return original(tensor, *args, **kwargs)

            return copy

        copies = {name: copying(getattr(torch.Tensor, name)) for name in COPYING}
        with (
            patch.object(Meter, "enter", entering),
            patch.object(torch, "tensor", making),
            patch.multiple(torch.Tensor, **copies),
            self,
        ):
            yield


def per_step_of(parts: dict[str, dict[str, int]]) -> dict[str, dict[str, float]]:
    """What `by_part` counted in the parts of training, a step or, of data and forward_backward, a micro-step.

    Left out is what has the host's own numbers in hand (bert_lamb/data), and the optimizer, of which only the eager
    implementations read anything: tests/optim/test_optim_gpu.py shows that fused does not wait.
    """
    times = parts["times"]
    kept = {
        part: {
            file: count / times[part]
            for file, count in of_part.items()
            if not file.startswith(("bert_lamb/data/", "bert_lamb/optim/", *ON_A_CPU))
        }
        for part, of_part in parts.items()
        if part in ("data", "forward_backward", "optimizer", "agreement", "logging")
    }
    return {part: of_part for part, of_part in kept.items() if of_part}


def asking_file() -> str:
    """The file of the innermost call that is neither torch's nor this one."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path != Path(__file__) and PACKAGES / "torch" not in path.parents:
            for root in (PACKAGES, CHECKOUT):  # the packages may be in the checkout
                if root in path.parents:
                    return str(path.relative_to(root))
        frame = frame.f_back
    return "?"
