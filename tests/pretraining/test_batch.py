"""`bert-lamb batch`: what a step trains on, looked up afterwards.

Truth: the micro-batches that went into the loss while the run trained. Breaks that turn this file red: another seed,
the masks of another epoch, a rollback that is not counted, an order that begins at another epoch.
"""

import json
from itertools import pairwise

import numpy as np
import pytest

from bert_lamb.cli import main as cli
from bert_lamb.data.batches import MaskedInstances
from bert_lamb.pretraining.batch import rows_as_text
from bert_lamb.pretraining.task import PretrainingTask
from bert_lamb.shards.inspect import Entries
from tests.pretraining.test_pretrain import run_here
from tests.synthetic import make_shards


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(a run's folder, the rows that each step of phase 1 trained on, as text of its own making)"""
    folder = tmp_path_factory.mktemp("batch")
    shards = make_shards(folder / "s")
    vocabulary = (shards / "vocab.txt").read_text().split("\n")
    seen: list[list[str]] = []
    loss = PretrainingTask.loss

    def seeing(task, model, batch, counts):
        bounds = batch.cu_seqlens.tolist()
        labels = dict(zip(batch.masked_positions.tolist(), batch.masked_labels.tolist(), strict=True))
        pieces = [
            f"{vocabulary[token]}:{token}"
            + (f"{{{vocabulary[labels[place]]}:{labels[place]}}}" if place in labels else "")
            for place, token in enumerate(batch.input_ids.tolist())
        ]
        if task.phase.stage.name == "phase1":
            seen.append([" ".join(pieces[a:b]) for a, b in pairwise(bounds)])
        return loss(task, model, batch, counts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainingTask, "loss", seeing)
        run_here(shards, folder / "run", "runtime.micro_batch_size.phase1=16")  # four a step
    steps = [[*a, *b, *c, *d] for a, b, c, d in zip(*[iter(seen)] * 4, strict=True)]
    return folder / "run", steps


def rows(capsys, *words):
    assert cli.main(["batch", *words]) == 0
    shown = capsys.readouterr().out.strip().split("\n\n")
    return [one.split("\n  ") for one in shown]


@pytest.mark.parametrize("step", [1, 4])
def test_a_step_is_what_it_trained_on(run, capsys, step):
    """Step 4 is in the second epoch of 200 instances."""
    folder, steps = run
    found = rows(capsys, f"run_dir={folder}", f"step={step}", "count=64", "pieces=true")
    assert sorted(text for _, text in found) == sorted(steps[step - 1])
    assert found[63][0].startswith(f"row 63 of 64 in batch {step} of phase1: instance ")
    assert found[63][0].endswith(f", epoch {(step * 64 - 1) // 200}")
    some = rows(capsys, f"run_dir={folder}", f"step={step}", "first=5", "count=2", "pieces=true")
    assert some == found[5:7]


def test_a_rollback_is_counted(run, capsys):
    folder, _ = run
    third = rows(capsys, f"run_dir={folder}", "step=3", "count=3")
    lines = (folder / "metrics.jsonl").read_text()
    told = {"kind": "rollback", "phase": "phase1", "step": 1, "spike_step": 2, "batches_skipped": 1}
    (folder / "metrics.jsonl").write_text(lines + json.dumps(told) + "\n")
    try:
        assert rows(capsys, f"run_dir={folder}", "step=2", "count=3") == third
        assert rows(capsys, f"run_dir={folder}", "step=1", "count=1")[0][0].startswith("row 0 of 64 in batch 1 of")
    finally:
        (folder / "metrics.jsonl").write_text(lines)


def test_the_order_of_an_epoch(run, capsys, tmp_path):
    """Cut into batches of 64 it is what the steps say of their instances."""
    folder, _ = run
    orders = []
    for epoch in (0, 1):
        assert cli.main(["batch", f"run_dir={folder}", f"epoch={epoch}", f"output={tmp_path}/order.npy"]) == 0
        orders.append(np.load(tmp_path / "order.npy", allow_pickle=False))
        assert sorted(orders[-1]) == list(range(200))
    heads = [head for step in (1, 2, 3, 4) for head, _ in rows(capsys, f"run_dir={folder}", f"step={step}", "count=64")]
    told = [int(head.split("instance ")[1].split(",")[0]) for head in heads]
    assert told == [*orders[0], *orders[1]][:256]


def test_words_are_joined_and_what_is_predicted_stands_apart():
    entries = Entries(["[PAD]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "cat"], frozenset({0, 1, 2, 3}))
    ids = [1, 4, 5, 3, 5, 6, 5, 2]
    masked = MaskedInstances(
        np.array([*ids, 1, 6, 2]),
        np.array([8, 3], np.uint16),
        np.array([8, 3], np.uint16),
        None,
        np.array([3, 5, 9], np.int32),
        np.array([4, 6, 4]),
        8,
        2,
    )
    assert list(rows_as_text(masked, entries)) == [
        "[CLS] playing [MASK]{play} ##ing cat{cat} ##ing [SEP]",
        "[CLS] cat{play} [SEP]",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["step=5"], "found step=5; expected 1..4, the steps of phase1"),
        (["step=0"], "found step=0"),
        (["first=64"], "found first=64; expected 0..63"),
        (["phase=phase9"], "found phase=phase9; expected one of phase1, phase2"),
        (["epoch=0"], "found output=None; expected a file with epoch"),
        (["shards=/nowhere"], "no manifest.json in /nowhere"),
    ],
)
def test_what_is_refused(run, capsys, words, said):
    folder, _ = run
    assert cli.main(["batch", f"run_dir={folder}", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b'{"kind": "rollback", "phase": "phase1", "step": 0}\n'])
def test_metrics_that_are_damaged(run, capsys, line):
    folder, _ = run
    metrics = folder / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole + line)
    try:
        assert cli.main(["batch", f"run_dir={folder}"]) == 2
    finally:
        metrics.write_bytes(whole)
    assert "metrics.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "a: [", "[]", "phases: {}", "seed: 1"])
def test_what_is_no_run(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    assert cli.main(["batch", f"run_dir={tmp_path}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "config.yaml" in lines[0]
