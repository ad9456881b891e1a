"""Folders of shards made from rows that the tests know."""

import random
from pathlib import Path

import numpy as np

from bert_lamb.shards.manifest import (
    FORMAT_NAME,
    FORMAT_VERSION,
    DocumentCounts,
    Manifest,
    Preparation,
    SourceRecord,
    Vocabulary,
)
from bert_lamb.shards.reader import file_sha256
from bert_lamb.shards.schema import Columns, token_dtype
from bert_lamb.shards.writer import write_columns, write_instance_set, write_manifest

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(195))]
CLS, SEP, FIRST_WORD = 2, 3, 5

Row = tuple[list[int], int, bool, int]  # input_ids, segment_a_length, is_random_next, document


def random_rows(num_rows: int, *, max_seq_length: int, documents: range, seed: int) -> list[Row]:
    """Rows that keep every invariant, as plain Python values."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for _ in range(num_rows):
        length = rng.randint(5, max_seq_length)
        length_a = rng.randint(1, length - 4)
        words = [rng.randrange(FIRST_WORD, len(ENTRIES)) for _ in range(length - 3)]
        ids = [CLS, *words[:length_a], SEP, *words[length_a:], SEP]
        rows.append((ids, length_a + 2, rng.random() < 0.5, rng.choice(documents)))
    return rows


def columns_of(rows: list[Row], vocabulary_size: int = len(ENTRIES)) -> Columns:
    return Columns(
        input_ids=np.array([token for row in rows for token in row[0]], token_dtype(vocabulary_size)),
        offsets=np.cumsum([0, *(len(row[0]) for row in rows)]).astype(np.int32),
        segment_a_lengths=np.array([row[1] for row in rows], np.uint16),
        is_random_next=np.array([row[2] for row in rows], np.bool_),
        documents=np.array([row[3] for row in rows], np.uint64),
    )


def write_folder(directory: Path, rows_of_set: dict[tuple[int, str], list[Row]]) -> Manifest:
    directory.mkdir()
    vocabulary_path = directory / "vocab.txt"
    vocabulary_path.write_text("".join(f"{entry}\n" for entry in ENTRIES))
    sets = []
    for (max_seq_length, split), rows in rows_of_set.items():
        part = directory / "part"
        write_columns(part, columns_of(rows), vocabulary_size=len(ENTRIES))
        sets.append(
            write_instance_set(
                directory,
                [part],
                max_seq_length=max_seq_length,
                split=split,
                instances_per_shard=25,
                vocabulary_size=len(ENTRIES),
            )
        )
        part.unlink()
    manifest = Manifest(
        format=FORMAT_NAME,
        format_version=FORMAT_VERSION,
        vocabulary=Vocabulary("vocab.txt", file_sha256(vocabulary_path), len(ENTRIES), True, 0, 1, 2, 3, 4),
        preparation=Preparation({"seed": 1, "sources": {"text": {"path": "x"}}}, {"numpy": "2"}),
        sources=(SourceRecord("text", "public domain", num_read=62, num_kept=60),),
        documents=DocumentCounts(num_read=62, num_train=50, num_heldout=10, dropped={"too_short": 2}),
        instance_sets=tuple(sets),
    )
    write_manifest(directory, manifest)
    return manifest
