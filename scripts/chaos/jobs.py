"""A program on several ranks of this machine, started and signalled: forked from here, or under torchrun.

Forked ranks are processes of their own like any other, with the environment that torchrun would give them; they only
save the seconds in which each would import torch. This process must not have started threads.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from scripts.chaos import rank as entry
from scripts.chaos.moments import Hold

CHECKOUT = Path(__file__).resolve().parents[2]
LOOK_SECONDS = 0.005
LOG = "log"


class Stuck(Exception):
    """What was waited for did not come."""


class Job(Protocol):
    """A program that was started. folder: of its holds and its log."""

    world_size: int
    folder: Path
    status: int | None  # of the program as a whole, once it is over

    def pid(self, rank: int) -> int: ...
    def is_over(self) -> bool:
        """Whether all of its processes are, but for those that are stopped."""

    def kill(self, spared: Sequence[int] = ()) -> None:
        """SIGKILL to all, the launcher too, and wait for them. spared: ranks that are left as they are."""

    def ask_to_stop(self) -> None:
        """SIGTERM, as whoever started it sends it."""


class Forked:
    """Ranks forked from this process. status: the first rank's that is not 0."""

    launcher = "forked"

    def __init__(self, words: Sequence[str], world_size: int, folder: Path) -> None:
        self.world_size, self.folder = world_size, folder
        self.status: int | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        sys.stdout.flush()
        sys.stderr.flush()
        self._pids = [self._fork(words, number, port) for number in range(world_size)]
        self._statuses: dict[int, int] = {}

    def _fork(self, words: Sequence[str], number: int, port: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            os.setsid()
            with (self.folder / LOG).open("ab") as log:
                for stream in (1, 2):
                    os.dup2(log.fileno(), stream)
            names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": self.world_size, "MASTER_PORT": port}
            names |= {"LOCAL_WORLD_SIZE": self.world_size, "MASTER_ADDR": "127.0.0.1", entry.FOLDER: self.folder}
            os.environ.update({name: str(value) for name, value in names.items()})
            status = entry.main(words)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def pid(self, rank: int) -> int:
        return self._pids[rank]

    def is_over(self) -> bool:
        for pid in set(self._pids) - self._statuses.keys():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._statuses[pid] = os.waitstatus_to_exitcode(status)
        if len(self._statuses) < self.world_size:
            return False
        self.status = next((status for status in self._statuses.values() if status), 0)
        return True

    def kill(self, spared: Sequence[int] = ()) -> None:
        left = {self._pids[rank] for rank in range(self.world_size) if rank not in spared} - self._statuses.keys()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        for pid in left:
            self._statuses[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.status = -signal.SIGKILL

    def ask_to_stop(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGTERM)


class Torchrun:
    """Ranks under torchrun. status: torchrun's, which is 1 whatever its ranks end with."""

    launcher = "torchrun"

    def __init__(self, words: Sequence[str], world_size: int, folder: Path) -> None:
        self.world_size, self.folder = world_size, folder
        self.status: int | None = None
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world_size)]
        environment = {**os.environ, entry.FOLDER: str(folder), "PYTHONPATH": str(CHECKOUT)}
        environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = "300"
        with (folder / LOG).open("ab") as log:
            self._running = subprocess.Popen(
                [*command, "-m", "scripts.chaos.rank", *words],
                cwd=CHECKOUT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pid(self, rank: int) -> int:
        return int((self.folder / f"rank-{rank}.pid").read_text())

    def is_over(self) -> bool:
        self.status = self._running.poll()
        return self.status is not None

    def kill(self, spared: Sequence[int] = ()) -> None:
        self._running.kill()
        self._running.wait()
        for rank in range(self.world_size):
            if rank not in spared and (self.folder / f"rank-{rank}.pid").exists() and is_alive(self.pid(rank)):
                os.kill(self.pid(rank), signal.SIGKILL)
        wait_for(
            lambda: all(rank in spared or not is_alive(self.pid(rank)) for rank in range(self.world_size)), seconds=30
        )
        self.status = -signal.SIGKILL

    def ask_to_stop(self) -> None:
        self._running.terminate()


def is_alive(pid: int) -> bool:
    """Whether the process runs or is stopped; a zombie is neither."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_for(holds: Callable[[], bool], *, seconds: float) -> None:
    """Until it is so; raises Stuck after so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Stuck(f"not within {seconds:g} seconds")
        time.sleep(LOOK_SECONDS)


def is_reached(job: Job, hold: Hold, *, seconds: float) -> bool:
    """Wait until a rank is held; False when the program is over before."""
    wait_for(lambda: hold.here(job.folder).exists() or job.is_over(), seconds=seconds)
    return hold.here(job.folder).exists()
