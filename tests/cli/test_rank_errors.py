"""Mistakes under several ranks: said once, by a rank that has them, with the same exit status on every rank.

Breaks that turn this file red: a verdict that is not shared, ranks that print what rank 0 says already, a rank whose
error nobody prints, a traceback without its rank.
"""

import json
import shutil
import socket
from pathlib import Path

import pytest

from tests.launch import run_ranks
from tests.pretraining.test_pretrain import SMALL
from tests.synthetic import make_shards

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    """(what each rank said and returned, by case; the output of the launch)"""
    folder = tmp_path_factory.mktemp("ranks")
    shards = make_shards(folder / "s")
    damaged = shutil.copytree(shards, folder / "damaged")
    for victim in sorted((damaged / "seq16").glob("train-*"))[:2]:
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    (folder / "strangers").mkdir()
    (folder / "strangers" / "thesis.tex").touch()
    arguments = [*SMALL, f"shards={shards}", "runtime.micro_batch_size.phase1=16"]
    worker = str(Path(__file__).with_name("rank_errors_worker.py"))
    launched = run_ranks(2, worker, str(folder), *arguments, timeout=120)
    assert (folder / "seen0.json").exists(), launched.stdout[-3000:]
    both = [json.loads((folder / f"seen{rank}.json").read_text()) for rank in (0, 1)]
    assert not (folder / "configuration").exists()
    assert not (folder / "damaged" / "metrics.jsonl").exists()
    return both, launched


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("configuration", ["found phases.phase1.total_steps=0"]),
        ("engine", ["found runtime.engine=torch with 2 ranks"]),
        ("damaged", ["sha256", "sha256"]),  # two files, dealt to two ranks
        ("one_rank", [f"found on rank 1 ({HOST}) no manifest.json in /nowhere; expected"]),
        ("strangers", ["found thesis.tex in "]),
        ("held", ["found another process at work in "]),
        ("override", ["found runtime.deepspeed_overrides.optimizer.type; expected no such override"]),
    ],
)
def test_a_mistake_is_said_once_and_ends_all_ranks(met, case, expected):
    (of_rank_0, of_rank_1), _ = met
    assert of_rank_0[case][0] == of_rank_1[case][0] == 2
    lines = of_rank_0[case][1].splitlines()
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected, strict=True):
        assert line.startswith("bert-lamb pretrain: found ")
        assert part in line
    assert of_rank_1[case][1] == ""


def test_each_damaged_file_is_named(met):
    (of_rank_0, _), _ = met
    named = [line.split(" of ")[-1].split(";")[0].rsplit("/", 1)[-1] for line in of_rank_0["damaged"][1].splitlines()]
    assert sorted(named) == ["train-00000-of-00003.arrow", "train-00001-of-00003.arrow"]


def test_what_is_found_after_the_ranks_have_met_is_said_by_the_first_that_has_it(met):
    both, _ = met
    assert [seen["late"][0] for seen in both] == [2, 2]
    said = [seen["late"][1].splitlines() for seen in both]
    lines = said[0] + said[1]
    announced = [line for line in lines if "an engine that cannot be built; expected" in line]
    assert len(announced) == 1
    assert f" of 2 on {HOST}: found an engine that cannot be built" in announced[0]
    assert not any("Traceback" in line for line in lines)


def test_a_defect_of_one_rank_shows_its_traceback_with_rank_and_host(met):
    _, launched = met
    assert launched.returncode != 0
    own = [line for line in launched.stdout.splitlines() if line.startswith(f"[rank 1 of 2 on {HOST}] ")]
    assert own[0].endswith("Traceback (most recent call last):")
    assert own[-1].endswith("ZeroDivisionError: a defect of one rank")
    others = [line for line in launched.stdout.splitlines() if line.startswith(f"[rank 0 of 2 on {HOST}] ")]
    assert len(others) <= 1, "of the ranks that fail because of it, a line at most"
    assert "destroy_process_group" not in launched.stdout
