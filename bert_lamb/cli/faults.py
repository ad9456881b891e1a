"""The one path from a fault in any rank to the user's screen: who prints it, under which name, and how to leave.

    raised                     where                                  printed by
    UserError, reporter "rank 0"   every rank has it (`together`)     rank 0
    UserError, reporter "machine"  a machine's ranks find it alike    the first rank of each machine
    UserError, reporter "rank"     one rank has it                    that rank, with its name; the same words once
    a collective that fails        another rank is silent or behind   the first rank to notice: who it is
    any other exception            a defect                           the first rank to fail, its traceback labelled

A UserError is a line for each complaint and status 2. Without torch: nothing here imports it.
"""

import os
import sys
import traceback

from bert_lamb.engine.place import may_speak, place_in, rank_label
from bert_lamb.errors import UserError

EXIT_USER_ERROR = 2
EXIT_CHECK_FAILED = 1
EXIT_DEFECT = 1
EXIT_LOST_CONTACT = 1  # not the user's mistake: who restarts jobs may start this one again
ON_RANKS = ("pretrain", "squad", "glue", "vision", "doctor", "study")  # that several ranks may run together


def fail(command: str, error: Exception) -> int:
    """Report an exception once over all ranks; returns the exit status where this process may end by itself.

    A rank that fails alone leaves here and now, since the others may wait for it. A defect of a process without other
    ranks is raised again.
    """
    if isinstance(error, UserError):
        report(command, error)
        return EXIT_USER_ERROR if error.reporter == "rank 0" else leave_alone(EXIT_USER_ERROR)
    if not rank_label():
        raise error
    if _is_connected():
        from bert_lamb.engine.heartbeat import is_lost_contact, lost_contact

        if is_lost_contact(error):
            lost = lost_contact(error)
            if lost is not None:  # else another rank has said why it failed
                report(command, lost)
            return leave_alone(EXIT_LOST_CONTACT)
    print_traceback()
    return leave_alone(EXIT_DEFECT)


def report(command: str, error: UserError) -> None:
    """Print each complaint on a line, unless another rank does."""
    if command not in ON_RANKS or is_reporter(error):  # tasks of other commands do not know of each other
        for line in str(error).split("\n"):
            print(f"bert-lamb {command}: {label_for(error)}{line}", file=sys.stderr, flush=True)


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
    from bert_lamb.engine.heartbeat import linger

    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    linger()
    os._exit(status)


def _is_connected() -> bool:
    torch = sys.modules.get("torch")  # nobody is connected who has not imported it
    return torch is not None and torch.distributed.is_initialized()
