"""The figures of a study: held-out loss against batch, and the runs' curves over each other."""

import math
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bert_lamb.report.curves import COLOURS, GREY
from bert_lamb.report.figures import as_svg
from bert_lamb.study.lines import Line, Study

MARKERS = "os^Dv"
TITLE = "Held-out masked-LM loss against batch"
SPREAD = 0.05  # powers of two between lines at the same batch, so that their bars can be told apart
TOP = 0.97  # of the axes' height: where what diverged is marked
# A file of its own has no page around it whose text colour it could take.
OWN_STYLE = (
    "<style>svg{color:#1d1f22;font-family:system-ui,sans-serif}"
    "@media (prefers-color-scheme:dark){svg{color:#e3e5e8}}</style>"
)


def colour_of(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def loss_by_batch(study: Study) -> str:
    """An SVG element: a line a variant, bars from the lowest to the highest seed, crosses for what diverged."""
    return as_svg(TITLE, draw_loss_by_batch, study)


def standing_alone(svg: str) -> str:
    """The same as a file of its own, readable on light and on dark paper."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    whole = svg.replace("<svg ", head, 1)
    end = whole.index(">") + 1
    return f"{whole[:end]}{OWN_STYLE}{whole[end:]}"


def draw_loss_by_batch(figure: Figure, study: Study) -> None:
    figure.set_size_inches(8.0, 4.4)
    axes = figure.subplots()
    for index, line in enumerate(study.lines):
        draw_line(axes, line, index, shift=2 ** (SPREAD * (index - (len(study.lines) - 1) / 2)))
    if study.unigram_cross_entropy is not None:
        axes.axhline(study.unigram_cross_entropy, color=GREY, linestyle=":", linewidth=1, label="word frequency")
    if any(point.diverged for line in study.lines for point in line.points):
        axes.plot([], [], "x", color=GREY, label="diverged")
    batches = sorted({point.batch for line in study.lines for point in line.points})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(batches))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda batch, _: f"{batch:,.0f}"))
    seeds = f"mean of seeds {', '.join(map(str, study.seeds))}, bars from the lowest to the highest"
    axes.set_xlabel(f"global batch, sequences ({seeds})")
    axes.set_ylabel("held-out masked-LM loss, nats")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def draw_line(axes: Axes, line: Line, index: int, *, shift: float) -> None:
    """shift: factor of the batches. A hollow, dashed line was tuned at each batch."""
    known = [(point.batch * shift, point.mean, point.losses) for point in line.points if point.mean is not None]
    is_tuned = bool(line.variant.tune) and line.variant.tune_at is None
    below = [mean - min(losses) for _, mean, losses in known]
    above = [max(losses) - mean for _, mean, losses in known]
    axes.errorbar(
        [batch for batch, _, _ in known],
        [mean for _, mean, _ in known],
        yerr=[below, above],
        color=colour_of(index),
        marker=MARKERS[index % len(MARKERS)],
        markersize=5,
        capsize=3,
        label=line.label,
        linestyle="--" if is_tuned else "-",
        markerfacecolor="none" if is_tuned else colour_of(index),
    )
    lost = [point.batch * shift for point in line.points if point.diverged]
    across = axes.get_xaxis_transform()  # x of the data, y a share of the height
    axes.plot(lost, [TOP] * len(lost), "x", color=colour_of(index), markersize=8, transform=across)


def curves(study: Study) -> list[tuple[str, str]]:
    """(title, SVG element) for each batch: training loss against sequences seen, the runs over each other."""
    batches = sorted({point.batch for line in study.lines for point in line.points})
    titles = [(f"Batch {batch:,}", batch) for batch in batches]
    return [(title, as_svg(title, partial(draw_curves, batch=batch), study)) for title, batch in titles]


def draw_curves(figure: Figure, study: Study, batch: int) -> None:
    axes = figure.subplots()
    for index, line in enumerate(study.lines):
        names = [name for point in line.points if point.batch == batch for name in point.names]
        for number, name in enumerate(names):
            curve = study.results[name]["curve"]
            losses = [math.nan if loss is None else loss for loss in curve["loss"]]
            label = line.label if number == 0 else None
            axes.plot(curve["sequences"], losses, color=colour_of(index), linewidth=1.2, alpha=0.8, label=label)
    axes.set_xlabel("sequences seen")
    axes.set_ylabel("training masked-LM loss, nats")
    axes.legend(fontsize=8)
