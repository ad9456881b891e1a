"""Do the vocabulary and the text fit? Looked at before hours of work are spent (before station 1).

Two mistakes give shards without an error: a cased vocabulary for text that is lower-cased, whose entries with capitals
then never occur; and a vocabulary that does not know the text's characters, whose words become [UNK].
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_lamb.errors import UserError
from data_prep.documents.cleaning import KEPT, clean
from data_prep.documents.tokenization import bert_normalizer, bert_tokenizer
from data_prep.documents.vocabulary_file import UNK, read_entries
from data_prep.plan import Partition
from data_prep.settings import Cleaning
from data_prep.sources import read_documents

SPECIAL_ENTRY = re.compile(r"\[[^\]]+\]|<[^>]+>")  # [PAD] and the like, [unused7], <s>
MAX_SHARE_OF_CAPITALS = 0.01  # of the entries; an uncased vocabulary may have a few odd ones
MAX_SHARE_UNKNOWN = 0.05  # of the tokens or characters of the sample, before it is warned of
MAX_SHARE_USELESS = 0.5  # the same, before it is refused
SAMPLE_DOCUMENTS = 50  # of a partition, at most
SAMPLE_CHARACTERS = 30_000  # of a partition, about


@dataclass(frozen=True)
class Unknown:
    """What part of a sample of text became [UNK]."""

    share_of_tokens: float
    share_of_characters: float  # a long word, or a script without spaces, is one [UNK] however much text it is

    @property
    def share(self) -> float:
        return max(self.share_of_tokens, self.share_of_characters)

    def __str__(self) -> str:
        return (
            f"[UNK] for {100 * self.share_of_tokens:.1f} % of the tokens and {100 * self.share_of_characters:.1f} % of "
            "the characters of a sample of the text"
        )


def require_fitting_case(path: Path, *, is_lowercase: bool) -> list[str]:
    """UserError for a cased vocabulary where text is lower-cased; a line of warning where only a few entries are."""
    entries = read_entries(path)
    capitals = _with_capitals(entries)
    if not is_lowercase or not capitals:
        return []
    found = f"{len(capitals):,} of {len(entries):,} entries of {path} have capitals, as {capitals[0]!r}"
    if len(capitals) > MAX_SHARE_OF_CAPITALS * len(entries):
        raise UserError(
            found=f"{found}, but vocabulary.is_lowercase=true: text in lower case never gives them",
            expected="an uncased vocabulary for text in lower case, a cased one for text as it is",
            fix="set vocabulary.is_lowercase=false, or another vocabulary.file",
        )
    return [f"{found}, which text in lower case (vocabulary.is_lowercase=true) never gives"]


def _with_capitals(entries: Sequence[str]) -> list[str]:
    return [entry for entry in entries if entry != entry.lower() and not SPECIAL_ENTRY.fullmatch(entry)]


def require_fitting_text(path: Path, texts: Sequence[str], *, is_lowercase: bool) -> list[str]:
    """UserError where much of the text becomes [UNK] for its case alone, or most of it at all; else what to warn of."""
    entries = read_entries(path)
    unknown = share_unknown(entries, texts, is_lowercase=is_lowercase)
    lines = []
    if not is_lowercase and not _with_capitals(entries):
        words = words_of(texts)
        share = sum(word != word.lower() for word in words) / max(1, len(words))
        if share > MAX_SHARE_UNKNOWN:
            raise UserError(
                found=f"no entry with a capital in {path}, vocabulary.is_lowercase=false, and capitals in "
                f"{100 * share:.1f} % of the words of a sample of the text",
                expected="a cased vocabulary for text as it is, an uncased one for text in lower case",
                fix="set vocabulary.is_lowercase=true, or another vocabulary.file",
            )
        if share > 0:
            lines.append(
                f"no entry with a capital in {path}, vocabulary.is_lowercase=false, and capitals in "
                f"{100 * share:.2g} % of the words of a sample of the text: these become [UNK] or pieces"
            )
    if unknown.share <= MAX_SHARE_UNKNOWN:
        return lines
    setting = f"vocabulary.is_lowercase={str(is_lowercase).lower()}"
    other = share_unknown(entries, texts, is_lowercase=not is_lowercase)
    if other.share < unknown.share / 2:
        raise UserError(
            found=f"{unknown} with {path} and {setting}",
            expected=f"at most {100 * MAX_SHARE_UNKNOWN:.0f} %; with the other setting it is {100 * other.share:.1f} %",
            fix=f"set vocabulary.is_lowercase={str(not is_lowercase).lower()}, or another vocabulary.file",
        )
    if unknown.share > MAX_SHARE_USELESS:
        raise UserError(
            found=f"{unknown} with {path}",
            expected="a vocabulary of the text's language",
            fix="set another vocabulary.file, or none: then one is trained on the text",
        )
    return [*lines, f"{unknown} with {path}; one that is trained on the text has fewer"]


def warnings_of_trained(path: Path, texts: Sequence[str], *, is_lowercase: bool) -> list[str]:
    """What to warn of in a vocabulary that was trained on the text: it holds a limited number of characters."""
    unknown = share_unknown(read_entries(path), texts, is_lowercase=is_lowercase)
    return [f"{unknown} with {path}"] if unknown.share > MAX_SHARE_UNKNOWN else []


def words_of(texts: Sequence[str]) -> list[str]:
    """The words of text as it is, as BERT cuts them (a Chinese character is one), without punctuation."""
    normalizer, pre_tokenizer = bert_normalizer(is_lowercase=False), BertPreTokenizer()
    return [
        word
        for text in texts
        for line in text.splitlines()
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(line))
        if any(map(str.isalnum, word))
    ]


def share_unknown(entries: Sequence[str], texts: Sequence[str], *, is_lowercase: bool) -> Unknown:
    tokenizer = bert_tokenizer({entry: number for number, entry in enumerate(entries)}, is_lowercase=is_lowercase)
    unknown_id = entries.index(UNK)
    num_tokens = num_unknown = num_characters = num_unknown_characters = 0
    for found in tokenizer.encode_batch([line for text in texts for line in text.splitlines()]):
        num_tokens += len(found.ids)
        num_unknown += found.ids.count(unknown_id)
        for number, (start, stop) in zip(found.ids, found.offsets, strict=True):
            num_characters += stop - start
            num_unknown_characters += (stop - start) * (number == unknown_id)
    return Unknown(num_unknown / max(1, num_tokens), num_unknown_characters / max(1, num_characters))


def sample_texts(partitions: Sequence[Partition], cleaning: Cleaning) -> list[str]:
    """Plain text from the beginnings of each source's first, middle and last partition; UserError if unreadable."""
    by_source: dict[int, list[Partition]] = {}
    for partition in partitions:
        by_source.setdefault(partition.source_index, []).append(partition)
    return [
        text
        for of_source in by_source.values()
        for number in sorted({0, len(of_source) // 2, len(of_source) - 1})
        for text in _beginning(of_source[number], replace(cleaning, duplicates="keep"))
    ]


def _beginning(partition: Partition, cleaning: Cleaning) -> Iterator[str]:
    num_characters = 0
    for document in islice(read_documents(partition.source, partition.stretches), SAMPLE_DOCUMENTS):
        # A book is cut before it is cleaned: markup may break there, which costs the sample a paragraph.
        text, outcome = clean(replace(document, text=document.text[:SAMPLE_CHARACTERS]), cleaning)
        if outcome == KEPT:
            yield text
        num_characters += len(document.text)
        if num_characters >= SAMPLE_CHARACTERS:
            return
