"""Where a run stands, from its lines alone, and the cards on top of the page; values worked out by hand.

The last test goes through the command, as a user calls it on a run that was killed in the middle of a line.
"""

import json
import re

import pytest

from bert_lamb.cli import main as cli
from bert_lamb.report import report
from bert_lamb.report.headline import status_of
from bert_lamb.report.metrics import read_metrics
from tests.report.run_lines import heldout, make_run, make_scores, start, step

TARGET = {"kind": "target_reached", "phase": "one", "step": 2}


def status(tmp_path, lines, planned=None):
    run = read_metrics(make_run(tmp_path / "run", lines) / "metrics.jsonl")
    return status_of(run, planned or {})


@pytest.mark.parametrize(
    ("lines", "planned", "expected"),
    [
        ([start("one"), step("one", 3)], {"one": 4}, (False, 3, 4)),
        ([start("one"), step("one", 4)], {"one": 4}, (True, 4, 4)),
        ([start("one"), step("one", 4)], {"one": 4, "two": 6}, (False, 4, 10)),
        ([start("one"), step("one", 4)], {"one": 4, "two": None}, (False, 4, None)),
        ([start("one"), step("one", 4), start("two", total_steps=6), step("two", 6)], {}, (True, 10, 10)),
        ([start("one"), step("one", 2), TARGET], {"one": 4, "two": 6}, (True, 2, 10)),
        ([start("one")], {"one": 4}, (False, 0, 4)),
    ],
)
def test_where_a_run_stands(tmp_path, lines, planned, expected):
    found = status(tmp_path, lines, planned)
    assert (found["is_finished"], found["step"], found["total_steps"]) == expected


def test_seconds_count_steps_between_lines_and_pauses(tmp_path):
    """2 steps of 3 s, then 3 of 2 s that were half of their time; a second phase of one step of 1 s."""
    lines = [
        start("one", total_steps=5),
        step("one", 2, seconds=3.0),
        step("one", 5, seconds=2.0, evaluation_share=0.25, checkpoint_share=0.25),
        start("two"),
        step("two", 1, seconds=1.0),
    ]
    assert status(tmp_path, lines)["seconds"] == pytest.approx(2 * 3 + 3 * 2 * 2 + 1)


def test_a_resumed_run_counts_the_time_of_what_it_kept(tmp_path):
    resume = {"kind": "resume", "phase": "one", "step": 2, "world_size": 1}
    lines = [start("one"), step("one", 1), step("one", 2), step("one", 3, seconds=99.0), resume, step("one", 3)]
    assert status(tmp_path, lines)["seconds"] == pytest.approx(6)


def cards(run_dir) -> dict[str, tuple[str, str]]:
    found = re.findall(
        r'<div class="card(?: warn)?"><dt>(.*?)</dt><dd class="value">(.*?)</dd>\s*<dd class="about">(.*?)</dd></div>',
        (run_dir / "report.html").read_text(),
    )
    return {name: (value, about) for name, value, about in found}


def test_cards_hold_what_matters_most(tmp_path):
    lines = [
        start("one", peak_tflops=10.0),
        *(step("one", n, tokens_per_second=1.0, mfu=0.25, is_applied=n != 2) for n in (1, 2, 3, 4)),
        heldout("one", 4, mlm_loss=2.5),
    ]
    run_dir = make_run(tmp_path / "run", lines)
    weights = {"ours": "pretrained", "guess": "random"}
    scores = {
        label: make_scores(tmp_path / label, f1=61.25, exact_match=50.5, weights=one) for label, one in weights.items()
    }
    report(run_dir=run_dir, score_dirs=scores)
    assert cards(run_dir) == {
        "run": ("finished", "step 4 of 4, all steps done"),
        "held-out loss": ("2.500", "nats, after one; word frequency 5.000"),
        "F1": ("61.25", "exact match 50.50; ours, questions"),
        "sequences/s": ("32.0", "in steps"),
        "MFU": ("25.0%", "of 10 TFLOP/s, in one"),
        "skipped steps": ("1", "of 4 logged"),
        "time": ("8 s", "in steps, without evaluation"),
    }


def test_a_killed_run_is_reported_from_its_lines(tmp_path, capsys):
    run_dir = make_run(
        tmp_path / "run",
        [start("one", total_steps=400), *(step("one", n) for n in range(1, 81))],
        tail=json.dumps(step("one", 81))[:-30],
    )
    (run_dir / "config.yaml").write_text("phases: {one: {total_steps: 400}, two: {total_steps: 30}}\n")
    pages = []
    for _ in range(2):
        assert cli.main(["report", f"run_dir={run_dir}"]) == 0
        pages.append((run_dir / "report.html").read_bytes())
    said = "Running or stopped at step 80 of 430, in one; the last logged step ended 2 min 40 s after the first began."
    assert said in capsys.readouterr().out
    assert pages[0] == pages[1]
    assert said in pages[0].decode()
    assert cards(run_dir)["run"] == ("unfinished", "step 80 of 430; last line 2 min 40 s after the start")
    assert json.loads((run_dir / "report.json").read_text())["status"]["is_finished"] is False
