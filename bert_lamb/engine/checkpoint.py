"""Checkpoints that know nothing of ranks: fp32 weights and moments by parameter name, written in fragments.

Each rank writes the fragments it owns to one safetensors file; `checkpoint.json`, written last, makes the folder a
checkpoint. Reading asks for any range of any parameter, so a run resumes on another number of ranks, another ZeRO stage
or the other engine. README.md of this room says why DeepSpeed's own checkpoints are not used.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bert_lamb.engine.protocol import Engine
from bert_lamb.errors import UserError

FORMAT_VERSION = 2  # 2: says which tensors it holds, since optimizers differ in their moments
META_FILE = "checkpoint.json"


@dataclass(frozen=True)
class Position:
    """Where a run stands: after `step` optimizer steps of `phase`.

    optimizer_step: applied steps as bias correction counts them. loss_scale: of fp16, else None.
    """

    phase: str
    step: int
    optimizer_step: int
    loss_scale: float | None = None


def hand_over(finished: Position, *, next_phase: str) -> Position:
    """Where the next phase starts: weights and moments are kept, the schedule and bias correction start again.

    Source: NVIDIA's BERT keeps the optimizer's moments and resets its step for phase 2; the paper (section 4.1)
    re-warms the learning rate up from zero.
    """
    return Position(phase=next_phase, step=0, optimizer_step=0, loss_scale=finished.loss_scale)


def save_checkpoint(
    engine: Engine, directory: Path, *, position: Position, shapes: Mapping[str, torch.Size], about: Mapping[str, Any]
) -> None:
    """Write a checkpoint of every rank's state into `directory`, which appears complete or not at all.

    shapes: of every parameter by name. about: more facts for checkpoint.json. All ranks call it; they need to see
    the same file system. An unfinished folder ends in .partial and is overwritten by the next attempt.
    """
    partial = directory.with_name(directory.name + ".partial")
    if engine.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    engine.barrier()
    fragments = list(engine.owned_fragments())
    tensors = {
        f"{kind}/{fragment.name}/{fragment.start}": tensor.detach().to("cpu", torch.float32).contiguous().clone()
        for fragment in fragments
        for kind, tensor in fragment.tensors.items()
    }
    file = partial / f"rank-{engine.rank:05d}-of-{engine.world_size:05d}.safetensors"
    save_file(tensors, file)
    _flush_to_disk(file)
    engine.barrier()
    if engine.rank == 0:
        meta = {
            "format": "bert_lamb.checkpoint",
            "format_version": FORMAT_VERSION,
            "position": asdict(position),
            "world_size": engine.world_size,
            "tensor_kinds": list(fragments[0].tensors),
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "files": {path.name: path.stat().st_size for path in sorted(partial.glob("*.safetensors"))},
            **about,
        }
        meta_file = partial / META_FILE
        meta_file.write_text(json.dumps(meta, indent=1) + "\n")
        _flush_to_disk(meta_file)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
        _flush_to_disk(directory.parent)
    engine.barrier()


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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


class Checkpoint:
    """A complete checkpoint folder, opened for reading; raises UserError when it is damaged or of another version."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.meta = read_meta(directory)
        self.position = Position(**self.meta["position"])
        self.shapes = {name: torch.Size(shape) for name, shape in self.meta["shapes"].items()}
        self._where: dict[tuple[str, str], list[tuple[int, int, str, str]]] = defaultdict(list)
        self._check_files()
        for file in self.meta["files"]:
            self._list_fragments(file)
        self._check_if_complete()

    def _check_files(self) -> None:
        """The ranks' files are those that checkpoint.json names, no less and no more, each of its size."""
        for file, num_bytes in self.meta["files"].items():
            path = self.directory / file
            if not path.is_file() or path.stat().st_size != num_bytes:
                size = f"{path.stat().st_size} bytes" if path.is_file() else "nothing"
                raise UserError(
                    found=f"{size} at {path}", expected=f"{num_bytes} bytes", fix="use an earlier checkpoint"
                )
        strangers = sorted(
            {path.name for path in self.directory.glob("rank-*.safetensors")} - self.meta["files"].keys()
        )
        if strangers:
            raise UserError(
                found=f"{self.directory / strangers[0]}, which {META_FILE} does not name",
                expected=f"the files of {len(self.meta['files'])} ranks",
                fix="remove it if it came from another checkpoint, or use an earlier one",
            )

    def _list_fragments(self, file: str) -> None:
        """Note where each fragment of a rank's file is."""
        path = self.directory / file
        try:
            with safe_open(path, framework="pt") as opened:
                slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (safe_open is no dict)
                found = {key: (one.get_shape(), one.get_dtype()) for key, one in slices.items()}
        except (SafetensorError, OSError) as error:
            raise UserError(
                found=f"{path} that cannot be read as safetensors ({' '.join(str(error).split())})",
                expected="what a rank wrote there",
                fix="use an earlier checkpoint",
            ) from error
        for key, (shape, dtype) in found.items():
            kind, _, rest = key.partition("/")
            name, _, start = rest.rpartition("/")
            is_known = kind in self.meta["tensor_kinds"] and name in self.shapes and start.isdecimal()
            if not is_known or len(shape) != 1 or dtype != "F32":
                raise UserError(
                    found=f"{key} ({dtype}, {len(shape)}-dimensional) in {path}",
                    expected=f"fp32 fragments of the parameters that {META_FILE} names",
                    fix="use an earlier checkpoint",
                )
            self._where[kind, name].append((int(start), int(start) + shape[0], file, key))

    def read(self, kind: str, name: str, start: int, numel: int) -> Tensor:
        """Elements start..start+numel of the flattened parameter `name`; kind is "weight" or a moment. [numel] fp32."""
        out = torch.empty(numel)
        for begin, end, file, key in self._where[kind, name]:
            first, last = max(begin, start), min(end, start + numel)
            if first < last:
                with safe_open(self.directory / file, framework="pt") as opened:
                    out[first - start : last - start] = opened.get_slice(key)[first - begin : last - begin]
        return out

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter by name, whole, in fp32."""
        for name, shape in self.shapes.items():
            yield name, self.read("weight", name, 0, shape.numel()).view(shape)

    def load_into(self, engine: Engine) -> None:
        """Copy weights and moments into the state this engine's rank computes with; the position is the caller's.

        The engine must have been built on a model that already holds `weights()`, so that the copies in compute
        precision agree with the masters written here.
        """
        for fragment in engine.held_fragments():
            if set(fragment.tensors) != set(self.meta["tensor_kinds"]):
                raise UserError(
                    found=f"{', '.join(self.meta['tensor_kinds'])} in {self.directory}",
                    expected=f"{', '.join(fragment.tensors)}, which this optimizer needs",
                    fix="resume with the optimizer that wrote it",
                )
            for kind, tensor in fragment.tensors.items():
                tensor.copy_(self.read(kind, fragment.name, fragment.start, fragment.numel))

    def _check_if_complete(self) -> None:
        for name, shape in self.shapes.items():
            for kind in self.meta["tensor_kinds"]:
                position, is_sound = 0, True
                for begin, end, *_ in sorted(self._where[kind, name]):
                    is_sound = is_sound and begin == position
                    position = end if is_sound else position
                if not is_sound or position != shape.numel():
                    raise UserError(
                        found=f"{position} of {shape.numel()} elements of {kind} of {name} in {self.directory}",
                        expected="all of them, once",
                        fix="use an earlier checkpoint",
                    )
