"""What a source is, what a document is, and what a kind of source must be able to do."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

PLAIN, WIKITEXT, EXTRACTED, MARKDOWN = "plain", "wikitext", "extracted", "markdown"  # WIKITEXT: MediaWiki's markup
TOKENIZED = "tokenized"  # the form of the corpus WikiText


@dataclass(frozen=True)
class Source:
    """One place that text comes from; bert_lamb.config.corpus says what each field means."""

    name: str
    kind: str
    path: str = ""
    document_boundary: str = "blank_line"
    text_column: str = "text"
    dataset: str = ""
    dataset_config: str = ""
    dataset_split: str = "train"
    max_documents: int | None = None
    min_documents: int = 1
    weight: float = 1.0
    license: str = ""


@dataclass(frozen=True)
class Document:
    """One text whose sentences follow each other."""

    key: str  # unique within its source, and lasting
    text: str
    markup: str = PLAIN  # or another, which the worker turns into plain text
    namespaces: tuple[tuple[str, int], ...] = ()  # of WIKITEXT: names and numbers, as the head of its dump gives them


@dataclass(frozen=True)
class Stretch:
    """Documents that can be read without the rest of the source: a part of a file, a whole file, a part of a dataset.

    start, stop: what they count is the kind's own: bytes of the file for lines and dumps, row groups or record batches
    for tables, and for a hub dataset its parts.
    """

    key: str  # of the file, without the folder it lies in
    path: str
    start: int
    stop: int
    num_bytes: int  # on disk; 0 where it is not known
    file_bytes: int  # of the whole file, by which a changed one is known; 0 where there is none
    is_whole: bool  # the whole file, or all of the dataset


class Kind(Protocol):
    """A kind of source: cut it into stretches, and read one."""

    @property
    def suffixes(self) -> tuple[str, ...] | None:
        """Those of its files in a folder; None for any, empty where it reads no files."""

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        """All stretches in their fixed order, of about `stretch_bytes` where the form allows a cut."""

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        """The documents of a stretch in their order; UserError with the place of what cannot be read."""
