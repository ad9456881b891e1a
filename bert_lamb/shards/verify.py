"""Check prepared shards from end to end: every hash, every count, every invariant of FORMAT.md.

Each check adds its complaints and none stops the others, so one run tells everything that is wrong. One shard is
looked at a time; what stays in memory is one number per document.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bert_lamb.errors import UserError
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.shards.manifest import NO_SENTENCE_TASK, InstanceSet, Manifest, Shard, Vocabulary, read_manifest
from bert_lamb.shards.reader import open_shard, require_file
from bert_lamb.shards.schema import MIN_PAIR_TOKENS, MIN_SINGLE_TOKENS, Columns

SPECIAL_TOKENS = {"pad_id": "[PAD]", "unk_id": "[UNK]", "cls_id": "[CLS]", "sep_id": "[SEP]", "mask_id": "[MASK]"}


def verify(directory: Path) -> list[str]:
    """Every complaint about a folder of shards, an empty list if it is sound."""
    try:
        manifest = read_manifest(directory)
    except UserError as error:
        return [str(error)]
    complaints = _verify_vocabulary(directory, manifest.vocabulary)
    complaints += _verify_document_counts(manifest)
    complaints += _verify_file_names(directory, manifest)
    documents_of_split: dict[str, np.ndarray] = {}
    for instance_set in manifest.instance_sets:
        found = _Found()
        for shard in instance_set.shards:
            complaints += _verify_shard(directory, shard, instance_set, manifest, found)
        complaints += _verify_set(instance_set, found)
        known = documents_of_split.get(instance_set.split, np.empty(0, np.uint64))
        documents_of_split[instance_set.split] = np.unique(np.concatenate([known, *found.documents]))
    complaints += _verify_splits(manifest, documents_of_split)
    complaints += _verify_text(manifest)
    return complaints


@dataclass
class _Found:
    """What the readable shards of one set hold."""

    num_true_labels: int = 0
    documents: list[np.ndarray] = field(default_factory=list)  # unique document numbers of each shard
    are_all_readable: bool = True


def _verify_vocabulary(directory: Path, vocabulary: Vocabulary) -> list[str]:
    path = directory / vocabulary.file
    try:
        require_file(path)
    except UserError as error:
        return [str(error)]
    complaints = []
    if file_sha256(path) != vocabulary.sha256:
        complaints.append(f"{path}: its sha256 is not the manifest's: another vocabulary")
    entries = path.read_text(encoding="utf-8", errors="replace").split("\n")
    entries = entries[:-1] if entries[-1] == "" else entries
    if len(entries) != vocabulary.size:
        complaints.append(f"{path}: {len(entries)} entries, but {vocabulary.size} in the manifest")
    for name, token in SPECIAL_TOKENS.items():
        token_id = getattr(vocabulary, name)
        if not 0 <= token_id < len(entries) or entries[token_id] != token:
            complaints.append(f"{path}: {token} is not entry {token_id}, the manifest's {name}")
    return complaints


def _verify_document_counts(manifest: Manifest) -> list[str]:
    documents, sources = manifest.documents, manifest.sources
    num_kept = documents.num_train + documents.num_heldout
    accounts = {
        "train + heldout + dropped": num_kept + sum(documents.dropped.values()),
        "documents read from the sources": sum(source.num_read for source in sources),
    }
    complaints = [
        f"manifest.documents: {documents.num_read} read, but {count} by {name}"
        for name, count in accounts.items()
        if count != documents.num_read
    ]
    if sum(source.num_kept for source in sources) != num_kept:
        complaints.append(f"manifest.sources: the documents kept do not sum to the {num_kept} of manifest.documents")
    return complaints


def _verify_file_names(directory: Path, manifest: Manifest) -> list[str]:
    named = {shard.file for instance_set in manifest.instance_sets for shard in instance_set.shards}
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*.arrow")}
    complaints = [f"{directory / file}: a shard that the manifest does not name" for file in sorted(present - named)]
    for instance_set in manifest.instance_sets:
        for number, shard in enumerate(instance_set.shards):
            expected = (
                f"seq{instance_set.max_seq_length}/{instance_set.split}"
                f"-{number:05d}-of-{len(instance_set.shards):05d}.arrow"
            )
            if shard.file != expected:
                complaints.append(f"manifest: shard {shard.file} where {expected} belongs")
    return complaints


def _verify_shard(
    directory: Path, shard: Shard, instance_set: InstanceSet, manifest: Manifest, found: _Found
) -> list[str]:
    path = directory / shard.file
    complaints = []
    if not re.fullmatch("[0-9a-f]{64}", shard.sha256):
        complaints.append(f"manifest: {shard.sha256!r} of {shard.file} is not a sha256")
    try:
        require_file(path)
        sha256 = file_sha256(path)
        if sha256 != shard.sha256:
            for other in (other for each in manifest.instance_sets for other in each.shards):
                if sha256 == other.sha256:
                    found.are_all_readable = False
                    return [*complaints, f"{path}: it holds what belongs in {other.file}: swapped, or copied over"]
            complaints.append(f"{path}: its sha256 is not the manifest's: damaged, or another shard")
        columns = open_shard(directory, shard, manifest.vocabulary)
    except UserError as error:
        found.are_all_readable = False
        return [*complaints, str(error)]
    faults = row_faults(columns, instance_set.max_seq_length, manifest.vocabulary, manifest.sentence_task)
    found.num_true_labels += int(columns.sentence_labels.sum())
    found.documents.append(np.unique(columns.documents))
    return complaints + [f"{path}: {fault}" for fault in faults]


def row_faults(columns: Columns, max_seq_length: int, vocabulary: Vocabulary, sentence_task: str) -> list[str]:
    """The invariants of a row that do not hold, each told with the number of rows and the first of them."""
    ids = columns.input_ids
    starts, stops = columns.offsets[:-1].astype(np.int64), columns.offsets[1:].astype(np.int64)
    lengths, segment_a_lengths = stops - starts, columns.segment_a_lengths.astype(np.int64)
    is_pair = sentence_task != NO_SENTENCE_TASK
    shortest = MIN_PAIR_TOKENS if is_pair else MIN_SINGLE_TOKENS
    faults = []

    def complain(is_wrong: np.ndarray, rule: str) -> None:
        if is_wrong.any():
            faults.append(f"{int(is_wrong.sum())} rows, the first is {int(is_wrong.argmax())}, {rule}")

    complain((lengths < shortest) | (lengths > max_seq_length), f"whose length is not in {shortest}..{max_seq_length}")
    if is_pair:
        is_misplaced = (segment_a_lengths < 3) | (segment_a_lengths > lengths - 2)
        complain(is_misplaced, "whose segment_a_length leaves a segment empty")
    else:
        is_misplaced = segment_a_lengths != lengths
        complain(is_misplaced, "whose segment_a_length is not the length")
        complain(columns.sentence_labels, "whose sentence_label is true")
    # The next rules look into the row, which they can where its bounds lie in the file and its segments in the row.
    is_readable = (lengths >= shortest) & (starts >= 0) & (stops <= len(ids)) & ~(is_misplaced & is_pair)
    if not is_readable.any():
        return faults

    def token_is(positions: np.ndarray, token_id: int) -> np.ndarray:
        """[N] whether the row's token at this position of the file is the given one; True for rows not readable."""
        return np.where(is_readable, ids[np.where(is_readable, positions, 0)] == token_id, True)

    def count_in_rows(is_wanted: np.ndarray) -> np.ndarray:
        """[N] tokens of each row that are wanted; 0 for rows not readable."""
        totals = np.concatenate([[0], np.cumsum(is_wanted, dtype=np.int64)])
        return np.where(
            is_readable, totals[np.where(is_readable, stops, 0)] - totals[np.where(is_readable, starts, 0)], 0
        )

    is_sep = ids == vocabulary.sep_id
    complain(~token_is(starts, vocabulary.cls_id), "that do not begin with [CLS]")
    complain(~token_is(stops - 1, vocabulary.sep_id), "that do not end with [SEP]")
    complain(is_readable & (count_in_rows(ids == vocabulary.cls_id) != 1), "that do not hold exactly one [CLS]")
    if is_pair:
        complain(~token_is(starts + segment_a_lengths - 1, vocabulary.sep_id), "without [SEP] at the end of segment A")
        complain(is_readable & (count_in_rows(is_sep) != 2), "that do not hold exactly two [SEP]")
    else:
        # A [SEP] ends a document's text, so the token before it belongs to that text.
        is_special = is_sep | (ids == vocabulary.cls_id)
        ends_nothing = is_sep & np.concatenate([[False], is_special[:-1]])
        complain(count_in_rows(ends_nothing) > 0, "with [SEP] right after [CLS] or another [SEP]")
    is_foreign = (ids == vocabulary.pad_id) | (ids == vocabulary.mask_id)
    complain(count_in_rows(is_foreign) > 0, "that hold [PAD] or [MASK]")
    is_outside = (ids < 0) | (ids >= vocabulary.size)
    complain(count_in_rows(is_outside) > 0, f"with an id outside 0..{vocabulary.size - 1}")
    return faults


