"""A model folder -> what pretraining starts from: configuration, tokenizer, weights and the heads that it has."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertConfig, BertForPreTraining

from bert_lamb.checkpoint.folder.contents import check_folder, check_ids
from bert_lamb.checkpoint.folder.model_config import read_model_config
from bert_lamb.checkpoint.folder.stored import Stored
from bert_lamb.checkpoint.folder.tokenizer import read_tokenizer
from bert_lamb.checkpoint.folder.weight_files import list_weights
from bert_lamb.checkpoint.folder.weights import Weights, by_our_name, take_weights
from bert_lamb.checkpoint.folder.word_pieces import WordPieces
from bert_lamb.errors import UserError

HEADS = ("bert.pooler.", "cls.predictions.", "cls.seq_relationship.")  # each there as a whole, or absent
# Weights with a row for each entry of the vocabulary; trainers pad them.
VOCABULARY_ROWS = ("embeddings.word_embeddings.weight", "predictions.bias", "decoder.weight", "decoder.bias")
TIED = {  # a second name of the same weight -> the name that BertForPreTraining's parameters have
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


@dataclass(frozen=True)
class Pretrained:
    """What a model folder holds for pretraining.

    weights: fp32 by the names of BertForPreTraining's parameters, each tied weight once; load them with
    load_state_dict(strict=False) and tie_weights(). missing: names of pooler and heads that the folder does not have.
    left_over: keys of the folder that BertForPreTraining does not take, such as those of heads of other tasks.
    """

    config: BertConfig
    tokenizer: WordPieces
    weights: dict[str, Tensor]
    missing: list[str]
    left_over: list[str]


def read_pretrained(folder: Path, *, option: str = "model_dir") -> Pretrained:
    """Everything that pretraining takes from a folder with a Hugging Face BERT.

    The encoder must be there whole; the pooler and the two heads may be absent. option: the key that names the folder,
    for messages. Raises UserError, with the file, for everything that cannot be used as it is.
    """
    check_folder(folder, option=option)
    config = read_model_config(folder, option=option)
    pieces = read_tokenizer(folder)
    weights = take_pretrained(by_our_name(list_weights(folder, option=option)), config, place=folder, option=option)
    check_ids(config, pieces, folder)
    config.pad_token_id = pieces.pad_id
    return Pretrained(config, pieces, weights.taken, weights.missing, weights.left_over)


def take_pretrained(stored: Mapping[str, Stored], config: BertConfig, *, place: Path, option: str) -> Weights:
    """The weights of BertForPreTraining among those that are stored; UserError as `take_weights`."""
    with torch.device("meta"):
        expected = dict(BertForPreTraining._from_config(config).named_parameters())
    return take_weights(_once(stored), expected, place=place, optional=HEADS, option=option)


def _once(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Each tied weight under one name; copies of it must be equal."""
    once = dict(stored)
    for copy, name in TIED.items():
        if copy in once and name not in once:
            once[name] = once.pop(copy)
        elif copy in once:
            one, other = once.pop(copy), once[name]
            if one.shape != other.shape or not torch.equal(one.read(), other.read()):
                raise UserError(
                    found=f"{one.key} in {one.file} that differs from {other.key}",
                    expected="the same weight, since BERT's output layer is tied to its embeddings",
                    fix="use a model that was trained with tied weights",
                )
    return once
