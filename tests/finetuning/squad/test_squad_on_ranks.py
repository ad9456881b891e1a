"""Fine-tuning on ranks, and killed: 1 rank = 2 ranks = ZeRO 1 to 3 = FSDP2, and resumed = uninterrupted.

Truths: the plain engine on one process, to 1e-6 in fp32 (AdamW with eps 1e-4, so that a gradient that nearly cancels is
no whole step); the run itself, bit for bit.

Mutations that must turn it red: ranks that train on the same features, a checkpoint without moments, predictions of
one rank's share only, a resumed run that begins again at the first batch.
"""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.cli import main as cli
from bert_lamb.finetuning.tokens import lay_out
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.recorder import Recorder
from tests.golden.curves import make_model_folder, make_questions
from tests.launch import run_ranks
from tests.train.host_reads import per_step_of

SMALL = [
    "max_seq_length=24",  # two windows of the longer contexts
    "doc_stride=8",
    "max_query_length=8",
    "global_batch_size=8",
    "peak_lr=1e-3",
    "num_epochs=3",
    "optimizer.eps=1e-4",
    "runtime.micro_batch_size.fine_tuning=2",
    "seed=5",
]
WITHOUT_GRADIENT = ("key.bias", "layer.1.output.LayerNorm.bias", "qa_outputs.bias")
WORKER = Path(__file__).with_name("squad_worker.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squad")
    make_model_folder(folder / "model")
    make_questions(folder / "questions.json")
    return folder


def words(folder, name, *more):
    files = [f"{key}={folder / 'questions.json'}" for key in ("train_file", "eval_file")]
    return ["squad", f"model_dir={folder / 'model'}", *files, *SMALL, f"run_dir={folder / name}", *more]


def run_here(folder, name, *more):
    assert cli.main(words(folder, name, *more)) == 0
    return weights_of(folder / name)


def weights_of(run_dir):
    return load_file(run_dir / "model" / "model.safetensors")


def predictions_of(run_dir):
    nbest = json.loads((run_dir / "nbest_predictions.json").read_text())
    return {id_: best[0]["text"] for id_, best in nbest.items()}


CASES = {
    "zero0": ["runtime.zero_stage=0"],
    "zero1": ["runtime.zero_stage=1"],
    "zero2": ["runtime.zero_stage=2"],
    "zero3": ["runtime.zero_stage=3"],
    "fsdp": ["runtime.engine=fsdp"],
    "bf16": ["runtime.zero_stage=1", "runtime.precision=bf16"],
    "auto": ["runtime.zero_stage=1", "runtime.micro_batch_size=auto"],
    "lamb1": ["runtime.zero_stage=1", "optimizer=lamb", "peak_lr=2e-2"],
    "lamb2": ["runtime.zero_stage=2", "optimizer=lamb", "peak_lr=2e-2"],
}
PLAIN = {
    "adamw": [],
    "lamb": ["optimizer=lamb", "peak_lr=2e-2"],
}


@pytest.fixture(scope="module")
def on_ranks(folder):
    """Every case on two ranks in one launch, and killed and resumed; and the same in one process."""
    cases = {
        name: words(folder, name, "runtime=cpu", "runtime.micro_batch_size.fine_tuning=2", *more)[1:]
        for name, more in CASES.items()
    }
    (folder / "cases.json").write_text(json.dumps(cases))
    finished = run_ranks(2, str(WORKER), str(folder / "cases.json"), timeout=400)
    assert finished.returncode == 0, finished.stdout[-3000:]
    for name, more in PLAIN.items():
        run_here(folder, name, *more)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_ranks_and_stages_give_the_weights_of_one_process(on_ranks, name):
    plain = "lamb" if name.startswith("lamb") else "adamw"
    expected, found = weights_of(on_ranks / plain), weights_of(on_ranks / name)
    start = load_file(on_ranks / "model" / "model.safetensors")
    moved = max((expected[key] - start[key]).abs().max() for key in start)
    assert moved > 1e-2 if plain == "lamb" else moved > 1e-3
    for key, weight in expected.items():
        if not key.endswith(WITHOUT_GRADIENT):
            tolerance = 5e-3 if name == "bf16" else 2e-6 if plain == "lamb" else 1e-6
            torch.testing.assert_close(
                found[key], weight, rtol=0, atol=tolerance, msg=lambda text, k=key: f"{k}: {text}"
            )
    if name != "bf16":
        assert predictions_of(on_ranks / name) == predictions_of(on_ranks / plain)


