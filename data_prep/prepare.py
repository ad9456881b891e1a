"""`bert-lamb prepare`, `merge` and `vocab`: the order in which the stations are run, and how they are spread.

    plan the partitions -> documents of each, tokenised -> [all done] -> choose and group -> instances -> shards
                           \\_______ prepare share=I/N ______/    \\___________________ merge ____________________/

Everything is made in OUTPUT.partial beside its place and renamed at the end, so OUTPUT is complete or absent. Each unit
(block of documents, group, shard) is a file that appears whole, so a run that was killed goes on with the next one.
"""

import importlib.metadata
import os
import platform
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from bert_lamb.errors import UserError
from bert_lamb.progress import Progress, track
from bert_lamb.shards.inspect import LABELS
from bert_lamb.shards.manifest import (
    FORMAT_NAME,
    FORMAT_VERSION,
    MANIFEST_FILE,
    SPLITS,
    DocumentCounts,
    InstanceSet,
    Manifest,
    Preparation,
    SourceRecord,
    Vocabulary,
    read_manifest,
)
from bert_lamb.shards.reader import file_sha256
from bert_lamb.shards.writer import equal_shard_sizes, instance_set_of, write_manifest
from data_prep import near_duplicates, store, vocabulary
from data_prep.card import write_card
from data_prep.cutting import CuttingSettings, ShardPlan, lay_down_instances, make_shard, plan_shards
from data_prep.instances import InstanceSettings
from data_prep.output_dir import begin, delete, is_complete, partial_dir_of, publish
from data_prep.partition import WorkerSettings, tokenize_stored_text, work_on_block, work_on_partition
from data_prep.plan import Partition, plan, share_of
from data_prep.pool import Pool
from data_prep.selection import Chosen, choose, make_groups
from data_prep.settings import Settings
from data_prep.store import TEXT, BlockFiles, Done
from data_prep.tokenization import bert_normalizer

VOCABULARY_FILE = "vocab.txt"
LIBRARIES = (
    "bert-lamb",
    "numpy",
    "pyarrow",
    "tokenizers",
    "sentencex",
    "mwparserfromhell",
    "markdown-it-py",
    "matplotlib",
)


@dataclass(frozen=True)
class Spread:
    """How the work is cut and spread; it changes no byte of the output."""

    partition_bytes: int
    num_workers: int | None  # processes; None: one for each core
    share: str | None = None  # "INDEX/COUNT" of the partitions, to be merged later; None: all of them, and merge


@dataclass(frozen=True)
class Workspace:
    """Where things lie while OUTPUT.partial grows."""

    directory: Path

    @property
    def documents_dir(self) -> Path:
        return self.directory / "documents"

    @property
    def instances_dir(self) -> Path:
        return self.directory / "instances"

    @property
    def vocabulary_path(self) -> Path:
        return self.directory / VOCABULARY_FILE


def prepare(settings: Settings, spread: Spread, *, output_dir: Path, if_exists: str) -> None:
    """Turn raw text into shards for every length; bert_lamb.config.PrepareConfig tells what each setting means.

    With spread.share only the documents of that share are made, in OUTPUT.partial, for `merge`.

    Raises UserError when a source cannot be read or yields too little, when the vocabulary is none of BERT's, when no
    instance comes out, and when the output is there already and `if_exists` ("refuse", "resume", "restart") forbids it.
    """
    started_at = time.monotonic()
    if spread.share is not None:
        prepare_share(settings, spread, output_dir=output_dir)
        return
    if is_complete(output_dir, complete_mark=MANIFEST_FILE, if_exists=if_exists):
        require_same_config(output_dir, settings.to_config())
        print(f"{output_dir}: prepared already with this configuration; nothing to do")
        return
    partitions, workspace = open_workspace(settings, spread, output_dir)
    with Pool(spread.num_workers) as pool:
        make_documents(partitions, workspace, settings, pool)
        manifest, chosen = make_shards(partitions, workspace, settings, pool)
    finish(manifest, workspace, output_dir)
    seconds = time.monotonic() - started_at
    print(summary(manifest, output_dir, num_bytes_read=chosen.num_bytes_read, seconds=seconds))


