"""The arithmetic against published runs: every error is computed anew and printed, and the README's table is this.

Truth: figures of published tables, some of which are repeated here. `pytest -s` shows all errors.
"""

import math

import pytest

from bert_lamb.planner.__main__ import README, text_of, with_generated
from bert_lamb.planner.calibration import FILE, NETWORK_GUESSED, NETWORK_OF, NOT_FITTED, error, read_efficiencies
from bert_lamb.planner.comparison import TARGET, compare, nearest
from bert_lamb.planner.hardware import GPUS, peak_flops
from bert_lamb.planner.ours import compute_efficiency
from bert_lamb.planner.published import Efficiencies, predict, read_published
from tests.launch import CHECKOUT

ROWS = read_published()
BY_NAME = {row.name: row for row in ROWS}
# Beyond 15 %, with the bound that is held.
BEYOND = {
    "dle22-a100-256-512-tf32": 0.26,
    "deepspeed-1024-run": 0.20,
    "paper-tpu-1024": 0.17,
    "mlperf-gb200-512": 2.0,
}


def test_the_rows_are_as_published():
    """Sequences a second and hours of NVIDIA's, DeepSpeed's and MLPerf's tables and of the paper, by hand."""
    figures = {
        "dle22-v100-1-128": 224,
        "dle22-v100-1-512": 75,
        "dle22-a100-1-128": 580,
        "dle22-a100-1-512": 210,
        "dle22-a100-8-128": 4_591,
        "dle22-a100-8-512": 1_657,
        "dle22-a100-256-128": 138_294,
        "dle22-a100-256-512": 49_663,
        "dle22-a100-256-run": 1.2,
        "deepspeed-1-128": 272,
        "deepspeed-1-512": 52,
        "deepspeed-1024-run": 44 / 60,
        "mlperf-h100-8": 8 * 970,
        "mlperf-h200-8": 8 * 1_021,
        "mlperf-b200-8": 8 * 1_458,
        "mlperf-gb200-512": 512 * 437,
        "paper-tpu-16": 82.8,
        "paper-tpu-1024": 101.2 / 60,
        "paper-tpu-1024-64k": 76.19 / 60,
    }
    for name, figure in figures.items():
        assert BY_NAME[name].value == pytest.approx(figure, rel=1e-4), name
    assert len(BY_NAME) == len(ROWS) >= 100
    for row in ROWS:
        assert any(mark in row.source for mark in ("[V]", "[2]", "[R]", "[D]")), row.name
        for phase in row.phases:
            assert phase.global_batch_size % row.gpus == 0 or "tf32" in row.name, row.name


def test_errors_are_within_their_bounds():
    for one in compare(ROWS, read_efficiencies()):
        print(
            f"{one.row.name:32} {one.row.value:12.6g} {one.row.unit:5} {one.predicted:12.6g} {100 * one.error:+7.1f} %"
        )
        assert abs(one.error) <= BEYOND.get(one.row.name, TARGET), one.row.name
        assert one.row.name not in BEYOND or abs(one.error) > TARGET, "no longer beyond"


def test_the_readme_says_these_errors():
    page = README.read_text()
    assert with_generated(page) == page, "python -m bert_lamb.planner"


def test_the_page_of_results_says_how_many_are_off():
    compared = compare(ROWS, read_efficiencies())
    beyond = sum(not one.is_within for one in compared)
    page = " ".join((CHECKOUT / "docs" / "results.md").read_text().split())
    assert f"{len(compared)} published figures: {beyond} of them more than 15 %" in page


def test_the_efficiencies_are_the_best_fit():
    """Two per cent either way of any of them is no better."""
    stored = read_efficiencies()
    assert text_of(stored) == FILE.read_text()
    rows = [row for row in ROWS if row.name not in NOT_FITTED]

    def loss(efficiencies, generation):
        own = [row for row in rows if row.gpu.generation == generation]
        return sum(math.log(predict(row, efficiencies) / row.value) ** 2 for row in own)

    for (stack, generation), value in stored.compute.items():
        least = loss(stored, generation)
        for factor in (0.98, 1.02):
            changed = Efficiencies({**stored.compute, (stack, generation): factor * value}, stored.network)
            assert loss(changed, generation) > least, (stack, generation)
    for generation, value in stored.network.items():
        if generation in NETWORK_OF:
            assert value == stored.network[NETWORK_OF[generation]]
        elif generation not in NETWORK_GUESSED:
            for factor in (0.95, 1.05):
                changed = Efficiencies(stored.compute, {**stored.network, generation: factor * value})
                assert loss(changed, generation) > loss(stored, generation), generation


def test_faster_than_it_was_is_a_positive_error():
    slow = Efficiencies(dict.fromkeys(read_efficiencies().compute, 1.2), read_efficiencies().network)
    for row in (BY_NAME["dle22-a100-1-128"], BY_NAME["paper-tpu-16"]):
        assert error(row, slow) > 0.3


def test_a_later_generation_gets_no_more_than_its_fp8_run_reached():
    efficiencies = read_efficiencies()
    for name in ("h100", "h200", "b200"):
        gpu = GPUS[name]
        taken = compute_efficiency(gpu, "bf16", efficiencies)
        in_fp8 = efficiencies.compute["mlperf", gpu.generation] * gpu.tflops["fp8"]
        assert taken.value * gpu.tflops["bf16"] <= in_fp8 * (1 + 1e-9)
        assert taken.value <= efficiencies.compute["dle_2022", "a100"]
    assert compute_efficiency(GPUS["a100_80"], "bf16", efficiencies).value == efficiencies.compute["dle_2022", "a100"]
    for gpu in GPUS.values():
        for precision in set(gpu.tflops) - {"fp8"}:
            assert 0 < compute_efficiency(gpu, precision, efficiencies).value <= 1
            assert peak_flops(gpu, precision) > 0


def test_the_nearest_rows_are_of_the_generation_and_size():
    names = [one.row.name for one in nearest(compare(ROWS, read_efficiencies()), "a100", 256, count=5)]
    assert all("-256-" in name for name in names)
    assert nearest([], "a100", 1, count=3) == []
