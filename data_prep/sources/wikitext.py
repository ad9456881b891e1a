"""WikiText, as wikitext-2-raw and wikitext-103-raw are published: articles of Wikipedia, tokenized, in one text file.

A line ` = Title = ` alone between empty lines begins an article. ` = = Section = = ` is a heading, left out as in
dumps. Every other line is a paragraph, with spaces around punctuation and joints such as `1 @,@ 000`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from bert_lamb.errors import UserError
from data_prep.sources import content
from data_prep.sources.files import cut_behind, cut_file, find_files, is_packed, read_lines, whole_file
from data_prep.sources.source import TOKENIZED, Document, Source, Stretch

BEFORE_TITLE = re.compile(rb"\n[ \t]*\r?\n(?= = (?!= )\S(?:[^\r\n]{0,500}\S)? = ?\r?\n[ \t]*\r?\n)")
SECTION = re.compile(r" (?:= ){2,}\S.* (?:= ?){2,}")
UNKNOWN_WORD = "<unk>"
MAX_UNKNOWN_SHARE = 1e-3  # of the words; wikitext-2 has 2 %, wikitext-103 0.4 %, the raw ones next to none


class WikiText:
    """Kind `wikitext`: an article is a document, without title and section headings.

    Key: the file and the byte at which the title is.
    """

    suffixes = (".raw", ".tokens", ".txt")

    def stretches(self, source: Source, *, stretch_bytes: int) -> Iterator[Stretch]:
        find_cut = cut_behind(BEFORE_TITLE, longest_match=1024)
        for key, path in find_files(source, suffixes=self.suffixes):
            _look_at_words(path, source)
            if is_packed(path):
                yield whole_file(key, path)
            else:
                yield from cut_file(key, path, stretch_bytes=stretch_bytes, find_cut=find_cut)

    def read(self, source: Source, stretch: Stretch) -> Iterator[Document]:
        paragraphs: list[str] = []
        begins_at = stretch.start
        for offset, line, is_title in _lines(stretch):
            if is_title:
                if paragraphs:
                    yield Document(f"{stretch.key}#{begins_at}", "\n".join(paragraphs), TOKENIZED)
                paragraphs, begins_at = [], offset
            elif line.strip() and not SECTION.fullmatch(line):
                paragraphs.append(line)
        if paragraphs:
            yield Document(f"{stretch.key}#{begins_at}", "\n".join(paragraphs), TOKENIZED)


def _lines(stretch: Stretch) -> Iterator[tuple[int, str, bool]]:
    """(byte offset, line, whether it is an article's title): a title is alone between lines without text."""
    candidate: tuple[int, str] | None = None  # a title, if the next line has no text
    is_after_text = False
    for offset, line in read_lines(stretch):
        has_text = bool(line.strip())
        if candidate is not None:
            yield (*candidate, not has_text)
            candidate = None
        if not is_after_text and content.TITLE_OF_WIKITEXT.fullmatch(line):
            candidate = (offset, line)
        else:
            yield offset, line, False
        is_after_text = has_text
    if candidate is not None:
        yield (*candidate, True)


def _look_at_words(path: Path, source: Source) -> None:
    """UserError where a file is not WikiText, or the form of it in which rare words are taken out."""
    text = content.read_head(path).decode("utf-8", "ignore").removeprefix("\ufeff")
    if not text.strip():
        return
    if not content.is_like_wikitext(text):
        raise UserError(
            found=f"{path}, which does not begin with a title such as ' = Title = '",
            expected="WikiText, as wikitext-103-raw is published",
            fix=f"check sources.{source.name}.kind and .path",
        )
    if text.count(UNKNOWN_WORD) > MAX_UNKNOWN_SHARE * len(text.split()):
        raise UserError(
            found=f"{path} with {UNKNOWN_WORD} in place of rare words",
            expected="the raw form of WikiText, which has all words",
            fix="fetch wikitext-103-raw or wikitext-2-raw",
        )
