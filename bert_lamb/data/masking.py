"""Dynamic masking: which tokens are predicted and what stands in their place, keyed by (seed, epoch, instance).

Source: Devlin et al. 2019, section 3.1 and appendix A.1: 15 % of the tokens are predicted; of those 80 % become
[MASK], 10 % a random token, 10 % stay. [CLS], [SEP] and padding are never chosen.
Letters: B sequences, S tokens.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert_lamb.data.keyed_random import fold, random_bits, to_unit

_CHOICE, _ACTION, _REPLACEMENT = 0, 1, 2  # independent streams of one key


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


def num_predictions(
    lengths: NDArray[np.integer], *, mask_prob: float, max_predictions_per_seq: int
) -> NDArray[np.int64]:
    """How many tokens are predicted in sequences of these lengths (special tokens counted in), as in Google's code.

    min(max_predictions_per_seq, max(1, round(length x mask_prob))): known before any token is looked at, which is
    what lets every rank normalise by the count of the whole global batch.
    """
    rounded = np.rint(lengths.astype(np.float64) * mask_prob).astype(np.int64)
    return np.minimum(max_predictions_per_seq, np.maximum(1, rounded))


@dataclass(frozen=True)
class Masked:
    """A corrupted batch. positions index the flattened [B * S], in order; labels are the original tokens there."""

    input_ids: NDArray[np.int64]  # [B, S]
    positions: NDArray[np.int64]  # [M]
    labels: NDArray[np.int64]  # [M]


def mask_batch(
    input_ids: NDArray[np.int64],  # [B, S], padded
    lengths: NDArray[np.integer],  # [B]
    instances: NDArray[np.int64],  # [B]
    epochs: NDArray[np.int64],  # [B]
    *,
    rule: MaskingRule,
    seed: int,
) -> Masked:
    """Corrupt a batch; the outcome for an instance does not depend on what it is batched or padded with.

    The tokens with the smallest random scores are predicted, exactly `num_predictions` of them.
    """
    max_length = input_ids.shape[1]
    copies = epochs % rule.masking_copies if rule.masking_copies else epochs
    keys = fold(seed, copies.astype(np.uint64), instances.astype(np.uint64))  # [B]
    columns = np.arange(max_length, dtype=np.uint64)

    scores = to_unit(random_bits(fold(keys, _CHOICE)[:, None], columns))  # [B, S]
    is_candidate = columns < lengths[:, None].astype(np.uint64)
    for special in rule.special_token_ids:
        is_candidate &= input_ids != special
    scores[~is_candidate] = 2.0
    counts = num_predictions(lengths, mask_prob=rule.mask_prob, max_predictions_per_seq=rule.max_predictions_per_seq)
    order = np.argsort(scores, axis=1, kind="stable")
    is_chosen = np.zeros_like(is_candidate)
    np.put_along_axis(is_chosen, order, columns < counts[:, None].astype(np.uint64), axis=1)
    if not is_candidate[is_chosen].all():
        raise ValueError("a sequence has fewer ordinary tokens than predictions")

    rows, cols = np.nonzero(is_chosen)
    labels = input_ids[rows, cols]
    actions = to_unit(random_bits(fold(keys, _ACTION)[rows], cols.astype(np.uint64)))
    replacements = random_bits(fold(keys, _REPLACEMENT)[rows], cols.astype(np.uint64)) % np.uint64(rule.vocab_size)
    corrupted = input_ids.copy()
    corrupted[rows, cols] = np.select(
        [actions < rule.mask_token_prob, actions < rule.mask_token_prob + rule.random_token_prob],
        [rule.mask_token_id, replacements.astype(np.int64)],
        default=labels,
    )
    return Masked(corrupted, rows * max_length + cols, labels)
