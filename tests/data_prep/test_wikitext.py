"""What a page of a wiki says, line by line: the right text of each case is written down.

Mutations that must turn it red: a line end that ends a sentence, a namespace known by its English name only, an entity
parsed again, a template's words lost.
"""

# ruff: noqa: RUF001 (typographic signs are meant)

import bz2

import pytest

from data_prep.documents.cleaning import PLAIN_TEXT
from data_prep.documents.tidy import tidy
from data_prep.documents.wikitext import plain_text
from data_prep.sources import KINDS, WIKITEXT, Document, Source, read_documents

PARAGRAPHS = {
    "a line end is a space": ("One sentence\ngoes on\nhere.", ["One sentence goes on here."]),
    "an empty line ends it": ("One.\n\nTwo.\n \t\nThree.", ["One.", "Two.", "Three."]),
    "a heading": ("One\n== Head ==\ntwo", ["One", "two"]),
    "a list": ("One\n* item\n# item\ntwo\nthree", ["One", "two three"]),
    "a break in a list": ("One\n* item<br>of two lines\ntwo", ["One", "two"]),
    "a list of html": ("One\n<ul><li>item</li>\n<li>item</li></ul>\ntwo", ["One", "two"]),
    "a table": ("One\n{|\n! a !! b\n|-\n| c || d\n|}\ntwo", ["One", "two"]),
    "a table that is not closed": ("One\n{| class=x\n! head\n| cell", ["One"]),
    "an indented line": ("One\n: a formula\ntwo", ["One", "a formula", "two"]),
    "a line that begins with a space": ("One\n as typed\ntwo", ["One", "as typed", "two"]),
    "a break": ("One<br>two<br />\nthree", ["One", "two", "three"]),
    "blocks": ("One<div>two</div>three\n<blockquote>four\nfive</blockquote>", ["One", "two", "three", "four five"]),
    "a poem": ("<poem>One\ntwo</poem>", ["One", "two"]),
    "a picture of its own": ("One\n[[File:A.png|thumb|A caption]]\ntwo", ["One", "two"]),
    "a template of its own": ("One\n{{Infobox\n| a = b\n}}\ntwo", ["One", "two"]),
    "a comment of its own": ("One\n<!-- left\nout -->\ntwo", ["One two"]),
    "a note of its own line's end": ("One<ref>a\n\nb</ref>\ntwo", ["One two"]),
    "a quotation": ("He wrote:\n{{quote|It is\nso.|Name}}\nThen", ["He wrote:", "It is so.", "Then"]),
    "a list in a quotation": ("He: {{quote|It is:\n* item\n* item\nSo.}} Then", ["He:", "It is:", "So.", "Then"]),
    "a list ends a quotation": ("He: {{quote|text=It is:\n* item\n}}Then", ["He:", "It is:", "Then"]),
    "a list in a template": ("One {{small|two\n* item\nthree}} four\nfive", ["One two", "three four five"]),
    "a star in a poem": ("He: <poem>One\n* two\nthree</poem> Then", ["He:", "One", "three", "Then"]),
    "a star ends a poem": ("He: <poem>One\n* two</poem> Then", ["He:", "One", "Then"]),
    "a list in a block": ("<blockquote>One\n* item</blockquote> Then", ["One", "Then"]),
    "a quotation in a list": ("One\n* item {{quote|two}} three\nfour", ["One", "four"]),
    "a click, no table": ("The\n!Kung live.\n'''!Kung''' is spoken.", ["The !Kung live. !Kung is spoken."]),
}  # fmt: skip


@pytest.mark.parametrize(("markup", "expected"), PARAGRAPHS.values(), ids=PARAGRAPHS)
def test_where_a_paragraph_ends(markup, expected):
    assert plain_text(markup).split("\n") == expected


