"""One call of `bert-lamb` in a child of this process, which has paid for the imports: its status and what it printed.

The child has descriptors, an environment, a working folder and limits of its own, so no case sees another.
"""

import contextlib
import gc
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CPU_SECONDS, WALL_SECONDS = 40, 200
EXTRA_BYTES = 6 << 30  # of address space beyond what the parent has
MAX_OUTPUT = 1_000_000
TIMEOUT = -1


@dataclass(frozen=True)
class Outcome:
    """status: of the exit; TIMEOUT where it did not end; below that minus the number of the signal that ended it."""

    status: int
    stdout: str
    stderr: str


def call(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, *, closed: str = ""
) -> Outcome:
    """Run in `folder`. environment: beside what is set. closed: which of "012" are closed streams."""
    outputs = [folder.with_name(folder.name + end) for end in (".stdout", ".stderr")]
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _be_the_child(words, folder, environment or {}, outputs, closed)
    status = _wait(child)
    stdout, stderr = (path.read_bytes()[:MAX_OUTPUT].decode(errors="backslashreplace") for path in outputs)
    for path in outputs:
        path.unlink()
    return Outcome(status, stdout, stderr)


def _be_the_child(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], outputs: list[Path], closed: str
) -> None:
    status = 1
    try:
        os.setsid()
        gc.disable()  # a collection would copy every page of the parent's
        os.chdir(folder)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for number, path in enumerate(outputs, 1):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        for number in map(int, closed):
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        os.environ.update(environment)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = used + EXTRA_BYTES if hard == resource.RLIM_INFINITY else min(used + EXTRA_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        from bert_lamb.cli.main import main

        status = main(list(words))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or None
                stream.flush()
        os._exit(status if isinstance(status, int) and 0 <= status < 256 else 99)


def _wait(child: int) -> int:
    end = time.monotonic() + WALL_SECONDS
    pause = 0.002
    while True:
        found, how = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return TIMEOUT
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    if os.WIFSIGNALED(how):
        return TIMEOUT if os.WTERMSIG(how) == signal.SIGXCPU else -100 - os.WTERMSIG(how)
    return os.WEXITSTATUS(how)
