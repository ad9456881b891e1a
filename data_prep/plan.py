"""The list of independent partitions of the input, known from the listing and a look at the cuts (before station 1).

A partition is some stretches of one source, about `partition_bytes` on disk. Any process on any machine can work on it
without the others; their documents are put together in the order of this list. How the input is cut changes no
byte of the output.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from bert_lamb.errors import UserError
from data_prep.sources import KINDS, Document, Source, Stretch, read_documents
from data_prep.sources.files import is_packed

PACKING_RATIO = 4  # text over its packed size, roughly


@dataclass(frozen=True)
class Partition:
    """Some stretches of one source, read one after the other."""

    source_index: int
    source: Source
    stretches: tuple[Stretch, ...]
    block_characters: int  # of documents that are held in memory together

    @property
    def id(self) -> str:
        """Names the partition's folder: the same stretches of files of the same sizes have the same id."""
        named = [self.source.name, *(sorted(asdict(stretch).items()) for stretch in self.stretches)]
        return hashlib.blake2b(repr(named).encode(), digest_size=8).hexdigest()

    @property
    def num_bytes(self) -> int:
        return sum(stretch.num_bytes for stretch in self.stretches)

    @property
    def num_text_bytes(self) -> int:
        """About as many as there are to work on: a packed file holds some times its size."""
        return sum(
            stretch.num_bytes * (PACKING_RATIO if is_packed(Path(stretch.path)) else 1) for stretch in self.stretches
        )

    @property
    def is_too_large(self) -> bool:
        """Much larger than was asked for, since it cannot be cut."""
        return all(stretch.is_whole for stretch in self.stretches) and self.num_text_bytes > 2 * self.block_characters

    def read_blocks(self) -> Iterator[list[Document]]:
        """The documents in order, in lists of about block_characters; no more than the source may give at all."""
        block: list[Document] = []
        num_characters = 0
        for document in islice(read_documents(self.source, self.stretches), self.source.max_documents):
            block.append(document)
            num_characters += len(document.text)
            if num_characters >= self.block_characters:
                yield block
                block, num_characters = [], 0
        if block:
            yield block


def plan(sources: tuple[Source, ...], *, partition_bytes: int) -> list[Partition]:
    """The partitions of all sources in their order; UserError for a source without files."""
    partitions = []
    for index, source in enumerate(sources):
        waiting: list[Stretch] = []
        for stretch in KINDS[source.kind].stretches(source, stretch_bytes=partition_bytes):
            waiting.append(stretch)
            if not stretch.num_bytes or sum(found.num_bytes for found in waiting) >= partition_bytes:
                partitions.append(Partition(index, source, tuple(waiting), partition_bytes))
                waiting = []
        if waiting:
            partitions.append(Partition(index, source, tuple(waiting), partition_bytes))
    return partitions


def num_files(partitions: list[Partition]) -> int:
    """The files, or parts of a dataset, that some partitions read."""
    return len({(partition.source_index, stretch.key) for partition in partitions for stretch in partition.stretches})


def share_of(partitions: list[Partition], share: str) -> list[Partition]:
    """The partitions of "INDEX/COUNT": a contiguous run of about as many bytes as the other shares'.

    Every partition is in exactly one share. UserError unless share is such a pair with 0 <= INDEX < COUNT.
    """
    index, _, count = share.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(
            found=f"share {share!r}", expected="INDEX/COUNT with INDEX from 0 to COUNT - 1", fix="set share, as 0/4"
        )
    weights = [max(1, partition.num_bytes) for partition in partitions]
    chosen, before = [], 0
    for partition, weight in zip(partitions, weights, strict=True):
        if before * int(count) // sum(weights) == int(index):  # the share in which the partition's first byte lies
            chosen.append(partition)
        before += weight
    return chosen
