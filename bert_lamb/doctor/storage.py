"""Checks of where the run will write: room, speed, and that all ranks see one file system. Nothing is left behind."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bert_lamb.doctor.examination import Examination
from bert_lamb.doctor.finding import Finding, SkippedError, failed, name_ranks, ok, warning
from bert_lamb.outputs.run_dir import CHECKPOINTS, RunDir
from bert_lamb.train.room import checkpoint_bytes, checkpoints_at_once

WRITTEN_BYTES = 64 << 20
BLOCK_BYTES = 8 << 20
PATIENCE_SECONDS = 10.0  # that a network file system may take to show a new file to others


def collect_run_dir(examination: Examination) -> dict[str, Any] | None:
    """Rank 0's: room, and the seconds that writing took. Raises UserError where the run would be refused."""
    if examination.run_dir is None:
        raise SkippedError("no run_dir")
    if examination.process.rank != 0:
        return None
    RunDir(examination.run_dir).decide(examination.if_exists)
    folder = nearest_folder(examination.run_dir)
    room = os.statvfs(folder)
    return {
        "folder": str(folder),
        "free": room.f_bavail * room.f_frsize,
        "held": sum(file.stat().st_size for file in (examination.run_dir / CHECKPOINTS).glob("*/*")),
        "seconds": seconds_to_write(folder, WRITTEN_BYTES),
    }


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def seconds_to_write(folder: Path, num_bytes: int) -> float:
    """Write so many bytes, flushed to the disk, to a file that is gone afterwards, even after a kill."""
    block = os.urandom(BLOCK_BYTES)
    with unchanged_times(folder):
        handle = _nameless(folder)
        try:
            started = time.perf_counter()
            for start in range(0, num_bytes, BLOCK_BYTES):
                left = memoryview(block)[: num_bytes - start]
                while left:
                    left = left[os.write(handle, left) :]
            os.fsync(handle)
            return time.perf_counter() - started
        finally:
            os.close(handle)


def _nameless(folder: Path) -> int:
    """A file without a name; where the file system has none (NFS), one whose name is taken away at once."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except (OSError, AttributeError):
        path = _unused(folder)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        path.unlink()
        return handle


def _unused(folder: Path) -> Path:
    return folder / f".bert-lamb-doctor-{secrets.token_hex(8)}"


@contextmanager
def unchanged_times(folder: Path) -> Iterator[None]:
    """The folder's times afterwards are those from before."""
    before = folder.stat()
    try:
        yield
    finally:
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def judge_run_dir(examination: Examination, by_rank: list[dict[str, Any] | None]) -> Finding:
    facts = by_rank[0]
    assert facts is not None
    settings, recipe = examination.checkpoint, examination.recipe
    one = checkpoint_bytes(examination.num_parameters, recipe.optimizer.name)
    count = checkpoints_at_once([phase.total_steps for phase in recipe.phases.values()] or [0], settings)
    room, speed = facts["free"] + facts["held"], WRITTEN_BYTES / max(facts["seconds"], 1e-9)
    said = (
        f"{room / 1e9:,.2f} GB of room at {facts['folder']} for {count} checkpoints of {one / 1e9:,.2f} GB at once;"
        f" {speed / 1e6:,.0f} MB/s written and flushed by one rank: {one / speed:,.1f} s a checkpoint, less where the"
        " ranks write together faster"
    )
    if room < one * count:
        return failed(
            said,
            fix="make room, or set run_dir, or keep less: checkpoint.keep_last, keep_every, interval_minutes=0",
        )
    share = one / speed / (60 * settings.interval_minutes) if settings.interval_minutes else 0.0
    if share > 0.05:
        return warning(
            f"{said}; saving takes {share:.0%} of checkpoint.interval_minutes={settings.interval_minutes:g}",
            fix="set run_dir to a faster file system, or save less often",
        )
    return ok(said)


def collect_shared(examination: Examination) -> bool:
    """Whether this rank sees a file that rank 0 has just made where the run will write."""
    if examination.run_dir is None:
        raise SkippedError("no run_dir")
    if examination.world_size == 1:
        raise SkippedError("one rank")
    ranks, made, error = examination.ranks, None, None
    folder = nearest_folder(examination.run_dir)
    if ranks.rank == 0:
        try:
            with unchanged_times(folder):
                made = _unused(folder)
                made.touch(exist_ok=False)
        except OSError as refused:
            made, error = None, refused
    try:
        path = ranks.gather("shared/path", str(made) if made else None)[0]
        is_seen = path is not None and _comes(Path(path))
        ranks.gather("shared/seen", None)
    finally:
        if made is not None:
            with unchanged_times(folder):
                made.unlink(missing_ok=True)
    if error is not None:
        raise error
    return is_seen


def _comes(path: Path) -> bool:
    until = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def judge_shared(examination: Examination, is_seen: list[bool]) -> Finding:
    blind = [rank for rank, one in enumerate(is_seen) if not one]
    if blind:
        return failed(
            f"{name_ranks(blind, examination.hosts)} did not see in {PATIENCE_SECONDS:g} s a file that rank 0 made at"
            f" {nearest_folder(examination.run_dir or Path())}",
            fix="set run_dir to a file system that all machines mount at the same path",
        )
    return ok(f"all {len(is_seen)} ranks see one file system")
