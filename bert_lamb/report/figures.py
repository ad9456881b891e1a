"""Third stop of the report: phases -> plots as SVG text, to stand inside the page.

Ink is drawn in INK and then renamed to `currentColor`, so that axes and text follow the page's light or dark scheme;
the line colours are of middle brightness and readable on both. The horizontal axis counts the steps of the whole run.
"""

import io
import math
import re
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from bert_lamb.report.metrics import Phase, Record, Run

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
LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


def draw_figures(run: Run) -> list[tuple[str, str]]:
    """(title, SVG element) of every plot that the run has numbers for."""
    drawings: list[tuple[str, Callable[[Figure, Run], None]]] = [
        ("Loss", draw_loss),
        ("Masked-LM accuracy", draw_accuracy),
        ("Learning rate", draw_lr),
        ("Gradient norm before clipping", draw_grad_norm),
    ]
    if any("trust_ratio_median" in one for phase in run.phases for one in phase.steps):
        drawings.append(("Trust ratio over all adapted parameters", draw_trust_ratio))
    drawings.append(("Throughput", draw_throughput))
    if any(phase.trust_ratios for phase in run.phases):
        drawings.append(("Trust ratio by layer (median of its weight matrices)", draw_layers))
    return [(title, as_svg(title, draw, run)) for title, draw in drawings]


def as_svg(title: str, draw: Callable[[Figure, Run], None], run: Run) -> str:
    """One figure as an SVG element without fixed size; the same run gives the same bytes."""
    stream = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):  # the salt keeps ids of several figures apart
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        draw(figure, run)
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
    axes.plot(*points(run, "mlm_loss"), color=BLUE, label="masked LM")
    if points(run, "nsp_loss")[0]:
        axes.plot(*points(run, "nsp_loss"), color=GREEN, label="next sentence")
    if points(run, "mlm_loss", "heldout")[0]:
        axes.plot(*points(run, "mlm_loss", "heldout"), "o", color=ORANGE, markersize=4, label="masked LM, held out")
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


def draw_layers(figure: Figure, run: Run) -> None:
    x, names, table = layer_table(run.phases)
    axes = axes_with_phases(figure, run, "")
    known = [value for row in table for value in row if math.isfinite(value)]
    edges = [0.0, *((a + b) / 2 for a, b in pairwise(x)), x[-1] + 0.5]
    norm = LogNorm(min(known), max(known)) if known and min(known) < max(known) else None
    mesh = axes.pcolormesh(edges, range(len(names) + 1), table, cmap="viridis", norm=norm)
    axes.set_yticks([i + 0.5 for i in range(len(names))], names, fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False)
    figure.colorbar(mesh, ax=axes, label="trust ratio")


def layer_table(phases: list[Phase]) -> tuple[list[int], list[str], list[list[float]]]:
    """Steps of the run, names of the layers from input to output, and [layer][record] the median trust ratio.

    Bias and LayerNorm are left out, since LAMB does not adapt them; NaN where a layer has no positive ratio.
    """
    records: list[tuple[int, Record]] = [
        (phase.first_step + one["step"], one["trust_ratio"]) for phase in phases for one in phase.trust_ratios
    ]
    columns: list[dict[str, float]] = []
    for _, ratios in records:
        by_layer: dict[str, list[float]] = {}
        for name, ratio in ratios.items():
            is_adapted = not name.endswith("bias") and "LayerNorm" not in name
            if is_adapted and isinstance(ratio, int | float) and math.isfinite(ratio) and ratio > 0:
                by_layer.setdefault(layer_of(name), []).append(ratio)
        columns.append({layer: median(values) for layer, values in by_layer.items()})
    names = sorted({layer for column in columns for layer in column}, key=depth)
    table = [[column.get(name, math.nan) for column in columns] for name in names]
    return [step for step, _ in records], names, table


def layer_of(parameter_name: str) -> str:
    """ "layer 3" for bert.encoder.layer.3.output.dense.weight, otherwise the module below `bert`."""
    match = LAYER.search(parameter_name)
    if match:
        return f"layer {match[1]}"
    return parameter_name.removeprefix("bert.").split(".")[0]


def depth(layer: str) -> tuple[int, int, str]:
    """Sorts embeddings, layers by number, then the rest."""
    if layer.startswith("layer "):
        return 1, int(layer.removeprefix("layer ")), ""
    return (0 if layer == "embeddings" else 2), 0, layer
