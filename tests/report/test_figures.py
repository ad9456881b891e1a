"""How panels are drawn, as matplotlib measures it: what would cover one another, and what the page calls its parts."""

import itertools
import math
import re

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bert_lamb.report.curves import BLUE, Curve, Panel
from bert_lamb.report.figures import SIZE_OF_PANEL, STYLE, draw_panel, draw_plots
from bert_lamb.report.metrics import read_metrics
from tests.report.run_lines import make_run, start, step


def drawn(run, y, *, is_logarithmic):
    panel = Panel("A panel", "", [Curve("a", BLUE, list(range(1, len(y) + 1)), y)])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE_OF_PANEL, layout="constrained")
        FigureCanvasAgg(figure)
        axes = draw_panel(figure, panel, run, is_logarithmic)
        figure.canvas.draw()
    return axes


def run_of(tmp_path, *steps_of_phases):
    lines = []
    for i, num_steps in enumerate(steps_of_phases):
        lines += [start(f"phase{i}", total_steps=num_steps), step(f"phase{i}", num_steps)]
    return read_metrics(make_run(tmp_path / "run", lines) / "metrics.jsonl")


@pytest.mark.parametrize("is_logarithmic", [True, False])
@pytest.mark.parametrize("decades", [0.01, 0.5, 1, 1.9, 3, 4, 6, 12, 30])
def test_numbers_of_an_axis_do_not_cover_one_another(tmp_path, decades, is_logarithmic):
    y = [0.3 * 10 ** (decades * i / 20) for i in range(21)]
    axes = drawn(run_of(tmp_path, 21), y, is_logarithmic=is_logarithmic)
    for axis, (low, high) in ((axes.yaxis, axes.get_ylim()), (axes.xaxis, axes.get_xlim())):
        labels = [tick for tick in axis.get_ticklabels() if low <= tick.get_position()[axis is axes.yaxis] <= high]
        assert len(labels) >= 2
        boxes = [label.get_window_extent() for label in labels]
        assert not any(first.overlaps(second) for first, second in itertools.pairwise(boxes))
        values = [float(label.get_text().replace(",", "").replace("\N{MINUS SIGN}", "-")) for label in labels]
        assert values == pytest.approx([label.get_position()[axis is axes.yaxis] for label in labels])


@pytest.mark.parametrize(
    ("steps", "names"),
    [
        ((90, 10), ["phase0, length 128", "phase1"]),
        ((50, 50), ["phase0, length 128", "phase1, length 128"]),
        ((97, 3), ["phase0, length 128", ""]),
        ((10,) * 20, [""] * 20),
    ],
)
def test_names_of_phases_fit_their_bands(tmp_path, steps, names):
    axes = drawn(run_of(tmp_path, *steps), [1.0] * sum(steps), is_logarithmic=False)
    assert [text.get_text() for text in axes.texts] == names
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert not any(first.overlaps(second) for first, second in itertools.pairwise(boxes))
    assert all(box.x1 <= axes.figure.bbox.x1 for box in boxes)
    bands = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    edges = list(itertools.accumulate(steps, initial=0))
    assert bands == list(itertools.pairwise(edges))
    shades = [patch.get_alpha() for patch in axes.patches]
    assert all(first != second for first, second in itertools.pairwise(shades))


def test_what_the_pointer_finds_is_the_curve(tmp_path):
    panel = Panel("A panel", "", [Curve("a", BLUE, [1, 2, 3], [0.123456789, math.nan, math.inf])], has_switch=True)
    (plot,) = draw_plots([panel], run_of(tmp_path, 2, 1))
    assert plot.found["phases"] == [["phase0", 0], ["phase1", 2]]
    (curve,) = plot.found["curves"]
    assert (curve["x"], curve["y"]) == ([1, 2, 3], [0.12346, None, None])
    assert [drawing.is_logarithmic for drawing in plot.drawings] == [False, True]
    for drawing in plot.drawings:
        left, top, right, bottom = drawing.box
        assert 0 < left < right < 72 * SIZE_OF_PANEL[0]
        assert 0 < top < bottom < 72 * SIZE_OF_PANEL[1]
        assert "font-family" not in drawing.svg
        assert "#010203" not in drawing.svg


def test_figures_do_not_borrow_one_anothers_ids(tmp_path):
    """Two scales of one panel, and two panels of one shape, have clip paths and tick marks of their own."""
    curve = Curve("a", BLUE, [1, 2], [1.0, 2.0])
    panels = [Panel(title, "", [curve], has_switch=True) for title in ("one", "two")]
    plots = draw_plots(panels, run_of(tmp_path, 2))
    svgs = [drawing.svg for plot in plots for drawing in plot.drawings]
    ids = [set(re.findall(r"#(\w+)[\")]", svg)) for svg in svgs]
    assert all(ids)
    assert len(set.union(*ids)) == sum(map(len, ids))


@pytest.mark.parametrize("y", [[0.0, 0.0], [math.nan, math.nan], [-1.0, -2.0], [5e-324, 1.0], [1.0, 9e299], []])
@pytest.mark.parametrize("is_logarithmic", [True, False])
def test_numbers_of_any_size_are_drawn(tmp_path, y, is_logarithmic, recwarn):
    panel = Panel("A panel", "", [Curve("a", BLUE, list(range(1, len(y) + 1)), y)], is_logarithmic, has_switch=True)
    (plot,) = draw_plots([panel], run_of(tmp_path, 2))
    assert len(plot.drawings) == 2
    assert all(math.isfinite(limit) for drawing in plot.drawings for limit in (*drawing.y, *drawing.box))
