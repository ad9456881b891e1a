"""Fourth stop of the report: panels -> plots as SVG text, to stand inside the page, and what a reader's pointer finds.

Ink is drawn in INK and then renamed to `currentColor`, so that axes and text follow the page's light or dark scheme;
the line colours are of middle brightness and readable on both. The horizontal axis counts the steps of the whole run.
"""

import io
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bert_lamb.report.curves import BLUE, GREY, Curve, Form, Panel
from bert_lamb.report.metrics import Run

Shown = TypeVar("Shown")

INK = "#010203"  # replaced by the page's text colour
SIZE_INCHES = (8.0, 3.2)
SIZE_OF_PANEL = (6.0, 2.9)  # inches; two or three stand beside one another
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
FORMS: dict[Form, dict[str, Any]] = {
    "line": {},
    "dashed": {"linestyle": "--"},
    "points": {"linestyle": "none", "marker": "o", "markersize": 4, "clip_on": False},
}
DIGITS_OF_TICKS = {
    2: (1, 2, 3, 5),
    4: (1, 3),
    math.inf: (1,),
}  # decades that a logarithmic axis spans at most -> of ticks
SHADES = (0.05, 0.14)  # of the bands of phases, in turn
NUMBERS = FuncFormatter(lambda value, _: f"{value:,.10g}")  # 0.01, 17,500
NAME_SIZE, POINTS_PER_CHARACTER = 8, 4.5  # of a phase's name: typographic points
SIGNIFICANT_DIGITS = 5  # of what the pointer finds


@dataclass(frozen=True)
class Drawing:
    """A panel as SVG at one scale. box: the axes' left, top, right, bottom in the SVG; x, y: their limits."""

    svg: str
    is_logarithmic: bool
    box: list[float]
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Plot:
    """A figure of the page: its drawings, the first shown at first, and what the pointer finds, as plain values."""

    panel: Panel
    drawings: list[Drawing]
    found: dict[str, Any]


def draw_plots(panels: list[Panel], run: Run) -> list[Plot]:
    """Every panel, at both scales where the reader may choose."""
    plots = []
    for panel in panels:
        scales = [panel.is_logarithmic, not panel.is_logarithmic] if panel.has_switch else [panel.is_logarithmic]
        plots.append(Plot(panel, [draw_at_scale(panel, run, scale) for scale in scales], values_of(panel, run)))
    return plots


def values_of(panel: Panel, run: Run) -> dict[str, Any]:
    """The phases with their first steps, and every curve's points; null where a value is not finite."""
    return {
        "phases": [[phase.name, phase.first_step] for phase in run.phases],
        "curves": [
            {
                "label": curve.label,
                "colour": curve.colour,
                "form": curve.form,
                "x": curve.x,
                "y": [as_short(value) for value in curve.y],
            }
            for curve in panel.curves
        ],
    }


def as_short(value: float) -> float | None:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None


def draw_at_scale(panel: Panel, run: Run, is_logarithmic: bool) -> Drawing:
    drawn: list[Axes] = []

    def draw(figure: Figure, panel: Panel) -> None:
        figure.set_size_inches(SIZE_OF_PANEL)
        drawn.append(draw_panel(figure, panel, run, is_logarithmic))

    salt = f"{panel.title}, {'log' if is_logarithmic else 'linear'}"
    svg = as_svg(panel.title, draw, panel, salt=salt)
    (axes,) = drawn
    width, height = (72 * inches for inches in SIZE_OF_PANEL)
    place = axes.get_position()  # shares of the figure, from below
    box = [place.x0 * width, (1 - place.y1) * height, place.x1 * width, (1 - place.y0) * height]
    limits = [[float(limit) for limit in limits] for limits in (axes.get_xlim(), axes.get_ylim())]
    return Drawing(svg, is_logarithmic, [round(edge, 2) for edge in box], *limits)


def draw_panel(figure: Figure, panel: Panel, run: Run, is_logarithmic: bool) -> Axes:
    axes = figure.subplots()
    axes.set_xlabel("step")
    if panel.band is not None:
        axes.fill_between(panel.band.x, panel.band.lower, panel.band.upper, color=BLUE, alpha=0.2, linewidth=0)
    for curve in panel.curves:
        axes.plot(curve.x, curve.y, color=curve.colour, **FORMS[curve.form])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(NUMBERS)
    if is_logarithmic:
        axes.set_yscale("log", nonpositive="mask")
        low, high = axes.get_ylim()
        digits = next(digits for decades, digits in DIGITS_OF_TICKS.items() if math.log10(high / low) <= decades)
        axes.yaxis.set_major_locator(LogLocator(subs=digits))
        axes.yaxis.set_minor_locator(NullLocator())
    elif panel.starts_at_zero:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(NUMBERS)
    last_step = max([phase.first_step + phase.num_steps for phase in run.phases] + last_steps(panel.curves))
    axes.set_xlim(0, max(last_step, 1))
    shade_phases(axes, run, last_step)
    return axes


def last_steps(curves: list[Curve]) -> list[int]:
    return [curve.x[-1] for curve in curves if curve.x]


def shade_phases(axes: Axes, run: Run, last_step: int) -> None:
    """A band for each phase of the run, and its name above where there is room for it."""
    for index, phase in enumerate(run.phases):
        axes.axvspan(
            phase.first_step,
            phase.first_step + phase.num_steps,
            color=GREY,
            alpha=SHADES[index % len(SHADES)],
            linewidth=0,
            zorder=0,
        )
        room = 0.9 * 72 * SIZE_OF_PANEL[0] * phase.num_steps / max(last_step, 1) / POINTS_PER_CHARACTER
        names = [f"{phase.name}, length {phase.max_seq_length}", phase.name]
        fitting = [name for name in names if len(name) <= room]
        axes.annotate(
            fitting[0] if fitting else "",
            (phase.first_step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3),
            textcoords="offset points",
            fontsize=NAME_SIZE,
        )


def as_svg(title: str, draw: Callable[[Figure, Shown], None], shown: Shown, *, salt: str | None = None) -> str:
    """One figure as an SVG element without fixed size; what is shown alone decides its bytes.

    salt: what keeps the ids of several figures of a page apart; the title, where none is given.
    """
    stream = io.StringIO()
    # Of axes too small for a layout, as after one step, matplotlib warns.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt or title}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        draw(figure, shown)
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"font-family: [^;]*; ", "", svg)  # the page's
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)  # of a point a hundredth
    svg = re.sub(r"\n +", "\n", svg)
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{title}">', svg, count=1)
