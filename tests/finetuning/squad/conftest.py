"""Fixtures of the squad room."""

import json
from pathlib import Path

import pytest
import torch
from squad_material import CHARACTERS, SPECIAL_TOKENS, WORDS, squad_json, tiny_config, where_questions
from transformers import BertModel, BertTokenizer

from bert_lamb.finetuning.squad.tokenizer import WordPieces, read_tokenizer


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> BertTokenizer:
    file = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    entries = dict.fromkeys([*SPECIAL_TOKENS, *CHARACTERS, *(f"##{one}" for one in CHARACTERS), *WORDS])
    file.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return BertTokenizer(vocab=str(file), do_lower_case=True)


@pytest.fixture(scope="session")
def pieces(encoder_dir) -> WordPieces:
    """The same tokenizer as our own path reads it."""
    return read_tokenizer(encoder_dir)


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory, tokenizer) -> Path:
    """A folder as an encoder without question-answering head leaves it."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    BertModel(tiny_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def questions_file(tmp_path) -> Path:
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(squad_json(where_questions())), encoding="utf-8")
    return file
