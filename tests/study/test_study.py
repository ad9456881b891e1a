"""A study as a whole, its runs in this process: interrupted equals uninterrupted, and what diverges is a result.

Truths: the uninterrupted study, byte for byte; `bert-lamb pretrain` by itself; arithmetic by hand.
Breaks that turn this file red are in mutations.txt.
"""

import json
import shutil
import sys
import time

import pytest

from bert_lamb.cli import main as cli
from bert_lamb.cli.compose import compose, conf_dir
from bert_lamb.config.study import check_cell
from bert_lamb.errors import UserError
from bert_lamb.outputs.plain import to_plain
from bert_lamb.pretraining.scaling import settled
from bert_lamb.study import processes
from bert_lamb.study.definition import variants_of, words_of
from bert_lamb.study.drawing import draw
from bert_lamb.study.grid import Cell, Variant, all_cells
from bert_lamb.study.lines import read_study
from bert_lamb.study.processes import Launcher, run_all
from bert_lamb.study.results import diverged_at
from bert_lamb.train.recorder import Recorder
from bert_lamb.train.stop import StopFlag
from tests.study.in_this_process import stand_ins
from tests.synthetic import make_shards

SMALL = [
    *("runtime=cpu", "runtime.engine=torch", "runtime.peak_tflops=1", "model=bert_tiny", "model.num_layers=1"),
    *("model.hidden_size=16", "model.intermediate_size=16", "model.dropout=0.0", "evaluation.max_instances=8"),
    *("phases.phase1.shards=${shards}", "phases.phase1.max_seq_length=16", "phases.phase1.max_predictions_per_seq=3"),
    "phases.phase1.total_steps=4",
    *("phases.phase1.global_batch_size=8", "phases.phase1.warmup_proportion=0.5", "checkpoint.interval_steps=1"),
    *(
        "study.batches=[16,4]",
        "study.seeds=[1,2]",
        "study.variants.lamb.words=[optimizer=lamb,scaling=sqrt,scaling_base_batch_size=8]",
    ),
    *("study.variants.lamb.tune=['scaling_base_lr=1e-3,1e-2']", "study.variants.lamb.tune_at=4"),
    "study.variants.lost.words=[optimizer=adamw,scaling=none]",
    *("study.variants.lost.tune=['phases.*.peak_lr=1e30']", "study.variants.lost.batches=[4]"),
]
NUM_RUNS = 5 + 1  # lamb: two trials at 4, then 16 and both at seed 2; lost: its one trial


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    stand_ins(monkeypatch)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "s", max_seq_lengths=(16,))


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """An uninterrupted study's folder. It was begun under another name, which the interrupted one has."""
    root = tmp_path_factory.mktemp("studies") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stand_ins(patch)
        assert study(shards, root) == 0
    return root.rename(root.with_name("whole"))


def study(shards, root, *more):
    return cli.main(["study", *SMALL, f"shards={shards}", f"run_dir={root}", *more])


def drawn(root):
    return {name: (root / name).read_bytes() for name in ("study.json", "table.md", "figure.svg", "study.html")}


def refused(capsys, shards, root, *more):
    """The lines of a study that is refused."""
    assert study(shards, root, *more) == 2
    return capsys.readouterr().err


def test_every_run_is_done_once_and_nothing_but_results_is_kept(whole):
    results = json.loads((whole / "study.json").read_bytes())["results"]
    assert sorted(results) == sorted(path.name for path in (whole / "cells").iterdir())
    assert len(results) == NUM_RUNS
    assert not list(whole.glob("cells/*/checkpoints"))


