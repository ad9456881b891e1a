"""When a run gives up, and how it goes back: skipped steps, a loss scale at its floor, a loss that rises.

Truths: windows counted by hand; for a rollback the same run with the batches left out from the start, bit for bit.
Breaks that turn this file red: a rise above the last window instead of the lowest, a checkpoint from within the rise,
batches that are trained on again, a guard that forgets at a resume, a rollback without end.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bert_lamb.checkpoint.position import Position, hand_over
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.engine.protocol import StepResult
from bert_lamb.errors import UserError
from bert_lamb.optim import NormRecord
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.pretraining.task import PretrainingTask
from bert_lamb.report.metrics import read_metrics
from bert_lamb.train.guards import Guard, Spike
from bert_lamb.train.run import past
from bert_lamb.train.schedule import Schedule
from bert_lamb.train.settings import GuardSettings
from bert_lamb.train.task import Stage
from tests.pretraining.test_pretrain import assert_same_bits, run_here
from tests.synthetic import make_shards

APPLIED, SKIPPED = StepResult(1.0, True), StepResult(float("nan"), False)
NORMS = [
    NormRecord(("a", "b"), torch.ones(2), torch.tensor([3.0, 0.5]), torch.tensor([0.1, 0.2])),
    NormRecord(("c",), torch.ones(1), torch.tensor([0.01]), torch.tensor([10.0])),
]


def engine(*, loss_scale=None, norms=()):
    return SimpleNamespace(loss_scale=loss_scale, loss_scale_floor=1.0, norms=lambda: list(norms))


def settings(**changes):
    plain = {"max_skipped_steps": 3, "on_spike": "stop", "max_loss_rise": 1.0, "window_steps": 2, "max_rollbacks": 2}
    return GuardSettings(**{**plain, **changes})


def feed(guard, losses, *, first=1):
    for step, loss in enumerate(losses, first):
        guard.watch(step, loss, APPLIED, engine(norms=NORMS), is_last=False)


def test_a_rise_above_the_lowest_window():
    """Means of two: 5, 4, 3, 3.2, 3.45, 3.8, 3.95, 4.05; below 3.5 last in steps 5 and 6."""
    losses = [6.0, 4.0, 4.0, 2.0, 4.4, 2.5, 5.1, 2.8]
    guard = Guard(settings(), Position("phase1", 0, 0))
    feed(guard, losses)
    assert (guard.lowest_loss, guard.calm_step) == (3.0, 4)
    with pytest.raises(Spike) as spike:
        feed(guard, [5.3], first=9)
    assert (spike.value.step, spike.value.calm_step, spike.value.reporter) == (9, 4, "rank 0")
    assert "a loss of 4.050 over 2 steps, 1.050 above the lowest (phase1, step 9; " in spike.value.found
    # 0.3, 0.1 and 0.1 times the learning rate
    assert "largest update 0.3 x lr, of a; largest trust ratio 10, of c)" in spike.value.found


@pytest.mark.parametrize("losses", [[3.0, 9.0, 3.0], [5.0, 4.0, 4.5, 4.8, 4.9], [float("nan"), 3.0, 3.0]])
def test_what_is_no_rise(losses):
    """One bad batch among two is 3 above the lowest: with a window of three it is not."""
    feed(Guard(settings(window_steps=3, max_loss_rise=2.5), Position("phase1", 0, 0)), losses)


def test_a_rise_that_is_to_be_ignored():
    feed(Guard(settings(on_spike="ignore"), Position("phase1", 0, 0)), [1.0, 1.0, 9.0, 9.0])


def test_what_was_lowest_is_known_after_a_resume_and_not_in_the_next_phase():
    position = Position("phase1", 20, 20, batches_skipped=4, num_rollbacks=1, lowest_loss=2.0, calm_step=12)
    position = replace(position, recent_losses=[2.0, 2.4])
    feed(Guard(settings(), position), [3.5], first=21)  # (2.4 + 3.5) / 2 is 0.95 above
    with pytest.raises(Spike) as spike:
        feed(Guard(settings(), position), [3.7], first=21)
    assert spike.value.calm_step == 12
    assert hand_over(position, next_phase="phase2") == Position("phase2", 0, 0, num_rollbacks=1)


def test_too_many_skipped_steps():
    guard = Guard(settings(), Position("phase1", 0, 0))
    for step in range(1, 4):
        guard.watch(step, float("nan"), SKIPPED, engine(), is_last=False)
    guard.watch(4, 1.0, APPLIED, engine(), is_last=False)
    for step in range(5, 8):
        guard.watch(step, float("nan"), SKIPPED, engine(), is_last=step == 7)  # the stage has applied a step
    with pytest.raises(UserError, match=r"found 4 steps in a row with a gradient .* \(phase1, step 8\)"):
        guard.watch(8, float("nan"), SKIPPED, engine(), is_last=False)


def test_a_stage_that_applied_nothing():
    guard = Guard(settings(), Position("phase1", 0, 0))
    with pytest.raises(UserError, match="found 1 steps in a row"):
        guard.watch(1, float("nan"), SKIPPED, engine(), is_last=True)


def test_a_resumed_stage_may_end_with_a_skipped_step():
    """It has applied steps before, which its optimizer has counted."""
    Guard(settings(), Position("phase1", 8, 7)).watch(9, float("nan"), SKIPPED, engine(), is_last=True)
    with pytest.raises(UserError, match="found 1 steps in a row"):
        Guard(settings(), Position("phase1", 8, 0)).watch(9, float("nan"), SKIPPED, engine(), is_last=True)


def test_a_loss_scale_at_its_floor():
    guard = Guard(settings(), Position("phase1", 0, 0))
    guard.watch(1, float("nan"), SKIPPED, engine(loss_scale=2.0), is_last=False)
    guard.watch(2, 1.0, APPLIED, engine(loss_scale=1.0), is_last=False)
    with pytest.raises(UserError, match=r"at the loss scale's floor, 1 \(phase1, step 3\); .* runtime.precision=bf16"):
        guard.watch(3, float("nan"), SKIPPED, engine(loss_scale=1.0), is_last=False)


def test_deepspeeds_loss_scaler_has_what_the_engine_sets():
    """fp16 itself runs on GPUs alone: DeepSpeed's scaler is made here as its ZeRO optimizers make it."""
    from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler

    names = {"init_scale": 2.0, "scale_window": 1000, "min_scale": 1.0, "delayed_shift": 1}
    scaler = CreateLossScaler(torch.half, 1.0, True, {**names, "consecutive_hysteresis": False})
    assert (scaler.dynamic, scaler.min_scale, scaler.raise_error_at_min_scale) == (True, 1.0, True)
    assert CreateLossScaler(torch.half, 1.0, False, None).dynamic is False


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "s")


