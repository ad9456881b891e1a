"""The benchmark of the loader runs in one call, on shards that keep the format, and says what a number is read with.

Breaks that turn this file red: shards that break an invariant, rows far from the fill or the share of continuations
they promise, a combination left out, a rate divided by the wrong number of processes.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from bert_lamb.data.masking import continuations
from bert_lamb.shards import open_instances
from bert_lamb.shards.verify import row_faults
from tests.launch import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "scripts" / "bench"))
import loader


def test_one_call_measures_every_combination(tmp_path):
    command = [sys.executable, "scripts/bench/loader.py", "--lengths", "64", "--workers", "0", "1", "--tokens", "70000"]
    settings = f"--micro-batch-size 16 --rounds 2 --seconds 0.01 --out {tmp_path / 'out.json'}"
    done = subprocess.run(
        [*command, *settings.split()], cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert {"command", "commit", "versions", "hardware", "settings", "load_average"} <= result.keys()
    found = [(row["max_seq_length"], row["num_workers"], row["whole_word"]) for row in result["rows"]]
    assert found == [(64, workers, whole) for workers in (0, 1) for whole in (False, True)]
    for row in result["rows"]:
        assert len(row["samples"]) == 2
        assert row["instances_per_second_per_process"] == row["instances_per_second"] > 0
    assert set(result["microseconds_per_instance"]["64"]) == {"read", "plain", "whole_word"}
    assert done.stdout.splitlines()[-5].split()[:3] == ["length", "masking", "workers"]


def test_a_rate_is_divided_by_its_workers():
    row = loader.Row(128, False, 2, iter(()), seconds=[1.0], per_second=[100_000.0])
    assert loader.record(row)["of_target"] == pytest.approx(1.0)


def test_the_shards_are_what_the_readme_says(tmp_path):
    loader.make_shards(tmp_path, {128: 0.9}, 300_000)
    instances = open_instances(tmp_path, max_seq_length=128, split="train")
    manifest = instances.manifest
    for shard in instances._shards:
        assert row_faults(shard, 128, manifest.vocabulary, manifest.sentence_task) == []
    assert np.mean(instances.lengths == 128) == pytest.approx(0.9, abs=0.03)
    tokens = np.concatenate(list(instances.iter_input_ids(1 << 20)))
    ordinary = tokens[tokens >= 5]
    is_continuation = continuations(instances.vocabulary_path)
    assert is_continuation.sum() == 5_828
    assert is_continuation[ordinary].mean() == pytest.approx(0.15, abs=0.01)
