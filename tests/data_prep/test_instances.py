"""Instances for the three sentence tasks: what BERT, ALBERT and RoBERTa promise, checked on arbitrary documents.

Mutations that must turn it red: putting no sentence back after a random pair (sentences lost), putting A back as well
(doubled), a partner from the same document, cutting always at the back, the target not kept, another layout, a swap
without its label, a label without a swap, a run that loses the rest of a cut sentence, no [SEP] between documents.
"""

import math
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_lamb.shards.manifest import SENTENCE_TASKS, Vocabulary
from bert_lamb.shards.verify import row_faults
from data_prep.instances.sentence_tasks import (
    Instance,
    InstanceSettings,
    TokenizedDocument,
    assemble,
    make_instances,
    truncate_pair,
)

CLS, SEP = 2, 3
documents_of_lengths = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=30), min_size=1, max_size=6)


def store_of(sentence_lengths):
    """A token store whose ids count up, so that every token says where it is from."""
    documents, position = [], 0
    for number, lengths in enumerate(sentence_lengths):
        offsets = [position]
        for length in lengths:
            offsets.append(offsets[-1] + length)
        position = offsets[-1]
        documents.append(TokenizedDocument(f"d{number}", number, tuple(offsets)))
    return documents, np.arange(10, 10 + position).astype(np.uint16)


def pairs_of(documents, *, task="next_sentence", max_seq_length=32, short_seq_prob=0.1, random_next_prob=0.5, seed=1):
    return make_instances(documents, InstanceSettings(task, max_seq_length, short_seq_prob, random_next_prob, seed))


def rows_of(instances, documents, store):
    return assemble(as_array(instances), documents, store, cls_id=CLS, sep_id=SEP)


def as_array(instances):
    return np.array(instances, np.int64).reshape(-1, len(Instance._fields))


@settings(deadline=None)
@given(documents_of_lengths, st.integers(8, 64), st.integers(0, 5), st.sampled_from(SENTENCE_TASKS))
def test_every_row_keeps_the_invariants_of_the_format(sentence_lengths, max_seq_length, seed, task):
    documents, store = store_of(sentence_lengths)
    instances = pairs_of(documents, task=task, max_seq_length=max_seq_length, seed=seed)
    vocabulary = Vocabulary("", "", 65_536, True, 0, 1, CLS, SEP, 4)
    assert row_faults(rows_of(instances, documents, store), max_seq_length, vocabulary, task) == []


@settings(deadline=None)
@given(
    documents_of_lengths, st.integers(8, 64), st.integers(0, 5), st.sampled_from(["next_sentence", "sentence_order"])
)
def test_layout_lengths_and_bounds_of_pairs(sentence_lengths, max_seq_length, seed, task):
    documents, store = store_of(sentence_lengths)
    pairs = pairs_of(documents, task=task, max_seq_length=max_seq_length, seed=seed)
    columns = rows_of(pairs, documents, store)
    for row, pair in enumerate(pairs):
        ids = columns.input_ids[columns.offsets[row] : columns.offsets[row + 1]].tolist()
        segment_a, segment_b = store[pair.start_a : pair.stop_a].tolist(), store[pair.start_b : pair.stop_b].tolist()
        assert ids == [CLS, *segment_a, SEP, *segment_b, SEP]
        assert columns.segment_a_lengths[row] == len(segment_a) + 2
        assert columns.documents[row] == documents[pair.document].number
        of_a, of_b = documents[pair.document], next(d for d in documents if pair.start_b < d.sentence_offsets[-1])
        assert of_a.sentence_offsets[0] <= pair.start_a < pair.stop_a <= of_a.sentence_offsets[-1]
        assert of_b.sentence_offsets[0] <= pair.start_b < pair.stop_b <= of_b.sentence_offsets[-1]
        if task == "next_sentence":
            assert (of_a.number != of_b.number) == pair.label
        else:
            assert of_a.number == of_b.number
            assert (pair.start_a > pair.start_b) == pair.label
        assert columns.sentence_labels[row] == pair.label


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(8, 40), st.floats(0, 1), st.integers(0, 5))
def test_no_sentence_is_lost_or_doubled(document_lengths, max_seq_length, random_next_prob, seed):
    """Sentences of one token are never cut, so A and the true B of all pairs are the document, laid end to end."""
    documents, _ = store_of([[1] * length for length in document_lengths])
    pairs = pairs_of(documents, max_seq_length=max_seq_length, random_next_prob=random_next_prob, seed=seed)
    for document in documents:
        used: list[int] = []
        for pair in pairs:
            if pair.document == document.number:  # the number is the index here
                used += range(pair.start_a, pair.stop_a)
                used += [] if pair.label else range(pair.start_b, pair.stop_b)
        assert used == list(range(document.sentence_offsets[0], document.sentence_offsets[-1]))


