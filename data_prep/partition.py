"""The unit of work: a group of documents of one split -> instances of every length (stations 1 to 3, in a worker).

A partition's outcome depends on nothing but its documents, the settings and the vocabulary. Documents are told apart
into train and held out before they are grouped, so the random second segments, which come from the same partition, can
never carry text from one split into the other.
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from bert_lamb.shards.reader import file_sha256
from bert_lamb.shards.writer import write_columns
from data_prep.instances import TokenizedDocument, assemble, make_pairs
from data_prep.sentences import split_sentences
from data_prep.sources import WIKITEXT, Document
from data_prep.tokenization import SentenceTokenizer, bert_normalizer
from data_prep.vocabulary import CLS, SEP, count_characters

TOO_SHORT = "too_short"  # fewer characters of plain text than min_document_characters
NO_TOKENS = "no_tokens"  # nothing but white space and control characters
MIN_DOCUMENTS = 2  # of a partition: a random pair needs another document


@dataclass(frozen=True)
class Settings:
    """What workers need to know; the fields of PrepareConfig and where things lie."""

    max_seq_lengths: tuple[int, ...]
    short_seq_prob: float
    random_next_prob: float
    min_document_characters: int
    seed: int
    is_lowercase: bool
    vocabulary_path: Path
    text_dir: Path  # cleaned text, while a vocabulary is trained on it
    parts_dir: Path  # instances of each partition, until they are cut into shards


@dataclass(frozen=True)
class Partition:
    """Documents to be worked on together, each with the name of its source."""

    number: int
    split: str
    documents: tuple[tuple[str, Document], ...]


@dataclass(frozen=True)
class CleanPartition:
    """What is left of a partition as plain text, and what was dropped."""

    number: int
    split: str
    documents: tuple[tuple[str, Document], ...]
    dropped: Counter[str]  # reason -> documents


@dataclass(frozen=True)
class CleanedText:
    """Told by a worker that has put a partition's plain text on disk."""

    number: int
    split: str
    dropped: Counter[str]
    character_counts: Counter[str]


@dataclass(frozen=True)
class PartitionResult:
    """Told by a worker that has made a partition's instances."""

    split: str
    kept_of_source: Counter[str]  # source -> documents
    dropped: Counter[str]  # reason -> documents
    parts: dict[int, Path]  # max_seq_length -> file with at least one instance


def document_number(source_name: str, key: str) -> int:
    """The uint64 that stands for a document in the shards (FORMAT.md, "Document number and split")."""
    return int.from_bytes(hashlib.blake2b(f"{source_name}:{key}".encode(), digest_size=8).digest(), "little")


def split_of(number: int, heldout_proportion: float) -> str:
    """ "heldout" or "train": the same for a document whatever else is in the corpus, and whatever the seed."""
    return "heldout" if number < heldout_proportion * 2**64 else "train"


def group(
    documents: Iterable[tuple[str, Document]], *, heldout_proportion: float, partition_characters: int
) -> Iterator[Partition]:
    """Partitions of one split each, closed when they hold partition_characters and at least two documents."""
    waiting: dict[str, list[tuple[str, Document]]] = {"train": [], "heldout": []}
    characters = dict.fromkeys(waiting, 0)
    number = 0
    for source_name, document in documents:
        split = split_of(document_number(source_name, document.key), heldout_proportion)
        waiting[split].append((source_name, document))
        characters[split] += len(document.text)
        if characters[split] >= partition_characters and len(waiting[split]) >= MIN_DOCUMENTS:
            yield Partition(number, split, tuple(waiting[split]))
            waiting[split], characters[split], number = [], 0, number + 1
    for split, rest in waiting.items():
        if rest:
            yield Partition(number, split, tuple(rest))
            number += 1


def clean(partition: Partition, settings: Settings) -> CleanPartition:
    """Markup off, short documents out."""
    from data_prep.wikitext import plain_text

    kept, dropped = [], Counter[str]()
    for source_name, document in partition.documents:
        text = plain_text(document.text) if document.markup == WIKITEXT else document.text
        if len(text.strip()) < settings.min_document_characters:
            dropped[TOO_SHORT] += 1
        else:
            kept.append((source_name, Document(document.key, text)))
    return CleanPartition(partition.number, partition.split, tuple(kept), dropped)


