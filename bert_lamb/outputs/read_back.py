"""What a command of ours left on disk, read back: the file as it was written, or a UserError that names it."""

import json
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError

NOT_AS_WRITTEN = (ValueError, RecursionError)  # no UTF-8, no json, nested too deeply, a number of too many digits


def read_text(file: Path, *, expected: str, fix: str) -> str:
    """The text of a file. expected, fix: what the UserError says of one that is absent or cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(found=f"no {file}", expected=expected, fix=fix) from error
    except (OSError, ValueError) as error:
        raise UserError(found=f"{file} that cannot be read ({error})", expected=expected, fix=fix) from error


def read_object(file: Path, *, expected: str, fix: str) -> dict[str, Any]:
    """The mapping in a json file; UserError, as above, for anything else."""
    text = read_text(file, expected=expected, fix=fix)
    try:
        content = json.loads(text)
    except NOT_AS_WRITTEN as error:
        raise UserError(found=f"{file} that cannot be read ({error})", expected=expected, fix=fix) from error
    if not isinstance(content, dict):
        raise UserError(found=f"{file} with {type(content).__name__}", expected=f"{expected}: a mapping", fix=fix)
    return content
