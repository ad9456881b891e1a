"""A checkpoint of TensorFlow (PREFIX.index and PREFIX.data-00000-of-00001) read without TensorFlow.

The index is a table of LevelDB (leveldb/doc/table_format.md), sorted by key. It ends with a footer of 48 bytes: where
the metaindex and the index block are, zeros, and a magic number. A block is a run of entries

    shared bytes of the key before | other bytes of the key | bytes of the value   three varints
    other bytes of the key, value

then the offsets of restart points and their number (4 bytes each); on disk a byte for the compression and a masked
CRC-32C follow. Entries of the index block say where the other blocks are. The value of the key "" is a
BundleHeaderProto, every other one a BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto): data type, shape,
shard, offset, size and masked CRC-32C of the tensor, whose bytes are in the data file, row by row.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bert_lamb.checkpoint.folder.files import LFS_POINTER, PULL, kind_of
from bert_lamb.checkpoint.folder.stored import FETCH, Stored
from bert_lamb.checkpoint.importing.crc32c import masked_crc32c
from bert_lamb.errors import UserError

MAGIC, FOOTER_BYTES, TRAILER_BYTES = 0xDB4775248B80FB57, 48, 5
COMPRESSIONS = {0: "none", 1: "snappy", 2: "zstd"}
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # of tf.train.Checkpoint, whose keys are paths of Python objects
# Numbers of tensorflow/core/framework/types.proto: in the words of safetensors, and how numpy reads them.
DTYPES = {1: ("F32", "<f4"), 2: ("F64", "<f8"), 14: ("BF16", "<i2"), 19: ("F16", "<f2")}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


class Damaged(Exception):
    """The index is no sound table; the text says why."""


@dataclass(frozen=True)
class Entry:
    """A BundleEntryProto: where a tensor is."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    num_bytes: int
    crc: int
    is_sliced: bool  # the tensor is stored in parts, as a partitioned variable is

    @property
    def end(self) -> int:
        return self.offset + self.num_bytes


class Field(NamedTuple):
    number: int
    value: int | bytes


