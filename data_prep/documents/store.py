"""What is on disk between the stations: the documents of a block as an index, their text and their tokens.

    OUTPUT.partial/documents/<partition id>/
      00000.index.arrow    a row a document: key, number, outcome, size, hashes
      00000.text.arrow     its plain text; only while a vocabulary is to be trained on it
      00000.tokens.arrow   its sentences as token ids
      tokens.json          the sha256 of the tokens and of the vocabulary, written when all tokens are there
      done.json            the numbers of blocks and documents and the sha256 of the other files, written when all of
                           them are there

Arrow files, mapped, written under another name and renamed: a file that is there is whole. Rows of a block's files go
together.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import appearing_whole, write_atomically
from bert_lamb.outputs.hashing import file_sha256

INDEX, TEXT, TOKENS = "index", "text", "tokens"
DONE_FILE, TOKENS_FILE = "done.json", "tokens.json"
HASH_BYTES = 16


@dataclass(frozen=True)
class IndexRow:
    """What the choice of documents needs to know of one."""

    key: str
    number: int  # uint64, FORMAT.md, "Document number and split"
    outcome: str  # cleaning.KEPT, or why it was left out
    num_bytes: int  # of the text as it came, in UTF-8
    content_hash: bytes  # [16] of the plain text
    signature: bytes  # MinHash, empty where near duplicates are not looked for


@dataclass(frozen=True)
class BlockFiles:
    """The files of one block."""

    folder: Path
    number: int

    def path(self, part: str) -> Path:
        return self.folder / f"{self.number:05d}.{part}.arrow"


def write_index(block: BlockFiles, rows: Sequence[IndexRow]) -> None:
    _write(
        block.path(INDEX),
        {
            "key": pa.array([row.key for row in rows], pa.string()),
            "number": pa.array([row.number for row in rows], pa.uint64()),
            "outcome": pa.array([row.outcome for row in rows], pa.string()),
            "num_bytes": pa.array([row.num_bytes for row in rows], pa.uint64()),
            "content_hash": pa.array([row.content_hash for row in rows], pa.binary(HASH_BYTES)),
            "signature": pa.array([row.signature for row in rows], pa.binary()),
        },
    )


def write_text(block: BlockFiles, texts: Sequence[str]) -> None:
    """The plain texts, empty for documents left out."""
    _write(block.path(TEXT), {"text": pa.array(texts, pa.large_string())})


def write_tokens(
    block: BlockFiles, *, num_sentences: np.ndarray, sentence_lengths: np.ndarray, input_ids: np.ndarray
) -> None:
    """num_sentences: [documents] sentences of each; sentence_lengths: [sentences] tokens; input_ids: [tokens]."""
    sentence_offsets = np.concatenate([[0], np.cumsum(num_sentences)]).astype(np.int64)
    token_offsets = np.concatenate([[0], np.cumsum(sentence_lengths)]).astype(np.int64)
    _write(
        block.path(TOKENS),
        {
            "sentence_lengths": pa.LargeListArray.from_arrays(
                pa.array(sentence_offsets), pa.array(sentence_lengths.astype(np.uint32))
            ),
            "input_ids": pa.LargeListArray.from_arrays(pa.array(token_offsets[sentence_offsets]), pa.array(input_ids)),
        },
    )


def read(block: BlockFiles, part: str) -> pa.RecordBatch:
    """A file of a block, mapped; UserError for one that is empty or the like, as a machine without power leaves it."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(block.path(part)))).get_batch(0)
    except pa.ArrowInvalid as error:
        raise UserError(
            found=f"{block.path(part)} that cannot be read ({error})",
            expected="what was written there",
            fix=f"delete {block.folder}, and prepare again (if_exists=resume)",
        ) from error


@dataclass(frozen=True)
class Done:
    """That all blocks of a partition are there."""

    num_blocks: int
    num_documents: int  # read, whatever became of them


def mark_done(folder: Path, done: Done, *, vocabulary: Path | None) -> None:
    """Put down that a partition is finished, with the hashes of its files. vocabulary: of the ids; None: of no ids."""
    folder.mkdir(parents=True, exist_ok=True)
    if vocabulary is not None:
        mark_tokens(folder, done, vocabulary=vocabulary)
    mark = {**asdict(done), "files": _hashes(folder, done, (INDEX, TEXT))}
    write_atomically(folder / DONE_FILE, json.dumps(mark) + "\n", is_shared=True)


