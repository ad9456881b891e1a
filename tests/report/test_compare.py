"""Several runs in one report, and the curves that are drawn; against the lines that the runs were made of."""

import json
import math
import random
import re
from html import unescape

import pytest

from bert_lamb.cli import main as cli
from bert_lamb.errors import UserError
from bert_lamb.report import report
from bert_lamb.report.curves import MAX_POINTS, panels_of, thin
from bert_lamb.report.metrics import read_metrics
from tests.report.run_lines import heldout, make_run, make_scores, start, step


def a_run(folder, *, seed: int, loss: float, num_steps: int = 4):
    lines = [start("one"), *(step("one", n, mlm_loss=loss + n) for n in range(1, num_steps + 1))]
    run_dir = make_run(folder, [*lines, heldout("one", num_steps, mlm_loss=loss)])
    (run_dir / "config.yaml").write_text(f"run_dir: {folder}\nseed: {seed}\n")
    return run_dir


@pytest.fixture
def runs(tmp_path):
    return [a_run(tmp_path / name, seed=i, loss=10.0 * i) for i, name in enumerate(("a", "b", "c"))]


def found_in(run_dir) -> list[dict]:
    """What the pointer finds, figure by figure."""
    page = (run_dir / "report.html").read_text()
    return [json.loads(unescape(one)) for one in re.findall(r'data-found="([^"]*)"', page)]


def test_every_figure_has_a_curve_of_each_run(runs):
    words = ["report", f"run_dir={runs[0]}", f"compare=[{runs[1]},{runs[2]}]"]
    assert cli.main(words) == 0
    loss, *others = found_in(runs[0])
    lines = {curve["label"]: curve for curve in loss["curves"] if curve["form"] == "line"}
    assert {label: curve["y"] for label, curve in lines.items()} == {
        f"seed={i}": [10.0 * i + n for n in (1, 2, 3, 4)] for i in range(3)
    }
    assert len({curve["colour"] for curve in lines.values()}) == 3
    dots = {curve["label"]: (curve["x"], curve["y"]) for curve in loss["curves"] if curve["form"] == "points"}
    assert dots == {f"seed={i}: masked LM, held out": ([4], [10.0 * i]) for i in range(3)}
    assert all([c["label"] for c in one["curves"] if c["form"] == "line"] == list(lines) for one in others)
    content = json.loads((runs[0] / "report.json").read_text())["compared"]
    assert content["differences"] == {"seed": ["0", "1", "2"]}
    assert [(run["label"], run["folder"], run["mlm_loss"]) for run in content["runs"]] == [
        (f"seed={i}", name, 10.0 * i) for i, name in enumerate("abc")
    ]
    page = (runs[0] / "report.html").read_text()
    assert "<tr><td>held-out loss</td><td>0.000</td><td>10.000</td><td>20.000</td></tr>" in page


def test_the_same_runs_give_the_same_bytes(runs):
    pages = []
    for _ in range(2):
        report(run_dir=runs[0], score_dirs={}, compare=runs[1:])
        pages.append((runs[0] / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match=r"no folder .*nowhere.*fix: set compare"):
        report(run_dir=runs[0], score_dirs={}, compare=[tmp_path / "nowhere"])
    for compare in ([runs[1], runs[1]], [runs[0]], [tmp_path / "b" / ".." / "a"]):
        with pytest.raises(UserError, match="twice among the runs"):
            report(run_dir=runs[0], score_dirs={}, compare=compare)
    (runs[1] / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"no .*b/metrics\.jsonl.*fix: set compare"):
        report(run_dir=runs[0], score_dirs={}, compare=[runs[1]])


def test_scores_stand_beside_one_another(runs):
    for folder, f1 in zip(runs[:2], (60.0, 41.5), strict=True):
        made = make_scores(folder / "made", f1=f1, exact_match=30.0, weights="pretrained")
        (made / "scores.json").rename(folder / "scores.json")
    compared = report(run_dir=runs[0], score_dirs={}, compare=runs[1:])["compared"]
    assert [run["f1"] for run in compared["runs"]] == [60.0, 41.5, None]
    page = (runs[0] / "report.html").read_text()
    assert "<tr><td>F1</td><td>60.00</td><td>41.50</td><td>\u2013</td></tr>" in page
    assert "accuracy on test images" not in page
    (runs[1] / "scores.json").write_text("{")
    with pytest.raises(UserError, match=r"b/scores\.json .*fix: set compare"):
        report(run_dir=runs[0], score_dirs={}, compare=runs[1:])


def test_folders_of_one_name_are_told_apart(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    first, second = (a_run(tmp_path / name / "run", seed=1, loss=1.0) for name in ("x", "y"))
    compared = report(run_dir=first, score_dirs={}, compare=[second])["compared"]
    assert [run["label"] for run in compared["runs"]] == [str(first), str(second)]


def test_a_long_curve_keeps_its_spikes_its_ends_and_its_gaps():
    rng = random.Random(0)
    x = list(range(1, 20_001))
    y = [rng.random() for _ in x]
    y[12_345], y[777] = 50.0, -50.0
    for i in range(3000, 3500):
        y[i] = math.nan
    kept_x, kept_y = thin(x, y)
    assert len(kept_x) <= MAX_POINTS
    assert kept_x == sorted(set(kept_x))
    assert (kept_x[0], kept_x[-1]) == (1, 20_000)
    kept = dict(zip(kept_x, kept_y, strict=True))
    assert (kept[12_346], kept[778]) == (50.0, -50.0)
    assert all(value == y[step - 1] or math.isnan(value) for step, value in kept.items())
    assert any(math.isnan(value) for step, value in kept.items() if 3000 < step <= 3500)
    assert thin(x[:MAX_POINTS], y[:MAX_POINTS]) == (x[:MAX_POINTS], y[:MAX_POINTS])


def test_the_band_of_trust_ratios_spans_all_steps(tmp_path):
    num_steps = 3 * MAX_POINTS
    lines = [start("one", total_steps=num_steps)]
    lines += [step("one", n, trust_ratio_min=1 / n, trust_ratio_max=float(n)) for n in range(1, num_steps + 1)]
    one_sided = step("one", num_steps + 1)
    del one_sided["trust_ratio_max"]
    lines.append(one_sided)
    run = read_metrics(make_run(tmp_path / "run", lines) / "metrics.jsonl")
    (band,) = [panel.band for panel in panels_of(run, {}, "") if panel.band]
    assert band.x == list(range(1, num_steps + 1, 3))
    assert (band.lower[0], band.upper[0]) == (1 / 3, 3.0)
    assert (band.lower[-1], band.upper[-1]) == (1 / num_steps, num_steps)
