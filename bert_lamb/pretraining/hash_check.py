"""Every byte of the shards is hashed before the first step, dealt out over the ranks, since all see the same files.

In rounds of seconds, so that no rank waits for another longer than that: a collective that waits for ten minutes of
reading gives up.
"""

import heapq
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bert_lamb.engine.agreement import agree
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.pretraining.admission import Phase
from bert_lamb.progress import Progress
from bert_lamb.shards import HashedFile, files_to_hash, hash_in_chunks
from bert_lamb.train.stop import StopFlag

ROUND_SECONDS = 5.0
WORTH_A_BAR_BYTES = 10**9  # less is hashed in seconds


def check_shards(phases: list[Phase], process: Process, stop: StopFlag) -> None:
    """Hash the vocabulary and the shards of every phase; raises UserError on every rank when a file differs.

    Returns early, with stop.is_agreed, when a signal asks any rank to stop.
    """
    wanted = {(phase.settings.shards, phase.settings.max_seq_length) for phase in phases}
    files = {
        file.path: file
        for directory, max_seq_length in sorted(wanted)
        for file in files_to_hash(Path(directory), max_seq_length=max_seq_length)
    }
    chunks = (count for file in deal(list(files.values()), process.world_size)[process.rank] for count in _read(file))
    total = sum(file.num_bytes for file in files.values())
    is_shown = process.is_main and total >= WORTH_A_BAR_BYTES
    mistake: UserError | None = None
    with Progress("hashing shards", total=total, unit="MB", scale=10**6, is_shown=is_shown) as progress:
        while True:
            num_bytes, has_more = 0, False
            try:
                num_bytes, has_more = _one_round(chunks, stop)
            except UserError as error:
                mistake = error
            sums = torch.tensor([num_bytes, has_more, stop.is_asked, mistake is not None], device=process.device)
            if process.world_size > 1:
                torch.distributed.all_reduce(sums)
            bytes_of_all, num_at_work, num_asked, num_mistakes = sums.tolist()
            progress.update(bytes_of_all)
            stop.is_agreed = num_asked > 0
            if not num_at_work or num_mistakes or stop.is_agreed:
                break
    agree(process, mistake)


def deal(files: list[HashedFile], num_ranks: int) -> list[list[HashedFile]]:
    """Each rank's files, about equally many bytes: the largest first, each to the rank with the fewest so far."""
    dealt: list[list[HashedFile]] = [[] for _ in range(num_ranks)]
    loads = [(0, rank) for rank in range(num_ranks)]
    for file in sorted(files, key=lambda file: (-file.num_bytes, str(file.path))):
        load, rank = heapq.heappop(loads)
        dealt[rank].append(file)
        heapq.heappush(loads, (load + file.num_bytes, rank))
    return dealt


def _read(file: HashedFile) -> Iterator[int]:
    """The bytes of each chunk as the bar counts them: those of the shards alone."""
    for count in hash_in_chunks(file):
        yield count if file.num_bytes else 0


def _one_round(chunks: Iterator[int], stop: StopFlag) -> tuple[int, bool]:
    """Read for ROUND_SECONDS or to the end: bytes read, and whether there is more."""
    num_bytes, until = 0, time.monotonic() + ROUND_SECONDS
    for count in chunks:
        num_bytes += count
        if stop.is_asked or time.monotonic() >= until:
            return num_bytes, True
    return num_bytes, False
