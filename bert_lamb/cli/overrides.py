"""What is typed on the command line, made ready for Hydra's grammar: a text stays what was typed.

Hydra reads every value as if it were untyped: 2024_05_01 is the number 20240501, a comma a sweep, é no character. The
schema knows better. Before Hydra sees the words, the value of every key that the schema types as text is quoted, and
entries of a mapping (sources, phases, scores ...) that no file has are declared. What remains Hydra's, in texts too:

    'a text', "a text"          quotes around the whole value are taken off; only needed for what this list names
    ${oc.env:HOME}/x            interpolations
    \\, \\= \\( \\ ...              Hydra's escapes
    a,b under -m                one run each; choice(a,b), sort(), shuffle(), glob(), range() and the other functions
    null                        None where a field may be None (vocabulary.file, train_file, share ...), else the text
    key=                        the empty text
"""

import re
import shlex
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from bert_lamb.errors import UserError, UserErrors

ENTRY_GROUP, ENTRY_OPTION = "entry", "of_the_command_line"
FLAGS_WITH_VALUE = {"-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"}
FLAGS_WITH_VALUE |= {"-cd", "--config-dir", "--experimental-rerun"}
FUNCTIONS_OF_ELEMENTS = {"choice", "sort", "shuffle"}  # of Hydra's grammar; their arguments are values of the key
OTHER_FUNCTIONS = {"str", "int", "float", "bool", "range", "interval", "tag", "glob"}
_WORD = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[^=@/+~]+)=(?P<value>.*)", re.DOTALL)
_QUOTED = re.compile(r"""'(\\.|[^'\\])*'|"(\\.|[^"\\])*\"""", re.DOTALL)
_FUNCTION = re.compile(r"(\w+)\s*\((.*)\)", re.DOTALL)
_ESCAPE = re.compile(r"\\([\\()\[\]{}:=, \t])")
_OPENING, _CLOSING = "([{", ")]}"


def type_at(hint: Any, names: Sequence[str]) -> Any:
    """The type that the schema gives to a dotted key, or None where it has no such key; Any below an Any."""
    for name in names:
        if is_dataclass(hint):
            default = getattr(hint.__dataclass_fields__.get(name), "default_factory", None)
            hint = get_type_hints(hint).get(name)
            if hint is Any and default is dict:  # a mapping that a word may stand for
                hint = dict[str, Any]
        elif get_origin(hint) is dict:
            hint = get_args(hint)[1]
        elif hint is not Any:
            return None
    return hint


def is_text(hint: Any) -> bool:
    return hint is str or is_optional_text(hint)


