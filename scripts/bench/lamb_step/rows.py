"""A row of the table: one candidate in one form, and what was measured of it."""

from dataclasses import dataclass, field

import torch


@dataclass
class Row:
    """A line of the table.

    reason: why it has no numbers. samples: milliseconds of one step, one for each round; host_samples: of which the
    host was at work.
    """

    kind: str
    title: str
    form: str
    dtypes: str
    optimizer: torch.optim.Optimizer | None = None
    reason: str | None = None
    max_relative_difference: float | None = None
    counted_bytes: int | None = None
    launches: int | None = None
    samples: list[float] = field(default_factory=list)
    host_samples: list[float] = field(default_factory=list)


def find(rows: list[Row], kind: str, form: str) -> Row | None:
    """The row of this kind and form, if there is one."""
    return next((row for row in rows if row.kind == kind and row.form == form), None)
