"""Batch arithmetic against sums done by hand (the 32K recipe on 64 GPUs)."""

import pytest

from bert_lamb.errors import UserError
from bert_lamb.train.batch_plan import plan_batch


def test_the_32k_recipe_on_64_gpus():
    plan = plan_batch(
        key="phases.phase1.global_batch_size",
        global_batch_size=32_768,
        max_micro_batch_size=64,
        world_size=64,
        total_steps=14_063,
        max_seq_length=128,
    )
    assert plan.gradient_accumulation_steps == 8
    assert plan.sequences_per_rank_and_step == 512
    assert plan.total_sequences == 460_816_384
    assert plan.total_tokens == 58_984_497_152
    assert plan.describe() == [
        "64 sequences per micro-batch and rank x 8 accumulation = 512 per rank",
        "512 per rank x 64 ranks = 32,768 sequences per step = 4,194,304 token positions",
        "32,768 x 14,063 steps = 460,816,384 sequences = 58,984,497,152 token positions of length 128",
    ]


def plan(global_batch_size, max_micro_batch_size, world_size):
    return plan_batch(
        key="phases.phase1.global_batch_size",
        global_batch_size=global_batch_size,
        max_micro_batch_size=max_micro_batch_size,
        world_size=world_size,
        total_steps=1,
        max_seq_length=128,
    )


@pytest.mark.parametrize(
    ("global_batch_size", "limit", "world_size", "expected"),
    [
        (512, 64, 16, 32),  # the smallest row of the paper on 16 GPUs
        (512, 64, 8, 64),
        (512, 64, 512, 1),
        (32_768, 48, 64, 32),
        (24_576, 48, 64, 48),
        (384, 50, 4, 48),
        (2 * 509, 64, 2, 1),  # a prime share has no other divisor
        (96, 1, 3, 1),
    ],
)
def test_the_micro_batch_is_the_largest_divisor_within_the_limit(global_batch_size, limit, world_size, expected):
    found = plan(global_batch_size, limit, world_size)
    assert found.micro_batch_size == expected
    assert found.micro_batch_size * found.gradient_accumulation_steps * world_size == global_batch_size


def test_a_smaller_micro_batch_is_explained():
    first, *_ = plan(512, 64, 16).describe()
    assert first == (
        "32 sequences per micro-batch and rank (at most 64; the largest divisor of 32 below it)"
        " x 1 accumulation = 32 per rank"
    )


def test_one_is_one():
    first, second, _ = plan(1, 1, 1).describe()
    assert first.startswith("1 sequence per micro-batch and rank x 1 accumulation")
    assert second.startswith("1 per rank x 1 rank = 1 sequence per step")


@pytest.mark.parametrize(("global_batch_size", "world_size", "ranks"), [(32_768, 3, 2), (512, 1024, 512), (8, 6, 4)])
def test_ranks_that_cannot_share_a_batch_are_refused(global_batch_size, world_size, ranks):
    with pytest.raises(UserError, match=rf"{world_size} ranks do not share evenly.* start {ranks} ranks"):
        plan(global_batch_size, 64, world_size)
