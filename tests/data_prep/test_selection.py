"""The choice of documents and their groups, against plain loops, exact arithmetic and exact Jaccard similarities.

Mutations that must turn it red: shares compared in float64, a limit per block, a last group of one document, a
duplicate of a document that was itself left out, copies of a document in one group.
"""

import hashlib
import json
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bert_lamb.errors import UserError
from data_prep.documents import near_duplicates, store
from data_prep.documents.selection import (
    DUPLICATE,
    NEAR_DUPLICATE,
    NO_TOKENS,
    NOT_SAMPLED,
    REPEATED_KEY,
    Chosen,
    _is_below_share,
    _num_copies,
    choose,
)
from data_prep.documents.store import BlockFiles, Done, IndexRow
from data_prep.instances.cutting import CuttingSettings, open_group
from data_prep.instances.groups import _cuts, make_groups
from data_prep.plan import Partition
from data_prep.settings import Cleaning, Settings
from data_prep.sources import Source, Stretch


def settings_of(sources, **cleaning):
    return Settings(
        sources=tuple(sources), vocabulary_file=None, vocabulary_train_size=100, is_lowercase=True,
        max_seq_lengths=(32,), sentence_task="next_sentence", short_seq_prob=0.1, random_next_prob=0.5,
        heldout_proportion=0.0, cleaning=Cleaning(**cleaning), group_tokens=10, instances_per_shard=10, seed=1,
    )  # fmt: skip


def stored(folder, source_index, source, blocks):
    """A finished partition. blocks: lists of documents (number, text, tokens, outcome)."""
    stretch = Stretch(f"file{len(list(folder.iterdir()))}", "/corpus/file", 0, 1, 1, 1, is_whole=True)
    partition = Partition(source_index, source, (stretch,), 100)
    place = folder / partition.id
    place.mkdir()
    for number, documents in enumerate(blocks):
        block = BlockFiles(place, number)
        rows = [
            IndexRow(
                str(n), n, outcome, len(text), hashlib.blake2b(text.encode(), digest_size=16).digest(),
                near_duplicates.signature(text),
            )
            for n, text, _, outcome in documents
        ]  # fmt: skip
        store.write_index(block, rows)
        store.write_tokens(
            block,
            num_sentences=np.array([min(1, tokens) for _, _, tokens, _ in documents]),
            sentence_lengths=np.array([tokens for _, _, tokens, _ in documents if tokens]),
            input_ids=np.zeros(sum(tokens for _, _, tokens, _ in documents), np.uint16),
        )
    store.mark_done(place, Done(len(blocks), sum(map(len, blocks))), vocabulary=vocabulary_in(folder))
    return partition


def vocabulary_in(folder):
    file = folder / "vocab.txt"
    if not file.is_file():
        file.write_text("[PAD]\n")
    return file


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts what Linux says is mapped")
def test_a_group_does_not_keep_its_blocks_mapped(tmp_path, monkeypatch):
    """Held-out documents of a large corpus lie in thousands of blocks."""
    source = Source("a", "text", "/corpus")
    partition = stored(tmp_path, 0, source, [[(n, f"{n}", 5, "")] for n in range(40)])
    chosen = choose([partition], tmp_path, settings_of([source]), vocabulary=vocabulary_in(tmp_path))
    (group,) = make_groups(chosen, group_tokens=1000)
    read, num_mapped = store.read, []

    def read_and_count(block, part):
        num_mapped.append(Path("/proc/self/maps").read_text().count(str(tmp_path)))
        return read(block, part)

    monkeypatch.setattr(store, "read", read_and_count)
    documents, token_store = open_group(group, CuttingSettings(tmp_path, tmp_path, 100, 2, 3, np.zeros(100, bool)))
    assert (len(documents), len(token_store), len(num_mapped)) == (40, 200, 80)
    assert max(num_mapped) <= 4  # the two files of this block and of the one before


def kept(chosen):
    return chosen.number[chosen.num_copies > 0].tolist()


def test_every_reason_takes_its_own_documents(tmp_path):
    """The first reason counts; a copy of a document that was left out is the first of its kind."""
    source = Source("one", "text")
    first = [(1, "aa", 3, ""), (2, "bb", 0, ""), (3, "bb", 2, ""), (4, "cc", 0, "too_short")]
    second = [(1, "new text", 2, ""), (5, "aa", 2, ""), (6, "cc", 1, ""), (7, "cc", 1, ""), (2, "bb", 1, "")]
    partitions = [stored(tmp_path, 0, source, [first[:2], first[2:]]), stored(tmp_path, 0, source, [second])]
    chosen = choose(partitions, tmp_path, settings_of([source], duplicates="exact"), vocabulary=vocabulary_in(tmp_path))
    assert kept(chosen) == [1, 3, 6]
    assert chosen.dropped == {NO_TOKENS: 1, "too_short": 1, REPEATED_KEY: 2, DUPLICATE: 2}
    assert chosen.num_bytes_read == sum(len(text) for _, text, _, _ in first + second)
    assert (chosen.num_read(0), chosen.num_kept(source=0), chosen.num_kept(split="heldout")) == (9, 3, 0)
    chosen = choose(partitions, tmp_path, settings_of([source]), vocabulary=vocabulary_in(tmp_path))
    assert kept(chosen) == [1, 3, 5, 6, 7]
    chosen = choose(partitions, tmp_path, settings_of([source]), vocabulary=None)
    assert kept(chosen) == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7, 100, None])
