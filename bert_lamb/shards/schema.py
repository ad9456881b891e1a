"""The columns of a shard, as Arrow types and as numpy arrays (FORMAT.md, "Columns").

Both sides of the wall use this module: station 4 turns arrays into a record batch, station 5 turns the mapped record
batch back into views of the same bytes. Letters: N instances, T tokens of these instances together.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

LARGEST_UINT16_VOCABULARY = 65_536  # entries; larger vocabularies take int32
MAX_SHARD_TOKENS = 2**31 - 1  # Arrow's list offsets are int32
MIN_PAIR_TOKENS = 5  # [CLS] a [SEP] b [SEP]
MIN_SINGLE_TOKENS = 3  # [CLS] a [SEP], where there is no sentence task
MAX_INSTANCE_TOKENS = 65_535  # lengths are uint16


@dataclass(frozen=True)
class Columns:
    """Instances as they lie in a shard: one array per column, and the offsets that cut the tokens into instances."""

    input_ids: np.ndarray  # [T] uint16 or int32
    offsets: np.ndarray  # [N + 1] int32, from 0 to T
    segment_a_lengths: np.ndarray  # [N] uint16, tokens of token type 0, which come first
    sentence_labels: np.ndarray  # [N] bool, see FORMAT.md: what True means depends on the manifest's sentence_task
    documents: np.ndarray  # [N] uint64, hash of the key of the first segment's document

    def __len__(self) -> int:
        return len(self.segment_a_lengths)

    def slice(self, start: int, stop: int) -> "Columns":
        """Instances start..stop-1; the tokens are a view, the offsets start at 0 again."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return Columns(
            input_ids=self.input_ids[first:last],
            offsets=self.offsets[start : stop + 1] - self.offsets[start],
            segment_a_lengths=self.segment_a_lengths[start:stop],
            sentence_labels=self.sentence_labels[start:stop],
            documents=self.documents[start:stop],
        )


def concatenate(blocks: Iterable[Columns], *, max_tokens: int) -> Columns:
    """One or more blocks of instances as one, in their order. Each is copied and let go before the next is taken.

    max_tokens: as many as they hold together, at most; what is not needed of it takes no memory.
    """
    input_ids, num_tokens = np.empty(0, np.uint16), 0
    others: list[tuple[np.ndarray, ...]] = []  # the columns that are small
    for block in blocks:
        if not others:
            input_ids = np.empty(max_tokens, block.input_ids.dtype)
        stop = num_tokens + len(block.input_ids)
        input_ids[num_tokens:stop] = block.input_ids
        num_tokens = stop
        others.append((np.diff(block.offsets), block.segment_a_lengths, block.sentence_labels, block.documents))
        del block
    lengths, *rest = (np.concatenate(parts) for parts in zip(*others, strict=True))
    return Columns(input_ids[:num_tokens], offsets_of(lengths), *rest)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """[N] lengths -> [N + 1] int32 offsets; ValueError where the tokens no longer fit one shard."""
    total = int(lengths.sum(dtype=np.int64))
    if total > MAX_SHARD_TOKENS:
        raise ValueError(f"{total} tokens in one block, at most {MAX_SHARD_TOKENS}: make shards of fewer instances")
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def token_dtype(vocabulary_size: int) -> np.dtype[np.uint16] | np.dtype[np.int32]:
    """uint16 where every id fits, else int32."""
    return np.dtype(np.uint16) if vocabulary_size <= LARGEST_UINT16_VOCABULARY else np.dtype(np.int32)


def arrow_schema(vocabulary_size: int) -> pa.Schema:
    """The schema of every shard made with a vocabulary of this size; no column holds nulls."""
    item = pa.field("item", pa.from_numpy_dtype(token_dtype(vocabulary_size)), nullable=False)
    return pa.schema(
        [
            pa.field("input_ids", pa.list_(item), nullable=False),
            pa.field("segment_a_length", pa.uint16(), nullable=False),
            pa.field("sentence_label", pa.bool_(), nullable=False),
            pa.field("document", pa.uint64(), nullable=False),
        ]
    )


def to_record_batch(columns: Columns, vocabulary_size: int) -> pa.RecordBatch:
    """The block as one Arrow record batch; raises ValueError when an array has another dtype than the schema."""
    wanted = {
        "input_ids": (columns.input_ids, token_dtype(vocabulary_size)),
        "offsets": (columns.offsets, np.dtype(np.int32)),
        "segment_a_lengths": (columns.segment_a_lengths, np.dtype(np.uint16)),
        "sentence_labels": (columns.sentence_labels, np.dtype(np.bool_)),
        "documents": (columns.documents, np.dtype(np.uint64)),
    }
    for name, (array, dtype) in wanted.items():
        if array.dtype != dtype:
            raise ValueError(f"column {name} is {array.dtype}, expected {dtype}")
    schema = arrow_schema(vocabulary_size)
    input_ids = pa.ListArray.from_arrays(
        pa.array(columns.offsets), pa.array(columns.input_ids), type=schema.field("input_ids").type
    )
    arrays = [input_ids, *(pa.array(wanted[name][0]) for name in ("segment_a_lengths", "sentence_labels", "documents"))]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def from_record_batch(batch: pa.RecordBatch) -> Columns:
    """Views of a shard's record batch; only the bit-packed sentence_label is copied."""
    input_ids = batch.column("input_ids")
    return Columns(
        input_ids=_view(input_ids.values),
        offsets=_view(input_ids.offsets),
        segment_a_lengths=_view(batch.column("segment_a_length")),
        sentence_labels=_bits(batch.column("sentence_label")),
        documents=_view(batch.column("document")),
    )


def _view(array: pa.Array) -> np.ndarray:
    """The numbers of an array without nulls where they are. Arrow's own to_numpy imports pandas, if there is one."""
    dtype = np.dtype(array.type.to_pandas_dtype())
    if len(array) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, count=len(array), offset=array.offset * dtype.itemsize)


def _bits(array: pa.Array) -> np.ndarray:
    """A copy of an array of booleans without nulls."""
    if len(array) == 0:
        return np.empty(0, np.bool_)
    packed = np.frombuffer(array.buffers()[1], np.uint8)
    return np.unpackbits(packed, count=array.offset + len(array), bitorder="little")[array.offset :].view(np.bool_)
