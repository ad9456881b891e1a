"""First stop of the SQuAD path: a SQuAD json file -> examples, refused as a whole if anything in it is off.

Format: Rajpurkar et al. 2016 and 2018, https://rajpurkar.github.io/SQuAD-explorer/
(`data[].paragraphs[].qas[].answers[]`). In v2.0 a question may have no answer; its `is_impossible` says so too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.checkpoint.folder.files import read_json, require_utf8
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.scoring import Version

EXPECTED = "a SQuAD json file (UTF-8, plain or packed with xz, gz or bz2)"
MAX_SHOWN = 60  # characters of a text in a message


@dataclass(frozen=True)
class Answer:
    """A passage of the context: `context[start : start + len(text)] == text`, counted in Unicode characters."""

    text: str
    start: int


@dataclass(frozen=True)
class Example:
    """One question about one paragraph, with every answer that annotators gave; in v2.0 there may be none."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]


class Questions(list[Example]):
    """The examples of a file, in its order, and the version of SQuAD whose rules they follow."""

    def __init__(self, examples: Iterable[Example], version: Version) -> None:
        super().__init__(examples)
        self.version: Version = version


def read_examples(file: Path) -> Questions:
    """Every question of a SQuAD json file, in the order of the file.

    Raises UserError, naming the place in the file, for what is missing, of the wrong type, a duplicate id, half of a
    surrogate pair, an answer that does not occur at its `answer_start`, and a question without answers where the file
    says v1.1 or the question itself says otherwise.
    """
    content = read_json(file, expected=EXPECTED, fix="set train_file and eval_file")
    said = said_version(content, file)
    examples: dict[str, Example] = {}
    without_answers: str | None = None  # the place of the first such question
    for i, article in enumerate(_get(content, "data", list, f"{file}: ")):
        place = f"{file}: data[{i}]."
        for j, paragraph in enumerate(_get(article, "paragraphs", list, place)):
            place = f"{file}: data[{i}].paragraphs[{j}]."
            context = _get(paragraph, "context", str, place)
            for k, qa in enumerate(_get(paragraph, "qas", list, place)):
                example = read_example(qa, context, f"{place}qas[{k}].")
                if example.id in examples:
                    raise _refusal(f"{place}qas[{k}] with the id {example.id!r} of an earlier question", "unique ids")
                if not example.answers and without_answers is None:
                    without_answers = f"{place}qas[{k}].answers empty (question {example.id!r})"
                examples[example.id] = example
    if not examples:
        raise _refusal(f"{file} without a question", "at least one")
    if said == "1.1" and without_answers is not None:
        raise _refusal(f"{without_answers} with version {content['version']!r}", "an answer, or version v2.0")
    return Questions(examples.values(), said or ("1.1" if without_answers is None else "2.0"))


def said_version(content: Any, file: Path) -> Version | None:
    """The version that a file names; None for one that names none, or another."""
    version = content.get("version") if isinstance(content, dict) else None
    if not isinstance(version, str | int | float | None):
        raise _refusal(f"{file}: version of type {type(version).__name__}", "str")
    number = str(version).strip().lower().removeprefix("v").split(".")[0]
    return "1.1" if number == "1" else "2.0" if number == "2" else None


def read_example(qa: Any, context: Any, place: str) -> Example:
    """One question; place: the path of `qa` with a trailing full stop, for messages. Raises UserError."""
    if not isinstance(context, str):
        raise _refusal(f"{place}context of type {type(context).__name__}", "str")
    question_id = _get(qa, "id", str, place)
    question = _get(qa, "question", str, place)
    if not question.strip():
        raise _refusal(f"{place}question without text (question {question_id!r})", "a question")
    answers = tuple(
        Answer(
            text=_get(answer, "text", str, f"{place}answers[{n}]."),
            start=_get(answer, "answer_start", int, f"{place}answers[{n}]."),
        )
        for n, answer in enumerate(_get(qa, "answers", list, place))
    )
    if "is_impossible" in qa and _get(qa, "is_impossible", bool, place) is bool(answers):
        raise _refusal(
            f"{place}is_impossible={str(bool(answers)).lower()} with {len(answers)} answers (question {question_id!r})",
            "true without answers, false with some",
        )
    for n, answer in enumerate(answers):
        is_inside = bool(answer.text.strip()) and answer.start >= 0
        if not is_inside or not context.startswith(answer.text, answer.start):
            there = context[max(answer.start, 0) :][: len(answer.text)]
            raise _refusal(
                f"{place}answers[{n}] with {_shown(answer.text)} at answer_start={_shown_number(answer.start)} "
                f"(question {question_id!r}), where the context has {_shown(there)}",
                "a text that occurs in the context at that character",
            )
    return Example(id=question_id, question=question, context=context, answers=answers)


def _get(node: Any, key: str, kind: type, place: str) -> Any:
    """`node[key]`, which must be of type `kind`; `place` is the path of `node` with a trailing separator."""
    if not isinstance(node, dict):
        raise _refusal(f"{place.rstrip('. :')} of type {type(node).__name__}", f"an object with {key}")
    if key not in node:
        raise _refusal(f"{place}{key} missing", kind.__name__)
    if type(node[key]) is not kind:
        raise _refusal(f"{place}{key} of type {type(node[key]).__name__}", kind.__name__)
    if kind is str:
        require_utf8(node[key], f"{place}{key}")
    return node[key]


def _shown(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...")


def _shown_number(number: int) -> str:
    return str(number) if abs(number) < 10**18 else "a number beyond all texts"


def _refusal(found: str, expected: str) -> UserError:
    return UserError(found=found, expected=expected, fix="correct the file, or use one in the form of SQuAD")