def prepare_share(settings: Settings, spread: Spread, *, output_dir: Path) -> None:
    """The documents of one share. Other processes may work on other shares at the same time, on any machine."""
    assert spread.share is not None
    if settings.vocabulary_file is None:
        raise UserError(
            found=f"share={spread.share} without a vocabulary",
            expected="one that all shares have from the beginning",
            fix="make it with bert-lamb vocab, and set vocabulary.file",
        )
    if is_complete(output_dir, complete_mark=MANIFEST_FILE, if_exists="resume"):
        require_same_config(output_dir, settings.to_config())
        print(f"{output_dir}: prepared already with this configuration; nothing to do")
        return
    partitions, workspace = open_workspace(settings, spread, output_dir)
    of_share = share_of(partitions, spread.share)
    with Pool(spread.num_workers) as pool:
        make_documents(of_share, workspace, settings, pool)
    print(f"{workspace.directory}: share {spread.share}, {len(of_share)} of {len(partitions)} partitions done")


def merge(settings: Settings, spread: Spread, *, output_dir: Path) -> None:
    """Make shards and manifest of what the shares have left in OUTPUT.partial.

    Raises UserError where a partition is missing, or was made with other settings.
    """
    started_at = time.monotonic()
    if is_complete(output_dir, complete_mark=MANIFEST_FILE, if_exists="resume"):
        require_same_config(output_dir, settings.to_config())
        print(f"{output_dir}: merged already; nothing to do")
        return
    if not partial_dir_of(output_dir).is_dir():
        raise UserError(
            found=f"no {partial_dir_of(output_dir)}",
            expected="what the shares of bert-lamb prepare left",
            fix="run bert-lamb prepare share=INDEX/COUNT for all shares first, with the same output_dir",
        )
    partitions, workspace = open_workspace(settings, spread, output_dir)
    with Pool(spread.num_workers) as pool:
        manifest, chosen = make_shards(partitions, workspace, settings, pool)
    finish(manifest, workspace, output_dir)
    seconds = time.monotonic() - started_at
    print(summary(manifest, output_dir, num_bytes_read=chosen.num_bytes_read, seconds=seconds))


def train_vocabulary(settings: Settings, spread: Spread, *, output_file: Path, if_exists: str) -> None:
    """Train a vocabulary on the documents that `prepare` would use, and write it to a file of its own."""
    work_dir = output_file.with_name(f"{output_file.name}.work")
    if output_file.exists() and if_exists != "restart":
        if if_exists == "resume":
            is_complete(work_dir, complete_mark=VOCABULARY_FILE, if_exists="restart")  # what a killed run left of it
            print(f"{output_file}: there already; nothing to do")
            return
        raise UserError(found=f"a file {output_file}", expected="none", fix="choose another, or add if_exists=restart")
    if is_complete(work_dir, complete_mark=VOCABULARY_FILE, if_exists=if_exists):
        raise UserError(found=f"{work_dir}", expected="nothing there", fix="delete it")
    partitions, workspace = open_workspace(settings, spread, work_dir)
    with Pool(spread.num_workers) as pool:
        _run_partitions(partitions, workspace, settings, pool, vocabulary_path=None)
        _train(partitions, workspace, settings, pool)
    workspace.vocabulary_path.replace(output_file)
    delete(workspace.directory)
    num_entries = len(vocabulary.read_entries(output_file))
    print(f"{output_file}: {num_entries:,} entries, sha256 {file_sha256(output_file)}")


def open_workspace(settings: Settings, spread: Spread, output_dir: Path) -> tuple[list[Partition], Workspace]:
    """The partitions and OUTPUT.partial, after everything that can be refused before the work begins."""
    if settings.cleaning.duplicates == "near":
        near_duplicates.require_datasketch()
    purpose = {**settings.to_config(), "partition_bytes": spread.partition_bytes, "versions": versions()}
    entries = None
    if settings.vocabulary_file:
        entries = vocabulary.read_entries(settings.vocabulary_file)
        purpose["sha256 of the vocabulary"] = file_sha256(settings.vocabulary_file)
    partitions = plan(settings.sources, partition_bytes=spread.partition_bytes)
    workspace = Workspace(begin(output_dir, purpose))
    workspace.documents_dir.mkdir(exist_ok=True)
    workspace.instances_dir.mkdir(exist_ok=True)
    if entries is not None and not workspace.vocabulary_path.is_file():  # workers of other shares may be reading it
        write_vocabulary(workspace, entries)
    return partitions, workspace


