"""Rows of a global batch are dealt to micro-batches once each, and evenly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_lamb.sampling.dealing import deal, micro_batch_number


@given(
    lengths=st.lists(st.integers(1, 512), min_size=1, max_size=40),
    num_micro_batches=st.integers(1, 8),
)
def test_every_row_is_dealt_once(lengths, num_micro_batches):
    lengths = np.array(lengths * num_micro_batches, dtype=np.uint16)
    dealt = deal(lengths, num_micro_batches)
    assert dealt.shape == (num_micro_batches, len(lengths) // num_micro_batches)
    assert sorted(dealt.ravel().tolist()) == list(range(len(lengths)))


def test_rounds_go_to_and_fro():
    """By hand: 9 8 7 | 6 5 4 (backwards) | 3 2 1, to three micro-batches."""
    lengths = np.array([1, 9, 2, 8, 3, 7, 4, 6, 5], dtype=np.uint16)
    assert lengths[deal(lengths, 3)].tolist() == [[9, 4, 3], [8, 5, 2], [7, 6, 1]]


def test_rows_of_a_length_keep_their_order():
    assert deal(np.array([5, 5, 5, 5, 5, 5], dtype=np.uint16), 2).tolist() == [[0, 3, 4], [1, 2, 5]]


@pytest.mark.parametrize(("num_micro_batches", "most"), [(8, 1.01), (64, 1.01), (256, 1.03)])
def test_micro_batches_are_alike(num_micro_batches, most):
    """Lengths as in text (a third short, the others full): the largest beside the mean; dealt at random it is 1.2."""
    random = np.random.default_rng(3)
    lengths = np.where(random.random(4096) < 0.35, random.integers(5, 512, 4096), 512).astype(np.uint16)
    tokens = lengths[deal(lengths, num_micro_batches)].sum(axis=1)
    assert tokens.max() / tokens.mean() < most
    assert lengths.reshape(num_micro_batches, -1).sum(axis=1).max() / tokens.mean() > most


def test_ranks_take_turns():
    numbers = [micro_batch_number(step, rank=rank, world_size=3) for step in range(4) for rank in range(3)]
    assert numbers == list(range(12))
