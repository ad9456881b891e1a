"""Write shards: equal Arrow files cut from the parts of an instance set, and the manifest last (station 4).

The same instances give the same bytes: no time stamps, no host names, no order that depends on who finished first.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from bert_lamb.shards.manifest import MANIFEST_FILE, InstanceSet, Manifest, Shard
from bert_lamb.shards.reader import file_sha256
from bert_lamb.shards.schema import Columns, concatenate, from_record_batch, to_record_batch


def write_columns(path: Path, columns: Columns, *, vocabulary_size: int) -> None:
    """Write instances as an Arrow IPC file of one record batch, and flush it to the disk."""
    batch = to_record_batch(columns, vocabulary_size)
    with path.open("wb") as stream:
        with pa.ipc.new_file(stream, batch.schema) as file:
            file.write_batch(batch)
        stream.flush()
        os.fsync(stream.fileno())


def map_columns(path: Path) -> Columns:
    """The instances of a file that `write_columns` just wrote, memory-mapped and unchecked."""
    return from_record_batch(pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0))


def write_instance_set(
    directory: Path,
    parts: Sequence[Path],
    *,
    max_seq_length: int,
    split: str,
    instances_per_shard: int,
    vocabulary_size: int,
) -> InstanceSet:
    """Cut the instances of the parts, in their order, into as few equal shards as hold at most `instances_per_shard`.

    parts: files of `write_columns`. Shards differ by at most one instance, the larger ones first. One shard's
    instances are in memory at a time. Raises ValueError when the parts hold no instance.
    """
    sizes = [len(map_columns(part)) for part in parts]
    if not sum(sizes):
        raise ValueError(f"no {split} instance of length {max_seq_length} to write")
    folder = directory / f"seq{max_seq_length}"
    folder.mkdir(exist_ok=True)
    shards, num_random_next = [], 0
    shard_sizes = equal_shard_sizes(sum(sizes), instances_per_shard)
    for number, columns in enumerate(_cut(parts, shard_sizes)):
        path = folder / f"{split}-{number:05d}-of-{len(shard_sizes):05d}.arrow"
        write_columns(path, columns, vocabulary_size=vocabulary_size)
        num_random_next += int(columns.is_random_next.sum())
        shards.append(
            Shard(
                file=path.relative_to(directory).as_posix(),
                num_instances=len(columns),
                num_tokens=len(columns.input_ids),
                num_bytes=path.stat().st_size,
                sha256=file_sha256(path),
            )
        )
    return InstanceSet(
        max_seq_length=max_seq_length,
        split=split,
        num_instances=sum(shard.num_instances for shard in shards),
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_random_next=num_random_next,
        shards=tuple(shards),
    )


def equal_shard_sizes(num_instances: int, instances_per_shard: int) -> list[int]:
    """Instances of each shard: as few shards as hold at most `instances_per_shard`, sizes differing by at most one."""
    num_shards = -(-num_instances // instances_per_shard)
    size, num_larger = divmod(num_instances, num_shards)
    return [size + (number < num_larger) for number in range(num_shards)]


def _cut(parts: Sequence[Path], shard_sizes: Sequence[int]) -> Iterator[Columns]:
    """The instances of the parts regrouped into blocks of the given sizes, which sum to all of them."""
    remaining_parts = iter(parts)
    part, position = map_columns(next(remaining_parts)), 0
    for shard_size in shard_sizes:
        blocks, missing = [], shard_size
        while missing:
            if position == len(part):
                part, position = map_columns(next(remaining_parts)), 0
                continue
            stop = min(position + missing, len(part))
            blocks.append(part.slice(position, stop))
            missing -= stop - position
            position = stop
        yield concatenate(blocks)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Declare the folder complete: write manifest.json beside its place, flush it, and rename it into place."""
    temporary = directory / f"{MANIFEST_FILE}.partial"
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(manifest.to_json())
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(directory / MANIFEST_FILE)
