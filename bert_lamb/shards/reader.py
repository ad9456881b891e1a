"""Read shards: memory-mapped instance sets, admitted only when they are what the manifest says (station 5).

Opening is cheap (sizes and Arrow footers); `check_hashes` reads every byte. Letters: N instances of the set, n
instances taken, T tokens of the instances taken.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_lamb.errors import UserError
from bert_lamb.outputs import hashing
from bert_lamb.shards.manifest import InstanceSet, Manifest, Shard, Vocabulary, read_manifest
from bert_lamb.shards.schema import Columns, arrow_schema, from_record_batch


@dataclass(frozen=True)
class RaggedInstances:
    """Some instances without padding: their tokens end to end, and where each begins."""

    input_ids: np.ndarray  # [T] uint16 or int32
    offsets: np.ndarray  # [n + 1] int64, from 0 to T
    segment_a_lengths: np.ndarray  # [n] uint16, tokens of token type 0, which come first
    sentence_labels: np.ndarray  # [n] bool, the label of the manifest's sentence_task

    def __len__(self) -> int:
        return len(self.segment_a_lengths)


class Instances:
    """All instances of one length and split, memory-mapped: opening costs no memory for the tokens.

    Instance i keeps its number whatever is read around it: the shards follow each other in the manifest's order. The
    object can be sent to another process, which maps the files itself.
    """

    def __init__(self, directory: Path, manifest: Manifest, instance_set: InstanceSet, shards: list[Columns]) -> None:
        self.directory = directory
        self.manifest = manifest
        self.max_seq_length = instance_set.max_seq_length
        self.split = instance_set.split
        self.vocabulary_path = directory / manifest.vocabulary.file
        self._shards = shards
        self._shard_starts = np.cumsum([0, *map(len, shards)])  # [num_shards + 1] number of each shard's first instance
        self.lengths = np.concatenate([np.diff(shard.offsets).astype(np.uint16) for shard in shards])
        """[N] uint16, tokens of each instance, special tokens included."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (self.directory, self.max_seq_length, self.split)

    def take(self, indices: np.ndarray) -> RaggedInstances:
        """The instances with these numbers, in this order, repeats allowed; IndexError outside 0..N-1.

        indices: [n] integers.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"instances {indices.min()}..{indices.max()} of a set of {len(self)}")
        num_taken = len(indices)
        shard_of = np.searchsorted(self._shard_starts, indices, side="right") - 1
        row_of = indices - self._shard_starts[shard_of]
        tokens: list[Any] = [None] * num_taken
        segment_a_lengths, sentence_labels = np.empty(num_taken, np.uint16), np.empty(num_taken, np.bool_)
        for number in np.unique(shard_of).tolist():
            shard, places = self._shards[number], np.flatnonzero(shard_of == number)
            rows = row_of[places]
            segment_a_lengths[places] = shard.segment_a_lengths[rows]
            sentence_labels[places] = shard.sentence_labels[rows]
            starts, stops = shard.offsets[rows].tolist(), shard.offsets[rows + 1].tolist()
            # Views joined by one np.concatenate: as fast as one large gather at length 128, faster at 512.
            for place, start, stop in zip(places.tolist(), starts, stops, strict=True):
                tokens[place] = shard.input_ids[start:stop]
        offsets = np.zeros(num_taken + 1, np.int64)
        np.cumsum(self.lengths[indices], out=offsets[1:])
        return RaggedInstances(
            input_ids=np.concatenate(tokens) if tokens else self._shards[0].input_ids[:0],
            offsets=offsets,
            segment_a_lengths=segment_a_lengths,
            sentence_labels=sentence_labels,
        )

    def iter_input_ids(self, tokens_per_chunk: int) -> Iterator[np.ndarray]:
        """Every token of the set in order, as flat views of at most `tokens_per_chunk` ids, for counting."""
        for shard in self._shards:
            for start in range(0, len(shard.input_ids), tokens_per_chunk):
                yield shard.input_ids[start : start + tokens_per_chunk]


def _open_again(directory: Path, max_seq_length: int, split: str) -> Instances:
    return open_instances(directory, max_seq_length=max_seq_length, split=split)


def open_instances(directory: Path, *, max_seq_length: int, split: str) -> Instances:
    """Map the instances of one length and split ("train" or "heldout").

    Checks what costs no reading: the manifest, the presence and size of each file, and from each Arrow footer the
    schema and the counts. Raises UserError naming the file, or the sets that there are.
    """
    manifest = read_manifest(directory)
    instance_set = manifest.instance_set(max_seq_length=max_seq_length, split=split)
    require_file(directory / manifest.vocabulary.file)
    shards = [open_shard(directory, shard, manifest.vocabulary) for shard in instance_set.shards]
    return Instances(directory, manifest, instance_set, shards)


def open_shard(directory: Path, shard: Shard, vocabulary: Vocabulary) -> Columns:
    """Map one shard after comparing its size, schema and counts with its entry in the manifest; UserError if not."""
    path = directory / shard.file
    require_file(path)
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes:
        raise _refusal(f"{num_bytes} bytes in shard {path}", f"{shard.num_bytes} bytes, as the manifest says")
    try:
        file = pa.ipc.open_file(pa.memory_map(str(path)))
        num_batches = file.num_record_batches
        batch = file.get_batch(0) if num_batches == 1 else None
        if batch is not None:
            batch.validate()  # buffers as long as the footer's counts need, a look at the bounds alone
        columns = ", ".join(f"{field.name}: {field.type}" for field in file.schema)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _refusal(f"shard {path} that Arrow cannot read ({error})", "an Arrow IPC file") from error
    if not file.schema.equals(arrow_schema(vocabulary.size)):
        raise _refusal(f"columns ({columns}) in shard {path}", "the columns of FORMAT.md")
    if batch is None:
        raise _refusal(f"{num_batches} record batches in shard {path}", "one")
    if batch.num_rows != shard.num_instances:
        raise _refusal(f"{batch.num_rows} instances in shard {path}", f"{shard.num_instances}, as the manifest says")
    if any(column.null_count for column in batch.columns) or batch.column("input_ids").values.null_count:
        raise _refusal(f"nulls in shard {path}", "none")
    columns_of_shard = from_record_batch(batch)
    num_tokens = len(columns_of_shard.input_ids)
    if num_tokens != shard.num_tokens or columns_of_shard.offsets[-1] != num_tokens or columns_of_shard.offsets[0] != 0:
        raise _refusal(f"{num_tokens} tokens in shard {path}", f"{shard.num_tokens}, as the manifest says")
    return columns_of_shard


def check_hashes(
    directory: Path,
    *,
    max_seq_length: int | None = None,
    on_bytes: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Read every byte of the vocabulary and the shards (of one length, if given) and compare their sha256.

    on_bytes: told the number of bytes after each chunk read, for a progress bar; `num_bytes_to_hash` gives the total.
    Raises UserError naming the first file that differs.
    """
    for file in files_to_hash(directory, max_seq_length=max_seq_length):
        for num_bytes in hash_in_chunks(file):
            on_bytes(num_bytes)


