"""Fine-tuning on two ranks gives what one process gives: classes in ZeRO stage 2 and numbers in stage 1, in one launch.

Truth: the plain engine on one process, to 1e-6 in fp32 (AdamW with eps 1e-4, so that a gradient that nearly cancels is
no whole step), and its predictions.
"""

import json
from pathlib import Path

import pytest
import torch
from glue_material import PLAIN, make_folder, metrics_of, words
from safetensors.torch import load_file

from bert_lamb.cli import main as cli
from tests.launch import run_ranks

SMALL = ["num_epochs=2", "optimizer.eps=1e-4", "peak_lr=1e-3", "checkpoint.interval_steps=2"]
CASES = {
    "mnli": ["runtime=cpu", "runtime.zero_stage=2"],
    "stsb": ["runtime=cpu", "runtime.zero_stage=1"],
}
# Biases of keys: softmax does not see them, and Adam moves them by rounding.
WITHOUT_GRADIENT = ("key.bias",)
WORKER = Path(__file__).with_name("glue_worker.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Each case on two ranks and in one process; the first one on ranks was killed after a checkpoint and resumed."""
    folder = make_folder(tmp_path_factory.mktemp("ranks"), *CASES, num_train=16, num_dev=5)
    more = [*SMALL, "runtime.micro_batch_size.fine_tuning=2"]
    cases = {task: words(folder, task, f"ranks-{task}", *how, *more)[1:] for task, how in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(cases))
    finished = run_ranks(2, str(WORKER), str(folder / "cases.json"), timeout=200)
    assert finished.returncode == 0, finished.stdout[-3000:]
    for task in CASES:
        assert cli.main(words(folder, task, task, *PLAIN, *more)) == 0
    return folder


@pytest.mark.parametrize("task", CASES)
def test_two_ranks_give_what_one_process_gives(folder, task):
    expected, found = (load_file(folder / run / "model" / "model.safetensors") for run in (task, f"ranks-{task}"))
    for name, weight in expected.items():
        if not name.endswith(WITHOUT_GRADIENT):
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")
    for file in (folder / task / "predictions").iterdir():
        texts = [(folder / run / "predictions" / file.name).read_text() for run in (task, f"ranks-{task}")]
        answers = [[line.split("\t")[1] for line in text.splitlines()[1:]] for text in texts]
        if task == "stsb":
            assert [float(one) for one in answers[0]] == pytest.approx([float(one) for one in answers[1]], abs=1e-4)
        else:
            assert answers[0] == answers[1]
    losses = [[line["loss"] for line in metrics_of(folder / run, "step")] for run in (task, f"ranks-{task}")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][0] != pytest.approx(losses[0][-1], rel=1e-2)


def test_it_was_resumed(folder):
    assert [line["step"] for line in metrics_of(folder / "ranks-mnli", "resume")] == [2]
