"""Batch arithmetic against sums done by hand (the 32K recipe on 64 GPUs)."""

import pytest

from bert_lamb.batch_plan import plan_batch
from bert_lamb.errors import UserError


def test_the_32k_recipe_on_64_gpus():
    plan = plan_batch(
        phase="phase1",
        global_batch_size=32_768,
        micro_batch_size=64,
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


@pytest.mark.parametrize(("micro_batch_size", "world_size"), [(64, 3), (48, 64), (64, 1024)])
def test_what_does_not_divide_is_refused(micro_batch_size, world_size):
    with pytest.raises(UserError, match=r"global_batch_size=32768, which .* does not divide"):
        plan_batch(
            phase="phase1",
            global_batch_size=32_768,
            micro_batch_size=micro_batch_size,
            world_size=world_size,
            total_steps=1,
            max_seq_length=128,
        )