def _verify_set(instance_set: InstanceSet, found: _Found) -> list[str]:
    name = f"{instance_set.split} {instance_set.max_seq_length}"
    sizes = [shard.num_instances for shard in instance_set.shards]
    complaints = []
    if max(sizes) - min(sizes) > 1:
        complaints.append(f"manifest: shards of {name} hold {min(sizes)} to {max(sizes)} instances, not equally many")
    if found.are_all_readable and found.num_true_labels != instance_set.num_true_labels:
        complaints.append(
            f"manifest: num_true_labels {instance_set.num_true_labels} of {name}, "
            f"but {found.num_true_labels} in its shards"
        )
    return complaints


def _verify_splits(manifest: Manifest, documents_of_split: dict[str, np.ndarray]) -> list[str]:
    complaints = []
    train = documents_of_split.get("train", np.empty(0, np.uint64))
    heldout = documents_of_split.get("heldout", np.empty(0, np.uint64))
    shared = np.intersect1d(train, heldout)
    if len(shared):
        complaints.append(f"{len(shared)} documents both in train and in heldout, the first is {shared[0]}")
    for split, present in (("train", train), ("heldout", heldout)):
        declared = getattr(manifest.documents, f"num_{split}")
        if len(present) > declared:
            complaints.append(f"{len(present)} {split} documents in the shards, but {declared} in the manifest")
    return complaints


def _verify_text(manifest: Manifest) -> list[str]:
    """Every token that is not left out is in an instance, so these hold no fewer."""
    num_special = 2 if manifest.sentence_task == NO_SENTENCE_TASK else 3
    held = {
        (found.max_seq_length, found.split): found.num_tokens - num_special * found.num_instances
        for found in manifest.instance_sets
    }
    complaints = []
    for record in manifest.text:
        num_expected = record.num_tokens - record.num_left_out
        found = held.get((record.max_seq_length, record.split), 0)
        if found < num_expected:
            complaints.append(
                f"manifest.text: {num_expected} tokens of {record.split} {record.max_seq_length} are not left out, "
                f"but its instances hold {found}"
            )
    return complaints
