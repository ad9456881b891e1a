"""The one protocol of `if_exists`: what to do when there is something where a command writes.

| there is | refuse | resume | restart |
|---|---|---|---|
| nothing, or an empty folder | begin | begin | begin |
| ours, unfinished | error | continue; error if it was begun with other settings | delete, begin |
| ours, finished | error | keep; error if it was made with other settings | delete, begin |
| anything else, a file in the way too | error | error | error: only what is ours is ever deleted |

What is ours is known by a file that the command writes, its mark. Nothing is deleted before everything that can be
refused has been refused.
"""

from enum import Enum, auto
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.plain import differing_keys, flatten

NAMED_KEYS = 5  # at most, in the error about other settings


class State(Enum):
    """What is found where a command writes."""

    absent = auto()
    unfinished = auto()
    finished = auto()
    foreign = auto()


class Decision(Enum):
    begin = auto()
    resume = auto()
    keep = auto()
    replace = auto()  # delete what is there, then begin


def decide(state: State, path: Path, *, kind: str, option: str, if_exists: str, detail: str = "") -> Decision:
    """What to do by the table above; raises UserError.

    kind: what the command writes, with its article ("a run"). option: the key that says where. detail: what is in
    the way, when it is foreign.
    """
    if state is State.absent:
        return Decision.begin
    if state is State.foreign:
        raise UserError(
            found=f"{detail or 'something else'} in the way at {path}, which is not {kind}",
            expected=f"nothing there, an empty folder, or {kind}",
            fix=f"set {option}, or move it away yourself; it is never deleted",
        )
    if if_exists == "refuse":
        raise UserError(
            found=f"{kind} at {path}",
            expected="nothing there, or an empty folder",
            fix=f"set {option}, or if_exists=resume to continue or keep it, or if_exists=restart to delete it, unless"
            " another process is still at work there",
        )
    if if_exists == "restart":
        return Decision.replace
    return Decision.keep if state is State.finished else Decision.resume


def check_if_same(then: dict[str, Any], now: dict[str, Any], path: Path, *, kind: str, option: str) -> None:
    """UserError where the settings that decide the output are others than those it was begun with.

    then, now: plain trees (see plain.to_plain).
    """
    keys = differing_keys(then, now)
    if keys:
        before, after = flatten(then), flatten(now)
        more = f" and {len(keys) - NAMED_KEYS} keys more" if len(keys) > NAMED_KEYS else ""
        was, is_ = (", ".join(f"{key}={tree.get(key)}" for key in keys[:NAMED_KEYS]) for tree in (before, after))
        raise UserError(
            found=f"{kind} at {path} with {was}{more}",
            expected=is_,
            fix=f"set those values, or {option}, or if_exists=restart to delete it",
        )
