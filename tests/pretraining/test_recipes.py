"""Every recipe composes, and its figures are the published ones.

The table below is copied from the paper's and NVIDIA's own tables, not from conf/. Change a digit in a recipe: red.
"""

import numpy as np
import pytest
import yaml

from bert_lamb.cli.compose import compose, conf_dir
from bert_lamb.data.masking import num_predictions
from bert_lamb.outputs.plain import to_plain
from bert_lamb.pretraining.command import recipe_of

PAPER_ROWS = {  # name: batch, total steps, sqrt-scaling exponent k of lr = 5 / (2^k 1000), 1 / warm-up proportion, F1
    "lamb_512": (512, 1_000_000, 3.0, 320, "91.752"),
    "lamb_1k": (1_024, 500_000, 2.5, 160, "91.761"),
    "lamb_2k": (2_048, 250_000, 2.0, 80, "91.946"),
    "lamb_4k": (4_096, 125_000, 1.5, 40, "91.137"),
    "lamb_8k": (8_192, 62_500, 1.0, 20, "91.263"),
    "lamb_16k": (16_384, 31_250, 0.5, 10, "91.345"),
    "lamb_32k": (32_768, 15_625, 0.0, 5, "91.475"),
}
# name: per phase (batch, steps, lr, warm-up proportion, decay power), F1
MIXED = {
    "nvidia_64k_32k": [(65_536, 7_038, 6e-3, 0.2843, 0.5), (32_768, 1_563, 4e-3, 0.128, 0.5), "90.96"],
    "lamb_64k_32k": [(65_536, 7_037, 6e-3, 0.2843, 1.0), (32_768, 1_562, 4e-3, 0.128, 1.0), "90.584"],
    "adamw_512": [(512, 900_000, 1e-4, 0.01, 1.0), (512, 100_000, 1e-4, 0.01, 1.0), "90.395"],
}
PUBLISHED = [*PAPER_ROWS, *MIXED]
LINEAR = {"decay": "polynomial", "decay_power": 1.0, "end_share": 0.0, "cooldown_proportion": 0.0, "warmup_power": 1.0}
# Other optimizers' figures and other curves. name: the run's keys; per phase those that it must have. Copied from the
# sources that the recipes name; of the json files of DeepSpeed, with warm-up steps in the place of proportions.
LIVING = {
    "hplt": (
        {
            "decay_over": "run",
            "max_grad_norm": 2.0,
            "optimizer": {
                "name": "lamb",
                "betas": (0.9, 0.98),
                "eps": 1e-6,
                "weight_decay": 0.1,
                "bias_correction": True,
                "exempt_embeddings": True,
                "trust_ratio_bounds": None,
            },
            "masking": {"mask_token_prob": 0.8, "random_token_prob": 0.1},
            "total_steps": 31_250,
        },
        [
            {
                "max_seq_length": 128,
                "global_batch_size": 32_768,
                "peak_lr": 1e-2,
                "decay": "cosine",
                "end_share": 0.1,
                "cooldown_proportion": 0.016,
                "warmup_proportion": 0.016,
            },
            {"max_seq_length": 256, "global_batch_size": 16_384},
            {"max_seq_length": 512, "global_batch_size": 8_192},
        ],
    ),
    "deepspeed_64k_32k": (
        {
            "decay_over": "phase",
            "max_grad_norm": 1.0,
            "optimizer": {
                "name": "lamb",
                "betas": (0.9, 0.999),
                "eps": 1e-8,
                "weight_decay": 0.01,
                "bias_correction": False,
                "exempt_embeddings": False,
                "trust_ratio_bounds": [0.01, 0.3],
            },
            "total_steps": 7_500 + 1_563,
        },
        [
            {
                "max_seq_length": 128,
                "global_batch_size": 65_536,
                "peak_lr": 11e-3 + 1e-3,
                "decay": "exponential",
                "decay_rate": 0.9,
                "decay_interval_steps": 250,
                "warmup_power": 2.0,
                "warmup_start_share": 1 / 12,
                "end_share": 1 / 12,
                "warmup_steps": 0.06 * 7_500,
            },
            {
                "max_seq_length": 512,
                "global_batch_size": 32_768,
                "peak_lr": 2e-3,
                "decay": "exponential",
                "decay_rate": 0.9,
                "decay_interval_steps": 150,
                "warmup_power": 2.0,
                "warmup_start_share": 0.0,
                "end_share": 0.0,
                "warmup_steps": 0.02 * 7_500,
            },
        ],
    ),
    "mlperf_768": (
        {
            "stop_at": {"mlm_accuracy": 0.72},
            "max_grad_norm": 1.0,
            "optimizer": {"name": "lamb", "betas": (0.60466, 0.85437), "eps": 1e-6, "weight_decay": 0.1},
            "evaluation": {"interval_steps": 150_000 // 768, "max_instances": 10_000},
            "total_steps": 3_680,
        },
        [{**LINEAR, "max_seq_length": 512, "global_batch_size": 768, "peak_lr": 9.6e-4, "warmup_proportion": 0.0}],
    ),
    "google_bert": (
        {
            "decay_over": "run",
            "max_grad_norm": 1.0,
            "optimizer": {"name": "adamw", "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.01},
            "total_steps": 1_000_000,
        },
        [
            {**LINEAR, "max_seq_length": 128, "global_batch_size": 256, "peak_lr": 1e-4, "warmup_proportion": 0.01},
            {"max_seq_length": 512, "global_batch_size": 256},
        ],
    ),
}
WITH_SOURCE = [*PUBLISHED, *LIVING, "lamb_paper"]


def load(name, *overrides):
    words = ["initial_weights=/folder"] if name == "mlperf_768" else []
    return compose("pretrain", [f"recipe={name}", "shards=/shards", "run_dir=/run", *words, *overrides])


def header(name):
    text = (conf_dir() / "recipe" / f"{name}.yaml").read_text()
    return "\n".join(line for line in text.splitlines() if line.startswith("#"))


def test_this_file_knows_every_recipe():
    names = {path.stem for path in (conf_dir() / "recipe").glob("*.yaml")}
    of_images = {name for name in names if name.startswith(("resnet50_", "mnist_"))}  # tests/vision/test_recipes.py
    assert names - of_images == {*WITH_SOURCE, "demo", "continue"}


@pytest.mark.parametrize("name", PAPER_ROWS)
def test_rows_of_the_paper(name):
    batch, total_steps, exponent, warmup_divisor, f1 = PAPER_ROWS[name]
    config = load(name)
    phases = list(config.phases.values())
    assert [p.max_seq_length for p in phases] == [128, 512]
    assert [p.global_batch_size for p in phases] == [batch, batch]
    assert sum(p.total_steps for p in phases) == total_steps
    assert phases[0].total_steps / total_steps == pytest.approx(0.9, abs=1e-3)
    for phase in phases:
        assert phase.peak_lr == pytest.approx(5 / (2**exponent * 1000), rel=1e-4)
        assert phase.warmup_proportion == pytest.approx(1 / warmup_divisor)
        assert (phase.decay_power, phase.decay_origin.value) == (1.0, "start")
    assert f1 in header(name)


@pytest.mark.parametrize("name", MIXED)
def test_runs_with_two_batches(name):
    *expected, f1 = MIXED[name]
    phases = load(name).phases.values()
    found = [(p.global_batch_size, p.total_steps, p.peak_lr, p.warmup_proportion, p.decay_power) for p in phases]
    assert found == expected
    assert f1 in header(name)


@pytest.mark.parametrize("name", LIVING)
def test_what_is_run_today(name):
    of_run, of_phases = LIVING[name]
    found = to_plain(load(name))
    phases = list(found["phases"].values())
    assert sum(phase["total_steps"] for phase in phases) == of_run["total_steps"]
    for key, expected in of_run.items():
        if isinstance(expected, dict):
            chosen = {name: found[key][name] for name in expected}
            assert chosen == {name: to_plain(value) for name, value in expected.items()}, key
        elif key != "total_steps":
            assert found[key] == expected, key
    assert len(phases) == len(of_phases)
    for phase, expected in zip(phases, of_phases, strict=True):
        steps = {"warmup_steps": (phase["warmup_proportion"] or 0) * phase["total_steps"]}
        chosen = {key: {**phase, **steps}[key] for key in expected}
        for key, value in expected.items():
            assert chosen[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6)), key


def test_hplt_shares_of_the_run():
    """Lengths change at 70 % and 90 % of the steps, tokens of a step stay, and masking falls from 30 % to 15 % in one
    straight line over the run, as in their apply_mask."""
    recipe = recipe_of(to_plain(load("hplt")))
    ends = [sum(phase.total_steps for phase in list(recipe.phases.values())[: index + 1]) for index in range(3)]
    assert [end / 31_250 for end in ends] == [0.7, 0.9, 1.0]
    assert {phase.max_seq_length * phase.global_batch_size for phase in recipe.phases.values()} == {32_768 * 128}
    before = 0
    for phase in recipe.phases.values():
        rate = phase.masking_rate(recipe.masking)
        for step in (1, phase.total_steps // 2, phase.total_steps):
            theirs = 0.3 + (0.15 - 0.3) * (before + step - 1) / 31_250
            assert rate.of(step) == pytest.approx(theirs, rel=1e-9)
        most = num_predictions(np.array([phase.max_seq_length]), mask_prob=rate.of(1), max_predictions_per_seq=999)
        assert phase.max_predictions_per_seq == most[0], "the bound cuts nothing off"
        before += phase.total_steps


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_all_published_recipes_share(name):
    config = load(name)
    assert config.optimizer.name == ("adamw" if name.startswith("adamw") else "lamb")
    assert tuple(config.optimizer.betas) == (0.9, 0.999)
    assert (config.optimizer.eps, config.optimizer.weight_decay, config.max_grad_norm) == (1e-6, 0.01, 1.0)
    assert (config.model.num_layers, config.model.hidden_size, config.model.num_heads) == (24, 1024, 16)
    assert [p.max_predictions_per_seq for p in config.phases.values()] == [20, 80]
    assert getattr(config.optimizer, "bias_correction", True)


@pytest.mark.parametrize("name", [*WITH_SOURCE, "demo"])
def test_a_lost_machine_costs_minutes_whatever_the_recipe(name):
    """A checkpoint every ten minutes, of which the last two stay."""
    checkpoint = load(name).checkpoint
    assert 0 < checkpoint.interval_minutes <= 10
    assert checkpoint.keep_last >= 2


@pytest.mark.parametrize("name", WITH_SOURCE)
def test_headers_say_where_figures_come_from(name):
    for word in ("Source:", "Command:", "Published:", "Expected here:", f"recipe={name}"):
        assert word in header(name), word


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_leave_the_machine_alone(name):
    """A recipe says what is learnt; runtime says how it is computed."""
    text = (conf_dir() / "recipe" / f"{name}.yaml").read_text()
    assert "runtime" not in yaml.safe_load(text)
    config = load(name, "runtime=cpu", "runtime.zero_stage=2", "model=bert_base", "phases.phase1.peak_lr=4e-3")
    assert config.runtime.zero_stage == 2
    assert config.model.num_layers == 12
    assert config.phases["phase1"].peak_lr == 4e-3
