"""Ranks that fail together: what one refuses, all refuse at the same time, and it is printed once.

A rank that leaves alone lets the others wait in a collective until it times out, and torchrun, srun and the deepspeed
launcher then end them with tracebacks about sockets.
"""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from bert_lamb.engine.heartbeat import STORE_SECONDS, within
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError, UserErrors

Value = TypeVar("Value")


@contextmanager
def together(process: Process) -> Iterator[None]:
    """What any rank refuses inside is raised on every rank when all have come here; rank 0 prints it.

    Every rank must call it, and nothing inside may wait for other ranks. An error that not all ranks have names one
    that has it. Other exceptions pass at once: they are defects, and launchers end the ranks that wait.
    """
    mistake: UserError | None = None
    try:
        yield
    except UserError as error:
        mistake = error
    agree(process, mistake)


def agree(process: Process, mistake: UserError | None) -> None:
    """Every rank calls it with its mistake, or None; raises UserError everywhere when any has one."""
    if process.world_size == 1:
        if mistake is not None:
            raise mistake
        return
    mistakes: list[tuple[UserError | None, str]] = [(None, "")] * process.world_size
    torch.distributed.all_gather_object(mistakes, (mistake, socket.gethostname()))
    texts = [str(error) for error, _ in mistakes if error is not None]
    if not texts:
        return
    if len(texts) == process.world_size and len(set(texts)) == 1:
        assert mistakes[0][0] is not None
        raise mistakes[0][0].reported_by("rank 0")
    first_with: dict[str, UserError] = {}
    for rank, (error, host) in enumerate(mistakes):
        complaints = error.complaints if isinstance(error, UserErrors) else [error] if error else []
        for each in complaints:
            said = UserError(
                found=f"on rank {rank} ({host}) {each.found}" if rank else each.found,
                expected=each.expected,
                fix=each.fix,
            )
            first_with.setdefault(str(each), said)
    raise UserErrors(list(first_with.values())).reported_by("rank 0")


def from_rank_0(process: Process, value: Value) -> Value:
    """Rank 0's value on every rank; every rank calls it."""
    values = [value]
    if process.world_size > 1:
        torch.distributed.broadcast_object_list(values)
    return values[0]


def of_all_ranks(process: Process, value: Value) -> list[Value]:
    """Every rank's value, by rank; every rank calls it."""
    if process.world_size == 1:
        return [value]
    values = [value] * process.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def is_first_to_say(text: str) -> bool:
    """Whether no other rank has asked this about the same text; True where the ranks cannot reach each other."""
    return _is_first("said/" + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())


def is_first_to_fail() -> bool:
    """Whether no other rank has failed before; what fails after the first is mostly a connection to it."""
    return _is_first("failed")


def _is_first(key: str) -> bool:
    """Count in the store through which the ranks met; not a collective, so that a rank that fails alone may do it."""
    if not torch.distributed.is_initialized():
        return True
    store = torch.distributed.distributed_c10d._get_default_store()
    # Where the store is gone, saying it twice is better than not at all.
    return within(STORE_SECONDS, lambda: int(store.add(key, 1)) == 1, otherwise=True)
