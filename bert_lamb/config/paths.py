"""Texts at the door: a home folder written as ~ is the same in every field that holds a path, and no path is empty.

A shell expands ~ only where it begins a word: not in output_dir=~/shards (bash), in quotes, in a yaml file. Programs
below the door take paths as they are. A folder that is really called ~ is written ./~.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from typing import Any

from bert_lamb.errors import UserError

NEVER_EMPTY = (
    *("output_dir", "output_file", "run_dir", "shards_dir", "model_dir", "train_file", "eval_file", "vocabulary.file"),
    *("data", "predictions", "na_prob", "initial_weights", "context", "data_dir", "files.*"),
    *("shards", "phases.*.shards", "scores.*", "compare.*", "source", "config", "vocab", "output"),
)
PATHS = (*NEVER_EMPTY, "sources.*.path", "sources.*.dataset", "dataset")  # of a dataset: its name, or a folder


def settle_texts(config: Any) -> list[UserError]:
    """Expand ~ in every path of a command's configuration, in place; returns what is wrong with its texts."""
    complaints = []
    for key, text, put in list(_texts(config)):
        if complaint := _characters(key, text):
            complaints.append(complaint)
        elif not text and any(fnmatchcase(key, pattern) for pattern in NEVER_EMPTY):
            complaints.append(UserError(found=f"{key}=''", expected="a path", fix=f"set {key}"))
        elif text.startswith("~") and any(fnmatchcase(key, pattern) for pattern in PATHS):
            expanded = os.path.expanduser(text)
            if expanded.startswith("~"):
                complaints.append(
                    UserError(
                        found=f"{key}={text}",
                        expected="after ~ the name of a user of this machine, or nothing",
                        fix=f"for something that is called so write ./{text}",
                    )
                )
            put(expanded)
    return complaints


def _characters(key: str, text: str) -> UserError | None:
    """Characters that this system's encoding of file names cannot express, or bytes that are no characters."""
    is_locale = True
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        raw = b""
    else:
        if not any("\ud800" <= character <= "\udfff" for character in text):
            return None
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            is_locale = False
    if is_locale:
        return UserError(
            found=f"{key}={text} where file names are {sys.getfilesystemencoding()}",
            expected="UTF-8",
            fix="set PYTHONUTF8=1, or LC_ALL=C.UTF-8",
        )
    return UserError(
        found=f"{key}={raw!r}",
        expected="bytes that are UTF-8, which is how it is kept in files",
        fix=f"rename what {key} names, such as with convmv, or set a symbolic link to it",
    )


def _texts(holder: Any, prefix: str = "") -> Iterator[tuple[str, str, Callable[[str], None]]]:
    """Dotted key, text, and what puts another text in its place, of all texts below `holder`."""
    if is_dataclass(holder):
        names = [field.name for field in fields(holder)]
        items = [(name, getattr(holder, name), _setter(holder, name)) for name in names]
    elif isinstance(holder, list):
        items = [(str(i), value, _item_setter(holder, i)) for i, value in enumerate(holder)]
    else:
        items = [(str(name), value, _item_setter(holder, name)) for name, value in holder.items()]
    for name, value, put in items:
        if isinstance(value, str):
            yield f"{prefix}{name}", value, put
        elif isinstance(value, dict | list) or is_dataclass(value):
            yield from _texts(value, f"{prefix}{name}.")


def _setter(holder: Any, name: str) -> Callable[[str], None]:
    return lambda text: setattr(holder, name, text)


def _item_setter(holder: Any, name: Any) -> Callable[[str], None]:
    return lambda text: holder.__setitem__(name, text)
