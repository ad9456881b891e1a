"""A page to read what a model answers: questions in their contexts, true and predicted answers marked, wrong first.

One file, nothing fetched, no script: what the tables count can be chosen there, by the page's style sheet alone. A
browser lays out only what is on the screen, so ten thousand questions scroll.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bert_lamb.finetuning.squad.examples import Example, Questions
from bert_lamb.finetuning.squad.scoring import scores_by_question
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.templates import render

TEMPLATE = Path(__file__).with_name("answers_page.html.j2")
WORDS = ("who", "what", "when", "where", "which", "why", "how")
WORD = re.compile(rf"\b({'|'.join([*WORDS, 'whose', 'whom'])})\b", re.IGNORECASE)
SAME = {"whose": "who", "whom": "who"}
MAX_CONTEXT, AROUND = 2000, 400  # characters: longer contexts are shown around their marks

# The first that holds is a question's verdict; in this order they stand on the page.
VERDICTS = {
    "absent": "no prediction",
    "invented": "an answer where there is none",
    "missed": "no answer where there is one",
    "wrong": "wrong, no word in common",
    "partial": "wrong, some words in common",
    "right": "right",
}


@dataclass(frozen=True)
class Piece:
    """A stretch of the context. marks: "true", "predicted", both or neither; cut: text before it is left out."""

    text: str
    marks: str
    is_cut_before: bool = False


@dataclass(frozen=True)
class Answered:
    """One question as the page shows it. exact: 0 or 1; f1: 0..1."""

    example: Example
    prediction: str | None
    exact: float
    f1: float

    @property
    def verdict(self) -> str:
        """A key of VERDICTS."""
        if self.prediction is None:
            return "absent"
        if self.exact:
            return "right"
        if not self.example.answers:
            return "invented"
        if not self.prediction:
            return "missed"
        return "partial" if self.f1 > 0 else "wrong"

    @property
    def word(self) -> str:
        """The first question word, or "other"."""
        found = WORD.search(self.example.question)
        word = found[1].lower() if found else "other"
        return SAME.get(word, word)

    @property
    def length(self) -> str:
        """How many words the first true answer has."""
        if not self.example.answers:
            return "none"
        num_words = len(self.example.answers[0].text.split())
        return "1" if num_words == 1 else "2-3" if num_words <= 3 else "4-7" if num_words <= 7 else "8+"

    @property
    def true_texts(self) -> list[str]:
        return list(dict.fromkeys(answer.text for answer in self.example.answers))

    @property
    def num_places(self) -> int:
        """How often the predicted text occurs in the context."""
        return len(_places(self.example.context, self.prediction)) if self.prediction else 0

    def pieces(self) -> list[Piece]:
        return _pieces(self.example, self.prediction or "")


@dataclass(frozen=True)
class Choice:
    """A line of a table: the questions of one category. exact, f1: means in percent."""

    value: str
    title: str
    num_questions: int
    exact: float
    f1: float


def write_answers_page(
    file: Path,
    questions: Questions,
    predictions: Mapping[str, str],
    *,
    title: str,
    na_probs: Mapping[str, float] | None = None,
    na_prob_thresh: float = 1.0,
) -> None:
    """Write the page. predictions, na_probs, na_prob_thresh: as `scoring.score` takes them, and judged as it judges."""
    answers = {one.id: [answer.text for answer in one.answers] for one in questions}
    exact, f1 = scores_by_question(
        questions.version, answers, predictions, na_probs=na_probs, na_prob_thresh=na_prob_thresh
    )
    rows = [
        Answered(
            one, _after(one.id, predictions, na_probs, na_prob_thresh), exact.get(one.id, 0.0), f1.get(one.id, 0.0)
        )
        for one in questions
    ]
    order = list(VERDICTS)
    rows.sort(key=lambda row: (order.index(row.verdict), row.f1))
    lengths = {"none": "no answer", "1": "1 word"} | {num: f"{num} words" for num in ("2-3", "4-7", "8+")}
    facts = {
        "title": title,
        "version": questions.version,
        "rows": rows,
        "tables": {
            "verdict": list(_choices(rows, "verdict", VERDICTS)),
            "word": list(_choices(rows, "word", {word: word for word in (*WORDS, "other")})),
            "length": list(_choices(rows, "length", lengths)),
        },
        "captions": {"verdict": "verdict", "word": "question word", "length": "first true answer"},
        "verdicts": VERDICTS,
    }
    page = render(TEMPLATE, facts, is_html=True)
    write_atomically(file, page.encode("utf-8", "replace").decode())  # json may hold halves of surrogate pairs


def _after(
    question_id: str, predictions: Mapping[str, str], na_probs: Mapping[str, float] | None, threshold: float
) -> str | None:
    """The prediction, or the empty text where na_prob is above the threshold; None without one."""
    is_empty = na_probs is not None and na_probs.get(question_id, 0.0) > threshold
    return "" if is_empty and question_id in predictions else predictions.get(question_id)


def _choices(rows: Sequence[Answered], by: str, titles: Mapping[str, str]) -> Iterator[Choice]:
    for value, title in titles.items():
        members = [row for row in rows if getattr(row, by) == value]
        if members:
            exact, f1 = (100 * sum(getattr(row, name) for row in members) / len(members) for name in ("exact", "f1"))
            yield Choice(value, title, len(members), exact, f1)


def _places(context: str, text: str) -> list[int]:
    """Where the text begins in the context, each place of it."""
    places, start = [], context.find(text)
    while start >= 0:
        places.append(start)
        start = context.find(text, start + 1)
    return places


def _pieces(example: Example, prediction: str) -> list[Piece]:
    """The context in pieces, true answers and the prediction marked.

    A prediction is a text, not a place. Of several places that one is marked which shares most characters with a true
    answer, else the first.
    """
    true = [(answer.start, answer.start + len(answer.text)) for answer in example.answers]
    predicted: list[tuple[int, int]] = []
    if prediction and (places := _places(example.context, prediction)):
        # The first of equal ones.
        start = max(places, key=lambda place: _shared((place, place + len(prediction)), true))
        predicted = [(start, start + len(prediction))]
    num_characters = len(example.context)
    shown = _shown([*true, *predicted], num_characters)
    edges = sorted({edge for span in (*true, *predicted, *shown) for edge in span})
    pieces: list[Piece] = []
    end_before = 0
    for start, end in pairwise(edges):
        if not _is_inside(start, shown):
            continue
        marks = {"true": _is_inside(start, true), "predicted": _is_inside(start, predicted)}
        names = " ".join(name for name, holds in marks.items() if holds)
        pieces.append(Piece(example.context[start:end], names, is_cut_before=start != end_before))
        end_before = end
    if end_before != num_characters:
        pieces.append(Piece("", "", is_cut_before=True))
    return pieces


def _shown(marked: Sequence[tuple[int, int]], num_characters: int) -> list[tuple[int, int]]:
    """The stretches of the context that are shown; they may overlap."""
    if num_characters <= MAX_CONTEXT:
        return [(0, num_characters)]
    around = [(max(0, start - AROUND), min(num_characters, end + AROUND)) for start, end in marked]
    return around or [(0, MAX_CONTEXT)]


def _is_inside(place: int, spans: Iterable[tuple[int, int]]) -> bool:
    return any(start <= place < end for start, end in spans)


def _shared(span: tuple[int, int], others: Iterable[tuple[int, int]]) -> int:
    """The most characters that the span has in common with one of the others."""
    return max((min(span[1], end) - max(span[0], start) for start, end in others), default=0)
