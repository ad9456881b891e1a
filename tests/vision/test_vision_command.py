"""`bert-lamb vision` from end to end on small images: what it learns, leaves, resumes and refuses.

Truth: an uninterrupted run, transformers' own model, another cut of the batch.
"""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.cli import main as cli
from bert_lamb.train.recorder import Recorder
from tests.vision.material import (
    LENET,
    NUM_TEST,
    PLAIN,
    TINY_RESNET,
    images,
    metrics_of,
    write_folders,
    write_npz,
    write_parquet,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("vision")
    write_npz(root / "images.npz")
    return root


def words(folder, run, *more, data="images.npz"):
    return ["vision", f"data={folder / data}", f"run_dir={folder / run}", *PLAIN, *more]


def call(folder, run, *more, data="images.npz"):
    assert cli.main(words(folder, run, *more, data=data)) == 0
    return json.loads((folder / run / "vision.json").read_text())


def last_checkpoint(folder, run):
    return Checkpoint(sorted((folder / run / "checkpoints").iterdir())[-1])


def state_of(folder, run):
    """Everything that the last checkpoint of a run holds, by kind and name."""
    checkpoint = last_checkpoint(folder, run)
    kinds = checkpoint.meta["tensor_kinds"]
    found = {(kind, name): (kind, name, s) for kind in kinds for name, s in checkpoint.shapes.items()}
    found |= {("buffer", name): ("buffer", name, shape) for name, shape in checkpoint.buffers.items()}
    return {key: checkpoint.read(kind, name, 0, shape.numel()) for key, (kind, name, shape) in found.items()}


def refused(capsys, *arguments):
    """The one line of a refusal."""
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(scope="module")
def learnt(folder):
    return call(folder, "learnt", *TINY_RESNET, "num_epochs=12", "evaluation_interval_steps=12")


def test_a_learnable_task_is_learnt_and_scored_with_the_running_statistics(folder, learnt):
    """The score is of the last checkpoint; the loop's own evaluation had the engine's statistics."""
    assert learnt["accuracy"] > 0.9
    first, *_, last = metrics_of(folder / "learnt", "image_scores")
    assert (first["step"], last["step"], last["num_instances"]) == (12, 36, NUM_TEST)
    assert last["accuracy"] == learnt["accuracy"]
    assert last["loss"] == pytest.approx(learnt["loss"], rel=1e-6)
    steps = metrics_of(folder / "learnt", "step")
    assert len(steps) == learnt["num_train_steps"] == 36
    assert steps[-1]["accuracy"] > 0.9 > steps[0]["accuracy"]
    assert learnt["num_parameters"] == metrics_of(folder / "learnt", "phase_start")[0]["num_parameters"]


def test_the_saved_model_gives_the_same_score_in_transformers(folder, learnt):
    model = AutoModelForImageClassification.from_pretrained(folder / "learnt" / "model").eval()
    arrays = images()
    pixels = torch.from_numpy(arrays["test_images"].transpose(0, 3, 1, 2) / np.float32(255) - np.float32(0.5)) / 0.5
    with torch.no_grad():
        answers = model(pixels.float()).logits.argmax(-1).numpy()
    assert (answers == arrays["test_labels"]).mean() == pytest.approx(learnt["accuracy"])
    assert model.config.id2label == {0: "0", 1: "1", 2: "2"}


def test_the_report_quotes_the_score(folder, learnt, capsys):
    assert cli.main(["report", f"run_dir={folder / 'learnt'}"]) == 0
    assert learnt["summary"] in capsys.readouterr().out
    page = (folder / "learnt" / "report.html").read_text()
    assert 'aria-label="Accuracy"' in page
    assert "test images" in page


@pytest.mark.parametrize(
    ("name", "network"), [("lamb", TINY_RESNET), ("momentum", LENET), ("adagrad", LENET), ("adam", LENET)]
)
def test_a_killed_run_continues_bit_for_bit(folder, monkeypatch, name, network):
    """Killed in its third step, after the checkpoint of the second: weights, moments and running statistics."""

    class Killed(BaseException):
        pass

    more = (*network, f"optimizer={name}", "checkpoint.interval_steps=2")
    call(folder, f"whole-{name}", *more)
    original = Recorder.step

    def step_or_die(self, stage, step, **rest):
        if step == 3:
            raise Killed
        original(self, stage, step, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "step", step_or_die)
        with pytest.raises(Killed):
            cli.main(words(folder, f"killed-{name}", *more))
    call(folder, f"killed-{name}", *more, "if_exists=resume")
    whole, resumed = state_of(folder, f"whole-{name}"), state_of(folder, f"killed-{name}")
    assert any(kind == "buffer" for kind, _ in whole) == (network is TINY_RESNET)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_outcome_does_not_depend_on_the_cut(folder):
    """Micro-batches of one, two and four ghost batches: the same weights and running statistics, to rounding.

    eps is 1e-3, or a gradient that nearly cancels would become a whole step in another direction. BatchNorm over
    micro-batches of 4, 8 and 16 would be further apart than 1e-2.
    """
    cuts = [4, 8, 16]
    for size in cuts:
        more = (*TINY_RESNET, "optimizer.eps=1e-3", f"runtime.micro_batch_size.vision={size}")
        call(folder, f"cut{size}", *more)
    norms = [metrics_of(folder / f"cut{size}", "step")[0]["grad_norm"] for size in cuts]  # LAMB sees no constant factor
    assert norms == pytest.approx([norms[0]] * len(cuts), rel=1e-4)
    first, *others = (state_of(folder, f"cut{size}") for size in cuts)
    for other in others:
        for key, value in first.items():
            torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-5, msg=str(key))
    wider = (*TINY_RESNET, "optimizer.eps=1e-3", "ghost_batch_size=16", "runtime.micro_batch_size.vision=16")
    call(folder, "wider", *wider)
    assert max((value - first[key]).abs().max() for key, value in state_of(folder, "wider").items()) > 1e-2


