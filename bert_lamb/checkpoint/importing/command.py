"""`bert-lamb import`: somebody else's checkpoint -> a folder that transformers and every command here load."""

import json
from pathlib import Path

from safetensors.torch import save_file
from transformers import BertConfig

from bert_lamb.checkpoint.folder import model_config
from bert_lamb.checkpoint.folder.contents import check_ids
from bert_lamb.checkpoint.folder.pretrained import take_pretrained
from bert_lamb.checkpoint.folder.tokenizer import read_plain_tokenizer, read_tokenizer
from bert_lamb.checkpoint.folder.vocabulary import CONFIG_FILE, TOKENIZER_FILE, VOCABULARY_FILE
from bert_lamb.checkpoint.folder.weight_files import SINGLE
from bert_lamb.checkpoint.folder.weights import Weights
from bert_lamb.checkpoint.folder.word_pieces import WordPieces
from bert_lamb.checkpoint.importing.sources import OPTION, Source, config_of, open_source, require_file, without_padding
from bert_lamb.errors import UserError
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.outputs.model_card import render_card, share_files
from bert_lamb.outputs.staged import OutputKind, begin_again, check_purpose, is_complete, publish

ORIGIN_FILE = "bert_lamb_import.json"  # what was imported: format, files with their sha256
KIND = OutputKind("an imported model", ORIGIN_FILE, key="source_files")
HEADS = {"pooler": "bert.pooler.", "masked LM": "cls.predictions.", "sentence task": "cls.seq_relationship."}
CARD_TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def import_checkpoint(
    *,
    source: Path,
    config_file: Path | None,
    vocabulary_file: Path | None,
    is_lowercase: bool | None,
    output_dir: Path,
    if_exists: str,
) -> None:
    """Write weights (fp32), configuration, tokenizer and a model card, and print what was there.

    source: a model folder, a file of torch.save, or a TensorFlow checkpoint. config_file, vocabulary_file: where they
    do not lie beside the weights. is_lowercase: for a vocab.txt with nothing beside it; None: lower-case. Raises
    UserError for everything that cannot be used, before an older output is replaced.
    """
    opened = open_source(source)
    sizes_file = config_of(opened, config_file)
    config = _read_config(sizes_file)
    pieces, vocabulary = _read_tokenizer(opened, vocabulary_file, is_lowercase)
    stored, num_cut = without_padding(opened.stored, config.vocab_size)
    weights = take_pretrained(stored, config, place=source, option=OPTION)
    check_ids(config, pieces, vocabulary)
    files = {file.name: file_sha256(file) for file in (*opened.files, sizes_file, vocabulary)}
    origin = {"format": opened.format, "source_files": files, "is_lowercase": pieces.casing.is_lowercase}
    if is_complete(output_dir, KIND, if_exists=if_exists):
        check_purpose(json.loads((output_dir / ORIGIN_FILE).read_text(encoding="utf-8")), origin, output_dir, KIND)
        print(f"{output_dir} already holds {source}")
        return
    partial = begin_again(output_dir, KIND)
    _write_model(partial, config, weights, pieces)
    (partial / "README.md").write_text(_model_card(source, opened, config, weights, pieces, files), encoding="utf-8")
    (partial / ORIGIN_FILE).write_text(json.dumps(origin, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    publish(output_dir)
    print(f"imported {source} ({opened.format}) to {output_dir}: {_summary(opened, config, weights, num_cut)}")
    if (warning := pieces.warn_of_casing()) is not None:
        print(f"{vocabulary}: {warning}")


def _read_config(file: Path) -> BertConfig:
    """The sizes in a config.json, or in Google's bert_config.json, which does not say that it is a BERT's."""
    content = model_config.read_object(file, option=OPTION)
    return model_config.to_bert_config({"model_type": "bert", **content}, file, option=OPTION)


def _read_tokenizer(source: Source, vocabulary_file: Path | None, is_lowercase: bool | None) -> tuple[WordPieces, Path]:
    """The tokenizer, and the file that has its vocabulary."""
    folder = source.folder
    beside = folder / VOCABULARY_FILE
    settings = [folder / name for name in (TOKENIZER_FILE, CONFIG_FILE) if (folder / name).is_file()]
    if vocabulary_file is not None or (beside.is_file() and not settings):
        file = require_file(vocabulary_file, "vocab") if vocabulary_file is not None else beside
        return read_plain_tokenizer(file, is_lowercase=is_lowercase is not False), file
    if not settings:
        raise UserError(
            found=f"no {VOCABULARY_FILE} and no {TOKENIZER_FILE} in {folder}",
            expected="the vocabulary of the model",
            fix="set vocab to the file with it",
        )
    pieces = read_tokenizer(folder)
    if is_lowercase not in (None, pieces.casing.is_lowercase):
        raise UserError(
            found=f"is_lowercase={str(is_lowercase).lower()} with {settings[-1]}, which says otherwise",
            expected="the casing that the model was pretrained with",
            fix="leave is_lowercase out, or set vocab to use the vocabulary alone",
        )
    return pieces, folder / TOKENIZER_FILE if (folder / TOKENIZER_FILE).is_file() else beside


def _write_model(folder: Path, config: BertConfig, weights: Weights, pieces: WordPieces) -> None:
    """The files that transformers reads."""
    config.pad_token_id = pieces.pad_id
    config.architectures = [_architecture(weights)]
    config.save_pretrained(folder)
    save_file(weights.taken, folder / SINGLE, metadata={"format": "pt"})
    pieces.for_transformers(model_max_length=config.max_position_embeddings).save_pretrained(folder)
    if "" not in pieces.entries:
        (folder / VOCABULARY_FILE).write_text("".join(f"{entry}\n" for entry in pieces.entries), encoding="utf-8")
    share_files(folder)


def _architecture(weights: Weights) -> str:
    """The class of transformers that takes the most of the weights and draws none."""
    has = _heads(weights)
    if len(has) == len(HEADS):
        return "BertForPreTraining"
    return "BertForMaskedLM" if "masked LM" in has else "BertModel"


def _heads(weights: Weights) -> list[str]:
    return [name for name, part in HEADS.items() if any(key.startswith(part) for key in weights.taken)]


def _summary(source: Source, config: BertConfig, weights: Weights, num_cut: int) -> str:
    heads = _heads(weights)
    absent = [name for name in HEADS if name not in heads]
    left_over = sorted({key.removeprefix("bert.").split(".")[0].split("/")[0] for key in weights.left_over})
    dtypes = sorted({one.dtype for name, one in source.stored.items() if name in weights.taken} - {"F32"})
    return (
        f"BERT with {config.num_hidden_layers} layers, hidden size {config.hidden_size}; "
        f"with {', '.join(heads) or 'no head'}"
        + (f"; without {', '.join(absent)}" if absent else "")
        + (f"; not taken: {', '.join(left_over)}" if left_over else "")
        + (f"; {num_cut} rows that pad the vocabulary cut off" if num_cut else "")
        + (f"; stored as {', '.join(dtypes)}" if dtypes else "")
    )


def _model_card(
    source: Path, opened: Source, config: BertConfig, weights: Weights, pieces: WordPieces, files: dict[str, str]
) -> str:
    """The README.md of an imported model, by model_card.md.j2."""
    return render_card(
        CARD_TEMPLATE,
        source=source.name,
        format=opened.format,
        config=config,
        heads=_heads(weights),
        is_lowercase=pieces.casing.is_lowercase,
        files=files,
    )
