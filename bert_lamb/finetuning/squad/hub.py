"""SQuAD by its Hugging Face name: hub:NAME:SPLIT in the place of a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.finetuning.hub import hub_rows
from bert_lamb.finetuning.squad.examples import Example, Questions, read_example

PREFIX = "hub:"


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set. option: the key that names it, for messages."""

    option: str
    name: str
    split: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}:{self.split}"


def source_of(option: str, text: str) -> "Path | HubSplit":
    """The file or the split that a value of train_file or eval_file names."""
    if not text.startswith(PREFIX):
        return Path(text)
    name, separator, split = text.removeprefix(PREFIX).rpartition(":")
    if not (name and separator and split):
        raise UserError(
            found=f"{option}={text}", expected="hub:NAME:SPLIT, such as hub:rajpurkar/squad:train", fix=f"set {option}"
        )
    return HubSplit(option, name, split)


def read_hub_examples(source: HubSplit) -> Questions:
    """Every question of a split in the form of the hub's `squad` and `squad_v2`; v2.0 where one has no answers.

    Raises UserError, naming the row, as `read_examples` does for a file.
    """
    examples: dict[str, Example] = {}
    rows = hub_rows(source.name, None, source.split, option=f"{source.option}={source}", instead="give a json file")
    for number, row in enumerate(rows):
        place = f"{source}: row {number}."
        answers: Any = row.get("answers")
        is_sound = isinstance(answers, dict) and {"text", "answer_start"} <= answers.keys()
        if not is_sound or len(answers["text"]) != len(answers["answer_start"]):
            raise UserError(
                found=f"{place}answers that are not a list of texts and one of answer_starts",
                expected="the form of the hub's squad and squad_v2",
                fix=f"set {source.option}",
            )
        pairs = zip(answers["text"], answers["answer_start"], strict=True)
        qa = {**row, "answers": [{"text": text, "answer_start": start} for text, start in pairs]}
        example = read_example(qa, row.get("context"), place)
        if example.id in examples:
            found = f"{place}id={example.id!r}, as an earlier row has it"
            raise UserError(found=found, expected="unique ids", fix=f"set {source.option}")
        examples[example.id] = example
    if not examples:
        raise UserError(found=f"{source} without a question", expected="at least one", fix=f"set {source.option}")
    is_answered = all(example.answers for example in examples.values())
    return Questions(examples.values(), "1.1" if is_answered else "2.0")
