"""The ranks of an examination, which meet in the launcher's store: facts travel there as json, without a process group.

What is examined (gloo, NCCL, host names) need not work for the report to be complete, nothing waits without an end, and
a rank that does not come is named.
"""

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError

PREFIX = "bert_lamb_doctor"
SLACK_SECONDS = 20.0  # that the others wait longer than rank 0, which tells them who is missing


class MissingRanksError(Exception):
    """Some ranks did not bring their facts in time."""

    def __init__(self, ranks: list[int]) -> None:
        self.ranks = ranks
        super().__init__(f"nothing came from {len(ranks)} ranks")


@dataclass
class Ranks:
    """This rank among all. store: None where there is one rank. timeout_seconds: that a gather waits at most."""

    rank: int
    world_size: int
    timeout_seconds: float
    store: Any = None

    def gather(self, name: str, value: Any) -> list[Any]:
        """Every rank's value (of json), by rank; every rank calls it with the same name, used once.

        Rank 0 collects and hands on, so that the store serves some requests a rank and not one for each pair. Raises
        MissingRanksError on every rank that has come.
        """
        if self.world_size == 1:
            return [value]
        keys = [f"{name}/{rank}" for rank in range(self.world_size)]
        self.store.set(keys[self.rank], json.dumps(value))
        if self.rank == 0:
            missing = self._await(keys)
            values = None if missing else [json.loads(self.store.get(key)) for key in keys]
            self.store.set(f"{name}/all", json.dumps({"missing": missing, "values": values}))
        else:
            try:
                self.store.wait([f"{name}/all"], timedelta(seconds=self.timeout_seconds + SLACK_SECONDS))
            except torch.distributed.DistError as error:
                raise MissingRanksError([0]) from error
        answer = json.loads(self.store.get(f"{name}/all"))
        if answer["missing"]:
            raise MissingRanksError(answer["missing"])
        values = answer["values"]
        assert isinstance(values, list)
        return values

    def _await(self, keys: list[str]) -> list[int]:
        """Ranks whose keys do not come in time."""
        try:
            self.store.wait(keys, timedelta(seconds=self.timeout_seconds))
        except torch.distributed.DistError:
            return [rank for rank, key in enumerate(keys) if not self.store.check([key])]
        return []


def meet(process: Process, *, timeout_seconds: float) -> Ranks:
    """Meet the other ranks at MASTER_ADDR and MASTER_PORT, or in torchrun's own store.

    Raises UserError when they do not come in time.
    """
    if process.world_size == 1:
        return Ranks(0, 1, timeout_seconds)
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        meeting = torch.distributed.rendezvous(
            "env://", process.rank, process.world_size, timeout=timedelta(seconds=timeout_seconds)
        )
        store, _, _ = next(meeting)
    except torch.distributed.DistError as error:
        raise UserError(
            found=f"{process.world_size} ranks of which not all came to {where} in {timeout_seconds:g} s"
            f" ({' '.join(str(error).splitlines()[0].split())[:200]})",
            expected="every rank started, and an address and a free port that all machines reach",
            fix="look at the other ranks' first error; else set MASTER_ADDR and MASTER_PORT, or timeout_seconds",
        ) from error
    return Ranks(process.rank, process.world_size, timeout_seconds, torch.distributed.PrefixStore(PREFIX, store))