def test_what_the_host_waits_for_under_zero_1(on_ranks):
    """A micro-step: nothing. A step: DeepSpeed's five for the norm, and three of ours: norm, sums, trust ratios."""
    per_step = per_step_of(json.loads((on_ranks / "reads.json").read_text()))
    assert per_step == {
        "optimizer": {"deepspeed/runtime/utils.py": 5, "bert_lamb/engine/deepspeed_engine.py": 1},
        "agreement": {"bert_lamb/train/loop.py": 1},
        "logging": {"bert_lamb/train/recorder.py": 1},
    }


@pytest.mark.parametrize("name", ["zero1", "fsdp"])
def test_killed_on_ranks_and_resumed_in_one_process(on_ranks, name):
    """The worker killed the first run of these after a checkpoint; here the plain engine finishes a copy of it."""
    lines = [json.loads(line) for line in (on_ranks / name / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "resume"] == [2]
    expected = weights_of(on_ranks / "adamw")
    found = run_here(on_ranks, f"left-{name}", "if_exists=resume")
    for key, weight in expected.items():
        if not key.endswith(WITHOUT_GRADIENT):
            torch.testing.assert_close(found[key], weight, rtol=0, atol=1e-6)


def steps_of(run_dir):
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(record["step"], record["loss"]) for record in records if record["kind"] == "step"]


def with_dropout(folder):
    file = folder / "model" / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}))
    return folder


@pytest.fixture
def own_folder(tmp_path):
    make_model_folder(tmp_path / "model")
    make_questions(tmp_path / "questions.json")
    return with_dropout(tmp_path)


def assert_same_result(folder, name, expected):
    for key, weight in weights_of(folder / expected).items():
        assert torch.equal(weights_of(folder / name)[key], weight), key
    assert (folder / name / "predictions.json").read_text() == (folder / expected / "predictions.json").read_text()
    nbest = [(folder / run / "nbest_predictions.json").read_text() for run in (name, expected)]
    assert nbest[0] == nbest[1]


def test_interrupted_equals_uninterrupted(own_folder, monkeypatch):
    """Killed before the first checkpoint, in mid-epoch and after the last step, with dropout: the same bits."""
    folder = own_folder

    class Killed(BaseException):
        pass

    run_here(folder, "whole", "checkpoint.interval_steps=2")
    original = Recorder.step
    for at_step in (1, 4):

        def step_or_die(self, stage, step, *, _at=at_step, **rest):
            if step == _at:
                raise Killed
            original(self, stage, step, **rest)

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "step", step_or_die)
            with pytest.raises(Killed):
                cli.main(words(folder, "killed", "checkpoint.interval_steps=2", "if_exists=resume"))

    def die(*rest, **more):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("bert_lamb.finetuning.squad.command.predict_logits", die)
        with pytest.raises(Killed):
            cli.main(words(folder, "killed", "checkpoint.interval_steps=2", "if_exists=resume"))
    assert not (folder / "killed" / "scores.json").exists()
    run_here(folder, "killed", "checkpoint.interval_steps=2", "if_exists=resume")
    assert_same_result(folder, "killed", "whole")
    steps = [
        [
            record["step"]
            for record in map(json.loads, (folder / run / "metrics.jsonl").open())
            if record["kind"] == "step"
        ]
        for run in ("killed", "whole")
    ]
    assert steps[0] == steps[1]


def test_a_signal_ends_it_with_a_checkpoint(own_folder, monkeypatch):
    """The first signal finishes the step, saves and exits with 143; resuming gives the uninterrupted result."""
    folder = own_folder
    run_here(folder, "whole")
    original = Recorder.step

    def step_and_signal(self, stage, step, **rest):
        original(self, stage, step, **rest)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "step", step_and_signal)
        with pytest.raises(SystemExit) as stopped:
            cli.main(words(folder, "stopped"))
    assert stopped.value.code == 143
    assert Checkpoint(RunDir(folder / "stopped").checkpoint("latest")).position.step == 3

    def signal_and_lay_out(rows, max_length):
        os.kill(os.getpid(), signal.SIGTERM)
        return lay_out(rows, max_length)

    with monkeypatch.context() as patch:  # after the last checkpoint, in the predictions
        patch.setattr("bert_lamb.finetuning.predicting.lay_out", signal_and_lay_out)
        with pytest.raises(SystemExit) as stopped:
            cli.main(words(folder, "stopped", "if_exists=resume"))
    assert stopped.value.code == 143
    assert not (folder / "stopped" / "predictions.json").exists()
    run_here(folder, "stopped", "if_exists=resume")
    assert_same_result(folder, "stopped", "whole")