@pytest.fixture
def numbered(monkeypatch):
    """Which global batch counts belong to: (the set of bad ones, whose loss is told as 5 more; those in training)."""
    bad, trained = set(), []
    known = []
    counts, metrics = PretrainingTask.counts, PretrainingTask.metrics

    def counting(task, number):
        found = counts(task, number)
        known.append((found, number))
        return found

    def telling(task, sums, of_batch):
        found = metrics(task, sums, of_batch)
        number = next(number for one, number in known if one is of_batch)
        trained.append(number)
        return {**found, "loss": found["loss"] + 5 * (number in bad)}

    monkeypatch.setattr(PretrainingTask, "counts", counting)
    monkeypatch.setattr(PretrainingTask, "metrics", telling)
    return bad, trained


GUARDS = ["guards.window_steps=1", "guards.max_loss_rise=2", "checkpoint.interval_steps=2", "checkpoint.keep_last=9"]
LENGTH = ["phases.phase1.total_steps=9", "~phases.phase2"]


def test_a_run_goes_back_and_past_the_batches(shards, tmp_path, numbered, monkeypatch, capsys):
    bad, trained = numbered
    bad.add(6)
    found = run_here(shards, tmp_path / "back", *GUARDS, *LENGTH, "guards.on_spike=rollback")
    assert trained == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert (found.position.step, found.position.batches_skipped, found.position.num_rollbacks) == (9, 2, 1)
    lines = [json.loads(line) for line in (tmp_path / "back" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, 10))
    told = {"kind": "rollback", "phase": "phase1", "step": 4, "spike_step": 6, "batches_skipped": 2}
    assert [line for line in lines if line["kind"] == "rollback"] == [told]
    assert "rollback to phase1 step 4, past the batches up to step 6's: found a loss of " in capsys.readouterr().err

    # Stopped first, and resumed with the other word: the same.
    with pytest.raises(UserError, match=r"\(phase1, step 6; largest update .* before it is phase1-0000004$"):
        run_here(shards, tmp_path / "stopped", *GUARDS, *LENGTH)
    resumed = ["guards.on_spike=rollback", "if_exists=resume"]
    assert_same_bits(run_here(shards, tmp_path / "stopped", *GUARDS, *LENGTH, *resumed), found)

    # The truth: the batches are left out from the start.
    micro_batches, counts = PretrainingTask.micro_batches, PretrainingTask.counts

    def left_out(task, first, last):
        yield from micro_batches(task, 1, 4)
        yield from micro_batches(task, 7, 11)

    monkeypatch.setattr(PretrainingTask, "micro_batches", left_out)
    monkeypatch.setattr(PretrainingTask, "counts", lambda task, n: counts(task, n if n <= 4 else n + 2))
    bad.clear()
    truth = run_here(shards, tmp_path / "truth", *GUARDS, *LENGTH)
    truth.position = replace(truth.position, batches_skipped=2, num_rollbacks=1)
    assert_same_bits(truth, found)


