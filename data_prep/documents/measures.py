"""Templates of numbers, units, dates and money -> the words a reader sees (part of templates.py's table).

Nothing is computed: of a conversion the value and unit that the author wrote stay. Each function gets the positional
arguments and the named ones, as plain text, and gives the words, or None where they cannot be known from the text.
"""

# ruff: noqa: RUF001, SIM905 (signs as they stand in articles)
import re
from collections.abc import Mapping, Sequence

NUMBER = re.compile(r"[+\-−]?\d[\d.,]*(?:[ +]\d+[/⁄]{1,2}\d+)?(?:e[+\-]?\d+)?|[+\-−]?\d+[/⁄]{1,2}\d+")
EXPONENT = re.compile(r"[+\-−–]?\d+(?:[.,]\d+)?")
RANGES = {"to": "to", "to(-)": "to", "to about": "to about", "and": "and", "and(-)": "and", "or": "or", "-": "–"} | {
    "–": "–", "by": "by", "x": "×", "×": "×", "*": "×", "xx": "×", "by(-)": "by", "+/-": "±", "±": "±", "+": "+",
}  # fmt: skip
SECOND_UNIT = {("ft", "in"), ("yd", "ft"), ("yd", "in"), ("mi", "yd"), ("mi", "ft"), ("mi", "chain"), ("lb", "oz")} | {
    ("st", "lb"), ("LT", "cwt"), ("ST", "lb"), ("foot", "in"), ("m", "cm"),
}  # fmt: skip
UNITS = {
    "C": "°C", "F": "°F", "C-change": "°C", "F-change": "°F", "acre": "acres", "sqmi": "sq mi", "sqft": "sq ft",
    "sqin": "sq in", "sqyd": "sq yd", "ft2": "sq ft", "mi2": "sq mi", "in2": "sq in", "ft3": "cu ft", "cuft": "cu ft",
    "in3": "cu in", "cuin": "cu in", "yd3": "cu yd", "cuyd": "cu yd", "cumi": "cu mi", "mi3": "cu mi",
    "USgal": "US gal", "impgal": "imp gal", "USoz": "US fl oz", "oilbbl": "barrels", "oilbbl/d": "barrels per day",
    "LT": "long tons", "ST": "short tons", "MT": "metric tons", "carat": "carats", "PD/sqmi": "people per sq mi",
    "PD/km2": "people per km2", "/sqmi": "per sq mi", "/km2": "per km2", "foot": "ft", "lbf": "lbf", "st": "stone",
    "ft/s": "ft/s", "u": "u", "kn": "knots", "knot": "knots", "chain": "chains", "hp": "hp", "bhp": "bhp",
}  # fmt: skip
MULTIPLES = {"e3": "thousand", "e6": "million", "e9": "billion", "e12": "trillion"} | {
    "k": "thousand", "M": "million", "G": "billion", "T": "trillion",
}  # fmt: skip
RUPEES = {
    "k": "thousand",
    "l": "lakh",
    "m": "million",
    "c": "crore",
    "b": "billion",
    "t": "trillion",
    "lc": "lakh crore",
}
MULTIPLIED_UNIT = re.compile(r"(e3|e6|e9|e12)(.+)|([kMGT])(oilbbl.*|cuft.*)")
NO_INPUT_SHOWN = re.compile(r"out.*|number|table.*|unit.*|x\|.*")  # values of disp= that show other than what is given
MONTHS = "January February March April May June July August September October November December".split()

Arguments = Sequence[str]
Named = Mapping[str, str]


def convert(args: Arguments, named: Named) -> str | None:
    """{{convert|10|to|30|km|mi}} -> 10 to 30 km; {{convert|6|ft|4|in|cm}} -> 6 ft 4 in."""
    if not args or NO_INPUT_SHOWN.fullmatch(named.get("disp", "")):
        return None
    words, rest = [args[0]], list(args[1:])
    while len(rest) >= 2 and rest[0] in RANGES:
        words += [RANGES[rest[0]], rest[1]]
        rest = rest[2:]
    if rest:
        words.append(unit(rest[0]))
    if len(rest) >= 3 and (rest[0], rest[2]) in SECOND_UNIT and NUMBER.fullmatch(rest[1]):
        words += [rest[1], unit(rest[2])]
    return " ".join(words).replace(" – ", "–").replace("//", "/")