def test_limits_over_blocks_and_partitions(tmp_path, limit):
    sources = [Source("one", "text", max_documents=limit), Source("two", "text")]
    documents = [(n, f"text {n}", 1, "") for n in range(1, 9)]
    partitions = [
        stored(tmp_path, 0, sources[0], [documents[:2], documents[2:3]]),
        stored(tmp_path, 0, sources[0], [documents[3:6]]),
        stored(tmp_path, 1, sources[1], [documents[6:]]),
    ]
    chosen = choose(partitions, tmp_path, settings_of(sources), vocabulary=vocabulary_in(tmp_path))
    assert kept(chosen) == [*range(1, min(limit or 6, 6) + 1), 7, 8]


def test_partitions_behind_the_limit_need_not_be_there(tmp_path):
    source = Source("one", "text", max_documents=1)
    partitions = [stored(tmp_path, 0, source, [[(n, "x", 1, "")]]) for n in (1, 2)]
    (tmp_path / partitions[1].id / "done.json").unlink()
    assert kept(choose(partitions, tmp_path, settings_of([source]), vocabulary=vocabulary_in(tmp_path))) == [1]
    (tmp_path / partitions[0].id / "done.json").unlink()
    with pytest.raises(UserError, match="no documents of the partition that begins with /corpus/file at 0"):
        choose(partitions, tmp_path, settings_of([source]), vocabulary=vocabulary_in(tmp_path))


def test_a_mark_without_its_blocks_counts_for_nothing(tmp_path):
    source = Source("one", "text")
    partition = stored(tmp_path, 0, source, [[(1, "x", 1, "")], [(2, "y", 1, "")]])
    assert store.read_done(tmp_path / partition.id) == Done(2, 2)
    (tmp_path / partition.id / "00001.tokens.arrow").unlink()
    assert store.read_done(tmp_path / partition.id) is None


@pytest.mark.parametrize(
    "name", ["00000.index.arrow", "00000.tokens.arrow", "tokens.json", "done.json", "../vocab.txt"]
)
def test_what_is_damaged_between_the_stations_is_not_trained_on(tmp_path, name):
    """A flipped bit in the files of a finished partition: on this disk, or on the way from another machine."""
    source = Source("one", "text")
    partition = stored(tmp_path, 0, source, [[(1, "x", 1, ""), (2, "y", 1, "")]])
    file = tmp_path / partition.id / name
    written = file.read_bytes()
    for at in range(0, len(written), 7):
        file.write_bytes(written[:at] + bytes([written[at] ^ 4]) + written[at + 1 :])
        try:
            chosen = choose([partition], tmp_path, settings_of([source]), vocabulary=vocabulary_in(tmp_path))
        except UserError:
            continue
        assert name == "done.json"  # of which the number of documents is the one thing that is not compared
        assert kept(chosen) == [1, 2]


@pytest.mark.parametrize(
    "change", [{"num_blocks": 1}, {"num_blocks": 10**18}, {"num_documents": -1}, {"files": []}, {"files": {}}]
)
def test_a_mark_that_is_not_as_written_counts_for_nothing(tmp_path, change):
    source = Source("one", "text")
    partition = stored(tmp_path, 0, source, [[(1, "x", 1, "")], [(2, "y", 1, "")]])
    mark = tmp_path / partition.id / "done.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | change))
    assert store.read_done(mark.parent) is None


SHARES = [0.0, 2**-64, 3 * 2**-64, 2**-53, 0.005, 0.1, 0.5, 1 - 2**-53, 1.0]


@pytest.mark.parametrize("share", SHARES)
def test_shares_agree_with_exact_fractions(share):
    bound = Fraction(share) * 2**64
    near = {int(bound) + step for step in range(-3, 4)} | {0, 1, 2**63, 2**64 - 1}
    numbers = sorted(number for number in near if 0 <= number < 2**64)
    expected = [Fraction(number) < bound for number in numbers]
    assert _is_below_share(np.array(numbers, np.uint64), share).tolist() == expected


@given(st.integers(0, 2**64 - 1), st.floats(0, 1))
def test_shares_of_any_number(number, share):
    assert _is_below_share(np.array([number], np.uint64), share)[0] == (Fraction(number) < Fraction(share) * 2**64)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), max_size=60), st.integers(1, 50))
