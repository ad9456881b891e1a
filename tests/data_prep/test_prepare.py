"""From raw text to a folder that verify finds sound; the same bytes whatever the workers; nothing overwritten unasked.

Mutations that must turn it red: results taken as they finish, a random partner from the other split, num_workers in the
manifest, OUTPUT written in place, rmtree of a folder that holds no shards.
"""

import functools
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys

import pyarrow as pa
import pytest

from bert_lamb.errors import UserError
from bert_lamb.shards import open_instances, read_manifest
from bert_lamb.shards.verify import verify
from data_prep.output_dir import partial_dir_of
from data_prep.partition import document_number, group, split_of
from data_prep.prepare import map_in_order, prepare
from data_prep.sources import Document, Source

WORDS = ("the", "a", "river", "city", "north", "old", "king", "stone", "bridge", "war", "year", "naïve", "it's")


def sentence(rng, mark=""):
    words = [rng.choice(WORDS) for _ in range(rng.randint(3, 14))]
    return " ".join([*words, mark] if mark else words).capitalize() + "."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """60 documents of text, 20 of jsonl, of these two too short; every sentence carries its document's mark."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(1)
    texts = [" ".join(sentence(rng, f"mark{number:03d}") for _ in range(rng.randint(4, 30))) for number in range(80)]
    (folder / "a.txt").write_text("\n\n".join(texts[:60]), encoding="utf-8")
    lines = [json.dumps({"text": text}) for text in [*texts[60:], "short", "\x00 \n"]]
    (folder / "b.jsonl").write_text("\n".join(lines))
    return folder


def arguments_of(corpus, output_dir, **changes):
    def source(name, kind, path):
        return Source(name, kind, str(path), "blank_line", "text", "", "", "train", None, f"{name}'s licence")

    arguments = {
        "sources": [source("books", "text", corpus / "a.txt"), source("lines", "jsonl", corpus / "b.jsonl")],
        "output_dir": output_dir,
        "vocabulary_file": None,
        "vocabulary_train_size": 200,
        "is_lowercase": True,
        "max_seq_lengths": [64, 32],
        "short_seq_prob": 0.1,
        "random_next_prob": 0.5,
        "heldout_proportion": 0.2,
        "min_document_characters": 20,
        "partition_characters": 6000,
        "instances_per_shard": 100,
        "num_workers": 1,
        "seed": 1,
        "if_exists": "refuse",
    }
    return {**arguments, **changes}


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(**arguments_of(corpus, output_dir))
    return output_dir


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def text_rows(directory, max_seq_length, split):
    """(text of A, text of B, is_random_next) of every instance, read with pyarrow and the vocabulary alone."""
    entries = (directory / "vocab.txt").read_text(encoding="utf-8").split("\n")
    for path in sorted((directory / f"seq{max_seq_length}").glob(f"{split}-*.arrow")):
        for row in pa.ipc.open_file(str(path)).read_all().to_pylist():
            words = " ".join(entries[number] for number in row["input_ids"]).replace(" ##", "")
            segment_a, segment_b, rest = words.removeprefix("[CLS] ").split("[SEP]")
            assert rest == ""
            yield segment_a.strip(), segment_b.strip(), row["is_random_next"]


def test_the_folder_is_sound_and_counted(prepared, capsys):
    assert verify(prepared) == []
    manifest = read_manifest(prepared)
    assert manifest.documents.num_read == 82
    assert manifest.documents.num_train + manifest.documents.num_heldout == 80
    assert manifest.documents.dropped == {"too_short": 2}
    assert [(s.name, s.license, s.num_read, s.num_kept) for s in manifest.sources] == [
        ("books", "books's licence", 60, 60),
        ("lines", "lines's licence", 22, 20),
    ]
    names = [(found.max_seq_length, found.split) for found in manifest.instance_sets]
    assert names == [(32, "train"), (32, "heldout"), (64, "train"), (64, "heldout")]
    assert len(manifest.instance_sets[0].shards) > 1
    assert sorted(path.name for path in prepared.iterdir()) == ["manifest.json", "seq32", "seq64", "vocab.txt"]
    assert not partial_dir_of(prepared).exists()


def marks(text):
    return {word for word in text.replace("##", "").split() if word.startswith("mark")}


@pytest.mark.parametrize("max_seq_length", [32, 64])
def test_held_out_text_never_meets_training_text(prepared, max_seq_length):
    """By the marks in the text itself, so that B of a random pair is looked at too."""
    seen = {
        split: set().union(*(marks(f"{a} {b}") for a, b, _ in text_rows(prepared, max_seq_length, split)))
        for split in ("train", "heldout")
    }
    assert len(seen["train"]) > 40
    assert len(seen["heldout"]) > 5
    assert not seen["train"] & seen["heldout"]


def test_random_next_means_another_document(prepared):
    whole = [(marks(a), marks(b), is_random) for a, b, is_random in text_rows(prepared, 64, "train")]
    told = [(a, b, is_random) for a, b, is_random in whole if len(a) == len(b) == 1]
    assert len(told) > 100
    assert all((a != b) == is_random for a, b, is_random in told)
    assert 0.35 < sum(is_random for _, _, is_random in told) / len(told) < 0.65


def test_heldout_is_chosen_by_the_documented_hash(prepared):
    """FORMAT.md, worked out anew: blake2b of "source:key", little-endian, against the proportion."""
    keys = [f"books:a.txt#{n}" for n in range(60)] + [f"lines:b.jsonl#{n}" for n in range(20)]
    numbers = {int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") for key in keys}
    heldout = {number for number in numbers if number / 2**64 < 0.2}
    assert read_manifest(prepared).documents.num_heldout == len(heldout)
    for split, expected in (("heldout", heldout), ("train", numbers - heldout)):
        paths = sorted((prepared / "seq32").glob(f"{split}-*.arrow"))
        assert {n for path in paths for n in pa.ipc.open_file(str(path)).read_all()["document"].to_pylist()} == expected


RUN_WITH_TWO_WORKERS = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from test_prepare import arguments_of
from data_prep.prepare import prepare
if __name__ == "__main__":
    prepare(**arguments_of(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), num_workers=2))
"""


