"""Text between tokens and instances: long sentences are used whole, and what is in no instance is counted exactly.

The counts are compared with sets of positions, and in whole preparations with a corpus in which no word occurs twice,
so that the ids in the shards say by themselves which tokens of the text are missing.
"""

import hashlib
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_lamb.shards import read_manifest
from bert_lamb.shards.manifest import LEFT_OUT_REASONS, SENTENCE_TASKS
from bert_lamb.shards.verify import verify
from data_prep.instances.left_out import count_left_out, in_both, left_out_ranges
from data_prep.instances.long_sentences import cut_long_sentences
from data_prep.instances.sentence_tasks import InstanceSettings, as_array, make_instances
from data_prep.prepare import merge, prepare
from data_prep.settings import Cleaning, Settings, Spread
from data_prep.sources import Source
from tests.data_prep.test_instances import store_of

IS_CONTINUATION = np.arange(2000) % 3 == 0  # by id; ids of the tests' stores count up, so each third token is one
short_and_long = st.lists(
    st.lists(st.one_of(st.integers(1, 12), st.integers(30, 300)), min_size=1, max_size=5), min_size=1, max_size=5
)


def instances_of(sentence_lengths, task="next_sentence", max_seq_length=32, seed=1):
    """The documents with their long sentences cut, their store, and their instances as an array."""
    documents, store = store_of(sentence_lengths)
    of_length = InstanceSettings(task, max_seq_length, 0.1, 0.5, seed)
    cut = cut_long_sentences(
        documents, store % 2000, IS_CONTINUATION, max_sentence_tokens=of_length.max_sentence_tokens
    )
    return cut, store, as_array(make_instances(cut, of_length))


def spans_of(row):
    return [range(row[0], row[1]), range(row[2], row[3])]


@settings(deadline=None)
@given(short_and_long, st.integers(8, 64))
def test_long_sentences_are_cut_at_words(sentence_lengths, max_sentence_tokens):
    """Every old cut stays; new ones are before tokens that begin a word, unless the word itself is too long."""
    documents, store = store_of(sentence_lengths)
    cut = cut_long_sentences(documents, store % 2000, IS_CONTINUATION, max_sentence_tokens=max_sentence_tokens)
    for document, lengths, found in zip(documents, sentence_lengths, cut, strict=True):
        old, new = list(document.sentence_offsets), list(found.sentence_offsets)
        expected = set(old)
        for first, length in zip(old, lengths, strict=False):
            if length > max_sentence_tokens:
                inside = range(first, first + length)
                expected |= {place for place in inside if not IS_CONTINUATION[store[place] % 2000]}
        assert new == sorted(expected)
        assert found.key == document.key
        assert (found is document) == (max(lengths) <= max_sentence_tokens)


def test_a_word_longer_than_an_instance_is_cut_at_its_tokens():
    """And only that word: the one before it stays whole."""
    documents, store = store_of([[30]])
    is_continuation = np.zeros(100, bool)
    is_continuation[[store[1], *store[3:24], store[25]]] = True  # words of 2, 22, 2 and then one token each
    (cut,) = cut_long_sentences(documents, store, is_continuation, max_sentence_tokens=9)
    assert list(cut.sentence_offsets) == [0, *range(2, 25), 26, 27, 28, 29, 30]


def test_documents_whose_sentences_all_fit_give_the_instances_they_always_gave():
    """As they were before long sentences were cut; the longest sentence, of 60, just fits beside one token."""
    rng = random.Random(5)
    lengths = [[rng.randint(1, 60) for _ in range(rng.randint(1, 40))] for _ in range(30)]
    assert max(map(max, lengths)) == 60
    digests = {}
    for task in SENTENCE_TASKS:
        _, _, instances = instances_of(lengths, task, max_seq_length=64)
        digests[task] = len(instances), hashlib.sha256(instances.astype("<i8").tobytes()).hexdigest()[:16]
    assert digests == {
        "next_sentence": (375, "797449f0864e47b8"),
        "sentence_order": (243, "87591985699d3bbe"),
        "none": (429, "4fcb4ecdb78016e9"),
    }