LINKS = [
    ("a [[b]] c", "a b c"),
    ("a [[b|c]]s d", "a cs d"),
    ("a [[File:x.png|thumb|words]] b", "a b"),
    ("a [[image : x.png]] b", "a b"),
    ("a [[Bild:X.jpg|mini|words]] b", "a b"),  # an alias that no <siteinfo> has
    ("a [[:Category:B]] c", "a Category:B c"),
    ("a [[Category:B]] c", "a c"),
    ("a [[Template:B]] [[User talk:B]] c", "a c"),
    ("a [[Wikipedia:B|b]] c", "a b c"),
    ("a [[de:B]] [[simple:B]] [[zh-min-nan:B]] [[be-x-old:B]] [[roa-rup:B]] [[map-bms:B]] c", "a c"),
    ("a [[Star Trek: Voyager]] b", "a Star Trek: Voyager b"),
    ("a [[ISO: x]] b", "a ISO: x b"),
    ("a [[re:publica]] b", "a re:publica b"),  # re is no language
    ("a [[wikt:word]] [[w:de:Haus]] b", "a word Haus b"),
    ("a\n[[newlanguage:B]]\n[[x-y:B]] [[fr:C]]", "a"),
    ("a [[Foo&nbsp;bar]] b", "a Foo bar b"),
    ("a [[#Part]] b", "a Part b"),
    ("a [http://x.org words] b", "a words b"),
    ("a http://x.org/y b", "a http://x.org/y b"),
    ("a\n\nhttp://x.org/y", "a"),
    ("a [[File:x.png|thumb|never closed\n\nb", "a\nb"),
]


@pytest.mark.parametrize(("markup", "expected"), LINKS)
def test_links(markup, expected):
    assert plain_text(markup) == expected


LITERAL = [
    ("The &lt;b&gt; tag", "The <b> tag"),
    ("&amp;nbsp; &amp;lt;i&amp;gt;", "&nbsp; &lt;i&gt;"),
    ("it&#x27;s &#39;&#39;so&#39;&#39;", "it's ''so''"),
    ("&#91;&#91;x&#93;&#93; &#123;&#123;y&#125;&#125;", "[[x]] {{y}}"),
    ("&#124; a &#95;&#95;TOC&#95;&#95;", "| a __TOC__"),
    ("<nowiki>''[[x]]''</nowiki>", "''[[x]]''"),
    ("if x<y and z>w then", "if x<y and z>w then"),
    ("&nbsp;a&thinsp;b&#10;c", "a b c"),
    ("f() and main(int x) and ( ) end", "f() and main(int x) and end"),
    ("''Eagle'''s wing", "Eagle's wing"),
    ("'''Apple''''s", "Apple's"),
    ("'''''x''''' ''y'' '''z'''s", "x y zs"),
    (
        "10<sup>9</sup> 5<sup>−3</sup> m<sup>2</sup> 20<sup>th</sup> H<sub>2</sub>O 20<sub>16</sub>",
        "10^9 5^−3 m2 20th H2O 20_16",
    ),
    ("<math>x</math> is <math>a = b</math> not <math>\\frac{1}{2}</math>", "x is a = b not"),
]


@pytest.mark.parametrize(("markup", "expected"), LITERAL)
def test_what_is_text_stays_text(markup, expected):
    assert plain_text(markup) == expected


