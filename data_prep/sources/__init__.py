"""Every kind of source: cut into stretches that can be read apart, read as documents in one fixed order (station 1).

Files are taken in the order of their names, so the same files always give the same documents with the same keys. A key
names a document for good: the held-out share and the randomness of its instances hang on it, so it never holds an
absolute path or a count of what came before. What cannot be read is refused with the file and the place in it; nothing
is skipped here.
"""

from collections.abc import Iterator

from data_prep.sources.hub import HuggingFace
from data_prep.sources.listing import list_files
from data_prep.sources.source import EXTRACTED, MARKDOWN, PLAIN, TOKENIZED, WIKITEXT, Document, Kind, Source, Stretch
from data_prep.sources.tables import Arrow, JsonLines, Parquet
from data_prep.sources.text import Markdown, Text
from data_prep.sources.wikipedia import MediaWiki, Wikiextractor
from data_prep.sources.wikitext import WikiText

__all__ = [
    "EXTRACTED",
    "KINDS",
    "MARKDOWN",
    "PLAIN",
    "TOKENIZED",
    "WIKITEXT",
    "Document",
    "Kind",
    "Source",
    "Stretch",
    "describe_passed_over",
    "read_documents",
]

KINDS: dict[str, Kind] = {
    "text": Text(),
    "markdown": Markdown(),
    "jsonl": JsonLines(),
    "parquet": Parquet(),
    "arrow": Arrow(),
    "wikiextractor": Wikiextractor(),
    "mediawiki": MediaWiki(),
    "wikitext": WikiText(),
    "huggingface": HuggingFace(),
}


def describe_passed_over(sources: tuple[Source, ...]) -> str:
    """What each source passes over, by reason and with an example; an empty text where there is nothing."""
    listings = {
        source.name: list_files(source, suffixes=kind.suffixes)
        for source in sources
        if (kind := KINDS[source.kind]).suffixes != ()
    }
    return "; ".join(
        f"{name}: {listing.describe_passed_over()}" for name, listing in listings.items() if listing.passed_over
    )


def read_documents(source: Source, stretches: Iterator[Stretch] | tuple[Stretch, ...]) -> Iterator[Document]:
    """The documents of some stretches of a source, in their order."""
    kind = KINDS[source.kind]
    for stretch in stretches:
        yield from kind.read(source, stretch)
