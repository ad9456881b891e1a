"""Shares that a corpus cannot give are said: a small corpus provokes each, and an ordinary one is not warned of."""

import random
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from bert_lamb.shards import read_manifest
from bert_lamb.shards.manifest import TextRecord
from data_prep.deviations import _text_left_out
from data_prep.documents.partition import document_number
from data_prep.prepare import prepare
from data_prep.settings import Cleaning, Spread
from data_prep.sources import Source
from tests.data_prep.test_hostile_input import plain_settings

WORDS = ["river", "house", "number", "winter", "stone"]


def document(rng, num_sentences):
    return " ".join(" ".join(rng.choices(WORDS, k=rng.randint(3, 9))).capitalize() + "." for _ in range(num_sentences))


def source_of(folder, sizes, name="text", **options):
    """Documents of so many sentences."""
    rng = random.Random(name)
    (folder / f"{name}.txt").write_text("\n\n".join(document(rng, size) for size in sizes))
    return Source(name, "text", str(folder / f"{name}.txt"), **options)


def numbers_of(source):
    """The documents' numbers, by the bytes at which they begin."""
    places, position = [], 0
    with open(source.path, "rb") as stream:
        for piece in stream.read().split(b"\n\n"):
            places.append(position)
            position += len(piece) + 2
    name = source.path.rsplit("/", 1)[1]
    return [document_number(source.name, f"{name}#{place}") for place in places]


def share_of_lowest(source):
    """The heldout_proportion by which one document is held out."""
    return min(numbers_of(source)) / 2**64 * 1.000001


@pytest.fixture
def warnings_of(tmp_path, monkeypatch, capsys):
    """Prepare, and return the warnings but for that of the text left out, which test_left_out.py looks at."""
    monkeypatch.setattr("data_prep.prepare.write_card", lambda directory, manifest: None)

    def run(*sources, **changes):
        prepare(
            plain_settings(*sources, **changes),
            Spread(10**6, 1),
            output_dir=tmp_path / "shards",
            if_exists="restart",
        )
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
        return [line.removeprefix("warning: ") for line in lines if "of the kept text" not in line]

    return run


@pytest.mark.parametrize("task", ["next_sentence", "sentence_order", "none"])
def test_an_ordinary_corpus_is_not_warned_of(tmp_path, warnings_of, task):
    source = source_of(tmp_path, [12] * 200)
    assert warnings_of(source, sentence_task=task, heldout_proportion=0.1, max_seq_lengths=(64, 32)) == []
    assert warnings_of(source, sentence_task=task, random_next_prob=0.0, short_seq_prob=0.0, group_tokens=10**6) == []


def test_one_document_gives_no_random_next(tmp_path, warnings_of):
    """Two do; without a second segment there is nothing to say; and a held-out set has documents of its own."""
    one = source_of(tmp_path, [40], "one")
    (line,) = warnings_of(one, max_seq_lengths=(32, 64), short_seq_prob=0.0)
    assert line.startswith("no random next in train 32, train 64, where random_next_prob is 0.5: it has one document")
    assert warnings_of(one, random_next_prob=0.0, short_seq_prob=0.0) == []
    assert warnings_of(one, sentence_task="none") == []
    assert warnings_of(source_of(tmp_path, [40, 40], "two"), short_seq_prob=0.0) == []
    many = source_of(tmp_path, [40] * 30, "many")
    (line,) = warnings_of(many, heldout_proportion=share_of_lowest(many), short_seq_prob=0.0)
    assert line.startswith("no random next in heldout 32,")


def test_sentences_that_are_always_alone(tmp_path, warnings_of):
    (line,) = warnings_of(source_of(tmp_path, [1] * 100))
    assert line.startswith("random next is 1.000 of train 32, where random_next_prob is 0.5")


def test_held_out_text_that_is_none_or_too_much(tmp_path, warnings_of):
    source = source_of(tmp_path, [12] * 20 + [2000] + [12] * 20)
    (line,) = warnings_of(source, heldout_proportion=share_of_lowest(source) / 2)
    assert line.startswith("no document of 41 is held out, where heldout_proportion is ")
    lines = warnings_of(source, heldout_proportion=numbers_of(source)[20] / 2**64 * 1.000001)
    assert any(" % of the tokens are held out, where heldout_proportion is " in line for line in lines)
    assert not any("of the tokens are held out" in line for line in warnings_of(source, heldout_proportion=0.05))
    single = source_of(tmp_path, [1] * 40, "single")
    lines = warnings_of(single, heldout_proportion=share_of_lowest(single))
    assert "the held-out documents (1) give no instance of length 32: they are too short" in lines


def test_one_large_document_decides_whether_all_is_short(tmp_path, warnings_of):
    """The warning comes with the seeds whose instances are all short, and with no other."""
    source, seen = source_of(tmp_path, [300] + [12] * 8), set()
    for seed in range(12):
        lines = warnings_of(source, seed=seed, sentence_task="sentence_order", short_seq_prob=0.3)
        paths = (tmp_path / "shards" / "seq32").iterdir()
        rows = pa.concat_tables(pa.ipc.open_file(str(path)).read_all() for path in paths)
        large = np.array(rows["document"].to_pylist(), np.uint64) == numbers_of(source)[0]
        lengths = np.array([len(ids) for ids in rows["input_ids"].to_pylist()])
        is_short = bool(lengths[large].mean() < 29)
        assert any("instances are all short, where short_seq_prob is 0.3" in line for line in lines) == is_short
        seen.add(is_short)
    assert seen == {False, True}


def test_weights_that_do_not_come_out(tmp_path, warnings_of):
    books, lines = source_of(tmp_path, [12] * 100, "books"), source_of(tmp_path, [12] * 3, "lines", weight=0.01)
    (line,) = warnings_of(books, lines)
    assert line == "none of the 3 documents of source lines (weight 0.01) is used"
    seen = set()
    for name in "abcdefgh":
        found = warnings_of(books, source_of(tmp_path, [12] * 2, name, weight=0.4))
        num_kept = read_manifest(tmp_path / "shards").sources[1].num_kept
        expected = {
            0: [f"none of the 2 documents of source {name} (weight 0.4) is used"],
            1: [],
            2: [f"documents of source {name} are used 1.00 times on average, where its weight is 0.4: 2 are too few"],
        }[num_kept]
        assert [line.removesuffix(" for it to come out") for line in found] == expected
        seen.add(num_kept)
    assert len(seen) > 1
    assert warnings_of(books, source_of(tmp_path, [12] * 100, "enough", weight=1.5)) == []
    short = source_of(tmp_path, [1] * 5, "short")
    (line,) = warnings_of(books, short, cleaning=Cleaning(min_characters=100))
    assert line == "none of the 5 documents of source short (weight 1) is used"


@pytest.mark.parametrize(
    ("left_out", "is_warned_of"),
    [
        ({"trimmed": 200, "last_sentence": 20}, False),
        ({"trimmed": 201, "last_sentence": 0}, True),
        ({"trimmed": 0, "last_sentence": 15, "single_sentence": 6}, True),
        ({"trimmed": 0, "last_sentence": 0}, False),
    ],
)
def test_text_left_out_is_warned_of(left_out, is_warned_of):
    """20 % may be trimmed, which is BERT's procedure; of the rest 2 %."""
    record = TextRecord(max_seq_length=128, split="train", num_tokens=1000, left_out=left_out)
    lines = list(_text_left_out(SimpleNamespace(text=(record,))))
    assert len(lines) == is_warned_of
    assert all(f"{sum(left_out.values()) / 10:.1f} % at length 128 (" in line for line in lines)
