"""Which rows of a global batch go into which micro-batch: by length, so that all take equally long."""

import numpy as np
from numpy.typing import NDArray


def deal(lengths: NDArray[np.integer], num_micro_batches: int) -> NDArray[np.int64]:
    """[num_micro_batches, B] indices into `lengths` ([G], of a step's rows), each once, B = G / num_micro_batches.

    Rows are laid out from the longest to the shortest in rounds of one row for each micro-batch, every second round
    from the last micro-batch to the first, as one deals cards to and fro. What is dealt is a function of the lengths
    alone; equally long rows keep their order.
    """
    rounds = np.argsort(-lengths.astype(np.int64), kind="stable").reshape(-1, num_micro_batches)
    rounds[1::2] = rounds[1::2, ::-1].copy()
    return rounds.T


def micro_batch_number(micro_step: int, *, rank: int, world_size: int) -> int:
    """Which of a step's micro-batches a rank computes in its micro-step (both from 0): ranks take turns."""
    return micro_step * world_size + rank
