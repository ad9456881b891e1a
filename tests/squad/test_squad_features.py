"""Windows against transformers' own overflow windows, answers against the text they were cut from.

Mutations that must turn it red: a stride counted from the window's end, offsets taken without the window's start,
max context decided by the richer side, an answer cut at the window's edge labelled as if whole, token types of the
window one off.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from squad_material import where_questions

from bert_lamb.errors import UserError
from bert_lamb.squad.examples import Answer, Example
from bert_lamb.squad.features import (
    NO_ANSWER,
    Window,
    answer_positions,
    make_features,
    make_windows,
    mark_max_context,
    pad,
)

CONTEXTS = [
    "Anna lives in Paris and Bruno lives in London, the old (and wet) one.",
    "Zoë née Müller visited a Café — “Über-Straße” — in São Paulo; it cost £2,000.",
    "東京都に住む Anna, who left 京都 in 1987.",
    "cafe\u0301 with a combining accent and a zero\u200bwidth space",
]


def test_windows_equal_those_of_transformers(tokenizer):
    """transformers counts its stride as the overlap of neighbours: window length - doc_stride."""
    question, max_seq_length, doc_stride = "Where does Anna live?", 24, 7
    num_question_tokens = len(tokenizer(question, add_special_tokens=False)["input_ids"])
    for context in CONTEXTS:
        features = make_features(
            [Example("q", question, context, ())],
            tokenizer,
            max_seq_length=max_seq_length,
            doc_stride=doc_stride,
            max_query_length=16,
        )
        expected = tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=max_seq_length,
            stride=max_seq_length - num_question_tokens - 3 - doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        assert len(features) > 1
        assert [feature.input_ids for feature in features] == expected["input_ids"]
        offsets = [row[num_question_tokens + 2 : -1] for row in expected["offset_mapping"]]
        assert [feature.offsets for feature in features] == offsets
        for feature, token_type_ids in zip(features, expected["token_type_ids"], strict=True):
            assert pad([feature], 0)["token_type_ids"][0].tolist() == token_type_ids


@pytest.mark.parametrize("max_seq_length", [20, 40, 200])
def test_every_answer_comes_back_from_its_positions(tokenizer, max_seq_length):
    """Each word of each context is asked for; every window either shows it whole or is labelled with [CLS]."""
    for context in CONTEXTS[:3]:
        start = 0
        for word in context.split():
            start = context.index(word, start)
            example = Example("q", "where", context, (Answer(word, start),))
            features = make_features(
                [example], tokenizer, max_seq_length=max_seq_length, doc_stride=3, max_query_length=5
            )
            num_shown = 0
            for feature in features:
                first, last = answer_positions(feature, example.answers[0])
                is_whole = feature.offsets[0][0] <= start and feature.offsets[-1][1] >= start + len(word)
                assert ((first, last) == NO_ANSWER) == (not is_whole)
                if is_whole:
                    num_shown += 1
                    first, last = first - feature.window_start, last - feature.window_start
                    assert context[feature.offsets[first][0] : feature.offsets[last][1]] == word
            assert num_shown >= 1


def test_an_answer_with_blanks_around_it_is_found(tokenizer):
    context = "anna lives in paris "
    (feature,) = make_features(
        [Example("q", "where", context, ())], tokenizer, max_seq_length=40, doc_stride=8, max_query_length=8
    )
    first, last = answer_positions(feature, Answer(" paris ", 13))
    assert first == last == feature.window_start + 3


def test_a_long_question_is_cut(tokenizer):
    (feature,) = make_features(
        [Example("q", "where does anna live", "in paris", ())],
        tokenizer,
        max_seq_length=16,
        doc_stride=4,
        max_query_length=2,
    )
    assert tokenizer.convert_ids_to_tokens(feature.input_ids) == [
        *("[CLS]", "where", "does", "[SEP]"),
        *("in", "paris", "[SEP]"),
    ]
    assert feature.window_start == 4


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 25))
def test_windows_cover_every_token_and_each_has_one_best_window(num_tokens, max_window_tokens, doc_stride):
    windows = make_windows(num_tokens, max_window_tokens, min(doc_stride, max_window_tokens))
    covered = {p for window in windows for p in range(window.start, window.start + window.num_tokens)}
    assert covered == set(range(num_tokens))
    assert all(0 < window.num_tokens <= max_window_tokens for window in windows)
    assert windows[-1].start + windows[-1].num_tokens == num_tokens
    times_best = [0] * num_tokens
    for window, marks in zip(windows, mark_max_context(windows), strict=True):
        for i, is_best in enumerate(marks):
            times_best[window.start + i] += is_best
    assert times_best == [1] * num_tokens


def test_max_context_by_hand():
    """Context on the poorer side, in the first and the second window of each pair."""
    # tokens 0-5 and 3-8; token 3: 2 and 0; token 4: 1 and 1, which the first wins; token 5: 0 and 2
    first, second = mark_max_context([Window(0, 6), Window(3, 6)])
    assert first == [True, True, True, True, True, False]
    assert second == [False, False, True, True, True, True]
    # tokens 0-4 and 2-8; token 2: 2 and 0; token 3: 1 + 0.05 and 1 + 0.07, the longer wins; token 4: 0 and 2
    shorter, longer = mark_max_context([Window(0, 5), Window(2, 7)])
    assert shorter == [True, True, True, False, False]
    assert longer == [False, True, True, True, True, True, True]


def test_padding_is_masked(tokenizer):
    short, long = make_features(
        [Example("a", "where", "in paris", ()), Example("b", "where", "anna lives in paris", ())],
        tokenizer,
        max_seq_length=16,
        doc_stride=4,
        max_query_length=4,
    )
    batch = pad([short, long], pad_token_id=0)
    assert batch["input_ids"].shape == (2, 8)
    assert torch.equal(batch["attention_mask"][0], torch.tensor([1, 1, 1, 1, 1, 1, 0, 0]))
    assert torch.equal(batch["token_type_ids"][0], torch.tensor([0, 0, 0, 1, 1, 1, 0, 0]))


def test_refusals(tokenizer):
    class SlowTokenizer:
        is_fast = False

    lengths = {"max_seq_length": 32, "doc_stride": 8, "max_query_length": 8}
    with pytest.raises(UserError, match="SlowTokenizer"):
        make_features(where_questions(), SlowTokenizer(), **lengths)
    with pytest.raises(UserError, match="max_seq_length=11"):
        make_features(where_questions(), tokenizer, **{**lengths, "max_seq_length": 11})
    with pytest.raises(UserError, match="'blank' whose context has no tokens"):
        make_features([Example("blank", "where", " \t", ())], tokenizer, **lengths)
