"""The data card's plots, as SVG: the same drawing is the same bytes, whatever matplotlib is configured to."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

LENGTH_BINS_IN_TABLE, LENGTH_BINS_IN_FIGURE = 8, 32
SPLIT_NAMES = {"train": "train", "heldout": "held out"}

# A grey and two colours of middle brightness: the plots are seen as images, on white and on black pages alike.
INK, BLUE, ORANGE = "#7b7b7b", "#3d85d8", "#e07b39"
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "bert_lamb",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.figsize": (8.0, 3.0),
    "figure.constrained_layout.use": True,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


@contextmanager
def figure_to(path: Path):  # type: ignore[no-untyped-def]
    """Axes to draw on; saved as SVG, the same drawing as the same bytes, whatever matplotlib is configured to."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", STYLE]):
        figure = Figure()
        yield figure.subplots()
        figure.savefig(path, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))


def draw_lengths(path: Path, counts: dict[str, np.ndarray]) -> None:
    """The share of each split's instances by length, in bins of equal width; logarithmic, since most are full.

    counts: split -> [L + 1] instances of each length.
    """
    with figure_to(path) as axes:
        for split, colour in (("train", BLUE), ("heldout", ORANGE)):
            if split not in counts:
                continue
            max_seq_length = len(counts[split]) - 1
            edges = np.unique(np.linspace(0, max_seq_length, LENGTH_BINS_IN_FIGURE + 1).round().astype(int))
            in_bins = np.add.reduceat(counts[split][1:], edges[:-1])  # edges[i] < length <= edges[i + 1]
            axes.stairs(
                100 * in_bins / in_bins.sum(),
                edges + 0.5,
                baseline=None if split == "heldout" else 1e-9,
                fill=split == "train",
                color=colour,
                linewidth=1.5,
                label=SPLIT_NAMES[split],
            )
            axes.set_xlim(0, max_seq_length + 1)
        axes.set_xticks([max_seq_length * number // LENGTH_BINS_IN_TABLE for number in range(LENGTH_BINS_IN_TABLE + 1)])
        axes.set_yscale("log")
        axes.set_ylim(0.01, 100)
        axes.yaxis.set_major_formatter(plain_number)
        axes.set_xlabel("tokens of the instance, special tokens included")
        axes.set_ylabel("% of the instances (log)")
        axes.legend(loc="upper left")


def draw_frequencies(path: Path, counts: np.ndarray) -> None:
    """Occurrences of each entry over its rank, both logarithmic.

    counts: [V] occurrences.
    """
    occurring = np.sort(counts[counts > 0])[::-1]
    with figure_to(path) as axes:
        axes.plot(np.arange(1, len(occurring) + 1), occurring, color=BLUE, linewidth=1.5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(plain_number)
        axes.yaxis.set_major_formatter(plain_number)
        axes.set_xlabel("rank of the entry (log)")
        axes.set_ylabel("occurrences (log)")


def plain_number(value: float, position: int | None = None) -> str:
    """0.01, 1, 1,000: the ticks of a logarithmic axis without powers."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
