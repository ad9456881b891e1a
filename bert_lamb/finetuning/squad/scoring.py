"""Fifth stop of the SQuAD path: predictions and answers -> the figures that the official scripts print, in percent.

Both texts are normalized, each prediction is compared with every answer of its question and keeps its best value
(Rajpurkar et al. 2016, section 6.1). The official scripts are evaluate-v1.1.py and evaluate-v2.0.py of
https://rajpurkar.github.io/SQuAD-explorer. They differ:

                                 v1.1                    v2.0 (Rajpurkar et al. 2018)
    two texts without words      exact match, F1 0       exact match, F1 1
    a question without answers   there is none           the empty text is right
    no prediction                counts as 0             does not count in exact, f1 and total

What v2.0's script makes of a missing prediction in HasAns and NoAns is an error; here it counts as 0 there.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from bert_lamb.errors import UserError

Version = Literal["1.1", "2.0"]
Figures = dict[str, float | int]  # by the official names

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only: typographic quotes and dashes stay


def score(
    version: Version,
    answers: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    *,
    na_probs: Mapping[str, float] | None = None,
    na_prob_thresh: float = 1.0,
) -> Figures:
    """The official figures of `predictions` (id -> text) against `answers` (id -> the texts accepted).

    version 1.1: exact_match, f1. 2.0: exact, f1, total, the same after HasAns_ and NoAns_ where there are such
    questions, and with na_probs best_exact, best_exact_thresh, best_f1, best_f1_thresh. na_probs (id -> how sure the
    model is that there is no answer, on any scale): predictions above na_prob_thresh are taken for the empty text.
    Predictions for ids that are not among the questions do not count. Raises UserError without questions or
    predictions, for a question without answers in 1.1, and for a prediction without na_prob.
    """
    if not answers:
        raise UserError(found="no questions to score", expected="at least one", fix="give another file of questions")
    return (
        _score_v1(answers, predictions)
        if version == "1.1"
        else _score_v2(answers, predictions, na_probs, na_prob_thresh)
    )


def scores_by_question(
    version: Version,
    answers: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    *,
    na_probs: Mapping[str, float] | None = None,
    na_prob_thresh: float = 1.0,
) -> tuple[dict[str, float], dict[str, float]]:
    """(id -> exact match, id -> F1), 0..1, of each question that has a prediction; arguments as `score` has them."""
    exact, f1 = _compare(version, answers, predictions)
    if version == "1.1":
        return exact, f1
    has_answer = {question_id: bool(accepted) for question_id, accepted in answers.items()}
    _require_na_probs(exact, na_probs)
    return (
        _with_threshold(exact, na_probs, has_answer, na_prob_thresh),
        _with_threshold(f1, na_probs, has_answer, na_prob_thresh),
    )


def _compare(
    version: Version, answers: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Each prediction with the answers of its question: (id -> exact match, id -> F1), the best over the answers."""
    exact: dict[str, float] = {}
    f1: dict[str, float] = {}
    of_two_without_words = 0.0 if version == "1.1" else 1.0
    for question_id, accepted in answers.items():
        if version == "1.1" and not accepted:
            raise UserError(
                found=f"question {question_id!r} without answers",
                expected="SQuAD v1.1, where every question has one",
                fix="score it as version 2.0",
            )
        if question_id in predictions:
            prediction = predictions[question_id]
            texts = accepted if version == "1.1" else [text for text in accepted if normalize(text)] or [""]
            exact[question_id] = float(max(is_exact_match(prediction, text) for text in texts))
            f1[question_id] = max(
                f1_of_words(prediction, text, of_two_without_words=of_two_without_words) for text in texts
            )
    return exact, f1


