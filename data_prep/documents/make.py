"""Stations 1 and 2 as the main process drives them: partitions -> documents of token ids, and a vocabulary."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa

from bert_lamb.progress import Progress, track
from data_prep.documents import store, vocabulary
from data_prep.documents.partition import WorkerSettings, tokenize_stored_text, work_on_block, work_on_partition
from data_prep.documents.selection import choose
from data_prep.documents.store import TEXT, BlockFiles, Done
from data_prep.documents.tokenization import bert_normalizer
from data_prep.plan import Partition
from data_prep.pool import Pool
from data_prep.settings import Settings
from data_prep.sources import Document
from data_prep.workspace import Workspace


@dataclass(frozen=True)
class Report:
    """What a task on a partition tells when it is done."""

    partition: Partition
    num_documents: int  # read by this task
    done: Done | None  # all blocks of the partition are there; None after one of several blocks
    is_marked: bool  # and the worker has put that down


def make_documents(partitions: Sequence[Partition], workspace: Workspace, settings: Settings, pool: Pool) -> None:
    """Tokenized documents of these partitions; where no vocabulary is given, one is trained on the text first."""
    if settings.vocabulary_file is not None:
        read_partitions(partitions, _worker_settings(workspace, settings, has_vocabulary=True), pool)
        return
    make_vocabulary(partitions, workspace, settings, pool)
    worker = _worker_settings(workspace, settings, has_vocabulary=True)
    folders = map(worker.folder_of, partitions)
    finished = [(folder, done) for folder in folders if (done := store.read_done(folder))]
    blocks = [block for folder, done in finished for block in store.blocks_of(folder, done)]
    tasks = (partial(tokenize_stored_text, block, worker) for block in blocks)
    for _ in track(pool.run(tasks), "tokenizing", total=len(blocks), unit="blocks"):
        pass
    for folder, done in finished:
        store.mark_tokens(folder, done, vocabulary=workspace.vocabulary_path)


def make_vocabulary(partitions: Sequence[Partition], workspace: Workspace, settings: Settings, pool: Pool) -> None:
    """Store the text of the partitions, and train the vocabulary on the documents that are used, each once."""
    read_partitions(partitions, _worker_settings(workspace, settings, has_vocabulary=False), pool)
    if workspace.vocabulary_path.is_file():
        return
    chosen = choose(partitions, workspace.documents_dir, settings, vocabulary=None)
    bounds = np.searchsorted(chosen.block, np.arange(len(chosen.blocks) + 1))  # where each block's documents begin
    rows_of_block = [
        (block, chosen.row[start:stop][chosen.num_copies[start:stop] > 0])
        for block, (start, stop) in zip(chosen.blocks, pairwise(bounds), strict=True)
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
    vocabulary.put_in_place(workspace.vocabulary_path, entries, scratch_dir=workspace.documents_dir)


def read_partitions(partitions: Sequence[Partition], worker: WorkerSettings, pool: Pool) -> None:
    """Work on the partitions that are not done yet, but for those behind the limit of their source.

    A worker reads its partition itself. One that is so large that the others would wait for it in the end (a packed
    dump, which cannot be cut) is read here and given out block by block.
    """
    num_bytes = sum(partition.num_bytes for partition in partitions)
    text_worth_waiting = sum(partition.num_text_bytes for partition in partitions) / (2 * pool.num_workers)
    num_read = Counter[int]()  # documents of each source, as far as the tasks have told

    def tasks() -> Iterator[Callable[[], Report]]:
        for partition in partitions:
            limit = partition.source.max_documents
            if limit is not None and num_read[partition.source_index] >= limit:
                continue
            done = store.read_done(worker.folder_of(partition))
            if done is not None:
                yield partial(Report, partition, done.num_documents, done, is_marked=True)
            elif pool.num_workers > 1 and partition.is_too_large and partition.num_text_bytes > text_worth_waiting:
                yield from _tasks_of_blocks(partition, worker)
            else:
                yield partial(_read_and_work, partition, worker)

    title = "reading and tokenizing" if worker.vocabulary_path else "reading"
    with Progress(title, total=num_bytes, unit="MB", scale=10**6) as progress:
        for report in pool.run(tasks()):
            partition = report.partition
            num_read[partition.source_index] += report.num_documents
            if report.done is not None and not report.is_marked:
                store.mark_done(worker.folder_of(partition), report.done, vocabulary=worker.vocabulary_path)
            progress.update(
                partition.num_bytes if report.done is not None else 0,
                note=f"{partition.source.name}, {num_read[partition.source_index]:,} documents",
            )


def _tasks_of_blocks(partition: Partition, worker: WorkerSettings) -> Iterator[Callable[[], Report]]:
    """Reads the partition here. Results come in order, so the last report finds all blocks there."""
    num_blocks = num_documents = 0
    for documents in partition.read_blocks():
        yield partial(_work, partition, num_blocks, documents, worker)
        num_blocks += 1
        num_documents += len(documents)
    yield partial(Report, partition, 0, Done(num_blocks, num_documents), is_marked=False)


def _read_and_work(partition: Partition, worker: WorkerSettings) -> Report:
    done = work_on_partition(partition, worker)
    return Report(partition, done.num_documents, done, is_marked=True)


def _work(partition: Partition, number: int, documents: list[Document], worker: WorkerSettings) -> Report:
    num_documents = work_on_block(number, documents, partition.source.name, worker.folder_of(partition), worker)
    return Report(partition, num_documents, done=None, is_marked=False)


def _worker_settings(workspace: Workspace, settings: Settings, *, has_vocabulary: bool) -> WorkerSettings:
    return WorkerSettings(
        settings.cleaning,
        settings.is_lowercase,
        workspace.vocabulary_path if has_vocabulary else None,
        workspace.documents_dir,
    )


def _count_characters(block: BlockFiles, rows: np.ndarray, is_lowercase: bool) -> Counter[str]:
    normalizer = bert_normalizer(is_lowercase=is_lowercase)
    counts = Counter[str]()
    for text in _texts(block, rows):
        counts += vocabulary.count_characters(text, normalizer=normalizer)
    return counts


def _texts(block: BlockFiles, rows: np.ndarray) -> list[str]:
    texts: list[str] = store.read(block, TEXT)["text"].take(pa.array(rows)).to_pylist()
    return texts
