"""Fifth stop of the report: what was recorded of single parameters -> heat maps, parameters over steps."""

import math
import textwrap
from functools import partial
from itertools import accumulate, groupby, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from bert_lamb.report.figures import GREY, as_svg
from bert_lamb.report.layers import Row, interval_of, rows_of, table_of
from bert_lamb.report.metrics import Run

HEAT_MAPS = {  # field of the trust_ratios records -> title, unit
    "trust_ratio": ("Trust ratio by parameter", "trust ratio"),
    "param_norm": ("Norm of the weights by parameter, before the step", "norm of the weights"),
    "update_norm": ("Norm of the update by parameter, before trust ratio and learning rate", "norm of the update"),
}
WIDTH_INCHES = 8.0
MAX_NAMED_ROWS = 48
INCHES_PER_ROW, INCHES_PER_GROUP, INCHES_AROUND_ROWS, MIN_INCHES_OF_ROWS = 0.16, 0.33, 0.8, 1.6
CHARACTERS_PER_INCH = 16  # of a label


def draw_heat_maps(run: Run) -> list[tuple[str, str]]:
    """(title, SVG element) of every recorded field of single parameters."""
    records = [record for phase in run.phases for record in phase.trust_ratios]
    return [
        (title, as_svg(title, partial(draw_heat_map, quantity=quantity), run))
        for quantity, (title, _) in HEAT_MAPS.items()
        if any(0 < value < math.inf for record in records for value in record[quantity].values())
    ]


def draw_heat_map(figure: Figure, run: Run, quantity: str) -> None:
    """A field of the trust_ratios records: a row a parameter, a column a step at which a record was due.

    The column of step s reaches back to the due step before it. One image a phase, the same colours for all; hatched
    is what was not recorded, and what has no logarithm.
    """
    rows, interval_steps = rows_of(run), interval_of(run)
    tables = [as_logarithmic(table_of(phase, quantity, rows, interval_steps)) for phase in run.phases]
    known = np.concatenate([table[np.isfinite(table)] for table in tables])
    colours = LogNorm(known.min(), max(known.max(), 1.01 * known.min()))

    axes = axes_with_phases(figure, run)
    for phase, table in zip(run.phases, tables, strict=True):
        if table.size:
            left, right = phase.first_step, phase.first_step + table.shape[1] * interval_steps
            image = axes.imshow(
                table, "viridis", colours, aspect="auto", interpolation="none", extent=(left, right, len(rows), 0)
            )
    axes.set_xlim(0, sum(phase.num_steps for phase in run.phases))
    axes.set_xlabel("step; hatched: no value")
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.patch.set(hatch="////", edgecolor=GREY, linewidth=0)
    for begin in axes.lines:
        begin.set(color="black", linestyle="-", path_effects=[withStroke(linewidth=3, foreground="white")])
    name_rows(figure, axes, rows)
    ticks = LogLocator(subs=(1, 2, 5))
    legend = figure.colorbar(
        image, ax=axes, label=HEAT_MAPS[quantity][1], ticks=ticks, format="%g", aspect=40, pad=0.02
    )
    legend.minorticks_off()


def axes_with_phases(figure: Figure, run: Run) -> Axes:
    """Axes over the run's steps, with a line where each phase begins, and its name above."""
    axes = figure.subplots()
    for phase in run.phases:
        if phase.first_step:
            axes.axvline(phase.first_step, color=GREY, linewidth=1, linestyle=":")
        axes.annotate(
            f"{phase.name}, length {phase.max_seq_length}",
            (phase.first_step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, 2),
            textcoords="offset points",
            fontsize=8,
        )
    return axes


def as_logarithmic(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The table with NaN for what has no finite logarithm."""
    return np.where(np.isfinite(table) & (table > 0), table, np.nan)


def name_rows(figure: Figure, axes: Axes, rows: list[Row]) -> None:
    """Each row its name where they are few, else each group, with the order within it beside them; sets the height."""
    groups = [(group, len(list(members))) for group, members in groupby(rows, key=lambda row: row.group)]
    bounds = list(accumulate((size for _, size in groups), initial=0))
    if len(rows) <= MAX_NAMED_ROWS:
        height = max(INCHES_PER_ROW * len(rows), MIN_INCHES_OF_ROWS)
        axes.set_yticks([i + 0.5 for i in range(len(rows))], [row.label for row in rows], fontsize=8)
    else:
        height = INCHES_PER_GROUP * len(groups)
        axes.set_yticks(
            [(top + bottom) / 2 for top, bottom in pairwise(bounds)], [name for name, _ in groups], fontsize=8
        )
        axes.set_ylabel(
            textwrap.fill("from the top: " + reading_order(rows), int(CHARACTERS_PER_INCH * height)), fontsize=8
        )
    axes.tick_params(axis="y", length=0)
    for bound in bounds[1:-1]:
        axes.axhline(bound, color="white", linewidth=0.7)
    figure.set_size_inches(WIDTH_INCHES, height + INCHES_AROUND_ROWS)


def reading_order(rows: list[Row]) -> str:
    """ "word embeddings, ...; in each layer query, key, ...; pooler, ...", from top to bottom."""
    parts = []
    for is_layer, members in groupby(rows, key=lambda row: row.group.startswith("layer")):
        kinds = dict.fromkeys(row.kind for row in members)
        parts.append("in each layer " * is_layer + ", ".join(kinds))
    return "; ".join(parts)
