"""Write a checkpoint that knows nothing of ranks: fp32 weights and moments by parameter name, in fragments.

Each rank writes the fragments it owns to one safetensors file; `checkpoint.json`, written last, makes the folder a
checkpoint. README.md of this room says why DeepSpeed's own checkpoints are not used, FORMAT.md what the files hold.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bert_lamb.checkpoint.meta import FORMAT_VERSION, META_FILE
from bert_lamb.checkpoint.position import Position
from bert_lamb.engine.protocol import Engine
from bert_lamb.outputs.atomic import PARTIAL_SUFFIX, flush_to_disk


def save_checkpoint(engine: Engine, directory: Path, *, position: Position, about: Mapping[str, Any]) -> None:
    """Write a checkpoint of every rank's state into `directory`, which appears complete or not at all.

    about: more facts for checkpoint.json. All ranks call it; they need to see
    the same file system. An unfinished folder ends in .partial and is overwritten by the next attempt.
    """
    partial = directory.with_name(directory.name + PARTIAL_SUFFIX)
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
    flush_to_disk(file)
    engine.barrier()
    if engine.rank == 0:
        meta = {
            "format": "bert_lamb.checkpoint",
            "format_version": FORMAT_VERSION,
            "position": asdict(position),
            "world_size": engine.world_size,
            "tensor_kinds": list(fragments[0].tensors),
            "shapes": {name: list(shape) for name, shape in engine.shapes.items()},
            "files": {path.name: path.stat().st_size for path in sorted(partial.glob("*.safetensors"))},
            **about,
        }
        meta_file = partial / META_FILE
        meta_file.write_text(json.dumps(meta, indent=1) + "\n")
        flush_to_disk(meta_file)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
        flush_to_disk(directory.parent)
    engine.barrier()
