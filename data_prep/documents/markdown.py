"""Markdown -> plain text, one paragraph a line (station 1): running text only, as for Wikipedia.

markdown-it-py parses (CommonMark, and GitHub's tables). Headings, rules, tables, code and HTML are left out; of links
and images the words stay, emphasis loses its marks.
"""

from markdown_it import MarkdownIt
from markdown_it.token import Token

PARSER = MarkdownIt("commonmark").enable("table")
LEFT_OUT = {"heading_open": 1, "table_open": 1, "heading_close": -1, "table_close": -1}


def plain_text(markup: str) -> str:
    """The paragraphs of a text, a line each; an empty string if it has none."""
    lines: list[str] = []
    depth = 0  # of headings and tables
    for token in PARSER.parse(markup):
        depth += LEFT_OUT.get(token.type, 0)
        if token.type == "inline" and not depth:
            line = " ".join(_words(token.children or []).split())
            if line:
                lines.append(line)
    return "\n".join(lines)


def _words(tokens: list[Token]) -> str:
    pieces = []
    for token in tokens:
        if token.type in ("text", "code_inline", "text_special"):
            pieces.append(token.content)
        elif token.type == "image":
            pieces.append(_words(token.children or []))
        elif token.type in ("softbreak", "hardbreak"):
            pieces.append(" ")
    return "".join(pieces)
