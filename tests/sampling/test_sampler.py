"""The sampler is a permutation per epoch, a pure function of its arguments, and blind to the machine.

Breaks that turn this file red: a Feistel round that is not invertible, a key that ignores the epoch, batches that
start over at an epoch's end.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_lamb.sampling.sampler import global_batch, instances_at, permute


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation(size, key):
    assert sorted(permute(np.arange(size), size=size, key=key).tolist()) == list(range(size))


def test_index_by_index_is_the_same_as_all_at_once():
    size, key = 1000, 7
    together = permute(np.arange(size), size=size, key=key)
    alone = [int(permute(np.array([i]), size=size, key=key)[0]) for i in (0, 1, 499, 999)]
    assert alone == [together[i] for i in (0, 1, 499, 999)]


def test_permutations_look_random():
    """Over many keys each index lands everywhere equally often, and neighbours do not stay neighbours."""
    size, num_keys = 20, 4000
    landed = np.zeros((size, size))
    num_adjacent = 0
    for key in range(num_keys):
        order = permute(np.arange(size), size=size, key=key)
        landed[np.arange(size), order] += 1
        num_adjacent += int((np.abs(np.diff(order)) == 1).sum())
    chi_square = ((landed - num_keys / size) ** 2 / (num_keys / size)).sum()
    assert chi_square < 361 + 5 * (2 * 361) ** 0.5  # 19 x 19 degrees of freedom, five standard deviations
    assert num_adjacent / num_keys == pytest.approx(2 * (size - 1) / size, rel=0.05)


@settings(deadline=None, max_examples=50)
@given(
    num_instances=st.integers(1, 200),
    global_batch_size=st.integers(1, 64),
    seed=st.integers(0, 1000),
)
def test_every_epoch_sees_every_instance_once(num_instances, global_batch_size, seed):
    num_steps = -(-2 * num_instances // global_batch_size)
    batches = [
        global_batch(step, global_batch_size=global_batch_size, num_instances=num_instances, seed=seed)
        for step in range(1, num_steps + 1)
    ]
    instances, epochs = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    for epoch in (0, 1):
        assert sorted(instances[epochs == epoch].tolist()) == list(range(num_instances))
    assert (np.diff(epochs) >= 0).all()


def test_epochs_and_seeds_differ():
    first, _ = global_batch(1, global_batch_size=100, num_instances=100, seed=1)
    second, _ = global_batch(2, global_batch_size=100, num_instances=100, seed=1)
    other, _ = global_batch(1, global_batch_size=100, num_instances=100, seed=2)
    assert (first != second).mean() > 0.9
    assert (first != other).mean() > 0.9


def test_any_places_are_those_of_the_global_batches():
    batches = [global_batch(step, global_batch_size=7, num_instances=10, seed=3) for step in (1, 2, 3)]
    instances, epochs = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    places = np.array([20, 3, 9, 10, 11, 3])
    found = instances_at(places, num_instances=10, seed=3)
    assert found[0].tolist() == instances[places].tolist()
    assert found[1].tolist() == epochs[places].tolist() == [2, 0, 0, 1, 1, 0]
