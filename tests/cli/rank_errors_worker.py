"""One of two ranks that meets mistakes of every kind, one after the other; test_rank_errors.py reads what it said.

usage, under torchrun: rank_errors_worker.py FOLDER [argument of pretrain ...]
"""

import contextlib
import fcntl
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bert_lamb.cli import faults
from bert_lamb.cli import main as cli
from bert_lamb.engine.launch import join_process_group, this_process
from bert_lamb.errors import UserError


class LeftAlone(Exception):
    """Instead of the process's end, so that one launch serves many cases."""


def leave(status: int) -> int:
    raise LeftAlone(status)


def main(folder: Path, arguments: list[str]) -> int:
    rank = int(os.environ["RANK"])
    # Joined here, so that one process group serves every case: torchrun's store knows the addresses of the first alone.
    join_process_group(this_process(device="cpu", num_threads=1))
    seen: dict[str, tuple[int, str]] = {}

    def meet(name: str, *more: str) -> None:
        said = io.StringIO()
        words = ["pretrain", *arguments, f"run_dir={folder}/{name}", *more]
        with contextlib.redirect_stderr(said):
            try:
                status = cli.main(words)
            except LeftAlone as left:
                status = left.args[0]
        seen[name] = status, said.getvalue()

    leave_for_good, faults.leave_alone = faults.leave_alone, leave_or_return
    meet("configuration", "phases.phase1.total_steps=0")
    meet("engine", "runtime.engine=torch")
    meet("damaged", f"shards={folder}/damaged")
    if rank == 1:
        meet("one_rank", "shards=/nowhere")
    else:
        meet("one_rank")
    (folder / f"strangers{rank}").touch()
    meet("strangers")
    (folder / "held").mkdir(exist_ok=True)
    with (folder / "held" / "lock").open("w") as lock:
        if rank == 1:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "is_held").touch()
        else:
            await_file(folder / "is_held")
        meet("held")
    meet("override", "+runtime.deepspeed_overrides.optimizer.type=Adam")
    with a_mistake_after_all_have_met():
        meet("late")
    (folder / f"seen{rank}.json").write_text(json.dumps(seen))
    faults.leave_alone = leave_for_good
    torch.distributed.distributed_c10d._get_default_store().set("failed", "0")
    torch.distributed.barrier()
    if rank == 1:
        break_the_training()
    return cli.main(["pretrain", *arguments, f"run_dir={folder}/broken"])


def leave_or_return(status: int) -> int:
    return leave(status) if faults._is_connected() else status


@contextlib.contextmanager
def a_mistake_after_all_have_met() -> Iterator[None]:
    """Where every rank finds it by itself, and no rank can wait for the others to agree."""
    from bert_lamb.pretraining import build

    def refuse(*rest: object, **more: object) -> None:
        raise UserError(found="an engine that cannot be built", expected="one that can", fix="none")

    original, build.build_engine = build.build_engine, refuse
    try:
        yield
    finally:
        build.build_engine = original


def await_file(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def break_the_training() -> None:
    from bert_lamb.train import run

    def train_stage(*rest: object, **more: object) -> None:
        raise ZeroDivisionError("a defect of one rank")

    run.train_stage = train_stage


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
