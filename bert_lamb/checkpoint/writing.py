"""Write a checkpoint that knows nothing of ranks: fp32 weights and moments by parameter name, in fragments.

Each rank copies the fragments it owns to host memory and writes them to one safetensors file; `checkpoint.json`,
written last, makes the folder a checkpoint. README.md of this room says why DeepSpeed's own checkpoints are not used,
FORMAT.md what the files hold. What is here knows no other rank: who calls it sees to the order.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bert_lamb.checkpoint.meta import BUFFER, BUFFERS, FORMAT_VERSION, META_FILE, sealed
from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.rank_file import write_rank_file
from bert_lamb.engine.protocol import Engine
from bert_lamb.outputs.atomic import PARTIAL_SUFFIX, flush_to_disk, write_atomically


@dataclass(frozen=True)
class Share:
    """What one rank writes. sizes: key in the file -> elements; content: their fp32 bytes, in that order."""

    tensor_kinds: list[str]
    sizes: dict[str, int]
    content: memoryview


class HostCopy:
    """Host memory for what a rank owns, under LAMB and AdamW 12 bytes a parameter; each save uses it again.

    Rank 0 owns the model's buffers.
    """

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None

    def take(self, engine: Engine) -> Share:
        """The state as it is now; valid until the next call. Returns when the copy is complete."""
        fragments = list(engine.owned_fragments())
        tensors = {
            f"{kind}/{fragment.name}/{fragment.start}": tensor.detach()
            for fragment in fragments
            for kind, tensor in fragment.tensors.items()
        }
        if engine.rank == 0:
            tensors |= {f"{BUFFER}/{name}/0": buffer.detach().view(-1) for name, buffer in engine.buffers.items()}
        sizes = {key: tensor.numel() for key, tensor in tensors.items()}
        on_gpu = [tensor.device for tensor in tensors.values() if tensor.is_cuda]
        if self._memory is None or self._memory.numel() != sum(sizes.values()):
            self._memory = torch.empty(sum(sizes.values()), dtype=torch.float32, pin_memory=bool(on_gpu))
        for place, tensor in zip(self._memory.split(list(sizes.values())), tensors.values(), strict=True):
            place.copy_(tensor, non_blocking=True)
        if on_gpu:
            torch.cuda.synchronize(on_gpu[0])
        kinds = list(fragments[0].tensors) if fragments else []
        return Share(kinds, sizes, self._memory.view(torch.uint8).numpy().data)


@dataclass(frozen=True)
class Plan:
    """A checkpoint to be. about: more facts for checkpoint.json. Files are written to `partial`, renamed at the end.

    attempt: a word of this save alone, the same on every rank, so that a rank of an earlier job that is still alive
    never writes into it.
    """

    directory: Path
    position: Position
    world_size: int
    shapes: Mapping[str, torch.Size]
    about: Mapping[str, Any]
    attempt: str = ""
    buffers: Mapping[str, torch.Size] = field(default_factory=dict)  # shapes of the model's buffers, by name

    @property
    def partial(self) -> Path:
        attempt = f".{self.attempt}" if self.attempt else ""
        return self.directory.with_name(self.directory.name + attempt + PARTIAL_SUFFIX)

    def file_of(self, rank: int) -> Path:
        return self.partial / f"rank-{rank:05d}-of-{self.world_size:05d}.safetensors"

    def note_of(self, rank: int) -> Path:
        """Where a rank notes what it has written, for rank 0."""
        return self.file_of(rank).with_suffix(".json")


def shapes_of(buffers: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    """The shape of each buffer, for a plan."""
    return {name: buffer.shape for name, buffer in buffers.items()}


def begin(plan: Plan) -> None:
    """Rank 0, first: an empty folder. A run that has vanished is not made again."""
    shutil.rmtree(plan.partial, ignore_errors=True)
    plan.partial.parent.mkdir(exist_ok=True)
    plan.partial.mkdir()


def write_share(plan: Plan, rank: int, share: Share) -> None:
    """Every rank, after `begin`, in any thread: its file, and when that is on the disk a note of its size and hash."""
    num_bytes, sha256 = write_rank_file(plan.file_of(rank), share.sizes, share.content)
    write_atomically(plan.note_of(rank), json.dumps({"bytes": num_bytes, "sha256": sha256}) + "\n")


def is_written(plan: Plan) -> bool:
    """Whether every rank has noted that its file is complete."""
    return all(plan.note_of(rank).is_file() for rank in range(plan.world_size))


def publish(plan: Plan, tensor_kinds: list[str]) -> None:
    """Rank 0, after every rank's `write_share`, in any thread: the folder appears, complete."""
    notes = {rank: plan.note_of(rank) for rank in range(plan.world_size)}
    meta = {
        "format": "bert_lamb.checkpoint",
        "format_version": FORMAT_VERSION,
        "position": asdict(plan.position),
        "world_size": plan.world_size,
        "tensor_kinds": tensor_kinds,
        "shapes": {name: list(shape) for name, shape in plan.shapes.items()},
        **({BUFFERS: {name: list(shape) for name, shape in plan.buffers.items()}} if plan.buffers else {}),
        "files": {plan.file_of(rank).name: json.loads(note.read_text()) for rank, note in notes.items()},
        **plan.about,
    }
    for note in notes.values():
        note.unlink()
    meta_file = plan.partial / META_FILE
    meta_file.write_text(json.dumps(sealed(meta), indent=1) + "\n")
    flush_to_disk(meta_file)
    flush_to_disk(plan.partial)
    shutil.rmtree(plan.directory, ignore_errors=True)
    plan.partial.rename(plan.directory)
    flush_to_disk(plan.directory.parent)


def save_checkpoint(engine: Engine, directory: Path, *, position: Position, about: Mapping[str, Any]) -> None:
    """All of it at once, while nobody trains: `directory` appears complete or not at all.

    All ranks call it; they need to see the same file system. An unfinished folder ends in .partial and is overwritten
    by the next attempt.
    """
    plan = Plan(directory, position, engine.world_size, engine.shapes, about, buffers=shapes_of(engine.buffers))
    if engine.rank == 0:
        begin(plan)
    engine.barrier()
    share = HostCopy().take(engine)
    write_share(plan, engine.rank, share)
    engine.barrier()
    if engine.rank == 0:
        publish(plan, share.tensor_kinds)
    engine.barrier()
