"""The chaos script breaks runs for real and notices what is lost; its small version is the test of killed ranks.

Truths: the undisturbed run, bit for bit; a run that is damaged by hand must be reported. Breaks that turn this file
red: a checkpoint without moments, a step that is counted anew, a comparison that looks at nothing.
"""

import json
import shutil
import subprocess
import sys

import pytest

from bert_lamb.outputs.run_dir import RunDir
from scripts.chaos.programs import Material, Program, differences
from scripts.chaos.runs import PHASES
from tests.launch import CHECKOUT


def chaos(folder, *words, timeout=600):
    command = [
        sys.executable,
        "-m",
        "scripts.chaos",
        "--folder",
        str(folder / "runs"),
        "--out",
        str(folder / "out.json"),
    ]
    return subprocess.run(
        [*command, *words], cwd=CHECKOUT, capture_output=True, text=True, timeout=timeout, check=False
    )


def test_two_ranks_are_killed_and_nothing_is_lost(tmp_path):
    """In a step and upon SIGTERM, between checkpoints: a table, a file without paths, and the same bits."""
    few = ["--kills", "2", "--machines", "fsdp fp32", "--programs", "pretraining", "--torchrun-every", "0"]
    ended = chaos(tmp_path, *few)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    text = (tmp_path / "out.json").read_text()
    result = json.loads(text)
    assert {"command", "commit", "versions", "hardware", "settings"} <= result.keys()
    assert str(tmp_path) not in text
    [run] = result["runs"]
    assert len(result["blows"]) == run["num_blows"] == result["num_blows"] >= 2
    assert run["losses"] == []
    assert run["starts"] == ["2 x fsdp fp32"] * len(run["starts"])
    assert len(run["starts"]) >= 2
    assert "the same bits" in ended.stdout

    # And it would have been noticed.
    program = Program("pretraining", PHASES["pretraining"], Material(tmp_path / "runs" / "material"), has_dropout=True)
    found, [expected] = tmp_path / "runs" / "run-1" / "run", (tmp_path / "runs" / "undisturbed").iterdir()
    assert differences(program, found, expected, is_same_machine=True) == ([], 0.0)
    lines = (found / "metrics.jsonl").read_text().splitlines(keepends=True)
    (found / "metrics.jsonl").write_text("".join(lines[:-1]))
    for is_same_machine in (True, False):
        wrong, _ = differences(program, found, expected, is_same_machine=is_same_machine)
        assert wrong == ["lines of metrics.jsonl"]
    (found / "metrics.jsonl").write_text("".join(lines))
    shutil.rmtree(RunDir(found).checkpoint("latest"))
    wrong, distance = differences(program, found, expected, is_same_machine=True)
    assert wrong == ["position", "weight", "exp_avg", "exp_avg_sq"]
    assert differences(program, found, expected, is_same_machine=False) == (["weights"], distance)
    assert distance > 1e-4


@pytest.mark.slow
def test_forty_kills_of_every_kind(tmp_path):
    ended = chaos(tmp_path, "--kills", "40", "--seed", "2", timeout=7200)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["num_blows"] >= 40
    assert result["num_lost"] == 0
