"""Which documents of the whole corpus are used, and how often (between stations 2 and 3).

What depends on more than a document itself is decided here, in one pass over the indexes of all partitions in the order
of the plan, so it cannot depend on how the input was cut or who worked on it. In memory: some 60 bytes a document.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_lamb.errors import UserError
from data_prep.documents import near_duplicates, store
from data_prep.documents.store import INDEX, TOKENS, BlockFiles
from data_prep.plan import Partition
from data_prep.settings import Settings
from data_prep.sources import Source

NO_TOKENS = "no_tokens"  # nothing but white space and control characters
REPEATED_KEY = "repeated_key"  # a page that stands twice in its source
DUPLICATE = "duplicate"  # the plain text of an earlier document
NEAR_DUPLICATE = "near_duplicate"  # nearly that of an earlier document that is used
NOT_SAMPLED = "not_sampled"  # its source has a weight below 1


@dataclass(frozen=True)
class Chosen:
    """Every document that was read, in order, and what becomes of it."""

    blocks: list[BlockFiles]
    block: np.ndarray  # [documents] int32, index into blocks
    row: np.ndarray  # [documents] int32, row in the block's files
    number: np.ndarray  # [documents] uint64
    source: np.ndarray  # [documents] int16, index of the source
    num_tokens: np.ndarray  # [documents] int64
    num_copies: np.ndarray  # [documents] int16, how often it is used; 0: dropped
    is_heldout: np.ndarray  # [documents] bool
    is_thinned: np.ndarray  # [documents] bool, dropped for nothing but the weight of its source
    dropped: Counter[str]  # reason -> documents
    num_bytes_read: int  # of text

    def num_read(self, source: int) -> int:
        return int((self.source == source).sum())

    def num_kept(self, *, source: int | None = None, split: str | None = None) -> int:
        """Documents that are used, each counted once."""
        is_counted = self.num_copies > 0
        if source is not None:
            is_counted &= self.source == source
        if split is not None:
            is_counted &= self.is_heldout == (split == "heldout")
        return int(is_counted.sum())

    def num_tokens_kept(self, *, split: str) -> int:
        """Tokens of the documents of a split that are used, each document counted once."""
        is_counted = (self.num_copies > 0) & (self.is_heldout == (split == "heldout"))
        return int(self.num_tokens[is_counted].sum())


def choose(
    partitions: Sequence[Partition], documents_dir: Path, settings: Settings, *, vocabulary: Path | None
) -> Chosen:
    """Read the indexes of finished partitions and decide.

    vocabulary: of the tokens; None while it is still to be trained; documents without tokens are not known then.
    Raises UserError if a partition that is needed is not finished, or not as it was when it was finished.
    """
    blocks: list[BlockFiles] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("block", "row", "number", "source", "num_tokens")}
    hashes: list[np.ndarray] = []
    signatures: list[bytes] = []
    outcomes: list[np.ndarray] = []
    num_read, num_bytes = Counter[int](), 0
    for partition in partitions:
        left = _left(partition.source, num_read[partition.source_index])
        if left == 0:
            continue
        for block in finished_blocks(partition, documents_dir, vocabulary=vocabulary):
            index = store.read(block, INDEX)
            count = min(index.num_rows, _left(partition.source, num_read[partition.source_index], index.num_rows))
            index = index.slice(0, count)
            num_read[partition.source_index] += count
            num_bytes += int(index["num_bytes"].to_numpy().sum())
            columns["block"].append(np.full(count, len(blocks), np.int32))
            columns["row"].append(np.arange(count, dtype=np.int32))
            columns["number"].append(index["number"].to_numpy().copy())  # or every block would stay mapped
            columns["source"].append(np.full(count, partition.source_index, np.int16))
            columns["num_tokens"].append(_num_tokens(block)[:count] if vocabulary else np.ones(count, np.int64))
            outcomes.append(index["outcome"].to_numpy(zero_copy_only=False))
            if settings.cleaning.duplicates != "keep":
                hashes.append(np.frombuffer(b"".join(index["content_hash"].to_pylist()), "V16"))
            if settings.cleaning.duplicates == "near":
                signatures += index["signature"].to_pylist()
            blocks.append(block)
    _require_what_was_promised(settings.sources, num_read)
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    reasons = np.concatenate(outcomes)  # object array; empty where the document is kept so far
    _drop(reasons, ~_is_first(table["number"]), REPEATED_KEY)
    _drop(reasons, table["num_tokens"] == 0, NO_TOKENS)
    if hashes:
        _drop(reasons, _is_later_copy(np.concatenate(hashes), reasons == ""), DUPLICATE)
    if signatures:
        places = np.flatnonzero(reasons == "")
        is_near = near_duplicates.near_duplicates(
            [signatures[place] for place in places], threshold=settings.cleaning.near_duplicate_threshold
        )
        reasons[places[is_near]] = NEAR_DUPLICATE
    is_heldout = _is_below_share(table["number"], settings.heldout_proportion)
    copies = _num_copies(table["number"], table["source"], settings.sources)
    _drop(reasons, copies == 0, NOT_SAMPLED)
    copies = np.where(is_heldout, np.minimum(copies, 1), copies)
    return Chosen(
        blocks=blocks,
        **table,
        num_copies=np.where(reasons == "", copies, 0).astype(np.int16),
        is_heldout=is_heldout,
        is_thinned=reasons == NOT_SAMPLED,
        dropped=Counter(reasons[reasons != ""].tolist()),
        num_bytes_read=num_bytes,
    )


def finished_blocks(partition: Partition, documents_dir: Path, *, vocabulary: Path | None) -> list[BlockFiles]:
    """The blocks of a partition; UserError if it is not finished, or damaged since. vocabulary: see choose."""
    folder = documents_dir / partition.id
    done = store.read_done(folder)
    if done is None:
        stretch = partition.stretches[0]
        raise UserError(
            found=f"no documents of the partition that begins with {stretch.path} at {stretch.start}",
            expected="every partition worked on by some share, from the same files and settings",
            fix="run bert-lamb prepare for the shares that are missing, then merge",
        )
    store.require_as_written(folder, vocabulary=vocabulary)
    return store.blocks_of(folder, done)


def _left(source: Source, num_read: int, at_most: int = 1) -> int:
    """How many more documents a source may give."""
    return at_most if source.max_documents is None else max(0, source.max_documents - num_read)


def _num_tokens(block: BlockFiles) -> np.ndarray:
    return np.diff(store.read(block, TOKENS)["input_ids"].offsets.to_numpy())


def _require_what_was_promised(sources: Sequence[Source], num_read: Counter[int]) -> None:
    for index, source in enumerate(sources):
        if num_read[index] < source.min_documents:
            found = f"{num_read[index]} documents" if num_read[index] else "no document"
            raise UserError(
                found=f"{found} in source {source.name} ({source.path or source.dataset})",
                expected=f"at least {source.min_documents}",
                fix=f"check sources.{source.name}.path, .kind={source.kind} and .min_documents",
            )
    if not num_read.total():
        names = ", ".join(source.name for source in sources)
        raise UserError(found=f"no document in any source ({names})", expected="text", fix="check sources")


def _drop(reasons: np.ndarray, is_dropped: np.ndarray, reason: str) -> None:
    reasons[is_dropped & (reasons == "")] = reason


def _is_first(values: np.ndarray) -> np.ndarray:
    """[N] bool, whether a value has not stood before."""
    is_first = np.zeros(len(values), np.bool_)
    is_first[np.unique(values, return_index=True)[1]] = True
    return is_first


def _is_later_copy(hashes: np.ndarray, is_candidate: np.ndarray) -> np.ndarray:
    """[N] bool, whether an earlier candidate has the same hash."""
    pairs = hashes.view([("high", "<u8"), ("low", "<u8")])[is_candidate]
    is_later = np.zeros(len(hashes), np.bool_)
    is_later[np.flatnonzero(is_candidate)] = ~_is_first(pairs)
    return is_later


def _num_copies(numbers: np.ndarray, source_of: np.ndarray, sources: Sequence[Source]) -> np.ndarray:
    """[N] uses of each document: its source's weight, rounded up or down by a hash so that the mean is the weight."""
    weights = np.array([source.weight for source in sources])[source_of]
    copies: np.ndarray = np.floor(weights).astype(np.int64)
    if (weights == copies).all():
        return copies
    drawn = np.array(
        [
            int.from_bytes(hashlib.blake2b(n.tobytes(), digest_size=8, person=b"weight").digest(), "little")
            for n in numbers
        ],
        np.uint64,
    )
    for index, source in enumerate(sources):
        is_of_source = source_of == index
        copies[is_of_source] += _is_below_share(drawn[is_of_source], source.weight % 1)
    return copies


def _is_below_share(numbers: np.ndarray, share: float) -> np.ndarray:
    """[N] bool, number < share * 2^64, in integers: a float64 cannot tell neighbouring uint64 apart."""
    bound = math.ceil(share * 2**64)
    return np.ones(len(numbers), np.bool_) if bound >= 2**64 else numbers < np.uint64(bound)
