"""Every recipe for images composes, and its figures are the published ones.

The tables are copied from the paper's and from its first author's script, not from conf/. Change a digit: red.
"""

import math

import pytest

from bert_lamb.cli.compose import compose, conf_dir
from bert_lamb.outputs.plain import to_plain
from bert_lamb.vision.plan import stage_of
from bert_lamb.vision.settings import Settings

NUM_IMAGES = 1_281_167
ROWS = {  # name: batch, k of the peak lr 4 / (2^k 100), warm-up in epochs of 90, top-1
    "resnet50_512": (512, 3.0, 0.3125, "76.96"),
    "resnet50_1k": (1_024, 2.5, 0.625, "77.06"),
    "resnet50_2k": (2_048, 2.0, 1.25, "77.11"),
    "resnet50_4k": (4_096, 1.5, 2.5, "76.92"),
    "resnet50_8k": (8_192, 1.0, 5.0, "76.89"),
    "resnet50_16k": (16_384, 0.5, 10.0, "76.66"),
    "resnet50_32k": (32_768, 0.0, 20.0, "76.42"),
}


def load(name):
    return compose("vision", [f"recipe={name}", "data=/images", "run_dir=/run"])


def header(name):
    lines = (conf_dir() / "recipe" / f"{name}.yaml").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


def test_this_file_knows_every_recipe():
    names = {path.stem for path in (conf_dir() / "recipe").glob("*.yaml")}
    assert {name for name in names if name.startswith(("resnet50_", "mnist_"))} == {*ROWS, "mnist_lenet"}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_paper(name):
    batch, exponent, warmup_epochs, top_1 = ROWS[name]
    config = load(name)
    assert config.global_batch_size == batch
    assert config.peak_lr == pytest.approx(4 / (2**exponent * 100), rel=1e-6)
    assert config.warmup_proportion * config.num_epochs == pytest.approx(warmup_epochs, rel=1e-6)
    assert config.num_epochs == 90
    assert (config.optimizer.name, config.optimizer.weight_decay, config.label_smoothing) == ("lamb", 1.5, 0.1)
    assert (config.image_size, config.augmentation.value) == (224, "crop_flip")
    assert to_plain(config.image_model) == {
        "name": "resnet",
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048],
        "depths": [3, 4, 6, 3],
        "layer_type": "bottleneck",
    }
    stage = stage_of(Settings.of(to_plain(config)), NUM_IMAGES, world_size=8)
    assert stage.schedule.total_steps == math.ceil(90 * NUM_IMAGES / batch)
    assert f"top-1 {top_1} %" in header(name)
    assert f"Steps: {stage.schedule.total_steps:,}" in header(name)


def test_the_authors_script_for_32k():
    """3,519 steps, of which 782 warm up to .04."""
    stage = stage_of(Settings.of(to_plain(load("resnet50_32k"))), NUM_IMAGES, world_size=512)
    assert (stage.schedule.total_steps, int(stage.schedule.warmup_proportion * 3_519)) == (3_519, 782)
    assert max(stage.schedule.lr(step) for step in range(1, 3_520)) == pytest.approx(0.04)
    assert stage.plan.gradient_accumulation_steps == 1


def test_lenet_of_the_appendix():
    config = load("mnist_lenet")
    assert (config.global_batch_size, config.num_epochs, config.image_size) == (1_024, 30, 28)
    assert config.image_model.name.value == "lenet"
    assert all(accuracy in header("mnist_lenet") for accuracy in ("99.33", "99.28", "99.36", "99.41", "99.45"))


@pytest.mark.parametrize("name", [*ROWS, "mnist_lenet"])
def test_headers_say_source_command_and_marks(name):
    text = header(name)
    for part in ("# Source: You et al.", "# Command: ", "bert-lamb vision recipe=", "# Published", "[recalled]"):
        assert part in text
