"""Groups of documents -> instances -> equal shards (stations 3 and 4, in workers).

Two rounds. In the first, each group's instances are laid down as integers, for every length; then the number of
instances is known, and with it which of them each shard holds. In the second, each shard copies its tokens out of the
token stores. A worker holds the tokens of one group and of one shard.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_lamb.outputs.atomic import appearing_whole
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.shards.manifest import Shard
from bert_lamb.shards.schema import Columns, concatenate, token_dtype
from bert_lamb.shards.writer import map_columns, shard_path, write_shard
from data_prep.documents import store
from data_prep.documents.store import INDEX, TOKENS
from data_prep.instances.groups import Group
from data_prep.instances.left_out import count_left_out, left_out_ranges
from data_prep.instances.long_sentences import cut_long_sentences
from data_prep.instances.sentence_tasks import InstanceSettings, TokenizedDocument, as_array, assemble, make_instances


@dataclass(frozen=True)
class CuttingSettings:
    """What a worker needs to know."""

    directory: Path  # of the output, not yet renamed
    instances_dir: Path
    vocabulary_size: int
    cls_id: int
    sep_id: int
    is_continuation: np.ndarray  # [entries] bool, whether an entry continues a word


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be written: which instances of which groups."""

    max_seq_length: int
    split: str
    number: int
    num_shards: int
    pieces: tuple[tuple[Group, int, int], ...]  # (group, first instance, stop)


@dataclass(frozen=True)
class LaidDown:
    """What a group gave at one length."""

    num_instances: int
    left_out: dict[str, int]  # reason -> tokens of its documents that are in none of its instances


def lay_down_instances(
    group: Group, instance_settings: Sequence[InstanceSettings], settings: CuttingSettings
) -> dict[int, LaidDown]:
    """Make a group's instances of every length and leave them in files, with the ranges of the text left out."""
    lengths = [found.max_seq_length for found in instance_settings]
    paths = [path(group, length, settings) for path in (_instances_path, left_out_path) for length in lengths]
    if not all(path.is_file() for path in paths):
        documents, token_store = open_group(group, settings)
        for found in instance_settings:
            cut = cut_long_sentences(
                documents, token_store, settings.is_continuation, max_sentence_tokens=found.max_sentence_tokens
            )
            instances = as_array(make_instances(cut, found))
            _save(_instances_path(group, found.max_seq_length, settings), instances)
            ranges = left_out_ranges(instances, cut, sentence_task=found.sentence_task)
            _save(left_out_path(group, found.max_seq_length, settings), ranges)
    return {
        length: LaidDown(
            num_instances=len(np.load(_instances_path(group, length, settings), mmap_mode="r")),
            left_out=count_left_out(np.load(left_out_path(group, length, settings))),
        )
        for length in lengths
    }


def _save(path: Path, numbers: np.ndarray) -> None:
    """Write a file that appears whole; one that a run left that was killed between two files of a group stays."""
    if path.is_file():
        return
    with appearing_whole(path, is_shared=True, is_flushed=False) as temporary, temporary.open("wb") as stream:
        np.save(stream, numbers)


def plan_shards(
    groups: Sequence[tuple[Group, dict[int, LaidDown]]], shard_sizes: Sequence[int], *, max_seq_length: int
) -> Iterator[ShardPlan]:
    """The shards of one set. groups: those of one split, each with what it gave by length."""
    remaining = ((group, laid_down[max_seq_length].num_instances) for group, laid_down in groups)
    (group, available), position = next(remaining), 0
    for number, size in enumerate(shard_sizes):
        pieces, missing = [], size
        while missing:
            if position == available:
                (group, available), position = next(remaining), 0
                continue
            stop = min(position + missing, available)
            pieces.append((group, position, stop))
            missing -= stop - position
            position = stop
        yield ShardPlan(max_seq_length, group.split, number, len(shard_sizes), tuple(pieces))


