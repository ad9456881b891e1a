"""Checkpoints: complete or absent, refused when damaged, readable in any cut.

Truth: the tensors that were saved, the library that reads safetensors, hashlib. Breaks that turn this file red:
checkpoint.json written first, a fragment's start ignored, sizes or hashes not compared.
"""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from bert_lamb.checkpoint import writing as module
from bert_lamb.checkpoint.meta import Damaged, read_meta, sealed
from bert_lamb.checkpoint.position import Position, hand_over
from bert_lamb.checkpoint.rank_file import write_rank_file
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

    def __init__(self, rank, world_size, pieces, buffers=()):
        self.buffers = dict(buffers)
        self.rank, self.world_size, self.pieces = rank, world_size, pieces

    def barrier(self):
        pass

    def owned_fragments(self):
        for name, start, stop in self.pieces:
            tensors = {kind: values(kind, name)[start:stop] for kind in ("weight", "exp_avg", "exp_avg_sq")}
            yield Fragment(name, start, tensors)


def save_two_ranks(folder, position=POSITION, **about):
    """Rank 1 holds the middle of a.weight, rank 0 the rest; rank 0 finishes last, as the barriers have it."""
    ranks = [
        Rank(0, 2, [("a.weight", 0, 4), ("a.weight", 11, 15), ("b.bias", 0, 4)]),
        Rank(1, 2, [("a.weight", 4, 11)]),
    ]

    def let_rank_1_write():
        if (folder.parent / f"{folder.name}.partial").exists():
            save_checkpoint(ranks[1], folder, position=position, about={})

    ranks[0].barrier = iter_calls(let_rank_1_write)
    save_checkpoint(ranks[0], folder, position=position, about={"total_step": position.step, **about})
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


