"""`bert-lamb prepare`, `merge` and `vocab`: the order in which the stations are run, and how they are spread.

    plan the partitions -> documents of each, tokenized -> [all done] -> choose and group -> instances -> shards
                           \\_______ prepare share=I/N ______/    \\___________________ merge ____________________/

Everything is made in OUTPUT.partial beside its place and renamed at the end, so OUTPUT is complete or absent. Each unit
(block of documents, group, shard) is a file that appears whole, so a run that was killed resumes with the next one.
"""

import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bert_lamb.errors import UserError
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.outputs.staged import OutputKind, begin, is_complete, partial_dir_of, publish
from bert_lamb.shards.inspect import LABELS
from bert_lamb.shards.manifest import (
    FORMAT_NAME,
    FORMAT_VERSION,
    DocumentCounts,
    InstanceSet,
    Manifest,
    Preparation,
    SourceRecord,
    TextRecord,
    Vocabulary,
)
from bert_lamb.shards.writer import write_manifest
from data_prep.card import write_card
from data_prep.card.card import LEFT_OUT_TEXTS, percent
from data_prep.deviations import deviations, left_out_of_length, unknown_tokens
from data_prep.documents import near_duplicates, vocabulary, vocabulary_fit
from data_prep.documents.make import make_documents
from data_prep.documents.selection import Chosen, choose
from data_prep.documents.vocabulary_file import read_entries
from data_prep.instances.make import make_instance_sets
from data_prep.plan import Partition, num_files, plan, share_of
from data_prep.pool import Pool, require_workers
from data_prep.settings import Settings, Spread
from data_prep.sources import describe_passed_over
from data_prep.workspace import KIND, Workspace, forget_another_corpus, require_same_config, versions


def prepare(settings: Settings, spread: Spread, *, output_dir: Path, if_exists: str) -> None:
    """Turn raw text into shards for every length; bert_lamb.config.corpus says what each setting means.

    With spread.share only the documents of that share are made, in OUTPUT.partial, for `merge`.

    Raises UserError when a source cannot be read or yields too little, when the vocabulary is none of BERT's, when no
    instance comes out, and when the output is there already and `if_exists` ("refuse", "resume", "restart") forbids it.
    """
    started_at = time.monotonic()
    if spread.share is not None:
        prepare_share(settings, spread, output_dir=output_dir)
        return
    if if_exists == "restart":  # what is refused is refused before anything is deleted
        require_fitting_vocabulary(settings, partitions_of(settings, spread))
    if is_made(settings, output_dir, if_exists=if_exists):
        return
    partitions, workspace = open_workspace(settings, spread, output_dir, is_text_read=True)
    if is_cleared_up(workspace, output_dir):
        return
    with Pool(spread.num_workers) as pool:
        if passed_over := describe_passed_over(settings.sources):
            print(f"passed over: {passed_over}", flush=True)  # now, while it is not too late
        make_documents(partitions, workspace, settings, pool)
        finish(partitions, workspace, settings, pool, output_dir, passed_over, started_at=started_at)


def prepare_share(settings: Settings, spread: Spread, *, output_dir: Path) -> None:
    """The documents of one share. Other processes may work on other shares at the same time, on any machine."""
    assert spread.share is not None
    if settings.vocabulary_file is None:
        raise UserError(
            found=f"share={spread.share} without a vocabulary",
            expected="one that all shares have from the beginning",
            fix="make it with bert-lamb vocab, and set vocabulary.file",
        )
    if is_made(settings, output_dir, if_exists="resume"):
        return
    of_share = share_of(partitions_of(settings, spread), spread.share)
    partitions, workspace = open_workspace(settings, spread, output_dir, is_text_read=True)
    if workspace.is_finished:
        print(f"{workspace.directory}: already merged, except for the clean-up, which bert-lamb merge does")
        return
    with Pool(spread.num_workers) as pool:
        make_documents(of_share, workspace, settings, pool)
    print(f"{workspace.directory}: share {spread.share}, {len(of_share)} of {len(partitions)} partitions done")


def merge(settings: Settings, spread: Spread, *, output_dir: Path) -> None:
    """Make shards and manifest of what the shares have left in OUTPUT.partial.

    Raises UserError where a partition is missing, or was made with other settings.
    """
    started_at = time.monotonic()
    if is_made(settings, output_dir, if_exists="resume"):
        return
    if not partial_dir_of(output_dir).is_dir():
        raise UserError(
            found=f"no {partial_dir_of(output_dir)}",
            expected="what the shares of bert-lamb prepare left",
            fix="run bert-lamb prepare share=INDEX/COUNT for all shares first, with the same output_dir",
        )
    partitions, workspace = open_workspace(settings, spread, output_dir, is_text_read=False)
    if is_cleared_up(workspace, output_dir):
        return
    with Pool(spread.num_workers) as pool:
        passed_over = describe_passed_over(settings.sources)
        finish(partitions, workspace, settings, pool, output_dir, passed_over, started_at=started_at)


