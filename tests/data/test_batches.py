"""Micro-batches against the shards they come from, read by pyarrow alone."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from bert_lamb.data.batches import HeldoutBatches, TrainingBatches, unigram_cross_entropy
from bert_lamb.data.masking import MaskingRule
from bert_lamb.shards import open_instances
from tests.synthetic import CLS, MASK, PAD, SEP, make_shards

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


def training(shards, *, rank=0, world_size=1, micro_batch_size=12, accumulation=2):
    return TrainingBatches(
        open_instances(shards, max_seq_length=32, split="train"),
        rule=RULE,
        seed=5,
        global_batch_size=micro_batch_size * accumulation * world_size,
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=accumulation,
        rank=rank,
        world_size=world_size,
    )


def test_tensors_are_the_shards_rows(shards, rows):
    batches = training(shards)
    for index in (0, 1, 40):
        chosen, _ = batches.global_batch(index // 2 + 1)
        chosen = chosen[12 * (index % 2) :][:12]
        batch = batches[index]
        restored = batch.input_ids.flatten().clone()
        restored[batch.masked_positions] = batch.masked_labels
        restored = restored.view(12, 32)
        for position, instance in enumerate(chosen):
            row = rows[instance]
            length, length_a = len(row["input_ids"]), row["segment_a_length"]
            assert restored[position].tolist() == row["input_ids"] + [PAD] * (32 - length)
            assert batch.attention_mask[position].tolist() == [1] * length + [0] * (32 - length)
            expected_types = [0] * length_a + [1] * (length - length_a) + [0] * (32 - length)
            assert batch.token_type_ids[position].tolist() == expected_types
            assert batch.sentence_labels[position] == row["sentence_label"]


def test_counts_are_known_before_the_batch(shards):
    batches = training(shards)
    for step in (1, 5):
        counts = batches.counts(step)
        both = [batches[2 * (step - 1)], batches[2 * (step - 1) + 1]]
        assert counts.num_sequences == 24
        assert counts.num_predictions == sum(len(batch.masked_labels) for batch in both)
        lengths = [length for batch in both for length in batch.attention_mask.sum(1).tolist()]
        assert counts.num_tokens == sum(lengths)
        assert counts.sum_squared_lengths == sum(length**2 for length in lengths)


@pytest.mark.parametrize(
    ("num_workers", "tokens_per_block"), [(0, 1), (0, 1 << 16), (0, 3 * 12 * 32), (2, 2 * 12 * 32)]
)
def test_loader_seeks_and_keeps_order(shards, monkeypatch, num_workers, tokens_per_block):
    """Blocks of one micro-batch, of all six, of three, of two."""
    monkeypatch.setattr("bert_lamb.data.batches.TOKENS_PER_BLOCK", tokens_per_block)
    batches = training(shards)
    late = list(batches.loader(first_step=3, total_steps=5, num_workers=num_workers, pin_memory=False))
    assert len(late) == 6
    for number, batch in enumerate(late):
        for found, expected in zip(batch, batches[4 + number], strict=True):
            assert torch.equal(found, expected)


def test_pinning_cuts_alike(shards, monkeypatch):
    """What the pinning thread of a machine with a GPU gives is what a machine without one gets."""
    num_pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: num_pinned.append(1) or tensor.clone())
    block = training(shards).masked(2, 5)
    for found, expected in zip(block.pin_memory(), block.micro_batches(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(num_pinned) == 6


def test_without_a_sentence_task_there_are_no_labels(tmp_path):
    batches = training(make_shards(tmp_path / "single", sentence_task="none"))
    batch = batches[0].to(torch.device("cpu"))
    assert batch.sentence_labels is None
    assert not batch.token_type_ids.any()


def test_two_ranks_together_see_what_one_sees(shards):
    one = training(shards, micro_batch_size=12, accumulation=2)[0]
    two = [training(shards, rank=rank, world_size=2, micro_batch_size=6)[0] for rank in (0, 1)]
    assert torch.equal(one.input_ids, torch.cat([batch.input_ids for batch in two]))
    assert torch.equal(one.masked_labels, torch.cat([batch.masked_labels for batch in two]))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_heldout_is_dealt_once(shards, world_size):
    """Every rank gets equally many micro-batches; those that count cover each instance once."""
    heldout = HeldoutBatches(
        open_instances(shards, max_seq_length=32, split="heldout"), rule=RULE, seed=5, max_instances=37
    )
    dealt = [list(heldout.of_rank(rank=r, world_size=world_size, micro_batch_size=8)) for r in range(world_size)]
    assert len({len(of_rank) for of_rank in dealt}) == 1
    counted = [batch for of_rank in dealt for batch, is_counted in of_rank if is_counted]
    assert sum(len(batch.input_ids) for batch in counted) == 37 == heldout.counts.num_sequences
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
