"""Wrong words, environments and files over all commands; prints what is not as it should be.

usage: python -m tests.fuzz [--seed 0] [--only TEXT] [--processes 2] [--out tests/fuzz/result.json]

--only: cases whose kind begins with TEXT, or whose job or number it is. The exit status is 1 if anything was found.
"""

import argparse
import gc
import json
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from tests.fuzz.cases import JOBS, Case, Found, group, make_cases, run_case
from tests.fuzz.material import make_material

# What commands import when they run, so that no child has to.
IMPORTED = (
    *("datasets", "matplotlib.pyplot", "scipy.stats", "sklearn.metrics"),
    *(f"bert_lamb.{name}" for name in ("cli.commands", "doctor.command", "report", "shards.inspect", "shards.verify")),
    *(f"bert_lamb.finetuning.{name}" for name in ("glue.command", "squad.command", "squad.ask", "squad.score_command")),
    *(f"bert_lamb.pretraining.{name}" for name in ("command", "evaluate")),
    *(f"bert_lamb.checkpoint.{name}" for name in ("export", "push", "importing.command")),
    *(f"data_prep.{name}" for name in ("prepare", "vocab", "demo.corpus")),
)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--log", type=Path, help="a jsonl file with every case")
    options = parser.parse_args()
    cases = [
        case
        for case in make_cases(options.seed)
        if options.only in (str(case.number), case.job) or case.kind.startswith(options.only)
    ]
    with tempfile.TemporaryDirectory() as name:
        material = Path(name) / "material"
        wait_for(
            start_child(lambda: make_material(material))
        )  # so that no library has threads here, which a child would miss
        for module in IMPORTED:
            import_module(module)
        gc.freeze()  # or the first collection of every child would copy all pages
        results = run_all(cases, options.seed, material, Path(name), options.processes, options.log)
    grouped = group(results)
    for (command, fault), those in sorted(grouped.items(), key=lambda pair: -len(pair[1])):
        first = those[0].case
        print(f"{len(those):4} {command}: {fault}")
        print(f"       case {first.number}: {first.kind}; {first.broken or first.words[-2:]}")
    if options.out:
        options.out.write_text(json.dumps(summary(options.seed, results), indent=1) + "\n")
    print(f"{len(results)} cases, {sum(bool(one.faults) for one in results)} of them not as they should be")
    return 1 if grouped else 0


def run_all(
    cases: list[Case], seed: int, material: Path, scratch: Path, num_processes: int, log: Path | None
) -> list[Found]:
    """Each process takes every so manieth case."""
    files = [scratch / f"results{number}" for number in range(num_processes)]

    def run_share(number: int) -> None:
        found = [_run(case, seed, material, scratch, log) for case in cases[number::num_processes]]
        files[number].write_bytes(pickle.dumps(found))

    for child in [start_child(partial(run_share, number)) for number in range(num_processes)]:
        wait_for(child)
    return [one for file in files for one in pickle.loads(file.read_bytes())]


def start_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait_for(child: int) -> None:
    assert os.waitpid(child, 0)[1] == 0


def _run(case: Case, seed: int, material: Path, scratch: Path, log: Path | None) -> Found:
    found = run_case(case, seed, material, scratch)
    if log is not None:
        about = {"number": case.number, "job": case.job, "kind": found.case.kind, "broken": found.case.broken}
        about |= {"words": [word[:200] for word in case.words], "variables": case.surroundings.variables}
        said = {name: text[-3000:] for name, text in (("out", found.outcome.stdout), ("err", found.outcome.stderr))}
        with log.open("a") as stream:
            line = {**about, "status": found.outcome.status, "faults": found.faults, **said}
            stream.write(json.dumps(line) + "\n")
    return found


def summary(seed: int, results: list[Found]) -> dict[str, object]:
    command = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def counted(keys: list[str]) -> dict[str, int]:
        return dict(sorted(Counter(keys).items()))

    return {
        "command": f"python -m tests.fuzz --seed {seed}",
        "commit": commit,
        "seed": seed,
        "num_cases": len(results),
        "by_command": counted([JOBS[one.case.job].command for one in results]),
        "by_kind": counted([one.case.kind for one in results]),
        "by_exit_status": counted([str(one.outcome.status) for one in results]),
        "not_as_they_should_be": sorted(
            {f"case {one.case.number}: {fault}" for one in results for fault in one.faults}
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
