"""Hashing dealt out over ranks: every file once, about equally many bytes each, and a request to stop is heard.

Breaks that turn this file red: a file that no rank gets, all files to rank 0, a signal that waits for the last byte.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.pretraining import hash_check
from bert_lamb.pretraining.hash_check import check_shards, deal
from bert_lamb.shards import HashedFile, files_to_hash
from bert_lamb.train.stop import StopFlag
from tests.synthetic import make_shards

ALONE = Process(0, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7, 20])
def test_every_file_is_dealt_once(num_ranks):
    files = [HashedFile(Path(f"f{number}"), 100 + 7 * number, "") for number in range(13)]
    dealt = deal(files, num_ranks)
    assert len(dealt) == num_ranks
    assert sorted(file.path for share in dealt for file in share) == sorted(file.path for file in files)
    loads = [sum(file.num_bytes for file in share) for share in dealt]
    assert max(loads) - min(loads) <= max(file.num_bytes for file in files)


def phases_of(folder):
    return [SimpleNamespace(settings=SimpleNamespace(shards=str(folder), max_seq_length=n)) for n in (16, 32, 16)]


def test_each_byte_is_read_once_and_damage_is_refused(tmp_path, monkeypatch):
    folder = make_shards(tmp_path / "s")
    read = []
    original = hash_check.hash_in_chunks
    monkeypatch.setattr(hash_check, "hash_in_chunks", lambda file: (read.append(file.path), original(file))[1])
    check_shards(phases_of(folder), ALONE, StopFlag())
    assert sorted(read) == sorted({file.path for n in (16, 32) for file in files_to_hash(folder, max_seq_length=n)})
    assert len(read) == 1 + 8, "the vocabulary and 4 sets of shards: 3 + 1 for each length"
    victim = max((folder / "seq32").iterdir())
    victim.unlink()
    with pytest.raises(UserError, match=f"no file {victim}"):
        check_shards(phases_of(folder), ALONE, StopFlag())


def test_a_request_to_stop_does_not_wait_for_the_last_byte(tmp_path, monkeypatch):
    folder = make_shards(tmp_path / "s")
    read = []
    original = hash_check.hash_in_chunks
    monkeypatch.setattr(hash_check, "hash_in_chunks", lambda file: (read.append(file.path), original(file))[1])
    stop = StopFlag()
    stop.tell()
    check_shards(phases_of(folder), ALONE, stop)
    assert stop.is_agreed
    assert len(read) == 1
