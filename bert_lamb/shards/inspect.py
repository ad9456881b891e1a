"""Instances as text: what `bert-lamb inspect` prints, and the sample rows of the data card."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

from bert_lamb.errors import UserError
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.shards.manifest import (
    NEXT_SENTENCE,
    SENTENCE_ORDER,
    InstanceSet,
    Manifest,
    Shard,
    Vocabulary,
    read_manifest,
)
from bert_lamb.shards.reader import open_shard, require_file
from bert_lamb.shards.schema import Columns

CONTINUATION = "##"
LABELS = {  # sentence_task -> what a sentence_label of False and of True is called, and what it means
    NEXT_SENTENCE: (("next", "B follows A"), ("random next", "B was taken from another document")),
    SENTENCE_ORDER: (("in order", "B follows A"), ("swapped", "A follows B")),
}
INDENT = " " * 12


@dataclass(frozen=True)
class Entries:
    """The vocabulary as text: what turns ids into words."""

    texts: list[str]  # by id
    special_ids: frozenset[int]

    def piece(self, token_id: int) -> str:
        """The entry as it is in the vocabulary; distinct from all entries if there is none."""
        return self.texts[token_id] if 0 <= token_id < len(self.texts) else f"[no entry {token_id}]"

    def words(self, ids: list[int]) -> str:
        """The pieces joined to words; a special token is never part of a word."""
        words: list[str] = []
        previous_is_special = True
        for token_id in ids:
            piece, is_special = self.piece(token_id), token_id in self.special_ids
            if piece.startswith(CONTINUATION) and not previous_is_special:
                words[-1] += piece.removeprefix(CONTINUATION)
            else:
                words.append(piece)
            previous_is_special = is_special
        return " ".join(words)

    def pieces(self, ids: list[int]) -> str:
        """Every piece with its id, as `piece:id`."""
        return " ".join(f"{self.piece(token_id)}:{token_id}" for token_id in ids)


def read_entries(directory: Path, vocabulary: Vocabulary) -> Entries:
    """The entries of the folder's vocabulary; UserError if the file is absent or another one."""
    path = directory / vocabulary.file
    require_file(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(found=f"{error} in {path}", expected="UTF-8", fix="prepare the shards again") from error
    if file_sha256(path) != vocabulary.sha256:
        raise UserError(
            found=f"another {path} than the shards were made with",
            expected=f"that of sha256 {vocabulary.sha256[:12]}...",
            fix="copy the folder again from where it was made",
        )
    special = (vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id)
    return Entries(text.removesuffix("\n").split("\n"), frozenset(special))


def instance_text(
    columns: Columns,
    row: int,
    entries: Entries,
    *,
    sentence_task: str,
    with_pieces: bool = False,
    line_width: int | None = None,
) -> str:
    """One row as lines: document, tokens, label in words, segments A and B (or the text, where there is no task).

    with_pieces: every piece with its id, instead of words.
    line_width: characters at which the lines of the segments are broken; None leaves each on one line.
    """
    start, stop = columns.offsets[row : row + 2].tolist()
    ids: list[int] = columns.input_ids[start:stop].tolist()
    length_a = int(columns.segment_a_lengths[row])
    show = entries.pieces if with_pieces else entries.words
    if sentence_task in LABELS:
        name, meaning = LABELS[sentence_task][bool(columns.sentence_labels[row])]
        segments, label = {"A": ids[:length_a], "B": ids[length_a:]}, f"{name} ({meaning})"
        tokens = f"{len(ids)} ({len(segments['A'])} of A, {len(segments['B'])} of B)"
    else:
        segments, label, tokens = {"text": ids}, "none (there is no sentence task)", f"{len(ids)}"
    fields = {"document": str(columns.documents[row]), "tokens": tokens, "label": label}
    fields |= {name: show(segment) for name, segment in segments.items()}
    lines = [f"{f'  {name}':<{len(INDENT)}}{text}" for name, text in fields.items()]
    if line_width:
        lines = [
            textwrap.fill(line, line_width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)
            for line in lines
        ]
    return "\n".join(lines)


def inspect(
    directory: Path,
    *,
    max_seq_length: int | None,
    split: str | None,
    shard: str | None,
    first: int,
    count: int,
    with_pieces: bool,
) -> list[str]:
    """At most `count` instances as text, from number `first` on.

    shard: a file of the folder, whose rows `first` then counts; else the whole set of max_seq_length (None: the
    shortest that there is) and split (None: train) is counted through, shard after shard. Only the shards that hold
    the instances are opened. Raises UserError when there is no such set, shard or number.
    """
    manifest = read_manifest(directory)
    entries = read_entries(directory, manifest.vocabulary)
    if shard is None:
        shortest = min((found.max_seq_length for found in manifest.instance_sets), default=0)
        instance_set = manifest.instance_set(max_seq_length=max_seq_length or shortest, split=split or "train")
        first_number, num_counted = 0, instance_set.num_instances
        where = f"{instance_set.split} {instance_set.max_seq_length}"
    else:
        instance_set, chosen = shard_of(directory, manifest, shard)
        earlier = instance_set.shards[: instance_set.shards.index(chosen)]
        first_number, num_counted, where = sum(one.num_instances for one in earlier), chosen.num_instances, chosen.file
    if not 0 <= first < num_counted:
        raise UserError(
            found=f"first={first}", expected=f"0..{num_counted - 1}, the instances of {where}", fix="set first"
        )
    wanted = range(first_number + first, first_number + min(first + count, num_counted))
    texts, shard_start = [], 0
    for one in instance_set.shards:
        numbers = range(max(wanted.start, shard_start), min(wanted.stop, shard_start + one.num_instances))
        if numbers:
            columns = open_shard(directory, one, manifest.vocabulary)
            texts += [
                f"instance {number} of {instance_set.split} {instance_set.max_seq_length}, "
                f"row {number - shard_start} of {one.file}\n"
                + instance_text(
                    columns,
                    number - shard_start,
                    entries,
                    sentence_task=manifest.sentence_task,
                    with_pieces=with_pieces,
                )
                for number in numbers
            ]
        shard_start += one.num_instances
    return texts


def shard_of(directory: Path, manifest: Manifest, file: str) -> tuple[InstanceSet, Shard]:
    """The shard that `file` names, by its name in the manifest or by its path; UserError if it is not of the folder."""
    for instance_set in manifest.instance_sets:
        for shard in instance_set.shards:
            if file == shard.file or Path(file).resolve() == (directory / shard.file).resolve():
                return instance_set, shard
    example = next((one.shards[0].file for one in manifest.instance_sets), "none: it has no shards")
    raise UserError(
        found=f"shard={file}", expected=f"a shard of {directory}, such as {example}", fix="see its manifest.json"
    )
