"""Trust ratios and norms by parameter and step: what is drawn is read back and compared with what was recorded.

Truths: a list of rows written by hand; the order of Hugging Face's own model; the numbers that made the records; the
PNG inside the SVG, decoded by Pillow.
Mutations that must turn it red: layers sorted as text, one "bert." stripped where there are two, biases before weights,
columns closed up over a missing record or filled with the value before it, a phase's columns from step 0 or stretched
to its end, NaN drawn as a colour, colours linear or each phase's own, one norm drawn as the other, the rows' names from
bottom to top or all named in BERT-Large, the image smoothed in the SVG, no hatch, the mean for the median, a resumed
run's lost records kept.
"""

import base64
import io
import itertools
import json
import math
import random
import re

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image
from transformers import BertConfig

from bert_lamb.model.bert import BertPretrainingModel
from bert_lamb.report import report
from bert_lamb.report.figures import STYLE
from bert_lamb.report.heat_maps import draw_heat_map, draw_heat_maps
from bert_lamb.report.layers import row_of
from bert_lamb.report.metrics import read_metrics
from tests.report.run_lines import make_run, numbers_of, start, step, trust_ratios

FIELDS = ("trust_ratio", "param_norm", "update_norm")
TOY = {  # rows from top to bottom: label -> parameter
    "word embeddings": "bert.bert.embeddings.word_embeddings.weight",
    "position embeddings": "bert.bert.embeddings.position_embeddings.weight",
    "token type embeddings": "bert.bert.embeddings.token_type_embeddings.weight",
    "layer 0 query": "bert.bert.encoder.layer.0.attention.self.query.weight",
    "layer 0 query bias": "bert.bert.encoder.layer.0.attention.self.query.bias",
    "layer 0 key": "bert.bert.encoder.layer.0.attention.self.key.weight",
    "layer 0 value": "bert.bert.encoder.layer.0.attention.self.value.weight",
    "layer 0 attention output": "bert.bert.encoder.layer.0.attention.output.dense.weight",
    "layer 0 attention LayerNorm": "bert.bert.encoder.layer.0.attention.output.LayerNorm.weight",
    "layer 0 intermediate": "bert.bert.encoder.layer.0.intermediate.dense.weight",
    "layer 0 output": "bert.bert.encoder.layer.0.output.dense.weight",
    "layer 2 query": "bert.bert.encoder.layer.2.attention.self.query.weight",
    "layer 10 query": "bert.bert.encoder.layer.10.attention.self.query.weight",
    "pooler": "bert.bert.pooler.dense.weight",
    "MLM transform": "bert.cls.predictions.transform.dense.weight",
    "MLM bias": "bert.cls.predictions.bias",
    "next sentence": "bert.cls.seq_relationship.weight",
    "adapter": "adapter.weight",  # of no BERT
}
DUE = {2: ("phase1", 2), 4: ("phase1", 4), 6: ("phase1", 6), 9: ("phase2", 2), 11: ("phase2", 4)}  # step of the run
MISSING = 4


def value(field: str, name: str, run_step: int) -> float:
    """Another positive number for each, over several decades."""
    return 10.0 ** (FIELDS.index(field) - 1) * (1 + list(TOY.values()).index(name)) * 1.5**run_step


def odd(field: str, name: str, run_step: int) -> float | None:
    """What the records hold in place of that number in four cells; None: the name is not there."""
    cell = (field, name, run_step)
    cells = {
        ("trust_ratio", TOY["layer 0 key"], 9): math.nan,
        ("trust_ratio", TOY["layer 0 value"], 2): 0.0,
        ("param_norm", TOY["word embeddings"], 11): math.inf,
        ("update_norm", TOY["layer 0 key"], 6): None,
    }
    return cells.get(cell, value(*cell))


def toy_lines() -> list[dict]:
    """Two phases of 7 and 5 steps; records every 2 steps but for the skipped step 4; names in disorder."""
    rng = random.Random(0)
    lines = []
    for phase, num_steps in (("phase1", 7), ("phase2", 5)):
        lines.append(start(phase, total_steps=num_steps))
        for number in range(1, num_steps + 1):
            run_step = number + (7 if phase == "phase2" else 0)
            lines.append(step(phase, number, is_applied=run_step != MISSING))
            if run_step in DUE and run_step != MISSING:
                fields = {}
                for field in FIELDS:
                    names = rng.sample(list(TOY.values()), len(TOY))
                    numbers = {name: odd(field, name, run_step) for name in names}
                    fields[field] = {name: number for name, number in numbers.items() if number is not None}
                lines.append(trust_ratios(phase, number, **fields))
    return lines


