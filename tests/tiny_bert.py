"""A vocabulary and a tiny BERT as a model folder, in milliseconds; nothing is downloaded."""

import string
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizer

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = [*string.ascii_lowercase, *string.digits, *string.punctuation, *"東京都に住む—“”\u2019ß"]
PEOPLE = ["anna", "bruno", "clara", "david", "emma", "felix", "greta", "hugo"]
PLACES = ["paris", "london", "madrid", "vienna", "oslo", "rome", "bern", "prague"]
WORDS = ["where", "does", "live", "lives", "in", "the", "and", *PEOPLE, *PLACES]


def make_tokenizer(folder: Path) -> BertTokenizer:
    """A lower-casing tokenizer whose vocabulary spells every word of ASCII; its vocab.txt is written to `folder`."""
    file = folder / "vocab.txt"
    entries = dict.fromkeys([*SPECIAL_TOKENS, *CHARACTERS, *(f"##{one}" for one in CHARACTERS), *WORDS])
    file.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return BertTokenizer(vocab=str(file), do_lower_case=True)


def tiny_config(tokenizer: BertTokenizer) -> BertConfig:
    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def save_encoder(folder: Path, tokenizer: BertTokenizer) -> Path:
    """A folder as an encoder without any head leaves it, drawn from seed 0."""
    torch.manual_seed(0)
    BertModel(tiny_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
