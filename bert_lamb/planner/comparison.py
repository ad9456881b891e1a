"""The arithmetic held against every published row: the error of each, and tables of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bert_lamb.planner.calibration import NOT_FITTED, error, fit
from bert_lamb.planner.published import Efficiencies, Published, predict

TARGET = 0.15  # of the error


@dataclass(frozen=True)
class Compared:
    row: Published
    predicted: float
    error: float  # positive where the arithmetic says faster than it was

    @property
    def is_within(self) -> bool:
        return abs(self.error) <= TARGET


def compare(rows: Sequence[Published], efficiencies: Efficiencies) -> list[Compared]:
    return [Compared(row, predict(row, efficiencies), error(row, efficiencies)) for row in rows]


def forecast(rows: Sequence[Published], *, up_to_gpus: int) -> list[Compared]:
    """Larger rows by efficiencies that were fitted to the others alone: those whose stack has some of both."""
    efficiencies = fit([row for row in rows if row.gpus <= up_to_gpus])
    known = [row for row in rows if (row.stack.name, row.gpu.generation) in efficiencies.compute]
    return compare([row for row in known if row.gpus > up_to_gpus], efficiencies)


def nearest(compared: Sequence[Compared], generation: str, gpus: int, *, count: int) -> list[Compared]:
    """The rows of a generation whose number of GPUs is nearest, in the order of the file."""
    own = [one for one in compared if one.row.gpu.generation == generation]
    by_distance = sorted(own, key=lambda one: abs(math.log(one.row.gpus / gpus)))[:count]
    return [one for one in own if one in by_distance]


def phases_in_words(row: Published) -> str:
    lengths = " + ".join(str(phase.max_seq_length) for phase in row.phases)
    return f"{lengths} x {' + '.join(f'{phase.global_batch_size:,}' for phase in row.phases)}"


def table_of_errors(compared: Sequence[Compared]) -> list[str]:
    """Markdown, a line a row."""
    lines = [
        "| row | stack | GPUs | length x batch | published | arithmetic | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in compared:
        row = one.row
        mark = "" if one.is_within else " **"
        off = " (not fitted)" if row.name in NOT_FITTED else ""
        lines.append(
            f"| {row.name} | {row.stack.name} | {row.gpus:,} {row.gpu.name} | {phases_in_words(row)} |"
            f" {number(row.value)} {row.unit} | {number(one.predicted)} | {100 * one.error:+.1f} %{mark}{off} |"
        )
    return lines


def table_of_stacks(compared: Sequence[Compared], efficiencies: Efficiencies) -> list[str]:
    """Markdown: efficiencies, and the errors of the rows they were fitted to."""
    lines = [
        "| stack | generation | precision | rows | compute efficiency | median error | largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for (stack, generation), value in efficiencies.compute.items():
        own = [one for one in compared if (one.row.stack.name, one.row.gpu.generation) == (stack, generation)]
        sizes = sorted(abs(one.error) for one in own)
        median = sizes[len(sizes) // 2]
        lines.append(
            f"| {stack}: {own[0].row.stack.note} | {generation} | {own[0].row.stack.precision} | {len(own)} |"
            f" {value:.3f} | {100 * median:.1f} % | {100 * sizes[-1]:.1f} % |"
        )
    return lines


def number(value: float) -> str:
    """Four digits, or all of those before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
