"""What others made, as it is read here: a model folder -> tokenizer and classifier; a file -> its text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BertForSequenceClassification

from bert_lamb.checkpoint.folder.contents import check_folder, check_ids, input_files
from bert_lamb.checkpoint.folder.files import kind_of, read_bytes
from bert_lamb.checkpoint.folder.model_config import read_model_config
from bert_lamb.checkpoint.folder.tokenizer import read_tokenizer
from bert_lamb.checkpoint.folder.weights import read_weights
from bert_lamb.checkpoint.folder.word_pieces import WordPieces
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.model import check_lengths

__all__ = [
    "EXPECTED_FILE",
    "Loaded",
    "WordPieces",
    "check_folder",
    "check_lengths",
    "describe_model",
    "input_files",
    "load_classifier",
    "read_text",
]

HEADS = {"classifier": "classifier.", "pooler": "bert.pooler."}  # in the order in which they are drawn
EXPECTED_FILE = "a file of the GLUE zip (.tsv) or json lines (.jsonl)"


def read_text(file: Path) -> str:
    """The text of a file, refused by name when it is something else."""
    content = read_bytes(file, expected=EXPECTED_FILE, fix="set data_dir or files")
    what = kind_of(content)
    if what is not None:
        raise UserError(found=f"{file} that is {what}", expected=EXPECTED_FILE, fix="fetch or unpack the file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            found=f"{file} that is not UTF-8 text (byte {error.start:,} is 0x{content[error.start]:02x})",
            expected=EXPECTED_FILE,
            fix="convert it to UTF-8, or unpack it",
        ) from error


@dataclass(frozen=True)
class Loaded:
    """What a model folder gives. drawn: heads whose weights are not its own; left_over: weights not taken."""

    tokenizer: WordPieces
    model: Any  # BertForSequenceClassification, fp32
    drawn: list[str]
    left_over: list[str]


def load_classifier(folder: Path, *, num_answers: int, is_pretrained: bool, draws_head: bool, seed: int) -> Loaded:
    """Tokenizer and fp32 model; `seed` draws the head, a pooler that the folder does not hold, or all weights.

    draws_head: False takes the folder's own. Raises UserError, with the file, for what cannot be used as it is.
    """
    config = read_model_config(folder)
    pieces = read_tokenizer(folder)
    config.pad_token_id = pieces.pad_id if pieces.pad_id < config.vocab_size else None
    config.num_labels = num_answers
    check_ids(config, pieces, folder)
    torch.manual_seed(seed)
    model = BertForSequenceClassification._from_config(config, dtype=torch.float32)
    if not is_pretrained:
        return Loaded(pieces, model, list(HEADS), left_over=[])
    is_read = {name: not (draws_head and name.startswith(HEADS["classifier"])) for name in model.state_dict()}
    expected = {name: value for name, value in model.state_dict().items() if is_read[name]}
    found = read_weights(folder, expected, optional=list(HEADS.values()))
    absent = [*found.missing, *(name for name, is_one in is_read.items() if not is_one)]
    drawn = [head for head, prefix in HEADS.items() if any(name.startswith(prefix) for name in absent)]
    if "classifier" in drawn and not draws_head:
        raise UserError(
            found=f"{folder} without a classifier, and num_epochs=0",
            expected="a model fine-tuned on the task",
            fix="set num_epochs, or set model_dir to the model/ folder of a finished `bert-lamb glue`",
        )
    model.load_state_dict(found.taken, strict=False)
    torch.manual_seed(seed)
    for head, linear in (("classifier", model.classifier), ("pooler", model.bert.pooler.dense)):
        if head in drawn:
            torch.nn.init.normal_(linear.weight, std=config.initializer_range)
            torch.nn.init.zeros_(linear.bias)
    return Loaded(pieces, model, drawn, found.left_over)


def _part_of(name: str) -> str:
    return str(name).removeprefix("bert.").split(".")[0]


def describe_model(loaded: Loaded, *, is_pretrained: bool) -> str:
    """One line on what is fine-tuned: sizes, which weights are read, drawn and not used."""
    sizes = loaded.model.config
    left_over = sorted({_part_of(key) for key in loaded.left_over})
    if not is_pretrained:
        weights = "random weights"
    else:
        weights = ", ".join(["pretrained weights", *(f"new {part}" for part in loaded.drawn)])
    return f"BERT with {sizes.num_hidden_layers} layers, hidden size {sizes.hidden_size}, {weights}" + (
        f"; not used: {', '.join(left_over)}" if left_over else ""
    )
