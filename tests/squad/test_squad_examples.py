"""Reading SQuAD json: what is in the file comes out, what is wrong with it is refused by place."""

import copy
import json

import pytest
from squad_material import squad_json, where_questions

from bert_lamb.errors import UserError
from bert_lamb.squad.examples import read_examples

GOOD = squad_json(where_questions())


def write(folder, content):
    file = folder / "questions.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_round_trip(tmp_path):
    assert read_examples(write(tmp_path, GOOD)) == where_questions()


def paragraph_of(content, index):
    return content["data"][0]["paragraphs"][index]


def drop_context(content):
    del paragraph_of(content, 2)["context"]


def question_as_number(content):
    paragraph_of(content, 2)["qas"][0]["question"] = 7


def boolean_start(content):
    paragraph_of(content, 2)["qas"][0]["answers"][0]["answer_start"] = True


def no_answers(content):
    paragraph_of(content, 2)["qas"][0]["answers"] = []


def shifted_answer(content):
    paragraph_of(content, 2)["qas"][0]["answers"][0]["answer_start"] += 1


def negative_start(content):
    paragraph_of(content, 2)["qas"][0]["answers"][0] = {"text": "a", "answer_start": -1}


def empty_answer(content):
    paragraph_of(content, 2)["qas"][0]["answers"][0]["text"] = ""


def duplicate_id(content):
    paragraph_of(content, 2)["qas"][0]["id"] = "q0"


@pytest.mark.parametrize(
    "spoil",
    [
        drop_context,
        question_as_number,
        boolean_start,
        no_answers,
        shifted_answer,
        negative_start,
        empty_answer,
        duplicate_id,
    ],
)
def test_a_spoilt_paragraph_is_refused_with_its_place(tmp_path, spoil):
    content = copy.deepcopy(GOOD)
    spoil(content)
    with pytest.raises(UserError, match=r"questions\.json: data\[0\]\.paragraphs\[2\]"):
        read_examples(write(tmp_path, content))


@pytest.mark.parametrize("content", ["not json", "[]", '{"data": {}}', '{"data": []}', '{"version": "1.1"}'])
def test_what_is_no_squad_file_is_refused(tmp_path, content):
    with pytest.raises(UserError):
        read_examples(write(tmp_path, content))


def test_an_absent_and_a_packed_file_are_refused(tmp_path):
    with pytest.raises(UserError, match="no file"):
        read_examples(tmp_path / "absent.json")
    packed = tmp_path / "packed.json"
    packed.write_bytes(b"\xfd7zXZ\x00\xff")
    with pytest.raises(UserError, match="cannot be unpacked"):
        read_examples(packed)
