"""The weights of a model folder: every tensor found, named and measured before any is read.

Two spellings of the same weights are accepted: with and without the prefix "bert.", and LayerNorm's gamma and beta of
old checkpoints. The encoder must be there exactly as config.json describes it: neither a tensor less nor one more.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.files import LFS_POINTER, PULL, kind_of, read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FOREIGN = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
FLOATS = ("F64", "F32", "F16", "BF16")
PREFIX = "bert."
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
ENCODER = re.compile(r"(embeddings|encoder)\.")
BUFFERS = {"embeddings.position_ids", "embeddings.token_type_ids"}  # computed, never learned
QA_HEAD = {"qa_outputs.weight", "qa_outputs.bias"}
FIX = "set model_dir to an export, or to a folder with a Hugging Face BERT"
FETCH = "fetch the file again"
SIZE_OF_NAME = {  # which settings of config.json say how large a weight is
    "word_embeddings": "vocab_size, hidden_size",
    "position_embeddings": "max_position_embeddings, hidden_size",
    "token_type_embeddings": "type_vocab_size, hidden_size",
    "intermediate.dense": "intermediate_size, hidden_size",
    "output.dense": "intermediate_size, hidden_size",
}


@dataclass(frozen=True)
class Stored:
    """One tensor as it is in a file."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str  # in the words of safetensors: F32, BF16


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: model.safetensors, else the shards that the index names, complete or refused."""
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        files = sorted({folder / name for name in _index(folder).values()})
        for file in files:
            if not file.is_file():
                raise UserError(found=f"no file {file}", expected=f"it, as {INDEX} names it", fix=FETCH)
        return files
    if any((folder / name).is_file() for name in FOREIGN):
        there = next(name for name in FOREIGN if (folder / name).is_file())
        raise UserError(
            found=f"{there} without {SINGLE} in {folder}",
            expected="the weights as safetensors",
            fix='convert them: python -c "from transformers import BertForPreTraining as B; '
            f"B.from_pretrained('{folder}').save_pretrained('NEW')\", copy the tokenizer's files to NEW and set "
            "model_dir=NEW",
        )
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    raise UserError(
        found=f"no {SINGLE} in {folder}" + (f", but {', '.join(others[:3])}" if others else ""),
        expected="the weights as safetensors",
        fix=FIX,
    )


def read_weights(
    folder: Path, expected: Mapping[str, Tensor], *, needs_head: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights that a model with the parameters `expected` takes, as fp32 by its names, and the keys left over.

    expected: BertForQuestionAnswering's state, of which only names and shapes matter. needs_head: the folder must hold
    the question-answering head too; otherwise the head is returned if it is there. Raises UserError for a file that is
    damaged or absent, a weight that is missing, of another size, no floating point number or not finite, and for
    weights of the encoder that config.json does not describe.
    """
    stored = _by_our_name(list_weights(folder))
    wanted = {name: tensor for name, tensor in expected.items() if name.removeprefix(PREFIX) not in BUFFERS}
    _check_names(folder, stored, set(wanted), needs_head=needs_head)
    taken = {name: stored[name] for name in wanted if name in stored}
    _check_shapes(taken, {name: tuple(tensor.shape) for name, tensor in wanted.items()})
    weights: dict[str, Tensor] = {}
    for file in sorted({one.file for one in taken.values()}):
        with safe_open(file, framework="pt") as opened:
            for name, one in taken.items():
                if one.file == file:
                    weights[name] = opened.get_tensor(one.key).to(torch.float32)
                    if not weights[name].isfinite().all():
                        raise UserError(
                            found=f"{one.key} in {file} with values that are not finite",
                            expected="numbers",
                            fix="set model_dir to a checkpoint from before the training diverged",
                        )
    return weights, sorted(one.key for name, one in stored.items() if name not in taken)


def list_weights(folder: Path) -> list[Stored]:
    """Every tensor of the folder's weight files; with an index, each must be in the file that the index names."""
    files = weight_files(folder)
    found = [one for file in files for one in _tensors_of(file)]
    if files != [folder / SINGLE]:
        index = _index(folder)
        there = {one.key: one.file.name for one in found}
        for key, name in index.items():
            if there.get(key) != name:
                raise UserError(
                    found=f"{folder / name} without {key}", expected=f"it, as {INDEX} says", fix="fetch both again"
                )
        for key, name in there.items():
            if key not in index:
                raise UserError(
                    found=f"{key} in {folder / name}, which {INDEX} does not name",
                    expected="the same weights in both",
                    fix="fetch both again",
                )
    return found


