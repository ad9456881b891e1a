"""Ranks of which one is stopped, killed, busy or cut off; test_heartbeat.py reads what the others said, and when.

usage: lost_rank_worker.py FOLDER     one process forks all ranks of all cases, so that torch is imported once
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch

from bert_lamb.cli import faults
from bert_lamb.engine import agreement, heartbeat
from bert_lamb.engine.launch import bound_every_wait, join_process_group, this_process

TIMEOUT_SECONDS = 3.0
CASES = ("stopped", "killed", "killed_early", "busy", "first_stopped", "failed", "first_failed", "all_well")
WORLD_SIZE = 3


def misbehave(case: str) -> None:
    """What the lost rank does instead of the collective."""
    if case in ("stopped", "first_stopped"):
        os.kill(os.getpid(), signal.SIGSTOP)
    elif case == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif case == "busy":
        time.sleep(60)
    elif case in ("failed", "first_failed"):
        raise ZeroDivisionError("a defect of one rank")


def lost_rank_of(case: str) -> int:
    return 0 if case.startswith("first_") else 1


def rank_of(case: str, rank: int) -> None:
    # Time to meet, on a machine with other work; what is bounded is bounded after that.
    join_process_group(this_process(device="cpu", num_threads=1, timeout_seconds=120))
    assert heartbeat._here is not None
    heartbeat._here.timeout_seconds = TIMEOUT_SECONDS
    made_by_a_library = torch.distributed.new_group(list(range(WORLD_SIZE)))
    bound_every_wait(this_process(device="cpu", num_threads=1, timeout_seconds=TIMEOUT_SECONDS))
    values = torch.ones(2)
    torch.distributed.all_reduce(values, group=made_by_a_library)
    if case == "killed_early" and rank == lost_rank_of(case):
        os.kill(os.getpid(), signal.SIGKILL)
    heartbeat.enter("data", step="phase1 step 7")
    time.sleep(3 * heartbeat.BEAT_SECONDS)
    if rank == lost_rank_of(case):
        misbehave(case)
    heartbeat.enter("optimizer")
    torch.distributed.all_reduce(values, group=made_by_a_library)
    print(f"all of them: {values.tolist()}")
    sys.stdout.flush()
    os._exit(0)


def main(folder: Path) -> int:
    heartbeat.BEAT_SECONDS, heartbeat.HANGING_SECONDS = 0.2, 5.0
    heartbeat.STORE_SECONDS = agreement.STORE_SECONDS = 2.0
    started: dict[int, tuple[str, int, float]] = {}
    for case in CASES:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for rank in range(WORLD_SIZE):
            pid = os.fork()
            if pid == 0:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD_SIZE))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                log = os.open(folder / f"{case}{rank}.log", os.O_CREAT | os.O_WRONLY)
                os.dup2(log, 1)
                os.dup2(log, 2)
                try:
                    rank_of(case, rank)
                except Exception as error:
                    os._exit(faults.fail("pretrain", error))
            started[pid] = case, rank, time.monotonic()
    is_waited_for = {
        pid for pid, (case, rank, _) in started.items() if case in ("busy", "all_well") or rank != lost_rank_of(case)
    }
    while is_waited_for:
        pid, status = os.wait()
        case, rank, since = started.pop(pid)
        is_waited_for.discard(pid)
        seconds = time.monotonic() - since
        (folder / f"{case}{rank}.end").write_text(f"{os.waitstatus_to_exitcode(status)} {seconds}")
    for pid in started:
        os.kill(pid, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
