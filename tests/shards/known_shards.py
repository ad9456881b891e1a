"""Folders of shards made from rows that the tests know."""

import random
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.shards.manifest import (
    FORMAT_NAME,
    FORMAT_VERSION,
    NEXT_SENTENCE,
    DocumentCounts,
    Manifest,
    Preparation,
    SourceRecord,
    Vocabulary,
)
from bert_lamb.shards.schema import Columns, token_dtype
from bert_lamb.shards.writer import equal_shard_sizes, instance_set_of, write_manifest, write_shard

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(195))]
CLS, SEP, FIRST_WORD = 2, 3, 5

Row = tuple[list[int], int, bool, int]  # input_ids, segment_a_length, sentence_label, document


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
        sentence_labels=np.array([row[2] for row in rows], np.bool_),
        documents=np.array([row[3] for row in rows], np.uint64),
    )


def random_single_rows(num_rows: int, *, max_seq_length: int, documents: range, seed: int) -> list[Row]:
    """Rows without a sentence task: "[CLS] text [SEP] text [SEP]" of one to four documents, all of token type 0."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for _ in range(num_rows):
        ids = [CLS]
        for _ in range(rng.randint(1, 4)):
            room = max_seq_length - len(ids) - 1
            if room > 0:
                ids += [*(rng.randrange(FIRST_WORD, len(ENTRIES)) for _ in range(rng.randint(1, room))), SEP]
        rows.append((ids, len(ids), False, rng.choice(documents)))
    return rows


def write_folder(
    directory: Path,
    rows_of_set: dict[tuple[int, str], list[Row]],
    *,
    sentence_task: str = NEXT_SENTENCE,
    entries: list[str] = ENTRIES,
) -> Manifest:
    directory.mkdir()
    vocabulary_path = directory / "vocab.txt"
    vocabulary_path.write_text("".join(f"{entry}\n" for entry in entries))
    sets = []
    for (max_seq_length, split), rows in rows_of_set.items():
        bounds = list(accumulate(equal_shard_sizes(len(rows), 25), initial=0))
        written = [
            write_shard(
                directory,
                columns_of(rows[start:stop]),
                max_seq_length=max_seq_length,
                split=split,
                number=number,
                num_shards=len(bounds) - 1,
                vocabulary_size=len(entries),
            )
            for number, (start, stop) in enumerate(pairwise(bounds))
        ]
        sets.append(instance_set_of(written, max_seq_length, split))
    manifest = Manifest(
        format=FORMAT_NAME,
        format_version=FORMAT_VERSION,
        vocabulary=Vocabulary("vocab.txt", file_sha256(vocabulary_path), len(entries), True, 0, 1, 2, 3, 4),
        sentence_task=sentence_task,
        preparation=Preparation({"seed": 1, "sources": {"text": {"path": "x"}}}, {"numpy": "2"}),
        sources=(SourceRecord("text", "public domain", num_read=62, num_kept=60),),
        documents=DocumentCounts(num_read=62, num_train=50, num_heldout=10, dropped={"too_short": 2}),
        instance_sets=tuple(sets),
    )
    write_manifest(directory, manifest)
    return manifest
