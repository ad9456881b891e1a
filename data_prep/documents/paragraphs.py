"""The rendered text of a wiki page, with its marks -> paragraphs (station 1, after wikitext.py's walk).

As in MediaWiki, a single line end within a paragraph is a space. A paragraph ends at an empty line, a block of any kind
(heading, list, table, quotation, line break, picture on a line of its own) and around an indented line.
"""

# ruff: noqa: RUF001 (signs as they stand in articles)
import re
from collections.abc import Iterator, Sequence

from data_prep.documents.tidy import HOLE, tidy

LIST = "\x00"  # in a line of a list
BREAK = "\x01"  # a paragraph ends here
RAISED = "\x03"  # what follows is set higher
LITERAL = "\x04"  # the next character is text, whatever it looks like
INDENT = "\x05"  # in a line that begins with a colon
LOWERED = "\x06"  # what follows is set lower
MARKS = re.compile("[\x00-\x06]")  # taken from the markup before any is set

LIKE_MARKUP = re.compile(r"[<>\[\]{}|'!_]")
BEHAVIOR_SWITCH = re.compile(r"__[A-Z]+__")
QUOTES = re.compile(r"'{2,}")
TAG_NAMES = (
    "abbr|b|bdi|bdo|big|blockquote|br|center|cite|code|data|dd|del|dfn|div|dl|dt|em|font|gallery|h[1-6]|hr|i|"
    "includeonly|ins|kbd|li|mapframe|mark|math|noinclude|nowiki|ol|onlyinclude|p|poem|pre|q|references?|ref|rb|rp|rt|"
    "ruby|s|samp|section|small|source|span|strike|strong|sub|sup|syntaxhighlight|table|td|templatestyles|th|time|tr|"
    "tt|u|ul|var|wbr"
)
TAG = re.compile(rf"</?(?:{TAG_NAMES})(?=[\s/>])[^<>\x04]*>", re.IGNORECASE)
UNPARSED = re.compile(r"\[\[|\]\]|\{\{+|\}\}+")
TABLE_START, TABLE_END = re.compile(r"[\s:\x02]*\{\|"), re.compile(r"\s*\|\}")
TABLE_LINE = re.compile(r"\s*\||\s*!.*(?:!!|\||=)")  # "!Kung" is no head of a column
ADDRESS = re.compile(r"(?:https?|ftp)://\S+")
RAISED_NUMBER = re.compile(r"(?<=\d)\x03(?=[\-−+–]?\d)")
LOWERED_NUMBER = re.compile(r"(?<=\d)\x06(?=\d)")


def literal(text: str) -> str:
    """Text that is not to be taken for markup."""
    return LIKE_MARKUP.sub(LITERAL + r"\g<0>", text)


def paragraphs(rendered: str, *, dropped_links: Sequence[str]) -> Iterator[str]:
    """The paragraphs that hold a letter or digit, tidied up.

    dropped_links: names of the namespaces (file, category) of links that are left out where they could not be parsed.
    """
    unclosed_link = re.compile(
        rf"\[\[\s*(?:{'|'.join(map(re.escape, dropped_links))})\s*:[^\[\]]*(?:\]\]|$)", re.IGNORECASE
    )
    for text in _joined_lines(rendered, unclosed_link):
        text = tidy(text).strip()
        if any(character.isalnum() for character in text) and not ADDRESS.fullmatch(text):
            yield text


def _joined_lines(rendered: str, unclosed_link: re.Pattern[str]) -> Iterator[str]:
    open_lines: list[str] = []  # of the paragraph that is being read
    is_in_table = False
    for line in rendered.split("\n"):
        was_in_table = is_in_table
        is_in_table = TABLE_START.match(line) is not None or (is_in_table and TABLE_END.match(line) is None)
        is_table_line = TABLE_START.match(line) is not None or TABLE_LINE.match(line) is not None
        is_dropped = LIST in line or is_table_line or (was_in_table and line.lstrip().startswith("!"))
        is_apart = line.startswith(" ") or INDENT in line
        is_end = is_dropped or is_apart or not line.replace(HOLE, "").strip()
        if is_end and open_lines:
            yield " ".join(open_lines)
            open_lines = []
        if is_dropped:
            continue
        first, *others = _without_markup(line, unclosed_link).split(BREAK)
        open_lines.append(first)
        for part in others:
            yield " ".join(open_lines)
            open_lines = [part]
        if is_apart:
            yield " ".join(open_lines)
            open_lines = []
    yield " ".join(open_lines)


def _without_markup(line: str, unclosed_link: re.Pattern[str]) -> str:
    """A line without the marks of style and what the parser could not make out."""
    if "''" in line:
        line = without_quotes(line)
    if "[[" in line:
        line = unclosed_link.sub(HOLE, line)
    if "<" in line:
        line = TAG.sub("", line)
    line = UNPARSED.sub("", BEHAVIOR_SWITCH.sub("", line))
    if RAISED in line or LOWERED in line:  # else 10<sup>9</sup> would be 109
        line = LOWERED_NUMBER.sub("_", RAISED_NUMBER.sub("^", line)).replace(RAISED, "").replace(LOWERED, "")
    return line.replace(LITERAL, "").replace(INDENT, "")


def without_quotes(line: str) -> str:
    """Italics are two apostrophes, bold is three, both are five; what there is more, is text, as in MediaWiki.

    Where both are left open at the line's end, one bold mark is italics and an apostrophe: ''Eagle'''s.
    """
    lengths = [len(match.group()) for match in QUOTES.finditer(line)]
    num_italic = sum(length in (2, 5) or length > 5 for length in lengths)
    num_bold = sum(length >= 3 for length in lengths)
    has_possessive = num_italic % 2 == 1 and num_bold % 2 == 1

    def text_of(match: re.Match[str]) -> str:
        nonlocal has_possessive
        length = len(match.group())
        is_within_word = (
            line[max(0, match.start() - 1) : match.start()].isalnum() and line[match.end() : match.end() + 1].isalpha()
        )
        if length == 3 and has_possessive and is_within_word:
            has_possessive = False
            return "'"
        return "'" if length == 4 else "'" * max(0, length - 5)

    return QUOTES.sub(text_of, line)
