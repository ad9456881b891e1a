"""Masking against the numbers of the paper (15 %, 80/10/10) and against the rules it must keep.

Breaks that turn this file red: predicting [SEP], a count that looks at the padding, keys without the epoch or the
instance.
"""

from dataclasses import replace

import numpy as np
import pytest

from bert_lamb.data.masking import MaskingRule, mask_batch, num_predictions

CLS, SEP, MASK, VOCAB = 2, 3, 4, 1000
RULE = MaskingRule(
    mask_prob=0.15,
    mask_token_prob=0.8,
    random_token_prob=0.1,
    masking_copies=0,
    max_predictions_per_seq=20,
    vocab_size=VOCAB,
    mask_token_id=MASK,
    special_token_ids=(CLS, SEP),
)


def make_batch(num_sequences=400, max_length=128, seed=0):
    random = np.random.default_rng(seed)
    lengths = random.integers(8, max_length + 1, num_sequences)
    ids = random.integers(5, VOCAB, (num_sequences, max_length))
    columns = np.arange(max_length)
    ids[:, 0] = CLS
    ids[np.arange(num_sequences), lengths // 2] = SEP
    ids[np.arange(num_sequences), lengths - 1] = SEP
    ids[columns >= lengths[:, None]] = 0
    return ids, lengths


def mask(ids, lengths, *, rule=RULE, seed=1, epoch=0, first=0):
    instances = np.arange(first, first + len(ids))
    return mask_batch(ids, lengths, instances, np.full(len(ids), epoch), rule=rule, seed=seed)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(128, 19), (100, 15), (10, 2), (9, 1), (5, 1), (512, 20)],  # round(0.15 n), at least 1, at most 20
)
def test_counts_by_hand(length, expected):
    assert num_predictions(np.array([length]), mask_prob=0.15, max_predictions_per_seq=20).tolist() == [expected]


def test_exactly_the_announced_number_of_ordinary_tokens_is_predicted():
    ids, lengths = make_batch()
    masked = mask(ids, lengths)
    rows, columns = np.divmod(masked.positions, ids.shape[1])
    announced = num_predictions(lengths, mask_prob=0.15, max_predictions_per_seq=20)
    assert np.bincount(rows, minlength=len(ids)).tolist() == announced.tolist()
    assert not np.isin(ids[rows, columns], (CLS, SEP)).any()
    assert (columns < lengths[rows]).all()
    assert (masked.labels == ids[rows, columns]).all()
    assert (np.diff(masked.positions) > 0).all()
    untouched = np.ones(ids.size, bool)
    untouched[masked.positions] = False
    assert (masked.input_ids.ravel()[untouched] == ids.ravel()[untouched]).all()


def test_eighty_ten_ten():
    """Over about 25,000 predictions each share stays within five standard deviations."""
    ids, lengths = make_batch(2000)
    masked = mask(ids, lengths)
    shown = masked.input_ids.ravel()[masked.positions]
    total = len(shown)
    shares = {
        0.8: (shown == MASK).mean(),
        0.1: ((shown == masked.labels) & (shown != MASK)).mean() - 0.1 / VOCAB,
    }
    for expected, found in shares.items():
        assert abs(found - expected) < 5 * (expected * (1 - expected) / total) ** 0.5
    replaced = shown[(shown != MASK) & (shown != masked.labels)]
    counts, _ = np.histogram(replaced, bins=10, range=(0, VOCAB))
    assert (np.abs(counts - len(replaced) / 10) < 5 * (len(replaced) / 10) ** 0.5).all()


def test_every_position_is_equally_likely():
    ids = np.full((4000, 40), 7)
    ids[:, 0], ids[:, -1] = CLS, SEP
    masked = mask(ids, np.full(4000, 40))
    per_column = np.bincount(masked.positions % 40, minlength=40)
    expected = 4000 * 6 / 38
    assert per_column[0] == per_column[-1] == 0
    assert (np.abs(per_column[1:-1] - expected) < 5 * expected**0.5).all()


def test_an_instance_is_masked_alike_in_any_company():
    """Alone, in a batch, padded further: the same tokens are predicted, shown and labelled."""
    ids, lengths = make_batch(20)
    together = mask(ids, lengths)
    wide = np.pad(ids, ((0, 0), (0, 32)))
    padded = mask(wide, lengths)
    for row in (0, 7, 19):
        alone = mask(ids[row : row + 1], lengths[row : row + 1], first=row)
        assert alone.input_ids[0].tolist() == together.input_ids[row].tolist()
        assert padded.input_ids[row, : ids.shape[1]].tolist() == together.input_ids[row].tolist()


def test_masks_depend_on_seed_epoch_and_instance():
    ids, lengths = make_batch(50)
    base = mask(ids, lengths)
    for other in (mask(ids, lengths, seed=2), mask(ids, lengths, epoch=1), mask(ids, lengths, first=1)):
        assert (other.input_ids != base.input_ids).any(axis=1).mean() > 0.9
    assert (mask(ids, lengths).input_ids == base.input_ids).all()


def test_masking_copies_repeat_every_n_epochs():
    """N static copies: epochs 0..N-1 differ, epoch N is epoch 0 again."""
    ids, lengths = make_batch(50)
    rule = replace(RULE, masking_copies=3)
    epochs = [mask(ids, lengths, rule=rule, epoch=epoch).input_ids for epoch in range(4)]
    assert (epochs[0] == epochs[3]).all()
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[1] != epochs[2]).any()
