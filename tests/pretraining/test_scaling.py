"""The rules that derive a schedule from the batch, against the paper's table and by hand.

Breaks that turn this file red: linear in the place of the root, a warm-up that does not grow with the batch, steps of
each phase rounded alone.
"""

import pytest

from bert_lamb.cli.compose import compose
from bert_lamb.errors import UserError
from bert_lamb.outputs.plain import to_plain
from bert_lamb.pretraining.command import recipe_of
from bert_lamb.pretraining.scaling import settled
from tests.pretraining.test_recipes import PAPER_ROWS, load

FILE = ["recipe=demo", "shards=/shards", "run_dir=/run"]
PHASE = [f"phases.phase{i}.{key}=null" for i in (1, 2) for key in ("peak_lr", "warmup_proportion")]


def phases(*words):
    return settled(to_plain(compose("pretrain", [*FILE, *words])))["phases"]


@pytest.mark.parametrize("name", PAPER_ROWS)
def test_the_rule_gives_every_row_of_the_paper(name):
    """Batch alone -> peak lr, warm-up and steps, of the table and of our recipe of the row, digit for digit."""
    batch, total_steps, exponent, warmup_divisor, _ = PAPER_ROWS[name]
    words = ["recipe=lamb_paper", f"phases.phase1.global_batch_size={batch}", "shards=/s", "run_dir=/r"]
    found = list(settled(to_plain(compose("pretrain", words)))["phases"].values())
    recipe = list(load(name).phases.values())
    assert [phase["global_batch_size"] for phase in found] == [batch, batch]
    assert sum(phase["total_steps"] for phase in found) == total_steps
    for ours, published in zip(found, recipe, strict=True):
        assert ours["peak_lr"] == pytest.approx(5 / (2**exponent * 1000), rel=1e-12)
        assert ours["warmup_proportion"] == pytest.approx(1 / warmup_divisor, rel=1e-12)
        assert ours["total_steps"] == published.total_steps
        assert ours["peak_lr"] == pytest.approx(published.peak_lr, rel=1e-4)
    assert sum(phase["warmup_proportion"] * phase["total_steps"] for phase in found) == pytest.approx(3_125)


@pytest.mark.parametrize("name", PAPER_ROWS)
def test_recipes_of_the_rows_agree_with_the_rule(name):
    settled(to_plain(load(name, "scaling=lamb_paper")))


def test_where_the_published_runs_leave_the_rule():
    """64K: the rule says 7.07e-3 and 0.4, NVIDIA has 6e-3 and 0.2843; its second phase has 4e-3 and 0.128 at 32K."""
    for name in ("lamb_64k_32k", "nvidia_64k_32k"):
        with pytest.raises(UserError) as complaint:
            settled(to_plain(load(name, "scaling=lamb_paper")))
        found = str(complaint.value)
        for key, published, rule in (
            ("phase1.peak_lr", "0.006", "0.00707107"),
            ("phase1.warmup_proportion", "0.2843", "0.4"),
            ("phase2.peak_lr", "0.004", "0.005"),
            ("phase2.warmup_proportion", "0.128", "0.2"),
        ):
            assert f"phases.{key}={published}" in found, key
            assert f"expected {rule}, by scaling=lamb_paper" in found, key


@pytest.mark.parametrize(("rule", "rates"), [("linear", [8e-4, 2e-4]), ("sqrt", [4e-4, 2e-4])])
def test_from_a_batch_that_is_known(rule, rates):
    """The demo's batches are 32 and 8: four times the base, and the base."""
    words = [f"scaling={rule}", "scaling_base_lr=2e-4", "scaling_base_batch_size=8", PHASE[0], PHASE[2]]
    assert [phase["peak_lr"] for phase in phases(*words).values()] == pytest.approx(rates)


def test_sequences_become_steps_that_add_up():
    """100 / 32 = 3.125 -> 3 and 3.125 + 11 / 8 = 4.5 -> 5; what is settled can be settled again."""
    words = [
        f"phases.phase{i}.{key}" for i, n in ((1, 100), (2, 11)) for key in (f"num_sequences={n}", "total_steps=null")
    ]
    found = settled(to_plain(compose("pretrain", [*FILE, *words])))
    assert [phase["total_steps"] for phase in found["phases"].values()] == [3, 2]
    assert settled(found) == found


def test_one_curve_over_the_run():
    """Later phases take the first one's word, and the steps around each place it on the curve."""
    words = ["decay_over=run", *PHASE[2:], "phases.phase1.decay=cosine", "phases.phase1.end_share=0.1"]
    recipe = recipe_of(to_plain(compose("pretrain", [*FILE, *words])))
    first, second = recipe.schedules
    assert (first.total_steps, first.steps_before, first.steps_after) == (350, 0, 30)
    assert (second.total_steps, second.steps_before, second.steps_after) == (30, 350, 0)
    assert second.lr(30) == pytest.approx(1e-3)
    # By hand: warm-up 38 of 380 steps, then half a cosine of 342 with 29 to go: sin^2(pi 29 / 684).
    assert second.lr(1) == pytest.approx(1e-2 * (0.1 + 0.9 * 0.0176366), rel=1e-5)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["phases.phase1.peak_lr=null"], "no value for phases.phase1.peak_lr"),
        (["phases.phase1.warmup_proportion=null"], "no value for phases.phase1.warmup_proportion"),
        (["phases.phase1.total_steps=null"], "no value for phases.phase1.total_steps"),
        (["phases.phase1.num_sequences=9999"], "found phases.phase1.total_steps=350; expected 312,"),
        (["phases.phase1.num_sequences=1", "phases.phase1.total_steps=null"], "fewer than half a batch of 32"),
        (["scaling=sqrt"], "found scaling_base_lr=None"),
        (["scaling_base_lr=1"], "found scaling_base_lr=1.0"),
        (["scaling=lamb_paper"], "found phases.phase1.peak_lr=0.01"),
        (["scaling=lamb_paper", *PHASE, "decay_over=run"], "found decay_over=run"),
        (["scaling=lamb_paper", *PHASE, "phases.phase1.global_batch_size=163841"], "expected at most 163840"),
        (["decay_over=run"], "found phases.phase2.peak_lr=0.005"),
        (["phases.phase1.decay=exponential"], "found phases.phase1.decay_rate=None"),
        (["phases.phase1.decay_rate=0.9"], "found phases.phase1.decay_rate=0.9"),
        (["phases.phase1.decay=cosine", "phases.phase1.decay_power=2"], "found phases.phase1.decay_power=2.0"),
        (["phases.phase1.decay=constant", "phases.phase1.end_share=.5"], "found phases.phase1.end_share=0.5"),
        (["phases.phase1.cooldown_proportion=.95"], "phases.phase1.cooldown_proportion=1.05"),
        (["phases.phase1.mask_prob=.6"], "found phases.phase1.mask_prob=0.6"),
        (["phases.phase1.mask_prob_end=.2"], "found phases.phase1.mask_prob=None"),
    ],
)
def test_what_is_refused(words, complaint):
    with pytest.raises(UserError) as found:
        phases(*words)
    assert complaint in str(found.value), str(found.value)
