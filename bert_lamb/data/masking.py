"""Dynamic masking: which tokens are predicted and what replaces them, keyed by (seed, epoch, instance).

Source: Devlin et al. 2019, section 3.1 and appendix A.1: 15 % of the tokens are predicted; of those 80 % become
[MASK], 10 % a random token, 10 % stay. [CLS], [SEP] and padding are never chosen.
Letters: B sequences, S tokens, W words of the sequence that has most.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_lamb.sampling.keyed_random import fold, random_bits, to_unit

Bools = NDArray[np.bool_]

_CHOICE, _REPLACEMENT = 0, 1  # independent streams of one key
_COLUMN_BITS = np.uint64(0xFFFF)  # shards hold at most 65,535 tokens a row
_LOWER_HALF = np.uint64(0xFFFF_FFFF)
_LAST = np.uint64(0xFFFF_FFFF_FFFF_FFFF)  # behind every token: of what must not be chosen
_TOO_FEW = "a sequence has fewer ordinary tokens than predictions"


@dataclass(frozen=True)
class MaskingRule:
    """The numbers of masked-LM corruption. masking_copies N: masks repeat every N epochs; 0: never."""

    mask_prob: float
    mask_token_prob: float
    random_token_prob: float
    masking_copies: int
    max_predictions_per_seq: int
    vocab_size: int
    mask_token_id: int
    special_token_ids: tuple[int, ...]  # never predicted: [CLS] and [SEP]; padding is known by the length
    is_continuation: Bools | None = None  # [vocab_size], see `continuations`: whole words are masked; None: tokens


@dataclass(frozen=True)
class MaskingRate:
    """The share of tokens predicted in a phase's global batches: on a straight line from `first` towards `last`.

    Global batch 1 has `first`; `last` would be that of the batch after num_steps, where the next phase's line begins,
    and holds for all batches from there on.
    """

    first: float
    last: float
    num_steps: int

    def of(self, number: int) -> float:
        """The share of global batch `number`, 1 for the first."""
        progress = min(number - 1, self.num_steps) / self.num_steps
        return self.first + (self.last - self.first) * progress


def continuations(vocabulary: Path) -> Bools:
    """[vocab_size] whether an entry of a WordPiece vocabulary (one a line) continues a word: those that begin with ##.

    Whole-word masking needs no more than this, so shards have no column for it.
    """
    entries = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return np.array([entry.startswith("##") for entry in entries])


def num_predictions(
    lengths: NDArray[np.integer], *, mask_prob: float | NDArray[np.float64], max_predictions_per_seq: int
) -> NDArray[np.int64]:
    """How many tokens are predicted in sequences of these lengths (special tokens counted in), as in Google's code.

    min(max_predictions_per_seq, max(1, round(length x mask_prob))): known before any token is looked at, which is
    what lets every rank normalize by the count of the whole global batch.
    """
    rounded = np.rint(lengths.astype(np.float64) * mask_prob).astype(np.int64)
    return np.minimum(max_predictions_per_seq, np.maximum(1, rounded))


@dataclass(frozen=True)
class Masked:
    """A corrupted batch. positions index the flattened [B * S], in order; labels are the original tokens there."""

    input_ids: NDArray[Any]  # [B, S] in the dtype that was given
    positions: NDArray[np.int64]  # [M]
    labels: NDArray[Any]  # [M] in the dtype that was given


def mask_batch(
    input_ids: NDArray[Any],  # [B, S] integers, padded
    lengths: NDArray[np.integer],  # [B]
    instances: NDArray[np.int64],  # [B]
    epochs: NDArray[np.int64],  # [B]
    *,
    rule: MaskingRule,
    seed: int,
    mask_probs: NDArray[np.float64] | None = None,  # [B]; None: rule.mask_prob for each
) -> Masked:
    """Corrupt a batch; the outcome for an instance does not depend on what it is batched or padded with.

    Exactly `num_predictions` tokens of each sequence are predicted: those with the smallest random numbers, or with
    whole words those of the words that come first in a random order.
    """
    num_sequences, max_length = input_ids.shape
    copies = epochs % rule.masking_copies if rule.masking_copies else epochs
    keys = fold(seed, copies.astype(np.uint64), instances.astype(np.uint64))  # [B]
    mask_prob = rule.mask_prob if mask_probs is None else mask_probs
    counts = num_predictions(lengths, mask_prob=mask_prob, max_predictions_per_seq=rule.max_predictions_per_seq)
    columns = np.arange(max_length, dtype=np.uint64)

    is_candidate = np.arange(max_length, dtype=np.uint16) < lengths[:, None].astype(np.uint16)
    for special in rule.special_token_ids:
        is_candidate &= input_ids != special
    # The column in the lowest bits makes all numbers of a sequence different.
    order = random_bits(fold(keys, _CHOICE)[:, None], columns)
    order &= ~_COLUMN_BITS
    order |= columns
    if rule.is_continuation is None:
        is_chosen = _first_tokens(order, is_candidate, counts)
    else:
        is_chosen = _first_words(order, is_candidate, counts, rule.is_continuation[input_ids])

    positions = np.flatnonzero(is_chosen)
    rows = np.repeat(np.arange(num_sequences), counts)
    labels = input_ids.ravel()[positions]
    bits = random_bits(fold(keys, _REPLACEMENT)[rows], columns[positions - rows * max_length])
    actions = to_unit(bits)  # from the upper 24 bits; the lower 32 choose the random token
    random_tokens = ((bits & _LOWER_HALF) * np.uint64(rule.vocab_size)) >> np.uint64(32)
    shown = np.where(
        actions < rule.mask_token_prob + rule.random_token_prob, random_tokens.astype(labels.dtype), labels
    )
    shown[actions < rule.mask_token_prob] = rule.mask_token_id
    corrupted = input_ids.copy()
    corrupted.ravel()[positions] = shown
    return Masked(corrupted, positions, labels)


def _first_tokens(order: NDArray[np.uint64], is_candidate: Bools, counts: NDArray[np.int64]) -> Bools:
    """[B, S] the candidates with the smallest numbers, `counts` of each row."""
    np.copyto(order, _LAST, where=~is_candidate)
    most = int(counts.max(initial=1))
    smallest = np.sort(np.partition(order, most - 1, axis=1)[:, :most], axis=1)
    largest_chosen = np.take_along_axis(smallest, counts[:, None] - 1, axis=1)  # [B, 1]
    if (largest_chosen == _LAST).any():
        raise ValueError(_TOO_FEW)
    return order <= largest_chosen


def _first_words(
    order: NDArray[np.uint64], is_candidate: Bools, counts: NDArray[np.int64], is_continuation: Bools
) -> Bools:
    """[B, S] the tokens of words in random order, `counts` of each row; the number of a word is its first token's.

    A word is a candidate and the continuations behind it; pieces that begin a row or follow a special token in
    mid-word are a word of their own. A word that has more pieces than are still to be chosen is passed over. Where all
    that are left have more, the first that was passed over gives its first pieces, so that the count is kept.
    Source: do_whole_word_mask in create_pretraining_data.py of google-research/bert, which stops short of the count.
    """
    num_sequences, max_length = order.shape
    is_joined = np.zeros(num_sequences * max_length + 1, dtype=np.bool_)  # to the token before it; the last is no token
    of_rows = is_joined[:-1].reshape(num_sequences, max_length)
    np.logical_and(is_candidate[:, 1:], is_candidate[:, :-1], out=of_rows[:, 1:])
    of_rows[:, 1:] &= is_continuation[:, 1:]
    np.copyto(order, _LAST, where=~is_candidate | of_rows)

    # No row takes more words than tokens, so the first `most` words are all that is looked at, but for few rows.
    most = int(counts.max(initial=1))
    order = np.partition(order, most - 1, axis=1)
    starts, sizes = _words(np.sort(order[:, :most], axis=1), np.arange(num_sequences), is_joined, max_length)
    taken = np.where(np.cumsum(sizes, axis=1) <= counts[:, None], sizes, 0)  # pieces, up to the first that does not fit
    is_chosen = np.zeros(num_sequences * max_length, dtype=np.bool_)
    _choose(is_chosen, starts, taken)
    missing = counts - taken.sum(axis=1)
    short = np.flatnonzero(missing)
    if len(short):
        starts, sizes = _words(np.sort(order[short], axis=1), short, is_joined, max_length)
        _choose(is_chosen, starts, _fill_up(sizes, counts[short]))
    return is_chosen.reshape(num_sequences, max_length)


def _words(
    order: NDArray[np.uint64],  # [b, W] of first tokens, ascending; _LAST: of no word
    rows: NDArray[np.int64],  # [b] of the batch
    is_joined: Bools,  # [B * S + 1]
    max_length: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """([b, W] first tokens in the flattened batch, [b, W] pieces of each word; 0: no word)."""
    is_word = order != _LAST
    starts = (order & _COLUMN_BITS).astype(np.int64) + (rows * max_length)[:, None]
    sizes = is_word.astype(np.int64)
    growing = np.flatnonzero(is_word)  # words that may have a further piece
    flat_starts, flat_sizes = starts.ravel(), sizes.ravel()
    while len(growing):
        growing = growing[is_joined[flat_starts[growing] + flat_sizes[growing]]]
        flat_sizes[growing] += 1
    return starts, sizes


def _choose(is_chosen: Bools, starts: NDArray[np.int64], taken: NDArray[np.int64]) -> None:
    """Mark the first `taken` pieces of the words."""
    is_taken = taken > 0
    num_pieces = taken[is_taken]
    before = np.cumsum(num_pieces) - num_pieces
    is_chosen[np.repeat(starts[is_taken] - before, num_pieces) + np.arange(num_pieces.sum())] = True


def _fill_up(sizes: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """[b, W] pieces taken of words in order, of whose pieces (sizes) `counts` are wanted; of one a part if need be.

    One word at a time is found in all rows after those up to the first that does not fit.
    """
    rows = np.arange(len(sizes))
    taken = np.where(np.cumsum(sizes, axis=1) <= counts[:, None], sizes, 0)
    missing = counts - taken.sum(axis=1)
    is_open = (taken == 0) & (sizes > 0)
    passed_over = is_open.argmax(axis=1)  # the first word that does not fit
    if not is_open[rows, passed_over].all():
        raise ValueError(_TOO_FEW)
    while True:
        is_open &= sizes <= missing[:, None]
        places = is_open.argmax(axis=1)
        is_found = is_open[rows, places]
        if not is_found.any():
            break
        pieces = np.where(is_found, sizes[rows, places], 0)
        taken[rows, places] += pieces
        missing -= pieces
        is_open[rows, places] = False
    taken[rows, passed_over] += missing
    return taken
