"""Every recipe composes, and its figures are the published ones.

The table below is copied from the paper's and NVIDIA's own tables, not from conf/. Change a digit in a recipe: red.
"""

import pytest
import yaml

from bert_lamb.cli.compose import compose, conf_dir

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


def load(name, *overrides):
    return compose("pretrain", [f"recipe={name}", "shards=/shards", "run_dir=/run", *overrides])


def header(name):
    text = (conf_dir() / "recipe" / f"{name}.yaml").read_text()
    return "\n".join(line for line in text.splitlines() if line.startswith("#"))


def test_this_file_knows_every_recipe():
    names = {path.stem for path in (conf_dir() / "recipe").glob("*.yaml")}
    assert names == {*PUBLISHED, "demo", "continue"}


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


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_all_published_recipes_share(name):
    config = load(name)
    assert config.optimizer.name == ("adamw" if name.startswith("adamw") else "lamb")
    assert tuple(config.optimizer.betas) == (0.9, 0.999)
    assert (config.optimizer.eps, config.optimizer.weight_decay, config.max_grad_norm) == (1e-6, 0.01, 1.0)
    assert (config.model.num_layers, config.model.hidden_size, config.model.num_heads) == (24, 1024, 16)
    assert [p.max_predictions_per_seq for p in config.phases.values()] == [20, 80]
    assert getattr(config.optimizer, "bias_correction", True)


@pytest.mark.parametrize("name", [*PUBLISHED, "demo"])
def test_a_lost_machine_costs_minutes_whatever_the_recipe(name):
    """A checkpoint every ten minutes, of which the last two stay."""
    checkpoint = load(name).checkpoint
    assert 0 < checkpoint.interval_minutes <= 10
    assert checkpoint.keep_last >= 2


@pytest.mark.parametrize("name", PUBLISHED)
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
