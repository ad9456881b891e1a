"""Runs as jobs of Hydra's launchers: the study of one process, byte for byte, and failures that are told.

Every call of a round is a process of its own. Breaks that turn this file red are in mutations.txt.
"""

import os
import sys
import time

import pytest

from bert_lamb.cli import main as cli
from bert_lamb.errors import UserError
from bert_lamb.study import jobs as room
from bert_lamb.study.grid import Cell, Variant
from bert_lamb.study.jobs import Jobs, run_rounds
from bert_lamb.train.stop import StopFlag
from tests.launch import CHECKOUT
from tests.slurm_commands import commands_of_slurm
from tests.study.in_this_process import stand_ins
from tests.synthetic import make_shards

WORDS = [
    *("runtime=cpu", "runtime.engine=torch", "runtime.peak_tflops=1", "model=bert_tiny", "model.num_layers=1"),
    *("model.hidden_size=16", "model.intermediate_size=16", "model.dropout=0.0", "evaluation.max_instances=8"),
    *("phases.phase1.shards=${shards}", "phases.phase1.max_seq_length=16", "phases.phase1.max_predictions_per_seq=3"),
    *(
        "shards=a, b",
        "phases.phase1.num_sequences=32",
        "phases.phase1.global_batch_size=8",
        "phases.phase1.warmup_proportion=0.5",
    ),
    *("study.batches=[16,4]", "study.seeds=[1]"),
    *("study.variants.lamb.words=[scaling=none]", "study.variants.lamb.tune=['phases.*.peak_lr=1e-3,1e-2']"),
    "study.variants.lamb.tune_at=16",
]
ROUNDS = [["lamb-peak_lr_1e-3-b16-s1", "lamb-peak_lr_1e-2-b16-s1"], ["-b4-s1"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with shards whose name has a comma, and `one`: the study whose runs are no jobs."""
    folder = tmp_path_factory.mktemp("jobs")
    make_shards(folder / "a, b", max_seq_lengths=(16,))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stand_ins(patch)
        assert cli.main(["study", *WORDS, "run_dir=one"]) == 0
    return folder


@pytest.fixture
def study(folder, monkeypatch):
    """study(run_dir, words of the launcher): its exit status."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    return lambda run_dir, *words: cli.main(["study", *WORDS, f"run_dir={run_dir}", *words])


def assert_equals_one(folder, run_dir):
    assert (folder / run_dir / "study.json").read_bytes() == (folder / "one" / "study.json").read_bytes()


def test_rounds_through_a_launcher_equal_runs_one_by_one(folder, study, monkeypatch):
    """Two trials at 16, then the better at 4: two calls, whose jobs run one after the other in the call itself."""
    handed_over, start = [], Jobs.start

    def counted(self, cells):
        handed_over.append([cell.name for cell in cells])
        return start(self, cells)

    monkeypatch.setattr(Jobs, "start", counted)
    assert study("basic", "hydra/launcher=basic") == 0
    assert handed_over[0] == ROUNDS[0]
    assert len(handed_over) == 2
    assert handed_over[1][0].endswith(ROUNDS[1][0])
    assert_equals_one(folder, "basic")
    assert study("basic", "hydra/launcher=basic") == 0  # nothing is left
    assert len(handed_over) == 2


def test_through_sbatch(folder, study, tmp_path, monkeypatch):
    """conf/spread/study/slurm.yaml with stand-ins for SLURM's commands; `study.launch` starts each run in its job."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra bert-lamb[slurm]")
    monkeypatch.setenv("PATH", f"{commands_of_slurm(tmp_path)}:{os.environ['PATH']}")
    assert study("sbatch", "spread=study/slurm", "study.launch=nice -n 1") == 0
    assert_equals_one(folder, "sbatch")
    assert len(list((folder / "sbatch" / "logs").glob("lamb-*.log"))) == 3
    (script,) = {
        path.read_text() for path in (folder / "jobs").rglob("*submission.sh") if "a-b4" in path.read_text()
    } or {""}
    assert script == "" or "MASTER_ADDR" in script


def test_through_ray(folder, study, monkeypatch):
    """conf/spread/study/ray.yaml with a cluster of this machine alone."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra bert-lamb[ray]")
    for name, value in (("RAY_AUTH_MODE", "disabled"), ("RAY_USAGE_STATS_ENABLED", "0")):
        monkeypatch.setenv(name, value)
    init = [
        "ray.init.address=local",
        "+ray.init.num_cpus=2",
        "+ray.init.include_dashboard=false",
        "ray.remote.num_cpus=1",
    ]
    words = [f"{'+' * word.startswith('+')}hydra.launcher.{word.lstrip('+')}" for word in init]
    assert study("ray", "spread=study/ray", *words) == 0
    assert_equals_one(folder, "ray")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("hydra/launcher=none_such",), "fix: install the extra: bert-lamb[slurm] or bert-lamb[ray]"),
        (("hydra/launcher=basic", "study.parallel_runs=2"), "found study.parallel_runs=2 with hydra/launcher=basic"),
        (("hydra/launcher=basic", "optimizer.eps=-1"), "found optimizer.eps=-1"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(folder, study, capsys, words, expected):
    assert study("never", *words) == 2
    said = capsys.readouterr().err.splitlines()
    assert any(expected in line for line in said), said
    assert all(line.startswith("bert-lamb study: found ") for line in said)
    assert not (folder / "never").exists()


# A shell plays the call of a round.


CELLS = [Cell(Variant(name, (), (4,)), (), 4, 1) for name in ("a", "b")]


def rounds(tmp_path, monkeypatch, script, *, stop=None):
    """(what run_rounds gave, names that were done) with a script in the place of python; $OUT/NAME is a result."""
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/bash\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setenv("OUT", str(tmp_path))
    ended, begun = [], []

    def waiting():
        begun.append(None)
        assert len(begun) < 3, "rounds without end"
        return [cell for cell in CELLS if cell.name not in ended]

    result = run_rounds(
        waiting,
        Jobs(["seed=3"], ["spread=x"], tmp_path / "logs"),
        stop=stop or StopFlag(),
        is_done=lambda cell: (tmp_path / cell.name).exists(),
        done=lambda cell, _: ended.append(cell.name),
    )
    return result, sorted(ended)  # results that come between two looks are seen in any order


def test_a_round_has_the_words_of_the_study_its_cells_and_the_launcher(tmp_path, monkeypatch):
    assert rounds(tmp_path, monkeypatch, 'echo "$@"; touch "$OUT/a-b4-s1" "$OUT/b-b4-s1"') == (
        True,
        ["a-b4-s1", "b-b4-s1"],
    )
    said = (tmp_path / "logs" / "jobs.log").read_text()
    assert said == "-m bert_lamb study -m seed=3 study.cell=a-b4-s1,b-b4-s1 spread=x\n"


@pytest.mark.parametrize("status", [0, 2])
def test_a_round_that_ends_without_a_result_is_a_failure(tmp_path, monkeypatch, status):
    """Even with status 0, as where a job was cancelled: another round would find the same."""
    script = f'touch "$OUT/a-b4-s1"; echo bert-lamb study: found x; exit {status}'
    with pytest.raises(UserError, match=rf"run b-b4-s1, which ended with status {status}: found x"):
        rounds(tmp_path, monkeypatch, script)


@pytest.mark.parametrize("hears", [True, False])
def test_a_signal_ends_the_call_and_what_is_done_counts(tmp_path, monkeypatch, hears):
    stop, begun = StopFlag(), time.monotonic()
    sleep = time.sleep

    def tell(seconds):
        sleep(seconds)
        if (tmp_path / "a-b4-s1").exists():
            stop.tell()

    monkeypatch.setattr(room.time, "sleep", tell)
    monkeypatch.setattr(room, "PATIENCE_SECONDS", 0.5)
    script = {
        True: "trap 'touch $OUT/heard; kill $!; exit 143' TERM; touch $OUT/a-b4-s1; sleep 60 & wait",
        False: "trap '' TERM; touch $OUT/a-b4-s1; exec sleep 60",
    }[hears]
    assert rounds(tmp_path, monkeypatch, script, stop=stop) == (False, ["a-b4-s1"])
    assert (tmp_path / "heard").exists() == hears
    assert time.monotonic() - begun < 30
