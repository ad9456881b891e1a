"""Read raw text: every kind of source becomes documents in one fixed order (station 1).

Files are read in the order of their names, so the same files always give the same documents with the same keys. A key
names a document for good: the held-out share and the randomness of its instances hang on it, so it never contains an
absolute path. What cannot be read is refused with the file and the place in it; nothing is skipped here.
"""

import bz2
import glob
import gzip
import html
import json
import lzma
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

from bert_lamb.errors import UserError

PLAIN, WIKITEXT = "plain", "wikitext"
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
DAMAGED_ARCHIVE_ERRORS = (OSError, EOFError, lzma.LZMAError)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Source:
    """One place that text comes from; bert_lamb.config.SourceConfig tells what each field means."""

    name: str
    kind: str
    path: str
    document_boundary: str
    text_column: str
    dataset: str
    dataset_config: str
    dataset_split: str
    max_documents: int | None
    license: str


@dataclass(frozen=True)
class Document:
    """One text whose sentences follow each other."""

    key: str  # unique within its source
    text: str
    markup: str = PLAIN  # or WIKITEXT, which the worker turns into plain text


def read_documents(source: Source) -> Iterator[Document]:
    """The documents of a source in their fixed order; UserError if it has none or cannot be read."""
    documents = READERS[source.kind](source)
    num_read = 0
    for document in islice(documents, source.max_documents):
        num_read += 1
        yield document
    if not num_read:
        raise UserError(
            found=f"no document in source {source.name} ({source.path or source.dataset})",
            expected="at least one",
            fix=f"check sources.{source.name}.path and .kind={source.kind}",
        )


def read_text(source: Source) -> Iterator[Document]:
    """Plain text: a file is a document, or empty lines part the documents of a file."""
    for key, path in find_files(source, suffixes=None):
        if source.document_boundary == "file":
            yield Document(key, "\n".join(line for _, line in read_lines(path)))
            continue
        paragraph: list[str] = []
        number = 0
        for _, line in read_lines(path):
            if line.strip():
                paragraph.append(line)
            elif paragraph:
                yield Document(f"{key}#{number}", "\n".join(paragraph))
                paragraph, number = [], number + 1
        if paragraph:
            yield Document(f"{key}#{number}", "\n".join(paragraph))


def read_jsonl(source: Source) -> Iterator[Document]:
    """One JSON object a line, the text in one of its members; null is an empty text."""
    for key, path in find_files(source, suffixes=(".jsonl", ".json")):
        for number, (_, line) in enumerate(read_lines(path)):
            if not line.strip():
                continue
            place = f"{path}, line {number + 1}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    found=f"{error} in {place}", expected="one JSON object a line", fix="mend the file"
                ) from error
            if not isinstance(record, dict) or source.text_column not in record:
                members = sorted(record) if isinstance(record, dict) else type(record).__name__
                raise _no_such_column(source, members, place)
            yield Document(f"{key}#{number}", _text_of(record[source.text_column], source, place))


