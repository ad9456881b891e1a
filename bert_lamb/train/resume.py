"""Where a run continues: its newest checkpoint whose bytes are all as they were written."""

import sys
from collections.abc import Sequence
from pathlib import Path

from bert_lamb.checkpoint.meta import Damaged
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.engine.agreement import from_rank_0, of_all_ranks, together
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.outputs.run_dir import RunDir


def newest_whole(
    run_dir: RunDir, stages: Sequence[str], process: Process, *, until: tuple[str, int] | None = None
) -> Checkpoint | None:
    """The newest whole checkpoint, or None for a run that has saved none; every rank calls it and gets the same.

    stages: their names, in order. until: (stage, step); later ones, saved while the loss rose, are set aside too. A
    damaged one that is newer is named in a line and set aside, as PHASE-STEP.damaged.
    Raises UserError when all are damaged, which then stay as they are, and when another version of bert_lamb wrote the
    newest.
    """
    # As rank 0 sees the folder: caches of a network file system may show other ranks an older one.
    folders: list[tuple[str, int, Path]] = run_dir.checkpoint_folders() if process.is_main else []
    of_stages = [folder for folder in folders if folder[0] in stages]
    in_order = sorted(of_stages, key=lambda folder: (stages.index(folder[0]), folder[1]))
    passed: list[tuple[Path, str]] = []
    num_later = 0
    for phase, step, path in reversed(from_rank_0(process, in_order)):
        if until is not None and (stages.index(phase), step) > (stages.index(until[0]), until[1]):
            passed.append((path, f"saved while the loss rose, after {until[0]} step {until[1]:,}"))
            num_later += 1
            continue
        with together(process):
            checkpoint, damage = _open(path, phase, step, process)
        damage = next(filter(None, of_all_ranks(process, damage)), None)
        if damage is not None:
            passed.append((path, damage))
            continue
        with together(process):
            if process.is_main:
                _set_aside(run_dir, passed)
                if checkpoint is not None and not checkpoint.has_hashes:
                    _say(f"resume   {path.name} is of an older format, without hashes: its bytes were not compared")
        return checkpoint
    if num_later < len(passed):
        found = "; ".join(f"{path.name}: {damage}" for path, damage in passed)
        raise UserError(
            found=f"no whole checkpoint in {run_dir.path} ({found})",
            expected="one whose bytes are all as they were written",
            fix="restore one of them from a copy, or start again with if_exists=restart",
        ).reported_by("rank 0")
    with together(process):
        if process.is_main:
            _set_aside(run_dir, passed)
    return None


def _open(path: Path, phase: str, step: int, process: Process) -> tuple[Checkpoint | None, str | None]:
    """(the checkpoint, None), of which this rank has hashed its share, or (None, what is damaged)."""
    try:
        checkpoint = Checkpoint(path)
        checkpoint.check_bytes(process.rank, process.world_size)
    except Damaged as error:
        return None, error.found
    if (checkpoint.position.phase, checkpoint.position.step) != (phase, step):
        return None, f"the checkpoint of {checkpoint.position.phase} step {checkpoint.position.step} under another name"
    return checkpoint, None


def _set_aside(run_dir: RunDir, passed: Sequence[tuple[Path, str]]) -> None:
    with run_dir.writing():
        for path, damage in passed:
            run_dir.set_aside(path)
            _say(f"resume   passed over {path.name}, now {path.name}.damaged: {damage}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