def _index(folder: Path) -> dict[str, str]:
    """Key -> file name of a sharded model."""
    file = folder / INDEX
    content = read_json(file, expected="the index of the shards as json", fix=FETCH)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    is_sound = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
    if not is_sound or not weight_map or any(Path(name).name != name for name in weight_map.values()):
        raise UserError(found=f"{file} without a weight_map of file names", expected="one", fix=FETCH)
    return dict(weight_map)


def _tensors_of(file: Path) -> list[Stored]:
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (safe_open is no dict)
            return [Stored(file, key, tuple(one.get_shape()), one.get_dtype()) for key, one in slices.items()]
    except (SafetensorError, OSError) as error:
        raise refusal_of_weights(file, error) from error


def refusal_of_weights(file: Path, error: Exception) -> UserError:
    """What a file that safetensors cannot open is, from its first bytes, and what to do about it."""
    head = b""
    with suppress(OSError), file.open("rb") as stream:
        head = stream.read(len(LFS_POINTER))
    if file.is_dir():
        return UserError(found=f"a folder at {file}", expected="a safetensors file", fix=FETCH)
    if isinstance(error, PermissionError):
        return UserError(found=f"{file} that may not be read", expected="a readable file", fix="check its permissions")
    is_other = not head or head.startswith((LFS_POINTER, b"PK", b"<", b"\x89HDF"))
    what = kind_of(head) if is_other else f"damaged or cut short ({' '.join(str(error).split())})"
    fix = PULL if head == LFS_POINTER else FETCH
    return UserError(
        found=f"{file} ({file.stat().st_size:,} bytes) that is {what}", expected="a safetensors file", fix=fix
    )


def _by_our_name(found: list[Stored]) -> dict[str, Stored]:
    """The tensors as BertForQuestionAnswering names them: encoder and pooler below "bert.", the heads beside it."""
    named: dict[str, Stored] = {}
    for one in found:
        name = one.key.removeprefix(PREFIX)
        for old, new in OLD_NAMES.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if one.key.startswith(PREFIX) or ENCODER.match(name) or name.startswith("pooler."):
            name = PREFIX + name
        if name in named:
            raise UserError(
                found=f"both {named[name].key} and {one.key} in {one.file.parent}",
                expected="each weight under one name",
                fix="save the model again with transformers",
            )
        named[name] = one
    return named


def _check_names(folder: Path, stored: Mapping[str, Stored], wanted: set[str], *, needs_head: bool) -> None:
    has_head = any(name in stored for name in QA_HEAD)
    absent = wanted - stored.keys() - (set() if needs_head or has_head else QA_HEAD)
    foreign = sorted(
        one.key
        for name, one in stored.items()
        if name.startswith(PREFIX)
        and name not in wanted
        and not name.startswith(f"{PREFIX}pooler.")
        and name.removeprefix(PREFIX) not in BUFFERS
    )
    if absent and absent <= QA_HEAD and not has_head:
        raise UserError(
            found=f"{folder} without a question-answering head (qa_outputs)",
            expected="a model fine-tuned on questions, since train_file is not set",
            fix="set train_file, or set model_dir to the model/ folder of a finished `bert-lamb squad`",
        )
    if absent:
        others = sorted(one.key for name, one in stored.items() if name not in wanted)
        raise UserError(
            found=f"{folder} without {len(absent)} weights, such as {min(absent)}"
            + (f" (it has {others[0]} and others that are not BERT's)" if others and len(absent) > 1 else ""),
            expected="every weight of the encoder that config.json describes",
            fix="export the model again, or correct config.json",
        )
    if foreign:
        raise UserError(
            found=f"{len(foreign)} weights of the encoder in {folder} that config.json does not describe, such as "
            f"{foreign[-1]}",
            expected="the encoder of config.json (num_hidden_layers and the like) and nothing else",
            fix="correct config.json, or set model_dir to a plain BERT",
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
        if name in QA_HEAD:
            settings = "start and end logits"
        raise UserError(
            found=f"{one.key} of {_times(one.shape)} in {one.file} ({len(differing)} of {len(taken)} weights differ)",
            expected=f"{_times(shapes[name])}, by config.json ({settings})",
            fix="put the config.json of these weights into the folder",
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape) or "a single number"
