"""Fixtures of the squad room."""

import json
from pathlib import Path

import pytest
import torch
from squad_material import squad_json, where_questions
from transformers import BertTokenizer

from bert_lamb.checkpoint.folder.tokenizer import read_tokenizer
from bert_lamb.checkpoint.folder.word_pieces import WordPieces
from tests.tiny_bert import make_tokenizer, save_encoder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> BertTokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="session")
def pieces(encoder_dir) -> WordPieces:
    """The same tokenizer as our own path reads it."""
    return read_tokenizer(encoder_dir)


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory, tokenizer) -> Path:
    """A folder as an encoder without question-answering head leaves it."""
    return save_encoder(tmp_path_factory.mktemp("encoder"), tokenizer)


@pytest.fixture
def questions_file(tmp_path) -> Path:
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(squad_json(where_questions())), encoding="utf-8")
    return file
