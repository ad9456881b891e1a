"""One run that is broken, continued until it is finished, and compared; what counts as a loss is judged here."""

import json
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from scripts.chaos.jobs import LOG, Forked, Job, Stuck, Torchrun, is_reached, wait_for
from scripts.chaos.moments import Hold
from scripts.chaos.plan import AT_BOUNDARY, Blow, Blows, Course, hold_of
from scripts.chaos.programs import INTERVAL_STEPS, MACHINES, Machine, Material, Program, differences
from scripts.chaos.strikes import STOPPED_BY_SIGNAL, STRIKES, Survivor

PHASES = {"pretraining": {"phase1": 8, "phase2": 6}, "fine-tuning": {"fine_tuning": 10}, "export": {}}
PLAIN = MACHINES["torch fp32"]
REACH_SECONDS = 240.0  # for a program to come to a moment, or to its end
MAX_AGAIN = 2 * INTERVAL_STEPS  # steps that are computed again: one checkpoint may be in flight


@dataclass
class Struck:
    """A blow that was dealt. reached, saved: steps since the start of the run, by metrics.jsonl and by checkpoints."""

    run: int
    program: str
    machine: str
    world_size: int
    launcher: str
    moment: str
    strike: str
    reached: int = 0
    saved: int = 0
    losses: list[str] = field(default_factory=list)


@dataclass
class Finished:
    """A run that was broken, continued and compared. starts: "ranks x machine", one after the other."""

    run: int
    program: str
    is_elastic: bool
    starts: list[str]
    num_blows: int
    distance: float  # ||w - w'|| / ||w'|| to the undisturbed run's weights
    losses: list[str]


class Runs:
    """Runs in one folder, and the undisturbed ones that they are compared with.

    machines: names of those to draw from. torchrun_every: how many starts use torchrun, 0: none.
    """

    def __init__(self, folder: Path, *, seed: int, machines: Sequence[str], torchrun_every: int) -> None:
        self.folder, self.machines, self.torchrun_every = folder, machines, torchrun_every
        self.drawn = random.Random(seed)
        self.blows = Blows(self.drawn)
        self.material = Material(folder / "material")
        self.material.make()
        self.struck: list[Struck] = []
        self.finished: list[Finished] = []
        self._num_starts = 0
        self._jobs: list[Job] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Whatever ended it: no rank is left."""
        for job in self._jobs:
            if not job.is_over():
                job.kill()

    def break_one(self, course: Course, *, max_blows: int) -> None:
        """Deal a run its blows, continue it until it is finished, and compare it."""
        number = len(self.finished) + 1
        program = Program(course.program, PHASES[course.program], self.material, has_dropout=course.machine is not None)
        run_dir = self.folder / f"run-{number}" / "run"
        run_dir.parent.mkdir()
        expected = self._expected(program, course, run_dir)
        blows = self.blows.of_run(program, is_elastic=course.machine is None)[:max_blows]
        if blows[-1].strike == "left behind":  # the next start is to wake it
            blows[-1] = replace(blows[-1], strike="kill all")
        first, starts, losses = len(self.struck), list[tuple[int, Machine]](), list[str]()
        survivor: Survivor | None = None
        while not losses:
            world_size, machine = self._place(course, starts, blows)
            starts.append((world_size, machine))
            of_start = _of_start(blows, program, run_dir, world_size)
            holds = [hold_of(blow, world_size, index, self.drawn) for index, blow in enumerate(of_start)]
            saved = program.newest(run_dir)
            job = self._start(program, run_dir, machine, world_size, holds)
            has_ended = False  # by a blow
            for blow, hold in zip(of_start, holds, strict=True):
                try:
                    if not is_reached(job, hold, seconds=REACH_SECONDS):
                        break
                    if survivor is not None:
                        survivor.wake()
                    survivor, trouble = STRIKES[blow.strike].act(job, hold), []
                except Stuck as error:
                    job.kill()
                    survivor, trouble = None, [f"{error}: {said(job)}"]
                launcher = type(job).__name__.lower()
                row = Struck(number, program.name, machine.name, world_size, launcher, blow.moment, blow.strike)
                row.reached, row.saved = program.reached(run_dir), program.total_step(program.newest(run_dir))
                has_ended = not STRIKES[blow.strike].goes_on
                row.losses = trouble + (_lost(row, job, program, saved) if has_ended else [])
                self.struck.append(row)
                losses += row.losses
                print(f"{len(self.struck):4}  {describe(row)}", file=sys.stderr, flush=True)
            if job.status is None:
                wait_for(job.is_over, seconds=REACH_SECONDS)
            losses += _lost_at_start(job, program, saved)
            if job.status == 0:
                break
            if not has_ended:
                losses.append(f"ends by itself with status {job.status}: {said(job)}")
        distance = 0.0
        if not losses:
            losses, distance = differences(program, run_dir, expected, is_same_machine=course.machine is not None)
        names = [f"{world_size} x {machine.name}" for world_size, machine in starts]
        num_blows = len(self.struck) - first
        is_elastic = course.machine is None
        self.finished.append(Finished(number, program.name, is_elastic, names, num_blows, distance, losses))

    def _place(self, course: Course, starts: list[tuple[int, Machine]], blows: Sequence[Blow]) -> tuple[int, Machine]:
        """Ranks and machine of the next start; an elastic run never has the ranks of the start before."""
        if course.machine is not None:
            return course.world_size, course.machine
        sizes = {1, 2, 3} - {size for size, _ in starts[-1:]}
        if blows and STRIKES[blows[0].strike].num_ranks > 1:
            sizes -= {1}
        world_size = self.drawn.choice(sorted(sizes))
        exact = [MACHINES[name] for name in self.machines if name.endswith("fp32")]
        return world_size, self.drawn.choice([machine for machine in exact if machine.max_ranks >= world_size])

    def _start(self, program: Program, run_dir: Path, machine: Machine, world_size: int, holds: Sequence[Hold]) -> Job:
        self._num_starts += 1
        folder = self.folder / f"start-{self._num_starts}"
        folder.mkdir()
        (folder / "holds.json").write_text(json.dumps([asdict(hold) for hold in holds]))
        is_due = self.torchrun_every > 0 and self._num_starts % self.torchrun_every == 0
        starter = Torchrun if is_due and program.name != "export" else Forked
        self._jobs = [job for job in self._jobs if job.status is None]
        self._jobs.append(starter(program.words(run_dir, machine), world_size, folder))
        return self._jobs[-1]

    def _undisturbed(self, program: Program, machine: Machine, world_size: int) -> Path:
        """The folder of this program's run on this machine that nobody breaks."""
        name = f"{program.name}-{machine.name}-{world_size}{'-dropout' if program.has_dropout else ''}"
        run_dir = self.folder / "undisturbed" / name.replace(" ", "-")
        if not run_dir.exists():
            run_dir.parent.mkdir(exist_ok=True)
            job = self._start(program, run_dir, machine, world_size, [])
            wait_for(job.is_over, seconds=REACH_SECONDS)
            if job.status != 0:
                raise Stuck(f"the undisturbed {program.name} ended with status {job.status}: {said(job)}")
        return run_dir

    def _expected(self, program: Program, course: Course, run_dir: Path) -> Path:
        if program.name == "export":
            trained = Program("pretraining", PHASES["pretraining"], self.material, has_dropout=False)
            source = self._undisturbed(trained, PLAIN, 1)
            for folder in (run_dir.parent, source.parent):
                if not (folder / "trained").exists():
                    (folder / "trained").symlink_to(source)
        if course.machine is None:
            return self._undisturbed(program, PLAIN, 1)
        return self._undisturbed(program, course.machine, course.world_size)