def test_where_a_run_goes_on():
    """From its own stage, from the end of the one before, and from further back, where the rest is done again."""
    stages = [
        Stage(name, index, plan=None, schedule=Schedule(9, 1.0, 0.0), num_instances=1)
        for index, name in enumerate(("phase1", "phase2"))
    ]
    spike = Spike(found="f", expected="e", fix="x")
    spike.step = 7
    met = Position("phase2", 2, 2, batches_skipped=3, num_rollbacks=1)
    own = past(spike, met, Position("phase2", 4, 4), stages)
    assert own == Position("phase2", 4, 4, batches_skipped=6, num_rollbacks=2)
    before = past(spike, met, Position("phase1", 9, 9), stages)
    assert before == Position("phase2", 0, 0, batches_skipped=10, num_rollbacks=2)
    further = past(spike, met, Position("phase1", 5, 5), stages)
    assert further == Position("phase1", 5, 5, num_rollbacks=2)


def test_a_run_does_not_go_back_for_ever(shards, tmp_path, numbered):
    """Batches 3 and 5 are bad: from the start past 1 to 3, then again, and no third time."""
    bad, trained = numbered
    bad.update((3, 5, 7))
    words = [*GUARDS, *LENGTH, "guards.on_spike=rollback", "guards.max_rollbacks=2", "checkpoint.interval_steps=0"]
    with pytest.raises(UserError, match="no checkpoint of this stage is from before it"):
        run_here(shards, tmp_path / "run", *words)
    assert trained == [1, 2, 3, 4, 5, 6, 7]
    told = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in told.phases[0].steps] == [1, 2]
    assert told.notes[-1].endswith("went back to step 0 and passed over batches, 5 of the phase so far.")
    assert not RunDir(tmp_path / "run").checkpoints()


def test_checkpoints_from_within_the_rise_are_set_aside(shards, tmp_path, numbered, capsys):
    """The window of steps 4 and 5 is the last calm one, so what was saved at 4 may have some of the rise already."""
    bad, _ = numbered
    words = ["guards.window_steps=2", "guards.max_loss_rise=3", *GUARDS[2:], *LENGTH, "guards.on_spike=rollback"]
    bad.update((6, 7))  # 2.5 above the lowest in step 6, where 3 are allowed, and 5 in step 7
    found = run_here(shards, tmp_path / "run", *words)
    assert found.position.batches_skipped == 5
    assert (
        "resume   passed over phase1-0000006, now phase1-0000006.damaged: saved while the loss rose, after phase1"
        in (capsys.readouterr().err)
    )
    names = [path.name for path in RunDir(tmp_path / "run").checkpoints()]
    assert names == ["phase1-0000002", "phase1-0000004", "phase1-0000006", "phase1-0000008", "phase1-0000009"]
    assert Checkpoint(tmp_path / "run" / "checkpoints" / "phase1-0000004").position.batches_skipped == 5