def is_optional_text(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and set(get_args(hint)) == {str, type(None)}


def make_ready(schema: type[Any], words: Sequence[str]) -> list[str]:
    """The words as Hydra is to read them; the entries of mappings that they name are declared in Hydra's store.

    schema: the command's dataclass. Raises UserErrors for words whose value Hydra's grammar refuses, with the quoting
    that it accepts.
    """
    is_sweep = _is_sweep(words)
    ready: list[str] = []
    flags: list[str] = []  # and their values; they come last, since Hydra wants the overrides side by side
    entries: dict[str, Any] = {}
    complaints: list[UserError] = []
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-") or before in FLAGS_WITH_VALUE:
            flags.append(word)
            continue
        found = _WORD.fullmatch(word)
        ready.append(_ready_word(schema, found, entries, is_sweep=is_sweep) if found else word)
        if found and (complaint := _complaint(word, ready[-1], found)):
            complaints.append(complaint)
    if complaints:
        raise UserErrors(complaints)
    return [*ready, *_declare(entries), *flags]


def _declare(entries: dict[str, Any]) -> list[str]:
    """Let Hydra merge `entries` after all files, so that they are the last of their mappings; the words that ask so.

    entries: a tree of empty mappings. OmegaConf makes a dataclass of such a one in a file, but not on the command line.
    """
    from hydra.core.config_store import ConfigStore

    if not entries:
        return []
    ConfigStore.instance().store(group=ENTRY_GROUP, name=ENTRY_OPTION, node=entries, package="_global_")
    return [f"+{ENTRY_GROUP}={ENTRY_OPTION}"]


def without_ours(words: Sequence[str]) -> list[str]:
    """The words without those that make_ready has added."""
    return [word for word in words if word != f"+{ENTRY_GROUP}={ENTRY_OPTION}"]


def quoted(text: str) -> str:
    """The text as a quoted value of Hydra's grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if "${" in text and not _has_whole_interpolations(text):
        text = text.replace("${", "\\${")
    quote = Quote.single if '"' in text else Quote.double
    return QuotedString(text, quote).with_quotes()


def _has_whole_interpolations(text: str) -> bool:
    """Whether OmegaConf can read every `${` in it; where it cannot, the two characters are meant."""
    from omegaconf.errors import OmegaConfBaseException
    from omegaconf.grammar_parser import parse

    try:
        parse(text)
    except OmegaConfBaseException:
        return False
    return True


def _is_sweep(words: Sequence[str]) -> bool:
    asks = ("spread=", "+spread=", "hydra.mode=multirun", "hydra.mode=hydra.types.runmode.multirun")
    return any(word in ("-m", "--multirun") or word.lower().startswith(asks) for word in words)


def _ready_word(schema: type[Any], found: "re.Match[str]", entries: dict[str, Any], *, is_sweep: bool) -> str:
    prefix, key, value = found["prefix"], found["key"], found["value"]
    names = key.split(".")
    hint = type_at(schema, names)
    if hint is None:
        return found.group()
    mappings = [depth for depth in range(1, len(names)) if get_origin(type_at(schema, names[:depth])) is dict]
    for depth in mappings:
        if is_dataclass(type_at(schema, names[: depth + 1])):
            _declare_in(entries, names[: depth + 1])
    if mappings or get_origin(hint) is dict:
        is_field = is_dataclass(type_at(schema, names[:-1])) and get_origin(hint) is not dict
        prefix = "" if is_field else "++"
    if not value:
        return f"{prefix}{key}="
    return f"{prefix}{key}={_ready_value(hint, value, names, entries, is_sweep=is_sweep)}"


def _declare_in(entries: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        entries = entries.setdefault(name, {})


def _ready_value(hint: Any, value: str, names: list[str], entries: dict[str, Any], *, is_sweep: bool) -> str:
    """The value in Hydra's grammar: texts quoted, also inside of lists and mappings; all else as it is."""

    def each(text: str) -> str:
        return _ready_value(hint, text, names, entries, is_sweep=False)

    stripped = value.strip()
    if is_sweep and (is_text(hint) or is_dataclass(hint) or get_origin(hint) in (dict, list)):
        elements = [element.strip() for element in split_at_commas(stripped)]
        if len(elements) > 1:
            return ",".join(map(each, elements))
    if is_text(hint):
        return _ready_text(value, stripped, each, is_optional=is_optional_text(hint))
    if stripped.startswith("{") and stripped.endswith("}") and (is_dataclass(hint) or get_origin(hint) is dict):
        pairs = list(_pairs(stripped[1:-1]))
        if not all(separator for _, separator, _ in pairs):
            return value
        return "{" + ",".join(name + ":" + _ready_pair(hint, name, one, names, entries) for name, _, one in pairs) + "}"
    if stripped.startswith("[") and stripped.endswith("]") and get_origin(hint) is list and is_text(get_args(hint)[0]):
        hint = get_args(hint)[0]
        inside = stripped[1:-1].strip()
        return "[" + ",".join(each(one.strip()) for one in split_at_commas(inside)) + "]" if inside else "[]"
    return value


def _ready_pair(hint: Any, name: str, value: str, names: list[str], entries: dict[str, Any]) -> str:
    below = type_at(hint, [name])
    if get_origin(hint) is dict and is_dataclass(below):
        _declare_in(entries, [*names, name])
    return _ready_value(below, value, [*names, name], entries, is_sweep=False)


def _ready_text(value: str, stripped: str, each: Callable[[str], str], *, is_optional: bool) -> str:
    if _QUOTED.fullmatch(stripped):
        return value
    if stripped[:1] in ("'", '"') and len(stripped) > 1 and stripped[-1] == stripped[0]:
        return value  # such as 'a','b': Hydra says that this is a sweep
    if is_optional and stripped.lower() == "null":
        return value
    call = _FUNCTION.fullmatch(stripped)
    if call and call[1] in FUNCTIONS_OF_ELEMENTS:
        elements = [element.strip() for element in split_at_commas(call[2])]
        return f"{call[1]}({','.join(one if re.match('reverse *=', one) else each(one) for one in elements)})"
    if call and call[1] in OTHER_FUNCTIONS:
        return value
    return quoted(_ESCAPE.sub(r"\1", value))


def _pairs(inside: str) -> Iterator[tuple[str, str, str]]:
    """name, colon, value of each pair of a mapping in Hydra's grammar."""
    for pair in split_at_commas(inside) if inside.strip() else []:
        name, separator, value = pair.partition(":")
        yield name.strip(), separator, value.strip()


def split_at_commas(text: str) -> list[str]:
    """The text cut at commas that are not escaped, quoted, in an interpolation or in a pair of brackets."""
    is_balanced = _is_balanced(text)
    parts, start, position, depth = [], 0, 0, 0
    while position < len(text):
        is_at_start = not text[start:position].strip() or text[position - 1] in ":[{(,"
        if text[position] == "\\":
            position += 2
        elif is_at_start and (found := _QUOTED.match(text, position)):
            position = found.end()
        elif text.startswith("${", position) and "}" in text[position:]:
            position = _end_of_interpolation(text, position)
        else:
            if text[position] == "," and depth == 0:
                parts.append(text[start:position])
                start = position + 1
            elif is_balanced:
                depth += (text[position] in _OPENING) - (text[position] in _CLOSING)
            position += 1
    return [*parts, text[start:]]


def _end_of_interpolation(text: str, position: int) -> int:
    depth = 0
    for here in range(position, len(text)):
        depth += (text[here] == "{") - (text[here] == "}")
        if depth == 0 and text[here] == "}":
            return here + 1
    return len(text)


def _is_balanced(text: str) -> bool:
    expected: list[str] = []
    for character in _ESCAPE.sub("", text):
        if character in _OPENING:
            expected.append(_CLOSING[_OPENING.index(character)])
        elif character in _CLOSING and (not expected or expected.pop() != character):
            return False
    return not expected


def _complaint(typed: str, ready: str, found: "re.Match[str]") -> UserError | None:
    """What Hydra's grammar refuses in a word, and how it would be accepted."""
    try:
        if _is_readable(ready):
            return None
    except ValueError as error:  # of Python, for a number of thousands of digits
        return UserError(found=typed, expected=f"a number that can be read ({error})", fix=f"set {found['key']}")
    with_quotes = f"{found['prefix']}{found['key']}={quoted(found['value'])}"
    if not _is_readable(with_quotes):
        return UserError(
            found=f"{typed}, which Hydra cannot read",
            expected="KEY=VALUE, with keys of the letters a to z, digits, _, - and dots",
            fix="use such a key, or see https://hydra.cc/docs/advanced/override_grammar/basic",
        )
    return UserError(
        found=f"{typed}, which Hydra cannot read",
        expected="a value in quotes, since it holds characters that mean something to Hydra",
        fix=f"type {shlex.quote(with_quotes)}",
    )


def _is_readable(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_overrides([word])
    except HydraException:
        return False
    return True