TEMPLATES = [
    ("{{convert|12|km2}}", "12 km2"),
    ("{{Convert|10|to|30|km|mi|abbr=on}}", "10 to 30 km"),
    ("{{convert|15|–|17|in}}", "15–17 in"),
    ("{{convert|8|-|12|km}}", "8–12 km"),
    ("{{convert|2|by|3|by|4|m|ft}}", "2 by 3 by 4 m"),
    ("{{convert|6|ft|4|in|cm|0}}", "6 ft 4 in"),
    ("{{convert|5|mi|km|0|adj=on}}", "5 mi"),
    ("{{cvt|3|sqmi}}", "3 sq mi"),
    ("{{convert|5|e6acre}}", "5 million acres"),
    ("{{convert|12|koilbbl/d|disp=flip}}", "12 thousand barrels per day"),
    ("{{convert|-19|to|22|C|F}}", "-19 to 22 °C"),
    ("{{convert|5|ft|m|disp=output only}}", ""),
    ("{{lang|fr|''le'' mot}}", "le mot"),
    ("{{lang-pt-br|mot}} {{langx|fr|mot}} {{Script/Greek|λ}}", "mot mot λ"),
    ("{{transl|ar|ALA|kitāb}} {{transliteration|ru|mir}}", "kitāb mir"),
    ("{{nowrap|a [[b]]}}", "a b"),
    ("{{small|{{lang|la|in {{nowrap|spe}}}}}}", "in spe"),
    (
        "{{as of|2015|6|30}} {{As of|1999|lc=y}} {{as of|2001|3|df=US}}",
        "As of 30 June 2015 as of 1999 As of March 2001",
    ),
    ("{{circa|1300|1400}} {{c.|55}} {{fl.|900}}", "c. 1300 – c. 1400 c. 55 fl. 900"),
    ("1900{{ndash}}1910{{snd}}a{{mdash}}b", "1900–1910 – a—b"),
    ("5{{nbsp}}km {{spaces|3}} x", "5 km x"),
    ("''Eagle''{{'s}} {{'}}tis", "Eagle's 'tis"),
    ("{{frac|3}} {{frac|3|4}} {{sfrac|2|3|4}}", "1/3 3/4 2 3/4"),
    (
        "5{{frac|1|2}}-inch 5{{fraction|3|4}} {{nowrap|7{{sfrac|1|8}}}} 2<!-- -->{{frac|3}}",
        "5 1/2-inch 5 3/4 7 1/8 2 1/3",
    ),
    ("{{convert|6|ft|4{{frac|1|2}}|in}} {{convert|6{{frac|1|2}}|in}}", "6 ft 4 1/2 in 6 1/2 in"),
    ("10{{sup|9}} 10{{super|−3}} m{{sup|2}} 20{{sup|th}} H{{sub|2}}O 20{{sub|16}}", "10^9 10^−3 m2 20th H2O 20_16"),
    ("{{INRConvert|5|c}} {{INRConvert|3|lc|2}} {{INRConvert|7}} {{INRConvert|8||2}}", "₹5 crore ₹3 lakh crore ₹7 ₹8"),
    ("{{INRConvert|2|b}} of {{INRConvert|5|xyz}}", "₹2 billion of"),
    ("{{val|6.24|0.03|e=18|u=C}} {{formatnum:1234}} 5{{e|24}}", "6.24±0.03×10^18 C 1234 5×10^24"),
    ("{{chem|H|2|O}}", "H2O"),
    ("{{US$|5}} {{USD}} {{GBP|3}} million", "US$5 US$ £3 million"),
    ("44 {{BCE}}", "44 BCE"),
    ("{{sic}} {{sic|teh}} {{sic|teh|hide=y}}", "[sic] teh [sic] teh"),
    ("{{abbr|cf.|confer}} {{font|text=x|a}}", "cf. a"),
    ("{{start date|1990|1|5}} {{birth date|df=yes|1990|1|5}}", "January 5, 1990 5 January 1990"),
    ("{{HMS|Ajax|22|6}} {{USS|Hornet|CV-12|2}} {{ship|SS|Rex}}", "HMS Ajax Hornet SS Rex"),
    ("{{nihongo|English|漢字|romaji}} {{nihongo||漢字|romaji}}", "English (漢字, romaji) romaji (漢字)"),
    ("{{ill|de|Titel|Title}} {{ill|Title|de|Titel}}", "Title Title"),
    ("{{lc:ABC}} {{ucfirst:abc}} {{unknown|words}}", "abc Abc"),
    ("It {{citation needed span|text=was ''the'' first|date=May 2010}}", "It was the first"),
    ("{{lang|de|text=Wort}} {{small|content=a [[b]]}} {{lang|de}} {{nowrap|a|text=b}} {{small|size=9}}", "Wort a b a"),
    ("{{nowrap|1=a=b}} {{lang|2=mot|1=fr}}", "a=b mot"),
]


@pytest.mark.parametrize(("markup", "expected"), TEMPLATES)
def test_templates_that_are_words(markup, expected):
    assert plain_text(f"x {markup}.").removesuffix(".") == f"x {expected}".strip()