def read_parquet(source: Source) -> Iterator[Document]:
    """Parquet files with a column of text; null is an empty text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for key, path in find_files(source, suffixes=(".parquet",)):
        try:
            with pq.ParquetFile(path) as file:
                if source.text_column not in file.schema_arrow.names:
                    raise _no_such_column(source, file.schema_arrow.names, str(path))
                number = 0
                for batch in file.iter_batches(batch_size=1024, columns=[source.text_column]):
                    for text in batch.column(0).to_pylist():
                        yield Document(f"{key}#{number}", _text_of(text, source, f"{path}, row {number}"))
                        number += 1
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                found=f"{path} that cannot be read as Parquet ({error})",
                expected="a Parquet file",
                fix="fetch it again",
            ) from error


def read_wikiextractor(source: Source) -> Iterator[Document]:
    """Output of wikiextractor: `<doc id= url= title=>`, the title, the paragraphs, `</doc>`; the title is left out."""
    opening = re.compile(r'<doc id="(?P<id>[^"]*)".* title="(?P<title>.*)">')
    for _, path in find_files(source, suffixes=None):
        document: tuple[str, str] | None = None  # id and title of the one being read
        lines: list[str] = []
        offset = 0
        for offset, line in read_lines(path):
            match = opening.fullmatch(line)
            if match and document is None:
                document, lines = (match["id"], html.unescape(match["title"])), []
            elif line == "</doc>" and document is not None:
                has_title = bool(lines) and html.unescape(lines[0]).strip() == document[1].strip()
                yield Document(document[0], html.unescape("\n".join(lines[has_title:])))
                document = None
            elif document is not None:
                lines.append(line)
            elif line.strip():
                raise _unlike_wikiextractor(f"text outside <doc> at byte {offset} of {path}", source)
        if document is not None:
            raise _unlike_wikiextractor(f"<doc id={document[0]!r}> without </doc> at byte {offset} of {path}", source)


def read_mediawiki(source: Source) -> Iterator[Document]:
    """MediaWiki XML dump: the articles (namespace 0) that are no redirects, with their markup."""
    for _, path in find_files(source, suffixes=(".xml",)):
        try:
            with open_binary(path) as stream:
                events = ElementTree.iterparse(stream, events=("start", "end"))
                _, root = next(events)
                for event, element in events:
                    if event != "end" or _local_name(element.tag) != "page":
                        continue
                    page = {_local_name(child.tag): child for child in element.iter()}
                    # Within a page `iter` meets the page's own id first and the revision's later: take the child's.
                    page_id = next((child.text for child in element if _local_name(child.tag) == "id"), None)
                    is_article = page["ns"].text == "0" if "ns" in page else True
                    if is_article and "redirect" not in page and "text" in page:
                        yield Document(page_id or "", page["text"].text or "", WIKITEXT)
                    root.clear()  # forget the page: memory stays flat over the whole dump
        except (ElementTree.ParseError, *DAMAGED_ARCHIVE_ERRORS) as error:
            raise UserError(
                found=f"{path} that breaks off or is no XML ({error})",
                expected="a MediaWiki dump (pages-articles.xml or .xml.bz2)",
                fix="fetch it again",
            ) from error


def read_huggingface(source: Source) -> Iterator[Document]:
    """A dataset by name or folder, streamed through `datasets`: nothing is cached, max_documents ends the fetch."""
    import datasets

    name = " ".join(filter(None, (source.dataset, source.dataset_config, source.dataset_split)))
    try:
        rows = datasets.load_dataset(
            source.dataset, source.dataset_config or None, split=source.dataset_split, streaming=True
        )
        for number, row in enumerate(rows):
            if source.text_column not in row:
                raise _no_such_column(source, sorted(row), name)
            yield Document(str(number), _text_of(row[source.text_column], source, f"{name}, row {number}"))
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            found=f"dataset {name} that cannot be loaded ({reason})",
            expected="a dataset of the Hugging Face hub or a local folder, and a network if it is not cached",
            fix=f"check sources.{source.name}.dataset, .dataset_config and .dataset_split, or fetch it and give a path",
        ) from error


READERS: dict[str, Callable[[Source], Iterator[Document]]] = {
    "text": read_text,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "wikiextractor": read_wikiextractor,
    "mediawiki": read_mediawiki,
    "huggingface": read_huggingface,
}


def find_files(source: Source, *, suffixes: tuple[str, ...] | None) -> list[tuple[str, Path]]:
    """(key, path) of the files that source.path names: a file, a folder with all below it, or a glob pattern.

    suffixes: taken from a folder (also with .gz, .bz2 or .xz behind); None takes every file. The key is the path below
    the folder, or below the part of the pattern that holds no wildcard. Sorted by key. UserError if there is none.
    """
    path = Path(source.path).expanduser()
    if path.is_file():
        found = [(path.name, path)]
    elif path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        found = [
            (file.relative_to(path).as_posix(), file)
            for file in files
            if suffixes is None or _suffix_within_archive(file) in suffixes
        ]
    else:
        fixed: list[str] = []
        for part in path.parts:
            if glob.has_magic(part):
                break
            fixed.append(part)
        root = Path(*fixed)
        files = (Path(name) for name in glob.glob(str(path), recursive=True))
        found = [(file.relative_to(root).as_posix(), file) for file in files if file.is_file() and root != path]
    if not found:
        raise UserError(
            found=f"no file at {source.path}",
            expected=f"a file, folder or glob pattern of {source.kind} files",
            fix=f"set sources.{source.name}.path",
        )
    return sorted(found)


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in .gz, .bz2 or .xz."""
    stream: IO[bytes] = OPENERS.get(path.suffix, open)(path, "rb")
    return stream


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(byte offset, line without its end) of a UTF-8 file, packed or not; UserError with the offset of a bad byte.

    Offsets count unpacked bytes. A byte order mark and carriage returns at line ends are dropped.
    """
    offset = 0
    try:
        with open_binary(path) as stream:
            for raw in stream:
                line = raw.removeprefix(BYTE_ORDER_MARK) if offset == 0 else raw
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    place = offset + len(raw) - len(line) + error.start
                    raise UserError(
                        found=f"byte 0x{line[error.start]:02x} that is not UTF-8 at byte {place} of {path}",
                        expected="UTF-8",
                        fix="convert the file (iconv -f ... -t utf-8)",
                    ) from error
                yield offset, text.rstrip("\r\n")
                offset += len(raw)
    except DAMAGED_ARCHIVE_ERRORS as error:
        raise UserError(
            found=f"{path} that cannot be read past byte {offset} ({error})",
            expected="a sound file",
            fix="fetch it again",
        ) from error


def _suffix_within_archive(path: Path) -> str:
    return PurePosixPath(path.stem).suffix if path.suffix in OPENERS else path.suffix


def _local_name(tag: str) -> str:
    """An XML tag without its namespace, which differs between versions of the export format."""
    return tag.rsplit("}", 1)[-1]


def _text_of(value: object, source: Source, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            found=f"{source.text_column} of type {type(value).__name__} in {place}",
            expected="text",
            fix=f"set sources.{source.name}.text_column",
        )
    return value


def _no_such_column(source: Source, columns: object, place: str) -> UserError:
    return UserError(
        found=f"columns {columns} in {place}",
        expected=f"a column {source.text_column!r}",
        fix=f"set sources.{source.name}.text_column",
    )


def _unlike_wikiextractor(found: str, source: Source) -> UserError:
    return UserError(
        found=found,
        expected='<doc id="..." url="..." title="..."> ... </doc>, as wikiextractor writes',
        fix=f"check sources.{source.name}.kind and .path",
    )
