"""Runs at the same time, each in a process of its own; what one prints goes to its log."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bert_lamb.errors import UserError
from bert_lamb.study.grid import Cell
from bert_lamb.train.stop import STOPPED_BY_SIGNAL, StopFlag

POLL_SECONDS = 0.2
LAST_LINES = 40  # of a log, in which the reason of a failure is looked for


@dataclass
class Launcher:
    """How a cell becomes a process: `launch` bert-lamb study WORDS study.cell=NAME. threads: of each on a CPU.

    The process is told that nothing is left to launch.
    """

    words: list[str]
    launch: str
    logs: Path
    threads: int

    def start(self, cell: Cell) -> subprocess.Popen[bytes]:
        words = [word for word in self.words if not word.startswith(("study.cell=", "study.launch="))]
        command = [*shlex.split(self.launch), sys.executable, "-m", "bert_lamb", "study"]
        command += [*words, "study.launch=", f"study.cell={cell.name}"]
        environment = {"OMP_NUM_THREADS": str(self.threads), **os.environ}
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log_of(cell).open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def log_of(self, cell: Cell) -> Path:
        return self.logs / f"{cell.name}.log"


def check_launch(launch: str) -> None:
    """Raise UserError for words that no shell would read, or that do not begin with a program of this machine."""
    try:
        words, reason = shlex.split(launch), ""
    except ValueError as error:
        words, reason = [], str(error)
    if words and shutil.which(words[0]) is None:
        reason = f"{words[0]} is not a program here"
    if reason:
        raise UserError(
            found=f"study.launch={launch} ({reason})",
            expected="a program and its arguments, as a shell would read them",
            fix="set study.launch",
        )


def threads_of(parallel_runs: int) -> int:
    """Threads of each of so many runs of this machine at once."""
    return max(1, (os.cpu_count() or 1) // parallel_runs)


@dataclass
class Running:
    cell: Cell
    process: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.monotonic)


def run_all(
    next_cell: Callable[[set[str]], Cell | None],
    launcher: Launcher,
    *,
    at_once: int,
    stop: StopFlag,
    done: Callable[[Cell, float], None],
) -> bool:
    """Run what next_cell(names at work) gives until it gives none and nothing is at work; whether all of it was done.

    done: called after each run with its seconds. A signal is passed on, and every run saves; then the answer is False.
    A run that fails ends the others in the same way; raises UserError with its line.
    """
    running: list[Running] = []
    failed: Running | None = None
    is_told = False
    while True:
        while failed is None and not stop.is_asked and len(running) < at_once:
            cell = next_cell({one.cell.name for one in running})
            if cell is None:
                break
            running.append(Running(cell, launcher.start(cell)))
        if not running:
            break
        if (failed is not None or stop.is_asked) and not is_told:
            is_told = True
            for one in running:
                one.process.send_signal(signal.SIGTERM)
        time.sleep(POLL_SECONDS)
        for one in [one for one in running if one.process.poll() is not None]:
            running.remove(one)
            if one.process.returncode == 0:
                done(one.cell, time.monotonic() - one.started_at)
            elif not (is_told and one.process.returncode in (STOPPED_BY_SIGNAL, -signal.SIGTERM)):
                failed = failed or one
    if failed is not None:
        raise failure(failed.cell, failed.process.returncode, launcher.log_of(failed.cell))
    return not stop.is_asked


def failure(cell: Cell, status: int, log: Path) -> UserError:
    """What a run that ended without a result said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    of_ours = [line for line in lines if line.startswith("bert-lamb study: ")]
    last = of_ours[-1].removeprefix("bert-lamb study: ") if of_ours else next(iter(lines[::-1]), "nothing said")
    return UserError(
        found=f"run {cell.name}, which ended with status {status}: {last}",
        expected="a run that ends, or diverges",
        fix=f"see {log}, then call it again: what is done is kept",
    )