def record(number: int, ratio: float) -> dict:
    """A record of a single parameter, `a`."""
    numbers = {"a.weight": ratio}
    return trust_ratios("only", number, trust_ratio=numbers, param_norm=numbers, update_norm=numbers)


def bert_names(num_layers: int) -> list[str]:
    """Names of the matrices as Hugging Face's model lists them."""
    config = BertConfig(num_hidden_layers=num_layers, hidden_size=8, num_attention_heads=1, intermediate_size=8)
    with torch.device("meta"):
        model = BertPretrainingModel(config, seed=0)
    return [name for name, parameter in model.named_parameters() if parameter.ndim == 2]


def bert_lines(num_layers: int, *, num_records: int = 60, names: list[str] | None = None) -> list[dict]:
    """Two phases of BERT's matrices, one record a step."""
    rng = random.Random(1)
    names = names or bert_names(num_layers)
    lines = []
    for phase, length, num_steps in (("phase1", 128, num_records * 5 // 6), ("phase2", 512, num_records // 6)):
        lines.append(start(phase, max_seq_length=length, total_steps=num_steps))
        for number in range(1, num_steps + 1):
            numbers = {name: rng.lognormvariate(0, 1) for name in names}
            lines += [step(phase, number), trust_ratios(phase, number, **dict.fromkeys(FIELDS, numbers))]
    return lines


def draw(run_dir, field: str = "trust_ratio") -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        draw_heat_map(figure, read_metrics(run_dir / "metrics.jsonl"), field)
        figure.canvas.draw()
    return figure


def cells_of(figure: Figure) -> dict[tuple[str, int], float]:
    """(label beside the row, step at the column's right edge) -> what is drawn there; NaN for a gap."""
    axes = figure.axes[0]
    labels = {tick.get_position()[1]: tick.get_text() for tick in axes.get_yticklabels()}
    cells = {}
    for image in axes.images:
        table = np.ma.filled(image.get_array().astype(float), math.nan)
        left, right, bottom, top = image.get_extent()
        assert (bottom, top) == axes.get_ylim() == (len(table), 0)
        for i, j in np.ndindex(table.shape):
            run_step = left + (j + 1) * (right - left) / table.shape[1]
            assert (labels[i + 0.5], run_step) not in cells  # images do not cover one another
            cells[labels[i + 0.5], run_step] = table[i, j]
    return cells


@pytest.fixture(scope="module")
def toy_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("toy") / "run", toy_lines())


@pytest.mark.parametrize("field", FIELDS)
def test_every_cell_is_what_was_recorded_for_its_labels(toy_dir, field):
    expected = {}
    for label, name in TOY.items():
        for run_step in DUE:
            recorded = None if run_step == MISSING else odd(field, name, run_step)
            has_colour = recorded is not None and 0 < recorded < math.inf
            expected[label, run_step] = recorded if has_colour else math.nan
    found = cells_of(draw(toy_dir, field))
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal([found[cell] for cell in expected], list(expected.values()))


def test_rows_stand_in_reading_order(toy_dir):
    labels = [tick.get_text() for tick in draw(toy_dir).axes[0].get_yticklabels()]
    assert labels == list(TOY)


def test_the_order_is_that_of_the_model():
    """Twelve layers, so that 10 must come after 2; every matrix of the model has a name of its own."""
    names = bert_names(12)
    assert len(names) == 12 * 6 + 3 + 3
    rows = sorted(map(row_of, random.Random(2).sample(names, len(names))))
    assert [row.name for row in rows] == names
    assert len({row.label for row in rows}) == len(names)
    assert not any("." in row.label or row.group == "other" for row in rows)
    groups = list(dict.fromkeys(row.group for row in rows))
    assert groups == ["embeddings", *(f"layer {i}" for i in range(12)), "pooler and heads"]


def test_names_without_the_wrapper_have_the_same_rows():
    for name in TOY.values():
        found, expected = row_of(name.removeprefix("bert.")), row_of(name)
        assert (found.order, found.label) == (expected.order, expected.label)


def test_phases_are_bounded_where_they_begin(toy_dir):
    """Phase 1 has 7 steps and columns up to 6; phase 2 begins at 7, and its columns there."""
    axes = draw(toy_dir).axes[0]
    assert [image.get_extent()[:2] for image in axes.images] == [[0, 6], [7, 11]]
    assert axes.get_xlim() == (0, 12)
    upright = [list(line.get_xdata()) for line in axes.lines if line.get_xdata()[0] == line.get_xdata()[1]]
    assert upright == [[7, 7]]
    assert [text.get_text() for text in axes.texts] == ["phase1, length 128", "phase2, length 128"]
    assert [text.xy[0] for text in axes.texts] == [0, 7]


def test_colours_are_logarithmic_and_the_same_for_both_phases(toy_dir):
    figure = draw(toy_dir, "param_norm")
    axes, legend = figure.axes
    first, second = axes.images
    assert first.norm is second.norm
    assert isinstance(first.norm, LogNorm)
    drawn = [one for one in cells_of(figure).values() if not math.isnan(one)]
    assert (first.norm.vmin, first.norm.vmax) == (min(drawn), max(drawn))
    assert first.norm(math.sqrt(min(drawn) * max(drawn))) == pytest.approx(0.5)
    assert {image.get_cmap().name for image in axes.images} == {"viridis"}
    assert legend.get_ylim() == pytest.approx((min(drawn), max(drawn)))
    assert legend.get_ylabel() == "norm of the weights"
    assert legend.get_yscale() == "log"
    ticks = [float(tick.get_text()) for tick in legend.get_yticklabels()]
    assert len([tick for tick in ticks if min(drawn) <= tick <= max(drawn)]) >= 3


def test_colours_grow_lighter_with_the_value(toy_dir):
    """Readable when printed in grey: lightness rises monotonically over the colours."""
    image = draw(toy_dir).axes[0].images[0]
    red, green, blue = image.cmap(np.linspace(0, 1, 64))[:, :3].T
    assert (np.diff(0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2) > 0).all()


def test_the_page_holds_one_pixel_a_cell(toy_dir):
    """What a browser shows: the PNG's own pixels, see-through in the gaps, magnified without smoothing."""
    svg = dict(draw_heat_maps(read_metrics(toy_dir / "metrics.jsonl")))["Trust ratio by parameter"]
    tags = re.findall(r"<image [^>]*>", svg)[:2]  # then the legend's
    assert all("image-rendering:pixelated" in tag for tag in tags)
    encoded = [re.search(r'base64,\s*([^"]+)"', tag)[1] for tag in tags]
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGBA")) for one in encoded]
    assert [one.shape for one in pixels] == [(18, 3, 4), (18, 2, 4)]
    is_gap = np.concatenate(pixels, axis=1)[..., 3] == 0
    expected = {(i, 1) for i in range(18)}  # step 4
    expected |= {(list(TOY).index("layer 0 key"), 3), (list(TOY).index("layer 0 value"), 0)}
    assert set(map(tuple, np.argwhere(is_gap).tolist())) == expected
    yellow, purple = (253, 231, 37, 255), (68, 1, 84, 255)  # viridis' ends: the largest and the smallest value
    np.testing.assert_allclose(pixels[1][17, 1].astype(int), yellow, atol=1)  # rounded or cut off
    np.testing.assert_allclose(pixels[0][0, 0].astype(int), purple, atol=1)
    assert "url(#" in svg
    assert "<pattern" in svg  # the hatch behind the gaps


@pytest.mark.parametrize("num_layers", [2, 12, 24])
def test_it_stays_readable(tmp_path, num_layers):
    """Names do not cover one another, nor leave the figure; it fits a printed page of 10 inches."""
    figure = draw(make_run(tmp_path / "run", bert_lines(num_layers)))
    axes = figure.axes[0]
    renderer = figure.canvas.get_renderer()
    boxes = [tick.get_window_extent(renderer) for tick in axes.get_yticklabels()]
    assert not any(first.overlaps(second) for first, second in itertools.pairwise(boxes))
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    num_rows = num_layers * 6 + 3 + 3
    assert axes.images[0].get_array().shape == (num_rows, 50)
    if num_layers == 2:
        assert len(labels) == num_rows
    else:
        assert labels == ["embeddings", *(f"layer {i}" for i in range(num_layers)), "pooler and heads"]
        middles = [1.5, *(3 + 6 * i + 3 for i in range(num_layers)), num_rows - 1.5]
        assert list(axes.get_yticks()) == middles
        assert " ".join(axes.get_ylabel().split()) == (
            "from the top: word embeddings, position embeddings, token type embeddings; in each layer query, key, "
            "value, attention output, intermediate, output; pooler, MLM transform, next sentence"
        )
        boxes.append(axes.yaxis.label.get_window_extent(renderer))
    for box in boxes:
        assert figure.bbox.x0 <= box.x0
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    assert figure.get_size_inches()[1] <= 10
    dividers = [line.get_ydata()[0] for line in axes.lines if line.get_ydata()[0] == line.get_ydata()[1]]
    assert dividers == [3 + 6 * i for i in range(num_layers + 1)]


def test_the_numbers_by_hand(toy_dir):
    first, second = numbers_of(toy_dir)["trust_ratios"]
    found = [
        (one["phase"], one["interval_steps"], one["num_records"], one["num_missing_records"]) for one in (first, second)
    ]
    assert found == [("phase1", 2, 2, 1), ("phase2", 2, 2, 0)]
    for phase in (first, second):
        assert [one["name"] for one in phase["parameters"]] == list(TOY.values())
    pooler = first["parameters"][list(TOY).index("pooler")]
    both = [value("param_norm", TOY["pooler"], run_step) for run_step in (2, 6)]
    assert pooler["param_norm"] == pytest.approx(sum(both) / 2)
    key = {phase["phase"]: phase["parameters"][list(TOY).index("layer 0 key")] for phase in (first, second)}
    assert key["phase2"]["trust_ratio"] == value("trust_ratio", TOY["layer 0 key"], 11)  # beside a NaN
    assert key["phase1"]["update_norm"] == value("update_norm", TOY["layer 0 key"], 2)  # the other is not there


def test_a_median_is_no_mean_and_may_be_unknown(tmp_path):
    ratios = [{"a.weight": ratio, "b.weight": math.nan} for ratio in (1.0, 2.0, 9.0)]
    lines = [trust_ratios("only", n, **dict.fromkeys(FIELDS, one)) for n, one in enumerate(ratios, 1)]
    content = report(run_dir=make_run(tmp_path / "run", [start("only"), *lines]), score_dirs={})
    assert content["trust_ratios"][0]["parameters"] == [
        {"name": "a.weight", **dict.fromkeys(FIELDS, 2.0)},
        {"name": "b.weight", **dict.fromkeys(FIELDS, None)},
    ]


def test_what_the_heat_maps_leave_out_is_said(toy_dir):
    notes = [note for note in numbers_of(toy_dir)["notes"] if "heat maps" in note]
    size = len(TOY) * 3 * 2
    assert notes == [
        f"phase1: 1 of {size - 1} recorded trust ratios and norms are 0 or not finite; the heat maps leave them out.",
        f"phase2: 2 of {size} recorded trust ratios and norms are 0 or not finite; the heat maps leave them out.",
    ]


def test_skipped_steps_are_counted_by_phase(toy_dir):
    content = report(run_dir=toy_dir, score_dirs={})
    assert [phase["num_skipped_steps"] for phase in json.loads((toy_dir / "report.json").read_text())["phases"]] == [
        1,
        0,
    ]
    page = (toy_dir / "report.html").read_text()
    assert re.search(r"<th>phase</th><th>steps</th><th>skipped</th>", page)
    rows = re.findall(r"<tr><td>(phase\d)</td>\s*<td>(\d+)</td>\s*<td>(\d+)</td>", page)
    assert rows == [("phase1", "7", "1"), ("phase2", "5", "0")]
    assert "phase1 has 2, 1 missing;\nphase2 has 2, 0 missing." in page
    assert content["num_skipped_steps"] == 1
    assert "logging.trust_ratio_interval_steps" not in page


def test_records_after_a_resume_are_the_later_ones(tmp_path):
    resume = {"kind": "resume", "phase": "only", "step": 2, "world_size": 1}
    lines = [start("only"), record(1, 1.0), record(2, 2.0), record(3, 30.0), resume, record(3, 3.0)]
    cells = cells_of(draw(make_run(tmp_path / "run", lines)))
    assert cells == {("a", n): float(n) for n in (1, 2, 3)}


def test_a_run_with_one_value_has_a_colour(tmp_path):
    lines = [start("only"), record(2, 0.25)]
    run_dir = make_run(tmp_path / "run", lines)
    assert len(draw_heat_maps(read_metrics(run_dir / "metrics.jsonl"))) == 3
    assert cells_of(draw(run_dir)) == {("a", 2): 0.25}


def test_what_has_no_logarithm_is_not_drawn_at_all(tmp_path):
    fields = {"trust_ratio": {"a.weight": 1.0}, "param_norm": {"a.weight": 0.0}, "update_norm": {}}
    run_dir = make_run(tmp_path / "run", [start("only"), trust_ratios("only", 1, **fields)])
    titles = [title for title, _ in draw_heat_maps(read_metrics(run_dir / "metrics.jsonl"))]
    assert titles == ["Trust ratio by parameter"]


def test_without_records_the_page_says_which_setting_makes_them(tmp_path):
    run_dir = make_run(tmp_path / "run", [start("only"), step("only", 1), step("only", 2)])
    assert report(run_dir=run_dir, score_dirs={})["trust_ratios"] == []
    assert "logging.trust_ratio_interval_steps" in (run_dir / "report.html").read_text()
    assert draw_heat_maps(read_metrics(run_dir / "metrics.jsonl")) == []
