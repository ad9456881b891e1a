"""The weights of a model folder under the names of the model that takes them, compared before any is read.

Two spellings of the same weights are accepted: with and without the prefix "bert.", and LayerNorm's gamma and beta of
old checkpoints. The encoder must be there exactly as config.json describes it: neither a tensor less nor one more.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bert_lamb.checkpoint.folder.stored import Stored
from bert_lamb.checkpoint.folder.weight_files import list_weights
from bert_lamb.errors import UserError

FLOATS = ("F64", "F32", "F16", "BF16")
PREFIX = "bert."
POOLER = "bert.pooler."
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
ENCODER = re.compile(r"(embeddings|encoder|pooler)\.")
BUFFERS = {"embeddings.position_ids", "embeddings.token_type_ids"}  # computed, never learned
SIZE_OF_NAME = {  # which settings of config.json say how large a weight is
    "word_embeddings": "vocab_size, hidden_size",
    "position_embeddings": "max_position_embeddings, hidden_size",
    "token_type_embeddings": "type_vocab_size, hidden_size",
    "intermediate.dense": "intermediate_size, hidden_size",
    "output.dense": "intermediate_size, hidden_size",
    "cls.predictions.bias": "vocab_size",
    "qa_outputs": "start and end logits",
}


@dataclass(frozen=True)
class Weights:
    """What a model takes from a folder, and what is there more or less.

    taken: fp32 by the model's names. missing: the model's names of optional parts that the folder does not have.
    left_over: keys of the folder, as it spells them, that the model does not take.
    """

    taken: dict[str, Tensor]
    missing: list[str]
    left_over: list[str]


def read_weights(
    folder: Path, expected: Mapping[str, Tensor], *, optional: Sequence[str] = (), option: str = "model_dir"
) -> Weights:
    """The weights that a model with the parameters `expected` takes from a folder.

    expected: the model's parameters or state (BertForQuestionAnswering, BertForSequenceClassification, ...), of which
    only names and shapes matter. optional: beginnings of names ("qa_outputs.", "bert.pooler."); each such part may be
    absent, but as a whole. option: the key that names the folder, for messages. Raises UserError as `take_weights`,
    and for a file that is damaged or absent.
    """
    stored = by_our_name(list_weights(folder, option=option))
    return take_weights(stored, expected, place=folder, optional=optional, option=option)


def take_weights(
    stored: Mapping[str, Stored],
    expected: Mapping[str, Tensor],
    *,
    place: Path,
    optional: Sequence[str] = (),
    option: str = "model_dir",
) -> Weights:
    """The weights that a model takes of those that are stored, by its names.

    place: where they are stored, for messages; the rest as `read_weights`. Raises UserError for a weight that is
    missing, of another size, no floating point number or not finite, and for weights of the encoder that config.json
    does not describe.
    """
    wanted = {name: tuple(one.shape) for name, one in expected.items() if not _is_buffer(name)}
    parts = [{name for name in wanted if name.startswith(part)} for part in optional]
    missing = set().union(*(part for part in parts if part.isdisjoint(stored)))
    _check_names(place, stored, wanted.keys(), wanted.keys() - missing, option)
    taken = {name: stored[name] for name in wanted if name not in missing}
    _check_shapes(taken, wanted)
    weights = {name: _read(one, option) for name, one in taken.items()}
    left_over = [one.key for name, one in stored.items() if name not in taken and not _is_buffer(name)]
    return Weights(weights, sorted(missing), sorted(left_over))


def by_our_name(found: Sequence[Stored]) -> dict[str, Stored]:
    """The tensors as transformers' BERT models name them: encoder and pooler below "bert.", the heads beside it."""
    named: dict[str, Stored] = {}
    for one in found:
        name = one.key.removeprefix(PREFIX)
        for old, new in OLD_NAMES.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if one.key.startswith(PREFIX) or ENCODER.match(name):
            name = PREFIX + name
        if name in named:
            raise UserError(
                found=f"both {named[name].key} and {one.key} in {one.file.parent}",
                expected="each weight under one name",
                fix="save the model again with transformers",
            )
        named[name] = one
    return named


def _is_buffer(name: str) -> bool:
    return name.removeprefix(PREFIX) in BUFFERS


def _read(one: Stored, option: str) -> Tensor:
    """fp32, in memory of its own."""
    tensor = one.read().to(torch.float32, copy=True).contiguous()
    if not tensor.isfinite().all():
        raise UserError(
            found=f"{one.key} in {one.file} with values that are not finite",
            expected="numbers",
            fix=f"set {option} to a checkpoint from before the training diverged",
        )
    return tensor


def _check_names(place: Path, stored: Mapping[str, Stored], wanted: Set[str], required: Set[str], option: str) -> None:
    absent = required - stored.keys()
    has_pooler = any(name.startswith(POOLER) for name in wanted)
    foreign = sorted(
        one.key
        for name, one in stored.items()
        if name.startswith(PREFIX)
        and name not in wanted
        and (has_pooler or not name.startswith(POOLER))
        and not _is_buffer(name)
    )
    if absent:
        others = sorted(one.key for name, one in stored.items() if name not in wanted)
        raise UserError(
            found=f"{place} without {len(absent)} weights, such as {min(absent)}"
            + (f" (it has {others[0]} and others that are not BERT's)" if others and len(absent) > 1 else ""),
            expected="every weight of the encoder that config.json describes",
            fix="export the model again, or correct config.json",
        )
    if foreign:
        raise UserError(
            found=f"{len(foreign)} weights of the encoder in {place} that config.json does not describe, such as "
            f"{foreign[-1]}",
            expected="the encoder of config.json (num_hidden_layers and the like) and nothing else",
            fix=f"correct config.json, or set {option} to a plain BERT",
        )


def _check_shapes(taken: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]]) -> None:
    odd = [one for one in taken.values() if one.dtype not in FLOATS]
    if odd:
        raise UserError(
            found=f"{odd[0].key} as {odd[0].dtype} in {odd[0].file}",
            expected=f"floating point numbers ({', '.join(FLOATS)})",
            fix="use the model as it was before quantization",
        )
    differing = [name for name, one in taken.items() if one.shape != shapes[name]]
    if differing:
        name = differing[0]
        one = taken[name]
        settings = next((keys for part, keys in SIZE_OF_NAME.items() if part in name), "hidden_size")
        raise UserError(
            found=f"{one.key} of {_times(one.shape)} in {one.file} ({len(differing)} of {len(taken)} weights differ)",
            expected=f"{_times(shapes[name])}, by config.json ({settings})",
            fix="put the config.json of these weights into the folder",
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape) or "a single number"