@example([], 5)
@example([7], 5)
@example([1, 1, 1], 1)
def test_cuts(num_tokens, group_tokens):
    """Against a plain loop."""
    cuts = _cuts(np.array(num_tokens, np.int64), group_tokens)
    expected, start, total = [], 0, 0
    for stop, count in enumerate(num_tokens, 1):
        total += count
        if total >= group_tokens and stop - start >= 2:
            expected.append((start, stop))
            start, total = stop, 0
    if start < len(num_tokens):
        expected.append((start, len(num_tokens)))
    if len(expected) > 1 and expected[-1][1] - expected[-1][0] < 2:
        expected[-2:] = [(expected[-2][0], expected[-1][1])]
    assert cuts == expected


def chosen_of(num_copies, is_heldout, num_tokens, block_sizes):
    blocks = [BlockFiles(None, number) for number in range(len(block_sizes))]
    count = len(num_copies)
    block = np.repeat(np.arange(len(block_sizes)), block_sizes)[:count].astype(np.int32)
    row = np.concatenate([np.arange(size) for size in block_sizes])[:count].astype(np.int32)
    return Chosen(
        blocks, block, row, np.arange(count, dtype=np.uint64), np.zeros(count, np.int16),
        np.array(num_tokens, np.int64), np.array(num_copies, np.int16), np.array(is_heldout, np.bool_),
        np.zeros(count, np.bool_), Counter(), 0,
    )  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 20)), max_size=40),
    st.integers(1, 40),
    st.integers(1, 7),
)
def test_groups_hold_every_use_once_and_in_order(documents, group_tokens, block_size):
    num_copies, is_heldout, num_tokens = zip(*documents, strict=True) if documents else ((), (), ())
    sizes = [block_size] * (len(documents) // block_size + 1)
    groups = make_groups(chosen_of(num_copies, is_heldout, num_tokens, sizes), group_tokens=group_tokens)
    assert [group.number for group in groups] == list(range(len(groups)))
    uses = []
    for group in groups:
        places = [block.number * block_size + row for block, rows in group.members for row in rows.tolist()]
        assert places == sorted(set(places))
        assert all(is_heldout[place] == (group.split == "heldout") for place in places)
        uses += [(group.split, group.copy, place) for place in places]
    expected = [
        (split, copy, place)
        for split in ("train", "heldout")
        for copy in range(3)
        for place in range(len(documents))
        if is_heldout[place] == (split == "heldout") and num_copies[place] > copy
    ]
    assert uses == expected
    uses_of_set = Counter((split, copy) for split, copy, _ in expected)
    for group in groups:
        assert sum(len(rows) for _, rows in group.members) >= min(2, uses_of_set[group.split, group.copy])


@pytest.mark.parametrize("weight", [0.25, 1.0, 1.5, 2.9, 3.0])
def test_the_mean_use_is_the_weight(weight):
    """Within five standard deviations of a binomial: one run in a million would fail, and the numbers are fixed."""
    numbers = np.random.default_rng(1).integers(0, 2**64, 40_000, np.uint64)
    sources = [Source("one", "text", weight=weight), Source("two", "text")]
    source_of = np.arange(len(numbers)) % 2
    copies = _num_copies(numbers, source_of, sources)
    share = weight % 1
    ours = copies[source_of == 0]
    assert abs(ours.mean() - weight) <= 5 * (share * (1 - share) / len(ours)) ** 0.5
    assert set(ours.tolist()) <= {int(weight), int(np.ceil(weight))}
    assert (copies[source_of == 1] == 1).all()
    assert (_num_copies(numbers[::-1], source_of[::-1], sources)[::-1] == copies).all()


def test_thinning_is_independent_of_the_split():
    """The weight's draw is not the split's: else a half share would hold all of the held-out documents, or none."""
    numbers = np.random.default_rng(2).integers(0, 2**64, 20_000, np.uint64)
    copies = _num_copies(numbers, np.zeros(len(numbers), np.int64), [Source("one", "text", weight=0.5)])
    is_heldout = _is_below_share(numbers, 0.1)
    assert abs(copies[is_heldout].mean() - 0.5) < 5 * (0.25 / is_heldout.sum()) ** 0.5


def test_a_source_that_is_thinned_out_counts_what_it_loses(tmp_path):
    source = Source("one", "text", weight=0.5)
    partition = stored(tmp_path, 0, source, [[(n * 2**55, f"t{n}", 1, "") for n in range(1, 200)]])
    chosen = choose([partition], tmp_path, settings_of([source]), vocabulary=vocabulary_in(tmp_path))
    assert chosen.dropped[NOT_SAMPLED] + len(kept(chosen)) == 199
    assert 60 < len(kept(chosen)) < 140


def shingles(text):
    words = text.lower().split()
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def jaccard(one, other):
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def variant(text, num_changes, rng):
    words = text.split()
    for place in rng.sample(range(len(words)), num_changes):
        words[place] = f"changed{place}"
    return " ".join(words)


def test_near_duplicates_on_both_sides_of_the_threshold():
    """128 permutations estimate a similarity J with deviation sqrt(J (1 - J) / 128), at most 0.044.

    So at threshold 0.7, 0.9 and above is 7 deviations over it (only the index may then miss a pair), and 0.4 and below
    is 6 deviations under it.
    """
    rng = random.Random(3)
    num_high = num_found = num_low = 0
    for number in range(60):
        text = " ".join(f"w{rng.randrange(10**6)}" for _ in range(400))
        other = variant(text, (0, 1, 3, 60, 120)[number % 5], rng)
        exact = jaccard(text, other)
        is_near = near_duplicates.near_duplicates(
            [near_duplicates.signature(found) for found in (text, other)], threshold=0.7
        )
        assert not is_near[0]
        if exact >= 0.9:
            num_high += 1
            num_found += is_near[1]
        elif exact <= 0.4:
            num_low += 1
            assert not is_near[1], exact
    assert num_high >= 24
    assert num_low >= 20
    assert num_found == num_high


def test_the_index_seldom_misses_what_the_signatures_tell():
    """At the default threshold, pairs whose estimate is a little above it. datasketch's own weights lose a third."""
    rng = random.Random(6)
    num_pairs = num_found = 0
    while num_pairs < 60:
        text = " ".join(f"w{rng.randrange(10**6)}" for _ in range(200))
        packed = [near_duplicates.signature(found) for found in (text, variant(text, rng.randint(2, 4), rng))]
        values = [np.frombuffer(found, "<u4") for found in packed]
        if 0.82 <= (values[0] == values[1]).mean() <= 0.88:
            num_pairs += 1
            num_found += near_duplicates.near_duplicates(packed, threshold=0.8)[1]
    assert num_found >= 57


def test_what_the_index_proposes_is_compared_with_the_threshold():
    """Pairs whose estimate is well below it; the index, which leans to proposing, proposes most of them."""
    rng = random.Random(8)
    num_pairs = 0
    while num_pairs < 30:
        text = " ".join(f"w{rng.randrange(10**6)}" for _ in range(200))
        packed = [near_duplicates.signature(found) for found in (text, variant(text, rng.randint(4, 8), rng))]
        values = [np.frombuffer(found, "<u4") for found in packed]
        if 0.65 <= (values[0] == values[1]).mean() <= 0.75:
            num_pairs += 1
            assert not near_duplicates.near_duplicates(packed, threshold=0.8)[1]


def test_estimates_are_near_the_exact_similarity():
    rng = random.Random(4)
    for num_changes in (0, 5, 20, 60):
        text = " ".join(f"w{rng.randrange(10**6)}" for _ in range(300))
        other = variant(text, num_changes, rng)
        values = [np.frombuffer(near_duplicates.signature(found), "<u4") for found in (text, other)]
        exact = jaccard(text, other)
        assert abs((values[0] == values[1]).mean() - exact) <= 5 * (exact * (1 - exact) / 128) ** 0.5 + 1e-9


def test_chains_are_cut_at_what_is_kept(tmp_path):
    """C is near B, which was left out for A; C is not near A, so it stays. Case and white space do not count."""
    a = " ".join(f"w{n}" for n in range(400))
    b = " ".join(a.split()[:340] + [f"x{n}" for n in range(60)])
    c = " ".join(b.split()[100:] + [f"y{n}" for n in range(20)])
    assert jaccard(a, b) > 0.7
    assert jaccard(a, c) < 0.5
    assert jaccard(b, c) > 0.69
    source = Source("one", "text")
    texts = [a, a.upper().replace(" ", "\n"), b, c]
    partition = stored(tmp_path, 0, source, [[(n, text, 1, "") for n, text in enumerate(texts)]])
    cleaning = {"duplicates": "near", "near_duplicate_threshold": 0.6}
    chosen = choose([partition], tmp_path, settings_of([source], **cleaning), vocabulary=vocabulary_in(tmp_path))
    assert kept(chosen) == [0, 3]
    assert chosen.dropped == {NEAR_DUPLICATE: 2}


@pytest.mark.parametrize("text", ["", "one", "one two three four", "one two three four five"])
def test_short_texts_are_one_shingle(text):
    same, other = near_duplicates.signature(text), near_duplicates.signature(text + " six seven eight nine")
    assert near_duplicates.near_duplicates([same, same, other], threshold=0.8).tolist() == [False, True, False]
    assert len(same) == 4 * near_duplicates.NUM_PERMUTATIONS