def test_a_cell_is_a_run_of_pretrain_on_the_same_number_of_sequences(whole, shards, tmp_path):
    """4 steps of 8 are 32 sequences: 8 steps of 4, 2 of 16. The peak of 16 is 1e-2 sqrt(16 / 8)."""
    results = json.loads((whole / "study.json").read_bytes())["results"]
    assert {name.split("-b")[1]: one["num_steps"] for name, one in results.items() if name.startswith("lamb")} == {
        "4-s1": 8,
        "4-s2": 8,
        "16-s1": 2,
        "16-s2": 2,
    }
    chosen = next(name.split("_lr_")[1].split("-b")[0] for name in results if name.endswith("-b16-s2"))
    words = [word for word in SMALL if not word.startswith(("study.", "phases.phase1.total", "phases.phase1.global"))]
    run = [
        "optimizer=lamb",
        "scaling=sqrt",
        f"scaling_base_lr={chosen}",
        "scaling_base_batch_size=8",
        "phases.phase1.global_batch_size=16",
    ]
    run += ["phases.phase1.total_steps=2", "seed=2", f"shards={shards}"]
    assert cli.main(["pretrain", *words, *run, f"run_dir={tmp_path / 'run'}"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (heldout,) = [line for line in lines if line["kind"] == "heldout"]
    of_cell = results[f"lamb-scaling_base_lr_{chosen}-b16-s2"]
    assert of_cell["heldout_loss"] == heldout["mlm_loss"]
    assert of_cell["peak_lr"] == pytest.approx(float(chosen) * 2**0.5)
    assert of_cell["curve"]["sequences"] == [16, 32]
    assert of_cell["curve"]["loss"] == [line["mlm_loss"] for line in lines if line["kind"] == "step"]


def test_an_interrupted_study_equals_an_uninterrupted_one(whole, shards, monkeypatch):
    """Killed within its third run; that run continues from its checkpoint, those before are not done again."""
    begun, record = [], Recorder.step

    def dies(self, stage, step, **more):
        record(self, stage, step, **more)
        begun.append(step)
        if len(begun) == 8 + 8 + 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "step", dies)
    root = whole.with_name("run")
    with pytest.raises(AssertionError):
        study(shards, root)
    assert len(list((root / "results").iterdir())) == 2
    assert study(shards, root) == 0
    total = 8 + 8 + 8 + 2 + 2 + 8  # trials, lost, 16, 16 and 4 with seed 2
    assert total <= len(begun) <= total + 1  # the step at which it was killed may be done again
    assert drawn(root) == drawn(whole)


def test_what_diverges_is_a_result(whole):
    content = json.loads((whole / "study.json").read_bytes())
    (lost,) = [one for name, one in content["results"].items() if name.startswith("lost")]
    assert lost["heldout_loss"] is None
    assert lost["diverged"]["phase"] == "phase1"
    assert 1 <= lost["diverged"]["step"] <= 8
    shown = read_study(content)
    point = shown.lines[1].points[0]
    assert point.mean is None
    assert point.diverged == [f"seed 1, phase1 step {lost['diverged']['step']}"]
    assert shown.is_finished
    assert "diverged" in (whole / "figure.svg").read_text()


def test_a_finished_study_is_drawn_again_from_study_json_alone(whole, shards, tmp_path, monkeypatch):
    before = drawn(whole)
    monkeypatch.setattr("bert_lamb.pretraining.command.pretrain", None)  # nothing may run
    for name in ("table.md", "figure.svg", "study.html"):
        (whole / name).unlink()
    assert study(shards, whole) == 0
    assert drawn(whole) == before
    draw(json.loads(before["study.json"]), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        name: content for name, content in before.items() if name != "study.json"
    }


def test_the_table_by_hand():
    """Two seeds of 2 and 3 nats; a batch of which one of two diverged has no mean."""
    variant = {"words": ["optimizer=lamb"], "batches": None, "tune": [], "tune_at": None}
    definition = {
        "study": {"variants": {"lamb": variant}, "batches": [8, 4], "seeds": [1, 2]},
        "phases": {"phase1": {"num_sequences": None, "total_steps": 4, "global_batch_size": 8}},
    }
    of_all = {"tuned": {}, "unigram_cross_entropy": 5.0, "num_steps": 4, "peak_lr": 0.5, "diverged": None}
    lost = {"phase": "phase1", "step": 3, "reason": "rise"}
    results = {
        "lamb-b8-s1": {**of_all, "batch": 8, "seed": 1, "heldout_loss": 2.0},
        "lamb-b8-s2": {**of_all, "batch": 8, "seed": 2, "heldout_loss": 3.0},
        "lamb-b4-s1": {**of_all, "batch": 4, "seed": 1, "heldout_loss": 1.0},
        "lamb-b4-s2": {**of_all, "batch": 4, "seed": 2, "heldout_loss": None, "diverged": lost},
    }
    from bert_lamb.study.table import as_markdown

    text = as_markdown(read_study({"definition": definition, "results": results}))
    assert "| lamb | 8 | 4 | 0.5 | 2.500 | 2.000 to 3.000 | 2 of 2 |" in text
    assert "| lamb | 4 | 4 | 0.5 | – | – | diverged: seed 2, phase1 step 3 |" in text  # noqa: RUF001
    assert text.index("| lamb | 4 |") < text.index("| lamb | 8 |")
    assert "32 in phase1" in text
    assert "5.000" in text
    assert "Unfinished" not in text
    del results["lamb-b8-s2"]
    assert "Unfinished: 3 of 4 runs" in as_markdown(read_study({"definition": definition, "results": results}))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(True, 2.0), (True, 3.0)], 2),  # a loss that rose: the last one
        ([(True, 2.0), (True, float("nan")), (False, float("nan"))], 2),
        ([(True, 2.0), (False, 1.0), (True, 2.0), (False, 1.0)], 4),  # one skipped step in between is none
        ([(False, 2.0)], 1),
        ([], None),
    ],
)
def test_where_a_run_diverged(steps, expected):
    records = [{"step": step, "is_applied": is_, "loss": loss} for step, (is_, loss) in enumerate(steps, 1)]
    assert diverged_at(records) == expected


