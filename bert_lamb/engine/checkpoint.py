"""Checkpoints that know nothing of ranks: fp32 weights and moments by parameter name, written in fragments.

Each rank writes the fragments it owns to one safetensors file; `checkpoint.json`, written last, makes the folder a
checkpoint. Reading asks for any range of any parameter, so a run resumes on another number of ranks, another ZeRO stage
or the other engine. README.md of this room says why DeepSpeed's own checkpoints are not used.
"""

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
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


class Checkpoint:
    """A complete checkpoint folder, opened for reading; raises UserError when it is damaged or of another version."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.meta: dict[str, Any] = json.loads((directory / META_FILE).read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                found=f"no readable {META_FILE} in {directory}",
                expected="a checkpoint folder",
                fix="name a folder under the run's checkpoints/",
            ) from error
        if self.meta.get("format_version") != FORMAT_VERSION:
            raise UserError(
                found=f"checkpoint format version {self.meta.get('format_version')} in {directory}",
                expected=f"version {FORMAT_VERSION}",
                fix="use the version of bert_lamb that wrote it",
            )
        self.position = Position(**self.meta["position"])
        self.shapes = {name: torch.Size(shape) for name, shape in self.meta["shapes"].items()}
        self._where: dict[tuple[str, str], list[tuple[int, int, str, str]]] = defaultdict(list)
        for file, num_bytes in self.meta["files"].items():
            path = directory / file
            if not path.exists() or path.stat().st_size != num_bytes:
                size = f"{path.stat().st_size} bytes" if path.exists() else "nothing"
                raise UserError(
                    found=f"{size} at {path}", expected=f"{num_bytes} bytes", fix="use an earlier checkpoint"
                )
            with safe_open(path, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 (safe_open is no dict)
                    kind, name, start = key.rsplit("/", 2)
                    begin = int(start)
                    numel = opened.get_slice(key).get_shape()[0]
                    self._where[kind, name].append((begin, begin + numel, file, key))
        self._check_if_complete()

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
                position = 0
                for begin, end, *_ in sorted(self._where[kind, name]):
                    if begin != position:
                        break
                    position = end
                if position != shape.numel():
                    raise UserError(
                        found=f"{position} of {shape.numel()} elements of {kind} of {name} in {self.directory}",
                        expected="all of them, once",
                        fix="use an earlier checkpoint",
                    )
