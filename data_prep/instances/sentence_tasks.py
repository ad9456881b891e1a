"""Token ids -> the instances of one length (station 3), for each of the three sentence tasks.

next_sentence   pairs as in BERT: Devlin et al. 2019, section 3.1 and appendix A.2; google-research/bert,
                create_pretraining_data.py
sentence_order  pairs as in ALBERT: Lan et al. 2020, section 3.1: B follows A, or the two are swapped
none            full sentences as in RoBERTa: Liu et al. 2019, section 4.2

A segment is always a run of neighbouring sentences, and cutting it from its front or back leaves neighbours. So it is a
span of its group's token store, an instance is a few integers, and the tokens are copied once, into the shard.
"""

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from bert_lamb.shards.manifest import NEXT_SENTENCE, NO_SENTENCE_TASK, SENTENCE_ORDER
from bert_lamb.shards.schema import Columns, offsets_of

NUM_SPECIAL_TOKENS_OF_PAIR = 3  # [CLS] A [SEP] B [SEP]
NUM_SPECIAL_TOKENS_OF_RUN = 2  # [CLS] sentences [SEP]


@dataclass(frozen=True)
class TokenizedDocument:
    """A document inside the token store of its group."""

    key: str  # what its randomness hangs on
    number: int  # uint64, see partition.document_number
    sentence_offsets: Sequence[int]  # [sentences + 1] places in the store; no sentence is empty
    is_piece: bytes = b""  # [sentences] 1: a word of a sentence that was cut; empty where none was

    @property
    def num_sentences(self) -> int:
        return len(self.sentence_offsets) - 1


class Instance(NamedTuple):
    """Segments A and B as spans of the token store, the document that A (or the run) begins in, and the label.

    Without a sentence task B is empty, and the span of A may reach over the ends of documents.
    """

    start_a: int
    stop_a: int
    start_b: int
    stop_b: int
    document: int  # index in the group
    label: bool  # B is not what follows A: it is from another document, or the two are swapped


@dataclass(frozen=True)
class InstanceSettings:
    """How instances are made. max_seq_length: tokens, the special ones included."""

    sentence_task: str
    max_seq_length: int
    short_seq_prob: float
    random_next_prob: float
    seed: int

    @property
    def max_num_tokens(self) -> int:
        """Without the special ones."""
        is_pair = self.sentence_task != NO_SENTENCE_TASK
        return self.max_seq_length - (NUM_SPECIAL_TOKENS_OF_PAIR if is_pair else NUM_SPECIAL_TOKENS_OF_RUN)

    @property
    def max_sentence_tokens(self) -> int:
        """The longest sentence that an instance can hold whole; in a pair there is another token beside it."""
        return self.max_num_tokens - (self.sentence_task != NO_SENTENCE_TASK)

    def rng_of(self, key: str) -> random.Random:
        return random.Random(f"{self.seed}/{self.max_seq_length}/{key}")


def make_instances(documents: Sequence[TokenizedDocument], settings: InstanceSettings) -> list[Instance]:
    """The instances of a group's documents, in order; partners for random pairs come from the same group.

    documents: lie end to end in the token store; sentences that no instance can hold are cut already
    (long_sentences.py). Each document draws from its own generator, keyed by (seed, length, document key): how often
    one document draws never shifts the draws of another.
    """
    if settings.sentence_task == NO_SENTENCE_TASK:
        return runs_of_group(documents, settings)
    of_document = PAIRS[settings.sentence_task]
    return [instance for index in range(len(documents)) for instance in of_document(documents, index, settings)]


def next_sentence_pairs(
    documents: Sequence[TokenizedDocument], index: int, settings: InstanceSettings
) -> list[Instance]:
    """The pairs whose A comes from documents[index].

    Sentences are gathered until the target length is reached or the document ends, then cut into A and B at a random
    sentence. For a random pair B is replaced and the sentences after A are put back to be used again. A gathering of
    one sentence has no B of its own, so it is always a random pair; this lifts their share above random_next_prob.

    Where `documents` holds no other document, no pair is random, and a gathering of one sentence makes no pair.
    """
    offsets, num_sentences = documents[index].sentence_offsets, documents[index].num_sentences
    max_num_tokens = settings.max_num_tokens
    rng = settings.rng_of(documents[index].key)
    target = draw_target(rng, settings.short_seq_prob, max_num_tokens)
    pairs = []
    first = 0  # sentence that the gathering begins with
    while first < num_sentences:
        stop = bisect_left(offsets, offsets[first] + target, first + 1, num_sentences)
        stop = _without_piece_too_many(documents[index], first, stop, max_num_tokens, min_sentences=2)
        stop_a = first + 1 + _below(rng, stop - first - 1) if stop - first > 1 else stop
        span_a = offsets[first], offsets[stop_a]
        is_alone = stop_a == stop
        is_random_next = (is_alone or rng.random() < settings.random_next_prob) and len(documents) > 1
        if is_random_next:
            length_a = span_a[1] - span_a[0]
            span_b = _random_span(documents, index, target - length_a, max_num_tokens - length_a, rng)
            first = stop_a
        else:
            span_b = offsets[stop_a], offsets[stop]
            first = stop
        if not is_alone or is_random_next:
            pairs.append(Instance(*truncate_pair(span_a, span_b, max_num_tokens, rng), index, is_random_next))
    return pairs


