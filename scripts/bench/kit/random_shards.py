"""Shards of random words, where a bench needs no meaning: of any size, and at hand on any machine."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.shards import manifest as contract
from bert_lamb.shards.schema import Columns, offsets_of
from bert_lamb.shards.writer import equal_shard_sizes, instance_set_of, write_manifest, write_shard

VOCABULARY_SIZE, NUM_CONTINUATIONS = 30_522, 5_828  # of bert-base-uncased
CONTINUATION_SHARE = 0.15  # of the ordinary tokens
CLS, SEP, FIRST_WORD = 2, 3, 5


def random_columns(num_instances: int, max_seq_length: int, full_share: float, random: np.random.Generator) -> Columns:
    """Pairs of random words and continuations, laid end to end."""
    is_full = random.random(num_instances) < full_share
    lengths = np.where(is_full, max_seq_length, random.integers(5, max_seq_length + 1, num_instances))
    offsets = offsets_of(lengths)
    ids = random.integers(FIRST_WORD, VOCABULARY_SIZE - NUM_CONTINUATIONS, offsets[-1])
    is_continuation = random.random(len(ids)) < CONTINUATION_SHARE
    ids[is_continuation] = random.integers(VOCABULARY_SIZE - NUM_CONTINUATIONS, VOCABULARY_SIZE, is_continuation.sum())
    segment_a_lengths = random.integers(3, lengths - 1)
    ids[offsets[:-1]] = CLS
    ids[offsets[:-1] + segment_a_lengths - 1] = SEP
    ids[offsets[1:] - 1] = SEP
    return Columns(
        input_ids=ids.astype(np.uint16),
        offsets=offsets,
        segment_a_lengths=segment_a_lengths.astype(np.uint16),
        sentence_labels=random.random(num_instances) < 0.5,
        documents=np.arange(num_instances, dtype=np.uint64),
    )


def make_shards(directory: Path, full_shares: Mapping[int, float], tokens_per_set: int) -> None:
    """A folder as `prepare` leaves it, with four shards of each length.

    full_shares: length -> share of the rows that are so long; the others are of any length.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [f"w{number}" for number in range(FIRST_WORD, VOCABULARY_SIZE - NUM_CONTINUATIONS)]
    entries = [*special, *words, *(f"##{number}" for number in range(NUM_CONTINUATIONS))]
    (directory / "vocab.txt").write_text("".join(f"{entry}\n" for entry in entries))
    sets = []
    for length, full_share in full_shares.items():
        num_instances = tokens_per_set // length
        columns = random_columns(num_instances, length, full_share, np.random.default_rng(length))
        sizes = equal_shard_sizes(num_instances, -(-num_instances // 4))
        starts = np.cumsum([0, *sizes])
        written = [
            write_shard(
                directory,
                columns.slice(int(starts[number]), int(starts[number + 1])),
                max_seq_length=length,
                split="train",
                number=number,
                num_shards=len(sizes),
                vocabulary_size=VOCABULARY_SIZE,
            )
            for number in range(len(sizes))
        ]
        sets.append(instance_set_of(written, length, "train"))
    sha256 = file_sha256(directory / "vocab.txt")
    manifest = contract.Manifest(
        format=contract.FORMAT_NAME,
        format_version=contract.FORMAT_VERSION,
        vocabulary=contract.Vocabulary("vocab.txt", sha256, VOCABULARY_SIZE, True, 0, 1, CLS, SEP, 4),
        sentence_task=contract.NEXT_SENTENCE,
        preparation=contract.Preparation({}, {}),
        sources=(),
        documents=contract.DocumentCounts(0, 0, 0, {}),
        instance_sets=tuple(sets),
    )
    write_manifest(directory, manifest)
