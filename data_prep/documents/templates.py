"""Templates that are words of running text -> the words a reader sees: a table by name (station 1, for wikitext.py).

Names and meaning are those of the English Wikipedia, whose templates are widely copied; other wikis share some of them.
A template that is not here (infoboxes, notes, navigation, citations, pronunciations, coordinates) leaves nothing.
"""

# ruff: noqa: RUF001, SIM905 (signs as they stand in articles)
import re
from collections.abc import Callable, Mapping, Sequence

from data_prep.documents import measures
from data_prep.documents.paragraphs import LOWERED, RAISED

Arguments = Sequence[str]
Named = Mapping[str, str]
Words = Callable[[Arguments, Named], str | None]


def _argument(number: int) -> Words:
    """The positional argument of this number, counted from 0, from the end if negative; else the one named text."""

    def words(args: Arguments, named: Named) -> str | None:
        return args[number] if -len(args) <= number < len(args) else named.get("text") or named.get("content")

    return words


def _literal(text: str) -> Words:
    return lambda args, named: text


def _around(before: str, after: str = "") -> Words:
    """The first argument between these; without an argument the one that stands before it alone."""
    return lambda args, named: f"{before}{args[0]}{after}" if args else before.strip()


def _joined(between: str, count: int | None = None) -> Words:
    return lambda args, named: between.join(args[:count]) or None


def _second_or_first(args: Arguments, named: Named) -> str | None:
    return args[1] if len(args) > 1 else args[0] if args else named.get("text")


def _sic(args: Arguments, named: Named) -> str:
    words = "".join(args[:2])
    if named.get("hide", "").lower() in ("y", "yes"):
        return words
    return f"{words} [sic]" if words else "[sic]"


def _ship(args: Arguments, named: Named) -> str | None:
    """{{ship|HMS|Hood|51}} -> HMS Hood; the number in the hull, which most articles hide, is left out."""
    return " ".join(word for word in args[:2] if word) or None


def _navy(prefix: str) -> Words:
    """{{HMS|Ajax|22|6}} -> HMS Ajax; format 2 is the name alone."""
    return lambda args, named: None if not args else args[0] if "2" in args[2:3] else f"{prefix} {args[0]}"


def _ship_class(args: Arguments, named: Named) -> str | None:
    """{{sclass|Essex|aircraft carrier}} -> Essex-class aircraft carrier."""
    return f"{args[0]}-class {args[1]}" if len(args) > 1 else f"{args[0]} class" if args else None


def _nihongo(args: Arguments, named: Named) -> str | None:
    """{{nihongo|English|kanji|romaji}} -> English (kanji, romaji)."""
    english, *japanese = [*args[:3], "", "", ""][:3]
    inside = ", ".join(word for word in japanese if word)
    if not english:
        english, inside = japanese[1], japanese[0]
    return f"{english} ({inside})" if english and inside else english or inside or None


def _chinese(args: Arguments, named: Named) -> str | None:
    """{{zh|t=..|p=..}}: what is given, separated by semicolons."""
    forms = [named[name] for name in ("c", "s", "t", "p", "w", "j", "l") if named.get(name)]
    return "; ".join(dict.fromkeys(forms or args)) or None


def _interlanguage(args: Arguments, named: Named) -> str | None:
    """{{ill|Title|de|Titel}} and the older {{ill|de|Titel|Title}}."""
    if named.get("lt"):
        return named["lt"]
    is_old = len(args) > 1 and re.fullmatch(r"[a-z]{2,3}", args[0]) is not None
    return (args[2] if len(args) > 2 and args[2] else args[1]) if is_old else _argument(0)(args, named)


def _shown_by_key(args: Arguments, named: Named) -> str | None:
    """{{key press|Ctrl|C}} -> Ctrl+C."""
    return "+".join(args) or None


ACCIDENTALS = {"flat": "♭", "b": "♭", "sharp": "♯", "#": "♯", "natural": "♮"}

