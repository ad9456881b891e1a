"""Wikipedia: XML dumps as Wikimedia publishes them, and what wikiextractor makes of them."""

import bz2
import html
import io
import mmap
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bert_lamb.errors import UserError
from data_prep.sources.files import (
    DAMAGED_ARCHIVE_ERRORS,
    cut_behind,
    cut_file,
    find_files,
    is_packed,
    open_binary,
    read_lines,
    unpack_bz2,
    whole_file,
)
from data_prep.sources.source import EXTRACTED, WIKITEXT, Document, Source, Stretch

BZ2_STREAM = re.compile(rb"BZh[1-9]1AY&SY")  # each stream begins so; ten bytes that do not come by chance
PARSER_BYTES = 1 << 18
HEAD_OF_DUMP_BYTES = 1 << 14  # <siteinfo> is some 5 kB
HEAD_BYTES = 64  # enough to see with what a stream begins


class Wikiextractor:
    """Kind `wikiextractor`: `<doc id= url= title=>`, the title, the paragraphs, `</doc>`; the title is left out.

    Key: the page's id.
    """

    suffixes = None
    opening = re.compile(r'<doc id="(?P<id>[^"]*)".* title="(?P<title>.*)">')

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        find_cut = cut_behind(re.compile(rb"\n</doc>\r?\n"), longest_match=9)
        for key, path in find_files(source, suffixes=self.suffixes):
            if is_packed(path):
                yield whole_file(key, path)
            else:
                yield from cut_file(key, path, stretch_bytes=stretch_bytes, find_cut=find_cut)

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        document: tuple[str, str] | None = None  # id and title of the one being read
        lines: list[str] = []
        offset = 0
        for offset, line in read_lines(stretch):
            if line.startswith("<doc ") and document is None and (match := self.opening.fullmatch(line)):
                document, lines = (match["id"], html.unescape(match["title"])), []
            elif line == "</doc>" and document is not None:
                has_title = bool(lines) and html.unescape(lines[0]).strip() == document[1].strip()
                yield Document(document[0], html.unescape("\n".join(lines[has_title:])), EXTRACTED)
                document = None
            elif document is not None:
                lines.append(line)
            elif line.strip():
                raise self._unlike(f"text outside <doc> at byte {offset} of {stretch.path}", source)
        if document is not None:
            found = f"<doc id={document[0]!r}> without </doc> at byte {offset} of {stretch.path}"
            raise self._unlike(found, source)

    def _unlike(self, found: str, source: Source) -> UserError:
        return UserError(
            found=found,
            expected='<doc id="..." url="..." title="..."> ... </doc>, as wikiextractor writes',
            fix=f"check sources.{source.name}.kind and .path",
        )


class MediaWiki:
    """Kind `mediawiki`: the articles (namespace 0) of a dump that are no redirects, with their markup.

    Key: the page's id. A plain dump is cut between pages, a multistream one between the streams of bz2 that begin with
    a page; a dump that is one stream, or whose streams end in mid-page, is one stretch.
    """

    suffixes = (".xml",)

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        behind_page = cut_behind(re.compile(rb"</page>\s*?\n"), longest_match=16)
        for key, path in find_files(source, suffixes=self.suffixes):
            if path.suffix == ".bz2":
                yield from cut_file(key, path, stretch_bytes=stretch_bytes, find_cut=_find_page_stream)
            elif is_packed(path):
                yield whole_file(key, path)
            else:
                yield from cut_file(key, path, stretch_bytes=stretch_bytes, find_cut=behind_page)

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        try:
            is_last = stretch.stop == Path(stretch.path).stat().st_size
            namespaces = _namespaces(Path(stretch.path))
            with _open_stretch(stretch) as stream:
                yield from _articles(stream, namespaces, is_first=stretch.start == 0, is_last=is_last)
        except (ElementTree.ParseError, *DAMAGED_ARCHIVE_ERRORS) as error:
            raise UserError(
                found=f"{stretch.path} that breaks off or is no XML ({error})",
                expected="a MediaWiki dump (pages-articles.xml or .xml.bz2)",
                fix="fetch it again",
            ) from error


def _namespaces(path: Path) -> tuple[tuple[str, int], ...]:
    """The names and numbers of the dump's namespaces, from the <siteinfo> at its head; none where it has none.

    Every stretch looks there itself, so that it does not matter how the dump was cut.
    """
    parser: Any = ElementTree.XMLPullParser(events=("start", "end"))
    found: list[tuple[str, int]] = []
    with open_binary(path) as stream:
        while data := stream.read(HEAD_OF_DUMP_BYTES):
            parser.feed(data)
            for event, element in parser.read_events():
                name = _local_name(element.tag)
                if (event, name) in (("end", "siteinfo"), ("start", "page")):
                    return tuple(found)
                # <namespacealias> is not written by every version.
                if event == "end" and name in ("namespace", "namespacealias") and element.text:
                    number = element.get("key") or element.get("id") or ""
                    if number.removeprefix("-").isdecimal():
                        found.append((element.text, int(number)))
    return tuple(found)


def _articles(
    stream: IO[bytes], namespaces: tuple[tuple[str, int], ...], *, is_first: bool, is_last: bool
) -> Iterator[Document]:
    """The articles among the pages of a stretch; the element around all pages is supplied where it lies elsewhere."""
    parser: Any = ElementTree.XMLPullParser(events=("start", "end"))
    if not is_first:
        parser.feed(b"<mediawiki>")
    root: Any = None
    while True:
        data = stream.read(PARSER_BYTES)
        if data:
            parser.feed(data)
        else:
            if not is_last:
                parser.feed(b"</mediawiki>")
            parser.close()
        for event, element in parser.read_events():
            root = element if root is None else root
            if event == "start" or _local_name(element.tag) != "page":
                continue
            page = {_local_name(child.tag): child for child in element.iter()}
            # Within a page `iter` meets the page's own id first and the revision's later: take the child's.
            page_id = next((child.text for child in element if _local_name(child.tag) == "id"), None)
            is_article = page["ns"].text == "0" if "ns" in page else True
            if is_article and "redirect" not in page and "text" in page:
                yield Document(page_id or "", page["text"].text or "", WIKITEXT, namespaces)
            root.clear()  # forget the page: memory stays flat over the whole dump
        if not data:
            return


def _find_page_stream(stream: IO[bytes], earliest: int, size: int) -> int:
    """The first bz2 stream from `earliest` on whose text begins with a page, or the file's size."""
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for match in BZ2_STREAM.finditer(mapped, earliest):
            try:
                head = bz2.BZ2Decompressor().decompress(mapped[match.start() : match.start() + (1 << 20)], HEAD_BYTES)
            except OSError:
                continue  # ten bytes that came by chance after all
            if head.lstrip().startswith(b"<page>"):
                return match.start()
            if not head.lstrip().startswith(b"</mediawiki"):
                return size  # streams that end in mid-page, as parallel packers make them
    return size


def _open_stretch(stretch: Stretch) -> IO[bytes]:
    path = Path(stretch.path)
    if stretch.is_whole:
        return open_binary(path)
    with path.open("rb") as stream:
        stream.seek(stretch.start)
        data = io.BytesIO(stream.read(stretch.stop - stretch.start))
    return unpack_bz2(data) if path.suffix == ".bz2" else data


def _local_name(tag: str) -> str:
    """An XML tag without its namespace, which differs between versions of the export format."""
    return tag.rsplit("}", 1)[-1]
