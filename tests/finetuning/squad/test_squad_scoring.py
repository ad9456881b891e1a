"""Scoring against values worked out by hand from the definition of SQuAD v1.1, and properties of F1.

Outside this suite the functions were also compared with torchmetrics' SQuAD on 200,000 random pairs: no difference
(but where both texts are empty once normalized: there torchmetrics follows v2.0, which sets F1 to 1).

Mutations that must turn it red: articles removed before punctuation, articles matched inside words, typographic
punctuation removed, sets instead of bags of words, the first answer instead of the best, the mean over answered
questions only.
"""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.scoring import f1_of_words, is_exact_match, normalize, score


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Denver Broncos", "denver broncos"),
        ("a cat, an owl and the dog", "cat owl and dog"),
        ("A.", ""),  # punctuation goes first, so that the article stands free
        ("the-end", "theend"),  # and here it is no longer one
        ("another theory", "another theory"),  # articles are whole words
        ("  U.S.\tArmy\n", "us army"),
        ("$2,000", "2000"),
        ("24\u201310", "24\u201310"),  # an en dash is not in string.punctuation
        ("Beyoncé\u2019s", "beyoncé\u2019s"),  # neither accents nor typographic quotes are touched
        ("東京 タワー", "東京 タワー"),
        ("two\u00a0words", "two words"),  # a no-break space is white space
        ("the", ""),
        ("", ""),
    ],
)
def test_normalize(text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "f1"),
    [
        ("the Denver Broncos!", "Denver Broncos", True, 1.0),
        ("Broncos", "Denver Broncos", False, 2 / 3),  # precision 1, recall 1/2
        ("Broncos of Denver", "Denver Broncos", False, 0.8),  # precision 2/3, recall 1
        ("Denver Denver", "Denver Broncos", False, 0.5),  # bags: Denver is shared once; 1/2 and 1/2
        ("Carolina Panthers", "Denver Broncos", False, 0.0),
        ("cafe", "café", False, 0.0),
        ("", "Denver Broncos", False, 0.0),
        ("the", "", True, 0.0),  # v1.1's corner: equal, yet no word is shared
    ],
)
def test_one_pair(prediction, answer, exact, f1):
    assert is_exact_match(prediction, answer) is exact
    assert f1_of_words(prediction, answer) == pytest.approx(f1, abs=1e-12)


def test_score_takes_the_best_answer_and_counts_every_question():
    answers = {
        "best-is-last": ["Panthers", "Carolina", "the Denver Broncos"],
        "half": ["Denver Broncos", "nothing shared"],
        "missing": ["anything"],
        "empty": ["anything"],
    }
    predictions = {"best-is-last": "Denver Broncos", "half": "Broncos", "empty": "", "stranger": "x"}
    scores = score(answers, predictions)
    assert scores.exact_match == pytest.approx(25.0)
    assert scores.f1 == pytest.approx(100 * (1 + 2 / 3) / 4)
    assert (scores.num_questions, scores.num_unanswered, scores.num_unknown) == (4, 1, 1)


@pytest.mark.parametrize("answers", [{}, {"q": []}])
def test_nothing_to_score_against_is_refused(answers):
    with pytest.raises(UserError):
        score(answers, {})


words = st.lists(st.sampled_from(["red", "green", "blue", "Red", "an", "the", "café"]), max_size=6).map(" ".join)


@given(words, words)
def test_f1_is_symmetric_and_one_for_the_same_bag_only(left, right):
    f1 = f1_of_words(left, right)
    left_bag, right_bag = (Counter(normalize(text).split()) for text in (left, right))
    assert f1 == f1_of_words(right, left)
    assert 0 <= f1 <= 1
    assert (f1 == 1) == (left_bag == right_bag and bool(left_bag))
    assert (f1 > 0) == bool(left_bag & right_bag)


@given(st.text(max_size=40))
def test_exact_match_implies_f1_for_any_text(text):
    assert is_exact_match(text, text)
    assert f1_of_words(text, text) == (1 if normalize(text) else 0)
