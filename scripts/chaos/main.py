"""Break runs at exact moments, continue them, compare them with undisturbed ones, and print what came out.

    python -m scripts.chaos --kills 40 --seed 1 --out scripts/chaos/results/NAME.json
    python -m scripts.chaos --kills 4 --machines "fsdp fp32" --torchrun-every 0     # seconds

README.md says what is broken, and what counts as a loss. The exit status is 1 if anything was lost.
"""

import argparse
import gc
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from kit.results import write_result
from kit.surroundings import surroundings
from kit.table import Column, table

from scripts.chaos.moments import MOMENTS
from scripts.chaos.plan import courses
from scripts.chaos.programs import MACHINES
from scripts.chaos.runs import Finished, Runs
from scripts.chaos.strikes import STRIKES

BY_MOMENT = (
    Column("moment", lambda r: MOMENTS[r[0]].words, is_text=True),
    *(Column(name, lambda r, name=name: str(r[1][name] or "")) for name in STRIKES),
    Column("lost", lambda r: str(r[2])),
)
BY_RUN = (
    Column("run", lambda r: str(r.run)),
    Column("program", lambda r: r.program, is_text=True),
    Column("blows", lambda r: str(r.num_blows)),
    Column("result", lambda r: result_of(r), is_text=True),
    Column("starts", lambda r: starts_of(r), is_text=True),
)


def result_of(run: Finished) -> str:
    if run.losses:
        return "LOST"
    return f"{run.distance:.0e} from one process" if run.is_elastic else "the same bits"


def starts_of(run: Finished) -> str:
    return ", ".join(run.starts) if run.is_elastic else f"{len(run.starts)} of {run.starts[0]}"


def warm_up(machines: Sequence[str]) -> None:
    """Import what ranks need before they are forked, and compose a configuration for what that leaves behind."""
    torch.set_num_threads(1)
    if any(name.startswith("ZeRO") for name in machines):
        import deepspeed  # noqa: F401

    import bert_lamb.checkpoint.export
    import bert_lamb.cli.commands
    import bert_lamb.engine.fsdp_engine
    import bert_lamb.finetuning.squad.command
    import bert_lamb.pretraining.command  # noqa: F401
    from bert_lamb.cli.compose import compose

    compose("pretrain", ["recipe=demo", "shards=unused", "run_dir=unused"])
    gc.collect()
    gc.freeze()  # so that ranks do not copy what they inherit


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40, help="blows that end a program or stop a rank, at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--machines", nargs="+", choices=list(MACHINES), default=list(MACHINES), metavar="NAME")
    parser.add_argument("--programs", nargs="+", default=["pretraining", "fine-tuning", "export"], metavar="NAME")
    parser.add_argument("--torchrun-every", type=int, default=7, help="one start in so many is torchrun's; 0: none")
    parser.add_argument("--folder", type=Path, help="a folder for the runs, which stay; default: a temporary one")
    parser.add_argument("--out", type=Path, help="a JSON file for every blow and the surroundings")
    settings = parser.parse_args(arguments)
    settings.device = "cpu"
    return settings


def main() -> int:
    settings = parse()
    os.environ |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
    warm_up(settings.machines)
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bert-lamb-chaos-") as temporary:
        folder = settings.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        every = settings.torchrun_every
        with Runs(folder, seed=settings.seed, machines=settings.machines, torchrun_every=every) as runs:
            drawn = courses(random.Random(settings.seed), settings.machines)
            chosen = (course for course in drawn if course.program in settings.programs)
            while len(runs.struck) < settings.kills:
                runs.break_one(next(chosen), max_blows=settings.kills - len(runs.struck))
                if settings.out:  # so far
                    write_result(settings.out, result_so_far(settings, runs, time.monotonic() - started_at))
    report(runs, seconds=time.monotonic() - started_at)
    gc.unfreeze()  # or what is left at the interpreter's end is reported as leaked
    return 1 if any(run.losses for run in runs.finished) else 0


def result_so_far(settings: argparse.Namespace, runs: Runs, seconds: float) -> dict[str, Any]:
    around = surroundings(settings, packages=("deepspeed", "transformers", "numpy", "safetensors"))
    return {
        **around,
        "command": around["command"].replace("python scripts/chaos/__main__.py", "python -m scripts.chaos"),
        "seconds": round(seconds),
        "num_blows": len(runs.struck),
        "num_lost": sum(bool(run.losses) for run in runs.finished),
        "blows": [asdict(row) for row in runs.struck],
        "runs": [asdict(run) for run in runs.finished],
    }


def report(runs: Runs, *, seconds: float) -> None:
    """Print blows by moment and strike, every run, and a line on all of it."""
    by_moment = []
    for moment in MOMENTS:
        rows = [row for row in runs.struck if row.moment == moment]
        if rows:
            by_moment.append((moment, Counter(row.strike for row in rows), sum(bool(row.losses) for row in rows)))
    print(table(BY_MOMENT, by_moment))
    print()
    print(table(BY_RUN, runs.finished))
    lost = [run for run in runs.finished if run.losses]
    for run in lost:
        print(f"\nrun {run.run} lost: " + "; ".join(run.losses), file=sys.stderr)
    print(f"\n{len(runs.struck)} blows, {len(runs.finished)} runs, {len(lost)} lost; {seconds:.0f} s")
