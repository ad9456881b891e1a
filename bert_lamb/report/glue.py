"""What a report says of a run of `bert-lamb glue`: its scores, in the words of the run."""

from pathlib import Path

from bert_lamb.errors import UserError
from bert_lamb.outputs.read_back import read_object

GLUE_FILE = "glue.json"


def glue_sentences(folder: Path) -> list[str]:
    """The sentence on a task's scores; none without a glue.json. Raises UserError for one that is damaged."""
    file = folder / GLUE_FILE
    if not file.is_file():
        return []
    expected, fix = "what `bert-lamb glue` wrote there", "restore the file as the run wrote it"
    summary = read_object(file, expected=expected, fix=fix).get("summary")
    if not isinstance(summary, str):
        raise UserError(found=f"{file} without a summary", expected=expected, fix=fix)
    return [summary]