def make_documents(partitions: list[Partition], workspace: Workspace, settings: Settings, pool: Pool) -> None:
    """Tokenised documents of these partitions; where no vocabulary is given, one is trained on the text first."""
    if settings.vocabulary_file is not None:
        _run_partitions(partitions, workspace, settings, pool, vocabulary_path=workspace.vocabulary_path)
        return
    _run_partitions(partitions, workspace, settings, pool, vocabulary_path=None)
    if not workspace.vocabulary_path.is_file():
        _train(partitions, workspace, settings, pool)
    worker = _worker_settings(workspace, settings, workspace.vocabulary_path)
    blocks = [
        block
        for partition in partitions
        if (done := store.read_done(worker.folder_of(partition)))
        for block in store.blocks_of(worker.folder_of(partition), done)
    ]
    tasks = (partial(tokenize_stored_text, block, worker) for block in blocks)
    for _ in track(pool.run(tasks), "tokenising", total=len(blocks), unit="blocks"):
        pass


def make_shards(
    partitions: list[Partition], workspace: Workspace, settings: Settings, pool: Pool
) -> tuple[Manifest, Chosen]:
    """All shards from the documents of all partitions, and the manifest, not yet written."""
    chosen = choose(partitions, workspace.documents_dir, settings, has_tokens=True)
    vocabulary_record = vocabulary.describe(workspace.vocabulary_path, is_lowercase=settings.is_lowercase)
    cutting = CuttingSettings(
        directory=workspace.directory,
        instances_dir=workspace.instances_dir,
        vocabulary_size=vocabulary_record.size,
        cls_id=vocabulary_record.cls_id,
        sep_id=vocabulary_record.sep_id,
    )
    lengths = sorted(set(settings.max_seq_lengths))
    instance_settings = [
        InstanceSettings(
            settings.sentence_task, length, settings.short_seq_prob, settings.random_next_prob, settings.seed
        )
        for length in lengths
    ]
    groups = make_groups(chosen, group_tokens=settings.group_tokens)
    tasks = (partial(lay_down_instances, group, instance_settings, cutting) for group in groups)
    counts = list(track(pool.run(tasks), "making instances", total=len(groups), unit="groups"))

    plans: list[ShardPlan] = []
    for length in lengths:
        for split in SPLITS:
            of_split = [(group, count) for group, count in zip(groups, counts, strict=True) if group.split == split]
            num_instances = sum(count[length] for _, count in of_split)
            if num_instances:
                sizes = equal_shard_sizes(num_instances, settings.instances_per_shard)
                plans += plan_shards(of_split, sizes, max_seq_length=length)
    records = list(
        track(
            pool.run(partial(make_shard, found, cutting) for found in plans),
            "writing shards",
            total=len(plans),
            unit="shards",
        )
    )
    instance_sets = [
        instance_set_of(of_set, length, split)
        for length in lengths
        for split in SPLITS
        if (
            of_set := [
                record
                for record, found in zip(records, plans, strict=True)
                if (found.max_seq_length, found.split) == (length, split)
            ]
        )
    ]
    _require_train_instances(instance_sets, settings, chosen)
    return _manifest(settings, vocabulary_record, chosen, instance_sets), chosen


def finish(manifest: Manifest, workspace: Workspace, output_dir: Path) -> None:
    """Data card, manifest, and the rename that declares the output complete."""
    write_card(workspace.directory, manifest)
    shutil.rmtree(workspace.documents_dir)
    shutil.rmtree(workspace.instances_dir)
    write_manifest(workspace.directory, manifest)
    publish(output_dir)


def _manifest(
    settings: Settings, vocabulary_record: Vocabulary, chosen: Chosen, instance_sets: list[InstanceSet]
) -> Manifest:
    return Manifest(
        format=FORMAT_NAME,
        format_version=FORMAT_VERSION,
        vocabulary=vocabulary_record,
        sentence_task=settings.sentence_task,
        preparation=Preparation(config=settings.to_config(), versions=versions()),
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
    )


def _worker_settings(workspace: Workspace, settings: Settings, vocabulary_path: Path | None) -> WorkerSettings:
    return WorkerSettings(settings.cleaning, settings.is_lowercase, vocabulary_path, workspace.documents_dir)


