"""Third stop of the report: phases -> plots as SVG text, to stand inside the page.

Ink is drawn in INK and then renamed to `currentColor`, so that axes and text follow the page's light or dark scheme;
the line colours are of middle brightness and readable on both. The horizontal axis counts the steps of the whole run.
"""

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable
from functools import partial
from itertools import accumulate, groupby, pairwise
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from bert_lamb.report.layers import Row, interval_of, rows_of, table_of
from bert_lamb.report.metrics import Run

Shown = TypeVar("Shown")

INK = "#010203"  # replaced by the page's text colour
BLUE, ORANGE, GREEN, GREY = "#3d85d8", "#e07b39", "#3fa36b", "#8c8c8c"
SIZE_INCHES = (8.0, 3.2)
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's typeface
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}
HEAT_MAPS = {  # field of the trust_ratios records -> title, unit
    "trust_ratio": ("Trust ratio by parameter", "trust ratio"),
    "param_norm": ("Norm of the weights by parameter, before the step", "norm of the weights"),
    "update_norm": ("Norm of the update by parameter, before trust ratio and learning rate", "norm of the update"),
}
MAX_NAMED_ROWS = 48
INCHES_PER_ROW, INCHES_PER_GROUP, INCHES_AROUND_ROWS, MIN_INCHES_OF_ROWS = 0.16, 0.33, 0.8, 1.6
CHARACTERS_PER_INCH = 16  # of a label


def draw_figures(run: Run) -> list[tuple[str, str]]:
    """(title, SVG element) of every plot that the run has numbers for."""
    drawings: list[tuple[str, Callable[[Figure, Run], None]]] = [
        ("Loss", draw_loss),
        ("Learning rate", draw_lr),
        ("Gradient norm before clipping", draw_grad_norm),
    ]
    if points(run, "mlm_accuracy")[0]:
        drawings.insert(1, ("Masked-LM accuracy", draw_accuracy))
    if points(run, "accuracy")[0]:
        drawings.insert(1, ("Accuracy", draw_image_accuracy))
    if any("trust_ratio_median" in one for phase in run.phases for one in phase.steps):
        drawings.append(("Trust ratio over all adapted parameters", draw_trust_ratio))
    drawings.append(("Throughput", draw_throughput))
    if points(run, "tokens_per_second")[0]:
        drawings.append(("Tokens a second", draw_tokens))
    if points(run, "mfu")[0]:
        drawings.append(("Model FLOPs utilization", draw_utilization))
    return [(title, as_svg(title, draw, run)) for title, draw in drawings]


def draw_heat_maps(run: Run) -> list[tuple[str, str]]:
    """(title, SVG element) of every recorded field of single parameters."""
    records = [record for phase in run.phases for record in phase.trust_ratios]
    return [
        (title, as_svg(title, partial(draw_heat_map, quantity=quantity), run))
        for quantity, (title, _) in HEAT_MAPS.items()
        if any(0 < value < math.inf for record in records for value in record[quantity].values())
    ]


def as_svg(title: str, draw: Callable[[Figure, Shown], None], shown: Shown) -> str:
    """One figure as an SVG element without fixed size; what is shown alone decides its bytes."""
    stream = io.StringIO()
    # The salt keeps ids of several figures apart. Of axes too small for a layout, as after one step, matplotlib warns.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        draw(figure, shown)
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{title}">', svg, count=1)


def points(run: Run, name: str, kind: str = "steps") -> tuple[list[int], list[float]]:
    """Steps of the run and the values of `name` there; NaN where it is not finite, which leaves a gap in a line."""
    x, y = [], []
    for phase in run.phases:
        for record in getattr(phase, kind):
            if record.get(name) is not None:
                x.append(phase.first_step + record["step"])
                y.append(record[name] if math.isfinite(record[name]) else math.nan)
    return x, y


def axes_with_phases(figure: Figure, run: Run, label: str) -> Axes:
    """Axes over the run's steps, with a line where each phase begins."""
    axes = figure.subplots()
    axes.set_xlabel("step")
    axes.set_ylabel(label)
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


