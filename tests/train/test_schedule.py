"""The schedule against values published or worked out by hand, and against the formulas of published trainers.

Breaks that turn this file red: decay measured from the other origin, power on the wrong factor, steps counted from 0.
"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_lamb.train.schedule import Schedule


def multiplier(step, **options):
    rule = {"total_steps": 100, "warmup_proportion": 0.1, "decay_power": 1.0, "decay_origin": "warmup_end"}
    return Schedule(peak_lr=1.0, **{**rule, **options}).lr(step)


@pytest.mark.parametrize(
    ("total_steps", "warmup_proportion", "peak_lr", "published"),
    [(7038, 0.2843, 6e-3, 5.08e-3), (1563, 0.128, 4e-3, 3.74e-3)],
)
def test_nvidia_lr_after_warmup(total_steps, warmup_proportion, peak_lr, published):
    """NVIDIA's two phases: power 0.5 from step 0, so the lr drops at the end of warm-up to the published values."""
    first = int(warmup_proportion * total_steps) + 1
    found = Schedule(total_steps, peak_lr, warmup_proportion, decay_power=0.5, decay_origin="start").lr(first)
    assert found == pytest.approx(published, abs=0.01e-3)


@pytest.mark.parametrize(
    ("options", "golden"),
    [
        ({}, {1: 0.1, 5: 0.5, 9: 0.9, 10: 1.0, 55: 0.5, 91: 0.1, 100: 0.0}),
        ({"decay_origin": "start"}, {5: 0.5, 9: 0.9, 10: 0.9, 55: 0.45, 100: 0.0}),
        ({"decay_power": 0.5}, {10: 1.0, 55: 0.5**0.5, 100: 0.0}),
        ({"decay_power": 2.0, "decay_origin": "start"}, {10: 0.81, 50: 0.25}),
        ({"warmup_proportion": 0.0}, {1: 0.99, 50: 0.5}),
        ({"warmup_proportion": 1.0}, {1: 0.01, 99: 0.99, 100: 1.0}),
        ({"warmup_proportion": 0.025}, {1: 0.4, 2: 0.8, 3: 97 / 97.5}),  # 2.5 steps of warm-up
        ({"end_share": 0.1}, {5: 0.5, 10: 1.0, 55: 0.55, 100: 0.1}),
        ({"decay": "cosine"}, {5: 0.5, 10: 1.0, 40: 0.75, 55: 0.5, 70: 0.25, 100: 0.0}),
        ({"decay": "cosine", "end_share": 0.2}, {10: 1.0, 40: 0.8, 55: 0.6, 100: 0.2}),
        ({"decay": "cosine", "decay_origin": "start"}, {5: 0.5, 50: 0.5, 100: 0.0}),
        ({"decay": "constant"}, {5: 0.5, 10: 1.0, 99: 1.0, 100: 1.0}),
        ({"decay": "constant", "cooldown_proportion": 0.2}, {80: 1.0, 81: 0.95, 90: 0.5, 100: 0.0}),
        ({"cooldown_proportion": 0.1, "end_share": 0.5}, {90: 5 / 9, 95: 5 / 18, 100: 0.0}),
        ({"decay": "exponential", "decay_rate": 0.5, "decay_interval_steps": 20}, {10: 1.0, 20: 0.5**0.5, 50: 0.25}),
        ({"warmup_power": 2.0}, {1: 0.01, 5: 0.25, 10: 1.0}),
        ({"warmup_start_share": 0.2}, {1: 0.28, 5: 0.6, 10: 1.0}),
        ({"total_steps": 30, "steps_before": 50, "steps_after": 20}, {1: 49 / 90, 5: 0.5, 30: 20 / 90}),
        ({"total_steps": 20, "steps_after": 80}, {1: 0.1, 10: 1.0, 20: 80 / 90}),
    ],
)
def test_golden_values(options, golden):
    for step, expected in golden.items():
        assert multiplier(step, **options) == pytest.approx(expected), (options, step)


