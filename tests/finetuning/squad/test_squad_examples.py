"""Reading SQuAD json: what is in the file comes out, what is wrong with it is refused by place."""

import bz2
import copy
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from squad_material import squad_json, where_questions, where_questions_of_v2

from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.examples import read_examples
from bert_lamb.finetuning.squad.hub import read_hub_examples, source_of


def by_gzip(data):
    """Packed, without the time of day, which would be part of the names of tests."""
    return gzip.compress(data, mtime=0)


GOOD = squad_json(where_questions())


def write(folder, content):
    file = folder / "questions.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def test_round_trip(tmp_path):
    assert read_examples(write(tmp_path, GOOD)) == where_questions()


def paragraph(**changes):
    """Change the third paragraph."""
    return lambda content: content["data"][0]["paragraphs"][2].update(changes)


def question(**changes):
    """Change its question."""
    return lambda content: content["data"][0]["paragraphs"][2]["qas"][0].update(changes)


def answer(**changes):
    """Change its answer, "madrid"."""
    return lambda content: content["data"][0]["paragraphs"][2]["qas"][0]["answers"][0].update(changes)


def without(*path):
    def spoil(content):
        node = content["data"][0]["paragraphs"][2]
        for step in path[:-1]:
            node = node[step]
        del node[path[-1]]

    return spoil


HALF = "\ud83d"  # of a surrogate pair


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("context"), "context missing; expected str"),
        (without("qas"), "qas missing"),
        (without("qas", 0, "id"), "id missing"),
        (without("qas", 0, "question"), "question missing"),
        (without("qas", 0, "answers"), "answers missing"),
        (without("qas", 0, "answers", 0, "text"), "text missing"),
        (without("qas", 0, "answers", 0, "answer_start"), "answer_start missing"),
        (paragraph(context=None), "context of type NoneType"),
        (paragraph(context=["a"]), "context of type list"),
        (paragraph(context=f"x {HALF}"), r"half of a surrogate pair \(.ud83d\) at character 2 of .*context"),
        (paragraph(qas={}), "qas of type dict"),
        (paragraph(qas=[None]), r"qas\[0\] of type NoneType"),
        (paragraph(qas=["text"]), r"qas\[0\] of type str"),
        (question(id=7), "id of type int"),
        (question(id=f"q{HALF}"), "surrogate pair .*id;"),
        (question(id="q0"), "the id 'q0' of an earlier question"),
        (question(question=7), "question of type int"),
        (question(question=" \n"), "question without text"),
        (question(question=f"{HALF} where"), r"at character 0 of .*paragraphs\[2\].*question"),
        (question(answers=None), "answers of type NoneType"),
        (question(answers={"text": ["madrid"], "answer_start": [0]}), "answers of type dict"),  # as the hub has it
        (question(answers=["madrid"]), r"answers\[0\] of type str"),
        (question(answers=[]), r"answers empty .*with version 'v1\.1'; expected an answer, or version v2\.0"),
        (question(is_impossible=True), "is_impossible=true with 1 answers"),
        (question(answers=[], is_impossible=False), "is_impossible=false with 0 answers"),
        (question(is_impossible="no"), "is_impossible of type str"),
        (answer(text=""), "with '' at answer_start"),
        (answer(text=7), "text of type int"),
        (answer(text=f"madrid{HALF}"), "surrogate pair .*text;"),
        (answer(text="x" * 500), r"with 'x{60}\.\.\.' at"),
        (answer(answer_start=True), "answer_start of type bool"),
        (answer(answer_start=4.0), "answer_start of type float"),
        (answer(answer_start="4"), "answer_start of type str"),
        (answer(answer_start=None), "answer_start of type NoneType"),
        (answer(answer_start=-1), "answer_start=-1"),
        (answer(answer_start=3), "'madrid' at answer_start=3 .* where the context has"),
        (answer(answer_start=10**6), "where the context has ''"),
        (answer(answer_start=10**4000), "a number beyond all texts"),
    ],
)
def test_a_spoilt_paragraph_is_refused_with_its_place(tmp_path, spoil, message):
    content = copy.deepcopy(GOOD)
    spoil(content)
    with pytest.raises(UserError, match=message) as refusal:
        read_examples(write(tmp_path, content))
    assert "questions.json: data[0].paragraphs[2]" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    str(refusal.value).encode("utf-8")


@pytest.mark.parametrize("version", ["v2.0", "2.0", 2.0, 2, "V2", None, "mine"])
def test_questions_without_answers_are_v2(tmp_path, version):
    """As the official files have them, with plausible answers, which are read by nobody."""
    content = squad_json(where_questions_of_v2())
    for paragraph in content["data"][0]["paragraphs"]:
        for qa in paragraph["qas"]:
            qa["is_impossible"] = not qa["answers"]
            qa["plausible_answers"] = [{"text": "elsewhere", "answer_start": 10**6}]
    found = read_examples(write(tmp_path, {**content, "version": version}))
    assert (found, found.version) == (where_questions_of_v2(), "2.0")


@pytest.mark.parametrize("version", ["v2.0", "2.0", 2.0, 2, "V2"])
def test_a_file_of_v2_stays_one_where_all_questions_are_answered(tmp_path, version):
    assert read_examples(write(tmp_path, {**GOOD, "version": version})).version == "2.0"


@pytest.mark.parametrize("version", ["1.1", "v1.1", 1.1, None, "mine"])
def test_other_versions_and_what_v2_says_of_answered_questions_are_read(tmp_path, version):
    content = copy.deepcopy(GOOD)
    question(is_impossible=False, plausible_answers=[])(content)
    found = read_examples(write(tmp_path, {**content, "version": version}))
    assert (found, found.version) == (where_questions(), "1.1")


