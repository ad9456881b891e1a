"""Plain text and Markdown: a file is a document, or empty lines separate the documents of a file."""

import re
from collections.abc import Iterator

from data_prep.sources.files import cut_behind, cut_file, find_files, is_packed, read_lines, whole_file
from data_prep.sources.source import MARKDOWN, PLAIN, Document, Source, Stretch

EMPTY_LINE = re.compile(rb"\n[ \t]*\r?\n|\r[ \t]*\r(?=[^\r\n])")  # carriage returns alone, or line feeds


class Text:
    """Kind `text`. Key: the file, and where empty lines part documents, the byte at which the document begins."""

    suffixes = None

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        find_cut = cut_behind(EMPTY_LINE, longest_match=256)
        for key, path in find_files(source, suffixes=self.suffixes):
            if source.document_boundary == "file" or is_packed(path):
                yield whole_file(key, path)
            else:
                yield from cut_file(key, path, stretch_bytes=stretch_bytes, find_cut=find_cut)

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        if source.document_boundary == "file":
            yield Document(stretch.key, "\n".join(line for _, line in read_lines(stretch)))
            return
        lines: list[str] = []
        begins_at = 0
        for offset, line in read_lines(stretch):
            if line.strip():
                begins_at = begins_at if lines else offset
                lines.append(line)
            elif lines:
                yield Document(f"{stretch.key}#{begins_at}", "\n".join(lines), PLAIN)
                lines = []
        if lines:
            yield Document(f"{stretch.key}#{begins_at}", "\n".join(lines), PLAIN)


class Markdown:
    """Kind `markdown`: a file is a document, such as a book. Key: the file."""

    suffixes = (".md", ".markdown")

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        for key, path in find_files(source, suffixes=self.suffixes):
            yield whole_file(key, path)

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        yield Document(stretch.key, "\n".join(line for _, line in read_lines(stretch)), MARKDOWN)
