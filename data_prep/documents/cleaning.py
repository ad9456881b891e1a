"""A document -> its plain text, or the reason why it is left out (station 1, in the worker).

Every switch is off where it is not asked for, and every document left out is counted under its reason.
"""

import re
import unicodedata
from collections.abc import Callable

from data_prep.documents import extracted, markdown, tokenized
from data_prep.settings import Cleaning
from data_prep.sources import EXTRACTED, MARKDOWN, PLAIN, TOKENIZED, WIKITEXT, Document
from data_prep.sources.content import NO_TEXT
from data_prep.sources.wikitext import UNKNOWN_WORD

KEPT = ""
TOO_SHORT = "too_short"  # fewer characters or words of plain text than asked for
STUB = "stub"
CONTROL_CHARACTERS = "control_characters"  # so many that these are data and no text, or text that was decoded wrongly
UNKNOWN_WORDS = "unknown_words"  # <unk> in place of words that the corpus has lost
# The other reasons need more than the document's text: no_tokens, repeated_key, duplicate, near_duplicate and
# not_sampled (selection.py).

MAX_SHARE_OF_CONTROLS = 0.001  # of the characters: one or two are a slip in a text, which is worth more than they
END_OF_FILE = "\x1a"  # with which programs of DOS closed a text
# Bytes of Windows-1252 that were taken for characters, only where no other code page gives a reading: don't, a - b.
WINDOWS_MARKS = {"\x92": "\u2019", "\x96": "\u2013", "\x97": "\u2014"}
CERTAIN_MARK = re.compile(r"(?<=[A-Za-z])\x92(?=(?:[dmst]|ll|re|ve)\b)|(?<= )[\x96\x97](?= )")

# Rules for lines and marks are narrow: of a page's furniture some may stay, but no sentence of a text may go.
STUB_MARKS = re.compile(
    r"\bmay (?:also )?refer to(?: any of)?\b[^.\n]{0,80}:"
    r"|\bThis (?:\S+ ){0,6}(?:\S+-)?article (?:\S+ ){0,6}is a stub\b"
    r"|You can help \S+ by expanding it",
    re.IGNORECASE,
)
STUB_WORDS = 200  # a longer text is no stub, whatever it says
GUTENBERG_START = re.compile(
    r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK(?:[^*]{0,300}\*\*\*|.*)$", re.MULTILINE
)
GUTENBERG_END = re.compile(
    r"^(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK"
    r"|End of (?:the |this )?Project Gutenberg(?:['\u2019]s| [Ee]-?[Bb]ook| [Ee]-?[Tt]ext))"
)
BOILERPLATE_LINE = re.compile(
    r'(?:Retrieved from "?https?://\S+|This (?:\S+ ){0,6}article (?:\S+ ){0,6}is a stub\b.*'
    r"|You can help \S+ by expanding it\.?|Produced by (?:[^.]|\b[a-z]\.(?= )){3,200}|All rights reserved\.?"
    r"|\[Illustration(?::.*)?\]|Copyright ©.{0,200}|Categor(?:y|ies):[^.!?]*|Jump to:? ?navigation.*|Share this:?"
    r"|Read more\.*)",
    re.IGNORECASE,
)


def clean(document: Document, cleaning: Cleaning) -> tuple[str, str]:
    """(plain text, KEPT), or (an empty text, the reason)."""
    text = PLAIN_TEXT[document.markup](document)
    if cleaning.unicode_normalization != "none":
        text = unicodedata.normalize(cleaning.unicode_normalization, text)  # type: ignore[arg-type]
    if END_OF_FILE in text:
        text = text.rstrip(f"{END_OF_FILE}\r\n\t ")
    # Before the boilerplate goes: the line by which a stub calls itself one is among it.
    is_stub = cleaning.drop_stubs and bool(STUB_MARKS.search(text[:2000])) and len(text.split()) < STUB_WORDS
    if cleaning.drop_boilerplate:
        text = without_boilerplate(text)
    if len(text.strip()) < cleaning.min_characters:
        return "", TOO_SHORT
    if cleaning.min_words and len(text.split()) < cleaning.min_words:
        return "", TOO_SHORT
    if is_stub:
        return "", STUB
    if num_controls := len(NO_TEXT.findall(text)):
        if num_controls > MAX_SHARE_OF_CONTROLS * len(text):
            return "", CONTROL_CHARACTERS
        text = without_controls(text)
    if document.markup == TOKENIZED and UNKNOWN_WORD in text:
        return "", UNKNOWN_WORDS
    return text, KEPT


def without_controls(text: str) -> str:
    """The text with a space for each control character, so that no words run together, or the mark it surely was."""
    return NO_TEXT.sub(" ", CERTAIN_MARK.sub(lambda match: WINDOWS_MARKS[match[0]], text))


def without_boilerplate(text: str) -> str:
    """The text without Project Gutenberg's header and licence, and without lines that stand around texts on the web."""
    if start := GUTENBERG_START.search(text):
        text = text[start.end() :]
    lines = []
    for line in text.split("\n"):
        if GUTENBERG_END.match(line):
            break
        if not BOILERPLATE_LINE.fullmatch(line.strip()):
            lines.append(line)
    return "\n".join(lines)


def _plain_text_of_wikitext(document: Document) -> str:
    from data_prep.documents import wikitext  # mwparserfromhell is loaded where a dump is read

    return wikitext.plain_text(document.text, document.namespaces)


PLAIN_TEXT: dict[str, Callable[[Document], str]] = {
    PLAIN: lambda document: document.text,
    WIKITEXT: _plain_text_of_wikitext,
    EXTRACTED: lambda document: extracted.plain_text(document.text),
    MARKDOWN: lambda document: markdown.plain_text(document.text),
    TOKENIZED: lambda document: tokenized.plain_text(document.text),
}
