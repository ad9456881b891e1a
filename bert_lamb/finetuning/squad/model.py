"""A model folder -> tokenizer and model, checked as a whole; nothing of it is read by transformers itself."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BertForQuestionAnswering

from bert_lamb.checkpoint.folder.contents import check_ids
from bert_lamb.checkpoint.folder.model_config import read_model_config
from bert_lamb.checkpoint.folder.tokenizer import read_tokenizer
from bert_lamb.checkpoint.folder.weights import read_weights
from bert_lamb.checkpoint.folder.word_pieces import WordPieces
from bert_lamb.errors import UserError

HEAD = "qa_outputs."


@dataclass(frozen=True)
class Loaded:
    """What a model folder gives."""

    tokenizer: WordPieces
    model: BertForQuestionAnswering  # fp32
    has_own_head: bool  # False: the question-answering head was drawn
    left_over: list[str]  # weights of the folder that the model does not take: heads of other tasks


def load_model(folder: Path, *, is_pretrained: bool, needs_head: bool, seed: int) -> Loaded:
    """Tokenizer and fp32 model; `seed` draws what the folder does not hold: the new head, or all weights.

    needs_head: the folder must hold the question-answering head too. Raises UserError, with the file, for everything
    in the folder that cannot be used as it is.
    """
    config = read_model_config(folder)
    pieces = read_tokenizer(folder)
    config.pad_token_id = pieces.pad_id if pieces.pad_id < config.vocab_size else None
    torch.manual_seed(seed)
    model = BertForQuestionAnswering._from_config(config, dtype=torch.float32)
    if not is_pretrained:
        check_ids(config, pieces, folder)
        return Loaded(pieces, model, has_own_head=False, left_over=[])
    found = read_weights(folder, model.state_dict(), optional=[HEAD])
    if needs_head and found.missing:
        raise UserError(
            found=f"{folder} without a question-answering head (qa_outputs)",
            expected="a model fine-tuned on questions, since train_file is not set",
            fix="set train_file, or set model_dir to the model/ folder of a finished `bert-lamb squad`",
        )
    check_ids(config, pieces, folder)
    model.load_state_dict(found.taken, strict=False)
    if found.missing:
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.qa_outputs.weight, std=config.initializer_range)
    return Loaded(pieces, model, has_own_head=not found.missing, left_over=found.left_over)


def check_lengths(max_seq_length: int, model: BertForQuestionAnswering) -> None:
    """Refuse sequences longer than the position embeddings."""
    if max_seq_length > model.config.max_position_embeddings:
        raise UserError(
            found=f"max_seq_length={max_seq_length}",
            expected=f"at most the model's {model.config.max_position_embeddings} positions",
            fix="set max_seq_length",
        )
