"""From raw text to a folder that verify finds sound; the same bytes however the work is cut and spread.

Mutations that must turn it red: results taken as they finish, a random partner from the other split, num_workers in the
manifest, OUTPUT written in place, rmtree of a folder that holds no shards, randomness keyed by the partition, a share
forgotten or done twice, a limit applied per partition, hashes of the raw text for duplicates.
"""

import bz2
import functools
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from bert_lamb.errors import UserError
from bert_lamb.outputs.staged import partial_dir_of
from bert_lamb.shards import open_instances, read_manifest
from bert_lamb.shards.verify import verify
from data_prep.documents.partition import document_number
from data_prep.instances.cutting import make_shard
from data_prep.plan import plan, share_of
from data_prep.pool import Pool
from data_prep.prepare import merge, prepare
from data_prep.settings import Cleaning, Settings, Spread
from data_prep.sources import Source
from data_prep.vocab import train_vocabulary

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


SMALL_PARTITIONS = 1500  # bytes: the corpus below is cut into 15 partitions or so


def settings_of(corpus, **changes):
    sources = (
        Source("books", "text", str(corpus / "a.txt"), license="books's licence"),
        Source("lines", "jsonl", str(corpus / "b.jsonl"), license="lines's licence"),
    )
    settings = Settings(
        sources=sources,
        vocabulary_file=None,
        vocabulary_train_size=200,
        is_lowercase=True,
        max_seq_lengths=(64, 32),
        sentence_task="next_sentence",
        short_seq_prob=0.1,
        random_next_prob=0.5,
        heldout_proportion=0.2,
        cleaning=Cleaning(min_characters=20),
        group_tokens=1500,
        instances_per_shard=100,
        seed=1,
    )
    return replace(settings, **changes)


def run(corpus, output_dir, *, num_workers=1, partition_bytes=10**6, if_exists="refuse", **changes):
    prepare(
        settings_of(corpus, **changes), Spread(partition_bytes, num_workers), output_dir=output_dir, if_exists=if_exists
    )


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("prepared") / "shards"
    run(corpus, output_dir)
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
            yield segment_a.strip(), segment_b.strip(), row["sentence_label"]


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
    names = ["README.md", "figures", "manifest.json", "seq32", "seq64", "vocab.txt"]
    assert sorted(path.name for path in prepared.iterdir()) == names
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


