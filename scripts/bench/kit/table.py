"""The tables that benches print: aligned plain text."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

UNKNOWN = "-"


@dataclass(frozen=True)
class Column:
    """cell: makes a record's cell. is_text: aligned to the left; numbers are aligned to the right."""

    heading: str
    cell: Callable[[Any], str]
    is_text: bool = False


def number(value: float | None, how: str) -> str:
    """The value by a format specification, or "-" if it is not known."""
    return UNKNOWN if value is None else format(value, how)


def table(columns: Sequence[Column], records: Iterable[Any]) -> str:
    """The headings, and a line for each record."""
    return "\n".join("  ".join(line) for line in padded(columns, records))


def padded(columns: Sequence[Column], records: Iterable[Any]) -> list[list[str]]:
    """The headings and each record's cells, all as wide as the widest of their column."""
    lines = [
        [column.heading for column in columns],
        *([column.cell(record) for column in columns] for record in records),
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return [
        [
            cell.ljust(width) if column.is_text else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        for line in lines
    ]
