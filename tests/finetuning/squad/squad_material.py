"""What the tests of the squad room share: synthetic questions on the tiny BERT of tests/tiny_bert.py."""

import torch

from bert_lamb.finetuning.squad.examples import Answer, Example, Questions
from bert_lamb.finetuning.squad.features import Feature
from tests.tiny_bert import PEOPLE, PLACES


def as_transformers_takes_it(feature: Feature) -> dict[str, torch.Tensor]:
    """One feature as a batch of its own, which needs no padding."""
    window = len(feature.input_ids) - feature.window_start
    types = [0] * feature.window_start + [1] * window
    return {"input_ids": torch.tensor([feature.input_ids]), "token_type_ids": torch.tensor([types])}


def where_questions() -> Questions:
    """Eight questions on who lives where; the answer is the word after the person's "lives in"."""
    examples = []
    for i, person in enumerate(PEOPLE):
        other = (i + 3) % len(PEOPLE)
        pairs = sorted([(person, PLACES[i]), (PEOPLE[other], PLACES[other])], reverse=i % 2 == 0)
        context = " and ".join(f"{name} lives in {place}" for name, place in pairs)
        answer = Answer(PLACES[i], context.index(PLACES[i]))
        examples.append(Example(f"q{i}", f"where does {person} live", context, (answer,)))
    return Questions(examples, "1.1")


def where_questions_of_v2() -> Questions:
    """The same, and about each person a context that names no place, which a tiny model tells apart soon."""
    answered = where_questions()
    without = [
        Example(f"n{i}", example.question, f"{PEOPLE[i]} lives and {PEOPLE[i - 1]} lives", ())
        for i, example in enumerate(answered)
    ]
    return Questions([*answered, *without], "2.0")


def squad_json(examples: list[Example]) -> dict:
    """The examples in the form of the SQuAD files, one paragraph each."""
    paragraphs = [
        {
            "context": example.context,
            "qas": [
                {
                    "id": example.id,
                    "question": example.question,
                    "answers": [{"text": answer.text, "answer_start": answer.start} for answer in example.answers],
                }
            ],
        }
        for example in examples
    ]
    return {
        "version": f"v{getattr(examples, 'version', '1.1')}",
        "data": [{"title": "synthetic", "paragraphs": paragraphs}],
    }