def test_heldout_is_chosen_by_the_documented_hash(prepared, corpus):
    """FORMAT.md, worked out anew: blake2b of "source:key", little-endian, against the proportion."""
    keys = []
    for name, file, boundary, count in (("books", "a.txt", b"\n\n", 60), ("lines", "b.jsonl", b"\n", 20)):
        pieces = (corpus / file).read_bytes().split(boundary)
        offsets = itertools.accumulate((len(piece) + len(boundary) for piece in pieces), initial=0)
        keys += [f"{name}:{file}#{offset}" for offset in itertools.islice(offsets, count)]
    numbers = {int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") for key in keys}
    heldout = {number for number in numbers if number / 2**64 < 0.2}
    assert read_manifest(prepared).documents.num_heldout == len(heldout)
    for split, expected in (("heldout", heldout), ("train", numbers - heldout)):
        paths = sorted((prepared / "seq32").glob(f"{split}-*.arrow"))
        assert {n for path in paths for n in pa.ipc.open_file(str(path)).read_all()["document"].to_pylist()} == expected


RUN = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from test_prepare import run
if __name__ == "__main__":
    corpus, output_dir, num_workers, partition_bytes = sys.argv[2:]
    spread = {"num_workers": int(num_workers), "partition_bytes": int(partition_bytes)}
    run(pathlib.Path(corpus), pathlib.Path(output_dir), **spread)
"""


def run_elsewhere(corpus, output_dir, num_workers, partition_bytes):
    """In another process, whose workers import what they run."""
    script = output_dir.parent / "run.py"
    script.write_text(RUN)
    arguments = [os.path.dirname(__file__), str(corpus), str(output_dir), str(num_workers), str(partition_bytes)]
    subprocess.run([sys.executable, str(script), *arguments], check=True)


@pytest.mark.parametrize(("num_workers", "partition_bytes"), [(2, SMALL_PARTITIONS), (5, 700), (2, 10**6)])
def test_workers_and_cuts_change_no_byte(prepared, corpus, tmp_path, num_workers, partition_bytes):
    run_elsewhere(corpus, tmp_path / "shards", num_workers, partition_bytes)
    assert contents(tmp_path / "shards") == contents(prepared)


def test_a_packed_file_is_given_out_block_by_block(corpus, tmp_path):
    """It cannot be cut, so that one worker would have all of it: the main process reads it."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "b.jsonl").write_bytes((corpus / "b.jsonl").read_bytes())
    with bz2.open(tmp_path / "corpus" / "a.txt.bz2", "wb") as stream:
        stream.write((corpus / "a.txt").read_bytes())
    settings = settings_of(tmp_path / "corpus")
    settings = replace(
        settings,
        sources=(replace(settings.sources[0], path=str(tmp_path / "corpus" / "a.txt.bz2")), settings.sources[1]),
    )
    partitions = plan(settings.sources, partition_bytes=700)
    assert [partition.is_too_large for partition in partitions][:2] == [True, False]
    assert partitions[0].num_text_bytes * 4 > sum(partition.num_text_bytes for partition in partitions)
    for num_workers in (1, 2):
        output_dir = tmp_path / f"shards{num_workers}"
        prepare(settings, Spread(700, num_workers), output_dir=output_dir, if_exists="refuse")
    assert contents(tmp_path / "shards1") == contents(tmp_path / "shards2")


def test_one_worker_on_many_partitions_writes_the_same_bytes(prepared, corpus, tmp_path):
    assert len(plan(settings_of(corpus).sources, partition_bytes=700)) > 25
    run(corpus, tmp_path / "shards", partition_bytes=700)
    assert contents(tmp_path / "shards") == contents(prepared)


@pytest.fixture(scope="module")
def with_vocabulary(prepared, corpus, tmp_path_factory):
    """Made in one go with the vocabulary given; what shares are compared with."""
    output_dir = tmp_path_factory.mktemp("with_vocabulary") / "shards"
    run(corpus, output_dir, vocabulary_file=prepared / "vocab.txt")
    return output_dir


def test_a_given_vocabulary_gives_the_same_rows_as_the_trained_one(prepared, with_vocabulary):
    first, second = contents(prepared), contents(with_vocabulary)
    for name in ("manifest.json", "README.md"):  # they tell where the vocabulary is from
        assert first.pop(name) != second.pop(name)
    assert first == second


def test_shares_in_any_order_merge_to_the_same_bytes(prepared, with_vocabulary, corpus, tmp_path):
    settings = settings_of(corpus, vocabulary_file=prepared / "vocab.txt")
    output_dir = tmp_path / "shards"
    for share in ("2/3", "0/3"):
        prepare(settings, Spread(SMALL_PARTITIONS, 1, share), output_dir=output_dir, if_exists="refuse")
    with pytest.raises(UserError, match=r"no documents of the partition that begins with .*run bert-lamb prepare for"):
        merge(settings, Spread(SMALL_PARTITIONS, 1), output_dir=output_dir)
    for changed in (replace(settings, seed=2), replace(settings, cleaning=Cleaning(min_words=3))):
        with pytest.raises(UserError, match=r"unfinished, at .* with (seed|cleaning\.\w+)="):
            merge(changed, Spread(SMALL_PARTITIONS, 1), output_dir=output_dir)
    with pytest.raises(UserError, match=r"unfinished, at .* with partition_bytes="):
        prepare(settings, Spread(999, 1, "1/3"), output_dir=output_dir, if_exists="refuse")
    prepare(settings, Spread(SMALL_PARTITIONS, 1, "1/3"), output_dir=output_dir, if_exists="refuse")
    merge(settings, Spread(SMALL_PARTITIONS, 1), output_dir=output_dir)
    assert contents(output_dir) == contents(with_vocabulary)
    merge(settings, Spread(SMALL_PARTITIONS, 1), output_dir=output_dir)
    prepare(settings, Spread(SMALL_PARTITIONS, 1, "1/3"), output_dir=output_dir, if_exists="refuse")
    assert contents(output_dir) == contents(with_vocabulary)


def test_nothing_to_merge_is_refused_and_leaves_nothing(prepared, corpus, tmp_path):
    settings = settings_of(corpus, vocabulary_file=prepared / "vocab.txt")
    with pytest.raises(UserError, match=r"no .*shards\.partial; expected what the shares"):
        merge(settings, Spread(SMALL_PARTITIONS, 1), output_dir=tmp_path / "shards")
    assert not list(tmp_path.iterdir())


def test_shares_need_a_vocabulary(corpus, tmp_path):
    with pytest.raises(UserError, match=r"share=0/2 without a vocabulary.*bert-lamb vocab"):
        prepare(settings_of(corpus), Spread(1500, 1, "0/2"), output_dir=tmp_path / "shards", if_exists="refuse")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_every_partition_is_in_one_share(corpus, count):
    partitions = plan(settings_of(corpus).sources, partition_bytes=700)
    shares = [share_of(partitions, f"{index}/{count}") for index in range(count)]
    assert [partition for share in shares for partition in share] == partitions
    if count < 7:
        sizes = [sum(partition.num_bytes for partition in share) for share in shares]
        assert max(sizes) - min(sizes) < 5000  # a few partitions of the larger kind
    with pytest.raises(UserError, match="expected INDEX/COUNT"):
        share_of(partitions, f"{count}/{count}")


def test_vocab_is_the_vocabulary_that_prepare_would_train(prepared, corpus, tmp_path):
    output_file = tmp_path / "words.txt"
    train_vocabulary(settings_of(corpus), Spread(700, 1), output_file=output_file, if_exists="refuse")
    assert output_file.read_bytes() == (prepared / "vocab.txt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words.txt", "words.txt.json"]
    with pytest.raises(UserError, match=r"words\.txt"):
        train_vocabulary(settings_of(corpus), Spread(700, 1), output_file=output_file, if_exists="refuse")


def test_a_second_vocabulary_at_the_same_path_is_read_anew(prepared, corpus, tmp_path):
    """Workers keep their tokenizer; one that outlives its vocabulary would write the ids of the first."""
    entries = (prepared / "vocab.txt").read_text(encoding="utf-8").splitlines()
    other = tmp_path / "other.txt"
    other.write_text("\r\n".join([*entries[:5], *reversed(entries[5:])]), encoding="utf-8", newline="")
    run(corpus, tmp_path / "shards", vocabulary_file=prepared / "vocab.txt")
    run(corpus, tmp_path / "shards", vocabulary_file=other, if_exists="restart")
    assert verify(tmp_path / "shards") == []
    first, second = (list(text_rows(folder, 64, "train")) for folder in (prepared, tmp_path / "shards"))
    assert first == second


def test_another_seed_changes_the_pairs_but_not_the_split(prepared, corpus, tmp_path):
    run(corpus, tmp_path / "shards", seed=2)
    ours, other = read_manifest(prepared), read_manifest(tmp_path / "shards")
    assert ours.documents == other.documents
    assert ours.instance_sets[0].shards != other.instance_sets[0].shards


@pytest.mark.parametrize("task", ["sentence_order", "none"])
def test_the_other_sentence_tasks(corpus, tmp_path, task):
    run(corpus, tmp_path / "shards", sentence_task=task)
    assert verify(tmp_path / "shards") == []
    manifest = read_manifest(tmp_path / "shards")
    assert manifest.sentence_task == task
    shares = [found.num_true_labels / found.num_instances for found in manifest.instance_sets if found.split == "train"]
    assert all(share == 0 if task == "none" else 0.4 < share < 0.6 for share in shares)
    run(corpus, tmp_path / "cut", sentence_task=task, partition_bytes=700)
    assert contents(tmp_path / "cut") == contents(tmp_path / "shards")
    other = "none" if task != "none" else "sentence_order"
    with pytest.raises(UserError, match=f"with sentence_task={task}; expected sentence_task={other}"):
        run(corpus, tmp_path / "shards", sentence_task=other, if_exists="resume")


def test_a_finished_folder_is_refused_resumed_or_made_anew(prepared, corpus, tmp_path, capsys):
    output_dir = tmp_path / "shards"
    run(corpus, output_dir)
    before = {path: path.stat().st_mtime_ns for path in output_dir.rglob("*")}
    with pytest.raises(UserError, match=r"shards at .*if_exists=resume to continue or keep it, or if_exists=restart"):
        run(corpus, output_dir)
    capsys.readouterr()
    run(corpus, output_dir, if_exists="resume", num_workers=2, partition_bytes=77)
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"with seed=1, short_seq_prob=[\d.]+; expected seed=3, short_seq_prob=0\.5"):
        run(corpus, output_dir, if_exists="resume", seed=3, short_seq_prob=0.5)
    assert {path: path.stat().st_mtime_ns for path in output_dir.rglob("*")} == before
    run(corpus, output_dir, if_exists="restart")
    assert contents(output_dir) == contents(prepared)
    assert {path: path.stat().st_mtime_ns for path in output_dir.rglob("*")} != before


