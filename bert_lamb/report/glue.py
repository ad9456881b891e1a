"""What a report says of a run of `bert-lamb glue`: its scores, in the words of the run."""

import json
from pathlib import Path

from bert_lamb.errors import UserError

GLUE_FILE = "glue.json"


def glue_sentences(folder: Path) -> list[str]:
    """The sentence on a task's scores; none without a glue.json. Raises UserError for one that is damaged."""
    file = folder / GLUE_FILE
    if not file.is_file():
        return []
    try:
        return [str(json.loads(file.read_text(encoding="utf-8"))["summary"])]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            found=f"{file} without a summary ({error})",
            expected="what `bert-lamb glue` wrote there",
            fix="restore the file as the run wrote it",
        ) from error
