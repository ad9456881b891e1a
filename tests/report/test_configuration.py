"""What a run is called and how runs are told apart, from configurations written by hand."""

import pytest
import yaml

from bert_lamb.errors import UserError
from bert_lamb.report.configuration import differences, labels_of, planned_steps, read_config, title_of
from tests.launch import CHECKOUT

LARGE = {"model": {"num_layers": 24, "hidden_size": 1024}, "optimizer": {"name": "lamb"}}


@pytest.mark.parametrize(
    ("config", "command", "batches", "title"),
    [
        (
            LARGE,
            "bert-lamb pretrain recipe=lamb_64k_32k run_dir=r",
            [65_536, 32_768],
            "lamb_64k_32k: BERT-Large, LAMB, batch 65,536 and 32,768",
        ),
        (LARGE, "bert-lamb pretrain run_dir=r", [512, 512], "BERT-Large, LAMB, batch 512"),
        (
            {"model": {"num_layers": 3, "hidden_size": 96}, "optimizer": {"name": "momentum"}},
            "",
            [8],
            "BERT of 3 layers and width 96, momentum, batch 8",
        ),
        (
            {"model_dir": "runs/export", "optimizer": {"name": "adamw"}},
            "bert-lamb squad fine_tuning=google",
            [32],
            "google: fine-tuning of export, AdamW, batch 32",
        ),
        (
            {"image_model": {"name": "resnet"}, "optimizer": {"name": "lars"}},
            "bert-lamb vision recipe=resnet50_1k",
            [1024],
            "resnet50_1k: ResNet, LARS, batch 1,024",
        ),
        ({"seed": 42}, "bert-lamb pretrain recipe=demo", [64], ""),
        ({"model": None, "optimizer": "lamb"}, "", [], ""),
    ],
)
def test_a_title_says_recipe_model_optimizer_and_batch(config, command, batches, title):
    assert title_of(config, command, batches) == title


@pytest.mark.parametrize(
    ("model", "name"), [("bert_large", "BERT-Large"), ("bert_base", "BERT-Base"), ("bert_tiny", "BERT-Tiny")]
)
def test_our_models_have_their_published_names(model, name):
    """The sizes of conf/model, read from there."""
    sizes = yaml.safe_load((CHECKOUT / "conf" / "model" / f"{model}.yaml").read_text())
    assert title_of({"model": sizes}, "", []) == name


def test_planned_steps_are_those_of_the_file():
    phases = {"phase1": {"total_steps": 7}, "phase2": {"total_steps": None, "num_sequences": 640}}
    assert planned_steps({"phases": phases}) == {"phase1": 7, "phase2": None}
    assert planned_steps({"seed": 1}) == {}


def test_runs_differ_in_what_is_learnt_and_computed():
    """Not in where and how a run is kept and logged."""
    base = {
        "run_dir": "a",
        "seed": 1,
        "optimizer": {"name": "lamb", "betas": [0.9, 0.999]},
        "tracker": {"name": "none"},
    }
    other = {"run_dir": "b", "seed": 1, "optimizer": {"name": "lars"}, "tracker": {"name": "wandb"}, "new": True}
    third = {**base, "run_dir": "c", "seed": 2}
    assert differences({"a": base, "b": other, "c": third}) == {
        "new": ["absent", "true", "absent"],
        "optimizer.betas": ["[0.9,0.999]", "absent", "[0.9,0.999]"],
        "optimizer.name": ["lamb", "lars", "lamb"],
        "seed": ["1", "1", "2"],
    }


@pytest.mark.parametrize(
    ("different", "labels"),
    [
        (
            {"optimizer.name": ["lamb", "adamw"], "seed": ["1", "2"]},
            ["optimizer=lamb, seed=1", "optimizer=adamw, seed=2"],
        ),
        (
            {"phases.a.peak_lr": ["1", "2"], "phases.b.peak_lr": ["3", "3"]},
            ["phases.a.peak_lr=1, phases.b.peak_lr=3", "phases.a.peak_lr=2, phases.b.peak_lr=3"],
        ),
        ({}, ["one", "two"]),
        ({"shards": ["/long" * 20, "/else"]}, ["one", "two"]),
        ({key: ["1", "2"] for key in "abcd"}, ["one", "two"]),
    ],
)
def test_a_label_says_what_differs_or_the_folder(different, labels):
    assert labels_of(["one", "two"], different) == labels


def test_runs_with_the_same_values_keep_their_folders():
    assert labels_of(["one", "two", "three"], {"seed": ["1", "1", "2"]}) == ["one", "two", "three"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"a: [", b"\xff", b"a: 1\n b: 2", b"[" * 5000])
def test_a_damaged_configuration_is_refused_by_name(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.yaml") as refusal:
        read_config(tmp_path / "config.yaml", expected="what a run wrote there", fix="restore it")
    assert "\n" not in str(refusal.value)