def test_two_workers_in_another_process_write_the_same_bytes(prepared, corpus, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN_WITH_TWO_WORKERS)
    here = os.path.dirname(__file__)
    subprocess.run([sys.executable, str(script), here, str(corpus), str(tmp_path / "shards")], check=True)
    assert contents(tmp_path / "shards") == contents(prepared)


def test_a_given_vocabulary_gives_the_same_bytes_as_the_trained_one(prepared, corpus, tmp_path):
    prepare(**arguments_of(corpus, tmp_path / "shards", vocabulary_file=prepared / "vocab.txt"))
    first, second = contents(prepared), contents(tmp_path / "shards")
    first.pop("manifest.json")
    second.pop("manifest.json")
    assert first == second


def test_a_second_vocabulary_at_the_same_path_is_read_anew(prepared, corpus, tmp_path):
    """Workers keep their tokenizer; one that outlives its vocabulary would write the ids of the first."""
    entries = (prepared / "vocab.txt").read_text(encoding="utf-8").splitlines()
    other = tmp_path / "other.txt"
    other.write_text("\r\n".join([*entries[:5], *reversed(entries[5:])]), encoding="utf-8", newline="")
    prepare(**arguments_of(corpus, tmp_path / "shards", vocabulary_file=prepared / "vocab.txt"))
    prepare(**arguments_of(corpus, tmp_path / "shards", vocabulary_file=other, if_exists="restart"))
    assert verify(tmp_path / "shards") == []
    first, second = (list(text_rows(folder, 64, "train")) for folder in (prepared, tmp_path / "shards"))
    assert first == second


def test_another_seed_changes_the_pairs_but_not_the_split(prepared, corpus, tmp_path):
    prepare(**arguments_of(corpus, tmp_path / "shards", seed=2))
    ours, other = read_manifest(prepared), read_manifest(tmp_path / "shards")
    assert ours.documents == other.documents
    assert ours.instance_sets[0].shards != other.instance_sets[0].shards