def test_an_npz_folders_and_parquet_hold_the_same_images(folder):
    """The test images, scored in another order; the training images come in another order from folders."""
    write_folders(folder / "folders")
    write_parquet(folder / "parquet")
    of_npz = call(folder, "of-npz", *LENET)
    of_parquet = call(folder, "of-parquet", *LENET, data="parquet")
    of_folders = call(folder, "of-folders", *LENET, data="folders")
    assert of_parquet["loss"] == pytest.approx(of_npz["loss"], rel=1e-6)
    assert of_folders["num_instances"] == of_npz["num_instances"] == NUM_TEST
    first = [metrics_of(folder / run, "step")[0]["loss"] for run in ("of-npz", "of-folders")]
    assert first[0] == pytest.approx(first[1], abs=0.2)  # before the first update, on other images


def test_a_finished_run_is_kept(folder, learnt, capsys):
    again = [*TINY_RESNET, "num_epochs=12", "if_exists=resume", "runtime.micro_batch_size.vision=4"]
    assert call(folder, "learnt", *again) == learnt
    assert "is already complete" in capsys.readouterr().out
    line = refused(capsys, *words(folder, "learnt", *TINY_RESNET, "num_epochs=13", "if_exists=resume"))
    assert "num_epochs" in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train_images": np.zeros((48, 12, 12, 3))}, "found train_images of float64 [48, 12, 12, 3]"),
        ({"train_images": np.zeros((48, 12, 12, 2), np.uint8)}, "expected uint8 [N, height, width]"),
        ({"test_images": np.zeros((20, 12, 12), np.uint8)}, "found channels {'train': 3, 'test': 1}"),
        ({"train_labels": np.zeros(47, int)}, "found train_labels of int64 [47] for 48 images"),
        ({"train_labels": np.full(48, -1)}, "found label -1"),
        ({"test_labels": np.full(20, 7)}, "found label 7"),
        ({"train_labels": np.array([object()] * 48)}, "without pickles"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(folder, tmp_path, capsys, changes, expected):
    write_npz(tmp_path / "wrong.npz", **changes)
    assert expected in refused(capsys, *words(tmp_path, "run", *LENET, data="wrong.npz"))
    assert not (tmp_path / "run").exists()


def test_files_that_cannot_be_used_are_refused(folder, tmp_path, capsys):
    def line(data, *more):
        return refused(capsys, *words(tmp_path, "run", *LENET, *more, data=data))

    assert "no folder and no .npz" in line("nothing")
    (tmp_path / "cut.npz").write_bytes((folder / "images.npz").read_bytes()[:500])
    assert "cut.npz, which is no zip archive" in line("cut.npz")
    for name, content in (("empty", b""), ("text", b"x"), ("pickle", pickle.dumps(object()))):
        (tmp_path / f"{name}.npz").write_bytes(content)
        assert f"{name}.npz, which is no zip archive" in line(f"{name}.npz")
    with (tmp_path / "lone.npz").open("wb") as file:
        np.save(file, np.zeros((1, 12, 12), np.uint8))
    assert "lone.npz, which is no zip archive" in line("lone.npz")
    whole = (folder / "images.npz").read_bytes()
    (tmp_path / "damaged.npz").write_bytes(whole[:200] + b"????" + whole[204:])
    assert "damaged.npz that cannot be read" in line("damaged.npz")
    (tmp_path / "folder.npz").mkdir()
    assert "folder.npz that cannot be read" in line("folder.npz")
    np.savez(tmp_path / "few.npz", train_images=np.zeros((1, 12, 12), np.uint8))
    assert "few.npz that cannot be read" in line("few.npz")
    write_folders(tmp_path / "folders")
    shutil.copytree(tmp_path / "folders" / "train" / "class0", tmp_path / "folders" / "test" / "other")
    assert "found class other" in line("folders")
    shutil.rmtree(tmp_path / "folders" / "test")
    assert "no test or val or validation folder" in line("folders")
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "train.parquet").write_bytes(b"PAR1")
    assert "no test*.parquet" in line("parquet")
    (tmp_path / "parquet" / "test.parquet").write_bytes(b"PAR1")
    assert "Parquet in" in line("parquet")
    assert not (tmp_path / "run").exists()


