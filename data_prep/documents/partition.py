"""The work on one partition: read, clean, split into sentences, tokenize, store (stations 1 and 2, in a worker).

What comes out depends on nothing but the partition's documents, the settings and the vocabulary. Where the vocabulary
is still to be trained, the text is stored instead, and tokenized when it is there.
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_lamb.outputs.hashing import file_sha256
from data_prep.documents import near_duplicates, store
from data_prep.documents.cleaning import KEPT, clean
from data_prep.documents.sentences import split_sentences
from data_prep.documents.store import INDEX, TEXT, TOKENS, BlockFiles, Done, IndexRow
from data_prep.documents.tokenization import SentenceTokenizer
from data_prep.plan import Partition
from data_prep.settings import Cleaning
from data_prep.sources import Document


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know."""

    cleaning: Cleaning
    is_lowercase: bool
    vocabulary_path: Path | None  # None: store the text
    documents_dir: Path

    def folder_of(self, partition: Partition) -> Path:
        return self.documents_dir / partition.id


def document_number(source_name: str, key: str) -> int:
    """The uint64 that stands for a document in the shards (FORMAT.md, "Document number and split")."""
    return int.from_bytes(hashlib.blake2b(f"{source_name}:{key}".encode(), digest_size=8).digest(), "little")


def work_on_partition(partition: Partition, settings: WorkerSettings) -> Done:
    """Every block of a partition, and the mark that it is done; blocks that are there are kept."""
    num_blocks = num_documents = 0
    folder = settings.folder_of(partition)
    for documents in partition.read_blocks():
        num_documents += work_on_block(num_blocks, documents, partition.source.name, folder, settings)
        num_blocks += 1
    done = Done(num_blocks, num_documents)
    store.mark_done(folder, done, vocabulary=settings.vocabulary_path)
    return done


def work_on_block(
    number: int, documents: list[Document], source_name: str, folder: Path, settings: WorkerSettings
) -> int:
    """Clean the documents, and store the index and the tokens (or the text) of the block; their number."""
    folder.mkdir(parents=True, exist_ok=True)
    block = BlockFiles(folder, number)
    last_part = TEXT if settings.vocabulary_path is None else TOKENS
    if block.path(INDEX).is_file() and block.path(last_part).is_file():
        return len(documents)
    rows, texts = [], []
    for document in documents:
        text, outcome = clean(document, settings.cleaning)
        is_kept = outcome == KEPT
        rows.append(
            IndexRow(
                key=document.key,
                number=document_number(source_name, document.key),
                outcome=outcome,
                num_bytes=len(document.text.encode()),
                content_hash=hashlib.blake2b(text.encode(), digest_size=store.HASH_BYTES).digest(),
                signature=near_duplicates.signature(text)
                if is_kept and settings.cleaning.duplicates == "near"
                else b"",
            )
        )
        texts.append(text)
    store.write_index(block, rows)
    if settings.vocabulary_path is None:
        store.write_text(block, texts)
    else:
        _tokenize(block, texts, settings)
    return len(documents)


def tokenize_stored_text(block: BlockFiles, settings: WorkerSettings) -> None:
    """The second half of the work where the vocabulary was trained on the text."""
    if not block.path(TOKENS).is_file():
        _tokenize(block, store.read(block, TEXT)["text"].to_pylist(), settings)


def _tokenize(block: BlockFiles, texts: list[str], settings: WorkerSettings) -> None:
    assert settings.vocabulary_path is not None
    sha256 = file_sha256(settings.vocabulary_path)
    tokenizer = _tokenizer(settings.vocabulary_path, sha256, settings.is_lowercase)
    sentences_of = [split_sentences(text) for text in texts]
    tokenized = tokenizer.encode([sentence for sentences in sentences_of for sentence in sentences])
    # A sentence of nothing but control characters leaves no tokens and is no sentence any more.
    has_tokens = tokenized.lengths > 0
    document_of = np.repeat(np.arange(len(texts)), [len(sentences) for sentences in sentences_of])
    store.write_tokens(
        block,
        num_sentences=np.bincount(document_of[has_tokens], minlength=len(texts)),
        sentence_lengths=tokenized.lengths[has_tokens],
        input_ids=tokenized.input_ids,
    )


@functools.cache
def _tokenizer(vocabulary_path: Path, sha256: str, is_lowercase: bool) -> SentenceTokenizer:
    """Once for each worker and vocabulary; the sha256 tells apart vocabularies that lay at the same path."""
    return SentenceTokenizer(vocabulary_path, is_lowercase=is_lowercase)