def _of_start(blows: list[Blow], program: Program, run_dir: Path, world_size: int) -> list[Blow]:
    """Take the blows of one start off the list: all but the last let the program go on."""
    taken: list[Blow] = []
    while blows and (not taken or STRIKES[taken[-1].strike].goes_on):
        blow = blows.pop(0)
        if blow.strike == "kill another" and world_size == 1:
            blow = replace(blow, strike="kill rank")
        is_phase_over = program.newest(run_dir) == (blow.phase, blow.step) and blow.moment in AT_BOUNDARY
        if is_phase_over and list(program.phases)[-1] != blow.phase:
            blow = replace(blow, moment="switch")
        taken.append(blow)
    return taken


def _lost(row: Struck, job: Job, program: Program, saved: tuple[str, int] | None) -> list[str]:
    """What a blow that ended the program has cost beyond what it may. saved: the newest checkpoint before the start."""
    losses = []
    if row.saved < program.total_step(saved):
        losses.append(f"step {row.saved} is the newest checkpoint, which was {saved}")
    if STRIKES[row.strike].asks:
        if row.launcher == "forked" and job.status not in (0, *STOPPED_BY_SIGNAL):
            losses.append(f"status {job.status} upon SIGTERM: {said(job)}")
        if row.saved != row.reached:
            losses.append(f"step {row.saved} saved of {row.reached} upon SIGTERM")
    elif row.reached - row.saved > MAX_AGAIN:
        losses.append(f"step {row.saved} saved of {row.reached}")
    return losses


def _lost_at_start(job: Job, program: Program, saved: tuple[str, int] | None) -> list[str]:
    """Whether a start passed over something, or continued elsewhere than at the newest checkpoint."""
    text = (job.folder / LOG).read_text(errors="replace")
    losses = [line for line in text.splitlines() if "passed over" in line]
    found = re.search(r"continues after (\S+) step ([\d,]+)", text)
    if found is not None:
        at = (found[1], int(found[2].replace(",", "")))
        if at != saved:
            losses.append(f"continued after {at}, not {saved}")
    elif saved is not None and job.status == 0 and program.total_step(saved) < sum(program.phases.values()):
        losses.append(f"began anew, not after {saved}")
    return losses


def said(job: Job) -> str:
    """The end of what a program said."""
    return (job.folder / LOG).read_text(errors="replace")[-1500:]


def describe(row: Struck) -> str:
    where = f"{row.program}, {row.world_size} x {row.machine}, {row.launcher}"
    return f"{where}: {row.moment}, {row.strike}; step {row.reached}, saved {row.saved}" + "".join(
        f"\n      LOST: {loss}" for loss in row.losses
    )