TEMPLATES: dict[str, Words] = {
    "convert": measures.convert, "cvt": measures.convert, "val": measures.value, "frac": measures.fraction,
    "sfrac": measures.fraction, "fraction": measures.fraction, "e": measures.power_of_ten,
    "esp": measures.power_of_ten, "x10^": measures.power_of_ten, "10^": _around("10^"),
    "circa": measures.circa, "c.": measures.circa, "ca": measures.circa, "ca.": measures.circa,
    "as of": measures.as_of, "oldstyledate": measures.old_style_date, "height": measures.height,
    "ordinal": measures.ordinal, "nth": measures.ordinal, "convinfobox": measures.convert,
    "railgauge": measures.gauge, "track gauge": measures.gauge, "rail gauge": measures.gauge,
    "lang": _argument(1), "rtl-lang": _argument(1), "native name": _argument(1), "native phrase": _argument(1),
    "wikt-lang": _argument(1), "langx": _argument(1), "color": _argument(1), "colour": _argument(1),
    "font color": _argument(1), "resize": _second_or_first, "script": _argument(1), "sort": _second_or_first,
    "transl": _argument(-1), "transliteration": _argument(-1), "tlit": _argument(-1), "ipa": _argument(-1),
    "nihongo": _nihongo, "zh": _chinese, "zh-full": _chinese, "ill": _interlanguage,
    "interlanguage link": _interlanguage, "illm": _interlanguage, "nihongo krt": _nihongo,
    "chem": _joined(""), "chem2": _joined(""), "linktext": _joined(""), "sortname": _joined(" ", 2),
    "bibleref": _joined(" ", 2), "bibleref2": _joined(" ", 2), "bibleverse": _joined(" ", 3),
    "sic": _sic, "ship": _ship, "sclass": _ship_class, "sclass-": _ship_class, "sclass2": _ship_class,
    "sclass2-": _ship_class, "key press": _shown_by_key, "keypress": _shown_by_key,
    "music": lambda args, named: ACCIDENTALS.get(args[0]) if args else None,
    "fl.": _around("fl. "), "floruit": _around("fl. "), "born-in": _around("b. "), "died-in": _around("d. "),
    "reign": lambda args, named: "r. " + "–".join(args), "lit": _around("lit. '", "'"), "gloss": _around("'", "'"),
    "literal translation": _around("lit. '", "'"), "translation": _around("transl. "), "angbr ipa": _argument(0),
    "us$": _around("US$"), "usd": _around("US$"), "a$": _around("A$"), "aud": _around("A$"), "c$": _around("C$"),
    "cad": _around("C$"), "nz$": _around("NZ$"), "hk$": _around("HK$"), "£": _around("£"), "gbp": _around("£"),
    "pound sterling": _around("£"), "€": _around("€"), "eur": _around("€"), "euro": _around("€"),
    "¥": _around("¥"), "jpy": _around("¥"), "cny": _around("CN¥"), "inr": _around("₹"), "indian rupee": _around("₹"),
    "inrconvert": measures.rupees, "₹": _around("₹"), "sfr": _around("SFr "), "chf": _around("CHF "),
}  # fmt: skip
# The first argument, which these only dress.
TEMPLATES |= dict.fromkeys(
    (
        "nowrap, nobr, nobreak, smaller, small, big, bigger, large, larger, huge, sc, smallcaps, smallcaps all, sc2, "
        "allcaps, small caps, nocaps, abbr, abbrlink, tooltip, angbr, angle bracket, vr, vanchor, visible anchor, em, "
        "strong, italics, normal, nobold, nonbold, noitalic, math, mvar, var, code, mono, samp, tt, underline, "
        "overline, strike, strikethrough, del, ins, highlight, font, dfn, polytonic, unicode, hebrew, "
        "arabic, typo, not a typo, not typo, as written, proper name, citation needed span, cn span, clarify span, "
        "nts, number table sorting, flag, flagcountry, flagu, kbd"
    ).split(", "),
    _argument(0),
)
TEMPLATES |= dict.fromkeys(
    (
        "start date, end date, birth date, death date, dts, birth date and age, death date and age, "
        "birth year and age, start date and age, film date, birth-date, death-date, bda"
    ).split(", "),
    measures.date,
)
TEMPLATES |= {"sup": _around(RAISED), "super": _around(RAISED), "sub": _around(LOWERED)}
TEMPLATES |= {prefix.lower(): _navy(prefix) for prefix in ("HMS", "USS", "RMS", "SS", "MV", "MS", "HMAS", "HMCS")}
TEMPLATES |= {era.lower(): _literal(era) for era in ("BCE", "CE", "BC", "AD")}
# Signs.
TEMPLATES |= {
    name: _literal(sign)
    for sign, names in {
        "–": "ndash, en dash, endash, –",
        " – ": "snd, spnd, spaced ndash, spaced en dash, sndash, snds",
        "—": "mdash, em dash, emdash, mdashb, —",
        " — ": "spaced mdash, spaced em dash, smdash",
        " ": "nbsp, space, spaces, thinsp, thin space, hairsp, hair space, nnbsp, pad, gap, sp, indent, em space, ensp",
        "": "shy, zwsp, wbr, zwj, zwnj, nowrap begin, nowrap end, nobr begin, nobr end, anchor",
        "'": "', `",
        "'s": "'s",
        "'\"": "' \", '\"",
        "\"'": "\" ', \"'",
        '"': '-", " "',
        "=": "=, equals, eqm",
        "|": "!",
        "·": "·, dot, middot, dotsep",
        "•": "•, bull, bullet",
        "×": "times",
        "−": "minus",
        "±": "pm, ±",
        "†": "dagger",
        "°": "deg, degree",
        "π": "pi",
        "…": "..., ellipsis",
        "{": "(",
        "}": ")",
        "ʻ": "okina, hamza",
        "?": "dunno, ?",
    }.items()
    for name in names.split(", ")
}
# Quotations are paragraphs of their own.
QUOTES = frozenset({"quote", "blockquote", "cquote", "quotation", "bquote", "rquote", "quote box"})
# Functions of the parser, written {{name:argument}}.
FUNCTIONS: dict[str, Callable[[str], str]] = {
    "formatnum": str.strip,
    "lc": str.lower,
    "uc": str.upper,
    "lcfirst": lambda text: text[:1].lower() + text[1:],
    "ucfirst": lambda text: text[:1].upper() + text[1:],
}
OTHER_LANGUAGE = re.compile(r"lang-[a-z]{2,3}(?:-[a-z-]+)?")  # {{lang-fr|mot}}; the language's name is not written


# Names so short that other wikis use them for something else (the codes of languages above all), and those that they
# share.
SHORT_NAME = re.compile(r"[a-z]{1,3}\d?\.?")
SHARED_SHORT_NAMES = frozenset("sup sub sic val cvt ipa bda ill nts big del ins var kbd dfn deg".split())


def words_for(name: str, *, is_english: bool = True) -> Words | None:
    """How to write the template of this name (lower case, spaces for underscores), or None for what leaves nothing."""
    if not is_english and SHORT_NAME.fullmatch(name) and name not in SHARED_SHORT_NAMES:
        return None
    if OTHER_LANGUAGE.fullmatch(name) or name.startswith("script/"):
        return _argument(0)
    return TEMPLATES.get(name)