@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [
        ({"sources": (Source("books", "text", "/nowhere/*.txt"),)}, "no file at"),
        ({"vocabulary_file": Path("/nowhere/vocab.txt")}, "no file /nowhere/vocab.txt"),
    ],
)
def test_a_mistaken_restart_deletes_nothing(prepared, corpus, tmp_path, mistake, complaint):
    shutil.copytree(prepared, tmp_path / "shards")
    with pytest.raises(UserError, match=complaint):
        run(corpus, tmp_path / "shards", if_exists="restart", **mistake)
    assert contents(tmp_path / "shards") == contents(prepared)
    (tmp_path / "words.txt").write_text("mine")
    (tmp_path / "words.txt.json").write_text('{"kind": "a vocabulary of bert-lamb vocab", "config": {}}')
    with pytest.raises(UserError, match=complaint):
        train_vocabulary(
            settings_of(corpus, **mistake), Spread(700, 1), output_file=tmp_path / "words.txt", if_exists="restart"
        )
    assert (tmp_path / "words.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards", "words.txt", "words.txt.json"]


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "restart"])
def test_what_holds_no_shards_is_never_deleted(corpus, tmp_path, if_exists):
    for name in ("mine", "mine2.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
    for name in ("mine", "mine2"):
        with pytest.raises(UserError, match="something else"):
            run(corpus, tmp_path / name, if_exists=if_exists)
    assert len(list(tmp_path.rglob("thesis.txt"))) == 2


def test_a_mended_file_costs_its_own_partitions_only(prepared, corpus, tmp_path):
    (tmp_path / "corpus").mkdir()
    for path in corpus.iterdir():
        (tmp_path / "corpus" / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "corpus" / "b.jsonl"
    whole = broken.read_text()
    broken.write_text(whole + "\n{")
    output_dir = tmp_path / "shards"
    with pytest.raises(UserError, match=f"in the line at byte {len(whole.encode()) + 1} of"):
        run(tmp_path / "corpus", output_dir)
    assert not output_dir.exists()
    broken.write_text(whole)
    with pytest.raises(UserError, match=r"at .*\.partial; .*if_exists=resume to continue"):
        run(tmp_path / "corpus", output_dir)
    with pytest.raises(UserError, match=r"unfinished, at .* with seed="):
        run(tmp_path / "corpus", output_dir, if_exists="resume", seed=5)
    (folder,) = (path.parent for path in partial_dir_of(output_dir).rglob("done.json"))
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if "tokens" not in path.name}
    touched = []
    monitor = functools.partial(touched.append)
    with pytest.MonkeyPatch.context() as patch:
        original = os.replace
        patch.setattr(os, "replace", lambda *names: (monitor(names[1]), original(*names))[1])
        run(tmp_path / "corpus", output_dir, if_exists="resume")
    assert before
    assert not any(str(path) in map(str, touched) for path in before)
    assert verify(output_dir) == []
    ours = {name: found for name, found in contents(output_dir).items() if name.endswith(("arrow", "txt"))}
    assert ours == {name: found for name, found in contents(prepared).items() if name in ours}


@pytest.mark.parametrize("place", ["reading", "shards", "manifest"])
@pytest.mark.parametrize("has_vocabulary", [False, True])
def test_files_that_changed_are_read_anew(prepared, corpus, tmp_path, monkeypatch, place, has_vocabulary):
    """Whatever was made when the run broke off: documents, the vocabulary trained on them, instances, shards, all.

    The change leaves the first stretch of the file as long as it was: the size of the whole file tells it.
    """
    monkeypatch.setattr("data_prep.prepare.write_card", lambda *arguments: None)
    (tmp_path / "corpus").mkdir()
    first, second = tmp_path / "corpus" / "a.txt", tmp_path / "corpus" / "b.jsonl"
    first.write_bytes((corpus / "a.txt").read_bytes())
    second.write_bytes((corpus / "b.jsonl").read_bytes() + (b"\n{" if place == "reading" else b""))
    settings = {"vocabulary_file": prepared / "vocab.txt" if has_vocabulary else None, "partition_bytes": 1500}
    made = []

    def make_some(*arguments):
        made.append(arguments)
        if len(made) > 3:
            refuse()
        return make_shard(*arguments)

    with monkeypatch.context() as patch:
        if place == "shards":
            patch.setattr("data_prep.instances.make.make_shard", make_some)
        if place == "reading":  # the text is looked at before; here the fault is to come late
            patch.setattr("data_prep.documents.vocabulary_fit.SAMPLE_DOCUMENTS", 1)
        if place == "manifest":
            patch.setattr("data_prep.prepare.put_in_place", lambda *arguments: refuse())
        with pytest.raises(UserError, match="in the line at byte" if place == "reading" else "found a; expected b"):
            run(tmp_path / "corpus", tmp_path / "shards", **settings)
    assert list(partial_dir_of(tmp_path / "shards").rglob("done.json"))
    assert (partial_dir_of(tmp_path / "shards") / "manifest.json").is_file() == (place == "manifest")
    text = first.read_bytes()
    first.write_bytes(
        text[:20].swapcase() + text[20:].replace(b"river", b"RIVAL", 3) + b"\n\nA river. The king of the bridge."
    )
    second.write_bytes((corpus / "b.jsonl").read_bytes())
    run(tmp_path / "corpus", tmp_path / "shards", if_exists="resume", **settings)
    run(tmp_path / "corpus", tmp_path / "anew", **settings)
    assert read_manifest(tmp_path / "anew").sources[0].num_read == 61
    assert contents(tmp_path / "shards") == contents(tmp_path / "anew")


@pytest.mark.parametrize("is_share", [False, True])
def test_what_was_finished_is_only_cleared_up(prepared, corpus, tmp_path, monkeypatch, capsys, is_share):
    """The documents may be gone already; nothing is read again."""
    settings = settings_of(corpus, vocabulary_file=prepared / "vocab.txt")
    output_dir, spread = tmp_path / "shards", Spread(1500, 1)
    with monkeypatch.context() as patch:
        patch.setattr("data_prep.prepare.put_in_place", lambda *arguments: refuse())
        with pytest.raises(UserError, match="found a"):
            prepare(settings, spread, output_dir=output_dir, if_exists="refuse")
    for path in (partial_dir_of(output_dir) / "documents").iterdir():
        shutil.rmtree(path)
    monkeypatch.setattr("data_prep.plan.Partition.read_blocks", lambda partition: refuse())
    if is_share:
        prepare(settings, replace(spread, share="0/2"), output_dir=output_dir, if_exists="refuse")
        assert "already merged" in capsys.readouterr().out
        merge(settings, spread, output_dir=output_dir)
    else:
        prepare(settings, spread, output_dir=output_dir, if_exists="resume")
    assert verify(output_dir) == []
    assert not partial_dir_of(output_dir).exists()


def test_nothing_to_train_on_is_refused(corpus, tmp_path):
    with pytest.raises(UserError, match=r"no train instance from 82 documents, of which 82 were dropped"):
        run(corpus, tmp_path / "shards", cleaning=Cleaning(min_characters=10**6))
    with pytest.raises(UserError, match="no train instance"):
        run(corpus, tmp_path / "shards", heldout_proportion=1.0, if_exists="restart")


def test_no_heldout_share_gives_no_heldout_set(corpus, tmp_path):
    run(corpus, tmp_path / "shards", heldout_proportion=0.0)
    with pytest.raises(UserError, match=r"train 32, train 64.*heldout_proportion"):
        open_instances(tmp_path / "shards", max_seq_length=32, split="heldout")


def with_sources(corpus, **changes_of_source):
    return tuple(replace(source, **changes_of_source.get(source.name, {})) for source in settings_of(corpus).sources)


@pytest.mark.parametrize("partition_bytes", [700, 10**6])
def test_limits_hold_over_all_partitions(corpus, tmp_path, partition_bytes):
    sources = with_sources(corpus, books={"max_documents": 37})
    run(corpus, tmp_path / "shards", sources=sources, partition_bytes=partition_bytes)
    manifest = read_manifest(tmp_path / "shards")
    assert [(source.name, source.num_read) for source in manifest.sources] == [("books", 37), ("lines", 22)]
    seen = set().union(
        *(marks(f"{a} {b}") for s in ("train", "heldout") for a, b, _ in text_rows(tmp_path / "shards", 32, s))
    )
    assert {mark for mark in seen if mark < "mark060"} == {f"mark{n:03d}" for n in range(37)}
    digest = hashlib.sha256(repr(contents(tmp_path / "shards")).encode()).hexdigest()
    LIMITED.add(digest)
    assert len(LIMITED) == 1, "the same bytes however the input is cut"


LIMITED: set[str] = set()


def test_a_source_that_gives_too_little_is_refused(corpus, tmp_path):
    with pytest.raises(UserError, match=r"60 documents in source books .*at least 61.*sources\.books\.path"):
        run(corpus, tmp_path / "one", sources=with_sources(corpus, books={"min_documents": 61}))
    (tmp_path / "empty.txt").write_text("\n\n \n")
    with pytest.raises(UserError, match=r"no document in source books"):
        run(corpus, tmp_path / "two", sources=with_sources(corpus, books={"path": str(tmp_path / "empty.txt")}))


def test_weights_repeat_and_thin_out(corpus, tmp_path):
    """A document of weight 2 is used twice, with other draws, and in no group with itself; held-out text once."""

    def uses(folder, split):
        documents = Counter[int]()
        for path in (folder / "seq32").glob(f"{split}-*.arrow"):
            documents.update(pa.ipc.open_file(str(path)).read_all()["document"].to_pylist())
        return documents

    for name, weights in (("plain", {}), ("double", {"books": {"weight": 2.0}}), ("half", {"books": {"weight": 0.5}})):
        run(corpus, tmp_path / name, sources=with_sources(corpus, **weights), short_seq_prob=0.0)
        assert verify(tmp_path / name) == []
    plain, double, half = (uses(tmp_path / name, "train") for name in ("plain", "double", "half"))
    books = {number for number in plain if number in {document_number("books", key) for key in keys_of_books(corpus)}}
    assert set(double) == set(plain)
    assert all(1.5 <= double[number] / plain[number] <= 2.5 for number in books if plain[number] > 12)
    assert all(double[number] == plain[number] for number in set(plain) - books if plain[number] == 1)
    assert 0.3 < len(books & set(half)) / len(books) < 0.7
    assert set(plain) - books == set(half) - books
    assert uses(tmp_path / "plain", "heldout") == uses(tmp_path / "double", "heldout")
    manifest = read_manifest(tmp_path / "half")
    assert manifest.documents.dropped["not_sampled"] + manifest.sources[0].num_kept == 60
    segments = {number: Counter[tuple[int, ...]]() for number in books}
    for path in (tmp_path / "double" / "seq32").glob("train-*.arrow"):
        for row in pa.ipc.open_file(str(path)).read_all().to_pylist():
            if row["document"] in books:
                segments[row["document"]][tuple(row["input_ids"][: row["segment_a_length"]])] += 1
    repeats = [all(count % 2 == 0 for count in found.values()) for found in segments.values()]
    assert sum(repeats) < len(repeats) / 4
    for a, b, is_random in text_rows(tmp_path / "double", 32, "train"):
        if is_random and len(marks(a)) == len(marks(b)) == 1:
            assert marks(a) != marks(b)


def keys_of_books(corpus):
    pieces = (corpus / "a.txt").read_bytes().split(b"\n\n")
    return [f"a.txt#{n}" for n in itertools.accumulate((len(piece) + 2 for piece in pieces), initial=0)]


def test_duplicates_are_dropped_over_the_whole_corpus(corpus, tmp_path):
    """The later one goes, across sources and partitions; near ones only where asked for."""
    texts = (corpus / "a.txt").read_text().split("\n\n")
    near = texts[4].replace(" the ", " a ", 1) + " And a word more."
    lines = [texts[3], texts[4].upper(), near, texts[5]]
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in lines))
    sources = with_sources(corpus, lines={"path": str(tmp_path / "b.jsonl")})
    dropped = {}
    for duplicates in ("keep", "exact", "near"):
        cleaning = Cleaning(min_characters=20, duplicates=duplicates, near_duplicate_threshold=0.7)
        run(corpus, tmp_path / duplicates, sources=sources, cleaning=cleaning, partition_bytes=700)
        manifest = read_manifest(tmp_path / duplicates)
        dropped[duplicates] = manifest.documents.dropped
        assert manifest.sources[0].num_kept == 60
    assert dropped == {"keep": {}, "exact": {"duplicate": 2}, "near": {"duplicate": 2, "near_duplicate": 2}}


