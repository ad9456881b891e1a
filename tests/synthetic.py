"""Small shards of random tokens, made with the writing side of the contract; no text, no tokenizer, milliseconds."""

from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.shards.manifest import (
    FORMAT_NAME,
    FORMAT_VERSION,
    NEXT_SENTENCE,
    NO_SENTENCE_TASK,
    DocumentCounts,
    InstanceSet,
    Manifest,
    Preparation,
    SourceRecord,
    Vocabulary,
)
from bert_lamb.shards.schema import Columns, offsets_of
from bert_lamb.shards.writer import equal_shard_sizes, instance_set_of, write_manifest, write_shard

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(5)


def random_columns(
    num_instances: int,
    *,
    max_seq_length: int,
    vocab_size: int,
    seed: int,
    is_full: bool,
    sentence_task: str = NEXT_SENTENCE,
) -> Columns:
    """Instances of random ordinary tokens; is_full gives all of them the maximal length.

    "[CLS] A [SEP] B [SEP]", and without a sentence task the same rows as one segment.
    """
    random = np.random.default_rng(seed)
    shortest = max_seq_length if is_full else max_seq_length // 2
    lengths = random.integers(shortest, max_seq_length + 1, num_instances)
    segment_a_lengths = random.integers(3, lengths - 1)
    rows = []
    for length, length_a in zip(lengths, segment_a_lengths, strict=True):
        row = random.integers(len(SPECIAL_TOKENS), vocab_size, length)
        row[0], row[length_a - 1], row[-1] = CLS, SEP, SEP
        rows.append(row)
    is_pair = sentence_task != NO_SENTENCE_TASK
    return Columns(
        input_ids=np.concatenate(rows).astype(np.uint16),
        offsets=offsets_of(lengths),
        segment_a_lengths=(segment_a_lengths if is_pair else lengths).astype(np.uint16),
        sentence_labels=(random.random(num_instances) < 0.5) & is_pair,
        documents=np.arange(num_instances, dtype=np.uint64),
    )


def make_shards(
    directory: Path,
    *,
    max_seq_lengths: tuple[int, ...] = (16, 32),
    num_train: int = 200,
    num_heldout: int = 40,
    vocab_size: int = 97,
    instances_per_shard: int = 90,
    is_full: bool = False,
    sentence_task: str = NEXT_SENTENCE,
) -> Path:
    """A complete folder as `prepare` leaves it; returns it."""
    directory.mkdir(parents=True)
    vocabulary_file = directory / "vocab.txt"
    vocabulary_file.write_text(
        "\n".join([*SPECIAL_TOKENS, *(f"{'##' if i % 4 == 3 else ''}w{i}" for i in range(vocab_size - 5))]) + "\n"
    )
    sets: list[InstanceSet] = []
    for max_seq_length in max_seq_lengths:
        for split, count in (("train", num_train), ("heldout", num_heldout)):
            seed = max_seq_length + len(split)
            columns = random_columns(
                count,
                max_seq_length=max_seq_length,
                vocab_size=vocab_size,
                seed=seed,
                is_full=is_full,
                sentence_task=sentence_task,
            )
            sizes = equal_shard_sizes(count, instances_per_shard)
            bounds = list(accumulate(sizes, initial=0))
            written = [
                write_shard(
                    directory,
                    columns.slice(start, stop),
                    max_seq_length=max_seq_length,
                    split=split,
                    number=number,
                    num_shards=len(sizes),
                    vocabulary_size=vocab_size,
                )
                for number, (start, stop) in enumerate(pairwise(bounds))
            ]
            sets.append(instance_set_of(written, max_seq_length, split))
    num_documents = num_train + num_heldout
    write_manifest(
        directory,
        Manifest(
            format=FORMAT_NAME,
            format_version=FORMAT_VERSION,
            vocabulary=Vocabulary(
                "vocab.txt", file_sha256(vocabulary_file), vocab_size, True, PAD, UNK, CLS, SEP, MASK
            ),
            sentence_task=sentence_task,
            preparation=Preparation(config={}, versions={}),
            sources=(SourceRecord("synthetic", "none", num_documents, num_documents),),
            documents=DocumentCounts(num_documents, num_train, num_heldout, {}),
            instance_sets=tuple(sets),
        ),
    )
    return directory
