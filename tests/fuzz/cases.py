"""The cases of a seed: which job, broken how."""

import random
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tests.fuzz import environments, files, overrides
from tests.fuzz.environments import Surroundings
from tests.fuzz.material import JOBS, Job
from tests.fuzz.runner import Outcome, call
from tests.fuzz.verdict import faults

OVERRIDES_PER_KEY, WORDS_PER_JOB = 2, 12
VARIABLES_PER_COMMAND, STREAMS_PER_COMMAND, IN_THE_WAY_PER_JOB = 4, 1, 5
FILES_PER_JOB, FILES_PER_LIGHT_JOB = 8, 42
LIGHT = ("verify", "inspect", "score", "push", "import", "export", "ask")  # commands without training or figures
# One job of each command is enough for what does not depend on its files.
OF_EACH_COMMAND = tuple({JOBS[name].command: name for name in reversed(JOBS)}.values())


@dataclass(frozen=True)
class Case:
    """number: with the seed all it takes to make it again. broken: the file that is broken, and how."""

    number: int
    kind: str
    job: str
    words: tuple[str, ...]
    surroundings: Surroundings = field(default_factory=Surroundings)
    broken: str | None = None


@dataclass(frozen=True)
class Found:
    case: Case
    outcome: Outcome
    faults: list[str]


def make_cases(seed: int) -> list[Case]:
    """Every case of a seed, in an order in which the kinds are mixed."""
    drawn: list[Case] = []

    def draws_of(*names: object) -> random.Random:
        return random.Random(zlib.crc32(repr((seed, *names)).encode()))

    for job in OF_EACH_COMMAND:
        for kind, words in (
            *overrides.with_wrong_values(job, draws_of(job, "values"), per_key=OVERRIDES_PER_KEY),
            *overrides.with_wrong_words(job, draws_of(job, "words"), number=WORDS_PER_JOB),
        ):
            drawn.append(Case(len(drawn), kind, job, words))
        for kind, surroundings in (
            *environments.with_wrong_variables(job, draws_of(job, "variables"), number=VARIABLES_PER_COMMAND),
            *environments.with_closed_streams(job, draws_of(job, "streams"), number=STREAMS_PER_COMMAND),
        ):
            drawn.append(Case(len(drawn), kind, job, JOBS[job].words, surroundings))
    for job in JOBS:
        for kind, words in environments.with_something_in_the_way(job, draws_of(job, "way"), number=IN_THE_WAY_PER_JOB):
            drawn.append(Case(len(drawn), kind, job, words))
        num_files = FILES_PER_LIGHT_JOB if JOBS[job].command in LIGHT else FILES_PER_JOB
        for number in range(num_files if job != "demo-data" else 0):
            drawn.append(Case(len(drawn), "file", job, JOBS[job].words, broken=str(number)))
    draws_of("order").shuffle(drawn)
    return drawn


def run_case(case: Case, seed: int, material: Path, scratch: Path) -> Found:
    """Make what the case reads, break it, call, and judge."""
    job = JOBS[case.job]
    folder = scratch / f"case{case.number}"
    prepare_folder(job, material, folder)
    is_sealed, kind, broken = False, case.kind, case.broken
    if broken is not None:
        kind, broken, is_sealed = break_a_file(job, folder, random.Random(f"{seed}/{case.number}"))
    (folder / ".begun").write_text("")
    outcome = call(case.words, folder, case.surroundings.variables, closed=case.surroundings.closed)
    found = list(faults(job, case.words, outcome, folder, material, is_sealed=is_sealed))
    if "12" in case.surroundings.closed:
        found = [one for one in found if "silence" not in one]
    elif case.surroundings.closed:
        found = [one for one in found if "silence" not in one and "what score prints" not in one]
    shutil.rmtree(folder)
    return Found(Case(case.number, kind, case.job, case.words, case.surroundings, broken), outcome, found)


def prepare_folder(job: Job, material: Path, folder: Path) -> None:
    folder.mkdir()
    for name in {*job.reads, "text.txt"}:
        if (material / name).is_dir():
            shutil.copytree(material / name, folder / name)
        elif (material / name).exists():
            shutil.copy(material / name, folder / name)
    (folder / "dangling").symlink_to("nowhere")
    (folder / "looping").symlink_to("looping")


def files_of(job: Job, folder: Path) -> list[Path]:
    """Those of a job that are worth breaking."""
    read = [folder / name for name in job.reads]
    found = [file for one in read for file in ([one] if one.is_file() else sorted(one.rglob("*"))) if file.is_file()]
    return [
        file for file in found if any(fnmatchcase(str(file.relative_to(folder)), pattern) for pattern in job.breaks)
    ]


def break_a_file(job: Job, folder: Path, draws: random.Random) -> tuple[str, str, bool]:
    """(kind, what was done to which file, whether the file is under a hash and its bytes have changed)."""
    file = draws.choice(files_of(job, folder))
    kinds = files.kinds_for(file)
    name = draws.choice(list(kinds))
    before = file.read_bytes()
    kinds[name](file, draws)
    is_changed = file.is_symlink() or not file.is_file() or file.read_bytes() != before
    if is_changed and job.is_end_open and file.is_file() and not file.is_symlink():
        is_changed = not file.read_bytes().startswith(before)
    place = str(file.relative_to(folder))
    is_sealed = is_changed and any(fnmatchcase(place, f"*{pattern}") for pattern in job.sealed)
    return f"file: {name}", f"{place}: {name}", is_sealed


def signature(fault: str) -> str:
    """A fault without what differs from case to case, so that one kind is listed once."""
    return re.sub(r"case\d+|0x[0-9a-f]+|\d+", "#", fault)[:110]


def group(results: Iterator[Found] | list[Found]) -> dict[tuple[str, str], list[Found]]:
    grouped: dict[tuple[str, str], list[Found]] = {}
    for found in results:
        for fault in found.faults:
            grouped.setdefault((JOBS[found.case.job].command, signature(fault)), []).append(found)
    return grouped