def test_a_page_that_stands_twice_is_counted_and_used_once(tmp_path):
    text = "Some words stand here for page number {}. And more of them here."
    doc = f'<doc id="{{}}" url="u" title="T">\nT\n\n{text}\n</doc>\n'
    (tmp_path / "wiki_00").write_text("".join(doc.format(n, n) for n in range(30)))
    (tmp_path / "wiki_01").write_text("".join(doc.format(n, f"{n} again") for n in (3, 5, 40)))
    settings = settings_of(tmp_path, sources=(Source("wiki", "wikiextractor", str(tmp_path / "wiki_*")),))
    prepare(settings, Spread(300, 1), output_dir=tmp_path / "shards", if_exists="refuse")
    assert read_manifest(tmp_path / "shards").documents.dropped == {"repeated_key": 2}


def test_results_come_in_order_and_few_tasks_are_taken_ahead():
    taken = itertools.count()
    tasks = (functools.partial(abs, -number) for number in range(30) if next(taken) >= 0)
    with Pool(2) as pool:
        results = pool.run(tasks)
        assert next(results) == 0
        assert next(taken) <= 5
        assert list(results) == list(range(1, 30))


def test_a_worker_that_dies_and_a_user_error_in_one_are_told():
    with Pool(2) as pool, pytest.raises(UserError, match="a worker process that died"):
        list(pool.run([functools.partial(os._exit, 3)] * 2))
    with Pool(2) as pool, pytest.raises(UserError, match="found a; expected b; fix: c"):
        list(pool.run([functools.partial(refuse)] * 2))


