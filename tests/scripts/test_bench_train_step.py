"""The benchmark of whole steps runs in one call, and all candidates learn the same: their first losses agree.

Truth: transformers' own loss, since without dropout every candidate starts from the same weights on the same rows.
Breaks that turn this file red: another seed, rows that are not those of the others, a mask or a label lost in padding.
"""

import json
import subprocess
import sys

import pytest

from tests.launch import CHECKOUT
from tests.synthetic import make_shards

CANDIDATES = ["transformers Trainer", "plain loop", "ours, padded", "ours", "ours, LAMB", "ours, LAMB, ZeRO 1"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train_step")
    command = [sys.executable, "scripts/bench/train_step", "--shards", str(make_shards(folder / "s"))]
    words = "--models bert_tiny --lengths 32 --micro-batch-sizes 8 --accumulation 1 --rounds 2 --dropout 0 --threads 1"
    done = subprocess.run(
        [*command, *words.split(), "--preset", "cpu", "--candidates", *CANDIDATES, "--out", str(folder / "out.json")],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads((folder / "out.json").read_text()), "stdout": done.stdout}


def test_all_candidates_start_with_the_same_loss(result):
    (workload,) = result["workloads"]
    losses = {row["candidate"]: row["first_loss"] for row in workload["rows"]}
    assert list(losses) == CANDIDATES
    for name in CANDIDATES[1:]:
        assert losses[name] == pytest.approx(losses["plain loop"], rel=1e-5), name
    assert losses["transformers Trainer"] == pytest.approx(losses["plain loop"], rel=1e-5)


def test_what_is_written_and_printed(result):
    (workload,) = result["workloads"]
    assert {"command", "commit", "versions", "hardware", "settings", "ceiling"} <= result.keys()
    assert 0 < workload["fill"] <= 1
    assert workload["flops_ratio"] > 1 / workload["fill"]  # the vocabulary's matrix at every position comes on top
    for row in workload["rows"]:
        assert len(row["seconds"]) == 2
        assert row["sequences_per_second"] == pytest.approx(8 / row["median_seconds"])
        assert (row["data_share"] is not None) == row["candidate"].startswith("ours")
        assert row["candidate"] in result["stdout"]
    peaks = {row["candidate"]: row["peak_memory_gb"] for row in workload["rows"]}
    assert peaks["ours"] <= peaks["ours, padded"] < peaks["plain loop"]  # which keeps logits of every position
    assert workload["rows"][0]["ratio"] == 1
