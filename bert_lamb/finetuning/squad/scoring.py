"""Fifth stop of the SQuAD path: predictions and answers -> exact match and F1 in percent.

The official definition of SQuAD v1.1 (Rajpurkar et al. 2016, section 6.1): both texts are normalized, each prediction
is compared with every answer of its question and keeps its best value, and the mean is over all questions, whether
answered or not. Known corner, kept: two texts that are both empty after normalization match exactly and have F1 0.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bert_lamb.errors import UserError

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only: typographic quotes and dashes stay


@dataclass(frozen=True)
class Scores:
    """The result over a set of questions."""

    exact_match: float  # percent of all questions
    f1: float  # percent, mean over all questions
    num_questions: int
    num_unanswered: int  # questions without a prediction; they count as 0
    num_unknown: int  # predictions for ids that are not among the questions; they do not count


def score(answers: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> Scores:
    """Exact match and F1 of `predictions` (id -> text) against `answers` (id -> the texts accepted).

    Raises UserError if there are no questions, or one has no answers.
    """
    if not answers:
        raise UserError(found="no questions to score", expected="at least one", fix="give another eval_file")
    exact_match = f1 = 0.0
    for question_id, accepted in answers.items():
        if not accepted:
            raise UserError(
                found=f"question {question_id!r} without answers", expected="SQuAD v1.1", fix="give another eval_file"
            )
        if question_id in predictions:
            prediction = predictions[question_id]
            exact_match += max(is_exact_match(prediction, answer) for answer in accepted)
            f1 += max(f1_of_words(prediction, answer) for answer in accepted)
    return Scores(
        exact_match=100 * exact_match / len(answers),
        f1=100 * f1 / len(answers),
        num_questions=len(answers),
        num_unanswered=sum(question_id not in predictions for question_id in answers),
        num_unknown=sum(question_id not in answers for question_id in predictions),
    )


def normalize(text: str) -> str:
    """Lower case, then without ASCII punctuation, then without articles, then one space between words."""
    without_punctuation = text.lower().translate(DROP_PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", without_punctuation).split())


def is_exact_match(prediction: str, answer: str) -> bool:
    """Whether both texts are the same once normalized."""
    return normalize(prediction) == normalize(answer)


def f1_of_words(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the normalized texts as bags of words, 0..1."""
    predicted_words, answer_words = Counter(normalize(prediction).split()), Counter(normalize(answer).split())
    num_shared = (predicted_words & answer_words).total()
    if num_shared == 0:
        return 0.0
    # precision p = s/m, recall r = s/n, hence 2pr / (p + r) = 2s / (m + n)
    return 2 * num_shared / (predicted_words.total() + answer_words.total())
