"""The report of a synthetic run, its numbers against values worked out by hand, its page against a parser.

Mutations that must turn it red: a resumed stretch counted twice, phases not laid end to end, tokens without the
length, a baseline on other questions compared, a malformed line passed over, an unescaped label in the page.
"""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import bert_lamb.report
from bert_lamb.errors import UserError
from bert_lamb.report import report
from bert_lamb.report.curves import panels_of, points
from bert_lamb.report.metrics import read_metrics
from tests.report.run_lines import heldout, make_run, make_scores, numbers_of, start, step, trust_ratios

VOID_ELEMENTS = {"meta", "br", "link", "img", "input", "hr"}

LINES = [
    start("phase1"),
    step("phase1", 1),
    step("phase1", 2, is_applied=False, grad_norm=math.inf),
    step("phase1", 3, seconds=4.0),
    trust_ratios("phase1", 3),
    heldout("phase1", 3, mlm_loss=3.0),
    step("phase1", 4, seconds=4.0),
    heldout("phase1", 4),
    {"kind": "phase_end", "phase": "phase1", "step": 4, "seconds": 13.0},
    start("phase2", max_seq_length=512, global_batch_size=32, total_steps=3),
    step("phase2", 1),
    trust_ratios("phase2", 1),
    step("phase2", 2, loss=math.nan, seconds=99.0),  # lost: the run was killed and goes on after step 1
    {"kind": "resume", "phase": "phase2", "step": 1, "world_size": 2},
    step("phase2", 2),
    step("phase2", 3),
    heldout("phase2", 3, mlm_loss=math.log(4), unigram_cross_entropy=math.log(100)),
]


@pytest.fixture
def run_dir(tmp_path) -> Path:
    return make_run(tmp_path / "run", LINES)


def test_the_numbers_by_hand(run_dir):
    content = report(run_dir=run_dir, score_dirs={})
    assert json.loads((run_dir / "report.json").read_text()) == content
    assert content["phases"] == [
        {
            "name": "phase1",
            "num_steps": 4,
            "total_steps": 4,
            "max_seq_length": 128,
            "global_batch_size": 64,
            "num_sequences": 256,
            "num_token_positions": 32_768,
            "num_skipped_steps": 1,
            "train_seconds": 12.0,
            "sequences_per_second": pytest.approx(256 / 12),
            "first_loss": 9.0,
            "final_loss": 6.0,
        },
        {
            "name": "phase2",
            "num_steps": 3,
            "total_steps": 3,
            "max_seq_length": 512,
            "global_batch_size": 32,
            "num_sequences": 96,
            "num_token_positions": 49_152,
            "num_skipped_steps": 0,
            "train_seconds": 6.0,
            "sequences_per_second": pytest.approx(16.0),
            "first_loss": 9.0,
            "final_loss": 7.0,
        },
    ]
    first, second = content["heldout"]
    assert (first["phase"], first["step"], first["mlm_loss"], first["gain_over_unigram"]) == ("phase1", 4, 2.0, 3.0)
    assert second["mlm_perplexity"] == pytest.approx(4)
    assert second["unigram_perplexity"] == pytest.approx(100)
    totals = ("num_steps", "num_sequences", "num_token_positions", "num_skipped_steps", "num_resumes", "train_seconds")
    assert [content[name] for name in totals] == [7, 352, 81_920, 1, 1, 18.0]
    assert content["versions"] == {"torch": "2.13.0", "command": "bert-lamb pretrain"}


def test_what_the_plots_leave_out_is_said(run_dir):
    content = numbers_of(run_dir)
    assert any("1 of 4 logged steps" in note and "not finite" in note for note in content["notes"])
    assert any("resumed 1 times" in note for note in content["notes"])


def test_phases_lie_end_to_end_on_the_step_axis(run_dir):
    run = read_metrics(run_dir / "metrics.jsonl")
    x, loss = points(run, "loss")
    assert x == [1, 2, 3, 4, 5, 6, 7]
    assert loss == [9, 8, 7, 6, 9, 8, 7]
    assert points(run, "mlm_loss", "heldout") == ([3, 4, 7], [3.0, 2.0, math.log(4)])
    assert math.isnan(points(run, "grad_norm")[1][1])


def test_scores_are_compared_with_the_baseline_on_the_same_questions(run_dir, tmp_path):
    score_dirs = {
        "ours": make_scores(tmp_path / "a", f1=60.0, exact_match=50.0, weights="pretrained"),
        "random weights": make_scores(tmp_path / "b", f1=20.5, exact_match=10.0, weights="random"),
        "elsewhere": make_scores(tmp_path / "c", f1=1.0, exact_match=1.0, weights="random", dataset_name="others"),
    }
    scores = {one["label"]: one for one in report(run_dir=run_dir, score_dirs=score_dirs)["scores"]}
    assert scores["ours"]["leads"] == [{"over": "random weights", "exact_match": 40.0, "f1": 39.5}]
    assert scores["random weights"]["leads"] == scores["elsewhere"]["leads"] == []
    assert "+39.50 F1 over random weights" in (run_dir / "report.html").read_text()