def read_done(folder: Path) -> Done | None:
    """None where the partition is not finished, or is so no more.

    A mark outlives its blocks where a process was killed while it cleared them away, and comes before them where a
    share is being copied from another machine. One that is not as it was written counts as none.
    """
    mark = _mark_in(folder)
    if mark is None:
        return None
    done = Done(mark["num_blocks"], mark["num_documents"])
    are_there = all(
        block.path(INDEX).is_file() and (block.path(TOKENS).is_file() or block.path(TEXT).is_file())
        for block in blocks_of(folder, done)
    )
    return done if are_there else None


def mark_tokens(folder: Path, done: Done, *, vocabulary: Path) -> None:
    """Put down the hashes of the tokens, all of which are there; nothing where they are known."""
    sha256, mark = file_sha256(vocabulary), _mapping_in(folder / TOKENS_FILE)
    names = {block.path(TOKENS).name for block in blocks_of(folder, done)}
    if mark.get("vocabulary") != sha256 or not isinstance(mark.get("files"), dict) or names != mark["files"].keys():
        mark = {"files": _hashes(folder, done, (TOKENS,)), "vocabulary": sha256}
        write_atomically(folder / TOKENS_FILE, json.dumps(mark) + "\n", is_shared=True)


def require_as_written(folder: Path, *, vocabulary: Path | None) -> None:
    """UserError where a file of a finished partition has other bytes than when it was finished.

    vocabulary: that its ids must be of; None while there are none, so that only index and text are compared. Between
    the stations lie machines, copies and days, and what is damaged there would be trained on.
    """
    mark = _mark_in(folder)
    assert mark is not None
    fix = f"delete {folder}, run bert-lamb prepare for it again (if_exists=resume), and merge if it was a share"
    tokens = _mapping_in(folder / TOKENS_FILE)
    of_tokens = tokens.get("files") if vocabulary is not None else {}
    known = {**mark["files"], **(of_tokens if isinstance(of_tokens, dict) else {})}
    parts = (INDEX, TEXT) if vocabulary is None else (INDEX, TOKENS)
    for path in _files_of(folder, Done(mark["num_blocks"], mark["num_documents"]), parts):
        if file_sha256(path) != known.get(path.name):
            raise UserError(found=f"other bytes in {path} than were written", expected="those of its sha256", fix=fix)
    if vocabulary is not None and file_sha256(vocabulary) != tokens.get("vocabulary"):
        raise UserError(
            found=f"{vocabulary}, which is not the vocabulary that the ids in {folder} are of",
            expected="that of its sha256",
            fix=f"delete {vocabulary.parent} and prepare again",
        )


def _mark_in(folder: Path) -> dict[str, Any] | None:
    """done.json; None where there is none, or one that names other files than its number of blocks has."""
    try:
        mark = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))
        done, names = Done(mark["num_blocks"], mark["num_documents"]), set(mark["files"])
        is_counted = all(type(count) is int and count >= 0 for count in (done.num_blocks, done.num_documents))
        indexes = {name for name in names if name.endswith(f".{INDEX}.arrow")}
        is_sound = is_counted and done.num_blocks == len(indexes)
        is_sound = is_sound and indexes == {block.path(INDEX).name for block in blocks_of(folder, done)}
        is_sound = is_sound and all(type(one) is str for one in mark["files"].values())
        return mark if is_sound else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _mapping_in(file: Path) -> dict[str, Any]:
    """Nothing where there is no file, or none that holds a mapping."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _hashes(folder: Path, done: Done, parts: Sequence[str]) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in _files_of(folder, done, parts)}


def _files_of(folder: Path, done: Done, parts: Sequence[str]) -> list[Path]:
    """Those that are there."""
    paths = [block.path(part) for block in blocks_of(folder, done) for part in parts]
    return [path for path in paths if path.is_file()]


def blocks_of(folder: Path, done: Done) -> list[BlockFiles]:
    return [BlockFiles(folder, number) for number in range(done.num_blocks)]


def _write(path: Path, columns: dict[str, pa.Array]) -> None:
    batch = pa.record_batch(columns)
    with (
        appearing_whole(path, is_shared=True, is_flushed=False) as temporary,
        pa.OSFile(str(temporary), "wb") as stream,
        pa.ipc.new_file(stream, batch.schema) as file,
    ):
        file.write_batch(batch)
