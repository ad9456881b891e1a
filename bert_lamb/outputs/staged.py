"""Output folders that are complete or absent: made as OUTPUT.partial, marked, and renamed at the end."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import PARTIAL_SUFFIX, beside, write_atomically
from bert_lamb.outputs.if_exists import Decision, State, check_if_same, decide

# In OUTPUT.partial: {"kind": whose it is to continue or delete, "purpose": the settings of what it is to become}.
UNFINISHED_MARK = "unfinished.json"


@dataclass(frozen=True)
class OutputKind:
    """What a command makes. name: with its article. option: the key that says where it goes.

    complete_mark: the JSON file that is only in complete outputs. key: what that file's mapping has and no other's.
    """

    name: str
    complete_mark: str
    key: str
    option: str = "output_dir"


def partial_dir_of(output_dir: Path) -> Path:
    """Where an output is made before it is renamed to its place."""
    return beside(output_dir, PARTIAL_SUFFIX)


def is_complete(output_dir: Path, kind: OutputKind, *, if_exists: str) -> bool:
    """Whether a complete output is there to be kept; with if_exists "restart", what is there is deleted first.

    Raises UserError by the protocol of `if_exists`, before anything is deleted.
    """
    partial_dir = partial_dir_of(output_dir)
    words = {"kind": kind.name, "option": kind.option, "if_exists": if_exists, "detail": "something else"}
    of_partial = decide(_state_of_partial(partial_dir, kind), partial_dir, **words)
    of_output = decide(_state(output_dir, kind), output_dir, **words)
    if of_partial is Decision.replace:
        delete(partial_dir)
    if of_output is Decision.replace:
        # Deleted under the other name: whatever a process that is killed meanwhile leaves, it is no half output.
        (output_dir / UNFINISHED_MARK).write_text(_mark_of(kind, {}))
        output_dir.rename(partial_dir)
        delete(partial_dir)
    if of_output is Decision.keep:
        _remove_marks(output_dir)  # left by a process killed in the last line of `publish`
    return of_output is Decision.keep


def _state(output_dir: Path, kind: OutputKind) -> State:
    if _is_nothing(output_dir):
        return State.absent
    return State.finished if kind.key in _mapping_in(output_dir / kind.complete_mark) else State.foreign


def _state_of_partial(partial_dir: Path, kind: OutputKind) -> State:
    if _is_nothing(partial_dir):
        return State.absent
    if not partial_dir.is_dir():
        return State.foreign
    # Begun by a process that was killed while it wrote the mark: nothing but that.
    is_begun = all(path.name.startswith(UNFINISHED_MARK) for path in partial_dir.iterdir())
    if is_begun and not (partial_dir / UNFINISHED_MARK).is_file():
        return State.unfinished
    mark = _mapping_in(partial_dir / UNFINISHED_MARK)
    return State.unfinished if mark.get("kind") == kind.name else State.foreign


def _mark_of(kind: OutputKind, purpose: dict[str, Any]) -> str:
    return json.dumps({"kind": kind.name, "purpose": purpose}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _mapping_in(file: Path) -> dict[str, Any]:
    """What a mark holds; nothing for a file that is not there, or none of ours."""
    try:
        mark = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return mark if isinstance(mark, dict) else {}


def _is_nothing(path: Path) -> bool:
    if path.is_symlink() and not path.exists():
        return False
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def begin(output_dir: Path, kind: OutputKind, purpose: dict[str, Any]) -> Path:
    """OUTPUT.partial, with what an earlier run of the same purpose left in it; UserError if it had another purpose.

    purpose: plain values that decide what the output is to become. Processes that begin at the same time agree.
    """
    partial_dir = partial_dir_of(output_dir)
    try:
        partial_dir.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # in /proc, or where another process deletes it
        raise UserError(
            found=f"a place where no folder can be created, {error.filename}",
            expected=f"one for {partial_dir}",
            fix=f"set {kind.option}",
        ) from error
    mark = partial_dir / UNFINISHED_MARK
    text = _mark_of(kind, purpose)
    if not mark.is_file():
        write_atomically(mark, text, is_shared=True)
        return partial_dir
    then, now = _mapping_in(mark).get("purpose", {}), json.loads(text)["purpose"]
    check_if_same(then, now, partial_dir, kind=f"{kind.name}, unfinished,", option=kind.option)
    return partial_dir


def begin_again(output_dir: Path, kind: OutputKind) -> Path:
    """An empty OUTPUT.partial; what an interrupted run left there is deleted, and this is said."""
    partial_dir = partial_dir_of(output_dir)
    if partial_dir.exists():
        print(f"{partial_dir}: an earlier run was interrupted; starting again")
        delete(partial_dir)
    return begin(output_dir, kind, {})


def check_purpose(then: dict[str, Any], now: dict[str, Any], output_dir: Path, kind: OutputKind) -> None:
    """UserError where a complete output was made with other settings than these, both plain trees."""
    check_if_same(then, now, output_dir, kind=kind.name, option=kind.option)


def publish(output_dir: Path) -> None:
    """Rename OUTPUT.partial, whose complete mark has been written, to its place."""
    if output_dir.is_dir():
        output_dir.rmdir()  # an empty folder, see is_complete
    partial_dir_of(output_dir).rename(output_dir)
    _remove_marks(output_dir)


def _remove_marks(output_dir: Path) -> None:
    """The mark itself last; the others begin with its name, and are left by a process killed in `begin`."""
    for mark in sorted(output_dir.glob(f"{UNFINISHED_MARK}*"), reverse=True):
        mark.unlink(missing_ok=True)


def delete(partial_dir: Path) -> None:
    """Delete an unfinished output, its mark last: a process that is killed meanwhile leaves what is known as ours."""
    for path in partial_dir.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != UNFINISHED_MARK:
            path.unlink()
    shutil.rmtree(partial_dir)
