"""Fixtures: the folder of a tiny encoder."""

from pathlib import Path

import pytest
from transformers import BertTokenizer

from tests.tiny_bert import make_tokenizer, save_encoder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> BertTokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory, tokenizer) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"), tokenizer)