@dataclass(frozen=True)
class HashedFile:
    """A file of the folder with what the manifest says of its bytes. num_bytes: 0 for the vocabulary's few."""

    path: Path
    num_bytes: int
    sha256: str


def files_to_hash(directory: Path, *, max_seq_length: int | None = None) -> list[HashedFile]:
    """The vocabulary and the shards (of one length, if given), in the manifest's order."""
    manifest = read_manifest(directory)
    vocabulary = manifest.vocabulary
    return [HashedFile(directory / vocabulary.file, 0, vocabulary.sha256)] + [
        HashedFile(directory / shard.file, shard.num_bytes, shard.sha256)
        for shard in _shards_of(manifest, max_seq_length)
    ]


def hash_in_chunks(file: HashedFile) -> Iterator[int]:
    """Read every byte of a file, yielding the number of bytes of each chunk; UserError where its sha256 differs."""
    require_file(file.path)
    found = yield from hashing.hash_in_chunks(file.path)
    if found != file.sha256:
        raise _refusal(f"sha256 {found} of {file.path}", f"{file.sha256}, as the manifest says")


def num_bytes_to_hash(manifest: Manifest, *, max_seq_length: int | None = None) -> int:
    """Bytes of the shards that `check_hashes` will read (the vocabulary's few are not counted)."""
    return sum(shard.num_bytes for shard in _shards_of(manifest, max_seq_length))


def _shards_of(manifest: Manifest, max_seq_length: int | None) -> list[Shard]:
    return [
        shard
        for instance_set in manifest.instance_sets
        if max_seq_length is None or instance_set.max_seq_length == max_seq_length
        for shard in instance_set.shards
    ]


def require_file(path: Path) -> None:
    """UserError when a file that the manifest names is absent."""
    if not path.is_file():
        raise _refusal(f"no file {path}", "the file, as the manifest names it")


def _refusal(found: str, expected: str) -> UserError:
    return UserError(
        found=found, expected=expected, fix="copy the folder again from where it was made, or prepare it again"
    )
