"""Micro-batches against the shards they come from, read by pyarrow alone."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from bert_lamb.data.batches import HeldoutBatches, TrainingBatches, unigram_cross_entropy
from bert_lamb.data.masking import MaskingRate, MaskingRule
from bert_lamb.shards import open_instances
from tests.synthetic import CLS, MASK, SEP, make_shards

RULE = MaskingRule(
    mask_prob=0.15,
    mask_token_prob=0.8,
    random_token_prob=0.1,
    masking_copies=0,
    max_predictions_per_seq=4,
    vocab_size=97,
    mask_token_id=MASK,
    special_token_ids=(CLS, SEP),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("batches") / "s")


@pytest.fixture(scope="module")
def rows(shards):
    """Every training row of length 32, by pyarrow alone."""
    files = sorted((shards / "seq32").glob("train-*"))
    return [row for file in files for row in pa.ipc.open_file(file).read_all().to_pylist()]


def training(shards, *, rank=0, world_size=1, micro_batch_size=12, accumulation=2, rate=None):
    return TrainingBatches(
        open_instances(shards, max_seq_length=32, split="train"),
        rule=RULE,
        seed=5,
        global_batch_size=micro_batch_size * accumulation * world_size,
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=accumulation,
        rank=rank,
        world_size=world_size,
        rate=rate,
    )


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def of_sequences(batch):
    """[(ids with their labels put back, types, place of each masked token, sentence label)] of a micro-batch."""
    restored = batch.input_ids.clone()
    restored[batch.masked_positions] = batch.masked_labels
    lengths = batch.cu_seqlens.diff().tolist()
    is_masked = torch.zeros_like(restored).index_fill(0, batch.masked_positions, 1)
    labels = [None] * len(lengths) if batch.sentence_labels is None else batch.sentence_labels.tolist()
    parts = (tensor.split(lengths) for tensor in (restored, batch.token_type_ids, is_masked, batch.position_ids))
    rows = []
    for ids, types, masked, positions, label in zip(*parts, labels, strict=True):
        assert positions.tolist() == list(range(len(ids)))
        rows.append((ids.tolist(), types.tolist(), masked.tolist(), label))
    return rows


def test_tensors_are_the_shards_rows(shards, rows):
    """Both micro-batches of a step are its global batch, laid end to end, nothing padded."""
    batches = training(shards)
    for step in (1, 21):
        chosen, _ = batches.global_batch(step)
        expected = []
        for instance in chosen:
            row = rows[instance]
            length, length_a = len(row["input_ids"]), row["segment_a_length"]
            expected.append((row["input_ids"], [0] * length_a + [1] * (length - length_a), row["sentence_label"]))
        pair = batches[2 * step - 2], batches[2 * step - 1]
        assert [len(batch.sentence_labels) for batch in pair] == [12, 12]
        found = [(ids, types, bool(label)) for batch in pair for ids, types, _, label in of_sequences(batch)]
        assert sorted(found) == sorted(expected)
        for batch in pair:
            assert batch.max_length == 32
            assert batch.cu_seqlens.dtype is torch.int32
            for ids, _, masked, _ in of_sequences(batch):
                assert sum(masked) == min(4, max(1, round(0.15 * len(ids))))
                assert not any(hit and token in (CLS, SEP) for token, hit in zip(ids, masked, strict=True))


def test_micro_batches_of_a_step_are_alike(shards):
    """Dealt by length: each begins with one of the longest rows, and no two differ by more than one of those."""
    batches = training(shards, micro_batch_size=3, accumulation=8)
    lengths = [batches[number].cu_seqlens.diff().tolist() for number in range(8)]
    assert sorted(of_one[0] for of_one in lengths) == sorted(length for of_one in lengths for length in of_one)[-8:]
    assert max(map(sum, lengths)) - min(map(sum, lengths)) <= 32


def test_counts_are_known_before_the_batch(shards):
    batches = training(shards)
    for step in (1, 5):
        counts = batches.counts(step)
        both = [batches[2 * (step - 1)], batches[2 * (step - 1) + 1]]
        assert counts.num_sequences == 24
        assert counts.num_predictions == sum(len(batch.masked_labels) for batch in both)
        lengths = [length for batch in both for length in batch.cu_seqlens.diff().tolist()]
        assert counts.num_tokens == sum(lengths) == sum(len(batch.input_ids) for batch in both)
        assert counts.sum_squared_lengths == sum(length**2 for length in lengths)


def test_the_share_that_is_predicted_falls_step_by_step(shards):
    """From 50 % to 10 % over 4 steps, by hand, whatever block a step is made in; what the counts say is there. Beyond
    the last step, where batches were passed over, it stays."""
    batches = training(shards, rate=MaskingRate(0.5, 0.1, num_steps=4))
    batches.rule = replace(RULE, max_predictions_per_seq=32)
    block = batches.masked(0, 12).micro_batches()
    for number, batch in enumerate(block):
        share = [0.5, 0.4, 0.3, 0.2, 0.1, 0.1][number // 2]
        for ids, _, masked, _ in of_sequences(batch):
            assert sum(masked) == max(1, round(share * len(ids)))
        assert_equal(batch, batches[number])
    for step in range(1, 7):
        found = sum(len(batch.masked_labels) for batch in block[2 * step - 2 : 2 * step])
        assert batches.counts(step).num_predictions == found


@pytest.mark.parametrize(
    ("num_workers", "tokens_per_block"), [(0, 1), (0, 1 << 16), (0, 3 * 12 * 32), (2, 2 * 12 * 32)]
)
def test_loader_seeks_and_keeps_order(shards, monkeypatch, num_workers, tokens_per_block):
    """Blocks of one micro-batch, of all six, of three, of two."""
    monkeypatch.setattr("bert_lamb.data.batches.TOKENS_PER_BLOCK", tokens_per_block)
    batches = training(shards)
    late = list(batches.loader(first_step=3, last_step=5, num_workers=num_workers, pin_memory=False))
    assert len(late) == 6
    for number, batch in enumerate(late):
        assert_equal(batch, batches[4 + number])


def test_pinning_cuts_alike(shards, monkeypatch):
    """What the pinning thread of a machine with a GPU gives is what a machine without one gets."""
    num_pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: num_pinned.append(1) or tensor.clone())
    block = training(shards).masked(2, 5)
    for found, expected in zip(block.pin_memory(), block.micro_batches(), strict=True):
        assert_equal(found, expected)
    assert len(num_pinned) == 3 * 7


def test_without_a_sentence_task_there_are_no_labels(tmp_path):
    batches = training(make_shards(tmp_path / "single", sentence_task="none"))
    batch = batches[0].to(torch.device("cpu"))
    assert batch.sentence_labels is None
    assert not batch.token_type_ids.any()


def test_any_cut_of_a_step_shows_the_same_rows(shards):
    """Two ranks, or smaller micro-batches: the same rows with the same masks."""
    one = [row for number in range(2) for row in of_sequences(training(shards)[number])]
    two = [
        row
        for rank in (0, 1)
        for number in range(4)
        for row in of_sequences(training(shards, rank=rank, world_size=2, micro_batch_size=3, accumulation=4)[number])
    ]
    assert sorted(one) == sorted(two)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_heldout_is_dealt_once(shards, world_size):
    """Every rank gets equally many micro-batches; those that count cover each instance once."""
    heldout = HeldoutBatches(
        open_instances(shards, max_seq_length=32, split="heldout"), rule=RULE, seed=5, max_instances=37
    )
    dealt = [list(heldout.of_rank(rank=r, world_size=world_size, micro_batch_size=8)) for r in range(world_size)]
    assert len({len(of_rank) for of_rank in dealt}) == 1
    counted = [batch for of_rank in dealt for batch, is_counted in of_rank if is_counted]
    assert sum(len(batch.sentence_labels) for batch in counted) == 37 == heldout.counts.num_sequences
    assert sum(len(batch.masked_labels) for batch in counted) == heldout.counts.num_predictions


def test_unigram_cross_entropy_by_hand(shards, rows):
    """Counted again with a dictionary; one is added to every entry, special tokens are left out."""
    heldout = HeldoutBatches(
        open_instances(shards, max_seq_length=32, split="heldout"), rule=RULE, seed=5, max_instances=40
    )
    counts = {token: 1 for token in range(97) if token not in (CLS, SEP)}
    for row in rows:
        for token in row["input_ids"]:
            if token in counts:
                counts[token] += 1
    total = sum(counts.values())
    labels = [
        int(label)
        for batch, _ in heldout.of_rank(rank=0, world_size=1, micro_batch_size=16)
        for label in batch.masked_labels
    ]
    expected = -np.mean([np.log(counts[label] / total) for label in labels])
    found = unigram_cross_entropy(open_instances(shards, max_seq_length=32, split="train"), heldout, max_tokens=10**9)
    assert found == pytest.approx(expected, rel=1e-12)
