"""Configurations as plain values: for JSON and YAML, with dotted keys, and compared."""

from dataclasses import asdict, is_dataclass
from enum import Enum
from typing import Any


def to_plain(value: Any) -> Any:
    """Dataclasses to dicts, enums to their values and tuples to lists, through dicts and lists."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one with dotted keys, as the command line writes them."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def differing_keys(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The dotted keys whose values differ between two plain trees, sorted; an absent key differs from every value."""
    before, after = flatten(then), flatten(now)
    absent = object()
    return sorted(key for key in before.keys() | after.keys() if before.get(key, absent) != after.get(key, absent))
