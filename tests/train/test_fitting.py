"""`runtime.micro_batch_size=auto`: what it finds fits, and a little more would not; it is found once.

Truths: peaks that are given, and the peak of a micro-step counted tensor by tensor. A GPU's are CUDA's own numbers
(marker gpu).
Breaks that turn this file red: rows that are twice as many whatever fits, the model's state forgotten, rows of the mean
length taken for full ones, a file that is not read or is believed whatever it is of.
"""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bert_lamb.cli.compose import compose
from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.model.encoder import choose_execution
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.pretraining.admission import admit_phases
from bert_lamb.pretraining.build import trial
from bert_lamb.pretraining.command import pretrain, recipe_of
from bert_lamb.train import fitting
from bert_lamb.train.fitting import bytes_of_a_row, find, peak_of_micro_step
from tests.synthetic import make_shards

HERE = Process(0, 0, 1, torch.device("cpu"))
SMALL = ["recipe=demo", "model.hidden_size=32", "model.num_heads=2", "model.intermediate_size=48"]
SMALL += [f"phases.phase1.{key}" for key in ("max_seq_length=16", "max_predictions_per_seq=3", "total_steps=2")]
SMALL += ["phases.phase1.global_batch_size=64", "~phases.phase2", "evaluation.max_instances=8", "model.dropout=0.1"]
SMALL += ["logging.trust_ratio_interval_steps=0", "runtime.engine=torch", "runtime.micro_batch_size=auto"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "s")


def trial_of(shards, *overrides):
    """(trial, runtime) of the small phase."""
    plain = to_plain(compose("pretrain", [*SMALL, f"shards={shards}", "run_dir=unused", *overrides]))
    recipe, runtime = recipe_of(plain), RuntimeSettings(**plain["runtime"])
    (phase,) = admit_phases(recipe, runtime, world_size=1)
    return trial(recipe, choose_execution(HERE.device, **runtime.of_model(HERE.device.type)), phase), runtime


@given(
    st.lists(st.tuples(st.floats(0, 0.08), st.floats(1e-4, 0.01)), min_size=1, max_size=4),
    st.integers(1, 1 << 14),
)
def test_what_is_found_fits_and_is_nearly_the_most(lines, max_rows):
    """Room is 1; a peak is the largest of some lines. Nothing tried goes beyond the room."""
    tried = []

    def peak(num_rows):
        tried.append(num_rows)
        return max(a + b * num_rows for a, b in lines)

    found = int(1 / bytes_of_a_row(peak, 1.0, max_rows))
    assert max(tried) <= max_rows
    assert all(peak(n) <= 1 for n in list(tried))
    assert found >= 1
    assert peak(found) <= 1
    if max_rows == 1 << 14:  # so large that nothing but memory holds it back
        assert peak(1.25 * found + 1) > 1


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["runtime.attention=sdpa"],
        ["runtime.precision=bf16"],
        ["runtime.engine=deepspeed", "runtime.precision=bf16"],
        ["runtime.activation_checkpointing=true"],
    ],
)
def test_a_micro_step_of_what_is_found_fits(shards, monkeypatch, overrides):
    """Counted tensor by tensor: as many full rows fit beside the state, and a quarter more do not."""
    monkeypatch.setitem(fitting.TRIED_TOKENS, "cpu", 1 << 14)
    given_trial, runtime = trial_of(shards, *overrides)
    given_trial = replace(given_trial, max_sequences=1 << 14)
    usable = 10_000_000
    fit = find(given_trial, runtime, HERE, usable)
    num_parameters = sum(p.numel() for p in given_trial.build().parameters())
    of_one = {"torch": 16, "deepspeed": 20}[runtime.engine]  # the latter in bf16
    assert fit.state_bytes == of_one * num_parameters
    model = given_trial.build().train()
    rows = fit.full_rows
    assert rows > 15
    assert peak_of_micro_step(given_trial, model, runtime, HERE.device, rows) <= usable - fit.state_bytes
    assert peak_of_micro_step(given_trial, model, runtime, HERE.device, rows * 5 // 4) > usable - fit.state_bytes
    if runtime.attention == "sdpa":
        assert fit.sequences == rows  # each is padded
    else:
        assert fit.sequences == int(rows * 16 / given_trial.mean_length) > rows


def test_no_more_is_tried_than_is_of_use(shards):
    given_trial, runtime = trial_of(shards)
    rows = []
    watched = replace(given_trial, loss=lambda model, n, device: rows.append(n) or given_trial.loss(model, n, device))
    assert find(watched, runtime, HERE, 1 << 40).full_rows > 64
    assert rows == [1, 2, 4, 8, 16, 32, 64]


def test_not_one_row_fits(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "usable_bytes", lambda device, ranks_on_host: 300_000)
    with pytest.raises(UserError, match="for one row of 16 tokens; expected room for one row"):
        pretrain(compose("pretrain", [*SMALL, f"shards={shards}", f"run_dir={tmp_path / 'run'}"]))
    assert not (tmp_path / "run").exists()


def test_it_is_found_once_and_again_for_another_machine(shards, tmp_path, monkeypatch, capsys):
    """Resumed runs read what was found; another precision, or a damaged file, is another matter."""
    finds = []
    monkeypatch.setattr(fitting, "find", lambda *args: finds.append(args[0].stage) or find(*args))

    def run(*overrides):
        pretrain(compose("pretrain", [*SMALL, f"shards={shards}", f"run_dir={tmp_path / 'run'}", *overrides]))
        return capsys.readouterr().err

    said = run()
    assert finds == ["phase1"]
    assert "memory   phase1: " in said
    assert "64 sequences per micro-batch and rank (at most " in said
    assert "memory   phase1: " in run("if_exists=resume")
    assert finds == ["phase1"]
    run("if_exists=resume", "runtime.precision=bf16")
    assert finds == ["phase1"] * 2
    file = RunDir(tmp_path / "run").path / "micro_batch.json"
    (entry,) = json.loads(file.read_text())
    entry["fit"]["sequences"] = 3
    file.write_text(json.dumps([entry]))
    assert "phase1: 3 sequences fit" in run("if_exists=resume", "runtime.precision=bf16")
    for damage in ("", "[1]", '[{"of": 1}]', json.dumps([{"of": entry["of"], "fit": {}}])):
        file.write_text(damage)
        run("if_exists=resume", "runtime.precision=bf16")
    assert finds == ["phase1"] * 6


@pytest.mark.gpu
def test_on_a_gpu(shards):
    """By CUDA's allocator: BERT-Base in bf16 in a tenth of the memory; what is found fits, a quarter more does not."""
    process = Process(0, 0, 1, torch.device("cuda", 0))
    overrides = ["model=bert_base", "runtime=gpu", "runtime.engine=torch", "runtime.micro_batch_size=auto"]
    overrides += ["model.hidden_size=768", "model.num_heads=12", "model.intermediate_size=3072"]
    given_trial, runtime = trial_of(shards, *overrides)
    given_trial = replace(given_trial, max_sequences=1 << 20)
    usable = torch.cuda.get_device_properties(0).total_memory // 10
    fit = find(given_trial, runtime, process, usable)
    model, room = given_trial.build().train(), usable - fit.state_bytes
    assert peak_of_micro_step(given_trial, model, runtime, process.device, fit.full_rows) <= room
    assert peak_of_micro_step(given_trial, model, runtime, process.device, fit.full_rows * 5 // 4) > room