def sentence_order_pairs(
    documents: Sequence[TokenizedDocument], index: int, settings: InstanceSettings
) -> list[Instance]:
    """The pairs of documents[index]: neighbouring segments of it, swapped in half of the cases.

    Gathered and cut as for next_sentence, but always from two sentences or more; a last sentence that would stand alone
    makes no pair. (ALBERT's code gives such a sentence a random B and the label of a swap, which teaches the topic.)
    """
    offsets, num_sentences = documents[index].sentence_offsets, documents[index].num_sentences
    max_num_tokens = settings.max_num_tokens
    rng = settings.rng_of(documents[index].key)
    target = draw_target(rng, settings.short_seq_prob, max_num_tokens)
    pairs = []
    first = 0
    while first < num_sentences - 1:
        stop = max(first + 2, bisect_left(offsets, offsets[first] + target, first + 1, num_sentences))
        stop = _without_piece_too_many(documents[index], first, stop, max_num_tokens, min_sentences=2)
        middle = first + 1 + _below(rng, stop - first - 1)
        start_a, stop_a, start_b, stop_b = truncate_pair(
            (offsets[first], offsets[middle]), (offsets[middle], offsets[stop]), max_num_tokens, rng
        )
        is_swapped = rng.random() < 0.5
        spans = (start_b, stop_b, start_a, stop_a) if is_swapped else (start_a, stop_a, start_b, stop_b)
        pairs.append(Instance(*spans, index, is_swapped))
        first = stop
    return pairs


def runs_of_group(documents: Sequence[TokenizedDocument], settings: InstanceSettings) -> list[Instance]:
    """Runs of whole sentences, as many as fit, over the ends of documents, each of which takes a [SEP] more.

    A sentence longer than an instance is cut, so every token of the group is in exactly one instance. short_seq_prob is
    drawn for each instance, from a generator keyed by the group's first document.
    """
    max_num_tokens = settings.max_num_tokens
    rng = settings.rng_of(documents[0].key)
    runs: list[Instance] = []
    target = draw_target(rng, settings.short_seq_prob, max_num_tokens)
    start, document_of_start, num_used = documents[0].sentence_offsets[0], 0, 0  # num_used: separators included

    def close(stop: int, document: int) -> None:
        nonlocal start, document_of_start, num_used, target
        runs.append(Instance(start, stop, stop, stop, document_of_start, False))
        start, document_of_start, num_used = stop, document, 0
        target = draw_target(rng, settings.short_seq_prob, max_num_tokens)

    for index, document in enumerate(documents):
        offsets = document.sentence_offsets
        for number in range(document.num_sentences):
            begin, end = offsets[number], offsets[number + 1]
            is_behind_end = number == 0 and num_used > 0  # of another document: a separator stands between
            if num_used and num_used + is_behind_end + end - begin > target:
                close(begin, index)
                is_behind_end = False
            while end - max(begin, start) > target and not num_used:
                close(start + target, index)
            num_used += is_behind_end + end - max(begin, start)
    if num_used:
        close(documents[-1].sentence_offsets[-1], len(documents) - 1)
    return runs


PAIRS: dict[str, Callable[[Sequence[TokenizedDocument], int, InstanceSettings], list[Instance]]] = {
    NEXT_SENTENCE: next_sentence_pairs,
    SENTENCE_ORDER: sentence_order_pairs,
}


def draw_target(rng: random.Random, short_seq_prob: float, max_num_tokens: int) -> int:
    """The length to gather: the full one, or in a share of the cases a random shorter one."""
    if rng.random() < short_seq_prob:
        return 2 + _below(rng, max_num_tokens - 1)
    return max_num_tokens


