"""First stop of the GLUE path: the text of a file, or rows of a data set of Hugging Face -> examples, each checked."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.finetuning.glue.tasks import COLA_COLUMNS, GlueTask

MAX_SCORE = 5.0  # of a similarity; the least is 0
FIX = "use the file of the GLUE zip as it is, or correct that line"


@dataclass(frozen=True)
class Example:
    """A text or a pair of texts. index: as a submission names it. label: a class, a number, or None in a test set."""

    index: str
    texts: tuple[str, ...]
    label: int | float | None


def read_tsv(text: str, name: str, task: GlueTask, split: str) -> tuple[list[Example], int]:
    """(examples, lines that were left out) of a tsv in the form of the GLUE zip; a quotation mark is a character.

    name: of the file, for errors. Lines end with LF or CRLF. Raises UserError with the line for everything else than
    what the task's files hold; lines are left out only where the published files have cut ones (`has_defects`).
    """
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").removesuffix("\n").split("\n")]
    has_header, needs_label = task.has_header(split), split not in task.test_splits
    columns = lines[0].split("\t") if has_header else list(COLA_COLUMNS)
    needed = [*task.columns, *([task.label_column] if needs_label else [])]
    _check_columns(columns, needed, name)
    examples: list[Example] = []
    num_left_out = 0
    for number, line in enumerate(lines[has_header:], 1 + has_header):
        values = line.split("\t")
        if len(values) < len(columns) and task.has_defects:
            num_left_out += 1
            continue
        place = f"{name}, line {number:,}"
        if len(values) != len(columns):
            raise UserError(
                found=f"{len(values)} columns in {place}",
                expected=f"{len(columns)}, separated by tabs ({', '.join(columns)})",
                fix=FIX,
            )
        row = dict(zip(columns, values, strict=True))
        texts = _texts_of([row[column] for column in task.columns], task, place)
        label = _label_of_text(row[task.label_column], task, place) if needs_label else None
        examples.append(Example(row.get(task.index_column, str(number - 1 - has_header)), texts, label))
    return _not_empty(examples, name), num_left_out


def read_json_lines(text: str, name: str, task: GlueTask, split: str) -> list[Example]:
    """The examples of json lines under Hugging Face's names: the texts, `label`, and `idx` where there is one."""
    examples = []
    for number, line in enumerate(text.removeprefix("\ufeff").removesuffix("\n").split("\n"), 1):
        place = f"{name}, line {number:,}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(found=f"no json in {place} ({error})", expected="an object a line", fix=FIX) from error
        if not isinstance(row, dict):
            raise UserError(found=f"{type(row).__name__} in {place}", expected="a json object", fix=FIX)
        examples.append(_example_of(row, place, task, split, number - 1))
    return _not_empty(examples, name)


def read_rows(rows: Iterable[Mapping[str, Any]], name: str, task: GlueTask, split: str) -> list[Example]:
    """The examples of a Hugging Face data set."""
    examples = [_example_of(row, f"{name}, row {i:,}", task, split, i) for i, row in enumerate(rows)]
    return _not_empty(examples, name)


def _example_of(row: Mapping[str, Any], place: str, task: GlueTask, split: str, number: int) -> Example:
    needs_label = split not in task.test_splits
    _check_columns(list(row), [*task.fields, *(["label"] if needs_label else [])], place)
    texts = [row[field] for field in task.fields]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(
            found=f"{', '.join(type(text).__name__ for text in texts)} as {', '.join(task.fields)} in {place}",
            expected="texts",
            fix=FIX,
        )
    label = _label_of_value(row["label"], task, place) if needs_label else None
    return Example(str(row.get("idx", number)), _texts_of(texts, task, place), label)


def _check_columns(found: Sequence[str], needed: Sequence[str], place: str) -> None:
    missing = [column for column in needed if column not in found]
    doubled = [column for column in needed if found.count(column) > 1]
    if missing or doubled:
        what = f"no {', '.join(missing)}" if missing else f"{doubled[0]} more than once"
        raise UserError(
            found=f"{what} among the columns of {place} ({', '.join(found)[:200]})",
            expected=f"{', '.join(needed)}",
            fix="set task to the one that the file is of, or use the file of the GLUE zip as it is",
        )


def _texts_of(texts: Sequence[str], task: GlueTask, place: str) -> tuple[str, ...]:
    for text in texts:
        if not text.strip() and not task.has_defects:
            raise UserError(found=f"an empty text in {place}", expected="a sentence", fix=FIX)
        if any("\ud800" <= character <= "\udfff" for character in text):  # which json can write
            raise UserError(found=f"half of a surrogate pair in {place}", expected="whole characters", fix=FIX)
    return tuple(texts)


def _label_of_text(text: str, task: GlueTask, place: str) -> int | float:
    if task.is_regression:
        try:
            return _score(float(text), place)
        except ValueError as error:
            raise UserError(found=f"the score {text!r} in {place}", expected="a number", fix=FIX) from error
    if text not in task.labels:
        raise UserError(found=f"the label {text!r} in {place}", expected=", ".join(task.labels), fix=FIX)
    return task.labels.index(text)


def _label_of_value(value: Any, task: GlueTask, place: str) -> int | float:
    """A label in json: the number of a class or its name; a similarity is a number."""
    if task.is_regression and type(value) in (int, float):
        return _score(float(value), place)
    if not task.is_regression and type(value) is int and 0 <= value < len(task.labels):
        return value
    if isinstance(value, str):
        return _label_of_text(value, task, place)
    known = "a number from 0 to 5" if task.is_regression else f"0 to {len(task.labels) - 1} ({', '.join(task.labels)})"
    raise UserError(found=f"the label {value!r} in {place}", expected=known, fix=FIX)


def _score(value: float, place: str) -> float:
    if not (math.isfinite(value) and 0 <= value <= MAX_SCORE):
        raise UserError(found=f"the score {value:g} in {place}", expected="a number from 0 to 5", fix=FIX)
    return value


def _not_empty(examples: list[Example], name: str) -> list[Example]:
    if not examples:
        raise UserError(found=f"no examples in {name}", expected="at least one", fix="fetch the file again")
    return examples


READERS: dict[str, Callable[[str, str, GlueTask, str], tuple[list[Example], int]]] = {
    ".tsv": read_tsv,
    ".jsonl": lambda text, name, task, split: (read_json_lines(text, name, task, split), 0),
}
