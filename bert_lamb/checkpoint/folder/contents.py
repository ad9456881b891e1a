"""What a model folder consists of, and what holds between its parts."""

from pathlib import Path

from transformers import BertConfig

from bert_lamb.checkpoint.folder import model_config, tokenizer, vocabulary
from bert_lamb.checkpoint.folder.weight_files import weight_files
from bert_lamb.checkpoint.folder.word_pieces import WordPieces
from bert_lamb.errors import UserError


def check_folder(folder: Path, *, option: str = "model_dir") -> None:
    """Refuse what is no model folder at all. option: the key that names it, for messages."""
    if not folder.is_dir():
        raise UserError(
            found=f"no folder {folder}",
            expected="a model's folder on this machine",
            fix=f"set {option}; a model of the hub is fetched with: hf download {folder} --local-dir FOLDER",
        )
    model_config.read_object(folder / model_config.NAME, option=option)


def input_files(folder: Path, *, is_pretrained: bool = True, option: str = "model_dir") -> dict[str, Path]:
    """Name -> path of the files that decide what the model computes. is_pretrained: the weights are among them."""
    files = {name: folder / name for name in (model_config.NAME, *tokenizer.FILES) if (folder / name).is_file()}
    if is_pretrained:
        files |= {file.name: file for file in weight_files(folder, option=option)}
    return files


def check_ids(config: BertConfig, pieces: WordPieces, folder: Path) -> None:
    """Refuse a tokenizer with more ids than the model has embeddings."""
    if pieces.num_ids > config.vocab_size:
        raise UserError(
            found=f"token ids up to {pieces.num_ids - 1:,} in {folder} with vocab_size={config.vocab_size:,}",
            expected="no more ids than embeddings",
            fix=vocabulary.FIX,
        )