def _score_v1(answers: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> Figures:
    exact, f1 = _compare("1.1", answers, predictions)
    exact_total = f1_total = 0.0  # added one by one, as the official script does: `sum` may round otherwise
    for question_id in exact:
        exact_total += exact[question_id]
        f1_total += f1[question_id]
    return {"exact_match": 100.0 * exact_total / len(answers), "f1": 100.0 * f1_total / len(answers)}


def _score_v2(
    answers: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    na_probs: Mapping[str, float] | None,
    na_prob_thresh: float,
) -> Figures:
    exact, f1 = _compare("2.0", answers, predictions)
    if not exact:
        raise UserError(
            found="no prediction for any of the questions",
            expected="some",
            fix="give the predictions for these questions",
        )
    _require_na_probs(exact, na_probs)
    has_answer = {question_id: bool(accepted) for question_id, accepted in answers.items()}
    after = [_with_threshold(scores, na_probs, has_answer, na_prob_thresh) for scores in (exact, f1)]
    figures: Figures = _means(*after, ids=exact)
    for prefix, kind in (("HasAns", True), ("NoAns", False)):
        if ids := [question_id for question_id, has in has_answer.items() if has is kind]:
            figures |= {f"{prefix}_{name}": value for name, value in _means(*after, ids=ids).items()}
    if na_probs is not None:
        for name, scores in (("exact", exact), ("f1", f1)):
            best, threshold = best_threshold(scores, predictions, na_probs, has_answer)
            figures |= {f"best_{name}": best, f"best_{name}_thresh": threshold}
    return figures


def _require_na_probs(predicted: Iterable[str], na_probs: Mapping[str, float] | None) -> None:
    """Raises UserError where na_probs are given, but not for every question with a prediction."""
    if na_probs is not None and (absent := next((one for one in predicted if one not in na_probs), None)) is not None:
        raise UserError(
            found=f"no na_prob for question {absent!r}, which has a prediction",
            expected="one for each prediction",
            fix="give the na_prob file that was written with these predictions",
        )


def _with_threshold(
    scores: Mapping[str, float], na_probs: Mapping[str, float] | None, has_answer: Mapping[str, bool], threshold: float
) -> dict[str, float]:
    """The scores when predictions whose na_prob is above the threshold are the empty text; na_prob is 0 by default."""
    return {
        question_id: float(not has_answer[question_id])
        if (0.0 if na_probs is None else na_probs[question_id]) > threshold
        else value
        for question_id, value in scores.items()
    }


def _means(exact: Mapping[str, float], f1: Mapping[str, float], *, ids: Iterable[str]) -> Figures:
    ids = list(ids)
    return {
        "exact": 100.0 * sum(exact.get(question_id, 0.0) for question_id in ids) / len(ids),
        "f1": 100.0 * sum(f1.get(question_id, 0.0) for question_id in ids) / len(ids),
        "total": len(ids),
    }


def best_threshold(
    scores: Mapping[str, float],
    predictions: Mapping[str, str],
    na_probs: Mapping[str, float],
    has_answer: Mapping[str, bool],
) -> tuple[float, float]:
    """(the best mean score in percent that a threshold on na_probs reaches, the lowest such threshold).

    Starts with every prediction taken for the empty text (threshold 0.0 by name, as in the official script) and lets
    predictions through in the order of their na_prob; equal ones in the order of na_probs.
    """
    current = best = float(sum(not has for has in has_answer.values()))
    threshold = 0.0
    for question_id in sorted(na_probs, key=lambda one: na_probs[one]):
        if question_id not in scores:
            continue
        if has_answer[question_id]:
            current += scores[question_id]
        elif predictions[question_id]:
            current -= 1
        if current > best:
            best, threshold = current, na_probs[question_id]
    return 100.0 * best / len(scores), threshold


@lru_cache(maxsize=1024)  # a prediction meets several answers, for two figures
def normalize(text: str) -> str:
    """Lower case, then without ASCII punctuation, then without articles, then one space between words."""
    without_punctuation = text.lower().translate(DROP_PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", without_punctuation).split())


def is_exact_match(prediction: str, answer: str) -> bool:
    """Whether both texts are the same once normalized."""
    return normalize(prediction) == normalize(answer)


def f1_of_words(prediction: str, answer: str, *, of_two_without_words: float) -> float:
    """Harmonic mean of precision and recall over the normalized texts as bags of words, 0..1."""
    predicted_words, answer_words = normalize(prediction).split(), normalize(answer).split()
    if not predicted_words and not answer_words:
        return of_two_without_words
    num_shared = (Counter(predicted_words) & Counter(answer_words)).total()
    if num_shared == 0:
        return 0.0
    precision, recall = num_shared / len(predicted_words), num_shared / len(answer_words)
    return (2 * precision * recall) / (precision + recall)  # in the official order, so that every bit is the same