def _run_partitions(
    partitions: list[Partition], workspace: Workspace, settings: Settings, pool: Pool, *, vocabulary_path: Path | None
) -> None:
    """Work on the partitions that are not done yet.

    A worker reads its partition itself. One that is so large that the others would wait for it in the end (a packed
    dump, which cannot be cut) is read here and given out block by block.
    """
    worker = _worker_settings(workspace, settings, vocabulary_path)
    num_bytes = sum(partition.num_bytes for partition in partitions)
    num_documents = Counter[int]()  # of each source, in the partitions that are done
    on_results: deque[Callable[[Any], None]] = deque()
    with Progress(
        "reading and tokenising" if vocabulary_path else "reading", total=num_bytes, unit="bytes"
    ) as progress:

        def note_done(partition: Partition, done: Done) -> None:
            num_documents[partition.source_index] += done.num_documents
            progress.update(partition.num_bytes, note=partition.source.name)

        def close_fed(partition: Partition, done: Done) -> None:
            store.mark_done(worker.folder_of(partition), done)
            note_done(partition, done)

        def tasks() -> Iterator[Callable[[], Any]]:
            for partition in partitions:
                limit = partition.source.max_documents
                if limit is not None and num_documents[partition.source_index] >= limit:
                    continue
                done = store.read_done(worker.folder_of(partition))
                if done is not None:
                    note_done(partition, done)
                elif pool.num_workers > 1 and partition.num_bytes * 2 * pool.num_workers > num_bytes:
                    yield from fed(partition)
                else:
                    on_results.append(partial(note_done, partition))
                    yield partial(work_on_partition, partition, worker)

        def fed(partition: Partition) -> Iterator[Callable[[], Any]]:
            folder, total = worker.folder_of(partition), 0
            number = -1
            for number, documents in enumerate(partition.read_blocks()):
                total += len(documents)
                on_results.append(lambda _: None)
                yield partial(work_on_block, number, documents, partition.source.name, folder, worker)
            done = Done(number + 1, total)
            on_results.append(lambda _: close_fed(partition, done))  # results come in order: the blocks are there
            yield int

        for result in pool.run(tasks()):
            on_results.popleft()(result)


def _train(partitions: list[Partition], workspace: Workspace, settings: Settings, pool: Pool) -> None:
    """Train the vocabulary on the stored text of the documents that are used, each once."""
    chosen = choose(partitions, workspace.documents_dir, settings, has_tokens=False)
    rows_of_block = [
        (block, chosen.row[(chosen.block == number) & (chosen.num_copies > 0)].tolist())
        for number, block in enumerate(chosen.blocks)
    ]
    tasks = (partial(_count_characters, block, rows, settings.is_lowercase) for block, rows in rows_of_block)
    counts = sum(pool.run(tasks), Counter[str]())
    texts = (text for block, rows in rows_of_block for text in _texts(block, rows))
    with Progress("training the vocabulary", total=settings.vocabulary_train_size, unit="entries") as progress:
        entries = vocabulary.train_entries(
            texts,
            counts,
            size=settings.vocabulary_train_size,
            normalizer=bert_normalizer(is_lowercase=settings.is_lowercase),
        )
        progress.update(len(entries))
    write_vocabulary(workspace, entries)


def write_vocabulary(workspace: Workspace, entries: list[str]) -> None:
    """Under another name, in a folder that is deleted in the end, and renamed: who finds the file finds all of it."""
    temporary = workspace.documents_dir / f"{VOCABULARY_FILE}.{platform.node()}.{os.getpid()}.partial"
    vocabulary.write_entries(temporary, entries)
    temporary.replace(workspace.vocabulary_path)


def _count_characters(block: BlockFiles, rows: list[int], is_lowercase: bool) -> Counter[str]:
    normalizer = bert_normalizer(is_lowercase=is_lowercase)
    counts = Counter[str]()
    for text in _texts(block, rows):
        counts += vocabulary.count_characters(text, normalizer=normalizer)
    return counts


def _texts(block: BlockFiles, rows: list[int]) -> list[str]:
    texts: list[str] = store.read(block, TEXT)["text"].take(pa.array(rows, pa.int64())).to_pylist()
    return texts


def require_same_config(output_dir: Path, config: dict[str, Any]) -> None:
    """UserError naming the settings in which the shards that are there differ from the present configuration."""
    found = read_manifest(output_dir).preparation.config
    differing = sorted(key for key in config.keys() | found.keys() if config.get(key) != found.get(key))
    if differing:
        raise UserError(
            found=f"shards in {output_dir} that were made with other values of {', '.join(differing)}",
            expected="the present configuration",
            fix="choose another output_dir, or add if_exists=restart to delete them",
        )


def versions() -> dict[str, str]:
    """Versions of what the bytes depend on."""
    found = {library: importlib.metadata.version(library) for library in LIBRARIES}
    return {"python": platform.python_version(), **found}


def summary(manifest: Manifest, output_dir: Path, *, num_bytes_read: int, seconds: float) -> str:
    """The table printed at the end."""
    documents, megabytes = manifest.documents, num_bytes_read / 1e6
    label = LABELS[manifest.sentence_task][True][0] if manifest.sentence_task in LABELS else "labels"
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in documents.dropped.items()) or "none"
    lines = [
        f"{output_dir}",
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