def is_made(settings: Settings, output_dir: Path, *, if_exists: str) -> bool:
    """Whether the shards are there and may stay; this is said. UserError where they are others than those wanted."""
    if not is_complete(output_dir, KIND, if_exists=if_exists):
        return False
    require_same_config(output_dir, settings.to_config())
    print(f"{output_dir}: already prepared with this configuration; nothing to do")
    return True


def is_cleared_up(workspace: Workspace, output_dir: Path) -> bool:
    """Whether an earlier run came to its end but for the clearing up, which is done now; this is said."""
    if not workspace.is_finished:
        return False
    put_in_place(workspace, output_dir)
    print(f"{output_dir}: was finished, but for the clearing up")
    return True


def partitions_of(settings: Settings, spread: Spread) -> list[Partition]:
    """The plan; UserError for everything that can be refused before the work begins. Changes nothing."""
    if settings.cleaning.duplicates == "near":
        near_duplicates.require_datasketch()
    if settings.vocabulary_file:
        read_entries(settings.vocabulary_file)
    require_workers(spread.num_workers)
    return plan(settings.sources, partition_bytes=spread.partition_bytes)


def open_workspace(
    settings: Settings, spread: Spread, output_dir: Path, *, is_text_read: bool, kind: OutputKind = KIND
) -> tuple[list[Partition], Workspace]:
    """The partitions, and OUTPUT.partial, begun or gone on with, with the vocabulary in it if one is given.

    is_text_read: whether text will be read now (unless all is finished), so that a given vocabulary is tried on some.
    kind: what it is begun for.
    Raises UserError where it was begun for another output, and what partitions_of and require_fitting_vocabulary raise.
    """
    partitions = partitions_of(settings, spread)
    is_text_read = is_text_read and not Workspace(partial_dir_of(output_dir)).is_finished
    read_now = share_of(partitions, spread.share) if spread.share is not None else partitions
    lines = require_fitting_vocabulary(settings, read_now, is_text_read=is_text_read)
    purpose = {**settings.to_config(), "partition_bytes": spread.partition_bytes, "versions": versions(settings)}
    purpose["format_version"] = FORMAT_VERSION  # what another version left unfinished may hold other instances
    if settings.vocabulary_file:
        purpose["sha256 of the vocabulary"] = file_sha256(settings.vocabulary_file)
    workspace = Workspace(begin(output_dir, kind, purpose))
    workspace.documents_dir.mkdir(exist_ok=True)
    workspace.instances_dir.mkdir(exist_ok=True)
    ids = [partition.id for partition in partitions]
    forget_another_corpus(workspace, ids, is_vocabulary_given=settings.vocabulary_file is not None)
    # Where it is there already, workers of other shares may be reading it.
    if settings.vocabulary_file and not workspace.vocabulary_path.is_file():
        entries = read_entries(settings.vocabulary_file)
        vocabulary.put_in_place(workspace.vocabulary_path, entries, scratch_dir=workspace.documents_dir)
    warn(lines)
    return partitions, workspace


def require_fitting_vocabulary(
    settings: Settings, partitions: Sequence[Partition], *, is_text_read: bool = True
) -> list[str]:
    """UserError where a given vocabulary does not fit the text, by a sample of these partitions; else what to warn of.

    is_text_read: False looks at the vocabulary alone.
    """
    path, is_lowercase = settings.vocabulary_file, settings.is_lowercase
    if path is None:
        return []
    lines = vocabulary_fit.require_fitting_case(path, is_lowercase=is_lowercase)
    if is_text_read:
        texts = vocabulary_fit.sample_texts(partitions, settings.cleaning)
        lines += vocabulary_fit.require_fitting_text(path, texts, is_lowercase=is_lowercase)
    return lines


def finish(
    partitions: list[Partition],
    workspace: Workspace,
    settings: Settings,
    pool: Pool,
    output_dir: Path,
    passed_over: str,
    *,
    started_at: float,
) -> None:
    """Shards, data card, manifest, and the rename that declares all complete; what was done is printed.

    Raises UserError where a partition is missing, or no train instance comes out.
    """
    chosen = choose(partitions, workspace.documents_dir, settings, vocabulary=workspace.vocabulary_path)
    vocabulary_record = vocabulary.describe(workspace.vocabulary_path, is_lowercase=settings.is_lowercase)
    instance_sets, text = make_instance_sets(chosen, vocabulary_record, workspace, settings, pool)
    _require_train_instances(instance_sets, settings, chosen)
    manifest = _manifest(settings, vocabulary_record, chosen, instance_sets, text)
    write_card(workspace.directory, manifest)
    write_manifest(workspace.directory, manifest)
    warnings = [*deviations(manifest, chosen, settings), *unknown_tokens(workspace.directory, manifest)]
    read_ids = {block.folder.name for block in chosen.blocks}  # those after the limit of their source are not
    put_in_place(workspace, output_dir)
    seconds = time.monotonic() - started_at
    files = num_files([partition for partition in partitions if partition.id in read_ids])
    print(summary(manifest, output_dir, files, passed_over, num_bytes_read=chosen.num_bytes_read, seconds=seconds))
    warn(warnings)


