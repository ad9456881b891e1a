"""What wikiextractor leaves of an article -> running text, one paragraph a line (station 1): cleaned as a dump is.

wikiextractor drops templates, tables and references, but leaves traces of them: headings as lines, names of formulas,
empty brackets, tags, entries of lists, rows of tables, links that it could not read.
"""

import html
import re
from collections.abc import Iterator

from data_prep.documents.headings import MAX_CHARACTERS, MAX_WORDS, is_english, is_heading, is_without_verb
from data_prep.documents.paragraphs import ADDRESS, BEHAVIOR_SWITCH, TABLE_LINE, TAG, UNPARSED, without_quotes
from data_prep.documents.tidy import HOLE, tidy

LINE_BREAK = re.compile(r"<(?:br|hr|p|/p|div|/div)\b[^<>]*>", re.IGNORECASE)
NOTE = re.compile(r"<ref\b(?:[^<>]*/>|[^<>]*>(?:(?!<ref\b).)*?</ref>)", re.IGNORECASE)
PLACEHOLDER = re.compile(r"\b(?:formula|codice|math)_\d+")
FILE_LINK = re.compile(r"\[\[\s*(?:file|image|category|media)\s*:[^\[\]]*(?:\]\]|$)", re.IGNORECASE)
LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
ADDRESS_LINK = re.compile(r"\[(?:https?:|ftp:)?//[^\s\[\]]+(?:\s([^\[\]]*))?\]")
TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
# Marks of newer versions: "Section::::History.", "BULLET::::- an item".
MARKED = re.compile(r"(Section|BULLET|NUMBERED|INDENT)::::(?:[-*#:]|\d+\.)?\s*")
OF_A_WORD = re.compile(r"\w")
LIST_MARK = re.compile(r"(?:[*#•·;]+|[-–—])\s")  # noqa: RUF001
SENTENCE_END = re.compile(r"[.!?:;,…。！？।॥؟۔։።][\"'”’»)\]]*$")  # noqa: RUF001
MAX_WORDS_OF_AN_ENTRY = 3  # in languages whose verbs are not known
# An entity that was escaped twice; whatever else looks like one stays.
ENTITY = re.compile(r"&(?:nbsp|thinsp|ndash|mdash|hellip|amp|lt|gt|quot|apos|#\d{1,6}|#x[0-9a-fA-F]{1,5});")


def plain_text(text: str) -> str:
    """The paragraphs of an extracted article, a line each; an empty string if it has none."""
    lines = [line for line in map(str.strip, _cleaned_lines(text)) if any(map(str.isalnum, line))]
    english = is_english(text)
    last = len(lines) - 1
    return "\n".join(
        line for number, line in enumerate(lines) if not is_furniture(line, is_last=number == last, english=english)
    )


def is_furniture(line: str, *, is_last: bool, english: bool) -> bool:
    """Whether a cleaned line is no running text: a heading, an entry of a list or a table, a lone address."""
    has_end = SENTENCE_END.search(line[-8:]) is not None
    if ADDRESS.fullmatch(line) or (LIST_MARK.match(line) and not has_end):  # "- Who is there?" is said by somebody
        return True
    if len(line) > MAX_CHARACTERS:
        return False
    if has_end:
        return is_heading(line, is_last=is_last, has_english_verbs=english)
    return is_without_verb(line, max_words=MAX_WORDS if english else MAX_WORDS_OF_AN_ENTRY)


def _cleaned_lines(text: str) -> Iterator[str]:
    for paragraph in text.replace(HOLE, "").split("\n"):
        if "<" in paragraph:
            paragraph = LINE_BREAK.sub("\n", NOTE.sub(HOLE, paragraph))
        for line in paragraph.split("\n"):
            if not _is_table_or_heading(line):
                yield _cleaned(line)


def _is_table_or_heading(line: str) -> bool:
    start = line.lstrip()[:2]
    return (
        start == "{|"
        or (start[:1] in ("|", "!") and TABLE_LINE.match(line) is not None)
        or _is_between_equals_signs(line)
    )


def _is_between_equals_signs(line: str) -> bool:
    """Whether a line is "== Words ==". By searching, as a regular expression would take forever over a rule of "="."""
    first, last = line.find("=="), line.rfind("==")
    return first >= 0 and last >= first + 2 and not OF_A_WORD.search(line[:first]) and not OF_A_WORD.search(line[last:])


def _cleaned(line: str) -> str:
    if mark := MARKED.match(line):
        if mark[1] != "INDENT":
            return ""
        line = line[mark.end() :]
    if "_" in line:
        line = PLACEHOLDER.sub(HOLE, BEHAVIOR_SWITCH.sub("", line))
    if "[" in line:
        line = ADDRESS_LINK.sub(lambda match: match[1] or HOLE, LINK.sub(r"\1", FILE_LINK.sub(HOLE, line)))
    if "{{" in line:
        line = TEMPLATE.sub(HOLE, line)
    if "<" in line:
        line = TAG.sub("", line)
    if "''" in line:
        line = without_quotes(line)
    if "[" in line or "]" in line or "{" in line or "}" in line:
        line = UNPARSED.sub("", line)
    if "&" in line:
        line = ENTITY.sub(lambda match: html.unescape(match[0]), line)
    return tidy(line)