@settings(deadline=None)
@given(documents_of_lengths, st.integers(8, 64), st.integers(0, 5))
def test_true_pairs_follow_each_other(sentence_lengths, max_seq_length, seed):
    """With cutting, spans only shrink: in order, never overlapping, and a true B comes after its A."""
    documents, _ = store_of(sentence_lengths)
    position = {document.number: document.sentence_offsets[0] for document in documents}
    for pair in pairs_of(documents, max_seq_length=max_seq_length, seed=seed):
        assert position[pair.document] <= pair.start_a
        position[pair.document] = pair.stop_a
        if not pair.label:
            assert pair.stop_a <= pair.start_b
            position[pair.document] = pair.stop_b


def test_share_of_random_pairs():
    """Over 9,000 coins: five standard deviations are 0.026, the single sentences at the documents' ends included."""
    documents, _ = store_of([[1] * 120] * 500)
    pairs = pairs_of(documents, max_seq_length=11, short_seq_prob=0.0)
    assert len(pairs) > 9000
    assert sum(pair.label for pair in pairs) / len(pairs) == pytest.approx(0.5, abs=0.03)


def test_share_of_short_documents():
    """The target is drawn once for each document, as in the original; 500 coins: 3.4 standard deviations are 0.07."""
    documents, _ = store_of([[1] * 120] * 500)
    firsts: dict[int, int] = {}
    for pair in pairs_of(documents, max_seq_length=103, short_seq_prob=0.3, random_next_prob=0.0):
        firsts.setdefault(pair.document, pair.stop_a - pair.start_a + pair.stop_b - pair.start_b)
    num_short = sum(length < 100 for length in firsts.values())
    assert num_short / 500 == pytest.approx(0.3, abs=0.07)


def test_probabilities_at_their_ends():
    documents, _ = store_of([[2] * 50] * 4)
    assert all(pair.label for pair in pairs_of(documents, random_next_prob=1.0))
    of_true = pairs_of(documents, random_next_prob=0.0, short_seq_prob=0.0)
    assert not any(pair.label for pair in of_true[:-1])


def test_randomness_hangs_on_seed_key_and_length_only():
    documents, _ = store_of([[3] * 40, [4] * 30, [5] * 20])
    pairs = pairs_of(documents)
    assert pairs == pairs_of(documents)
    assert pairs != pairs_of(documents, seed=2)
    renamed = [documents[0], replace(documents[1], key="other"), documents[2]]
    for number in range(3):
        ours, others = ([p for p in found if p.document == number] for found in (pairs, pairs_of(renamed)))
        assert (ours == others) == (number != 1)


def test_a_document_alone_makes_true_pairs_only():
    documents, _ = store_of([[5] * 20])
    pairs = pairs_of(documents)
    assert pairs
    assert not any(pair.label for pair in pairs)
    assert pairs_of(store_of([[5]])[0]) == []


@settings(deadline=None)
@given(documents_of_lengths, st.integers(40, 90), st.integers(0, 5))
def test_order_pairs_are_the_document_laid_end_to_end(sentence_lengths, max_seq_length, seed):
    """Unswapped, A and B of all pairs follow each other; only a lone last sentence and what is cut are missing."""
    documents, _ = store_of(sentence_lengths)
    position = {document.number: document.sentence_offsets[0] for document in documents}
    pairs = pairs_of(documents, task="sentence_order", max_seq_length=max_seq_length, seed=seed)
    for pair in pairs:
        spans = sorted([(pair.start_a, pair.stop_a), (pair.start_b, pair.stop_b)])
        assert position[pair.document] <= spans[0][0]
        assert spans[0][1] <= spans[1][0]
        position[pair.document] = spans[1][1]
    assert {pair.document for pair in pairs} == {d.number for d in documents if d.num_sentences > 1}


def test_share_of_swapped_pairs():
    """Over 5,000 coins: five standard deviations are 0.035."""
    documents, _ = store_of([[1] * 120] * 500)
    pairs = pairs_of(documents, task="sentence_order", max_seq_length=11, short_seq_prob=0.0)
    assert len(pairs) > 5000
    assert sum(pair.label for pair in pairs) / len(pairs) == pytest.approx(0.5, abs=0.035)


