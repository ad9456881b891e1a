"""The contract between preparation and training: Arrow shards and their manifest. FORMAT.md is the normative text.

Writing side (data_prep): `write_shard`, `instance_set_of`, `write_manifest` of writer.py. Reading side (training):
the names below. Nothing but bytes in this layout crosses from one to the other.
"""

from bert_lamb.shards.manifest import NO_SENTENCE_TASK, InstanceSet, Manifest, Shard, Vocabulary, read_manifest
from bert_lamb.shards.reader import (
    HashedFile,
    Instances,
    RaggedInstances,
    check_hashes,
    files_to_hash,
    hash_in_chunks,
    num_bytes_to_hash,
    open_instances,
)

__all__ = [
    "NO_SENTENCE_TASK",
    "HashedFile",
    "InstanceSet",
    "Instances",
    "Manifest",
    "RaggedInstances",
    "Shard",
    "Vocabulary",
    "check_hashes",
    "files_to_hash",
    "hash_in_chunks",
    "num_bytes_to_hash",
    "open_instances",
    "read_manifest",
]