def unit(code: str) -> str:
    """A unit as written: "sq mi" for sqmi, "million acres" for e6acre; most codes are their own sign."""
    if code not in UNITS and (match := MULTIPLIED_UNIT.fullmatch(code)):
        multiple, of = (match[1], match[2]) if match[1] else (match[3], match[4])
        return f"{MULTIPLES[multiple]} {unit(of)}"
    return UNITS.get(code, code)


def value(args: Arguments, named: Named) -> str | None:
    """{{val|6.24|0.03|e=18|u=C}} -> 6.24±0.03×10^18 C."""
    if not args:
        return None
    text = args[0]
    if len(args) > 1:
        text += args[1] if args[1].startswith("(") else f"±{args[1]}"
    text += f"×10^{named['e']}" if named.get("e") else ""
    sign = named.get("u") or named.get("ul") or ""
    return f"{named.get('p', '')}{text}" + (f" {sign}" if sign else "") + named.get("s", "")


def fraction(args: Arguments, named: Named) -> str | None:
    """{{frac|3}} -> 1/3, {{frac|3|4}} -> 3/4, {{frac|2|3|4}} -> 2 3/4."""
    if not args:
        return None
    parts = ["1", args[0]] if len(args) == 1 else list(args[-2:])
    return (f"{args[0]} " if len(args) > 2 else "") + "/".join(parts)


def power_of_ten(args: Arguments, named: Named) -> str | None:
    """5{{e|24}} -> 5×10^24; None without a number, as other wikis call other things so."""
    return f"×10^{args[0]}" if args and EXPONENT.fullmatch(args[0]) else None


def rupees(args: Arguments, named: Named) -> str | None:
    """{{INRConvert|5|c}} -> ₹5 crore; None for a multiple that is not known, as the number alone would be wrong."""
    multiple = args[1] if len(args) > 1 else ""
    if not args or (multiple and multiple not in RUPEES):
        return None
    return f"₹{args[0]}" + (f" {RUPEES[multiple]}" if multiple else "")


def circa(args: Arguments, named: Named) -> str:
    return " – ".join(f"c. {year}" for year in args) if args else "c."


def date(args: Arguments, named: Named) -> str | None:
    """{{birth date|1900|2|3}} -> February 3, 1900; with df=yes 3 February 1900."""
    numbers = args[:3]
    if not numbers or not all(part.isdecimal() for part in numbers):
        return args[0] if args else None  # {{start date and age|3 February 1900}}
    month = MONTHS[int(numbers[1]) - 1] if len(numbers) > 1 and 1 <= int(numbers[1]) <= 12 else None
    if month is None:
        return numbers[0]
    if len(numbers) == 2:
        return f"{month} {numbers[0]}"
    day = str(int(numbers[2]))
    return f"{day} {month} {numbers[0]}" if named.get("df") else f"{month} {day}, {numbers[0]}"


def as_of(args: Arguments, named: Named) -> str | None:
    """{{as of|2015|6|30}} -> As of 30 June 2015; lc=y makes it "as of", since=y "Since"."""
    if named.get("alt"):
        return named["alt"]
    when = date(args, {"df": "yes"} if named.get("df", "").lower() != "us" else {})
    if when is None:
        return None
    words = "Since" if named.get("since") else "As of"
    return f"{words.lower() if named.get('lc') else words} {when}"


def old_style_date(args: Arguments, named: Named) -> str | None:
    """{{OldStyleDate|February 2|1905|January 20}} -> February 2 [O.S. January 20] 1905."""
    return f"{args[0]} [O.S. {args[2]}] {args[1]}" if len(args) > 2 else None


def height(args: Arguments, named: Named) -> str | None:
    found = [f"{named[name]} {name}" for name in ("ft", "in", "m", "cm") if named.get(name)]
    return " ".join(found) or None


def gauge(args: Arguments, named: Named) -> str | None:
    """{{track gauge|1435mm}} -> 1435 mm."""
    return re.sub(r"(?<=\d)(?=[a-z])", " ", args[0]) if args else None


def ordinal(args: Arguments, named: Named) -> str | None:
    if not args or not args[0].isdecimal():
        return None
    last_two = int(args[0]) % 100
    ending = "th" if 10 < last_two < 14 else {1: "st", 2: "nd", 3: "rd"}.get(last_two % 10, "th")
    return args[0] + ending
