"""A rank that is lost: the others end in time, and one line names it.

Truth: which rank was made to stop, die or dawdle. Breaks that turn this file red: a group that keeps torch's half hour,
a rank that waits for a store that has left, a culprit taken from this rank's own place, every rank saying the same.
"""

import os
import socket
import subprocess
import sys

import pytest

from bert_lamb.engine.heartbeat import Beat, explain
from tests.engine.lost_rank_worker import CASES, TIMEOUT_SECONDS, WORLD_SIZE, lost_rank_of
from tests.launch import CHECKOUT

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """By case and rank: (exit status, seconds, lines it said)."""
    folder = tmp_path_factory.mktemp("lost")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    command = [sys.executable, "-m", "tests.engine.lost_rank_worker", str(folder)]
    subprocess.run(command, env=environment, cwd=CHECKOUT, timeout=120, check=True)
    found = {}
    for case in CASES:
        for rank in range(WORLD_SIZE):
            if (folder / f"{case}{rank}.end").exists():
                status, seconds = (folder / f"{case}{rank}.end").read_text().split()
                said = (folder / f"{case}{rank}.log").read_text().splitlines()
                found[case, rank] = int(status), float(seconds), said
    return found


def healthy(case):
    return [rank for rank in range(WORLD_SIZE) if rank != lost_rank_of(case)]


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("stopped", f"found no sign of life from rank 1 ({HOST}), last heard at phase1 step 7, data; expected every"),
        ("killed", f"found no sign of life from rank 1 ({HOST}), last heard at phase1 step 7, data; expected every"),
        ("killed_early", f"found no sign of life from rank 1 ({HOST}), last heard at before the first step; expected"),
        ("busy", f"found the other ranks waiting for rank 1 ({HOST}), alive, at phase1 step 7, data; expected every"),
    ],
)
def test_whoever_is_lost_is_named_once(ended, case, found):
    both = [ended[case, rank] for rank in healthy(case)]
    assert [status for status, *_ in both] == [1, 1]
    lines = [line for *_, said in both for line in said]
    assert len(lines) == 1, lines
    assert lines[0].startswith("bert-lamb pretrain: rank ")
    assert found in lines[0]
    assert lines[0].endswith("if_exists=resume" + (", or set a longer time" if case == "busy" else ""))


def test_without_the_rank_that_serves_the_store_nobody_waits_without_end(ended):
    for rank in healthy("first_stopped"):
        status, _, said = ended["first_stopped", rank]
        assert status == 1
        found = f"rank {rank} of 3 on {HOST}: found neither the other ranks nor rank 0's store (127.0.0.1:"
        assert [found in line for line in said] == [True]


def test_a_rank_that_hangs_alone_ends_when_the_others_are_gone(ended):
    """Its launcher would wait for it: it is neither stopped nor dead, nor in a collective that times out."""
    status, _, said = ended["busy", lost_rank_of("busy")]
    assert status == 1
    assert said[-1].startswith(f"rank 1 of 3 on {HOST}: found the other ranks gone, and this one for ")
    assert "at phase1 step 7, data" in said[-1]


def test_the_time_is_that_of_the_run_for_groups_that_libraries_make_too(ended):
    """Half a minute of slack for a busy machine; torch's own default is half an hour."""
    for (case, rank), (_, seconds, _) in ended.items():
        assert seconds < TIMEOUT_SECONDS + 40, (case, rank)


@pytest.mark.parametrize("case", ["failed", "first_failed"])
def test_ranks_that_wait_for_one_that_has_said_why_it_failed_leave_quietly(ended, case):
    assert ended[case, lost_rank_of(case)][2][-1].endswith("ZeroDivisionError: a defect of one rank")
    assert [ended[case, rank][::2] for rank in healthy(case)] == [(1, []), (1, [])]


def test_who_does_well_says_nothing(ended):
    assert [ended["all_well", rank][::2] for rank in range(WORLD_SIZE)] == [(0, ["all of them: [9.0, 9.0]"])] * 3


def beat(num_beats, place, num_entered, host="node"):
    return Beat(host, num_beats, place, num_entered, 1.0)


ENDS_WITHIN_A_BEAT = """
import sys, time
import torch
from bert_lamb.engine import heartbeat

heartbeat.BEAT_SECONDS = 1e-5
store = f"file://{sys.argv[1]}"
torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
heartbeat.start(rank=0, world_size=1, timeout_seconds=60)
time.sleep(0.1)
"""


def test_a_beat_on_its_way_does_not_abort_a_process_that_ends(tmp_path):
    """Nobody leaves the group here. A daemon thread that the interpreter's end finds in torch's C++ aborts (134)."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", ENDS_WITHIN_A_BEAT, str(tmp_path / "store")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([beat(5, "p step 3", 9), None], [beat(8, "p step 3", 9), None], "rank 1, of which nothing was heard"),
        (
            [beat(5, "p step 3", 9), beat(4, "p step 2", 5, "far")],
            [beat(8, "p step 3", 9), beat(4, "p step 2", 5, "far")],
            "no sign of life from rank 1 (far), last heard at p step 2",
        ),
        (
            [beat(5, "p step 3", 9), beat(4, "p step 2", 5)],
            [beat(8, "p step 3", 9), beat(7, "p step 2", 6)],
            "waiting for rank 1 (node), alive, at p step 2",
        ),
        (  # who is ahead is in the next collective already; nobody is to blame
            [beat(5, "p step 3", 9), beat(4, "p step 3", 10)],
            [beat(8, "p step 3", 9), beat(7, "p step 3", 10)],
            "no answer between the ranks at p step 3: all ranks are alive and equally far",
        ),
    ],
)
def test_the_verdict_by_hand(before, after, found):
    error = explain(before, after, beat(8, "p step 3", 9), rank=0, timeout_seconds=60)
    assert found in str(error)
