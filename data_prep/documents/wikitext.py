"""MediaWiki markup -> plain text, one paragraph a line (station 1, in the worker because it is slow).

BERT took "only the text passages" of Wikipedia "and ignores lists, tables, and headers" (Devlin et al. 2019, section
3.1), and so does this: mwparserfromhell parses, and one walk over its nodes keeps running text only. The library's own
strip_code keeps list items, table cells and image captions, and loses the words that templates stand for.

The walk leaves marks in the text, characters that no XML can hold; paragraphs.py reads them.
"""

import functools
import html
import re
from collections.abc import Iterable, Sequence

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.nodes import ExternalLink, HTMLEntity, Node, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

from data_prep.documents import templates
from data_prep.documents.paragraphs import BREAK, INDENT, LIST, LOWERED, MARKS, RAISED, literal, paragraphs
from data_prep.documents.tidy import HOLE
from data_prep.documents.wiki_names import CATEGORY, ENGLISH_NAMESPACES, FILE, LANGUAGE_CODES, MEDIA, SISTER_PROJECTS

DROPPED_TAGS = frozenset({"ref", "references", "math", "chem", "ce", "hiero", "score", "templatedata", "indicator"})
DROPPED_BLOCKS = frozenset({"table", "tr", "td", "th", "gallery", "timeline", "imagemap", "syntaxhighlight"}) | {
    "source", "pre", "graph", "mapframe", "ol", "ul", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "categorytree",
}  # fmt: skip
LIST_TAGS = frozenset({"li", "dt"})  # lines that begin with *, # or ;
LINE_BREAK_TAGS = frozenset({"br", "hr", "p", "div", "center", "blockquote"})
SIMPLE_FORMULA = re.compile(r"[A-Za-z0-9+\-=<>/()., ]{1,30}")  # needs no TeX to be read
FRACTION = re.compile(r"\d+/\d+")

COMMENT_LINE = re.compile(r"^[ \t]*<!--(?:(?!<!--|-->).)*-->[ \t]*\n", re.MULTILINE | re.DOTALL)
# Lines of nothing but links to this article in other languages, or to other wikis, whatever those are called.
INTERLANGUAGE_LINE = re.compile(r"^[ \t]*(?:\[\[[a-z]+(?:-[a-z]+)*:[^\[\]|\n]+\]\][ \t]*)+$", re.MULTILINE)
LANGUAGE_VARIANT = re.compile(r"[a-z]{2,3}-[a-z-]+")  # zh-min-nan, be-x-old and those to come
IMAGE_FILE = re.compile(r".+\.(?:jpe?g|png|svg|gif|tiff?|webp|xcf|djvu|pdf|og[agv]|webm|mp3|wav|mid)", re.IGNORECASE)


def plain_text(markup: str, namespaces: Sequence[tuple[str, int]] = ()) -> str:
    """The running text of an article, one paragraph a line; an empty string if it has none.

    namespaces: (name, number) as the dump's <siteinfo> gives them; the English names are known without it.
    """
    markup = COMMENT_LINE.sub("", MARKS.sub("", markup))
    code = mwparserfromhell.parse(INTERLANGUAGE_LINE.sub("", markup), skip_style_tags=True)
    numbers = _numbers(tuple(namespaces))
    is_english = not namespaces or any(number == FILE and name.lower() == "file" for name, number in namespaces)
    dropped = tuple(name for name, number in numbers.items() if number in (FILE, CATEGORY, MEDIA))
    return "\n".join(paragraphs(_Renderer(numbers, is_english=is_english).render(code), dropped_links=dropped))


@functools.lru_cache(maxsize=8)
def _numbers(namespaces: tuple[tuple[str, int], ...]) -> dict[str, int]:
    return ENGLISH_NAMESPACES | {name.strip().lower(): number for name, number in namespaces if number}


