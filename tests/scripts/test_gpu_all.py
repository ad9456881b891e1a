"""The one call for a GPU machine: what it starts, what it says of parts that fail or hang, what it refuses.

The interpreter is a stand-in that prints its arguments; nothing here needs a GPU.
"""

import subprocess

import pytest

from tests.launch import CHECKOUT

SCRIPT = CHECKOUT / "scripts" / "bench" / "gpu_all.sh"
# torch finds a GPU; the tests fail, a benchmark hangs in a process of its own where HANG is set, all else passes.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
*cuda.is_available*) exit ${NO_GPU:-0} ;;
"-m pytest -m gpu"*) echo "$*"; echo; echo "1 failed, 2 passed"; exit 1 ;;
*lamb_step*) [ -z "$HANG" ] || { sleep 60 & wait; } ;;
esac
echo "$*"
"""


@pytest.fixture
def call(tmp_path):
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def run(*words, **environment):
        return subprocess.run(
            ["bash", str(SCRIPT), *words],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHON": str(python), "HANG": "", **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def rows_of(ended):
    """Part -> outcome, of the table."""
    heading, *rows = ended.stdout.splitlines()
    assert heading.split() == ["part", "outcome", "seconds", "last", "line"]
    return {row[:20].strip(): row[21:35].strip() for row in rows}


def test_without_a_gpu_nothing_is_started(call, tmp_path):
    ended = call("results", NO_GPU="1")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("gpu_all.sh: found no CUDA device that torch can use; expected ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_other_refusals(call, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "of_someone").touch()
    assert "found results, which is there already; expected" in call("results").stderr
    assert "found TOTAL_SECONDS=soon; expected" in call("other", TOTAL_SECONDS="soon").stderr
    assert call("results").returncode == 2


def test_a_part_that_fails_does_not_end_the_others(call, tmp_path):
    ended = call("results")
    assert ended.returncode == 1
    rows, folder = rows_of(ended), tmp_path / "results"
    train_step = rows.pop("train_step")
    assert rows == {"tests": "failed (1)", "kernels": "passed", "lamb_step": "passed", "plan": "passed"}
    assert "1 failed, 2 passed" in ended.stdout
    assert (folder / "table.txt").read_text() == ended.stdout
    assert "-m pytest -m gpu" in (folder / "tests.log").read_text()
    assert (
        folder / "lamb_step.log"
    ).read_text() == f"scripts/bench/lamb_step --out {folder}/lamb_step.json --repeats 10\n"
    assert (folder / "environment.txt").stat().st_size > 0
    words = f"scripts/bench/train_step --preset gpu --models bert_large --rounds 6 --out {folder}/train_step.json\n"
    assert (train_step, (folder / "train_step.log").read_text()) == ("passed", words)


def test_parts_by_name_and_those_that_need_rows(call, tmp_path):
    ended = call("results", "batch_32k", "kernels", SHARDS="/rows")
    assert rows_of(ended) == {"kernels": "passed", "batch_32k": "passed"}
    command = (tmp_path / "results" / "batch_32k.log").read_text()
    assert command.startswith("-m bert_lamb pretrain recipe=lamb_32k ")
    assert " shards=/rows " in command


def test_a_part_that_hangs_is_stopped(call):
    """Three seconds in all: the benchmark that hangs gets what is left, and for the next there is no time."""
    ended = call("results", HANG="1", TOTAL_SECONDS="3")
    rows = rows_of(ended)
    assert ended.returncode == 1
    assert rows["lamb_step"] in ("over 3 s", "over 2 s")
    assert rows["train_step"] == "no time left"


def test_the_limits_fit_into_ten_minutes():
    words = [line.split() for line in SCRIPT.read_text().splitlines()]
    limits = [int(line[2]) for line in words if line[:1] == ["run"]]
    assert len(limits) == 6
    assert sum(limits) < 570
