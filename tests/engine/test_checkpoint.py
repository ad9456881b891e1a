"""Checkpoints: complete or absent, refused when damaged, readable in any cut.

Truth: the tensors that were saved. Breaks that turn this file red: checkpoint.json written first, a fragment's start
ignored, sizes not compared.
"""

import json

import pytest
import torch

from bert_lamb.engine import checkpoint as module
from bert_lamb.engine.checkpoint import Checkpoint, Position, hand_over, save_checkpoint
from bert_lamb.engine.protocol import Fragment
from bert_lamb.errors import UserError

SHAPES = {"a.weight": torch.Size([3, 5]), "b.bias": torch.Size([4])}
POSITION = Position("phase1", 7, 7)


def values(kind, name):
    numel = SHAPES[name].numel()
    return torch.arange(numel, dtype=torch.float32) + 100 * ("weight", "exp_avg", "exp_avg_sq").index(kind)


class Rank:
    """As much of an Engine as saving needs: one rank's fragments."""

    def __init__(self, rank, world_size, pieces):
        self.rank, self.world_size, self.pieces = rank, world_size, pieces

    def barrier(self):
        pass

    def owned_fragments(self):
        for name, start, stop in self.pieces:
            tensors = {kind: values(kind, name)[start:stop] for kind in ("weight", "exp_avg", "exp_avg_sq")}
            yield Fragment(name, start, tensors)


def save_two_ranks(folder):
    """Rank 1 holds the middle of a.weight, rank 0 the rest; rank 0 finishes last, as the barriers have it."""
    ranks = [
        Rank(0, 2, [("a.weight", 0, 4), ("a.weight", 11, 15), ("b.bias", 0, 4)]),
        Rank(1, 2, [("a.weight", 4, 11)]),
    ]

    def let_rank_1_write():
        if (folder.parent / f"{folder.name}.partial").exists():
            save_checkpoint(ranks[1], folder, position=POSITION, shapes=SHAPES, about={})

    ranks[0].barrier = iter_calls(let_rank_1_write)
    save_checkpoint(ranks[0], folder, position=POSITION, shapes=SHAPES, about={"total_step": 7})
    return folder


def iter_calls(first):
    """A barrier whose first call does something and whose others do nothing."""
    calls = iter([first])
    return lambda: next(calls, lambda: None)()


@pytest.fixture
def folder(tmp_path):
    return save_two_ranks(tmp_path / "phase1-0000007")


def test_any_range_reads_back(folder):
    checkpoint = Checkpoint(folder)
    assert checkpoint.position == POSITION
    for kind in ("weight", "exp_avg", "exp_avg_sq"):
        for start, numel in ((0, 15), (3, 2), (4, 7), (2, 12), (14, 1), (5, 0)):
            found = checkpoint.read(kind, "a.weight", start, numel)
            assert torch.equal(found, values(kind, "a.weight")[start : start + numel]), (kind, start, numel)
    whole = dict(checkpoint.weights())
    assert torch.equal(whole["a.weight"], values("weight", "a.weight").view(3, 5))


def test_a_save_that_dies_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    """Killed before checkpoint.json, or before the rename: no checkpoint, and the next attempt succeeds."""
    folder = tmp_path / "phase1-0000007"

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    monkeypatch.setattr(module, "_flush_to_disk", die)
    with pytest.raises(Killed):
        save_two_ranks(folder)
    assert not folder.exists()
    monkeypatch.undo()
    save_two_ranks(folder)
    assert Checkpoint(folder).position == POSITION
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "checkpoint.json").unlink(), "no readable checkpoint.json"),
        (lambda f: (f / "checkpoint.json").write_text("{"), "no readable checkpoint.json"),
        (lambda f: edit_meta(f, format_version=3), "format version 3"),
        (lambda f: (f / "rank-00001-of-00002.safetensors").unlink(), "found nothing at"),
        (lambda f: truncate(f / "rank-00000-of-00002.safetensors"), "bytes at"),
        (lambda f: drop_file(f, "rank-00001-of-00002.safetensors"), "4 of 15 elements of weight of a.weight"),
    ],
)
def test_damage_is_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message):
        Checkpoint(folder)


def edit_meta(folder, **changes):
    meta = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**meta, **changes}))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def drop_file(folder, name):
    """Lost together with its entry, as when a rank's folder was never copied."""
    meta = json.loads((folder / "checkpoint.json").read_text())
    meta["files"].pop(name)
    edit_meta(folder, files=meta["files"])


def test_hand_over_keeps_the_scale_and_resets_the_steps():
    assert hand_over(Position("phase1", 9, 8, 1024.0), next_phase="phase2") == Position("phase2", 0, 0, 1024.0)