def make_parts(partition: CleanPartition, settings: Settings) -> PartitionResult:
    """Tokenise once, make the instances of every length, and leave a file for each length that has any."""
    sha256 = file_sha256(settings.vocabulary_path)
    tokenizer = _tokenizer(settings.vocabulary_path, sha256, settings.is_lowercase)
    documents: list[TokenizedDocument] = []
    arrays: list[np.ndarray] = []
    kept_of_source, dropped = Counter[str](), Counter(partition.dropped)
    num_tokens = 0
    for source_name, document in partition.documents:
        sentences = [ids for ids in tokenizer.encode(split_sentences(document.text)) if len(ids)]
        if not sentences:
            dropped[NO_TOKENS] += 1
            continue
        kept_of_source[source_name] += 1
        offsets = tuple(accumulate(map(len, sentences), initial=num_tokens))
        number = document_number(source_name, document.key)
        documents.append(TokenizedDocument(f"{source_name}:{document.key}", number, offsets))
        arrays += sentences
        num_tokens = offsets[-1]
    parts: dict[int, Path] = {}
    token_store = np.concatenate(arrays) if arrays else np.empty(0, tokenizer.dtype)
    for max_seq_length in settings.max_seq_lengths:
        pairs = make_pairs(
            documents,
            max_seq_length=max_seq_length,
            short_seq_prob=settings.short_seq_prob,
            random_next_prob=settings.random_next_prob,
            seed=settings.seed,
        )
        if pairs:
            columns = assemble(pairs, token_store, cls_id=tokenizer.id_of(CLS), sep_id=tokenizer.id_of(SEP))
            parts[max_seq_length] = settings.parts_dir / f"{partition.number:06d}-seq{max_seq_length}.arrow"
            write_columns(parts[max_seq_length], columns, vocabulary_size=tokenizer.vocabulary_size)
    return PartitionResult(partition.split, kept_of_source, dropped, parts)


def clean_and_make_parts(partition: Partition, settings: Settings) -> PartitionResult:
    """The whole work on a partition where the vocabulary is given."""
    return make_parts(clean(partition, settings), settings)


def clean_to_disk(partition: Partition, settings: Settings) -> CleanedText:
    """The first half of the work where the vocabulary is to be trained: the markup is not parsed a second time."""
    cleaned = clean(partition, settings)
    normalizer = bert_normalizer(is_lowercase=settings.is_lowercase)
    character_counts = Counter[str]()
    with _text_file(settings, cleaned.number).open("w", encoding="utf-8") as stream:
        for source_name, document in cleaned.documents:
            character_counts += count_characters(document.text, normalizer=normalizer)
            stream.write(json.dumps([source_name, document.key, document.text]) + "\n")
    return CleanedText(cleaned.number, cleaned.split, cleaned.dropped, character_counts)


def make_parts_from_disk(cleaned: CleanedText, settings: Settings) -> PartitionResult:
    """The second half, when the vocabulary is there."""
    documents = tuple(read_cleaned(settings, cleaned.number))
    return make_parts(CleanPartition(cleaned.number, cleaned.split, documents, cleaned.dropped), settings)


def read_cleaned(settings: Settings, number: int) -> Iterator[tuple[str, Document]]:
    """The documents that `clean_to_disk` left of a partition, each with the name of its source."""
    with _text_file(settings, number).open(encoding="utf-8") as stream:
        for line in stream:
            source_name, key, text = json.loads(line)
            yield source_name, Document(key, text)


def _text_file(settings: Settings, number: int) -> Path:
    return settings.text_dir / f"{number:06d}.jsonl"


@functools.cache
def _tokenizer(vocabulary_path: Path, sha256: str, is_lowercase: bool) -> SentenceTokenizer:
    """Once for each worker and vocabulary; the sha256 tells apart vocabularies that lay at the same path."""
    return SentenceTokenizer(vocabulary_path, is_lowercase=is_lowercase)
