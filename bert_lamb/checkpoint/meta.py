"""checkpoint.json: what makes a folder a checkpoint, read and checked."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from bert_lamb.checkpoint.position import Position
from bert_lamb.errors import UserError

FORMAT_VERSION = 2  # 2: says which tensors it holds, since optimizers differ in their moments
META_FILE = "checkpoint.json"


def read_meta(directory: Path) -> dict[str, Any]:
    """checkpoint.json, of this version and with everything that reading needs; raises UserError."""
    file = directory / META_FILE
    try:
        meta = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            found=f"no readable {META_FILE} in {directory}",
            expected="a checkpoint folder",
            fix="name a folder under the run's checkpoints/",
        ) from error
    version = meta.get("format_version") if isinstance(meta, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            found=f"checkpoint format version {version} in {directory}",
            expected=f"version {FORMAT_VERSION}",
            fix="use the version of bert_lamb that wrote it",
        )
    wrong = [name for name, is_right in META_FIELDS.items() if not is_right(meta.get(name))]
    if wrong:
        raise UserError(
            found=f"{wrong[0]}={str(meta.get(wrong[0]))[:60]!r} in {file}",
            expected="what save_checkpoint writes there",
            fix="use an earlier checkpoint",
        )
    return dict(meta)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_position(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {field.name for field in fields(Position)}
        and isinstance(value["phase"], str)
        and _is_count(value["step"])
        and _is_count(value["optimizer_step"])
        and isinstance(value["loss_scale"], int | float | None)
    )


def _is_mapping_of(value: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and len(value) > 0 and all(is_right(one) for one in value.values())


META_FIELDS: dict[str, Callable[[Any], bool]] = {
    "position": _is_position,
    "tensor_kinds": lambda kinds: isinstance(kinds, list) and "weight" in kinds and all(type(k) is str for k in kinds),
    "shapes": lambda shapes: _is_mapping_of(shapes, lambda s: isinstance(s, list) and all(map(_is_count, s))),
    "files": lambda files: _is_mapping_of(files, _is_count) and all(Path(name).name == name for name in files),
}
