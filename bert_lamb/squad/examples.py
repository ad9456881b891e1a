"""First stop of the SQuAD path: a SQuAD v1.1 json file -> examples, refused as a whole if anything in it is off.

Format: Rajpurkar et al. 2016, https://rajpurkar.github.io/SQuAD-explorer/ (`data[].paragraphs[].qas[].answers[]`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError


@dataclass(frozen=True)
class Answer:
    """A stretch of the context: `context[start : start + len(text)] == text`, counted in Unicode characters."""

    text: str
    start: int


@dataclass(frozen=True)
class Example:
    """One question about one paragraph, with every answer that annotators gave."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]


def read_examples(file: Path) -> list[Example]:
    """Every question of a SQuAD v1.1 json file, in the order of the file.

    Raises UserError, naming the place in the file, for what is missing, of the wrong type, a duplicate id, a question
    without answers (SQuAD v2.0 has them) and an answer that does not stand at its `answer_start`.
    """
    examples: dict[str, Example] = {}
    for i, article in enumerate(_get(_load(file), "data", list, f"{file}: ")):
        for j, paragraph in enumerate(_get(article, "paragraphs", list, f"{file}: data[{i}].")):
            place = f"{file}: data[{i}].paragraphs[{j}]."
            context = _get(paragraph, "context", str, place)
            for k, qa in enumerate(_get(paragraph, "qas", list, place)):
                example = _read_example(qa, context, f"{place}qas[{k}].")
                if example.id in examples:
                    raise _refusal(f"{place}qas[{k}] with the id {example.id!r} of an earlier question", "unique ids")
                examples[example.id] = example
    if not examples:
        raise _refusal(f"{file} without a question", "at least one")
    return list(examples.values())


def _read_example(qa: Any, context: str, place: str) -> Example:
    question_id = _get(qa, "id", str, place)
    answers = tuple(
        Answer(
            text=_get(answer, "text", str, f"{place}answers[{n}]."),
            start=_get(answer, "answer_start", int, f"{place}answers[{n}]."),
        )
        for n, answer in enumerate(_get(qa, "answers", list, place))
    )
    if not answers:
        raise _refusal(f"{place}answers empty (question {question_id!r})", "an answer to every question, as in v1.1")
    for answer in answers:
        is_inside = bool(answer.text) and answer.start >= 0
        if not is_inside or not context.startswith(answer.text, answer.start):
            raise _refusal(
                f"{place}answers with {answer.text!r} at answer_start={answer.start} (question {question_id!r}), "
                f"where the context has {context[max(answer.start, 0) :][: len(answer.text)]!r}",
                "a text that stands in the context at that character",
            )
    return Example(id=question_id, question=_get(qa, "question", str, place), context=context, answers=answers)


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(
            found=f"no file {file}", expected="a SQuAD v1.1 json file", fix="set train_file and eval_file"
        ) from error
    except UnicodeDecodeError as error:
        raise _refusal(f"{file} that is not UTF-8 text ({error})", "UTF-8 json, unpacked") from error
    except json.JSONDecodeError as error:
        raise _refusal(f"{file} that is not json ({error})", "one json object") from error


def _get(node: Any, key: str, kind: type, place: str) -> Any:
    """`node[key]`, which must be of type `kind`; `place` is the path of `node` with a trailing separator."""
    if not isinstance(node, dict) or key not in node:
        raise _refusal(f"{place}{key} missing", kind.__name__)
    if type(node[key]) is not kind:
        raise _refusal(f"{place}{key} of type {type(node[key]).__name__}", kind.__name__)
    return node[key]


def _refusal(found: str, expected: str) -> UserError:
    return UserError(found=found, expected=expected, fix="mend the file, or use one in the form of SQuAD v1.1")
