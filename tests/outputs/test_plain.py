"""Configurations as plain trees: what is compared is what the command line would write."""

from dataclasses import dataclass
from enum import Enum

from bert_lamb.outputs.plain import differing_keys, flatten, to_plain


class Colour(Enum):
    red = "r"


@dataclass
class Inner:
    sizes: tuple[int, ...]
    colour: Colour


@dataclass
class Outer:
    inner: Inner
    by_name: dict[str, Inner]


def test_dataclasses_enums_and_tuples_become_plain():
    inner = Inner((1, 2), Colour.red)
    plain = to_plain(Outer(inner, {"a": inner}))
    assert plain == {"inner": {"sizes": [1, 2], "colour": "r"}, "by_name": {"a": {"sizes": [1, 2], "colour": "r"}}}
    assert flatten(plain) == {
        "inner.sizes": [1, 2],
        "inner.colour": "r",
        "by_name.a.sizes": [1, 2],
        "by_name.a.colour": "r",
    }


def test_keys_that_differ_are_dotted_and_an_absent_one_differs_from_null():
    then = {"a": {"b": 1, "c": None}, "d": [1], "e": None}
    now = {"a": {"b": 2, "c": None}, "d": [1]}
    assert differing_keys(then, now) == ["a.b", "e"]
    assert differing_keys(then, then) == []
