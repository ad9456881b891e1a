"""Windows against transformers' own overflow windows, answers against the text they were cut from.

Mutations that must turn it red: a stride counted from the window's end, offsets taken without the window's start,
max context decided by the richer side, an answer cut at the window's edge labelled as if whole, token types of the
window one off.
"""

import itertools

import pytest
import regex
import torch
from hypothesis import given
from hypothesis import strategies as st
from squad_material import where_questions

from bert_lamb.checkpoint.folder.word_pieces import Casing, WordPieces
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad import features as features_module
from bert_lamb.finetuning.squad.examples import Answer, Example
from bert_lamb.finetuning.squad.features import (
    NO_ANSWER,
    Window,
    answer_positions,
    make_features,
    make_windows,
    mark_max_context,
)
from bert_lamb.finetuning.squad.graphemes import whole_graphemes
from bert_lamb.finetuning.tokens import lay_out

CONTEXTS = [
    "Anna lives in Paris and Bruno lives in London, the old (and wet) one.",
    "Zoë née Müller visited a Café — “Über-Straße” — in São Paulo; it cost £2,000.",
    "東京都に住む Anna, who left 京都 in 1987.",
    "cafe\u0301 with a combining accent and a zero\u200bwidth space",
]


def test_windows_equal_those_of_transformers(tokenizer, pieces):
    """transformers counts its stride as the overlap of neighbours: window length - doc_stride."""
    question, max_seq_length, doc_stride = "Where does Anna live?", 24, 7
    num_question_tokens = len(tokenizer(question, add_special_tokens=False)["input_ids"])
    for context in CONTEXTS:
        features = make_features(
            [Example("q", question, context, ())],
            pieces,
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
        whole = [[(start, end + (context[end : end + 1] == "\u0301")) for start, end in row] for row in offsets]
        assert [[tuple(pair) for pair in feature.offsets.tolist()] for feature in features] == whole
        for feature, token_type_ids in zip(features, expected["token_type_ids"], strict=True):
            assert lay_out([feature], max_seq_length).token_type_ids.tolist() == token_type_ids


@pytest.mark.parametrize("max_seq_length", [20, 40, 200])
def test_every_answer_comes_back_from_its_positions(pieces, max_seq_length):
    """Each word of each context is asked for; every window either shows it whole or is labelled with [CLS]."""
    for context in CONTEXTS[:3]:
        start = 0
        for word in context.split():
            start = context.index(word, start)
            example = Example("q", "where", context, (Answer(word, start),))
            features = make_features([example], pieces, max_seq_length=max_seq_length, doc_stride=3, max_query_length=5)
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


CLUSTERS = [
    ("e\u0301te\u0301 in paris", "e\u0301te\u0301"),  # accents as macOS writes them
    ("anna loves \U0001f469\u200d\U0001f467 and oslo", "\U0001f469\u200d\U0001f467"),  # joined emoji
    ("the \u2764\ufe0f of anna", "\u2764\ufe0f"),  # variation selector
    ("in \u0939\u093f\u0928\u094d\u0926\u0940 and rome", "\u0939\u093f\u0928\u094d\u0926\u0940"),  # vowel signs
    ("1\ufe0f\u20e3 paris", "1\ufe0f\u20e3"),  # keycap
    ("bern\u0323", "bern\u0323"),  # at the very end, where the window ends too
    ("in o\u00adslo now", "o\u00adslo"),  # a soft hyphen inside
]


@pytest.mark.parametrize("is_lowercase", [True, False])
@pytest.mark.parametrize(("context", "answer"), CLUSTERS)
def test_an_answer_keeps_what_the_tokenizer_drops(pieces, context, answer, is_lowercase):
    """Every span that can be predicted begins and ends between graphemes, and the gold answer is one of them."""
    tokenizer = WordPieces(pieces.vocabulary, Casing(is_lowercase, is_lowercase, True), pieces.special)
    gold = Answer(answer, context.index(answer))
    (feature,) = make_features(
        [Example("q", "where", context, (gold,))], tokenizer, max_seq_length=64, doc_stride=8, max_query_length=8
    )
    first, last = (position - feature.window_start for position in answer_positions(feature, gold))
    assert context[feature.offsets[first][0] : feature.offsets[last][1]] == answer
    cuts = {0, *itertools.accumulate(len(cluster) for cluster in regex.findall(r"\X", context))}
    assert {int(cut) for cut in feature.offsets.ravel()} <= cuts


@given(
    st.text(
        alphabet="ae1 .\r\n\u0301\u200d\u200b\ufe0f\u2764\U0001f469\U0001f3fd\u0600\u1100\u1161\U0001f1e9", max_size=12
    )
)
def test_whole_graphemes_of_any_text(text):
    """Against the graphemes themselves: each range becomes the smallest run of graphemes that holds it."""
    clusters = [match.span() for match in regex.finditer(r"\X", text)]
    ranges = [(start, end) for start in range(len(text)) for end in range(start + 1, len(text) + 1)]
    for (start, end), (first, last) in zip(ranges, whole_graphemes(text, ranges).tolist(), strict=True):
        held = [cluster for cluster in clusters if cluster[1] > start and cluster[0] < end]
        assert (first, last) == (held[0][0], held[-1][1])


def test_marks_around_an_answer_do_not_hide_it(pieces):
    """The tokenizer leaves nothing of them; also where the answer ends with the window."""
    context = "lives in \u200e1987\u200f"
    (feature,) = make_features(
        [Example("q", "where", context, ())], pieces, max_seq_length=64, doc_stride=8, max_query_length=8
    )
    bare = answer_positions(feature, Answer("1987", 10))
    assert answer_positions(feature, Answer("\u200e1987\u200f", 9)) == bare != NO_ANSWER
    assert answer_positions(feature, Answer("\u200f", 14)) == NO_ANSWER


def test_special_tokens_in_a_text_are_text(pieces, tokenizer):
    """As in data preparation: brackets and letters, never the ids that structure a feature."""
    text = "[SEP] in [MASK] [CLS] [PAD] [UNK]"
    (feature,) = make_features(
        [Example("q", text, text, ())], pieces, max_seq_length=128, doc_stride=8, max_query_length=60
    )
    special = set(tokenizer.all_special_ids)
    places = [i for i, number in enumerate(feature.input_ids) if number in special]
    assert places == [0, feature.window_start - 1, len(feature.input_ids) - 1]
    first, last = answer_positions(feature, Answer("[MASK]", 9))
    assert (
        text[feature.offsets[first - feature.window_start][0] : feature.offsets[last - feature.window_start][1]]
        == "[MASK]"
    )


def test_an_answer_with_blanks_around_it_is_found(pieces):
    context = "anna lives in paris "
    (feature,) = make_features(
        [Example("q", "where", context, ())], pieces, max_seq_length=40, doc_stride=8, max_query_length=8
    )
    first, last = answer_positions(feature, Answer(" paris ", 13))
    assert first == last == feature.window_start + 3


def test_a_long_question_is_cut(tokenizer, pieces):
    (feature,) = make_features(
        [Example("q", "where does anna live", "in paris", ())],
        pieces,
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


def max_context_by_definition(windows: list[Window]) -> list[list[bool]]:
    """Google's rule word for word: for every token, each window that shows it is asked."""
    marks = [[False] * window.num_tokens for window in windows]
    for position in range(windows[-1].start + windows[-1].num_tokens):
        best, most = None, None
        for i, window in enumerate(windows):
            if window.start <= position < window.start + window.num_tokens:
                num_left, num_right = position - window.start, window.start + window.num_tokens - 1 - position
                context = min(num_left, num_right) + 0.01 * window.num_tokens
                if most is None or context > most:
                    best, most = i, context
        marks[best][position - windows[best].start] = True
    return marks


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 70))
def test_max_context_equals_its_definition(num_tokens, max_window_tokens, doc_stride):
    windows = make_windows(num_tokens, max_window_tokens, doc_stride)
    assert [marks.tolist() for marks in mark_max_context(windows)] == max_context_by_definition(windows)


