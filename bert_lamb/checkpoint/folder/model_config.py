"""config.json of a model folder -> the sizes and settings that our BERT computes with, or a refusal.

Only the settings named here reach the model. One that would change what BERT computes, and that we do not compute, is
refused; all others (labels of an earlier task, caching, output options) say nothing about the encoder.
"""

import math
from pathlib import Path
from typing import Any

from transformers import BertConfig
from transformers.activations import ACT2FN

from bert_lamb.checkpoint.folder.files import read_json
from bert_lamb.errors import UserError

NAME = "config.json"
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
DEFAULT_SIZES = {"type_vocab_size": 2}  # no other size is taken for granted
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
# setting: the values with which it changes nothing
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "auto_map": ({}, None),  # classes of the folder's own
    "embedding_size": (None,),
    "adapters": (None,),
}


def read_model_config(folder: Path, *, option: str = "model_dir") -> BertConfig:
    """The checked configuration of a folder's BERT, with transformers' defaults for everything beside the encoder.

    option: the key that names the folder, for messages. Raises UserError for what is missing, out of range, or not
    computed here.
    """
    file = folder / NAME
    return to_bert_config(read_object(file, option=option), file, option=option)


def to_bert_config(content: dict[str, Any], file: Path, *, option: str) -> BertConfig:
    """The settings of the encoder, checked; file: where they were read."""
    fix = _fix(option)
    if content.get("model_type") != "bert":
        raise UserError(
            found=f"model_type {content.get('model_type')!r} in {file}",
            expected="'bert'",
            fix=f"{fix}; a configuration of Google needs bert-lamb import",
        )
    for key, harmless in WITHOUT_EFFECT.items():
        value = content.get(key)
        if value not in harmless:
            raise UserError(
                found=f"{key}={value!r} in {file}", expected=f"a plain BERT encoder ({key}={harmless[0]!r})", fix=fix
            )
    settings: dict[str, Any] = {key: _size(content, key, file) for key in SIZES}
    if settings["hidden_size"] % settings["num_attention_heads"]:
        raise UserError(
            found=f"hidden_size={settings['hidden_size']} with num_attention_heads={settings['num_attention_heads']} "
            f"in {file}",
            expected="a hidden size that the heads divide",
            fix="correct config.json",
        )
    if settings["type_vocab_size"] < 2:
        raise UserError(
            found=f"type_vocab_size={settings['type_vocab_size']} in {file}",
            expected="2 token types, one for the question and one for the context",
            fix="use a model that was pretrained on pairs of texts",
        )
    for key in DROPOUTS:
        settings[key] = _number(content, key, 0.1, file, lowest=0.0, below=1.0)
    settings["layer_norm_eps"] = _number(content, "layer_norm_eps", 1e-12, file, lowest=0.0, below=1.0)
    settings["initializer_range"] = _number(content, "initializer_range", 0.02, file, lowest=0.0, below=math.inf)
    activation = content.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACT2FN:
        raise UserError(found=f"hidden_act={activation!r} in {file}", expected="an activation of transformers", fix=fix)
    return BertConfig(**settings, hidden_act=activation)


def read_object(file: Path, *, option: str = "model_dir") -> dict[str, Any]:
    """config.json as it is; UserError if there is none or it is no json object."""
    fix = _fix_of(file.parent, option)
    content = read_json(file, expected="the model's configuration as json", fix=fix)
    if not isinstance(content, dict):
        raise UserError(found=f"{file} with {type(content).__name__}", expected="a json object", fix=_fix(option))
    return content


def _fix(option: str) -> str:
    return f"set {option} to an export, or to a folder with a Hugging Face BERT"


def _fix_of(folder: Path, option: str) -> str:
    """A folder of our own that is not an export says which command makes one."""
    if (folder / "model" / NAME).is_file():  # of a fine-tuning
        return f"set {option}={folder / 'model'}"
    if (folder / "checkpoints").is_dir():
        return f"export the run: bert-lamb export run_dir={folder} output_dir=..., and set {option} to that"
    if (folder / "checkpoint.json").is_file():
        return (
            f"export the checkpoint: bert-lamb export run_dir={folder.parent.parent} checkpoint={folder.name} "
            f"output_dir=..., and set {option} to that"
        )
    return _fix(option)


def _size(content: dict[str, Any], key: str, file: Path) -> int:
    value = content.get(key, DEFAULT_SIZES.get(key))
    if type(value) is not int or value < 1:
        found = f"no {key} in {file}" if value is None else f"{key}={value!r} in {file}"
        raise UserError(found=found, expected="a whole number of 1 or more", fix="correct config.json")
    return value


def _number(content: dict[str, Any], key: str, default: float, file: Path, *, lowest: float, below: float) -> float:
    value = content.get(key, default)
    if type(value) not in (int, float) or not lowest <= value < below:
        raise UserError(
            found=f"{key}={value!r} in {file}",
            expected=f"a number from {lowest:g} up to, but not including, {below:g}",
            fix="correct config.json",
        )
    return float(value)
