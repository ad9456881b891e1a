"""Markdown -> plain text, one paragraph a line (station 1): running text only, as for Wikipedia.

markdown-it-py parses (CommonMark). Headings, rules, tables, code and HTML are left out; of links and images the words
stay, emphasis loses its marks.
"""

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARSER = MarkdownIt("commonmark")
HEADING = ("heading_open", "heading_close")


def plain_text(markup: str) -> str:
    """The paragraphs of a text, a line each; an empty string if it has none."""
    lines: list[str] = []
    is_heading = False
    for token in PARSER.parse(markup):
        if token.type in HEADING:
            is_heading = token.type == "heading_open"
        elif token.type == "inline" and not is_heading:
            line = " ".join(_words(token.children or []).split())
            if line:
                lines.append(line)
    return "\n".join(lines)


def _words(tokens: list[Token]) -> str:
    pieces = []
    for token in tokens:
        if token.type in ("text", "code_inline", "text_special"):
            pieces.append(token.content)
        elif token.type in ("softbreak", "hardbreak"):
            pieces.append(" ")
    return "".join(pieces)