def test_another_study_in_the_folder_is_refused(capsys, whole, shards):
    before = drawn(whole)
    said = refused(capsys, shards, whole, "study.seeds=[1,3]")
    assert "found a study at" in said
    assert "study.seeds" in said
    assert "found a study at" in refused(capsys, shards, whole, "if_exists=refuse")
    assert drawn(whole) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("study.variants.lamb.tune_at=8",), "study.variants.lamb.tune_at=8"),
        (("study.variants.lamb.tune=[scaling_base_lr]",), "study.variants.lamb.tune=scaling_base_lr"),
        (("study.batches=[4,4]",), "study.variants.lamb.batches=[4, 4]"),
        (("study.seeds=[1,1]",), "study.seeds=[1, 1]"),
        (("study.parallel_runs=0",), "study.parallel_runs=0"),
        (
            ("study.launch=no-such-program --fast",),
            "study.launch=no-such-program --fast (no-such-program is not a program",
        ),
        (("study.launch=/",), "study.launch=/ (/ is not a program here)"),
        (("study.launch=it's",), "study.launch=it's (No closing quotation)"),
        (("study.variants.lamb.words=[optimizer=sgd]",), "sgd"),
        (("study.batches=[16,4,1024]",), "phases.phase1.num_sequences=32, fewer than half a batch of 1024"),
        (("study.variants.lamb.words=[scaling=sqrt]",), "scaling_base_batch_size=None"),
        (("study.cell=lamb-b3-s1",), "study.cell=lamb-b3-s1"),
        (("study.variants.lost.words=[phases.phase1.shards=nowhere]",), "nowhere"),
        (("study.variants.lost.words=[phases.phase1.max_seq_length=17]",), "17"),
    ],
)
def test_a_mistake_in_any_run_is_refused_before_anything_is_written(capsys, shards, tmp_path, words, expected):
    said = refused(capsys, shards, tmp_path / "run", *words)
    assert expected in said
    assert all(line.startswith("bert-lamb study: found ") for line in said.splitlines())
    assert not (tmp_path / "run").exists()