def _below(rng: random.Random, bound: int) -> int:
    """A random integer in 0..bound-1: random.randrange, five times as fast, with a bias below 2^-50."""
    return int(rng.random() * bound)


def _random_span(
    documents: Sequence[TokenizedDocument], index: int, wanted_tokens: int, room: int, rng: random.Random
) -> tuple[int, int]:
    """Sentences of another document, from a random one on until there are wanted_tokens or the document ends."""
    other = _below(rng, len(documents) - 1)
    document = documents[other + (other >= index)]
    offsets = document.sentence_offsets
    first = _below(rng, len(offsets) - 1)
    stop = bisect_left(offsets, offsets[first] + wanted_tokens, first + 1, len(offsets) - 1)
    stop = _without_piece_too_many(document, first, stop, room, min_sentences=1)
    return offsets[first], offsets[stop]


def _without_piece_too_many(
    document: TokenizedDocument, first: int, stop: int, room: int, *, min_sentences: int
) -> int:
    """Where sentences first..stop end if a word of a cut sentence that does not fit any more is left for the next."""
    if not document.is_piece or not document.is_piece[stop - 1] or stop - first <= min_sentences:
        return stop
    return stop - (document.sentence_offsets[stop] - document.sentence_offsets[first] > room)


def truncate_pair(
    span_a: tuple[int, int], span_b: tuple[int, int], max_num_tokens: int, rng: random.Random
) -> tuple[int, int, int, int]:
    """Cut the pair to max_num_tokens: token by token from the longer segment, each from its front or back at random.

    The original's loop in closed form. The longer one shrinks until both are equal, then they take turns, B first; and
    the number of fronts among k fair coins is the number of ones among k random bits.
    """
    length_a, length_b = span_a[1] - span_a[0], span_b[1] - span_b[0]
    if length_a + length_b <= max_num_tokens:
        return (*span_a, *span_b)
    kept_a = min(length_a, max(max_num_tokens - length_b, (max_num_tokens + 1) // 2))
    kept_b = max_num_tokens - kept_a
    cut_front_a = rng.getrandbits(length_a - kept_a).bit_count()
    cut_front_b = rng.getrandbits(length_b - kept_b).bit_count()
    start_a, start_b = span_a[0] + cut_front_a, span_b[0] + cut_front_b
    return start_a, start_a + kept_a, start_b, start_b + kept_b


def as_array(instances: Sequence[Instance]) -> np.ndarray:
    """[N, 6] int64, the fields of Instance."""
    num_fields = len(Instance._fields)
    numbers = np.fromiter(chain.from_iterable(instances), np.int64, num_fields * len(instances))
    return numbers.reshape(-1, num_fields)


def assemble(
    instances: np.ndarray, documents: Sequence[TokenizedDocument], token_store: np.ndarray, *, cls_id: int, sep_id: int
) -> Columns:
    """Copy spans out of the token store as `[CLS] A [SEP] B [SEP]`, or `[CLS] run [SEP]`, in the columns of a shard.

    instances: [N, 6] int64, the fields of Instance. token_store: [tokens of the group] ids without special tokens, in
    the dtype of the shards.
    """
    cls, sep = np.array([cls_id], token_store.dtype), np.array([sep_id], token_store.dtype)
    ends = [document.sentence_offsets[-1] for document in documents]
    pieces: list[np.ndarray] = []
    num_separators = np.ones(len(instances), np.int64)
    for number, (start_a, stop_a, start_b, stop_b, document, _) in enumerate(instances.tolist()):
        pieces.append(cls)
        if start_b < stop_b:
            pieces += (token_store[start_a:stop_a], sep, token_store[start_b:stop_b], sep)
            continue
        while ends[document] < stop_a:
            pieces += (token_store[start_a : ends[document]], sep)
            start_a = ends[document]
            document += 1
            num_separators[number] += 1
        pieces += (token_store[start_a:stop_a], sep)
    lengths_a = instances[:, 1] - instances[:, 0] + 1 + num_separators  # [CLS] and the [SEP] of this segment included
    lengths_b = instances[:, 3] - instances[:, 2]
    lengths = lengths_a + np.where(lengths_b > 0, lengths_b + 1, 0)
    numbers = np.array([document.number for document in documents], np.uint64)
    return Columns(
        input_ids=np.concatenate(pieces) if pieces else token_store[:0],
        offsets=offsets_of(lengths),
        segment_a_lengths=lengths_a.astype(np.uint16),
        sentence_labels=instances[:, 5].astype(np.bool_),
        documents=numbers[instances[:, 4]],
    )
