"""Rows of tokens against transformers' tokenizer, and truncation against the loop of Google's run_classifier.py."""

import itertools

import pytest
from transformers import BertTokenizer

from bert_lamb.finetuning.glue.examples import Example
from bert_lamb.finetuning.glue.features import kept_lengths, make_rows
from bert_lamb.finetuning.glue.folders import load_classifier
from bert_lamb.finetuning.tokens import lay_out
from tests.golden.curves import make_model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "model"
    make_model_folder(folder)
    return folder


def truncated(tokens_a, tokens_b, max_length):
    """_truncate_seq_pair of Google's run_classifier.py, which removes tokens one by one."""
    while len(tokens_a) + len(tokens_b) > max_length:
        if len(tokens_a) > len(tokens_b):
            tokens_a.pop()
        else:
            tokens_b.pop()
    return [len(tokens_a), len(tokens_b)]


def test_truncation_is_googles():
    for first, second, room in itertools.product(range(13), range(13), range(5, 16)):
        expected = truncated([0] * first, [0] * second, room)
        assert kept_lengths([first, second], room) == expected, (first, second, room)
    assert [kept_lengths([length], 5) for length in (3, 5, 9)] == [[3], [5], [5]]


def test_rows_equal_those_of_transformers(folder):
    """Ids and types of texts and pairs that have room; of single texts that have not."""
    pieces = load_classifier(folder, num_answers=2, is_pretrained=True, draws_head=True, seed=0).tokenizer
    theirs = BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=True)
    pairs = [("Anna lives in Paris .", "where does Anna live"), ("hugo", "bern and oslo"), ("in rome", "")]
    for texts in [*pairs, *((pair[0],) for pair in pairs), ("anna and bruno and clara and david and emma",)]:
        (row,) = make_rows([Example("0", texts, 0)], pieces, max_seq_length=11, name="t", is_shown=False)
        expected = theirs(*texts, truncation=True, max_length=11)
        batch = lay_out([row], 11)
        assert batch.input_ids.tolist() == expected["input_ids"]
        assert batch.token_type_ids.tolist() == expected["token_type_ids"]
