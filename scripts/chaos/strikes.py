"""What is done to the ranks of a program, of which one is held at a moment, and how the program then has to end."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from scripts.chaos.jobs import Job, Stuck, is_alive, wait_for
from scripts.chaos.moments import Hold

STOPPED_SECONDS = 1.0  # that a rank stays stopped
END_SECONDS = 60.0  # for ranks that lost another to leave by themselves, and for a checkpoint upon SIGTERM
STOPPED_BY_SIGNAL = (143, -signal.SIGTERM)


@dataclass
class Survivor:
    """A stopped rank that has outlived its job."""

    pid: int
    job: Job
    hold: Hold

    def wake(self) -> None:
        """Let it go on where it was held, until it has left or has been given time enough."""
        self.hold.go(self.job.folder).touch()
        os.kill(self.pid, signal.SIGCONT)
        try:
            wait_for(lambda: not is_alive(self.pid), seconds=10)
        except Stuck:
            os.kill(self.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Strike:
    """act: what is done; it lets the held rank go on, where that still lives. goes_on: the program continues.

    asks: it is asked to stop, and has to save. num_ranks: that it needs.
    """

    words: str
    act: Callable[[Job, Hold], Survivor | None]
    goes_on: bool = False
    asks: bool = False
    num_ranks: int = 1


def end(job: Job, hold: Hold) -> bool:
    """Let the held rank go on, and wait until all have left; False for those that did not, who are killed."""
    hold.go(job.folder).touch()
    try:
        wait_for(job.is_over, seconds=END_SECONDS)
    except Stuck:
        job.kill()
        return False
    return True


def kill_rank(job: Job, hold: Hold) -> None:
    os.kill(job.pid(hold.rank), signal.SIGKILL)
    _leave(job, hold)


def kill_another(job: Job, hold: Hold) -> None:
    os.kill(job.pid((hold.rank + 1) % job.world_size), signal.SIGKILL)
    _leave(job, hold)


def _leave(job: Job, hold: Hold) -> None:
    if not end(job, hold):
        raise Stuck(f"ranks that lost another were still there after {END_SECONDS:g} seconds")


def kill_all(job: Job, hold: Hold) -> None:
    job.kill()


def ask(job: Job, hold: Hold) -> None:
    job.ask_to_stop()
    if not end(job, hold):
        raise Stuck(f"no end within {END_SECONDS:g} seconds of SIGTERM")


def ask_rank(job: Job, hold: Hold) -> None:
    os.kill(job.pid(hold.rank), signal.SIGTERM)
    if not end(job, hold):
        raise Stuck(f"no end within {END_SECONDS:g} seconds of SIGTERM to one rank")


def stop_and_kill(job: Job, hold: Hold) -> None:
    os.kill(job.pid(hold.rank), signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    job.kill()


def stop_and_continue(job: Job, hold: Hold) -> None:
    os.kill(job.pid(hold.rank), signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    os.kill(job.pid(hold.rank), signal.SIGCONT)
    hold.go(job.folder).touch()


def leave_one(job: Job, hold: Hold) -> Survivor:
    pid = job.pid(hold.rank)
    os.kill(pid, signal.SIGSTOP)
    job.kill(spared=[hold.rank])
    return Survivor(pid, job, hold)


STRIKES = {
    "kill rank": Strike("SIGKILL of the rank", kill_rank),
    "kill another": Strike("SIGKILL of another rank", kill_another, num_ranks=2),
    "kill all": Strike("SIGKILL of all", kill_all),
    "term": Strike("SIGTERM", ask, asks=True),
    "term rank": Strike("SIGTERM to the rank", ask_rank, asks=True),
    "stop, kill": Strike("SIGSTOP of the rank, SIGKILL of all", stop_and_kill),
    "stop, continue": Strike("SIGSTOP of the rank, SIGCONT", stop_and_continue, goes_on=True),
    "left behind": Strike("SIGKILL of all but the rank, which is stopped", leave_one, num_ranks=2),
}
