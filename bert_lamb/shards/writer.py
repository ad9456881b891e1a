"""Write shards: Arrow files that appear complete or not at all, and the manifest last (station 4).

The same instances give the same bytes: no time stamps, no host names, no order that depends on who finished first.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from bert_lamb.outputs.atomic import appearing_whole, write_atomically
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.shards.manifest import MANIFEST_FILE, InstanceSet, Manifest, Shard
from bert_lamb.shards.schema import Columns, from_record_batch, to_record_batch


def write_columns(path: Path, columns: Columns, *, vocabulary_size: int) -> None:
    """Write instances as an Arrow IPC file of one record batch."""
    batch = to_record_batch(columns, vocabulary_size)
    with path.open("wb") as stream, pa.ipc.new_file(stream, batch.schema) as file:
        file.write_batch(batch)


def map_columns(path: Path) -> Columns:
    """The instances of a file that `write_columns` just wrote, memory-mapped and unchecked."""
    return from_record_batch(pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0))


def shard_path(directory: Path, *, max_seq_length: int, split: str, number: int, num_shards: int) -> Path:
    """Where a shard lies (FORMAT.md, "Folder")."""
    return directory / f"seq{max_seq_length}" / f"{split}-{number:05d}-of-{num_shards:05d}.arrow"


def write_shard(
    directory: Path,
    columns: Columns,
    *,
    max_seq_length: int,
    split: str,
    number: int,
    num_shards: int,
    vocabulary_size: int,
) -> tuple[Shard, int]:
    """Write shard `number` (from 0) of `num_shards` under its final name; its record, and its true sentence labels.

    The file takes that name when it is complete and on the disk, so a process that is killed leaves no half shard
    under that name. Shards may be written at the same
    time, by as many processes as there are shards.
    """
    path = shard_path(directory, max_seq_length=max_seq_length, split=split, number=number, num_shards=num_shards)
    path.parent.mkdir(exist_ok=True)
    with appearing_whole(path) as partial:
        write_columns(partial, columns, vocabulary_size=vocabulary_size)
        shard = Shard(
            file=path.relative_to(directory).as_posix(),
            num_instances=len(columns),
            num_tokens=len(columns.input_ids),
            num_bytes=partial.stat().st_size,
            sha256=file_sha256(partial),
        )
    return shard, int(columns.sentence_labels.sum())


def instance_set_of(shards_and_labels: Sequence[tuple[Shard, int]], max_seq_length: int, split: str) -> InstanceSet:
    """The manifest's entry for what `write_shard` returned, in the order of the shards' numbers."""
    shards = tuple(shard for shard, _ in shards_and_labels)
    return InstanceSet(
        max_seq_length=max_seq_length,
        split=split,
        num_instances=sum(shard.num_instances for shard in shards),
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_true_labels=sum(num_true_labels for _, num_true_labels in shards_and_labels),
        shards=shards,
    )


def equal_shard_sizes(num_instances: int, instances_per_shard: int) -> list[int]:
    """Instances of each shard: as few shards as hold at most `instances_per_shard`, sizes differing by at most one."""
    num_shards = -(-num_instances // instances_per_shard)
    size, num_larger = divmod(num_instances, num_shards)
    return [size + (number < num_larger) for number in range(num_shards)]


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Declare the folder complete: manifest.json appears in it."""
    write_atomically(directory / MANIFEST_FILE, manifest.to_json())