def test_a_damaged_result_is_named(capsys, whole, shards, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(whole, root)
    victim = sorted((root / "results").iterdir())[0]
    for text in ("{", "{}"):
        victim.write_text(text)
        assert str(victim) in refused(capsys, shards, root)


# Processes. `launch` stands before the command, so a shell can play the run.


CELLS = [Cell(Variant(name, (), (4,)), (), 4, 1) for name in ("a", "b", "c")]


def run_with(tmp_path, launch, *, at_once=1, stop=None, cells=CELLS):
    """Whether run_all did all of it, and the names in the order in which they ended."""
    ended = []
    left = list(cells)

    def next_cell(at_work):
        assert len(at_work) < at_once
        return left.pop(0) if left else None

    launcher = Launcher(["seed=3"], launch, tmp_path / "logs", threads=2)
    is_done = run_all(
        next_cell, launcher, at_once=at_once, stop=stop or StopFlag(), done=lambda cell, _: ended.append(cell.name)
    )
    return is_done, ended


def test_a_run_is_a_process_with_the_words_of_the_study_and_its_cell(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run_with(tmp_path, "sh -c 'echo $OMP_NUM_THREADS \"$@\"' --") == (True, ["a-b4-s1", "b-b4-s1", "c-b4-s1"])
    said = (tmp_path / "logs" / "b-b4-s1.log").read_text()
    assert said == f"2 {sys.executable} -m bert_lamb study seed=3 study.launch= study.cell=b-b4-s1\n"


def test_a_run_that_fails_ends_the_study_with_its_line(tmp_path):
    launch = "sh -c 'echo noise; echo bert-lamb study: found x; echo more; exit 2' --"
    with pytest.raises(UserError, match=r"run a-b4-s1, which ended with status 2: found x"):
        run_with(tmp_path, launch)
    assert not (tmp_path / "logs" / "b-b4-s1.log").exists()


def test_a_signal_is_passed_on_and_nothing_new_begins(tmp_path, monkeypatch):
    stop, begun = StopFlag(), time.monotonic()
    sleep = time.sleep

    def tell(seconds):
        sleep(seconds)
        if len(list((tmp_path / "logs").glob("*"))) == 2:
            stop.tell()

    monkeypatch.setattr(processes.time, "sleep", tell)
    launch = "sh -c 'trap \"kill $!; exit 143\" TERM; sleep 60 & wait' --"
    assert run_with(tmp_path, launch, at_once=2, stop=stop) == (False, [])
    assert time.monotonic() - begun < 30
    assert not (tmp_path / "logs" / "c-b4-s1.log").exists()


@pytest.mark.parametrize("preset", sorted(path.stem for path in (conf_dir() / "study").glob("*.yaml")))
def test_every_preset_composes(preset):
    """A run of each variant with what is tuned, at its largest batch; with the paper's recipe where it is not whole."""
    words = [f"study={preset}", "shards=s", "run_dir=r", *([] if preset.endswith("_tiny") else ["recipe=lamb_paper"])]
    config = compose("study", words)
    config.study.words = words
    variants = variants_of(to_plain(config.study))
    last = {cell.variant.name: cell for cell in all_cells(variants, config.study.seeds)}
    assert last.keys() == config.study.variants.keys()
    sequences = set()
    for cell in last.values():
        of_cell = compose("study", words_of(cell, config))
        assert check_cell(of_cell) == []
        plain = settled(to_plain(of_cell))
        sequences.add(tuple(phase["num_sequences"] for phase in plain["phases"].values()))
        assert {phase["global_batch_size"] for phase in plain["phases"].values()} == {cell.batch}
    assert len(sequences) == 1
