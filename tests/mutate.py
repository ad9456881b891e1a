"""Break the code on purpose, one line at a time, and show that some test turns red.

usage: python tests/mutate.py [part of a name] ...     without arguments: every mutation of tests/**/mutations.txt

Each mutation is applied to a copy of the tree, where the tests named with it run until the first failure. Prints one
line for each; the exit status is 1 if a mutation survived. test_mutations.py holds the lists to the code as it is.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LISTS = sorted((CHECKOUT / "tests").rglob("mutations.txt"))  # one for each room
PARTS = [".ci", ".github", "bert_lamb", "conf", "data_prep", "docs", "scripts", "tests"]
PARTS += [path.name for path in sorted(CHECKOUT.iterdir()) if path.is_file() and not path.name.startswith(".")]


@dataclass(frozen=True)
class Mutation:
    """`old` occurs once in `file` and becomes `new`; some test of `tests` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]


def read_lists() -> list[Mutation]:
    """The mutations of every room."""
    return [mutation for path in LISTS for mutation in read_list(path)]


def read_list(path: Path) -> list[Mutation]:
    """Blocks of five fields, `name:`, `file:`, `old:`, `new:` and `tests:`; \\n in old and new is a line's end."""
    mutations = []
    for block in path.read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            fields = dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in lines)
            old, new = (fields[key].replace("\\n", "\n") for key in ("old", "new"))
            mutations.append(Mutation(fields["name"], fields["file"], old, new, fields["tests"].split()))
    return mutations


def is_noticed(mutation: Mutation) -> bool:
    """Whether a test fails on the mutated tree; raises ValueError when the tests cannot be run at all."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        tree = Path(folder)
        for part in PARTS:
            source = CHECKOUT / part
            if source.is_dir():
                shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / part)
        target = tree / mutation.file
        text = target.read_text()
        if text.count(mutation.old) != 1:
            raise ValueError(f"{mutation.name}: {mutation.old!r} occurs {text.count(mutation.old)} times")
        target.write_text(text.replace(mutation.old, mutation.new))
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutation.tests],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode not in (0, 1):  # pytest: 1 some test failed; 2 and above it could not run
            raise ValueError(f"{mutation.name}: pytest ended with {finished.returncode}\n{finished.stdout[-2000:]}")
        return finished.returncode == 1


def main(arguments: list[str]) -> int:
    chosen = [m for m in read_lists() if not arguments or any(part in m.name for part in arguments)]
    num_survivors = 0

    def judge(mutation: Mutation) -> tuple[Mutation, bool, float]:
        started = time.monotonic()
        return mutation, is_noticed(mutation), time.monotonic() - started

    with ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) // 2)) as pool:
        for mutation, noticed, seconds in pool.map(judge, chosen):
            num_survivors += not noticed
            print(f"{'red' if noticed else 'SURVIVED':9}{seconds:6.0f} s  {mutation.file}: {mutation.name}", flush=True)
    print(f"{len(chosen) - num_survivors} of {len(chosen)} mutations were noticed")
    return 1 if num_survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
