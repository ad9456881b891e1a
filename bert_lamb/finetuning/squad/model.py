"""A model folder -> tokenizer and model, checked as a whole; nothing of it is read by transformers itself."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import BertForQuestionAnswering

from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad import model_config, tokenizer
from bert_lamb.finetuning.squad.model_config import read_model_config
from bert_lamb.finetuning.squad.tokenizer import WordPieces, read_tokenizer
from bert_lamb.finetuning.squad.weights import QA_HEAD, read_weights, weight_files


@dataclass(frozen=True)
class Loaded:
    """What a model folder gives."""

    tokenizer: WordPieces
    model: BertForQuestionAnswering  # fp32
    has_own_head: bool  # False: the question-answering head was drawn
    left_over: list[str]  # weights of the folder that the model does not take: heads of other tasks


def check_folder(folder: Path) -> None:
    """Refuse what is no model folder at all."""
    if not folder.is_dir():
        raise UserError(
            found=f"no folder {folder}",
            expected="a model's folder on this machine",
            fix=f"set model_dir; a model of the hub is fetched with: hf download {folder} --local-dir FOLDER",
        )
    model_config.read_object(folder / model_config.NAME)


def load_model(folder: Path, *, is_pretrained: bool, needs_head: bool, seed: int) -> Loaded:
    """Tokenizer and fp32 model; `seed` draws what the folder does not hold: the new head, or all weights.

    needs_head: the folder must hold the question-answering head too. Raises UserError, with the file, for everything
    in the folder that cannot be used as it is.
    """
    config = read_model_config(folder)
    pieces = read_tokenizer(folder)
    config.pad_token_id = pieces.pad_id if pieces.pad_id < config.vocab_size else None
    torch.manual_seed(seed)
    with quiet_transformers():
        model = BertForQuestionAnswering._from_config(config, dtype=torch.float32)
    weights: dict[str, Tensor] = {}
    left_over: list[str] = []
    if is_pretrained:
        weights, left_over = read_weights(folder, model.state_dict(), needs_head=needs_head)
    if pieces.num_ids > config.vocab_size:
        raise UserError(
            found=f"token ids up to {pieces.num_ids - 1:,} in {folder} with vocab_size={config.vocab_size:,}",
            expected="no more ids than embeddings",
            fix=tokenizer.FIX,
        )
    if not is_pretrained:
        return Loaded(pieces, model, has_own_head=False, left_over=[])
    model.load_state_dict(weights, strict=False)
    has_own_head = weights.keys() >= QA_HEAD
    if not has_own_head:
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.qa_outputs.weight, std=config.initializer_range)
    return Loaded(pieces, model, has_own_head=has_own_head, left_over=left_over)


def check_lengths(max_seq_length: int, model: BertForQuestionAnswering) -> None:
    """Refuse sequences longer than the position embeddings."""
    if max_seq_length > model.config.max_position_embeddings:
        raise UserError(
            found=f"max_seq_length={max_seq_length}",
            expected=f"at most the model's {model.config.max_position_embeddings} positions",
            fix="set max_seq_length",
        )


def input_files(folder: Path, *, is_pretrained: bool) -> dict[str, Path]:
    """Name -> path of the files that decide what the model computes."""
    files = {name: folder / name for name in (model_config.NAME, *tokenizer.FILES) if (folder / name).is_file()}
    if is_pretrained:
        files |= {file.name: file for file in weight_files(folder)}
    return files


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence what transformers and DeepSpeed, which it imports, say on loading; what matters is checked here."""
    level, has_bar = logging.root.manager.disable, transformers.logging.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(level)
        if has_bar:
            transformers.logging.enable_progress_bar()
