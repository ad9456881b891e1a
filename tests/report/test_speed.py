"""The table of speed against values worked out by hand, and its place in the page."""

import json

import pytest

from bert_lamb.report import report
from tests.report.run_lines import make_run, numbers_of, start, step


def measured(phase, number, seconds, *, tokens, **shares):
    rates = {"tokens_per_second": tokens, "positions_per_second": 2 * tokens, "fill": 0.5, "sequences_per_second": 9.0}
    machine = {"model_tflops": tokens / 1000, "mfu": tokens / 10_000, "peak_rss_bytes": 10**9 * number}
    return step(phase, number, seconds=seconds, **rates, **machine, **{f"{k}_share": v for k, v in shares.items()})


LINES = [
    start("phase1", peak_tflops=10.0, is_peak_measured=True),
    measured("phase1", 1, 1.0, tokens=1000.0, data=0.25, forward_backward=0.75),
    # 3 seconds of training beside 3 of evaluation
    measured("phase1", 2, 3.0, tokens=2000.0, data=0.1, forward_backward=0.4, evaluation=0.5),
    start("phase2"),
    step("phase2", 1),  # as runs before the meter wrote it
]


def test_the_figures_by_hand(tmp_path):
    """Rates over 1 + 3 seconds, shares over 1 + 6."""
    (row,) = numbers_of(make_run(tmp_path / "run", LINES))["speed"]
    shares = row.pop("shares")
    assert row == {
        "phase": "phase1",
        "sequences_per_second": 9,
        "tokens_per_second": 1750,
        "positions_per_second": 3500,
        "fill": 0.5,
        "model_tflops": pytest.approx(1.75),
        "mfu": pytest.approx(0.175),
        "peak_tflops": 10.0,
        "peak_gigabytes": 2.0,
    }
    assert {part: share for part, share in shares.items() if share} == {
        "data": pytest.approx((0.25 + 0.6) / 7),
        "forward_backward": pytest.approx((0.75 + 2.4) / 7),
        "evaluation": pytest.approx(3 / 7),
    }
    assert sum(shares.values()) == pytest.approx(1)


def test_the_page_has_table_and_curves(tmp_path):
    run_dir = make_run(tmp_path / "run", LINES)
    report(run_dir=run_dir, score_dirs={})
    page = (run_dir / "report.html").read_text()
    for text in (
        '<h2 id="speed">Speed</h2>',
        "<td>1,750</td>",
        "<td>17.5%</td>",
        "<td>42.9%</td>",
        "forward, backward",
    ):
        assert text in page
    assert page.count("<figcaption>Tokens a second") == page.count("<figcaption>Model FLOPs utilization") == 1
    assert json.loads((run_dir / "report.json").read_text())["speed"][0]["mfu"] == pytest.approx(0.175)


def test_a_run_without_a_meter_has_no_table(tmp_path):
    run_dir = make_run(tmp_path / "run", [*LINES[3:], step("phase2", 2)])
    report(run_dir=run_dir, score_dirs={})
    page = (run_dir / "report.html").read_text()
    assert 'id="speed"' not in page
    assert "Tokens a second" not in page
