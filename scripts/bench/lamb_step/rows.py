"""A row of the table: one candidate in one form, and what was measured of it."""

from dataclasses import dataclass, field

import torch


@dataclass
class Row:
    """A line of the table.

    tiling: of the fused kernels, where another one was asked for than theirs. chunks: elements of a chunk, by group, as
    the fused kernels had them. reason: why it has no numbers. samples: milliseconds of one step, one for each round;
    host_samples: of which the host was at work.
    """

    kind: str
    title: str
    form: str
    dtypes: str
    tiling: str | None = None
    optimizer: torch.optim.Optimizer | None = None
    reason: str | None = None
    max_relative_difference: float | None = None
    chunks: list[int] | None = None
    counted_bytes: int | None = None
    launches: int | None = None
    samples: list[float] = field(default_factory=list)
    host_samples: list[float] = field(default_factory=list)


def find(rows: list[Row], kind: str, form: str) -> Row | None:
    """The row of this kind and form with the optimizer as it is, if there is one."""
    return next((row for row in rows if (row.kind, row.form, row.tiling) == (kind, form, None)), None)
