"""Shares of `prepare` through Hydra's launchers, then `merge`: the bytes of one process, and failures that are told.

The truth is a run of `bert-lamb prepare` without shares. Every call is a process of its own, as from a shell.

Mutations that must turn it red: a share left out, an exit status kept in a variable that the launcher pickles, Hydra's
settings ignored without -m, and, under Ray, a job that does not go to the caller's folder.
"""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import CHECKOUT
from tests.slurm_commands import commands_of_slurm

WORDS = ("the", "a", "river", "city", "north", "old", "king", "stone", "bridge", "war", "year", "was")
CORPUS = [
    "corpus=text",
    "sources.text.kind=jsonl",
    "sources.text.path=corpus.jsonl",
    "max_seq_lengths=[64,32]",
    "heldout_proportion=0.1",
    "group_tokens=5000",
    "partition_bytes=10000",
    "vocabulary.train_size=300",
    "num_workers=1",
]
PREPARE = [*CORPUS, "vocabulary.file=vocab.txt"]
# Ray writes no token to the home directory, and reports nothing to its makers.
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


def call(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m bert_lamb arguments` in the folder cwd; whatever it leaves behind ends with it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bert_lamb", *arguments],
        cwd=cwd,
        env={
            **os.environ,
            **ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def done(cwd: Path, *arguments: str) -> None:
    result = call(cwd, *arguments)
    assert result.returncode == 0, result.stderr[-4000:]


def contents(directory: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(4, 14))).capitalize() + "."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """corpus.jsonl of 200 documents, vocab.txt, and `one`: the shards that one process makes of them."""
    folder = tmp_path_factory.mktemp("launchers")
    rng = random.Random(1)
    texts = [" ".join(sentence(rng) for _ in range(rng.randint(4, 20))) for _ in range(200)]
    (folder / "corpus.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    done(folder, "vocab", *CORPUS, "output_file=vocab.txt")
    done(folder, "prepare", *PREPARE, "output_dir=one")
    return folder


def assert_merged_equals_one(folder: Path, output_dir: str) -> None:
    assert not (folder / output_dir).exists(), "shares alone are no output"
    done(folder, "merge", *PREPARE, f"output_dir={output_dir}")
    assert contents(folder / output_dir) == contents(folder / "one")


def assert_shares_are_made(folder: Path, output_dir: str, *spread: str) -> None:
    """Three shares and one that fails: the others are finished, and what is wrong is told here, and once."""
    result = call(folder, "prepare", *spread, "share=0/3,7/3,1/3,2/3", *PREPARE, f"output_dir={output_dir}")
    told = [line for line in result.stderr.splitlines() if line.startswith("bert-lamb prepare: found share")]
    assert (result.returncode, len(told)) == (2, 1), result.stderr[-4000:]


def test_one_share_after_the_other(folder):
    """-m and nothing else; while a share is missing, merge refuses."""
    done(folder, "prepare", "-m", "share=0/3,1/3", *PREPARE, "output_dir=basic")
    early = call(folder, "merge", *PREPARE, "output_dir=basic")
    assert early.returncode == 2, early.stderr
    assert_shares_are_made(folder, "basic", "-m")
    assert_merged_equals_one(folder, "basic")


def test_a_launcher_that_is_not_installed_is_told_in_a_line(folder):
    """Hydra's settings are heeded without -m too; a launcher that was ignored would do the work here."""
    for more in (["share=0/3"], ["spread=slurm", "share=0/3,1/3"]):
        result = call(folder, "prepare", "hydra/launcher=none_such", *more, *PREPARE, "output_dir=never")
        assert result.returncode == 2
        assert "fix: install the extra: bert-lamb[slurm] or bert-lamb[ray]" in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_submitit(folder):
    """conf/spread/slurm.yaml with submitit's local executor in the place of sbatch."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra bert-lamb[slurm]")
    spread = ["spread=slurm", "hydra/launcher=submitit_local"]
    assert_shares_are_made(folder, "submitit", *spread)
    assert_merged_equals_one(folder, "submitit")


def test_submitit_through_sbatch(folder, tmp_path, monkeypatch):
    """The same with stand-ins for SLURM's own commands: what is written for sbatch runs, and its results are found."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra bert-lamb[slurm]")
    monkeypatch.setenv("PATH", f"{commands_of_slurm(tmp_path)}:{os.environ['PATH']}")
    done(folder, "prepare", "spread=slurm", "share=0/3,1/3,2/3", *PREPARE, "output_dir=sbatch")
    assert_merged_equals_one(folder, "sbatch")


def test_ray(folder, tmp_path):
    """conf/spread/ray.yaml with a cluster of this machine alone, whose workers start in another folder."""
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra bert-lamb[ray]")
    (tmp_path / "elsewhere").write_text("")
    init = ["num_cpus=2", "include_dashboard=false", f"runtime_env={{working_dir: {tmp_path}}}"]
    spread = ["spread=ray", "hydra.launcher.ray.init.address=local"]
    spread += [f"+hydra.launcher.ray.init.{setting}" for setting in init]
    assert_shares_are_made(folder, "ray", *spread)
    assert_merged_equals_one(folder, "ray")
