"""Checkpoints are written while the training goes on: what was copied, complete or not at all, agreed by all ranks.

Truths: the same state saved at once; the folder on the disk. Ranks are threads of this process (ranks_in_threads.py),
whose collectives fail in any other thread; the writer is held up by an event. One process is killed.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from bert_lamb.checkpoint import writing
from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.checkpoint.writing import save_checkpoint
from bert_lamb.engine.launch import Process
from bert_lamb.engine.protocol import Fragment
from bert_lamb.errors import UserError
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train import saving
from bert_lamb.train.batch_plan import plan_batch
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.loop import add_over_ranks
from bert_lamb.train.resume import newest_whole
from bert_lamb.train.schedule import Schedule
from bert_lamb.train.settings import CheckpointSettings
from bert_lamb.train.task import Stage
from tests.launch import CHECKOUT
from tests.train.ranks_in_threads import Ranks

CPU = torch.device("cpu")
ALONE = Process(0, 0, 1, CPU)
WRITE = writing.write_rank_file
PATIENCE_SECONDS = 30.0
PLAN = plan_batch(
    key="global_batch_size",
    global_batch_size=4,
    max_micro_batch_size=4,
    world_size=1,
    total_steps=99,
    max_seq_length=8,
)
STAGE = Stage("phase1", 0, PLAN, Schedule(99, 1e-3, 0.0), num_instances=9)


class Training:
    """As much of an Engine as keeping needs: one parameter cut over the ranks, which a step changes in place."""

    def __init__(self, process, ranks=None):
        self.rank, self.world_size = process.rank, process.world_size
        self.shapes, self.buffers = {"w": torch.Size([8])}, {}
        share = 8 // self.world_size
        self.state = {kind: torch.arange(float(share)) + 8 * self.rank for kind in ("weight", "exp_avg")}
        self.all_reduce_sum = ranks.all_reduce_sum if ranks else lambda values: values

    def step(self):
        for tensor in self.state.values():
            tensor.mul_(3).add_(1)

    def owned_fragments(self):
        yield Fragment("w", self.rank * (8 // self.world_size), self.state)

    def barrier(self):
        pass


def keeper_of(run, process, **changes):
    settings = {"interval_steps": 1, "interval_minutes": 0.0, "keep_last": 9, "keep_every": 0, "is_asynchronous": True}
    return Keeper(RunDir(run), process, CheckpointSettings(**{**settings, **changes}), about={"more": 1})


def save(keeper, engine, step):
    keeper.save(engine, STAGE, Position("phase1", step, step), is_by_clock=False)


def agree(keeper, engine):
    """What the loop does at every step: (any rank is writing, any has failed)."""
    _, (is_writing, has_failed) = add_over_ranks(engine, torch.zeros(1), keeper.known_here())
    keeper.heed(is_writing=is_writing, has_failed=has_failed)
    return is_writing, has_failed


def names(run):
    folder = run / "checkpoints"
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return [re.sub(r"\.[0-9a-f]{8}(?=\.partial$)", "", name) for name in found]  # the attempt


class SlowWriter:
    """Rank files are written when `go` is set; `has_begun` when one is asked for."""

    def __init__(self, monkeypatch, is_slow=lambda path: True):
        self.go, self.has_begun, self.is_slow = threading.Event(), threading.Event(), is_slow
        monkeypatch.setattr(writing, "write_rank_file", self)

    def __call__(self, path, *rest):
        if self.is_slow(path):
            self.has_begun.set()
            assert self.go.wait(PATIENCE_SECONDS)
        return WRITE(path, *rest)


def failing(error, is_meant):
    def write(path, *rest):
        if is_meant(path):
            raise error
        return WRITE(path, *rest)

    return write


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_what_was_copied(tmp_path, monkeypatch):
    """The training changes every tensor before the thread begins; truth: saved at once, byte for byte."""
    engine, go = Training(ALONE), threading.Event()
    about = {"total_step": 1, "is_by_clock": False, "more": 1}
    save_checkpoint(engine, tmp_path / "phase1-0000001", position=Position("phase1", 1, 1), about=about)

    def write_late(*share):
        assert go.wait(PATIENCE_SECONDS)
        writing.write_share(*share)

    monkeypatch.setattr(saving, "write_share", write_late)
    with keeper_of(tmp_path, ALONE) as keeper:
        save(keeper, engine, 1)
        engine.step()
        assert names(tmp_path) == ["phase1-0000001.partial"]
        go.set()
        keeper.finish()
    assert bytes_of(tmp_path / "checkpoints" / "phase1-0000001") == bytes_of(tmp_path / "phase1-0000001")
    assert not torch.equal(dict(Checkpoint(tmp_path / "phase1-0000001").weights())["w"], engine.state["weight"])


@pytest.mark.gpu
def test_a_copy_of_a_gpu_is_complete_before_training_goes_on():
    """Pinned memory is copied to without waiting, and then waited for."""
    engine = Training(ALONE)
    engine.state = {kind: torch.randn(50_000_000, device="cuda") for kind in ("weight", "exp_avg")}
    before = torch.cat([tensor.cpu() for tensor in engine.state.values()])
    share = writing.HostCopy().take(engine)
    found = torch.frombuffer(share.content, dtype=torch.float32).clone()
    engine.step()
    assert torch.equal(found, before)


def test_the_next_save_waits_for_the_last_one(tmp_path, monkeypatch):
    """And uses its memory again: the first checkpoint must be out of it."""
    engine, writer = Training(ALONE), SlowWriter(monkeypatch)
    with keeper_of(tmp_path, ALONE) as keeper:
        save(keeper, engine, 1)
        assert agree(keeper, engine) == (True, False)
        engine.step()
        threading.Timer(0.2, writer.go.set).start()
        save(keeper, engine, 2)
        assert "phase1-0000001" in names(tmp_path)
        keeper.finish()
    found = [dict(Checkpoint(tmp_path / "checkpoints" / name).weights())["w"] for name in names(tmp_path)]
    assert [weights.tolist() for weights in found] == [list(range(8)), [3.0 * x + 1 for x in range(8)]]


def test_without_a_thread_at_work_when_it_is_switched_off(tmp_path):
    engine = Training(ALONE)
    with keeper_of(tmp_path, ALONE, is_asynchronous=False) as keeper:
        save(keeper, engine, 1)
        assert keeper.known_here() == (False, False)
        assert names(tmp_path) == ["phase1-0000001"]


def test_it_appears_between_steps_when_all_ranks_have_written(tmp_path, monkeypatch):
    """Rank 1 is slow: the others train on, nothing appears; then rank 0 publishes without a further save."""
    ranks = Ranks(monkeypatch, 2)
    writer = SlowWriter(monkeypatch, is_slow=lambda path: "rank-00001" in path.name)

    def train(process):
        engine = Training(process, ranks)
        seen = []
        with keeper_of(tmp_path, process) as keeper:
            save(keeper, engine, 1)
            for _ in range(3):
                engine.step()
                seen.append((*agree(keeper, engine), names(tmp_path)))
            writer.go.set()
            while agree(keeper, engine)[0]:
                pass
            if process.is_main:
                keeper._saving.wait()
            published = names(tmp_path)
            ranks.exchange(None)
            keeper.finish()
        return seen, published if process.is_main else None

    (seen, published), (other, _) = ranks.run(train)
    assert seen == other == [(True, False, ["phase1-0000001.partial"])] * 3
    assert published == ["phase1-0000001"]
    checkpoint = Checkpoint(tmp_path / "checkpoints" / "phase1-0000001")
    checkpoint.check_bytes()
    assert checkpoint.read("weight", "w", 0, 8).tolist() == [*range(4), *range(8, 12)]


@pytest.mark.parametrize("where", ["rank-00000", "rank-00001"])
@pytest.mark.parametrize("settles_by", ["step", "save", "finish"])
def test_a_full_disk_of_one_rank_is_said_by_all(tmp_path, monkeypatch, where, settles_by):
    """At the next step, save or end of the stage; the checkpoint before stays whole, and nothing hangs."""
    ranks = Ranks(monkeypatch, 2)

    def train(process):
        engine = Training(process, ranks)
        with keeper_of(tmp_path, process) as keeper:
            save(keeper, engine, 1)
            keeper.settle()
            if process.is_main:
                full = OSError(errno.ENOSPC, "No space left on device")
                monkeypatch.setattr(writing, "write_rank_file", failing(full, lambda path: where in path.name))
            ranks.exchange(None)
            save(keeper, engine, 2)
            if settles_by == "step":
                for _ in range(10_000):
                    agree(keeper, engine)
            elif settles_by == "save":
                save(keeper, engine, 3)
            else:
                keeper.finish()

    errors = ranks.run(train)
    assert [isinstance(error, UserError) for error in errors] == [True, True]
    assert len({str(error) for error in errors}) == 1
    assert re.search(r"checkpoint .*phase1-0000002 that cannot be written \(No space left on device\)", str(errors[0]))
    assert "\n" not in str(errors[0])
    monkeypatch.setattr(writing, "write_rank_file", WRITE)
    assert newest_whole(RunDir(tmp_path), ["phase1"], ALONE).position.step == 1


@pytest.mark.parametrize("refusing", ["publish", "begin"])
def test_what_rank_0_alone_cannot_write_is_said_by_all(tmp_path, monkeypatch, refusing):
    """checkpoint.json does not fit, or the run's folder has gone away; it is not made again."""
    ranks = Ranks(monkeypatch, 2)
    run = tmp_path / "run"
    run.mkdir()

    def full(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    def train(process):
        engine = Training(process, ranks)
        with keeper_of(run, process) as keeper:
            save(keeper, engine, 1)
            keeper.settle()
            if process.is_main and refusing == "publish":
                monkeypatch.setattr(writing, "sealed", full)
            elif process.is_main:
                run.rename(tmp_path / "elsewhere")
            ranks.exchange(None)
            save(keeper, engine, 2)
            for _ in range(10_000):
                agree(keeper, engine)

    errors = ranks.run(train)
    assert len({str(error) for error in errors}) == 1
    reason = "Read-only file system" if refusing == "publish" else "No such file or directory"
    assert f"phase1-0000002 that cannot be written ({reason})" in str(errors[0])
    assert run.exists() == (refusing == "publish")
    monkeypatch.setattr(writing, "write_rank_file", WRITE)
    left = RunDir(run if run.exists() else tmp_path / "elsewhere")
    assert newest_whole(left, ["phase1"], ALONE).position.step == 1


@pytest.mark.parametrize(
    ("world_size", "late", "is_common", "left"),
    [
        (1, 0, False, "phase1-0000001"),
        (2, 0, False, "phase1-0000001"),
        (2, 1, False, "phase1-0000001.partial"),
        (2, 1, True, "phase1-0000001"),
    ],
)
def test_an_error_that_ends_the_run_waits_for_what_is_being_written(
    tmp_path, monkeypatch, world_size, late, is_common, left
):
    """Ranks that fail alone wait for no other: the checkpoint appears if rank 0 finds all files. An error that all have
    is waited with.
    """
    error = UserError(found="a", expected="b", fix="c").reported_by("rank 0") if is_common else RuntimeError("a defect")
    ranks = Ranks(monkeypatch, world_size)
    writer = SlowWriter(monkeypatch, is_slow=lambda path: f"rank-{late:05d}" in path.name)

    def train(process):
        try:
            with keeper_of(tmp_path, process) as keeper:
                save(keeper, Training(process, ranks), 1)
                assert writer.has_begun.wait(PATIENCE_SECONDS)
                if world_size == 1 or is_common:
                    threading.Timer(0.1, writer.go.set).start()
                elif process.rank != late:
                    keeper._saving.wait()
                    if late == 0:
                        writer.go.set()
                raise error
        finally:
            if process.is_main:
                writer.go.set()

    errors = ranks.run(train)
    assert errors == [error] * world_size
    assert names(tmp_path) == [left]


KILLED = """
import sys, threading
from pathlib import Path
from bert_lamb.checkpoint import writing
from tests.train import test_keeper as t

def half(path, sizes, content):
    path.write_bytes(bytes(content[:16]))
    print("half", flush=True)
    threading.Event().wait()

engine = t.Training(t.ALONE)
with t.keeper_of(Path(sys.argv[1]), t.ALONE) as keeper:
    t.save(keeper, engine, 1)
    keeper.settle()
    engine.step()
    writing.write_rank_file = half
    t.save(keeper, engine, 2)
    while True:
        engine.step()
        t.agree(keeper, engine)
"""


def test_a_kill_while_it_is_written_leaves_the_one_before_whole(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "half\n"
        running.send_signal(signal.SIGKILL)
    run = RunDir(tmp_path)
    assert names(tmp_path) == ["phase1-0000001", "phase1-0000002.partial"]
    found = newest_whole(run, ["phase1"], ALONE)
    assert dict(found.weights())["w"].tolist() == list(range(8))
    run.remove_leftovers()
    assert names(tmp_path) == ["phase1-0000001"]


def test_a_step_is_saved_over_what_a_killed_save_of_it_left(tmp_path):
    engine = Training(ALONE)
    with keeper_of(tmp_path, ALONE) as keeper:
        for _ in range(2):
            save(keeper, engine, 1)
            keeper.settle()
            folder = tmp_path / "checkpoints" / "phase1-0000001"
            shutil.copytree(folder, folder.with_name("phase1-0000001.partial"), dirs_exist_ok=True)
        save(keeper, engine, 1)
        keeper.finish()
    assert names(tmp_path) == ["phase1-0000001", "phase1-0000001.partial"]
    RunDir(tmp_path).remove_leftovers()
    assert names(tmp_path) == ["phase1-0000001"]


def test_a_rank_that_outlives_its_job_does_not_write_into_the_next_one(tmp_path, monkeypatch):
    """As a machine that hung while the others started again: it wakes up when the new job has written the same step."""
    old, new = Training(ALONE), Training(ALONE)
    old.step()
    writer = SlowWriter(monkeypatch, is_slow=lambda path: not writer.has_begun.is_set())
    outlived = keeper_of(tmp_path, ALONE)
    save(outlived, old, 1)
    assert writer.has_begun.wait(PATIENCE_SECONDS)
    RunDir(tmp_path).remove_leftovers()
    with keeper_of(tmp_path, ALONE) as keeper:
        save(keeper, new, 1)
        keeper._saving.wait()
        writer.go.set()
        with pytest.raises(UserError, match=r"phase1-0000001 that cannot be written \(No such file"):
            outlived.finish()
        keeper.finish()
    checkpoint = Checkpoint(tmp_path / "checkpoints" / "phase1-0000001")
    checkpoint.check_bytes()
    assert checkpoint.read("weight", "w", 0, 8).tolist() == list(range(8))
    assert names(tmp_path) == ["phase1-0000001"]


def test_what_cannot_be_removed_costs_no_checkpoint(tmp_path, monkeypatch, capsys):
    """A file server that keeps an old one busy: said in a line, and the training goes on."""

    def busy(folder, **_):
        raise OSError(errno.EBUSY, "Device or resource busy", str(folder))

    with keeper_of(tmp_path, ALONE, keep_last=1) as keeper:
        monkeypatch.setattr("bert_lamb.outputs.run_dir.shutil", SimpleNamespace(rmtree=busy))
        for step in (1, 2):
            save(keeper, Training(ALONE), step)
        keeper.settle()
        assert names(tmp_path) == ["phase1-0000001", "phase1-0000002"]
        said = capsys.readouterr().err.splitlines()
        monkeypatch.undo()
        save(keeper, Training(ALONE), 3)
        keeper.finish()
    assert len(said) == 1
    assert "phase1-0000001 cannot be removed (Device or resource busy)" in said[0]
    assert names(tmp_path) == ["phase1-0000003"]
