"""`bert-lamb score`: a SQuAD file and a file of predictions -> the figures of the official script, as json.

Only ids and the texts of answers are looked at, so a file that could not be trained on is scored all the same; the
page of the answers needs more.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bert_lamb.checkpoint.folder.files import read_json
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.answers_page import write_answers_page
from bert_lamb.finetuning.squad.examples import EXPECTED, Questions, read_examples, said_version
from bert_lamb.finetuning.squad.scoring import Version, score

TEXTS = "a json object: question id -> text"
NUMBERS = "a json object: question id -> number"


def score_files(
    data: Path,
    predictions: Path,
    *,
    na_prob: Path | None,
    na_prob_thresh: float,
    version: Version | None,
    page: Path | None,
) -> None:
    """Print the figures; see `scoring.score`. version: None for what the data says. Raises UserError.

    page: a file for the answers in their contexts (answers_page.py), which needs data that could be trained on.
    """
    questions = read_examples(data) if page is not None else None
    said, answers = read_answers(data)
    predicted = _read_by_id(predictions, str, TEXTS, fix="set predictions")
    na_probs = None
    if na_prob is not None:
        na_probs = _read_by_id(na_prob, float, NUMBERS, fix="set na_prob")
    figures = score(version or said, answers, predicted, na_probs=na_probs, na_prob_thresh=na_prob_thresh)
    missing = [question_id for question_id in answers if question_id not in predicted]
    unknown = [question_id for question_id in predicted if question_id not in answers]
    if missing:
        say(f"{len(missing):,} of {len(answers):,} questions have no prediction, such as {missing[0]!r}")
    if unknown:
        say(f"{len(unknown):,} predictions are for questions that are not in {data}, such as {unknown[0]!r}")
    print(json.dumps(figures, indent=2))
    if page is not None and questions is not None:
        write_answers_page(
            page,
            Questions(questions, version or said),
            predicted,
            title=f"{predictions.name} against {data.name}",
            na_probs=na_probs,
            na_prob_thresh=na_prob_thresh,
        )


def say(text: str) -> None:
    print(text, file=sys.stderr)


def read_answers(file: Path) -> tuple[Version, dict[str, list[str]]]:
    """(the version by whose rules the file is scored, question id -> the texts of its answers).

    The version is what the file says; without it 2.0 where a question has no answers. Raises UserError, naming the
    place in the file, for what is missing, of the wrong type or twice there.
    """
    content = read_json(file, expected=EXPECTED, fix="set data")
    said = said_version(content, file)
    answers: dict[str, list[str]] = {}
    for i, article in enumerate(_list_in(content, "data", f"{file}: ")):
        for j, paragraph in enumerate(_list_in(article, "paragraphs", f"{file}: data[{i}].")):
            for k, qa in enumerate(_list_in(paragraph, "qas", f"{file}: data[{i}].paragraphs[{j}].")):
                place = f"{file}: data[{i}].paragraphs[{j}].qas[{k}]."
                texts = [
                    _text_in(answer, "text", f"{place}answers[{n}].")
                    for n, answer in enumerate(_list_in(qa, "answers", place))
                ]
                question_id = _text_in(qa, "id", place)
                if question_id in answers:
                    raise _refusal(f"{place}id={question_id!r}, as an earlier question has it", "unique ids")
                answers[question_id] = texts
    return said or ("1.1" if all(answers.values()) else "2.0"), answers


def _list_in(node: Any, key: str, place: str) -> list[Any]:
    value = node.get(key) if isinstance(node, dict) else None
    if not isinstance(value, list):
        raise _refusal(f"{place}{key} that is missing or no list", "the form of SQuAD")
    return value


def _text_in(node: Any, key: str, place: str) -> str:
    value = node.get(key) if isinstance(node, dict) else None
    if not isinstance(value, str):
        raise _refusal(f"{place}{key} that is missing or no text", "the form of SQuAD")
    return value


def _refusal(found: str, expected: str) -> UserError:
    return UserError(found=found, expected=expected, fix="correct the file, or set data")


def _read_by_id(file: Path, kind: type, expected: str, *, fix: str) -> dict[str, Any]:
    content = read_json(file, expected=expected, fix=fix)
    if not isinstance(content, dict):
        raise UserError(found=f"{file} with {type(content).__name__}", expected=expected, fix=fix)
    for question_id, value in content.items():
        is_number = type(value) in (int, float)
        if not (is_number if kind is float else isinstance(value, str)):
            raise UserError(
                found=f"{json.dumps(value)[:60]} for question {question_id!r} in {file}", expected=expected, fix=fix
            )
    return content
