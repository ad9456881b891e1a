"""What the data card counts in the shards, one mapped at a time. L: tokens at most in an instance; V: entries."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_lamb.shards.inspect import Entries
from bert_lamb.shards.manifest import InstanceSet, Manifest
from bert_lamb.shards.reader import open_shard

MAX_COUNTED_TOKENS = 500_000_000  # for the frequencies: 1 GB of ids to read, 2 GB where they are int32
TOKENS_PER_CHUNK = 1 << 20


@dataclass(frozen=True)
class Frequencies:
    """How often each entry of the vocabulary stands in some of the tokens of one set."""

    instance_set: InstanceSet
    num_tokens_counted: int
    tokens_per_shard: int  # the first of each shard were counted
    text_counts: np.ndarray  # [V] int64; [CLS] and [SEP], which every instance has, at 0


def count_lengths(directory: Path, manifest: Manifest, instance_set: InstanceSet) -> np.ndarray:
    """[L + 1] int64, the instances of each length in tokens."""
    counts = np.zeros(instance_set.max_seq_length + 1, np.int64)
    for shard in instance_set.shards:
        columns = open_shard(directory, shard, manifest.vocabulary)
        counts += np.bincount(np.diff(columns.offsets), minlength=len(counts))
    return counts


def count_entries(directory: Path, manifest: Manifest, entries: Entries, *, max_tokens: int) -> Frequencies:
    """Count at most `max_tokens` tokens of the shortest train set, equally many from the beginning of each shard."""
    instance_set = min(manifest.instance_sets, key=lambda found: (found.split != "train", found.max_seq_length))
    tokens_per_shard = max_tokens // len(instance_set.shards)
    counts = np.zeros(len(entries.texts), np.int64)
    num_tokens_counted = 0
    for shard in instance_set.shards:
        ids = open_shard(directory, shard, manifest.vocabulary).input_ids[:tokens_per_shard]
        for start in range(0, len(ids), TOKENS_PER_CHUNK):
            counts += np.bincount(ids[start : start + TOKENS_PER_CHUNK], minlength=len(counts))
        num_tokens_counted += len(ids)
    counts[[manifest.vocabulary.cls_id, manifest.vocabulary.sep_id]] = 0
    return Frequencies(instance_set, num_tokens_counted, tokens_per_shard, counts)
