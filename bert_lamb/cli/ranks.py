"""What the command line needs to know of ranks, without importing torch: who prints, under which name, how to leave."""

import os
import sys
import traceback

from bert_lamb.engine.place import may_speak, place_in, rank_label
from bert_lamb.errors import UserError


def is_reporter(error: UserError) -> bool:
    """Whether this rank prints `error`; see errors.Reporter."""
    if error.reporter == "rank 0":
        return not rank_label() or place_in(os.environ).rank == 0
    if error.reporter == "machine":
        return may_speak(os.environ)
    if not _is_connected():
        return True
    from bert_lamb.engine.agreement import is_first_to_fail, is_first_to_say

    is_first_to_fail()  # so that the others' broken connections are not told at length
    return is_first_to_say(str(error))


def label_for(error: UserError) -> str:
    """The label, where it is not plain whose error it is: not for what every rank knows, as rank 0 prints it."""
    is_common = error.reporter == "rank 0" or (error.reporter == "machine" and rank_label().startswith("rank 0 "))
    return "" if is_common else rank_label()


def print_traceback() -> None:
    """The exception at hand with rank and host before each line, in one write; of ranks that fail later a line."""
    text = traceback.format_exc()
    if _is_connected():
        from bert_lamb.engine.agreement import is_first_to_fail, is_first_to_say

        if not is_first_to_fail():
            text = text.splitlines()[-1][:300]
            if not is_first_to_say(text):
                return
    name = rank_label().removesuffix(": ")
    sys.stderr.write("".join(f"[{name}] {line}\n" for line in text.splitlines()))
    sys.stderr.flush()


def leave_with_the_others() -> None:
    """Leave the process group, which all ranks do at their common end; nothing where there is none."""
    if _is_connected():
        from bert_lamb.engine.launch import leave_together

        leave_together()


def leave_alone(status: int) -> int:
    """Leave with `status` without waiting for the others, whom the launcher ends; returns it where there are none.

    The interpreter's own end would destroy the process group, for which the other ranks would have to come.
    """
    if not rank_label() or not _is_connected():
        return status
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _is_connected() -> bool:
    torch = sys.modules.get("torch")  # nobody is connected who has not imported it
    return torch is not None and torch.distributed.is_initialized()