@given(
    total_steps=st.integers(1, 5000),
    warmup_proportion=st.floats(0, 1),
    decay_power=st.floats(0.1, 3),
    decay_origin=st.sampled_from(["start", "warmup_end"]),
    decay=st.sampled_from(["polynomial", "cosine", "constant", "exponential"]),
    cooldown_proportion=st.floats(0, 0.5),
    end_share=st.floats(0, 1),
)
def test_rises_then_falls_within_bounds(total_steps, warmup_proportion, cooldown_proportion, **options):
    schedule = Schedule(
        total_steps,
        1.0,
        warmup_proportion * (1 - cooldown_proportion),
        cooldown_proportion=cooldown_proportion,
        decay_rate=0.9,
        decay_interval_steps=7,
        **options,
    )
    values = [schedule.lr(step) for step in range(1, total_steps + 1, max(1, total_steps // 50))]
    assert all(0 <= value <= 1 for value in values)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)


@pytest.mark.parametrize("step", [0, 101, -1])
def test_steps_outside_the_phase_are_refused(step):
    with pytest.raises(ValueError, match=r"outside 1\.\.100"):
        multiplier(step)


def test_one_curve_is_the_same_however_it_is_cut_into_stages():
    """What each stage sees is the whole curve's lr at that step, to the last bit."""
    shape = {"decay": "cosine", "end_share": 0.1, "cooldown_proportion": 0.05, "warmup_power": 2.0}
    whole = Schedule(100, 1e-2, 0.3, **shape)
    cuts = [20, 1, 50, 29]
    found = []
    for index, steps in enumerate(cuts):
        around = {"steps_before": sum(cuts[:index]), "steps_after": sum(cuts[index + 1 :])}
        stage = Schedule(steps, 1e-2, 0.3, **shape, **around)
        found += [stage.lr(step) for step in range(1, steps + 1)]
    assert found == [whole.lr(step) for step in range(1, 101)]


def test_hplt_curve():
    """The closed form of HPLT's encoder-only training, which numbers updates from 0 and begins its cool-down at 10 %,
    where the cosine is at 10.06 %."""
    total, warmup, cooldown, least = 31_250, 500, 500, 0.1

    def theirs(update):
        if update < warmup:
            return update / warmup
        if update >= total - cooldown:
            return least * (total - update) / cooldown
        wave = (1 + math.cos(math.pi * (update - warmup) / (total - warmup))) / 2
        return least + (1 - least) * wave

    ours = Schedule(total, 1.0, 0.016, decay="cosine", end_share=least, cooldown_proportion=0.016)
    for step in (1, 250, 500, 501, 7_000, 21_875, 21_876, 30_750, 30_751, 31_000, 31_249, 31_250):
        assert ours.lr(step) == pytest.approx(theirs(step), rel=0.007), step
        assert step >= total - cooldown or ours.lr(step) == pytest.approx(theirs(step), rel=1e-12), step


def test_deepspeed_curve():
    """The closed form of DeepSpeed's 44 minutes: the square of the warm-up, x 0.9 every 250 steps, plus an offset."""
    total, warmup, lr, offset = 7_500, 0.06 * 7_500, 11e-3, 1e-3

    def theirs(step):
        share = (step / warmup) ** 2 if step < warmup else 0.9 ** ((step - warmup) / 250)
        return lr * share + offset

    ours = Schedule(
        total,
        lr + offset,
        0.06,
        warmup_power=2.0,
        warmup_start_share=1 / 12,
        end_share=1 / 12,
        decay="exponential",
        decay_rate=0.9,
        decay_interval_steps=250,
    )
    for step in (1, 100, 449, 450, 451, 700, 7_499, 7_500):
        assert ours.lr(step) == pytest.approx(theirs(step), rel=1e-9), step


@pytest.mark.parametrize(
    ("options", "is_still"),
    [
        ({"total_steps": 1}, True),
        ({"total_steps": 1, "warmup_proportion": 1.0}, False),
        ({"total_steps": 1, "end_share": 0.1}, False),
        ({"total_steps": 2}, False),
        ({"total_steps": 1, "steps_before": 9}, True),
        ({"total_steps": 1, "steps_before": 9, "steps_after": 1}, False),
        ({"total_steps": 1, "decay_end": "after_last_step"}, False),
    ],
)
def test_a_stage_that_moves_nothing(options, is_still):
    assert Schedule(peak_lr=1.0, **{"warmup_proportion": 0.1, **options}).moves_nothing == is_still