def test_an_image_that_cannot_be_decoded_is_named(tmp_path, capsys):
    write_folders(tmp_path / "folders")
    for file in (tmp_path / "folders" / "train").rglob("*.png"):
        file.write_bytes(file.read_bytes()[:60])
    capsys.readouterr()
    assert cli.main(words(tmp_path, "run", *LENET, data="folders")) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert ".png that cannot be decoded" in line


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["image_size=11", *LENET], "image_size=11; expected 12 pixels or more"),
        ([*TINY_RESNET, "ghost_batch_size=5"], "ghost_batch_size=5; expected a divisor of global_batch_size"),
        ([*TINY_RESNET, "image_model.depths=[1]"], "image_model.depths=[1]"),
        ([*TINY_RESNET, "ghost_batch_size=16"], "runtime.micro_batch_size.vision=8; expected room for a ghost batch"),
        ([*LENET, "pixel_mean=[0.5,0.5]"], "pixel_mean=[0.5, 0.5]"),
        ([*LENET, "label_smoothing=1"], "label_smoothing=1"),
        ([*LENET, "runtime.micro_batch_size=auto"], "runtime.micro_batch_size=auto"),
        ([*LENET, "runtime.compile=model"], "runtime.compile=model"),
        ([*LENET, "optimizer=adam", "runtime.engine=deepspeed"], "torch with optimizer=adam"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder, tmp_path, capsys, more, expected):
    line = refused(capsys, *words(folder, tmp_path / "run", *more))
    assert expected in line
    assert not (tmp_path / "run").exists()


def test_one_channel_has_one_mean(tmp_path, capsys):
    np.savez(tmp_path / "grey.npz", **images(num_channels=1))
    line = refused(capsys, *words(tmp_path, "run", *LENET, "pixel_mean=[0.1,0.2,0.3]", data="grey.npz"))
    assert "pixel_mean=[0.1, 0.2, 0.3] for images of 1 channel" in line
