"""`bert-lamb prepare`: read, group, work on the partitions in a pool, cut equal shards, declare the folder complete.

Everything is made in OUTPUT.partial beside its place and renamed at the end, so OUTPUT is complete or absent. Results
are taken in the order of the partitions, whichever worker finishes first: the number of workers changes no byte.
"""

import importlib.metadata
import os
import platform
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from bert_lamb.errors import UserError
from bert_lamb.progress import Progress
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
    read_manifest,
)
from bert_lamb.shards.writer import write_instance_set, write_manifest
from data_prep import vocabulary
from data_prep.output_dir import begin, is_complete, publish
from data_prep.partition import (
    Partition,
    PartitionResult,
    Settings,
    clean_and_make_parts,
    clean_to_disk,
    group,
    make_parts_from_disk,
    read_cleaned,
)
from data_prep.sources import Document, Source, read_documents
from data_prep.tokenization import bert_normalizer

VOCABULARY_FILE = "vocab.txt"
PARTITIONS_IN_FLIGHT_PER_WORKER = 2  # bounds the memory: one being worked on, one waiting
LIBRARIES = ("bert-lamb", "numpy", "pyarrow", "tokenizers", "sentencex", "mwparserfromhell")

Item = TypeVar("Item")
Result = TypeVar("Result")


def prepare(
    *,
    sources: list[Source],
    output_dir: Path,
    vocabulary_file: Path | None,
    vocabulary_train_size: int,
    is_lowercase: bool,
    max_seq_lengths: list[int],
    short_seq_prob: float,
    random_next_prob: float,
    heldout_proportion: float,
    min_document_characters: int,
    partition_characters: int,
    instances_per_shard: int,
    num_workers: int | None,
    seed: int,
    if_exists: str,
) -> None:
    """Turn raw text into shards for every length; bert_lamb.config.PrepareConfig tells what each argument means.

    Raises UserError when a source cannot be read or yields nothing, when the vocabulary is none of BERT's, when no
    instance comes out, and when the output is there already and `if_exists` ("refuse", "resume", "restart") forbids it.
    """
    started_at = time.monotonic()
    config: dict[str, Any] = {
        "sources": {source.name: _without(asdict(source), "name") for source in sources},
        "vocabulary": {"file": str(vocabulary_file)} if vocabulary_file else {"train_size": vocabulary_train_size},
        "is_lowercase": is_lowercase,
        "max_seq_lengths": sorted(set(max_seq_lengths)),
        "short_seq_prob": short_seq_prob,
        "random_next_prob": random_next_prob,
        "heldout_proportion": heldout_proportion,
        "min_document_characters": min_document_characters,
        "partition_characters": partition_characters,
        "instances_per_shard": instances_per_shard,
        "seed": seed,
    }
    if is_complete(output_dir, complete_mark=MANIFEST_FILE, if_exists=if_exists):
        require_same_config(output_dir, config)
        print(f"{output_dir}: prepared already with this configuration; nothing to do")
        return
    partial_dir = begin(output_dir)
    settings = Settings(
        max_seq_lengths=tuple(config["max_seq_lengths"]),
        short_seq_prob=short_seq_prob,
        random_next_prob=random_next_prob,
        min_document_characters=min_document_characters,
        seed=seed,
        is_lowercase=is_lowercase,
        vocabulary_path=partial_dir / VOCABULARY_FILE,
        text_dir=partial_dir / "text",
        parts_dir=partial_dir / "parts",
    )
    settings.parts_dir.mkdir()
    settings.text_dir.mkdir()
    if vocabulary_file:
        vocabulary.write_entries(settings.vocabulary_path, vocabulary.read_entries(vocabulary_file))

    read = ReadCounts()
    partitions = group(
        read_sources(sources, read), heldout_proportion=heldout_proportion, partition_characters=partition_characters
    )
    num_workers = num_workers or len(os.sched_getaffinity(0))
    results = list(work(partitions, settings, num_workers=num_workers, vocabulary_train_size=vocabulary_train_size))

    vocabulary_record = vocabulary.describe(settings.vocabulary_path, is_lowercase=is_lowercase)
    instance_sets = [
        write_instance_set(
            partial_dir,
            parts,
            max_seq_length=max_seq_length,
            split=split,
            instances_per_shard=instances_per_shard,
            vocabulary_size=vocabulary_record.size,
        )
        for max_seq_length in settings.max_seq_lengths
        for split in SPLITS
        if (parts := [r.parts[max_seq_length] for r in results if r.split == split and max_seq_length in r.parts])
    ]
    dropped = sum((result.dropped for result in results), Counter[str]())
    _require_train_instances(instance_sets, settings, read, dropped)
    kept = {split: sum((r.kept_of_source for r in results if r.split == split), Counter[str]()) for split in SPLITS}
    manifest = Manifest(
        format=FORMAT_NAME,
        format_version=FORMAT_VERSION,
        vocabulary=vocabulary_record,
        preparation=Preparation(config=config, versions=versions()),
        sources=tuple(
            SourceRecord(
                name=source.name,
                license=source.license,
                num_read=read.documents_of_source[source.name],
                num_kept=sum(kept[split][source.name] for split in SPLITS),
            )
            for source in sources
        ),
        documents=DocumentCounts(
            num_read=read.documents_of_source.total(),
            num_train=kept["train"].total(),
            num_heldout=kept["heldout"].total(),
            dropped=dict(sorted(dropped.items())),
        ),
        instance_sets=tuple(instance_sets),
    )
    shutil.rmtree(settings.text_dir)
    shutil.rmtree(settings.parts_dir)
    write_manifest(partial_dir, manifest)
    publish(output_dir)
    print(summary(manifest, output_dir, num_bytes_read=read.num_bytes, seconds=time.monotonic() - started_at))