def list_bundle(prefix: Path) -> list[Stored]:
    """Every tensor of a checkpoint; its bytes are compared with their checksum when it is read.

    Raises UserError for files that are absent, damaged or something else, and for checkpoints of tf.train.Checkpoint.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    content = _read_index(index)
    try:
        pairs = dict(_entries_of_table(content))
        header = dict(_fields(pairs.pop(b"")))
        entries = {key.decode("utf-8"): _entry(value) for key, value in pairs.items() if key != OBJECT_GRAPH.encode()}
    except (Damaged, KeyError, IndexError, struct.error, TypeError, ValueError, OverflowError) as error:
        reason = str(error) if isinstance(error, Damaged) else "its entries make no sense"
        raise _refusal(index, content, f"damaged or cut short ({reason})") from error
    if OBJECT_GRAPH.encode() in pairs:
        raise UserError(
            found=f"{index} of tf.train.Checkpoint, whose keys are paths of Python objects",
            expected="a checkpoint by variable names, such as bert/embeddings/word_embeddings, as Google's BERT has",
            fix="use a checkpoint of google-research/bert, or save the weights by name with tf.compat.v1.train.Saver",
        )
    if header.get(2, 0):
        raise UserError(found=f"{index} of a big-endian machine", expected="little-endian numbers", fix="save it again")
    num_shards = int(header.get(1, 1))
    files = {
        key: prefix.with_name(f"{prefix.name}.data-{entry.shard:05d}-of-{num_shards:05d}")
        for key, entry in entries.items()
    }
    last = {files[key]: key for key in sorted(entries, key=lambda key: entries[key].end)}
    for file, key in last.items():  # what is not taken over, such as Adam's moments, has to be there too
        _check_length(entries[key], file, key)
    return [_stored(key, entry, files[key]) for key, entry in entries.items()]


def _read_index(index: Path) -> bytes:
    try:
        return index.read_bytes()
    except OSError as error:
        raise UserError(
            found=f"no file {index}" if not index.exists() else f"{index} that cannot be read ({error.strerror})",
            expected="the index of a TensorFlow checkpoint",
            fix="set source to the checkpoint's prefix, such as uncased_L-12_H-768_A-12/bert_model.ckpt",
        ) from error


def _refusal(file: Path, content: bytes, reason: str) -> UserError:
    what = kind_of(content) if not content or content.startswith((LFS_POINTER, b"PK", b"<", b"\x89HDF")) else reason
    return UserError(
        found=f"{file} ({len(content):,} bytes) that is {what}",
        expected="the index of a TensorFlow checkpoint",
        fix=PULL if content.startswith(LFS_POINTER) else FETCH,
    )


def _stored(key: str, entry: Entry, file: Path) -> Stored:
    word, form = DTYPES.get(entry.dtype, (f"type {entry.dtype} of TensorFlow", ""))
    if entry.is_sliced:
        word = "the parts of a partitioned variable"

    def read() -> Tensor:
        content = _bytes_of(entry, file, key)
        array = np.frombuffer(content, form).reshape(entry.shape)
        tensor = torch.from_numpy(array.copy())
        return tensor.view(torch.bfloat16) if word == "BF16" else tensor

    return Stored(file, key, entry.shape, word, read)


def _bytes_of(entry: Entry, file: Path, key: str) -> bytes:
    """The bytes of a tensor, which must be there whole and have their checksum."""
    _check_length(entry, file, key)
    try:
        with file.open("rb") as stream:
            stream.seek(entry.offset)
            content = stream.read(entry.num_bytes)
    except OSError as error:
        what = f"{file} that cannot be read ({error.strerror})"
        raise UserError(found=what, expected=f"the bytes of {key}", fix=FETCH) from error
    if masked_crc32c(content) != entry.crc:
        raise UserError(
            found=f"{key} in {file} with another checksum than the index says",
            expected="the bytes that were written",
            fix="fetch both files again",
        )
    return content


def _check_length(entry: Entry, file: Path, key: str) -> None:
    """Raise UserError for a data file that is absent, a pointer to one, or ends before the tensor does."""
    expected = f"{key} in bytes {entry.offset:,} to {entry.end:,}, as the index says"
    try:
        num_bytes = file.stat().st_size
        with file.open("rb") as stream:
            is_pointer = stream.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError as error:
        what = f"no file {file}" if not file.exists() else f"{file} that cannot be read ({error.strerror})"
        raise UserError(found=what, expected=expected, fix=FETCH) from error
    if is_pointer or num_bytes < entry.end:
        what = "that is a git-lfs pointer" if is_pointer else f"with {num_bytes:,} bytes"
        raise UserError(found=f"{file} {what}", expected=expected, fix=PULL if is_pointer else FETCH)


def _entries_of_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of every entry, block by block."""
    footer = content[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise Damaged("no table's magic number at its end")
    _, position = _handle(footer, 0)
    index_block, _ = _handle(footer, position)
    for _, value in _entries_of_block(_block(content, *index_block)):
        yield from _entries_of_block(_block(content, *_handle(value, 0)[0]))


def _handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Where a block is, (offset, number of bytes), and the position after that."""
    offset, position = _varint(content, position)
    num_bytes, position = _varint(content, position)
    return (offset, num_bytes), position


def _block(content: bytes, offset: int, num_bytes: int) -> bytes:
    whole = content[offset : offset + num_bytes + TRAILER_BYTES]
    if len(whole) < num_bytes + TRAILER_BYTES:
        raise Damaged("a block ends after the file")
    if masked_crc32c(whole[:-4]) != struct.unpack("<I", whole[-4:])[0]:
        raise Damaged("a block with another checksum than is written after it")
    if whole[num_bytes]:
        name = COMPRESSIONS.get(whole[num_bytes], str(whole[num_bytes]))
        raise Damaged(f"a block packed with {name}, which TensorFlow does not write")
    return whole[:num_bytes]


def _entries_of_block(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    (num_restarts,) = struct.unpack("<I", block[-4:])
    end, position, key = len(block) - 4 * (num_restarts + 1), 0, b""
    while position < end:
        num_shared, position = _varint(block, position)
        num_other, position = _varint(block, position)
        num_value, position = _varint(block, position)
        key = key[:num_shared] + block[position : position + num_other]
        position += num_other
        yield key, block[position : position + num_value]
        position += num_value


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """An integer of 7 bits a byte, lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _fields(message: int | bytes) -> Iterator[Field]:
    """The fields of a protocol buffer, nested ones as bytes."""
    if isinstance(message, int):
        raise Damaged("a number in the place of a message")
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        value: int | bytes
        if kind == VARINT:
            value, position = _varint(message, position)
        elif kind == BYTES:
            size, position = _varint(message, position)
            value, position = message[position : position + size], position + size
        elif kind in (FIXED32, FIXED64):
            form = "<I" if kind == FIXED32 else "<Q"
            value = struct.unpack_from(form, message, position)[0]
            position += struct.calcsize(form)
        else:
            raise Damaged(f"wire type {kind}")
        yield Field(tag >> 3, value)


def _entry(message: bytes) -> Entry:
    single = dict(_fields(message))
    shape = tuple(int(dict(_fields(dim)).get(1, 0)) for number, dim in _fields(single.get(2, b"")) if number == 2)
    dtype, num_bytes, is_sliced = int(single.get(1, 0)), int(single.get(5, 0)), 7 in single
    if dtype in DTYPES and not is_sliced and math.prod(shape) * np.dtype(DTYPES[dtype][1]).itemsize != num_bytes:
        raise Damaged("a tensor whose number of bytes does not fit its shape")
    return Entry(
        dtype, shape, int(single.get(3, 0)), int(single.get(4, 0)), num_bytes, int(single.get(6, 0)), is_sliced
    )
