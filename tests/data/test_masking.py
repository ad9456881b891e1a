"""Masking against the numbers of the paper (15 %, 80/10/10) and against the rules it must keep.

Whole words against a loop in plain Python over the same random numbers.

Breaks that turn this file red: predicting [SEP], a count that looks at the padding, keys without the epoch or the
instance; of words: one that runs on behind [SEP] or into the next row, a stop at the first that does not fit, a later
one that is too long, the part taken from another word than the first passed over.
"""

from dataclasses import replace

import numpy as np
import pytest

from bert_lamb.data.masking import MaskingRule, continuations, mask_batch, num_predictions
from bert_lamb.sampling.keyed_random import fold, random_bits

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


@pytest.mark.parametrize("rule_name", ["RULE", "WHOLE"])
def test_eighty_ten_ten(rule_name):
    """Over about 25,000 predictions each share stays within five standard deviations."""
    ids, lengths = make_batch(2000)
    masked = mask(ids, lengths, rule=globals()[rule_name])
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


IS_CONTINUATION = np.zeros(VOCAB, bool)
IS_CONTINUATION[600:] = True
WHOLE = replace(RULE, is_continuation=IS_CONTINUATION)


def words_of(ids):
    """The words of a row without padding, as lists of columns."""
    words = []
    for column, token in enumerate(ids):
        if token in (CLS, SEP):
            continue
        if IS_CONTINUATION[token] and words and words[-1][-1] == column - 1:
            words[-1].append(column)
        else:
            words.append([column])
    return words


def chosen_by_a_loop(ids, *, key, count):
    """(columns, number of words taken in part), as Google's create_masked_lm_predictions goes through its words."""
    bits = [int(random_bits(key, np.array([column], np.uint64))[0]) >> 16 for column in range(len(ids))]
    words = sorted(words_of(ids), key=lambda word: (bits[word[0]], word[0]))
    chosen, passed_over = [], []
    for word in words:
        if len(chosen) + len(word) <= count:
            chosen += word
        else:
            passed_over.append(word)
    missing = count - len(chosen)
    if missing:
        chosen += passed_over[0][:missing]
    return sorted(chosen), missing > 0


@pytest.mark.parametrize(
    ("max_length", "most", "share"), [(128, 20, 0.15), (40, 20, 0.5), (12, 5, 0.3), (300, 80, 0.15)]
)
def test_whole_words_are_those_of_a_plain_loop(max_length, most, share):
    """40 % of the entries continue a word, so that words are long and the last ones often do not fit."""
    ids, lengths = make_batch(300, max_length, seed=max_length)
    rule = replace(WHOLE, max_predictions_per_seq=most, mask_prob=share)
    masked = mask(ids, lengths, rule=rule)
    rows, columns = np.divmod(masked.positions, max_length)
    counts = num_predictions(lengths, mask_prob=share, max_predictions_per_seq=most)
    assert np.bincount(rows, minlength=300).tolist() == counts.tolist()
    num_cut = 0
    for row in range(300):
        key = fold(fold(1, 0, row), 0)
        expected, is_cut = chosen_by_a_loop(ids[row, : lengths[row]].tolist(), key=key, count=counts[row])
        assert columns[rows == row].tolist() == expected, row
        num_cut += is_cut
    assert num_cut > 0 or max_length > 40  # short rows try the part of a word too
    assert (masked.labels == ids[rows, columns]).all()


def test_a_word_is_seldom_cut():
    """With 15 % of the tokens continuing a word, as in text, fewer than one row in 5,000 of length 128 cuts one."""
    ids, lengths = make_batch(20_000, 128)
    is_continued = np.random.default_rng(3).random(ids.shape) < 0.15
    ids = np.where(ids < 5, ids, np.where(is_continued, 600 + ids % 400, 5 + ids % 595))
    lengths[:] = np.maximum(lengths, 64)
    ids = np.where(ids == 0, 7, ids)  # rows that were shorter
    masked = mask(ids, lengths, rule=WHOLE)
    is_chosen = np.zeros(ids.size, bool)
    is_chosen[masked.positions] = True
    is_chosen = is_chosen.reshape(ids.shape)
    is_inside = IS_CONTINUATION[ids[:, 1:]] & ~np.isin(ids[:, :-1], (CLS, SEP))
    is_inside &= np.arange(1, 128) < lengths[:, None]
    num_cut = (is_inside & (is_chosen[:, 1:] != is_chosen[:, :-1])).any(axis=1).sum()
    assert num_cut < 4


def test_whole_words_in_any_company_and_again():
    ids, lengths = make_batch(40)
    together = mask(ids, lengths, rule=WHOLE)
    padded = mask(np.pad(ids, ((0, 0), (0, 32))), lengths, rule=WHOLE)
    assert (mask(ids, lengths, rule=WHOLE).input_ids == together.input_ids).all()
    for row in range(40):
        alone = mask(ids[row : row + 1], lengths[row : row + 1], rule=WHOLE, first=row)
        assert alone.input_ids[0].tolist() == together.input_ids[row].tolist()
        assert padded.input_ids[row, : ids.shape[1]].tolist() == together.input_ids[row].tolist()
    for other in (mask(ids, lengths, rule=WHOLE, seed=2), mask(ids, lengths, rule=WHOLE, epoch=1)):
        assert (other.input_ids != together.input_ids).any(axis=1).mean() > 0.9


def test_without_continuations_words_are_tokens():
    ids, lengths = make_batch(200)
    none = replace(WHOLE, is_continuation=np.zeros(VOCAB, bool))
    assert (mask(ids, lengths, rule=none).input_ids == mask(ids, lengths).input_ids).all()


@pytest.mark.parametrize("rule", [RULE, WHOLE])
def test_too_few_ordinary_tokens_are_refused(rule):
    with pytest.raises(ValueError, match="fewer ordinary tokens"):
        mask(np.array([[CLS, SEP, 7, SEP]]), np.array([4]), rule=replace(rule, mask_prob=0.5))


def test_continuations_are_told_by_the_vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n##s\n#\n##\nword\n")
    assert continuations(tmp_path / "vocab.txt").tolist() == [False, True, False, True, False]