def warn(lines: Iterable[str]) -> None:
    """Print warnings where they do not mix with results."""
    for line in lines:
        print(f"warning: {line}", file=sys.stderr, flush=True)


def put_in_place(workspace: Workspace, output_dir: Path) -> None:
    """Clear up behind the manifest, and rename. An earlier run may have been killed in the midst of it."""
    shutil.rmtree(workspace.instances_dir)
    shutil.rmtree(workspace.documents_dir)
    publish(output_dir)


def _manifest(
    settings: Settings,
    vocabulary_record: Vocabulary,
    chosen: Chosen,
    instance_sets: list[InstanceSet],
    text: list[TextRecord],
) -> Manifest:
    return Manifest(
        format=FORMAT_NAME,
        format_version=FORMAT_VERSION,
        vocabulary=vocabulary_record,
        sentence_task=settings.sentence_task,
        preparation=Preparation(config=settings.to_config(), versions=versions(settings)),
        sources=tuple(
            SourceRecord(
                name=source.name,
                license=source.license,
                num_read=chosen.num_read(index),
                num_kept=chosen.num_kept(source=index),
            )
            for index, source in enumerate(settings.sources)
        ),
        documents=DocumentCounts(
            num_read=len(chosen.number),
            num_train=chosen.num_kept(split="train"),
            num_heldout=chosen.num_kept(split="heldout"),
            dropped=dict(sorted(chosen.dropped.items())),
        ),
        instance_sets=tuple(instance_sets),
        text=tuple(text),
    )


def summary(
    manifest: Manifest, output_dir: Path, num_files_read: int, passed_over: str, *, num_bytes_read: int, seconds: float
) -> str:
    """The table printed at the end."""
    documents, megabytes = manifest.documents, num_bytes_read / 1e6
    label = LABELS[manifest.sentence_task][True][0] if manifest.sentence_task in LABELS else "labels"
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in documents.dropped.items()) or "none"
    lines = [
        f"{output_dir}",
        f"  files read         {num_files_read:,}",
        f"  files passed over  {passed_over or 'none'}",
        f"  documents read     {documents.num_read:,}",
        f"  documents kept     {documents.num_train:,} train, {documents.num_heldout:,} heldout",
        f"  documents dropped  {dropped}",
        f"  vocabulary         {manifest.vocabulary.size:,} entries",
        f"  text               {megabytes:,.1f} MB in {seconds:,.1f} s, {megabytes / seconds:.2f} MB/s",
        f"  {'instances':<18} {'number':>12} {'tokens':>15} {'fill ratio':>11} {label:>12} {'shards':>7}",
    ]
    lines += [
        f"    {f'{found.split} {found.max_seq_length}':<16} {found.num_instances:>12,} {found.num_tokens:>15,}"
        f" {found.num_tokens / found.num_instances / found.max_seq_length:>11.3f}"
        f" {found.num_true_labels / found.num_instances:>12.3f} {len(found.shards):>7}"
        for found in manifest.instance_sets
    ]
    for max_seq_length in sorted({found.max_seq_length for found in manifest.text}):
        text = left_out_of_length(manifest, max_seq_length)
        reasons = "".join(f"; {count:,} {LEFT_OUT_TEXTS[reason]}" for reason, count in text.left_out.items())
        share = percent(text.num_left_out, text.num_tokens)
        lines.append(f"  text in no instance of {max_seq_length}: {share} of {text.num_tokens:,} tokens{reasons}")
    return "\n".join(lines)


def _require_train_instances(instance_sets: list[InstanceSet], settings: Settings, chosen: Chosen) -> None:
    made = {found.max_seq_length for found in instance_sets if found.split == "train"}
    if made != set(settings.max_seq_lengths):
        raise UserError(
            found=f"no train instance from {len(chosen.number)} documents, of which {chosen.dropped.total()} "
            f"were dropped ({dict(sorted(chosen.dropped.items()))})",
            expected="at least one for each length",
            fix="give more text, or set a smaller cleaning.min_characters or heldout_proportion",
        )
