"""Runs as jobs of one of Hydra's launchers, on other machines too: all that can begin are handed over at once.

A round is one call of `bert-lamb study ... study.cell=NAME,NAME,...` with the launcher's words, which waits for its
jobs. What a run came to is read from the folder that all machines share, so that it counts even where the call dies.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bert_lamb.study.grid import Cell
from bert_lamb.study.processes import POLL_SECONDS, failure
from bert_lamb.train.stop import StopFlag

LOG = "jobs"
PATIENCE_SECONDS = 30.0  # after which a call that was asked to stop is no run of this machine that saves


@dataclass
class Jobs:
    """How cells become jobs. words: of the study, as Hydra reads them; of_launcher: spread=study/slurm and the like."""

    words: list[str]
    of_launcher: list[str]
    logs: Path

    @property
    def log(self) -> Path:
        return self.logs / f"{LOG}.log"

    def start(self, cells: list[Cell]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "bert_lamb", "study", "-m", *self.words]
        command += [f"study.cell={','.join(cell.name for cell in cells)}", *self.of_launcher]
        self.logs.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def run_rounds(
    waiting: Callable[[], list[Cell]],
    jobs: Jobs,
    *,
    stop: StopFlag,
    is_done: Callable[[Cell], bool],
    done: Callable[[Cell, float], None],
) -> bool:
    """Hand over what `waiting` gives, round after round, until it gives none; whether all of it was done.

    done: called once for each run, when its result is there, with the seconds since its round began. Upon a signal the
    call is ended, jobs of other machines go on, and the answer is False. Raises UserError where a round ends and a run
    of it has no result, with what was said last; the others of the round are done by then.
    """
    while cells := waiting():
        process, began_at = jobs.start(cells), time.monotonic()
        told_at: float | None = None
        while cells:
            has_ended = process.poll() is not None  # asked first, so that what it wrote last is seen below
            for cell in [cell for cell in cells if is_done(cell)]:
                cells.remove(cell)
                done(cell, time.monotonic() - began_at)
            if has_ended:
                break
            if stop.is_asked and told_at is None:
                told_at = time.monotonic()
                process.send_signal(signal.SIGTERM)
            elif told_at is not None and time.monotonic() - told_at > PATIENCE_SECONDS:
                process.kill()
            time.sleep(POLL_SECONDS)
        status = process.wait()
        if stop.is_asked:
            return False
        if cells:
            raise failure(cells[0], status, jobs.log)
    return True
