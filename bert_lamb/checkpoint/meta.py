"""checkpoint.json: what makes a folder a checkpoint, read and checked."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bert_lamb.checkpoint.position import Position
from bert_lamb.errors import UserError

FORMAT_VERSION = 3  # 3: hashes of the ranks' files and of checkpoint.json itself
WITHOUT_HASHES = 2  # still read
META_FILE = "checkpoint.json"
OPTIONAL_COUNTS = ("batches_skipped", "num_rollbacks", "calm_step")
# Of a position; checkpoints of this version may be without.
YOUNGER = {*OPTIONAL_COUNTS, "loss_scale_counters", "lowest_loss", "recent_losses", "is_target_reached"}
BUFFER, BUFFERS = "buffer", "buffers"  # the kind of a buffer's values in a file; the field with their shapes
OWN_HASH = "sha256"  # of everything else in checkpoint.json


class Damaged(UserError):
    """A checkpoint that is not what was written, or not all of it; an earlier one may be whole."""


def sealed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint.json with the sha256 of all of it, so that a digit that changes is noticed."""
    content = {name: value for name, value in meta.items() if name != OWN_HASH}
    canonical = json.dumps(content, sort_keys=True).encode()
    return {**content, OWN_HASH: hashlib.sha256(canonical).hexdigest()}


def read_meta(directory: Path) -> dict[str, Any]:
    """checkpoint.json, checked, in the form of this version, with everything that reading needs.

    `files` maps names to {"bytes": ..., "sha256": ...}, which is None in a checkpoint of version 2. Raises Damaged, and
    UserError for one that another version of bert_lamb wrote.
    """
    file = directory / META_FILE
    try:
        meta = json.loads(file.read_bytes())
        is_sound = isinstance(meta, dict) and meta.get(OWN_HASH) in (None, sealed(meta)[OWN_HASH])
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(
            found=f"no readable {META_FILE} in {directory}",
            expected="a checkpoint folder",
            fix="name a folder under the run's checkpoints/",
        ) from error
    version = meta.get("format_version") if is_sound else None
    if not is_sound or type(version) is not int or (version == FORMAT_VERSION and OWN_HASH not in meta):
        raise Damaged(
            found=f"{file} that is not as it was written ({OWN_HASH})",
            expected=f"what its {OWN_HASH} was taken of",
            fix="use an earlier checkpoint",
        )
    if version not in (FORMAT_VERSION, WITHOUT_HASHES):
        raise UserError(
            found=f"checkpoint format version {version} in {directory}",
            expected=f"version {FORMAT_VERSION}",
            fix="use the version of bert_lamb that wrote it",
        )
    if version == WITHOUT_HASHES and isinstance(meta.get("files"), dict):
        meta["files"] = {name: {"bytes": num_bytes, "sha256": None} for name, num_bytes in meta["files"].items()}
    wrong = [name for name, is_right in META_FIELDS.items() if not is_right(meta.get(name))]
    if wrong:
        raise Damaged(
            found=f"{wrong[0]}={str(meta.get(wrong[0]))[:60]!r} in {file}",
            expected="what save_checkpoint writes there",
            fix="use an earlier checkpoint",
        )
    return dict(meta)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_file(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"bytes", "sha256"}
        and _is_count(value["bytes"])
        and isinstance(value["sha256"], str | None)
    )


def _is_position(value: Any) -> bool:
    counts = ("step", "optimizer_step", *OPTIONAL_COUNTS)
    return (
        isinstance(value, dict)
        and value.keys() | YOUNGER == {field.name for field in fields(Position)}
        and isinstance(value["phase"], str)
        and all(_is_count(value.get(name, 0)) for name in counts)
        and all(isinstance(value.get(name), int | float | None) for name in ("loss_scale", "lowest_loss"))
        and _are_counters(value.get("loss_scale_counters"))
        and isinstance(value.get("is_target_reached", False), bool)
        and isinstance(value.get("recent_losses", []), list)
        and all(isinstance(loss, int | float) for loss in value.get("recent_losses", []))
    )


def _are_counters(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 3 and all(type(one) is int for one in value))


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _is_mapping_of(value: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and len(value) > 0 and all(is_right(one) for one in value.values())


META_FIELDS: dict[str, Callable[[Any], bool]] = {
    "position": _is_position,
    "tensor_kinds": lambda kinds: isinstance(kinds, list) and "weight" in kinds and all(type(k) is str for k in kinds),
    "shapes": lambda shapes: _is_mapping_of(shapes, _is_shape),
    BUFFERS: lambda shapes: shapes is None or _is_mapping_of(shapes, _is_shape),
    "files": lambda files: _is_mapping_of(files, _is_file) and all(Path(name).name == name for name in files),
}