def test_a_context_is_tokenized_and_marked_once(pieces, monkeypatch):
    """Four questions of two lengths about one context of 12,000 tokens, which comes again after another one."""
    tokenized, marked = [], []
    monkeypatch.setattr(
        features_module,
        "mark_max_context",
        lambda windows: marked.append(len(windows)) or mark_max_context(windows),
    )
    encode = pieces.encode
    monkeypatch.setattr(pieces, "encode", lambda texts: tokenized.extend(texts) or encode(texts))
    monkeypatch.setattr(features_module, "EXAMPLES_PER_BATCH", 2)
    paper = "anna lives in paris " * 3000
    asked = [("where", paper), ("who", paper), ("where", "in oslo"), ("where", paper), ("who", paper)]
    features = make_features(
        [Example(str(i), question, context, ()) for i, (question, context) in enumerate(asked)],
        pieces,
        max_seq_length=64,
        doc_stride=16,
        max_query_length=16,
    )
    assert tokenized.count(paper) == 1
    assert len(marked) == 3  # paper for "where" and for "who", which has three tokens here; oslo for "where"
    assert features[0].example_index == 0
    assert features[-1].example_index == 4


def test_max_context_by_hand():
    """Context on the poorer side, in the first and the second window of each pair."""
    # tokens 0-5 and 3-8; token 3: 2 and 0; token 4: 1 and 1, which the first wins; token 5: 0 and 2
    first, second = mark_max_context([Window(0, 6), Window(3, 6)])
    assert first.tolist() == [True, True, True, True, True, False]
    assert second.tolist() == [False, False, True, True, True, True]
    # tokens 0-4 and 2-8; token 2: 2 and 0; token 3: 1 + 0.05 and 1 + 0.07, the longer wins; token 4: 0 and 2
    shorter, longer = mark_max_context([Window(0, 5), Window(2, 7)])
    assert shorter.tolist() == [True, True, True, False, False]
    assert longer.tolist() == [False, True, True, True, True, True, True]


def test_features_are_laid_end_to_end(pieces):
    short, long = make_features(
        [Example("a", "where", "in paris", ()), Example("b", "where", "anna lives in paris", ())],
        pieces,
        max_seq_length=16,
        doc_stride=4,
        max_query_length=4,
    )
    batch = lay_out([short, long], 16)
    assert batch.input_ids.tolist() == [*short.input_ids, *long.input_ids]
    assert batch.token_type_ids.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6, 7]
    assert (batch.cu_seqlens.tolist(), batch.cu_seqlens.dtype) == ([0, 6, 14], torch.int32)


def test_refusals(pieces):
    lengths = {"max_seq_length": 32, "doc_stride": 8, "max_query_length": 8}
    with pytest.raises(UserError, match="max_seq_length=11"):
        make_features(where_questions(), pieces, **{**lengths, "max_seq_length": 11})
    with pytest.raises(UserError, match="'blank' whose context has no tokens"):
        make_features([Example("blank", "where", " \t\u200b", ())], pieces, **lengths)
    with pytest.raises(UserError, match="'mute' whose text has no tokens"):
        make_features([Example("mute", "\u200e", "in paris", ())], pieces, **lengths)