class Page(HTMLParser):
    """Checks nesting, gathers text and every address that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data", "action"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID_ELEMENTS:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_fetches_nothing(run_dir, tmp_path):
    label = "<script>alert(1)</script>"
    report(
        run_dir=run_dir,
        score_dirs={label: make_scores(tmp_path / "a", f1=60.0, exact_match=50.0, weights="pretrained")},
    )
    text = (run_dir / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.tags.count("svg") == 6 + 4 + 3  # four at both scales, three heat maps
    # Inside the page, or a picture in its own bytes: a heat map, its legend.
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import", text)
    assert {"link", "img", "iframe"}.isdisjoint(page.tags)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)  # ours, by its hash, and no other
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{hashed}'" in text
    assert page.tags.count("script") == 1
    assert script == Path(bert_lamb.report.__file__).with_name("page.js").read_text()
    assert label in page.text
    assert "seed: 42 # <not a tag>" in page.text
    used = re.findall(r"url\(#([^)]+)\)", text) + [one[1:] for one in page.addresses if one.startswith("#")]
    assert set(used) <= set(page.ids)
    clip_paths = [one for one in page.ids if one in set(used)]
    assert len(clip_paths) == len(set(clip_paths))  # figures do not borrow one another's
    assert "#010203" not in text


def test_the_same_run_gives_the_same_bytes(run_dir):
    pages = []
    for _ in range(2):
        report(run_dir=run_dir, score_dirs={})
        pages.append((run_dir / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_adamw_without_pairs_and_without_evaluation(tmp_path, capsys):
    absent = ("nsp_loss", "trust_ratio_min", "trust_ratio_median", "trust_ratio_max")
    lines = [{key: value for key, value in step("only", n).items() if key not in absent} for n in (1, 2)]
    run_dir = make_run(tmp_path / "run", [start("only"), *lines])
    content = report(run_dir=run_dir, score_dirs={})
    assert content["heldout"] == []
    assert content["notes"] == ["only is unfinished: 2 of 4 steps."]
    titles = [panel.title for panel in panels_of(read_metrics(run_dir / "metrics.jsonl"), {}, "")]
    assert not any("rust ratio" in title for title in titles)
    assert "only" in capsys.readouterr().out


def test_a_run_that_logs_every_other_step(tmp_path):
    run_dir = make_run(tmp_path / "run", [start("only"), step("only", 2), step("only", 4, seconds=4.0)])
    content = numbers_of(run_dir)
    assert (content["num_sequences"], content["train_seconds"]) == (256, 12.0)
    assert "2 of 4 steps were logged" in content["notes"][0]


def test_a_phase_is_as_long_as_its_end_says(tmp_path):
    """Steps 3 of 4 and 3 of 3 are logged: the second phase begins at 4, and neither is unfinished."""
    ends = [{"kind": "phase_end", "phase": name, "step": n, "seconds": 1.0} for name, n in (("one", 4), ("two", 3))]
    lines = [start("one"), step("one", 3), ends[0], start("two", total_steps=3), step("two", 3), ends[1]]
    run_dir = make_run(tmp_path / "run", lines)
    content = numbers_of(run_dir)
    assert [phase["num_steps"] for phase in content["phases"]] == [4, 3]
    assert content["num_steps"] == 7
    assert not any("unfinished" in note for note in content["notes"])
    assert points(read_metrics(run_dir / "metrics.jsonl"), "loss")[0] == [3, 7]


def test_steps_lost_to_a_kill_are_not_done(tmp_path):
    """Killed after step 4, resumed after step 1, killed again after step 2."""
    resume = {"kind": "resume", "phase": "only", "step": 1, "world_size": 1}
    lines = [start("only"), *(step("only", n) for n in (1, 2, 3, 4)), resume, step("only", 2)]
    content = numbers_of(make_run(tmp_path / "run", lines))
    assert content["num_steps"] == 2
    assert "only is unfinished: 2 of 4 steps." in content["notes"]


def test_a_run_before_its_first_step(tmp_path):
    content = report(run_dir=make_run(tmp_path / "run", [start("only")]), score_dirs={})
    assert content["phases"][0]["final_loss"] is None
    assert content["train_seconds"] is None


def test_losses_that_are_not_finite_survive(tmp_path):
    lines = [start("only"), step("only", 1, grad_norm=1.7e308), step("only", 2, loss=math.nan, mlm_loss=math.nan)]
    run_dir = make_run(tmp_path / "run", [*lines, heldout("only", 2, mlm_loss=math.nan)])
    content = report(run_dir=run_dir, score_dirs={})
    assert content["phases"][0]["final_loss"] is None
    assert content["heldout"][0]["mlm_perplexity"] is None


def test_a_last_line_cut_short_is_noted(tmp_path):
    content = numbers_of(make_run(tmp_path / "run", LINES, tail='{"kind": "ste'))
    assert content["num_steps"] == 7
    assert any(f"line {len(LINES) + 1}) was cut short" in note for note in content["notes"])


def test_an_unknown_kind_is_noted(tmp_path):
    content = numbers_of(make_run(tmp_path / "run", [*LINES, {"kind": "weather"}]))
    assert any("1 lines of the unknown kind 'weather'" in note for note in content["notes"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "ste', "no JSON"),
        ("", "no JSON"),
        ("[1]", "no object"),
        ({"step": 5}, "no object with a kind"),
        (step("phase1", 5, lr="high"), "lr 'high'"),
        (step("phase1", 5, loss=True), "loss True"),
        (step("phase1", 5, is_applied=1), "is_applied 1"),
        (step("phase1", 4), "a step at step 4"),
        (step("phase1", -1), "step -1"),
        (step("phase9", 1), "a step of phase9"),
        (start("phase1"), "a second start of phase1"),
        (trust_ratios("phase1", 5, trust_ratio=None), "trust_ratio None"),
        (trust_ratios("phase1", 5, param_norm={"w": "big"}), "param_norm {'w': 'big'}"),
        (trust_ratios("phase1", 5, update_norm=[1.0]), r"update_norm \[1.0\]"),
        (trust_ratios("phase1", 0), "trust_ratios with step 0"),
        (step("phase1", 5, step=10**400), "a step with step 1000"),
        (step("phase1", 5, seconds=10**400), "seconds 1000"),
        (step("phase1", 5, evaluation_share=0.5, checkpoint_share=0.5), "pauses took all of its time"),
        ("[" * 100_000, "no JSON"),
        ({"kind": "heldout", "phase": "phase1", "step": 5, "mlm_loss": 1.0}, "mlm_accuracy None"),
    ],
)
def test_any_other_malformed_line_is_refused_by_number(tmp_path, line, message):
    run_dir = make_run(tmp_path / "run", [*LINES[:9], line, *LINES[9:]])
    with pytest.raises(UserError, match=message) as refusal:
        report(run_dir=run_dir, score_dirs={})
    assert "line 10" in str(refusal.value)
    assert not (run_dir / "report.html").exists()


def test_a_step_of_a_phase_that_is_over_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a step of phase1 in .* line 18"):
        report(run_dir=make_run(tmp_path / "run", [*LINES, step("phase1", 5)]), score_dirs={})


@pytest.mark.parametrize("missing", ["metrics.jsonl", "config.yaml", "versions.json"])
def test_a_missing_file_is_refused(run_dir, missing):
    (run_dir / missing).unlink()
    with pytest.raises(UserError, match=missing.replace(".", r"\.")):
        report(run_dir=run_dir, score_dirs={})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"9" * 5000])
@pytest.mark.parametrize("name", ["versions.json", "scores.json", "glue.json", "metrics.jsonl"])
def test_a_damaged_file_is_refused_by_name(run_dir, name, content):
    (run_dir / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        report(run_dir=run_dir, score_dirs={})
    assert not (run_dir / "report.html").exists()


def test_after_one_step_matplotlib_has_nothing_to_say(tmp_path, recwarn):
    report(run_dir=make_run(tmp_path / "run", [start("a"), step("a", 1), trust_ratios("a", 1)]), score_dirs={})
    assert [str(one.message) for one in recwarn if issubclass(one.category, UserWarning)] == []


def test_missing_folders_and_foreign_scores_are_refused(run_dir, tmp_path):
    with pytest.raises(UserError, match="no folder"):
        report(run_dir=tmp_path / "nowhere", score_dirs={})
    with pytest.raises(UserError, match=r"scores\.ours"):
        report(run_dir=run_dir, score_dirs={"ours": tmp_path / "nowhere"})
    sound = {"dataset_name": "d", "exact_match": 1, "f1": 2.5, "num_questions": 9, "num_unanswered": 0}
    sound["config"] = {"initial_weights": "random"}
    for change in (
        {"f1": "3"},
        {"f1": 10**400},
        {"f1": math.nan},
        {"num_questions": 1.5},
        {"config": []},
        {"f1": True},
    ):
        (tmp_path / "scores.json").write_text(json.dumps(sound | change))
        with pytest.raises(UserError, match=r"found .*scores\.json with .*; expected scores of `bert-lamb squad`"):
            report(run_dir=run_dir, score_dirs={"ours": tmp_path})
    with pytest.raises(UserError, match="without a phase_start"):
        report(run_dir=make_run(tmp_path / "empty", []), score_dirs={})