def test_buffers_are_rank_0s_and_are_missed_when_they_are_gone(tmp_path):
    """A model with BatchNorm: its statistics come back into a model and an engine; a file without them is damaged."""
    folder = tmp_path / "vision-0000001"
    norm = torch.nn.BatchNorm2d(3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    engine = Rank(0, 1, [("a.weight", 0, 15), ("b.bias", 0, 4)], buffers={"norm.running_mean": norm.running_mean})
    save_checkpoint(engine, folder, position=POSITION, about={"total_step": 1})
    checkpoint = Checkpoint(folder)
    assert checkpoint.buffers == {"norm.running_mean": torch.Size([3])}
    model = torch.nn.ModuleDict({"norm": torch.nn.BatchNorm2d(3)})
    checkpoint.shapes = {}
    checkpoint.load_weights(model)
    assert model["norm"].running_mean.tolist() == [1.0, 2.0, 3.0]
    norm.running_mean.zero_()
    engine.held_fragments = list
    checkpoint.load_into(engine)
    assert norm.running_mean.tolist() == [1.0, 2.0, 3.0]
    engine.buffers = {}
    with pytest.raises(UserError, match=r"buffers norm.running_mean in .*; expected none, which this model has"):
        checkpoint.load_into(engine)
    meta = json.loads((folder / "checkpoint.json").read_text())
    meta["buffers"]["norm.running_var"] = [3]
    (folder / "checkpoint.json").write_text(json.dumps(sealed(meta)))
    with pytest.raises(Damaged, match=r"0 of 3 elements of buffer of norm\.running_var"):
        Checkpoint(folder)


def test_without_buffers_nothing_is_said_of_them(folder):
    assert "buffers" not in json.loads((folder / "checkpoint.json").read_text())


@pytest.mark.parametrize("killed_in", ["write_rank_file", "write_atomically", "flush_to_disk"])
def test_a_save_that_dies_leaves_nothing_that_looks_complete(tmp_path, monkeypatch, killed_in):
    """Killed before checkpoint.json, or before the rename: no checkpoint, and the next attempt succeeds."""
    folder = tmp_path / "phase1-0000007"

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    monkeypatch.setattr(module, killed_in, die)
    with pytest.raises(Killed):
        save_two_ranks(folder)
    assert not folder.exists()
    monkeypatch.undo()
    save_two_ranks(folder)
    assert Checkpoint(folder).position == POSITION
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_the_library_reads_what_is_written_and_the_hashes_are_of_the_files(folder):
    found = {}
    for name, written in meta(folder)["files"].items():
        content = (folder / name).read_bytes()
        assert written == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        found |= load_file(folder / name)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", *sorted(meta(folder)["files"])]
    assert len(found) == 12
    for key, tensor in found.items():
        kind, name, start = key.split("/")
        assert torch.equal(tensor, values(kind, name)[int(start) : int(start) + len(tensor)])


@pytest.mark.parametrize("sizes", [{}, {"a": 0}, {"a": 3, "b/ü/0": 0, "c": 5}])
def test_fragments_of_any_size_are_read_by_the_library(tmp_path, monkeypatch, sizes):
    """In chunks that cut through an element, as a large file is written."""
    monkeypatch.setattr("bert_lamb.checkpoint.rank_file.CHUNK_BYTES", 6)
    content = torch.arange(float(sum(sizes.values())))
    path = tmp_path / "one.safetensors"
    num_bytes, sha256 = write_rank_file(path, sizes, memoryview(content.view(torch.uint8).numpy()))
    assert (num_bytes, sha256) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0  # so that tensors are aligned where it is mapped
    found = load_file(path)
    assert found.keys() == sizes.keys()
    assert all(torch.equal(found[k], part) for k, part in zip(sizes, content.split(list(sizes.values())), strict=True))


def test_any_flipped_bit_is_noticed(folder):
    """Of every byte of checkpoint.json and of a rank's file one bit, but for blanks of JSON that say the same."""
    whole = read_meta(folder)
    for name in ("checkpoint.json", "rank-00000-of-00002.safetensors"):
        file = folder / name
        content = file.read_bytes()
        for at in range(len(content)):
            damaged = bytearray(content)
            damaged[at] ^= 1 << (at % 8)
            file.write_bytes(damaged)
            try:
                Checkpoint(folder).check_bytes()
            except Damaged:
                continue
            assert name == "checkpoint.json", at
            assert read_meta(folder) == whole, at
        file.write_bytes(content)


def test_ranks_share_the_hashing(folder):
    """Each reads its part and no more; together they read all."""
    overwrite_last_byte(folder / "rank-00001-of-00002.safetensors")
    checkpoint = Checkpoint(folder)
    checkpoint.check_bytes(0, 2)
    checkpoint.check_bytes(2, 3)
    for share, num_shares in ((1, 2), (0, 1), (1, 3)):
        with pytest.raises(Damaged, match=r"other bytes in .*rank-00001-of-00002\.safetensors than were written"):
            checkpoint.check_bytes(share, num_shares)


def test_a_checkpoint_of_format_2_is_read_without_hashes(folder):
    old = {**meta(folder), "format_version": 2}
    old["files"] = {name: written["bytes"] for name, written in old["files"].items()}
    del old["sha256"], old["position"]["loss_scale_counters"]
    write_meta(folder, old)
    checkpoint = Checkpoint(folder)
    checkpoint.check_bytes()
    assert not checkpoint.has_hashes
    assert torch.equal(dict(checkpoint.weights())["b.bias"], values("weight", "b.bias"))


def overwrite_last_byte(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "checkpoint.json").unlink(), "no readable checkpoint.json"),
        (lambda f: (f / "checkpoint.json").write_text("{"), "no readable checkpoint.json"),
        (lambda f: edit_meta(f, format_version=4), "format version 4"),
        (lambda f: (f / "rank-00001-of-00002.safetensors").unlink(), "found nothing at"),
        (lambda f: truncate(f / "rank-00000-of-00002.safetensors"), "bytes at"),
        (lambda f: drop_file(f, "rank-00001-of-00002.safetensors"), "4 of 15 elements of weight of a.weight"),
        (lambda f: (f / "checkpoint.json").write_bytes(b"\xff\xfe{"), "no readable checkpoint.json"),
        (lambda f: (f / "checkpoint.json").write_text("[" * 100_000), "no readable checkpoint.json"),
        (lambda f: (f / "checkpoint.json").write_text("[]"), "not as it was written"),
        (lambda f: write_meta(f, {n: v for n, v in meta(f).items() if n != "sha256"}), "not as it was written"),
        (lambda f: write_meta(f, {**meta(f), "world_size": 3}), "not as it was written"),
        (
            lambda f: edit_meta(f, position=None),
            r"position='None' in .*checkpoint\.json; expected what save_checkpoint",
        ),
        (lambda f: edit_meta(f, position={"phase": "phase1"}), "position="),
        (
            lambda f: edit_meta(f, position={"phase": "p", "step": "7", "optimizer_step": 7, "loss_scale": None}),
            "position=",
        ),
        (lambda f: edit_meta(f, position={**meta(f)["position"], "loss_scale_counters": [5, 2]}), "position="),
        (lambda f: edit_meta(f, position={**meta(f)["position"], "more": 1}), "position="),
        (lambda f: edit_meta(f, shapes={}), "shapes="),
        (lambda f: edit_meta(f, shapes={"a.weight": "3x5"}), "shapes="),
        (lambda f: edit_meta(f, shapes={"a.weight": [3, -5]}), "shapes="),
        (lambda f: edit_meta(f, files=["rank-00000-of-00002.safetensors"]), "files="),
        (lambda f: edit_meta(f, files={"../a.safetensors": {"bytes": 7, "sha256": None}}), "files="),
        (lambda f: edit_meta(f, files={"a.safetensors": 7}), "files="),
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
    edit_meta(folder, files={**meta(folder)["files"], file.name: {"bytes": file.stat().st_size, "sha256": None}})


def overwrite(file):
    """The same size, as when blocks of a disk are lost."""
    file.write_bytes(bytes(file.stat().st_size))


def edit_meta(folder, **changes):
    write_meta(folder, sealed({**meta(folder), **changes}))


def write_meta(folder, content):
    (folder / "checkpoint.json").write_text(json.dumps(content))


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
