"""Numbers at the door: nan is no setting, and infinity only an upper bound."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from bert_lamb.errors import UserError


def not_finite(config: Any) -> list[UserError]:
    """A complaint for every float of a command's configuration that would make nonsense of all that it touches."""
    return [
        UserError(found=f"{key}={value}", expected="a finite number", fix=f"set {key}")
        for key, value in _floats(config)
        if math.isnan(value) or (math.isinf(value) and not key.endswith("_bounds"))
    ]


def _floats(holder: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(holder, float):
        yield key, holder
    elif is_dataclass(holder):
        for field in fields(holder):
            yield from _floats(getattr(holder, field.name), f"{key}.{field.name}".lstrip("."))
    elif isinstance(holder, dict):
        for name, value in holder.items():
            yield from _floats(value, f"{key}.{name}")
    elif isinstance(holder, list | tuple):
        for value in holder:
            yield from _floats(value, key)
