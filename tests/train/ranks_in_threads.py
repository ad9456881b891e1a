"""Several ranks as threads of this process: what they agree upon goes through the engine's own agreement.

Only torch's collectives are replaced, by ones that meet at a barrier; a rank that fails alone lets the others fail too.
"""

import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bert_lamb.engine.launch import Process

PATIENCE_SECONDS = 30.0


class Ranks:
    """run: a job on every rank. A collective outside of the thread that `run` starts for a rank fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
        self.world_size = world_size
        self.local = threading.local()
        self.meeting = threading.Barrier(world_size, timeout=PATIENCE_SECONDS)
        self.slots: list[bytes] = [b""] * world_size
        monkeypatch.setattr(torch.distributed, "all_gather_object", self.all_gather_object)
        monkeypatch.setattr(torch.distributed, "broadcast_object_list", self.broadcast_object_list)
        monkeypatch.setattr(torch.distributed, "barrier", lambda: self.exchange(None))

    def exchange(self, value: Any) -> list[Any]:
        """Every rank's value; AttributeError in a thread that is no rank's main one."""
        self.slots[self.local.rank] = pickle.dumps(value)
        self.meeting.wait()
        values = [pickle.loads(slot) for slot in self.slots]
        self.meeting.wait()
        return values

    def all_gather_object(self, values: list[Any], value: Any) -> None:
        values[:] = self.exchange(value)

    def broadcast_object_list(self, values: list[Any]) -> None:
        values[:] = self.exchange(values)[0]

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.exchange(values)).sum(0)

    def run(self, job: Callable[[Process], Any]) -> list[Any]:
        """What the job returned or raised, by rank."""
        outcomes: list[Any] = [None] * self.world_size

        def one(rank: int) -> None:
            self.local.rank = rank
            try:
                outcomes[rank] = job(Process(rank, rank, self.world_size, torch.device("cpu")))
            except Exception as error:
                outcomes[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.world_size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes
