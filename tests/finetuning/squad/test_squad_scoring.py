"""Scoring against values worked out by hand from the definitions of SQuAD v1.1 and v2.0, brute force, and properties.

Outside this suite whole results were compared with those of the official scripts, evaluate-v1.1.py and
evaluate-v2.0.py: 43,016 random sets of questions with predictions (missing, surplus, empty, in several scripts), with
and without na_prob, and both dev sets; every figure had the same bits. Where the official script for v2.0 fails (a
prediction is missing, and HasAns or NoAns is asked for) the rule is ours.

Mutations that must turn it red: articles removed before punctuation, articles matched inside words, typographic
punctuation removed, sets instead of bags of words, the first answer instead of the best, the mean over answered
questions only, thresholds that equal na_probs do not pass, a text without words that is an answer in v2.0.
"""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_lamb.cli import main as cli
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
        ("the", "", True, 0.25),  # the versions' corner: equal, yet no word is shared
    ],
)
def test_one_pair(prediction, answer, exact, f1):
    assert is_exact_match(prediction, answer) is exact
    assert f1_of_words(prediction, answer, of_two_without_words=0.25) == pytest.approx(f1, abs=1e-12)


ANSWERS = {
    "best-is-last": ["Panthers", "Carolina", "the Denver Broncos"],
    "half": ["Denver Broncos", "nothing shared"],
    "missing": ["anything"],
    "empty": ["anything"],
}
PREDICTIONS = {"best-is-last": "Denver Broncos", "half": "Broncos", "empty": "", "stranger": "x"}


def test_v1_takes_the_best_answer_and_counts_every_question():
    figures = score("1.1", ANSWERS, PREDICTIONS)
    assert list(figures) == ["exact_match", "f1"]
    assert figures == pytest.approx({"exact_match": 25, "f1": 100 * (1 + 2 / 3) / 4})


def test_v2_leaves_out_what_has_no_prediction_and_has_rules_for_no_answer():
    """By hand: 7 predictions for 8 questions. HasAns counts the missing one as 0. "the" is no answer in v2.0: alone it
    stands for none, beside another it is nothing."""
    answers = {**ANSWERS, "no": [], "no-but": [], "the": ["the"], "the-or": ["the", "red"]}
    predictions = {**PREDICTIONS, "no": "", "no-but": "something", "the": "", "the-or": ""}
    figures = score("2.0", answers, predictions)
    assert figures == pytest.approx(
        {
            "exact": 100 * 3 / 7,  # best-is-last, no, the
            "f1": 100 * (3 + 2 / 3) / 7,
            "total": 7,
            "HasAns_exact": 100 * 2 / 6,
            "HasAns_f1": 100 * (2 + 2 / 3) / 6,
            "HasAns_total": 6,
            "NoAns_exact": 50,
            "NoAns_f1": 50,
            "NoAns_total": 2,
        }
    )
    assert list(figures) == ["exact", "f1", "total", *(f"{kind}_{n}" for kind in ("HasAns", "NoAns") for n in NAMES)]
    assert list(score("2.0", ANSWERS, PREDICTIONS)) == [*NAMES, *(f"HasAns_{name}" for name in NAMES)]


NAMES = ("exact", "f1", "total")


def test_the_corner_of_two_texts_without_words():
    assert score("1.1", {"q": ["the"]}, {"q": "a"}) == {"exact_match": 100, "f1": 0}
    assert score("2.0", {"q": ["the"]}, {"q": "a"})["f1"] == 100


def test_a_threshold_takes_predictions_for_the_empty_text():
    """Above it, not at it; 1.0 where none is given, whatever the scale of na_prob."""
    answers = {"yes": ["red"], "no": []}
    predictions = {"yes": "red", "no": "blue"}
    na_probs = {"yes": 0.4, "no": 0.6, "stranger": 0.0}

    def exact(threshold):
        return score("2.0", answers, predictions, na_probs=na_probs, na_prob_thresh=threshold)["exact"]

    assert [exact(t) for t in (-1, 0.3, 0.4, 0.5, 0.6, 1.0)] == [50, 50, 100, 100, 50, 50]
    assert score("2.0", answers, predictions, na_probs={"yes": 3.0, "no": 0.9})["exact"] == 0
    assert score("2.0", answers, predictions)["exact"] == 50


people = st.sampled_from(["red", "green", "red green", ""])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([[], ["red"], ["red green"]]), people, st.integers(1, 30)), min_size=1))
def test_the_best_threshold_is_the_best_of_all(rows):
    """Brute force: every threshold that a na_prob offers, and none. na_probs are all different, as scores of models."""
    answers = {str(i): accepted for i, (accepted, _, _) in enumerate(rows)}
    predictions = {str(i): predicted for i, (_, predicted, _) in enumerate(rows)}
    na_probs = {str(i): number + i / 1000 for i, (_, _, number) in enumerate(rows)}
    found = score("2.0", answers, predictions, na_probs=na_probs)
    for name in ("exact", "f1"):
        by_threshold = {
            threshold: score("2.0", answers, predictions, na_probs=na_probs, na_prob_thresh=threshold)[name]
            for threshold in (0.0, *na_probs.values())
        }
        assert found[f"best_{name}"] == pytest.approx(max(by_threshold.values()))
        assert by_threshold[found[f"best_{name}_thresh"]] == pytest.approx(found[f"best_{name}"])


@pytest.mark.parametrize(
    ("version", "answers", "predictions", "na_probs", "message"),
    [
        ("1.1", {}, {}, None, "no questions to score"),
        ("1.1", {"q": []}, {}, None, "question 'q' without answers; expected SQuAD v1.1"),
        ("2.0", {"q": []}, {"other": ""}, None, "no prediction for any of the questions"),
        ("2.0", {"q": []}, {"q": ""}, {"other": 1.0}, "no na_prob for question 'q'"),
    ],
)
def test_nothing_to_score_against_is_refused(version, answers, predictions, na_probs, message):
    with pytest.raises(UserError, match=message):
        score(version, answers, predictions, na_probs=na_probs)


words = st.lists(st.sampled_from(["red", "green", "blue", "Red", "an", "the", "café"]), max_size=6).map(" ".join)


@given(words, words)
def test_f1_is_symmetric_and_one_for_the_same_bag_only(left, right):
    f1 = f1_of_words(left, right, of_two_without_words=0.0)
    left_bag, right_bag = (Counter(normalize(text).split()) for text in (left, right))
    assert f1 == pytest.approx(f1_of_words(right, left, of_two_without_words=0.0))
    assert 0 <= f1 <= 1
    assert (f1 == 1) == (left_bag == right_bag and bool(left_bag))
    assert (f1 > 0) == bool(left_bag & right_bag)


@given(st.text(max_size=40))
def test_exact_match_implies_f1_for_any_text(text):
    assert is_exact_match(text, text)
    assert f1_of_words(text, text, of_two_without_words=0.0) == (1 if normalize(text) else 0)


# The command.


def of_qas(*qas, **more):
    return {"data": [{"paragraphs": [{"context": "unread", "qas": list(qas)}]}], **more}


def qa(question_id, *texts):
    """No question, and answers that are at no place of the context: nobody looks."""
    return {"id": question_id, "answers": [{"text": text} for text in texts]}


def call(folder, capsys, data, predictions, *words, na_prob=None):
    """(exit status, figures, what is said on stderr)."""
    files = {"data": data, "predictions": predictions, **({"na_prob": na_prob} if na_prob is not None else {})}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    status = cli.main(["score", *(f"{name}={folder / f'{name}.json'}" for name in files), *words])
    said = capsys.readouterr()
    return status, json.loads(said.out) if status == 0 else None, said.err


def test_the_command_prints_the_official_figures(tmp_path, capsys):
    data = of_qas(qa("a", "red"), qa("b", "blue"))
    status, figures, said = call(tmp_path, capsys, data, {"a": "red", "c": "x"})
    assert (status, figures) == (0, {"exact_match": 50.0, "f1": 50.0})
    assert "1 of 2 questions have no prediction, such as 'b'" in said
    assert "1 predictions are for questions that are not in " in said
    status, figures, _ = call(tmp_path, capsys, data, {"a": "red"}, "version=2.0")
    assert (figures["exact"], figures["total"], figures["HasAns_exact"]) == (100, 1, 50)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (of_qas(qa("a", "red")), "exact_match"),
        (of_qas(qa("a", "red"), version="v2.0"), "exact"),
        (of_qas(qa("a", "red"), qa("b")), "exact"),
        (of_qas(qa("a", "red"), version="1.1"), "exact_match"),
    ],
)
def test_the_version_is_read_from_the_data(tmp_path, capsys, data, expected):
    _, figures, _ = call(tmp_path, capsys, data, {"a": "red"})
    assert expected in figures


def test_the_command_with_na_prob(tmp_path, capsys):
    data = of_qas(qa("a", "red"), qa("b"), version="v2.0")
    _, figures, _ = call(tmp_path, capsys, data, {"a": "red", "b": "blue"}, na_prob={"a": 0.25, "b": 0.5})
    assert (figures["exact"], figures["best_exact"], figures["best_exact_thresh"]) == (50, 100, 0.25)
    more = ["na_prob_thresh=0.3"]
    _, figures, _ = call(tmp_path, capsys, data, {"a": "red", "b": "blue"}, *more, na_prob={"a": 0.25, "b": 0.5})
    assert figures["exact"] == 100


GOOD = of_qas(qa("a", "red"))


@pytest.mark.parametrize(
    ("data", "predictions", "words", "message"),
    [
        (GOOD, ["red"], [], "predictions.json with list; expected a json object: question id -> text; fix: set pred"),
        (GOOD, {"a": None}, [], "found null for question 'a' in"),
        (GOOD, {"a": ["red"]}, [], 'found ["red"] for question'),
        ({"data": {}}, {}, [], "data that is missing or no list"),
        ({"data": [{"paragraphs": [{"qas": [{"id": 7, "answers": []}]}]}]}, {}, [], "qas[0].id that is missing or no"),
        (of_qas(qa("a"), qa("a")), {"a": ""}, [], "qas[1].id='a', as an earlier question has it"),
        (of_qas(qa("a"), version="1.1"), {"a": ""}, [], "found question 'a' without answers; expected SQuAD v1.1"),
        (GOOD, {"a": ""}, ["version=3"], "found version=3; expected 1.1 or 2.0"),
        (GOOD, {"a": ""}, ["version=1.1", "na_prob=n"], "found na_prob=n; expected none in version 1.1"),
        (GOOD, {"a": ""}, ["predictions=/nowhere"], "found no file /nowhere"),
        (GOOD, {"a": ""}, ["predictions="], "found predictions=''; expected a path"),
    ],
)
def test_the_command_refuses_in_a_line(tmp_path, capsys, data, predictions, words, message):
    status, _, said = call(tmp_path, capsys, data, predictions, *words)
    assert status == 2
    assert message in said
    assert "Traceback" not in said
