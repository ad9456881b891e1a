"""The readers against lines written by hand in the form of the GLUE zip, and what they refuse, with file and line.

Mutations that must turn it red are in mutations.txt.
"""

import json

import pytest
from glue_material import LABELS, TEST_FORMS, TRAIN_FORMS, lines_of

from bert_lamb.errors import UserError
from bert_lamb.finetuning.glue.examples import Example, read_json_lines, read_rows, read_tsv
from bert_lamb.finetuning.glue.tasks import TASKS


def read(task, *lines, split="train", end="\n"):
    return read_tsv(end.join(lines) + end, "f.tsv", TASKS[task], split)[0]


@pytest.mark.parametrize("task", TRAIN_FORMS)
def test_the_columns_of_the_published_files(task):
    """Two rows each; single-sentence tasks take the first text only."""
    examples = read(task, *lines_of(task, [("a b", "c d", True), ("e", "f", False)]))
    texts = [("a b",), ("e",)] if task in ("cola", "sst2") else [("a b", "c d"), ("e", "f")]
    names = LABELS.get(task, ["0", "1"])
    known = {"mnli": ["entailment", "neutral", "contradiction"], "qnli": ["entailment", "not_entailment"]}
    known["rte"] = known["qnli"]
    labels = [4.25, 0.5] if task == "stsb" else [known.get(task, ["0", "1"]).index(names[i]) for i in (1, 0)]
    assert [example.texts for example in examples] == texts
    assert [example.label for example in examples] == labels


@pytest.mark.parametrize("task", TEST_FORMS)
def test_a_test_set_has_its_index_and_no_labels(task):
    header, form = TEST_FORMS[task]
    examples = read(task, header, form.format(i=7, a="x", b="y"), form.format(i=3, a="z", b="w"), split="test")
    assert [(one.index, one.texts[0], one.label) for one in examples] == [("7", "x", None), ("3", "z", None)]


def test_a_quotation_mark_is_a_character():
    """The files are not CSV: a quotation mark that is never closed would swallow the lines after it."""
    examples = read("sst2", "sentence\tlabel", '"never closed\t1', 'he said "" twice" \t0', "it's\t1")
    assert [one.texts[0] for one in examples] == ['"never closed', 'he said "" twice" ', "it's"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ends_of_lines_and_the_byte_order_mark(end):
    """CRLF ends a line and is no part of a label; U+2028 and U+0085 are part of a text."""
    lines = ["\ufeff" + TRAIN_FORMS["mrpc"][1], "1\t1\t2\ta\u2028b\tc\x85d"]
    assert read("mrpc", *lines, end=end) == [Example("0", ("a\u2028b", "c\x85d"), 1)]


def test_lines_cut_in_two_and_empty_texts_are_qqps_alone():
    """Its published files have some; elsewhere a line without its columns is a damaged file."""
    header, row = TRAIN_FORMS["qqp"][1], "1\t2\t3\twhy\t\t0"
    text = "\n".join([header, row, "2\t2\t3\tcut here", "and here\tb\t1", row]) + "\n"
    examples, num_left_out = read_tsv(text, "f.tsv", TASKS["qqp"], "train")
    assert (len(examples), num_left_out) == (2, 2)
    assert examples[0].texts == ("why", "")


@pytest.mark.parametrize(
    ("task", "lines", "message"),
    [
        ("rte", ["index\tsentence1\tlabel", "0\ta\tentailment"], r"no sentence2 among the columns of f\.tsv"),
        ("rte", ["a\tb"], "no sentence1, sentence2, label"),
        ("rte", [TRAIN_FORMS["rte"][1], "0\ta\tb"], r"3 columns in f\.tsv, line 2; expected 4"),
        ("rte", [TRAIN_FORMS["rte"][1], "0\ta\tb\tentailment", ""], r"1 columns in f\.tsv, line 3; expected 4"),
        ("rte", [TRAIN_FORMS["rte"][1], "0\ta\tb\tc\tentailment"], r"5 columns in f\.tsv, line 2"),
        (
            "rte",
            [TRAIN_FORMS["rte"][1], "0\ta\tb\tyes"],
            r"the label 'yes' in f\.tsv, line 2; expected entailment, not",
        ),
        ("rte", [TRAIN_FORMS["rte"][1], "0\ta\t \tentailment"], r"an empty text in f\.tsv, line 2"),
        ("cola", ["g\t1\t*\ta b", "g\t2\t\tc"], r"the label '2' in f\.tsv, line 2; expected 0, 1"),
        ("cola", ["sentence\tlabel", "a\t1"], r"2 columns in f\.tsv, line 1; expected 4"),
        ("stsb", [*lines_of("stsb", [("a", "b", 1)]), "1\tn\tf\t1\t1\tn\tn\ta\tb\t5.01"], "the score 5.01 in .*line 3"),
        ("stsb", [TRAIN_FORMS["stsb"][1], "1\tn\tf\t1\t1\tn\tn\ta\tb\tnan"], "the score nan in"),
        ("stsb", [TRAIN_FORMS["stsb"][1], "1\tn\tf\t1\t1\tn\tn\ta\tb\thigh"], "the score 'high' in"),
        ("sst2", ["sentence\tlabel"], r"no examples in f\.tsv"),
        ("sst2", ["label\tsentence\tlabel", "0\ta\t1"], "label more than once"),
    ],
)
def test_what_is_refused(task, lines, message):
    with pytest.raises(UserError, match=message):
        read(task, *lines)


def as_lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_json_lines_have_the_names_of_hugging_face():
    """Labels by number or by name; a test set's -1 is not looked at."""
    rows = [{"premise": "a", "hypothesis": "b", "label": label, "idx": 5} for label in (2, "contradiction")]
    found = read_json_lines(as_lines(*rows), "f.jsonl", TASKS["mnli"], "train")
    assert found == [Example("5", ("a", "b"), 2)] * 2 == read_rows(rows, "hub", TASKS["mnli"], "dev_matched")
    test = read_json_lines(as_lines({"sentence": "a", "label": -1}), "f.jsonl", TASKS["cola"], "test")
    assert test == [Example("0", ("a",), None)]
    stsb = {"sentence1": "a", "sentence2": "b", "label": 3}
    assert read_json_lines(as_lines(stsb), "f", TASKS["stsb"], "train")[0].label == 3.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"no json in f, line 1"),
        ("[1]\n", r"list in f, line 1"),
        (as_lines({"sentence": "a"}), r"no label among the columns of f, line 1"),
        (as_lines({"sentence": "a", "label": 1}, {"sentence": 1, "label": 1}), r"int as sentence in f, line 2"),
        (as_lines({"sentence": "a", "label": -1}), r"the label -1 in f, line 1; expected 0 to 1"),
        (as_lines({"sentence": "a", "label": True}), r"the label True in f, line 1"),
        (as_lines({"sentence": "a\ud800", "label": 1}), r"half of a surrogate pair in f, line 1"),
    ],
)
def test_json_lines_that_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        read_json_lines(text, "f", TASKS["cola"], "train")
