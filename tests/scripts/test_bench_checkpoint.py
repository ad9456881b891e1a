"""The benchmark of checkpoints runs in one call, and its bytes are those of a parameter's state.

Truths: 12 bytes a parameter, counted by hand; the sizes of files. Breaks that turn this file red: a way to save left
out, a thread that is not measured until the checkpoint is there, ranks that share nothing.
"""

import json
import sys
import threading

import pytest

from bert_lamb.checkpoint import writing
from tests.launch import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "scripts" / "bench"))
import checkpoint

WRITE = writing.write_rank_file


def test_one_call_measures_both_ways(tmp_path, monkeypatch, capsys):
    """The writer is held up: training that waits for it stands still for as long, training with a thread does not."""
    hold_up = 0.2

    def slow(*share):
        threading.Event().wait(hold_up)
        return WRITE(*share)

    monkeypatch.setattr(writing, "write_rank_file", slow)
    words = ["--model", "tiny", "--rounds", "2", "--folder", str(tmp_path), "--out", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", [str(CHECKOUT / "scripts" / "bench" / "checkpoint.py"), *words])
    checkpoint.main()
    result = json.loads((tmp_path / "out.json").read_text())
    assert {"command", "commit", "versions", "hardware", "settings", "load_average"} <= result.keys()
    at_once, by_thread = result["rows"]
    assert (at_once["is_asynchronous"], by_thread["is_asynchronous"]) == (False, True)
    assert len(at_once["samples"]) == len(by_thread["samples"]) == 2
    assert min(sample["seconds_stopped"] for sample in at_once["samples"]) >= hold_up
    for row in (at_once, by_thread):
        assert min(sample["seconds_until_there"] for sample in row["samples"]) >= hold_up
        assert 0 < row["seconds_stopped"] < row["seconds_until_there"]
        num_parameters = checkpoint.num_parameters_of("tiny")
        assert 12 * num_parameters < row["num_bytes"] < 12.05 * num_parameters
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[-5:]] == ["8", "32", "128", "512", "1,024"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_what_is_calculated():
    """BERT-Large has 336 million parameters with both heads: 4 GB in all, of which 8 ranks write half a GB each."""
    num_parameters = checkpoint.num_parameters_of("bert_large")
    assert num_parameters == pytest.approx(336.2e6, rel=1e-3)
    first, *_, last = checkpoint.over_ranks(num_parameters, disk_rate=2.0, copy_rate=10.0)
    assert first["bytes_per_rank"] == pytest.approx(0.504e9, rel=1e-2)
    assert first["seconds_stopped"] == pytest.approx(0.0504, rel=1e-2)
    assert first["seconds_until_there"] == pytest.approx(2.02 + 0.0504, rel=1e-2)
    assert (last["num_ranks"], last["bytes_per_rank"]) == (1024, pytest.approx(3.94e6, rel=1e-2))
