"""Token ids -> sentence pairs for one length (station 3): Google's create_instances_from_document on offsets.

Source: Devlin et al. 2019, section 3.1 and appendix A.2; google-research/bert, create_pretraining_data.py. The
algorithm only ever takes neighbouring sentences, and cutting a segment from its front or back leaves neighbours. So a
segment is a span of the partition's token store, a pair is four integers, and the tokens are copied once at the end.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bert_lamb.shards.schema import Columns, offsets_of

NUM_SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]


@dataclass(frozen=True)
class TokenizedDocument:
    """A document inside the token store of its partition."""

    key: str
    number: int  # uint64, see partition.document_number
    sentence_offsets: tuple[int, ...]  # [sentences + 1] places in the store; no sentence is empty

    @property
    def num_sentences(self) -> int:
        return len(self.sentence_offsets) - 1


class Pair(NamedTuple):
    """Segments A and B as spans of the token store, A's document, and whether B is from another one."""

    start_a: int
    stop_a: int
    start_b: int
    stop_b: int
    document: int  # number of A's document
    is_random_next: bool


def make_pairs(
    documents: Sequence[TokenizedDocument],
    *,
    max_seq_length: int,
    short_seq_prob: float,
    random_next_prob: float,
    seed: int,
) -> list[Pair]:
    """The sentence pairs of all documents in order; partners for random pairs come from the same documents.

    max_seq_length: tokens, the three special ones included. Each document draws from its own generator, keyed by
    (seed, length, document key): how often one document draws never shifts the draws of another.
    """
    pairs: list[Pair] = []
    for index, document in enumerate(documents):
        pairs += pairs_of_document(
            documents,
            index,
            max_num_tokens=max_seq_length - NUM_SPECIAL_TOKENS,
            short_seq_prob=short_seq_prob,
            random_next_prob=random_next_prob,
            rng=random.Random(f"{seed}/{max_seq_length}/{document.key}"),
        )
    return pairs


def pairs_of_document(
    documents: Sequence[TokenizedDocument],
    index: int,
    *,
    max_num_tokens: int,
    short_seq_prob: float,
    random_next_prob: float,
    rng: random.Random,
) -> list[Pair]:
    """The pairs whose A comes from documents[index].

    Sentences are gathered until the target length is reached or the document ends, then cut into A and B at a random
    sentence. For a random pair B is replaced and the sentences after A are put back to be used again. A gathering of
    one sentence has no B of its own, so it is always a random pair; this lifts their share above random_next_prob.

    Where `documents` holds no other document, no pair is random, and a gathering of one sentence makes no pair.
    """
    offsets = documents[index].sentence_offsets
    num_sentences = documents[index].num_sentences
    target = max_num_tokens
    if rng.random() < short_seq_prob:
        target = rng.randint(2, max_num_tokens)
    pairs = []
    first = 0  # sentence that the gathering begins with
    while first < num_sentences:
        stop = first + 1
        while stop < num_sentences and offsets[stop] - offsets[first] < target:
            stop += 1
        stop_a = rng.randint(first + 1, stop - 1) if stop - first > 1 else stop
        span_a = offsets[first], offsets[stop_a]
        is_alone = stop_a == stop
        is_random_next = (is_alone or rng.random() < random_next_prob) and len(documents) > 1
        if is_random_next:
            span_b = _random_span(documents, index, target - (span_a[1] - span_a[0]), rng)
            first = stop_a
        else:
            span_b = offsets[stop_a], offsets[stop]
            first = stop
        if not is_alone or is_random_next:
            spans = truncate_pair(span_a, span_b, max_num_tokens, rng)
            pairs.append(Pair(*spans, documents[index].number, is_random_next))
    return pairs


def _random_span(
    documents: Sequence[TokenizedDocument], index: int, wanted_tokens: int, rng: random.Random
) -> tuple[int, int]:
    """Sentences of another document, from a random one on until there are wanted_tokens or the document ends."""
    other = rng.randrange(len(documents) - 1)
    offsets = documents[other + (other >= index)].sentence_offsets
    first = rng.randrange(len(offsets) - 1)
    stop = first + 1
    while stop < len(offsets) - 1 and offsets[stop] - offsets[first] < wanted_tokens:
        stop += 1
    return offsets[first], offsets[stop]


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


def assemble(pairs: Sequence[Pair], token_store: np.ndarray, *, cls_id: int, sep_id: int) -> Columns:
    """Copy the spans out of the token store as `[CLS] A [SEP] B [SEP]`, in the columns of a shard.

    token_store: [tokens of the partition] ids without special tokens, in the dtype of the shards.
    """
    cls, sep = np.array([cls_id], token_store.dtype), np.array([sep_id], token_store.dtype)
    pieces = [
        piece
        for pair in pairs
        for piece in (
            cls,
            token_store[pair.start_a : pair.stop_a],
            sep,
            token_store[pair.start_b : pair.stop_b],
            sep,
        )
    ]
    lengths_a = np.array([pair.stop_a - pair.start_a for pair in pairs], np.int64)
    lengths_b = np.array([pair.stop_b - pair.start_b for pair in pairs], np.int64)
    return Columns(
        input_ids=np.concatenate(pieces) if pieces else token_store[:0],
        offsets=offsets_of(lengths_a + lengths_b + NUM_SPECIAL_TOKENS),
        segment_a_lengths=(lengths_a + 2).astype(np.uint16),
        is_random_next=np.array([pair.is_random_next for pair in pairs], np.bool_),
        documents=np.array([pair.document for pair in pairs], np.uint64),
    )
