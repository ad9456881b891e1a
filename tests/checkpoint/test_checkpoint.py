"""Checkpoints: complete or absent, refused when damaged, readable in any cut.

Truth: the tensors that were saved. Breaks that turn this file red: checkpoint.json written first, a fragment's start
ignored, sizes not compared.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from bert_lamb.checkpoint import writing as module
from bert_lamb.checkpoint.position import Position, hand_over
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.checkpoint.writing import save_checkpoint
from bert_lamb.engine.protocol import Fragment
from bert_lamb.errors import UserError

SHAPES = {"a.weight": torch.Size([3, 5]), "b.bias": torch.Size([4])}
POSITION = Position("phase1", 7, 7)


def values(kind, name):
    numel = SHAPES[name].numel()
    return torch.arange(numel, dtype=torch.float32) + 100 * ("weight", "exp_avg", "exp_avg_sq").index(kind)


class Rank:
    """As much of an Engine as saving needs: one rank's fragments."""

    shapes = SHAPES

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
            save_checkpoint(ranks[1], folder, position=POSITION, about={})

    ranks[0].barrier = iter_calls(let_rank_1_write)
    save_checkpoint(ranks[0], folder, position=POSITION, about={"total_step": 7})
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

    monkeypatch.setattr(module, "flush_to_disk", die)
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
        (lambda f: (f / "checkpoint.json").write_bytes(b"\xff\xfe{"), "no readable checkpoint.json"),
        (lambda f: (f / "checkpoint.json").write_text("[" * 100_000), "no readable checkpoint.json"),
        (lambda f: (f / "checkpoint.json").write_text("[]"), "format version None"),
        (
            lambda f: edit_meta(f, position=None),
            r"position='None' in .*checkpoint\.json; expected what save_checkpoint",
        ),
        (lambda f: edit_meta(f, position={"phase": "phase1"}), "position="),
        (
            lambda f: edit_meta(f, position={"phase": "p", "step": "7", "optimizer_step": 7, "loss_scale": None}),
            "position=",
        ),
        (lambda f: edit_meta(f, shapes={}), "shapes="),
        (lambda f: edit_meta(f, shapes={"a.weight": "3x5"}), "shapes="),
        (lambda f: edit_meta(f, shapes={"a.weight": [3, -5]}), "shapes="),
        (lambda f: edit_meta(f, files=["rank-00000-of-00002.safetensors"]), "files="),
        (lambda f: edit_meta(f, files={"../elsewhere.safetensors": 7}), "files="),
        (lambda f: edit_meta(f, tensor_kinds="weight"), "tensor_kinds="),
        (lambda f: edit_meta(f, tensor_kinds=["exp_avg"]), "tensor_kinds="),
        (
            lambda f: edit_meta(f, tensor_kinds=["weight", "exp_avg", "exp_avg_sq", "momentum"]),
            "0 of 15 elements of momentum",
        ),
        (lambda f: edit_meta(f, tensor_kinds=["weight"]), "exp_avg.*expected fp32 fragments"),
        (lambda f: edit_meta(f, shapes={"a.weight": [3, 5]}), "b.bias.*expected fp32 fragments"),
        (lambda f: edit_meta(f, shapes={**meta(f)["shapes"], "c": [2]}), "0 of 2 elements of weight of c"),
        (lambda f: rewrite(f, lambda t: {**t, "weight/b.bias/first": t["weight/b.bias/0"]}), "b.bias/first"),
        (
            lambda f: rewrite(f, lambda t: {**t, "weight/b.bias/2": t["weight/b.bias/0"][:2]}),
            "elements of weight of b.bias",
        ),
        (lambda f: rewrite(f, lambda t: {n: v.half() for n, v in t.items()}), "F16, 1-dimensional"),
        (
            lambda f: rewrite(f, lambda t: {**t, "weight/b.bias/0": t["weight/b.bias/0"].view(2, 2)}),
            "F32, 2-dimensional",
        ),
        (lambda f: overwrite(f / "rank-00000-of-00002.safetensors"), "rank-00000.* that cannot be read as safetensors"),
        (
            lambda f: shutil.copy(f / "rank-00000-of-00002.safetensors", f / "rank-00002-of-00004.safetensors"),
            "rank-00002-of-00004.safetensors, which checkpoint.json does not name; expected the files of 2 ranks",
        ),
    ],
)
def test_damage_is_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as refusal:
        Checkpoint(folder)
    assert "\n" not in str(refusal.value)


def meta(folder):
    return json.loads((folder / "checkpoint.json").read_text())


def rewrite(folder, change):
    """Rank 0's file with other tensors, its size put right."""
    file = folder / "rank-00000-of-00002.safetensors"
    save_file({name: value.clone() for name, value in change(load_file(file)).items()}, file)
    edit_meta(folder, files={**meta(folder)["files"], file.name: file.stat().st_size})


def overwrite(file):
    """The same size, as when blocks of a disk are lost."""
    file.write_bytes(bytes(file.stat().st_size))


def edit_meta(folder, **changes):
    meta = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**meta, **changes}))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def drop_file(folder, name):
    """Lost together with its entry, as when a rank's folder was never copied."""
    meta = json.loads((folder / "checkpoint.json").read_text())
    meta["files"].pop(name)
    (folder / name).unlink()
    edit_meta(folder, files=meta["files"])


def test_hand_over_keeps_the_scale_and_resets_the_steps():
    assert hand_over(Position("phase1", 9, 8, 1024.0), next_phase="phase2") == Position("phase2", 0, 0, 1024.0)