BRACKETS = [
    ("A ({{x}}) b", "A b"),
    ("A ({{x}}, {{y}}; ) b", "A b"),
    ("A ( , ; ) b", "A b"),
    ("A ({{lang-el|λ}}, {{IPA-el|l}}; born 1990) b", "A (λ; born 1990) b"),
    ("A (Greek: {{x}}; pronounced {{y}}; 1,000 m) b", "A (1,000 m) b"),
    ("A (; born 1990) b", "A (born 1990) b"),
    ("A (Word {{x}} ) b", "A (Word) b"),
    ("A [{{x}}] b, {{y}}, c {{z}}.", "A b, c."),
    ("A (x<ref>note</ref>) b", "A (x) b"),
    ("A[{{x}}] b[ ], c [] int[] d", "A b, c int[] d"),
    ("{{x}}, which was", "which was"),
]


@pytest.mark.parametrize(("markup", "expected"), BRACKETS)
def test_brackets_that_templates_emptied(markup, expected):
    assert plain_text(markup) == expected


@pytest.mark.parametrize(
    "line", ["One. . . two", "a (b; c), d: e", "f(x, y) [1]", "3:2 (2:1)", "(a) b", "int[] or arr[][]"]
)
def test_a_line_without_holes_is_left_as_it_is(line):
    assert tidy(line) == line


SITEINFO = (
    '<siteinfo><sitename>W</sitename><namespaces><namespace key="0" /><namespace key="6">Datei</namespace>'
    '<namespace key="14">Kategorie</namespace><namespace key="10">Vorlage</namespace>'
    '<namespace key="2">Benutzer</namespace></namespaces></siteinfo>'
)
GERMAN = (
    "[[Datei:Turm|mini|hochkant|Der Turm]]\n'''Ding''' ist eine [[Stadt]] und [[Vorlage:X]] groß.\n\n"
    "[[Kategorie:Ort]]\n[[ datei : Rest|mini|offen"
)


def test_namespaces_of_any_language_come_from_the_dump_s_head(tmp_path):
    """However the dump is cut: each stretch knows them, though the head lies in the first alone."""
    pages = [f"<page><ns>0</ns><id>{n}</id><revision><text>{GERMAN}</text></revision></page>\n" for n in range(40)]
    head, end = f"<mediawiki>\n{SITEINFO}\n", "</mediawiki>"
    (tmp_path / "plain.xml").write_text(head + "".join(pages) + end)
    streams = [head, *("".join(pages[n : n + 4]) for n in range(0, 40, 4)), end]
    (tmp_path / "multistream.xml.bz2").write_bytes(b"".join(bz2.compress(part.encode()) for part in streams))
    for name in ("plain.xml", "multistream.xml.bz2"):
        source = Source("corpus", "mediawiki", str(tmp_path / name))
        for stretch_bytes in (1, 700, 10**9):
            stretches = list(KINDS["mediawiki"].stretches(source, stretch_bytes=stretch_bytes))
            assert (len(stretches) > 2) == (stretch_bytes < 10**9)
            for document in read_documents(source, tuple(reversed(stretches))):
                assert PLAIN_TEXT[WIKITEXT](document) == "Ding ist eine Stadt und groß."


def test_english_names_are_known_on_every_wiki():
    namespaces = (("Datei", 6), ("Kategorie", 14))
    for name in ("Datei", "datei", "File", "Image", "Kategorie", "Category", "Media"):
        document = Document("1", f"a [[{name}:B|c]] d", WIKITEXT, namespaces)
        assert PLAIN_TEXT[WIKITEXT](document) == "a d", name
    assert plain_text("a [[Datei:B|c]] d") == "a c d"  # no name of an English wiki


@pytest.mark.parametrize(
    ("markup", "english", "french"),
    [
        ("XIX{{e}} s.", "XIX s.", "XIX s."),
        ("XIX{{e|siècle}} s.", "XIX s.", "XIX s."),
        ("5{{e|24}} s.", "5×10^24 s.", "5 s."),
        ("v. {{ca}} l. {{sp}} m. {{ms}}", "v. c. l. m.", "v. l. m."),
        ("10{{sup|9}} {{lang|la|mot}} {{nowrap|a b}} {{'}}", "10^9 mot a b '", "10^9 mot a b '"),
    ],
)
def test_short_names_of_templates_are_english_ones(markup, english, french):
    assert plain_text(markup) == plain_text(markup, (("File", 6), ("Category", 14))) == english
    assert plain_text(markup, (("Fichier", 6), ("Catégorie", 14))) == french