@dataclass
class ReadCounts:
    """What has come out of the sources so far."""

    documents_of_source: Counter[str]
    num_bytes: int  # of text, in UTF-8

    def __init__(self) -> None:
        self.documents_of_source, self.num_bytes = Counter(), 0


def read_sources(sources: list[Source], read: ReadCounts) -> Iterator[tuple[str, Document]]:
    """The documents of all sources, each with the name of its source, counted and shown as they pass."""
    with Progress("reading", total=None, unit="documents") as progress:
        for source in sources:
            for document in read_documents(source):
                read.documents_of_source[source.name] += 1
                read.num_bytes += len(document.text.encode())
                progress.update(note=source.name)
                yield source.name, document


def work(
    partitions: Iterable[Partition], settings: Settings, *, num_workers: int, vocabulary_train_size: int
) -> Iterator[PartitionResult]:
    """Every partition's result, in order; where no vocabulary is in its place, one is trained on the cleaned text."""
    if settings.vocabulary_path.exists():
        yield from map_in_order(partial(clean_and_make_parts, settings=settings), partitions, num_workers=num_workers)
        return
    cleaned = list(map_in_order(partial(clean_to_disk, settings=settings), partitions, num_workers=num_workers))
    texts = (document.text for part in cleaned for _, document in read_cleaned(settings, part.number))
    with Progress("training the vocabulary", total=vocabulary_train_size, unit="entries") as progress:
        entries = vocabulary.train_entries(
            texts,
            sum((part.character_counts for part in cleaned), Counter[str]()),
            size=vocabulary_train_size,
            normalizer=bert_normalizer(is_lowercase=settings.is_lowercase),
        )
        progress.update(len(entries))
    vocabulary.write_entries(settings.vocabulary_path, entries)
    with Progress("making instances", total=len(cleaned), unit="partitions") as progress:
        for result in map_in_order(partial(make_parts_from_disk, settings=settings), cleaned, num_workers=num_workers):
            progress.update()
            yield result


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int) -> Iterator[Result]:
    """function(item) of each item in order, in `num_workers` processes; in this one if it is 1.

    Only so many items are taken ahead as keep the workers busy. UserError if a process dies.
    """
    if num_workers == 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"), initializer=_begin_worker)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= PARTITIONS_IN_FLIGHT_PER_WORKER * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            found="a worker process that died",
            expected=f"{num_workers} workers, with memory for {PARTITIONS_IN_FLIGHT_PER_WORKER} partitions each",
            fix="set a smaller num_workers or partition_characters if the machine ran out of memory",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the pool is the parallelism


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
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in documents.dropped.items()) or "none"
    lines = [
        f"{output_dir}",
        f"  documents read     {documents.num_read:,}",
        f"  documents kept     {documents.num_train:,} train, {documents.num_heldout:,} heldout",
        f"  documents dropped  {dropped}",
        f"  vocabulary         {manifest.vocabulary.size:,} entries",
        f"  text               {megabytes:,.1f} MB in {seconds:,.1f} s, {megabytes / seconds:.2f} MB/s",
        f"  {'instances':<18} {'number':>12} {'tokens':>15} {'fill ratio':>11} {'random next':>12} {'shards':>7}",
    ]
    lines += [
        f"    {f'{found.split} {found.max_seq_length}':<16} {found.num_instances:>12,} {found.num_tokens:>15,}"
        f" {found.num_tokens / found.num_instances / found.max_seq_length:>11.3f}"
        f" {found.num_random_next / found.num_instances:>12.3f} {len(found.shards):>7}"
        for found in manifest.instance_sets
    ]
    return "\n".join(lines)


def _require_train_instances(
    instance_sets: list[InstanceSet], settings: Settings, read: ReadCounts, dropped: Counter[str]
) -> None:
    made = {found.max_seq_length for found in instance_sets if found.split == "train"}
    if made != set(settings.max_seq_lengths):
        raise UserError(
            found=f"no train instance from {read.documents_of_source.total()} documents, of which {dropped.total()} "
            f"were dropped ({dict(dropped)})",
            expected="at least one for each length",
            fix="give more text, or set a smaller min_document_characters or heldout_proportion",
        )


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
