"""MediaWiki markup -> plain text, one paragraph a line (station 1, in the worker because it is slow).

BERT took "only the text passages" of Wikipedia "and ignores lists, tables, and headers" (Devlin et al. 2019, section
3.1), and so does this: mwparserfromhell parses, and one walk over its nodes keeps running text only. The library's own
strip_code keeps list items, table cells and image captions.
"""

import re

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, HTMLEntity, Node, Tag, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

DROPPED_TAGS = frozenset({"ref", "references", "table", "gallery", "math", "chem", "score", "timeline"}) | frozenset(
    {"imagemap", "syntaxhighlight", "source", "pre", "hiero", "graph"}
)
LIST_TAGS = frozenset({"li", "dt"})  # lines that begin with *, # or ;
LINE_BREAK_TAGS = frozenset({"br", "hr", "p", "div", "center", "blockquote"})
DROPPED_LINK_PREFIXES = frozenset({"file", "image", "media", "category"})
INTERLANGUAGE_PREFIX = re.compile(r"[a-z]{2,3}(-[a-z-]+)?")

LIST_MARK = "\x00"  # begins a line of a list until the lines are looked at; removed from the text beforehand
BEHAVIOR_SWITCH = re.compile(r"__[A-Z]+__")
LEFT_OVER_MARKUP = re.compile(r"'{2,}|\[\[|\]\]|\{\{+|\}\}+|</?[a-zA-Z][^<>\n]*>")
UNPARSED_TABLE_LINE = re.compile(r"\s*(\{\||\|\}|\||!)")
HALF_A_PAIR = re.compile("[\ud800-\udfff]")  # &#xD800; is no character, and UTF-8 cannot write it
EMPTY_BRACKETS = re.compile(r"\(\s*[,;:]*\s*\)|\[\s*\]")
SPACES = re.compile(r"[ \t\u00a0]+")
SPACE_BEFORE_MARK = re.compile(r" +([,.;:)](?:\s|$))")
SPACE_AFTER_BRACKET = re.compile(r"\([ ,;]+")


def plain_text(markup: str) -> str:
    """The running text of an article, one paragraph a line; an empty string if it has none."""
    code = mwparserfromhell.parse(markup.replace(LIST_MARK, ""), skip_style_tags=True)
    lines = (_cleaned(line) for line in _render(code).splitlines())
    return "\n".join(line for line in lines if line)


def _render(code: Wikicode | None) -> str:
    return "".join(map(_render_node, code.nodes)) if code is not None else ""


def _render_node(node: Node) -> str:
    """The text a reader sees; nothing for templates, comments, headings and the like."""
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        return _render_link(node)
    if isinstance(node, ExternalLink):
        return _render(node.title)
    if isinstance(node, HTMLEntity):
        return HALF_A_PAIR.sub("\ufffd", str(node.normalize()))
    if isinstance(node, Tag):
        name = str(node.tag).strip().lower()
        if name in DROPPED_TAGS:
            return ""
        if name in LIST_TAGS:
            return LIST_MARK + _render(node.contents)
        if name in LINE_BREAK_TAGS:
            return "\n" + _render(node.contents) + "\n"
        return _render(node.contents)
    return ""


def _render_link(link: Wikilink) -> str:
    """The words of [[target|words]]; files, categories and links to the article in other languages have none."""
    target = str(link.title).strip()
    prefix, has_prefix, rest = target.partition(":")
    if has_prefix and prefix:
        if prefix.strip().lower() in DROPPED_LINK_PREFIXES:
            return ""
        if link.text is None and INTERLANGUAGE_PREFIX.fullmatch(prefix):
            return ""
    return _render(link.text) if link.text is not None else (target if prefix else rest)


def _cleaned(line: str) -> str:
    """One line tidied up; empty if it belongs to a list or to a table that the parser could not make out."""
    if LIST_MARK in line or UNPARSED_TABLE_LINE.match(line):
        return ""
    line = LEFT_OVER_MARKUP.sub("", BEHAVIOR_SWITCH.sub("", line))
    line = SPACES.sub(" ", EMPTY_BRACKETS.sub("", line))
    line = SPACE_BEFORE_MARK.sub(r"\1", SPACE_AFTER_BRACKET.sub("(", line))
    line = line.strip()
    return line if any(character.isalnum() for character in line) else ""