@pytest.mark.parametrize("task", SENTENCE_TASKS)
@pytest.mark.parametrize("lengths", [[[20_000], [9_000]], [[30_000]], [[5, 20_000, 7], [4, 6]], [[1] * 9, [30_000]]])
def test_nearly_all_of_a_long_sentence_is_used(lengths, task):
    """Before, all but an instance of each was lost. 11: a short document that is left out as a whole."""
    for max_seq_length in (8, 32, 128, 512):
        documents, store, instances = instances_of(lengths, task, max_seq_length)
        counts = count_left_out(left_out_ranges(instances, documents, sentence_task=task))
        is_trimmed = max_seq_length == 8 or lengths[-1] == [4, 6]  # long words; short sentences as second segments
        allowed = 0 if task == "none" else 11 + 0.02 * len(store) * is_trimmed
        assert sum(counts.values()) <= allowed
        if task != "none":
            assert (instances[:, 1] > instances[:, 0]).all()
            assert (instances[:, 3] > instances[:, 2]).all()
            begins = instances[~instances[:, 5].astype(bool)][:, 0]
            assert IS_CONTINUATION[store[begins] % 2000].mean() < 0.01 or max_seq_length == 8


def test_a_long_sentence_changes_nothing_in_other_documents():
    plain = [[3] * 40, [4] * 30, [5] * 20]
    ours, others = (
        [row for row in instances_of([*plain, last], "sentence_order")[2].tolist() if row[4] < 3]
        for last in ([6] * 10, [4000])
    )
    assert len(ours) > 10
    assert ours == others


def left_out_by_sets(documents, instances, task):
    """Position -> reason, one token at a time."""
    used = {place for row in instances.tolist() for span in spans_of(row) for place in span}
    found = {}
    for index, document in enumerate(documents):
        own = [row for row in instances.tolist() if row[4] == index]
        touched = {
            place
            for row in own
            for number, span in enumerate(spans_of(row))
            if number == 0 or task == "sentence_order" or not row[5]
            for place in span
        }
        last = range(document.sentence_offsets[-2], document.sentence_offsets[-1])
        for place in range(document.sentence_offsets[0], document.sentence_offsets[-1]):
            if place not in used:
                is_last = place in last and not touched & set(last)
                found[place] = "single_sentence" if not own else "last_sentence" if is_last else "trimmed"
    return found


@settings(deadline=None)
@given(short_and_long, st.sampled_from(SENTENCE_TASKS), st.integers(8, 64), st.integers(0, 5))
def test_ranges_are_the_positions_in_no_instance(sentence_lengths, task, max_seq_length, seed):
    documents, _, instances = instances_of(sentence_lengths, task, max_seq_length, seed)
    ranges = left_out_ranges(instances, documents, sentence_task=task)
    found = {place: LEFT_OUT_REASONS[reason] for start, stop, reason in ranges.tolist() for place in range(start, stop)}
    assert found == left_out_by_sets(documents, instances, task)
    assert sum(count_left_out(ranges).values()) == len(found) == (ranges[:, 1] - ranges[:, 0]).sum()


def test_a_foreign_second_segment_says_nothing_of_its_pair_s_document():
    """Document 0 has sentences of 3 and 3 tokens; its one pair is its first and two tokens of document 1."""
    documents, _ = store_of([[3, 3], [2, 2]])
    instances = np.array([[0, 3, 6, 8, 0, 1]])
    ranges = left_out_ranges(instances, documents, sentence_task="next_sentence")
    last, single = LEFT_OUT_REASONS.index("last_sentence"), LEFT_OUT_REASONS.index("single_sentence")
    assert ranges.tolist() == [[3, 6, last], [8, 10, single]]


@st.composite
def some_ranges(draw):
    places = sorted(draw(st.sets(st.integers(0, 60), max_size=12)))
    pairs = [(first, stop, draw(st.integers(0, 2))) for first, stop in zip(places[::2], places[1::2], strict=False)]
    return np.array(pairs, np.int64).reshape(-1, 3)


@given(some_ranges(), some_ranges())
def test_what_two_lists_of_ranges_share(ranges, others):
    def places(found):
        return {place: reason for start, stop, reason in found.tolist() for place in range(start, stop)}

    ours, theirs = places(ranges), places(others)
    assert places(in_both(ranges, others)) == {place: ours[place] for place in ours if place in theirs}


# Whole preparations of a corpus in which no word occurs twice.


