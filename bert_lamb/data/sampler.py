"""Which instances a step trains on: a pure function of (seed, epoch, step), with no state, list or replay.

An epoch is a permutation of all instances; global batches are cut from the endless row of epochs. The permutation is
computed index by index, so that seeking to any step costs the same as the next one and memory does not grow.
"""

import numpy as np
from numpy.typing import NDArray

from bert_lamb.data.keyed_random import fold, random_bits

Int64s = NDArray[np.int64]

_NUM_ROUNDS = 6


def permute(indices: Int64s, *, size: int, key: int) -> Int64s:
    """Where each index lands in the permutation of 0..size-1 that belongs to `key`.

    Source: a balanced Feistel network (Luby and Rackoff 1988) on the smallest even number of bits that holds `size`,
    walked in a cycle until the result is inside (Black and Rogaway 2002), at most four domain sizes wide.
    """
    half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half_bits) - 1)
    shift = np.uint64(half_bits)
    round_keys = [fold(key, number) for number in range(_NUM_ROUNDS)]

    def one_pass(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> shift, values & mask
        for round_key in round_keys:
            left, right = right, left ^ (random_bits(round_key, right) & mask)
        return (left << shift) | right

    values = one_pass(indices.astype(np.uint64))
    while True:
        outside = values >= size
        if not outside.any():
            return values.astype(np.int64)
        values[outside] = one_pass(values[outside])


def global_batch(step: int, *, global_batch_size: int, num_instances: int, seed: int) -> tuple[Int64s, Int64s]:
    """(instances, epochs) of optimizer step `step` (1 for the first): two [global_batch_size] int64 arrays."""
    positions = np.arange((step - 1) * global_batch_size, step * global_batch_size, dtype=np.int64)
    epochs, offsets = np.divmod(positions, num_instances)
    instances = np.empty_like(positions)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        instances[chosen] = permute(offsets[chosen], size=num_instances, key=int(fold(seed, int(epoch))))
    return instances, epochs


def micro_batch_slice(*, micro_step: int, rank: int, micro_batch_size: int, world_size: int) -> slice:
    """Which part of the global batch a rank computes in micro-step `micro_step` (0 for the first)."""
    first = (micro_step * world_size + rank) * micro_batch_size
    return slice(first, first + micro_batch_size)
