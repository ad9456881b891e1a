"""docs/configuration.md: every key of every command, as the schema has it."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from bert_lamb.cli.main import SUMMARIES
from bert_lamb.config.door import SCHEMAS
from bert_lamb.config.optimizer import CLASSES as OPTIMIZERS

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "configuration.md"
HEAD = """# Configuration

Every key of every command, made from `bert_lamb/config/` by `python -m scripts.docs`; do not edit it. Defaults are
those of the schema; presets and recipes of [conf](../conf/README.md) set others, and `bert-lamb COMMAND ... --cfg job`
prints the values that apply. `required` marks a key without a default. A key of a group is written with a dot,
`runtime.engine=fsdp`, and a key of an entry with the name of the entry in between, `phases.phase1.peak_lr=4e-3`.

Units are in the names and in the last column: steps are optimizer steps, lengths are tokens, batches are sequences.
"""


def page() -> str:
    """The text of docs/configuration.md."""
    commands = "\n".join(
        f"| `{name}` | {SUMMARIES[name]} | [{schema.__name__}](#{anchor(schema)}) |" for name, schema in SCHEMAS.items()
    )
    optimizers = ", ".join(f"[{name}](#{anchor(schema)})" for name, schema in OPTIMIZERS.items())
    parts = [
        HEAD,
        f"| command | what it does | keys |\n|---|---|---|\n{commands}\n",
        f"The group `optimizer` is one of {optimizers}.\n",
        *(section(schema) for schema in schemas()),
    ]
    return "\n".join(parts)


def schemas() -> list[type[Any]]:
    """Each dataclass of the schema once: those of the commands, each followed by the groups that it names first."""
    found: dict[type[Any], None] = {}

    def visit(schema: type[Any]) -> None:
        if schema in found:
            return
        found[schema] = None
        for hint in get_type_hints(schema).values():
            for part in parts_of(hint):
                if is_dataclass(part):
                    visit(part)  # type: ignore[arg-type]

    for schema in [*SCHEMAS.values(), *OPTIMIZERS.values()]:
        visit(schema)
    return list(found)


def parts_of(hint: Any) -> Iterator[Any]:
    """A type and all types inside its brackets."""
    yield hint
    for argument in get_args(hint):
        yield from parts_of(argument)


def anchor(schema: type[Any]) -> str:
    return schema.__name__.lower()


def section(schema: type[Any]) -> str:
    """A heading and the table of a dataclass's keys, those that it inherits first."""
    hints = get_type_hints(schema)
    rows = []
    for name, field in fields_of(schema).items():
        hint = hints[name]
        words = " ".join(part for part in (field.comment, members(hint)) if part)
        rows.append(f"| `{name}` | {type_text(hint)} | {default_text(field.default, hint)} | {escaped(words)} |")
    return f"## {schema.__name__}\n\n| key | type | default | what |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


class FieldSource:
    """A field as it is written: its default as text (None: there is none) and the comment beside or above it."""

    def __init__(self, default: str | None, comment: str) -> None:
        self.default, self.comment = default, comment


def fields_of(schema: type[Any]) -> dict[str, FieldSource]:
    """The fields of a dataclass in their order, as the class that defines each last writes it."""
    found: dict[str, FieldSource] = {}
    for base in reversed(schema.__mro__):
        if is_dataclass(base):
            found |= own_fields(base)  # type: ignore[arg-type]
    return {name: found[name] for name in schema.__dataclass_fields__}


def own_fields(schema: type[Any]) -> dict[str, FieldSource]:
    """The fields that the class itself writes."""
    source = textwrap.dedent(inspect.getsource(schema))
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            default = ast.unparse(statement.value) if statement.value else None
            found[statement.target.id] = FieldSource(default, comment_of(lines, statement))
    return found


def comment_of(lines: list[str], statement: ast.stmt) -> str:
    """The comment at the end of a statement, after those on the lines above it."""
    above = []
    for line in reversed(lines[: statement.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        above.insert(0, line.strip().removeprefix("#").strip())
    assert statement.end_lineno is not None
    last = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode().strip()
    return " ".join([*above, last.removeprefix("#").strip()]).strip()


def members(hint: Any) -> str:
    """What the comments beside the members of an enumeration say."""
    said = []
    for part in parts_of(hint):
        if inspect.isclass(part) and issubclass(part, Enum):
            lines = inspect.getsource(part).splitlines()
            for line in lines:
                code, mark, comment = line.partition("  # ")
                name = code.partition("=")[0].strip()
                if mark and name in part.__members__:
                    said.append(f"{part[name].value}: {comment.strip()}")
    return ("(" + "; ".join(said) + ")") if said else ""


def type_text(hint: Any) -> str:
    """A type in words of the table: groups are links, enumerations their members."""
    arguments = [part for part in get_args(hint) if part is not type(None) and part is not Ellipsis]
    if is_dataclass(hint):
        return f"[{hint.__name__}](#{anchor(hint)})"  # type: ignore[union-attr, arg-type]
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return ", ".join(f"`{member.value}`" for member in hint)
    if hint is Any:
        return "any"
    if not arguments:
        return {"str": "text", "bool": "true, false", "int": "whole number", "float": "number"}.get(
            hint.__name__, hint.__name__
        )
    if getattr(hint, "__origin__", None) is dict:
        return f"entries of {type_text(arguments[-1])}"
    if getattr(hint, "__origin__", None) is list:
        return f"list of {type_text(arguments[0])}"
    if getattr(hint, "__origin__", None) is tuple:
        return f"{len(arguments)} of {type_text(arguments[0])}"
    text = " or ".join(type_text(argument) for argument in arguments)
    return f"{text}, or null" if type(None) in get_args(hint) else text


def default_text(default: str | None, hint: Any) -> str:
    if default is None or default == "MISSING":
        return "required"
    if default.startswith("field("):
        return "" if any(is_dataclass(part) for part in parts_of(hint)) else f"`{made(default)}`"
    if default in ("None", "True", "False"):
        return "null" if default == "None" else f"`{default.lower()}`"
    if any(inspect.isclass(part) and issubclass(part, Enum) for part in parts_of(hint)):
        return f"`{default.rpartition('.')[2]}`"
    return f"`{default}`"


def made(default: str) -> str:
    """What a default_factory makes, as it is written: `{}` for dict."""
    written = default.removeprefix("field(default_factory=").removesuffix(")")
    return {"dict": "{}", "list": "[]"}.get(written, written.removeprefix("lambda: "))


def escaped(words: str) -> str:
    """Words in a cell of Markdown: no bar ends it, no bracket or star is taken for more than itself."""
    for mark in "|<*_":
        words = words.replace(mark, f"\\{mark}")
    return words