def draw_loss(figure: Figure, run: Run) -> None:
    axes = axes_with_phases(figure, run, "nats")
    axes.plot(*points(run, "loss"), color=GREY, label="loss")
    if points(run, "mlm_loss")[0]:
        axes.plot(*points(run, "mlm_loss"), color=BLUE, label="masked LM")
    if points(run, "nsp_loss")[0]:
        axes.plot(*points(run, "nsp_loss"), color=GREEN, label="next sentence")
    if points(run, "mlm_loss", "heldout")[0]:
        axes.plot(*points(run, "mlm_loss", "heldout"), "o", color=ORANGE, markersize=4, label="masked LM, held out")
    if points(run, "loss", "image_scores")[0]:
        axes.plot(*points(run, "loss", "image_scores"), "o", color=ORANGE, markersize=4, label="test images")
    for phase in run.phases:
        unigram = [one["unigram_cross_entropy"] for one in phase.heldout if "unigram_cross_entropy" in one]
        if unigram:
            stretch = [phase.first_step, phase.first_step + phase.num_steps]
            label = "word frequency" if phase is run.phases[0] else None
            axes.plot(stretch, [unigram[-1]] * 2, color=ORANGE, linestyle="--", label=label)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right", ncols=2, fontsize=8)


def draw_accuracy(figure: Figure, run: Run) -> None:
    axes = axes_with_phases(figure, run, "share of masked tokens")
    axes.plot(*points(run, "mlm_accuracy"), color=BLUE, label="training")
    if points(run, "mlm_accuracy", "heldout")[0]:
        axes.plot(*points(run, "mlm_accuracy", "heldout"), "o", color=ORANGE, markersize=4, label="held out")
    axes.legend(loc="lower right", fontsize=8)


def draw_image_accuracy(figure: Figure, run: Run) -> None:
    axes = axes_with_phases(figure, run, "share of images")
    axes.plot(*points(run, "accuracy"), color=BLUE, label="training")
    axes.plot(*points(run, "accuracy", "image_scores"), "o", color=ORANGE, markersize=4, label="test images")
    axes.legend(loc="lower right", fontsize=8)


def draw_lr(figure: Figure, run: Run) -> None:
    axes_with_phases(figure, run, "learning rate").plot(*points(run, "lr"), color=BLUE)


def draw_grad_norm(figure: Figure, run: Run) -> None:
    axes = axes_with_phases(figure, run, "L2 norm")
    axes.plot(*points(run, "grad_norm"), color=BLUE)
    axes.set_yscale("log", nonpositive="mask")


def draw_trust_ratio(figure: Figure, run: Run) -> None:
    axes = axes_with_phases(figure, run, "trust ratio")
    x, lowest = points(run, "trust_ratio_min")
    axes.fill_between(x, lowest, points(run, "trust_ratio_max")[1], color=BLUE, alpha=0.25, label="min to max")
    axes.plot(*points(run, "trust_ratio_median"), color=BLUE, label="median")
    axes.set_yscale("log", nonpositive="mask")
    axes.legend(loc="upper right", fontsize=8)


def draw_throughput(figure: Figure, run: Run) -> None:
    axes = axes_with_phases(figure, run, "sequences per second")
    axes.plot(*points(run, "sequences_per_second"), color=BLUE)
    axes.set_ylim(bottom=0)


def draw_tokens(figure: Figure, run: Run) -> None:
    axes = axes_with_phases(figure, run, "a second")
    axes.plot(*points(run, "positions_per_second"), color=GREY, label="positions, padding included")
    axes.plot(*points(run, "tokens_per_second"), color=BLUE, label="tokens")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", fontsize=8)


def draw_utilization(figure: Figure, run: Run) -> None:
    axes = axes_with_phases(figure, run, "share of the peak")
    axes.plot(*points(run, "mfu"), color=BLUE)
    axes.set_ylim(bottom=0)


def draw_heat_map(figure: Figure, run: Run, quantity: str) -> None:
    """A field of the trust_ratios records: a row a parameter, a column a step at which a record was due.

    The column of step s reaches back to the due step before it. One image a phase, the same colours for all; hatched
    is what was not recorded, and what has no logarithm.
    """
    rows, interval_steps = rows_of(run), interval_of(run)
    tables = [as_logarithmic(table_of(phase, quantity, rows, interval_steps)) for phase in run.phases]
    known = np.concatenate([table[np.isfinite(table)] for table in tables])
    colours = LogNorm(known.min(), max(known.max(), 1.01 * known.min()))

    axes = axes_with_phases(figure, run, "")
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
    figure.set_size_inches(SIZE_INCHES[0], height + INCHES_AROUND_ROWS)


def reading_order(rows: list[Row]) -> str:
    """ "word embeddings, ...; in each layer query, key, ...; pooler, ...", from top to bottom."""
    parts = []
    for is_layer, members in groupby(rows, key=lambda row: row.group.startswith("layer")):
        kinds = dict.fromkeys(row.kind for row in members)
        parts.append("in each layer " * is_layer + ", ".join(kinds))
    return "; ".join(parts)
