"""The schedule against values published or worked out by hand.

Breaks that turn this file red: decay measured from the other origin, power on the wrong factor, steps counted from 0.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_lamb.train.schedule import lr_multiplier


def multiplier(step, **options):
    rule = {"total_steps": 100, "warmup_proportion": 0.1, "decay_power": 1.0, "decay_origin": "warmup_end"}
    return lr_multiplier(step, **{**rule, **options})


@pytest.mark.parametrize(
    ("total_steps", "warmup_proportion", "peak_lr", "published"),
    [(7038, 0.2843, 6e-3, 5.08e-3), (1563, 0.128, 4e-3, 3.74e-3)],
)
def test_nvidia_lr_after_warmup(total_steps, warmup_proportion, peak_lr, published):
    """NVIDIA's two phases: power 0.5 from step 0, so the lr drops at the end of warm-up to the published values."""
    first = int(warmup_proportion * total_steps) + 1
    found = peak_lr * lr_multiplier(
        first,
        total_steps=total_steps,
        warmup_proportion=warmup_proportion,
        decay_power=0.5,
        decay_origin="start",
    )
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
)
def test_rises_then_falls_within_bounds(total_steps, warmup_proportion, decay_power, decay_origin):
    values = [
        lr_multiplier(
            step,
            total_steps=total_steps,
            warmup_proportion=warmup_proportion,
            decay_power=decay_power,
            decay_origin=decay_origin,
        )
        for step in range(1, total_steps + 1, max(1, total_steps // 50))
    ]
    assert all(0 <= value <= 1 for value in values)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)


@pytest.mark.parametrize("step", [0, 101, -1])
def test_steps_outside_the_phase_are_refused(step):
    with pytest.raises(ValueError, match=r"outside 1\.\.100"):
        multiplier(step)
