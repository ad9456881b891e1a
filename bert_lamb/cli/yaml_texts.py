"""Texts in a user's own yaml files: refused where yaml reads something else than what is written.

yaml takes `output_dir: 2024_05_01` for the number 20240501 and `path: on` for true before the schema sees them, and
nothing in the composed configuration tells. So the files of --config-dir and hydra.searchpath are read once more.
"""

from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from bert_lamb.cli.overrides import is_text
from bert_lamb.errors import UserError, UserErrors


def check_own_files(schema: type[Any], config_name: str, *, ours: Path) -> None:
    """Raise UserErrors for texts that yaml changes in the files that the present job of Hydra is composed of.

    schema: the command's dataclass. ours: the folder conf/, which is not looked at.
    """
    runtime = HydraConfig.get().runtime
    folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    names = [config_name]
    names += [f"{group.split('@')[0]}/{option}" for group, option in runtime.choices.items() if option]
    candidates = [folder / f"{name.removesuffix('.yaml')}.yaml" for folder in folders for name in names]
    files = [path for path in candidates if path.is_file() and not path.is_relative_to(ours)]
    complaints = [complaint for file in files for complaint in changed_texts(schema, file)]
    if complaints:
        raise UserErrors(complaints)


def changed_texts(schema: type[Any], file: Path) -> list[UserError]:
    """Texts of the schema that yaml reads as something else, as complaints with the line and what to write."""
    patterns = list(_text_keys(schema))
    read = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    complaints = []
    for keys, node in _plain_scalars(yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), ()):
        value = _value_at(read, keys)
        if value is None or str(value) == node.value or not any(_is_end_of(keys, pattern) for pattern in patterns):
            continue
        complaints.append(
            UserError(
                found=f"{'.'.join(keys)}: {node.value} in {file}, line {node.start_mark.line + 1}, which yaml reads as "
                f"{type(value).__name__} {value}",
                expected="text in quotes",
                fix=f"write {keys[-1]}: '{node.value}'",
            )
        )
    return complaints


def _text_keys(hint: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Keys of all texts of a dataclass; * stands for the name of an entry of a mapping."""
    if is_text(hint):
        yield keys
    elif is_dataclass(hint):
        for name, below in get_type_hints(hint).items():
            yield from _text_keys(below, (*keys, name))
    elif get_origin(hint) is dict:
        yield from _text_keys(get_args(hint)[1], (*keys, "*"))


def _is_end_of(keys: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether these keys of a file mean the pattern. A file of a group leaves the group's name out."""
    if len(keys) > len(pattern) or (pattern[-1] == "*" and len(keys) < len(pattern)):
        return False
    return all(wanted in ("*", key) for key, wanted in zip(keys[::-1], pattern[::-1], strict=False))


def _plain_scalars(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], yaml.ScalarNode]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _plain_scalars(value, (*keys, str(name.value)))
    elif isinstance(node, yaml.ScalarNode) and node.style is None:
        yield keys, node


def _value_at(tree: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