def refuse():
    raise UserError(found="a", expected="b", fix="c")


def test_files_read_and_passed_over_are_counted(tmp_path, capsys):
    """Said at the start, while it is not too late, and in the summary."""
    folder = tmp_path / "corpus"
    (folder / ".cache").mkdir(parents=True)
    rng = random.Random(2)
    for name in ("a.txt", "b.txt", "c.txt.gz~", ".cache/a.txt", "README.md"):
        (folder / name).write_text("\n\n".join(" ".join(sentence(rng) for _ in range(9)) for _ in range(9)))
    settings = replace(settings_of(tmp_path), sources=(Source("books", "text", str(folder), max_documents=9),))
    passed_over = "1 backup or unfinished (c.txt.gz~), 1 hidden (.cache/), 1 readme, license or mark (README.md)"
    for max_documents, num_read in ((None, 2), (9, 1)):  # b.txt lies after the limit
        source = replace(settings.sources[0], max_documents=max_documents)
        prepare(
            replace(settings, sources=(source,)),
            Spread(100, 1),
            output_dir=tmp_path / f"{num_read}",
            if_exists="refuse",
        )
        out = capsys.readouterr().out
        assert out.startswith(f"passed over: books: {passed_over}\n")
        assert f"\n  files read         {num_read}\n  files passed over  books: {passed_over}\n" in out