@pytest.mark.parametrize("title", [None, 7, ["a"], HALF])
def test_titles_are_read_by_nobody(tmp_path, title):
    content = copy.deepcopy(GOOD)
    content["data"][0]["title"] = title
    assert read_examples(write(tmp_path, json.dumps(content))) == where_questions()


WHOLE = json.dumps(GOOD).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "that is empty"),
        (b"not json", r"not json \(Expecting value"),
        (WHOLE[:-20], r"not json \("),
        (WHOLE + b"\n" + WHOLE, r"not json \(Extra data"),
        (b"[]", "of type list; expected an object with data"),
        (b"7", "of type int"),
        (b"null", "of type NoneType"),
        (b'{"version": "1.1"}', "data missing"),
        (b'{"version": [], "data": []}', "version of type list"),
        (b'{"data": {}}', "data of type dict"),
        (b'{"data": []}', "without a question"),
        (b'{"data": [7]}', r"data\[0\] of type int"),
        (b'{"data": [{"paragraphs": null}]}', "paragraphs of type NoneType"),
        (b'{"data": [], "data": []}', "the key 'data' more than once"),
        (b'{"data": NaN}', "NaN, which json does not have"),
        (b"[" * 100_000, "nested too deeply|not json"),
        (b'{"data": ' + b"9" * 5000 + b"}", "not json"),
        (json.dumps(GOOD).encode("utf-16"), "that is UTF-16 text"),
        (json.dumps(GOOD).encode("utf-16-le"), "that is UTF-16 text"),
        (json.dumps(GOOD).encode("utf-16-be"), "that is UTF-16 text"),
        (json.dumps(GOOD).encode("utf-32"), "that is UTF-32 text"),
        ('{"data": "é"}'.encode("latin1"), r"not UTF-8 text \(byte 10 is 0xe9\)"),
        (lzma.compress(WHOLE)[:-30], "cannot be unpacked .*expected the whole"),
        (by_gzip(WHOLE)[:-30], "cannot be unpacked"),
        (bz2.compress(WHOLE)[:-30], "cannot be unpacked"),
        (by_gzip(b"x" + WHOLE), "not json"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "packed with zstd"),
        (b"PK\3\4" + bytes(20), "a zip archive"),
        (b"PAR1" + bytes(20), "a parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer"),
        (b"<!DOCTYPE html>", "a web page"),
    ],
)
def test_what_is_no_squad_file_is_refused(tmp_path, content, message):
    file = tmp_path / "questions.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        read_examples(file)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + WHOLE,
        lzma.compress(WHOLE),
        by_gzip(WHOLE),
        bz2.compress(WHOLE),
        by_gzip(b"\xef\xbb\xbf" + WHOLE),
        by_gzip(WHOLE[:100]) + by_gzip(WHOLE[100:]),
    ],
)
def test_a_byte_order_mark_and_packing_change_nothing(tmp_path, content):
    """Whatever the file is called."""
    file = tmp_path / "questions.json"
    file.write_bytes(content)
    assert read_examples(file) == where_questions()


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file .*absent\.json"):
        read_examples(tmp_path / "absent.json")
    with pytest.raises(UserError, match="a folder at"):
        read_examples(tmp_path)


# Data sets of Hugging Face; a folder with Parquet files is one, without a network.


def as_data_set(folder, questions, *, spoil=lambda rows: None):
    """The hub's form of SQuAD: answers as a list of texts and one of positions."""
    rows = [
        {
            "id": one.id,
            "title": "synthetic",
            "context": one.context,
            "question": one.question,
            "answers": {
                "text": [answer.text for answer in one.answers],
                "answer_start": [answer.start for answer in one.answers],
            },
        }
        for one in questions
    ]
    spoil(rows)
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "validation.parquet")
    return source_of("eval_file", f"hub:{folder}:validation")


@pytest.mark.parametrize("questions", [where_questions(), where_questions_of_v2()], ids=["v1", "v2"])
def test_a_data_set_gives_what_its_file_gives(tmp_path, questions):
    found = read_hub_examples(as_data_set(tmp_path / "set", questions))
    assert (found, found.version) == (questions, questions.version)
    assert found == read_examples(write(tmp_path, squad_json(questions)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows[1]["answers"].update(answer_start=[1, 2]), "validation: row 1.answers that are not a list"),
        (lambda rows: rows[2]["answers"].update(answer_start=[0]), r"row 2.answers\[0\] with .* at answer_start=0"),
        (lambda rows: rows[3].update(id="q0"), "row 3.id='q0', as an earlier row has it"),
        (lambda rows: rows[0].update(question=" "), "row 0.question without text"),
        (lambda rows: [row.pop("context") for row in rows], "row 0.context of type NoneType"),
        (lambda rows: [row.pop("answers") for row in rows], "row 0.answers that are not a list"),
    ],
)
def test_a_spoilt_data_set_is_refused_with_its_row(tmp_path, spoil, message):
    with pytest.raises(UserError, match=message):
        read_hub_examples(as_data_set(tmp_path / "set", where_questions(), spoil=spoil))


def test_a_damaged_file_is_our_line_alone(tmp_path, caplog):
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="whose split train cannot be read"):
        read_hub_examples(source_of("eval_file", f"hub:{tmp_path}:train"))
    assert caplog.records == []


def test_a_data_set_that_is_not_there_is_a_line():
    with pytest.raises(UserError, match="eval_file=hub:/nowhere:train whose split train cannot be read"):
        read_hub_examples(source_of("eval_file", "hub:/nowhere:train"))
    for text in ("hub:", "hub:squad", "hub::train", "hub:squad:"):
        with pytest.raises(UserError, match="expected hub:NAME:SPLIT"):
            source_of("train_file", text)
    assert source_of("train_file", "squad:train.json") == Path("squad:train.json")