def test_a_finished_folder_is_refused_resumed_or_made_anew(prepared, corpus, tmp_path, capsys):
    output_dir = tmp_path / "shards"
    prepare(**arguments_of(corpus, output_dir))
    before = {path: path.stat().st_mtime_ns for path in output_dir.rglob("*")}
    with pytest.raises(UserError, match="if_exists=resume or if_exists=restart"):
        prepare(**arguments_of(corpus, output_dir))
    capsys.readouterr()
    prepare(**arguments_of(corpus, output_dir, if_exists="resume", num_workers=2))
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="other values of seed, short_seq_prob"):
        prepare(**arguments_of(corpus, output_dir, if_exists="resume", seed=3, short_seq_prob=0.5))
    assert {path: path.stat().st_mtime_ns for path in output_dir.rglob("*")} == before
    prepare(**arguments_of(corpus, output_dir, if_exists="restart"))
    assert contents(output_dir) == contents(prepared)
    assert {path: path.stat().st_mtime_ns for path in output_dir.rglob("*")} != before


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "restart"])
def test_what_holds_no_shards_is_never_deleted(corpus, tmp_path, if_exists):
    for name in ("mine", "mine2.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
    for name in ("mine", "mine2"):
        with pytest.raises(UserError, match="something else"):
            prepare(**arguments_of(corpus, tmp_path / name, if_exists=if_exists))
    assert len(list(tmp_path.rglob("thesis.txt"))) == 2


def test_an_interrupted_preparation_leaves_no_output_and_is_begun_anew(prepared, corpus, tmp_path):
    (tmp_path / "corpus").mkdir()
    for path in corpus.iterdir():
        (tmp_path / "corpus" / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "corpus" / "b.jsonl"
    whole = broken.read_text()
    broken.write_text(whole + "\n{")
    output_dir = tmp_path / "shards"
    with pytest.raises(UserError, match="line 23"):
        prepare(**arguments_of(tmp_path / "corpus", output_dir))
    assert not output_dir.exists()
    broken.write_text(whole)
    with pytest.raises(UserError, match="unfinished output"):
        prepare(**arguments_of(tmp_path / "corpus", output_dir))
    prepare(**arguments_of(tmp_path / "corpus", output_dir, if_exists="resume"))
    assert verify(output_dir) == []


def test_nothing_to_train_on_is_refused(corpus, tmp_path):
    with pytest.raises(UserError, match=r"no train instance from 82 documents, of which 82 were dropped"):
        prepare(**arguments_of(corpus, tmp_path / "shards", min_document_characters=10**6))
    with pytest.raises(UserError, match="no train instance"):
        prepare(**arguments_of(corpus, tmp_path / "shards", heldout_proportion=1.0, if_exists="resume"))


def test_no_heldout_share_gives_no_heldout_set(corpus, tmp_path):
    prepare(**arguments_of(corpus, tmp_path / "shards", heldout_proportion=0.0))
    with pytest.raises(UserError, match=r"train 32, train 64.*heldout_proportion"):
        open_instances(tmp_path / "shards", max_seq_length=32, split="heldout")


def test_partitions_hold_one_split_and_every_document_once():
    documents = [("s", Document(str(number), "x" * (number % 70))) for number in range(500)]
    partitions = list(group(documents, heldout_proportion=0.1, partition_characters=300))
    assert [partition.number for partition in partitions] == list(range(len(partitions)))
    for partition in partitions:
        splits = {split_of(document_number(name, document.key), 0.1) for name, document in partition.documents}
        assert splits == {partition.split}
    keys = [document.key for partition in partitions for _, document in partition.documents]
    assert sorted(keys, key=int) == [str(number) for number in range(500)]
    complete = [p for p in partitions if p.split == "train"][:-1]
    assert all(sum(len(d.text) for _, d in p.documents) >= 300 for p in complete)
    large = [("s", Document(str(number), "x" * 1000)) for number in range(10)]
    assert all(len(p.documents) == 2 for p in group(large, heldout_proportion=0.0, partition_characters=300))


def test_results_come_in_order_and_few_items_are_taken_ahead():
    taken = itertools.count()
    items = (-number for number in range(30) if next(taken) >= 0)
    results = map_in_order(abs, items, num_workers=2)
    assert next(results) == 0
    assert next(taken) <= 5
    assert list(results) == list(range(1, 30))


def test_a_worker_that_dies_is_told():
    with pytest.raises(UserError, match="a worker process that died"):
        list(map_in_order(functools.partial(os._exit), [3, 3], num_workers=2))