class _Renderer:
    """The walk over the nodes of one article."""

    def __init__(self, namespaces: dict[str, int], *, is_english: bool) -> None:
        self.namespaces = namespaces
        self.is_english = is_english  # short names of templates mean what they mean on the English Wikipedia

    def render(self, code: Wikicode | None) -> str:
        pieces: list[str] = []
        for node in code.nodes if code is not None else ():
            text = self.render_node(node)
            if pieces and isinstance(node, Template) and FRACTION.fullmatch(text) and pieces[-1][-1].isdecimal():
                text = " " + text  # 5{{frac|1|2}} is not 51/2
            if text:
                pieces.append(text)
        return "".join(pieces)

    def render_node(self, node: Node) -> str:
        """The text a reader sees; a mark where something is left out."""
        if isinstance(node, Text):
            return str(node.value)
        if isinstance(node, Wikilink):
            return self.render_link(node)
        if isinstance(node, Tag):
            return self.render_tag(node)
        if isinstance(node, Template):
            return self.render_template(node)
        if isinstance(node, ExternalLink):
            # A reader sees the address only where it stands without brackets.
            return self.render(node.title if node.brackets else node.url) or HOLE
        if isinstance(node, HTMLEntity):
            return literal(html.unescape(str(node)).replace("\n", " "))
        if isinstance(node, nodes.Heading):
            return BREAK
        if isinstance(node, nodes.Argument | nodes.Comment):
            return ""
        return HOLE

    def render_tag(self, tag: Tag) -> str:
        name = str(tag.tag).strip().lower()
        if name == "math" and tag.contents is not None:
            formula = str(tag.contents).strip(" \n~.")
            return literal(formula) if SIMPLE_FORMULA.fullmatch(formula) else HOLE
        if name in DROPPED_TAGS:
            return HOLE
        if name in DROPPED_BLOCKS:
            return BREAK
        if name in LIST_TAGS:
            return LIST + self.render(tag.contents)
        if name == "dd":
            return INDENT + self.render(tag.contents)
        if name == "nowiki":
            return literal(self.render(tag.contents))
        if name == "sup":
            return RAISED + self.render(tag.contents)
        if name == "sub":
            return LOWERED + self.render(tag.contents)
        if name == "poem":
            return BREAK + BREAK.join(_without_lists(self.render(tag.contents))) + BREAK
        if name in LINE_BREAK_TAGS:
            inside = self.render(tag.contents)
            # What follows the block is no part of a list within it.
            return BREAK + inside + (BREAK + "\n" if LIST in inside.rpartition("\n")[2] else BREAK)
        return self.render(tag.contents)

    def render_link(self, link: Wikilink) -> str:
        """The words of [[target|words]]; files, categories and links to the article in other languages have none."""
        target = self.render(link.title).strip()
        prefix, has_prefix, rest = target.partition(":")
        name = " ".join(prefix.replace("_", " ").split()).lower()
        if has_prefix and name:
            number = self.namespaces.get(name)
            if number in (FILE, CATEGORY, MEDIA) or IMAGE_FILE.fullmatch(rest.strip()):
                return HOLE
            if link.text is None and (number is not None or _is_language(prefix)):
                return HOLE  # [[Template:x]], [[de:x]]: furniture
            if name in SISTER_PROJECTS:
                target = rest.rpartition(":")[2]
        words = self.render(link.text)
        return words if words else rest if has_prefix and not name else target.lstrip("#")

    def render_template(self, template: Template) -> str:
        """The words that a template of the table stands for; a mark for any other."""
        name = " ".join(self.render(template.name).replace("_", " ").split())
        function, is_call, argument = name.partition(":")
        if is_call and (change := templates.FUNCTIONS.get(function.strip().lower())):
            return change(argument.strip()) or HOLE
        name = name.lower()
        words = templates.words_for(name, is_english=self.is_english)
        if words is None and name not in templates.QUOTES:
            return HOLE
        positional, named = self.arguments_of(template)
        if words is None:
            quoted = positional[0] if positional else named.get("text") or named.get("quote") or ""
            return BREAK + quoted + BREAK
        text = words(positional, named)
        return HOLE if text is None else text if positional or named else literal(text)

    def arguments_of(self, template: Template) -> tuple[list[str], dict[str, str]]:
        """Positional and named arguments as text on one line; {{x|2=b|1=a}} counts as positional."""
        positional: dict[int, str] = {}
        named: dict[str, str] = {}
        count = 0
        for parameter in template.params:
            value = " ".join(" ".join(_without_lists(self.render(parameter.value))).split())
            if not parameter.showkey:
                count += 1
                positional[count] = value
                continue
            key = str(parameter.name).strip()
            if key.isascii() and key.isdecimal() and len(key) < 3:
                positional[int(key)] = value
            else:
                named[key.lower()] = value
        return _until_empty(positional[number] for number in sorted(positional)), named


def _without_lists(rendered: str) -> list[str]:
    """The lines of what stands inside a tag or template, which becomes part of one line; a mark for those of lists."""
    return [BREAK if LIST in line else line for line in rendered.split("\n")]


def _until_empty(values: Iterable[str]) -> list[str]:
    """Without empty values at the end."""
    found = list(values)
    while found and not found[-1]:
        found.pop()
    return found


def _is_language(prefix: str) -> bool:
    """Whether [[prefix:...]] names a language's Wikipedia; upper case (ISO: x) and spaces (Star Trek: x) do not."""
    return prefix in LANGUAGE_CODES or LANGUAGE_VARIANT.fullmatch(prefix) is not None
