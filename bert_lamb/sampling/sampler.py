"""Which instances a step trains on: a pure function of (seed, epoch, step), with no state, list or replay.

An epoch is a permutation of all instances; global batches are cut from the endless row of epochs. The permutation is
computed index by index, so that seeking to any step costs the same as the next one and memory does not grow.
"""

import math

import numpy as np
from numpy.typing import NDArray

from bert_lamb.sampling.keyed_random import fold, random_bits

Int64s = NDArray[np.int64]

_NUM_ROUNDS = 6  # three of each half


def permute(indices: Int64s, *, size: int, key: int) -> Int64s:
    """Where each index lands in the permutation of 0..size-1 that belongs to `key`.

    Source: a Feistel network (Luby and Rackoff 1988) whose halves are added modulo two numbers with a product just
    above `size`, walked in a cycle until the result is inside (Black and Rogaway 2002): so it seldom leaves.
    """
    num_left = math.isqrt(max(size - 1, 0)) + 1
    num_right = -(-size // num_left)
    round_keys = fold(key, np.arange(_NUM_ROUNDS, dtype=np.uint64))

    def one_pass(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(values, np.uint64(num_right))
        for number in range(0, _NUM_ROUNDS, 2):
            left = _add(left, random_bits(round_keys[number], right), num_left)
            right = _add(right, random_bits(round_keys[number + 1], left), num_right)
        return left * np.uint64(num_right) + right

    values = one_pass(indices.astype(np.uint64))
    while True:
        outside = values >= size
        if not outside.any():
            return values.astype(np.int64)
        values[outside] = one_pass(values[outside])


def _add(values: NDArray[np.uint64], bits: NDArray[np.uint64], modulus: int) -> NDArray[np.uint64]:
    """values plus a random number below the modulus (of at most 32 bits, as their upper halves give it), modulo it."""
    total = values + (((bits >> np.uint64(32)) * np.uint64(modulus)) >> np.uint64(32))
    return np.where(total >= modulus, total - np.uint64(modulus), total)


def global_batch(step: int, *, global_batch_size: int, num_instances: int, seed: int) -> tuple[Int64s, Int64s]:
    """(instances, epochs) of optimizer step `step` (1 for the first): two [global_batch_size] int64 arrays."""
    positions = np.arange((step - 1) * global_batch_size, step * global_batch_size, dtype=np.int64)
    return instances_at(positions, num_instances=num_instances, seed=seed)


def instances_at(positions: Int64s, *, num_instances: int, seed: int) -> tuple[Int64s, Int64s]:
    """(instances, epochs) at these places (from 0) of the endless row of epochs: two int64 arrays."""
    epochs, offsets = np.divmod(positions, num_instances)
    instances = np.empty_like(positions)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        instances[chosen] = permute(offsets[chosen], size=num_instances, key=int(fold(seed, int(epoch))))
    return instances, epochs
