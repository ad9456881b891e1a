"""Tensors as files hold them: listed by name, size and dtype first, read one at a time after that.

Two formats: safetensors, and what torch.save writes, which is read without running the code that a pickle can carry.
"""

import argparse
import pickle
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bert_lamb.checkpoint.folder.files import LFS_POINTER, PULL, kind_of
from bert_lamb.errors import UserError

FETCH = "fetch the file again"
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
ZIP, PICKLE = b"PK", b"\x80"  # torch.save since 2020, and before
NO_NUMBERS = (b"<", b"\x89HDF")  # what these are is said instead of what the reader made of them
# What a damaged pickle or zip archive makes torch.load raise; found by cutting and changing small files at every byte.
UNREADABLE = (
    *(RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, MemoryError, ImportError, struct.error),
)


@dataclass(frozen=True)
class Stored:
    """One tensor in a file. dtype: in the words of safetensors, such as F32 and BF16."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]


def list_safetensors(file: Path) -> list[Stored]:
    """Every tensor of a safetensors file; UserError for a file that is damaged or something else."""

    def reading(key: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            with safe_open(file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(key)
            return tensor

        return read

    try:
        with safe_open(file, framework="pt") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (safe_open is no dict)
            return [
                Stored(file, key, tuple(one.get_shape()), one.get_dtype(), reading(key)) for key, one in slices.items()
            ]
    except (SafetensorError, OSError) as error:
        raise refusal(file, error, expected="a safetensors file", others=(ZIP,)) from error


def list_torch_file(file: Path) -> list[Stored]:
    """Every tensor of a file with a plain state dict, such as pytorch_model.bin."""
    content = read_torch_file(file)
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        keys = ", ".join(map(str, list(content)[:3])) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            found=f"{file} without tensors at its top ({keys or 'nothing'})",
            expected="a state dict, name -> tensor",
            fix="for a checkpoint of another trainer: bert-lamb import source=FILE output_dir=FOLDER",
        )
    return list_tensors(content, file)


def list_tensors(content: dict[Any, Any], file: Path) -> list[Stored]:
    """The tensors of a state dict that was read from `file`; what else it holds is no weight."""
    return [
        Stored(file, str(key), tuple(value.shape), _dtype_of(value), value.detach)
        for key, value in content.items()
        if isinstance(value, Tensor)
    ]


def _dtype_of(tensor: Tensor) -> str:
    if tensor.layout is not torch.strided:
        return f"a sparse tensor ({tensor.layout})"
    return DTYPES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))


def read_torch_file(file: Path) -> Any:
    """What torch.save wrote to a file: tensors, mapped into memory where the format allows, and plain values.

    Nothing of the file is run: torch reads it with weights_only=True. Raises UserError for a file that is damaged,
    something else, or holds objects of Python, such as the data loader of a run.
    """
    head = _first_bytes(file)
    if not head.startswith((ZIP, PICKLE)):
        raise refusal(file, "it begins with other bytes", expected="a file of torch.save")
    try:
        # A Namespace is where many trainers keep their arguments; it holds values and has no code of its own.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", mmap=head.startswith(ZIP), weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise refusal(file, "its pickle cannot be read", expected="a file of torch.save") from error
        raise UserError(
            found=f"{file} with a Python object in it ({named[1]})",
            expected="tensors and plain values; reading an object can run any code, so it is not read",
            fix="if you trust who made it, save its weights alone: python -c \"import torch; c = torch.load('FILE', "
            "weights_only=False, map_location='cpu'); torch.save({'model': c.get('model') or c['module']}, 'NEW')\"",
        ) from error
    except UNREADABLE as error:
        raise refusal(file, error, expected="a file of torch.save") from error


def _first_bytes(file: Path) -> bytes:
    head = b""
    with suppress(OSError), file.open("rb") as stream:
        head = stream.read(len(LFS_POINTER))
    return head


def refusal(file: Path, error: Exception | str, *, expected: str, others: tuple[bytes, ...] = ()) -> UserError:
    """What a file is that could not be read as weights, from its first bytes, and what to do about it.

    others: beginnings of further formats that are to be named, because they are not the one that was expected.
    """
    head = _first_bytes(file)
    if file.is_dir():
        return UserError(found=f"a folder at {file}", expected=expected, fix=FETCH)
    if not file.exists():
        return UserError(found=f"no file {file}", expected=expected, fix=FETCH)
    if isinstance(error, PermissionError):
        return UserError(found=f"{file} that may not be read", expected="a readable file", fix="check its permissions")
    is_other = not head or head.startswith((LFS_POINTER, *NO_NUMBERS, *others))
    reason = " ".join(str(error).split())[:200]
    what = kind_of(head) if is_other else f"damaged or cut short ({reason})"
    fix = PULL if head == LFS_POINTER else FETCH
    return UserError(found=f"{file} ({file.stat().st_size:,} bytes) that is {what}", expected=expected, fix=fix)