@settings(deadline=None)
@given(documents_of_lengths, st.integers(8, 64), st.integers(0, 5), st.sampled_from([0.0, 0.3]))
def test_runs_hold_every_token_once_and_mark_the_ends_of_documents(sentence_lengths, max_seq_length, seed, short):
    documents, store = store_of(sentence_lengths)
    runs = pairs_of(documents, task="none", max_seq_length=max_seq_length, seed=seed, short_seq_prob=short)
    columns = rows_of(runs, documents, store)
    begins = {int(store[document.sentence_offsets[0]]) for document in documents}
    all_ids = []
    for row in range(len(runs)):
        ids = columns.input_ids[columns.offsets[row] : columns.offsets[row + 1]].tolist()
        assert ids[0] == CLS
        assert columns.segment_a_lengths[row] == len(ids)
        inner = ids[1:-1]
        # a [SEP] within stands before the first token of a document, and before every one but the run's own first
        assert {inner[i + 1] for i, token in enumerate(inner) if token == SEP} == begins & set(inner[1:])
        all_ids += [token for token in inner if token != SEP]
        first = next(d for d in documents if ids[1] < int(store[0]) + d.sentence_offsets[-1])
        assert columns.documents[row] == first.number
    assert all_ids == store.tolist()


def test_runs_are_filled_with_whole_sentences():
    """As many as fit: the next sentence would not have fitted; a sentence is cut only if it is longer than a run."""
    documents, _ = store_of([[random.Random(i).randint(1, 45) for i in range(300)]])
    offsets = documents[0].sentence_offsets
    runs = pairs_of(documents, task="none", max_seq_length=34, short_seq_prob=0.0)
    for run, after in pairwise(runs):
        if run.stop_a in offsets:
            following = offsets[offsets.index(run.stop_a) + 1] - run.start_a
            assert following > 32
            assert run.stop_a - run.start_a <= 32
        else:
            assert run.stop_a - run.start_a == 32
            assert run.start_a in offsets or after.start_a == run.stop_a


def test_a_separator_between_documents_takes_the_room_of_a_token():
    """Many documents of few sentences, none longer than a run: the same ends as plain counting gives."""
    rng = random.Random(3)
    lengths = [[rng.randint(1, 12) for _ in range(rng.randint(1, 3))] for _ in range(200)]
    documents, _ = store_of(lengths)
    ends, position, used = [], 0, 0
    for of_document in lengths:
        for number, length in enumerate(of_document):
            needed = length + (1 if number == 0 and used else 0)
            if used + needed > 30:
                ends.append(position)
                used, needed = 0, length
            used += needed
            position += length
    runs = pairs_of(documents, task="none", max_seq_length=32, short_seq_prob=0.0)
    assert [run.stop_a for run in runs] == [*ends, position]


def googles_truncation(length_a, length_b, max_num_tokens, rng):
    """truncate_seq_pair of google-research/bert, told by its four counts: front and back cuts of A and of B."""
    cuts = [0, 0, 0, 0]
    while length_a + length_b > max_num_tokens:
        is_a, is_front = length_a > length_b, rng.random() < 0.5
        cuts[(0 if is_a else 2) + (0 if is_front else 1)] += 1
        length_a, length_b = length_a - is_a, length_b - (not is_a)
    return cuts


@given(st.integers(1, 200), st.integers(1, 200), st.integers(5, 125), st.integers(0, 3))
def test_truncation_keeps_what_the_original_loop_keeps(length_a, length_b, max_num_tokens, seed):
    start_a, stop_a, start_b, stop_b = truncate_pair(
        (0, length_a), (1000, 1000 + length_b), max_num_tokens, random.Random(seed)
    )
    cuts = googles_truncation(length_a, length_b, max_num_tokens, random.Random(seed))
    assert stop_a - start_a == length_a - cuts[0] - cuts[1]
    assert stop_b - start_b == length_b - cuts[2] - cuts[3]
    assert 0 <= start_a < stop_a <= length_a
    assert 1000 <= start_b < stop_b <= 1000 + length_b


def test_truncation_is_as_random_as_the_original_loop():
    """Front cuts among 20 tokens taken away are binomial: chi-square over 4,000 draws, 6 degrees, p = 1e-4 at 27.9."""
    rng = random.Random(7)
    counts = Counter(truncate_pair((0, 40), (100, 120), 40, rng)[0] for _ in range(4000))
    bins = [range(7), range(7, 9), range(9, 10), range(10, 11), range(11, 12), range(12, 14), range(14, 21)]
    chi_square = 0.0
    for values in bins:
        expected = 4000 * sum(math.comb(20, value) for value in values) / 2**20
        chi_square += (sum(counts[value] for value in values) - expected) ** 2 / expected
    assert chi_square < 27.9
