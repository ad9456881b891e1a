"""Markdown -> plain text, one paragraph a line (station 1): running text only, as for Wikipedia.

markdown-it-py parses (CommonMark, and GitHub's tables). Headings, rules, tables, code and HTML are left out; of links
and images the words stay, emphasis loses its marks. Books that were not written as Markdown have prose where CommonMark
sees something else: an indented verse is a block of code, a line above a rule of dashes a heading, a sentence that
begins with a year an entry of a list. What reads as prose stays.
"""

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARSER = MarkdownIt("commonmark").enable("table")
FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?:-?\w[\w-]*[ \t]*:.*\n|[ \t].*\n|-[ \t].*\n|#.*\n)+(?:---|\.\.\.)[ \t]*\n")
FOOTNOTE_MARK = re.compile(r"\[\^[^\[\]\s]+\]:?")
HTML = re.compile(
    r"<!--.*?-->|<(script|style)\b(?:(?!<(?:script|style)\b).)*?</\1>|</?[a-zA-Z][^<>]*>|<!--.*",
    re.DOTALL | re.IGNORECASE,
)
EMPTY_LINE = re.compile(r"\n[ \t]*\n")
# One sign of code alone may stand in prose, as may a price, an address or a number.
NOT_OF_PROSE = re.compile(
    r"[={}<>|\\][^={}<>|\\]*[={}<>|\\]|^[ \t]*[#$>]+[ \t]|^[ \t]*@\w+(?:\.\w+)*$|\w[ \t]+=[ \t]|\w\(|;$|::|->",
    re.MULTILINE,
)
ENDS_LIKE_PROSE = re.compile(r"[.!?…,:—][\"'”’)*_]*$")  # noqa: RUF001
MIN_PROSE_WORDS = 4


def plain_text(markup: str) -> str:
    """The paragraphs of a text, a line each; an empty string if it has none."""
    tokens = PARSER.parse(FRONT_MATTER.sub("", markup))
    lines = (" ".join(FOOTNOTE_MARK.sub("", text).split()) for text in _paragraphs(tokens))
    return "\n".join(line for line in lines if line)


def _paragraphs(tokens: Sequence[Token]) -> Iterator[str]:
    num_tables = 0  # in how many tables we are
    is_heading = False
    number = ""  # of an entry of a list that is none
    for place, token in enumerate(tokens):
        if token.type in ("table_open", "table_close"):
            num_tables += token.nesting
        elif token.type == "heading_open":
            words = tokens[place + 1].content
            is_heading = token.markup not in ("=", "-") or not ("\n" in words or _is_prose(words))
        elif token.type == "heading_close":
            is_heading = False
        elif token.type == "list_item_open" and token.info not in ("", "0", "1") and _is_alone(tokens, place):
            number = f"{token.info}{token.markup} "
        elif token.type == "inline" and not num_tables and not is_heading:
            yield number + _words(token.children or [])
            number = ""
        elif token.type in ("code_block", "fence", "html_block"):
            text = HTML.sub("", token.content) if token.type == "html_block" else token.content
            for paragraph in EMPTY_LINE.split(text):
                if _is_prose(paragraph.strip()):
                    yield _words(PARSER.parseInline(paragraph)[0].children or [])


def _is_prose(text: str) -> bool:
    """Whether a text is made of words and ends as a sentence or a verse does."""
    num_words = sum(word.strip("\"'“”‘’.,;:!?()_*—-").isalpha() for word in text.split())  # noqa: RUF001
    return (
        num_words >= MIN_PROSE_WORDS
        and num_words * 2 > len(text.split())
        and ENDS_LIKE_PROSE.search(text) is not None
        and NOT_OF_PROSE.search(text) is None
    )


def _is_alone(tokens: Sequence[Token], place: int) -> bool:
    """Whether the list whose entry begins here has no other: "1865. The war was over." """
    level = tokens[place].level
    if tokens[place - 1].type != "ordered_list_open":
        return False
    rest = range(place + 1, len(tokens))
    after = next((number for number in rest if tokens[number].level == level and tokens[number].nesting < 0), place)
    return after + 1 < len(tokens) and tokens[after + 1].type == "ordered_list_close"


def _words(tokens: list[Token]) -> str:
    pieces = []
    for token in tokens:
        if token.type in ("text", "code_inline", "text_special"):
            pieces.append(token.content)
        elif token.type == "image":
            pieces.append(_words(token.children or []))
        elif token.type in ("softbreak", "hardbreak") or token.content.lower().startswith("<br"):
            pieces.append(" ")
    return "".join(pieces)