def make_shard(plan: ShardPlan, settings: CuttingSettings) -> tuple[Shard, int]:
    """Write a shard; its record and its true sentence labels. A shard that is there is kept."""
    path = shard_path(
        settings.directory, max_seq_length=plan.max_seq_length, split=plan.split, number=plan.number,
        num_shards=plan.num_shards,
    )  # fmt: skip
    if path.is_file():
        return _record_of(path, settings)
    return write_shard(
        settings.directory,
        concatenate(
            (_columns(*piece, plan.max_seq_length, settings) for piece in plan.pieces),
            max_tokens=sum(stop - first for _, first, stop in plan.pieces) * plan.max_seq_length,
        ),
        max_seq_length=plan.max_seq_length,
        split=plan.split,
        number=plan.number,
        num_shards=plan.num_shards,
        vocabulary_size=settings.vocabulary_size,
    )


def key_of(document_number: int, *, copy: int) -> str:
    """What the randomness of one use of a document hangs on."""
    return f"{document_number}/{copy}"


def open_group(
    group: Group, settings: CuttingSettings, *, has_sentences: bool = True
) -> tuple[list[TokenizedDocument], np.ndarray]:
    """A group's documents and its token store: [tokens] ids end to end.

    has_sentences: False gives each document as if it were one sentence, which is all that `assemble` needs.
    """
    documents: list[TokenizedDocument] = []
    tokens = [np.empty(0, token_dtype(settings.vocabulary_size))]
    position = 0
    for block, rows in group.members:
        index, stored = store.read(block, INDEX), store.read(block, TOKENS)
        lengths, ids = stored["sentence_lengths"], stored["input_ids"]
        sentence_ends = np.cumsum(lengths.values.to_numpy(), dtype=np.int64)
        sentence_bounds = np.concatenate([[0], sentence_ends])  # in the block's tokens
        first_sentence, first_token = lengths.offsets.to_numpy(), ids.offsets.to_numpy()
        numbers = index["number"].to_numpy().tolist()
        for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):  # of rows that lie end to end
            # Copied, so that the block is let go: a group of held-out documents has a few of each of very many blocks.
            tokens.append(ids.values.to_numpy()[first_token[run[0]] : first_token[run[-1] + 1]].copy())
        for row in rows.tolist():
            bounds = sentence_bounds[first_sentence[row] : first_sentence[row + 1] + 1]
            offsets = bounds - (bounds[0] - position) if has_sentences else bounds[[0, -1]] - (bounds[0] - position)
            documents.append(TokenizedDocument(key_of(numbers[row], copy=group.copy), numbers[row], offsets.tolist()))
            position = documents[-1].sentence_offsets[-1]
    return documents, np.concatenate(tokens)


def _columns(group: Group, first: int, stop: int, max_seq_length: int, settings: CuttingSettings) -> Columns:
    instances = np.load(_instances_path(group, max_seq_length, settings), mmap_mode="r")[first:stop]
    documents, token_store = open_group(group, settings, has_sentences=False)
    return assemble(instances, documents, token_store, cls_id=settings.cls_id, sep_id=settings.sep_id)


def _instances_path(group: Group, max_seq_length: int, settings: CuttingSettings) -> Path:
    return settings.instances_dir / f"{group.number:06d}-seq{max_seq_length}.npy"


def left_out_path(group: Group, max_seq_length: int, settings: CuttingSettings) -> Path:
    return settings.instances_dir / f"{group.number:06d}-seq{max_seq_length}.left-out.npy"


def _record_of(path: Path, settings: CuttingSettings) -> tuple[Shard, int]:
    """The record of a shard that an interrupted run left complete."""
    columns = map_columns(path)
    shard = Shard(
        file=path.relative_to(settings.directory).as_posix(),
        num_instances=len(columns),
        num_tokens=len(columns.input_ids),
        num_bytes=path.stat().st_size,
        sha256=file_sha256(path),
    )
    return shard, int(columns.sentence_labels.sum())
