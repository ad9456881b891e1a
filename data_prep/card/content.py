"""What the data card says beyond the manifest: plain values, by the names that card.md.j2 knows them by.

Letters: L tokens at most in an instance, V entries of the vocabulary.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from bert_lamb.shards.inspect import CONTINUATION, LABELS, Entries, instance_text
from bert_lamb.shards.manifest import SPLITS, Manifest
from bert_lamb.shards.reader import open_shard
from data_prep.card.counts import Frequencies
from data_prep.card.figures import LENGTH_BINS_IN_TABLE

NUM_FREQUENT = 30  # entries listed
NUM_FREQUENT_COLUMNS = 3  # at most, side by side
SAMPLE_LINE_WIDTH = 96  # characters


@dataclass(frozen=True)
class SentenceTask:
    name: str
    form: str
    true_means: str  # of an instance whose sentence_label is True


SENTENCE_TASKS = {
    "next_sentence": SentenceTask(
        "next-sentence prediction (Devlin et al. 2019)",
        "an instance is `[CLS] A [SEP] B [SEP]`",
        "B was taken from another document",
    ),
    "sentence_order": SentenceTask(
        "sentence order (ALBERT, Lan et al. 2020)",
        "an instance is `[CLS] A [SEP] B [SEP]`, A and B neighbours in one document",
        "A and B are swapped",
    ),
    "none": SentenceTask(
        "none, full sentences only (RoBERTa, Liu et al. 2019)",
        "an instance is `[CLS] text [SEP] text [SEP] ...`, of one or more documents, each closed by `[SEP]`",
        "never",
    ),
}


@dataclass(frozen=True)
class LengthBin:
    shortest: int  # tokens
    longest: int  # tokens, included
    num_instances: dict[str, int]  # by split


@dataclass(frozen=True)
class LengthTable:
    """How the instances of one maximal length are distributed by their own."""

    max_seq_length: int
    num_instances: dict[str, int]  # by split
    bins: list[LengthBin]


@dataclass(frozen=True)
class Sample:
    max_seq_length: int
    row: int  # of the first shard
    text: str


@dataclass(frozen=True)
class Occurrences:
    """What the frequencies sum up to."""

    num_tokens: int
    num_unknown: int  # of the tokens
    num_continuing: int  # of the tokens
    num_entries: int  # that occur


@dataclass(frozen=True)
class FrequentEntry:
    rank: int
    text: str
    count: int


@dataclass(frozen=True)
class FrequentTable:
    """The most frequent entries, ranked down each column; None below the last."""

    num_columns: int
    rows: list[tuple[FrequentEntry | None, ...]]


def card_content(
    directory: Path,
    manifest: Manifest,
    entries: Entries,
    length_counts: Mapping[tuple[int, str], np.ndarray],
    frequencies: Frequencies,
) -> dict[str, Any]:
    """The values of card.md.j2.

    length_counts: (maximal length, split) -> [L + 1] instances of each length. Reads rows of the first shards of the
    train sets.
    """
    vocabulary = manifest.vocabulary
    lengths = sorted({found.max_seq_length for found in manifest.instance_sets})
    labels = LABELS.get(manifest.sentence_task)
    special_ids = (vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id)
    return {
        "manifest": manifest,
        "front_matter": front_matter(manifest, lengths),
        "sentence_task": SENTENCE_TASKS[manifest.sentence_task],
        "true_label": dict(zip(("name", "meaning"), labels[True], strict=True)) if labels else None,
        "length_tables": [length_table(max_seq_length, length_counts) for max_seq_length in lengths],
        "samples": samples(directory, manifest, entries),
        "entries": entries.texts,
        "special_ids": special_ids,
        "frequencies": frequencies,
        "occurrences": occurrences(frequencies.text_counts, entries, vocabulary.unk_id),
        "frequent": frequent_table(frequencies.text_counts, entries),
    }


def front_matter(manifest: Manifest, lengths: Sequence[int]) -> dict[str, Any]:
    """What the Hugging Face hub and `datasets` read: a configuration a length, a split a file pattern."""
    given = list(dict.fromkeys(source.license for source in manifest.sources if source.license))
    identifiers = [text if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", text) else "other" for text in given]
    return {
        "pretty_name": "BERT pretraining shards: " + ", ".join(source.name for source in manifest.sources),
        "license": list(dict.fromkeys(identifiers)) or ["unknown"],  # the hub knows licences by identifiers
        **({"license_details": "; ".join(given)} if "other" in identifiers else {}),
        "task_categories": ["fill-mask"],
        "configs": [
            {
                "config_name": f"seq{max_seq_length}",
                "data_files": [
                    {"split": found.split, "path": f"seq{max_seq_length}/{found.split}-*.arrow"}
                    for found in manifest.instance_sets
                    if found.max_seq_length == max_seq_length
                ],
            }
            for max_seq_length in lengths
        ],
    }


def length_table(max_seq_length: int, counts: Mapping[tuple[int, str], np.ndarray]) -> LengthTable:
    """Bins of equal width, and one for the instances that are full."""
    splits = [split for split in SPLITS if (max_seq_length, split) in counts]
    edges = [1 + max_seq_length * number // LENGTH_BINS_IN_TABLE for number in range(LENGTH_BINS_IN_TABLE)]
    bounds = [*zip(edges, [*edges[1:], max_seq_length], strict=True), (max_seq_length, max_seq_length + 1)]
    bins = [
        LengthBin(start, stop - 1, {split: int(counts[max_seq_length, split][start:stop].sum()) for split in splits})
        for start, stop in bounds
        if start < stop
    ]
    return LengthTable(max_seq_length, {split: int(counts[max_seq_length, split].sum()) for split in splits}, bins)


def samples(directory: Path, manifest: Manifest, entries: Entries) -> list[Sample]:
    """Rows of the first shard of each train set as text: of the shortest the first of each label, else the first."""
    found = []
    train_sets = sorted(
        (found for found in manifest.instance_sets if found.split == "train"), key=lambda found: found.max_seq_length
    )
    for instance_set in train_sets:
        columns = open_shard(directory, instance_set.shards[0], manifest.vocabulary)
        rows = sorted(np.unique(columns.sentence_labels, return_index=True)[1].tolist())
        for row in rows if instance_set is train_sets[0] else rows[:1]:
            text = instance_text(
                columns, row, entries, sentence_task=manifest.sentence_task, line_width=SAMPLE_LINE_WIDTH
            )
            found.append(Sample(instance_set.max_seq_length, row, text))
    return found


def occurrences(text_counts: np.ndarray, entries: Entries, unk_id: int) -> Occurrences:
    """text_counts: [V]."""
    is_continuation = np.array([text.startswith(CONTINUATION) for text in entries.texts])
    return Occurrences(
        num_tokens=int(text_counts.sum()),
        num_unknown=int(text_counts[unk_id]),
        num_continuing=int(text_counts[is_continuation].sum()),
        num_entries=int((text_counts > 0).sum()),
    )


def frequent_table(text_counts: np.ndarray, entries: Entries) -> FrequentTable:
    """Of entries that occur equally often, those with the lower id come first. text_counts: [V]."""
    by_frequency = np.lexsort((np.arange(len(text_counts)), -text_counts))[:NUM_FREQUENT].tolist()
    ranked = [
        FrequentEntry(rank, entries.texts[number], int(text_counts[number]))
        for rank, number in enumerate(by_frequency, 1)
        if text_counts[number]
    ]
    num_rows = max(1, -(-len(ranked) // NUM_FREQUENT_COLUMNS))
    columns = [ranked[start : start + num_rows] for start in range(0, len(ranked), num_rows)]
    return FrequentTable(len(columns), list(zip_longest(*columns)))