@pytest.fixture(scope="module")
def words_once(tmp_path_factory):
    """70 documents of all shapes, of two sources; the vocabulary has their words alone."""
    folder = tmp_path_factory.mktemp("words_once")
    rng, names = random.Random(3), (f"w{number:05d}" for number in range(10**5))

    def sentence(length):
        return " ".join(next(names) for _ in range(length))

    shapes = [[rng.randint(1, 20) for _ in range(rng.randint(1, 12))] for _ in range(60)]
    shapes += [[400], [700, 5], [5, 300, 5], [2], [3, 90], *([1] * 30 for _ in range(5))]
    rng.shuffle(shapes)
    texts = ["\n".join(map(sentence, shape)) for shape in shapes]
    (folder / "a.txt").write_text("\n\n".join(texts[:50]))
    (folder / "b.txt").write_text("\n\n".join(texts[50:]))
    words = [word for text in texts for word in text.split()]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in [*special, *words]))
    return folder


def settings_of(folder, **changes):
    sources = (
        Source("a", "text", str(folder / "a.txt")),
        Source("b", "text", str(folder / "b.txt"), weight=2.5),
    )
    defaults = Settings(
        sources=sources, vocabulary_file=folder / "vocab.txt", vocabulary_train_size=100, is_lowercase=True,
        max_seq_lengths=(16, 48), sentence_task="next_sentence", short_seq_prob=0.1, random_next_prob=0.5,
        heldout_proportion=0.2, cleaning=Cleaning(min_characters=1), group_tokens=700, instances_per_shard=40, seed=1,
    )  # fmt: skip
    return replace(defaults, **changes)


@pytest.fixture(autouse=True)
def without_card(monkeypatch):
    """The plots take a second, and depend on nothing that is tried here."""
    monkeypatch.setattr("data_prep.prepare.write_card", lambda directory, manifest: None)


@pytest.mark.parametrize("task", SENTENCE_TASKS)
def test_the_manifest_counts_the_words_that_are_in_no_instance(words_once, tmp_path, task, capsys):
    """To the token: with copies, random seconds, held-out documents, many groups and shards; in shares as in one."""
    settings = settings_of(words_once, sentence_task=task)
    prepare(settings, Spread(1000, 1), output_dir=tmp_path / "shards", if_exists="refuse")
    printed = capsys.readouterr()
    assert verify(tmp_path / "shards") == []
    manifest = read_manifest(tmp_path / "shards")
    assert [(found.max_seq_length, found.split) for found in manifest.text] == [
        (16, "train"), (16, "heldout"), (48, "train"), (48, "heldout")
    ]  # fmt: skip
    words = range(5, manifest.vocabulary.size)
    for length in (16, 48):
        present = {"train": set(), "heldout": set()}
        for path in (tmp_path / "shards" / f"seq{length}").iterdir():
            ids = pa.ipc.open_file(str(path)).read_all()["input_ids"].combine_chunks().values.to_pylist()
            present[path.name.split("-")[0]].update(number for number in ids if number in words)
        assert not present["train"] & present["heldout"]
        of_length = [found for found in manifest.text if found.max_seq_length == length]
        assert [found.num_tokens - found.num_left_out for found in of_length] == list(map(len, present.values()))
        assert sum(found.num_tokens for found in of_length) == len(words)
        counted = sum(found.num_left_out for found in of_length)
        assert (counted == 0) == (task == "none")
        share = f"{100 * counted / len(words):.1f} %" if counted else "0 %"
        assert f"text in no instance of {length}: {share} of {len(words):,} tokens" in printed.out
        lines = [line for line in printed.err.splitlines() if line.startswith("warning: of the kept text")]
        trimmed = sum(found.left_out.get("trimmed", 0) for found in of_length)
        is_warned_of = counted - trimmed > 0.02 * len(words) or trimmed > 0.2 * len(words)
        assert any(f"{share} at length {length} (" in line for line in lines) == is_warned_of
    if task == "next_sentence":
        for share in ("1/2", "0/2"):
            prepare(settings, Spread(700, 1, share=share), output_dir=tmp_path / "merged", if_exists="refuse")
        merge(settings, Spread(700, 1), output_dir=tmp_path / "merged")
        assert read_manifest(tmp_path / "merged") == manifest
