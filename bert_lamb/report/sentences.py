"""What a report says of a run of `bert-lamb glue` or `vision`: its scores, in the words of the run."""

from pathlib import Path

from bert_lamb.errors import UserError
from bert_lamb.outputs.read_back import read_object

FILES = {"glue.json": "glue", "vision.json": "vision"}  # file of a finished run -> the command that wrote it


def score_sentences(folder: Path) -> list[str]:
    """The sentence on its scores; none without such a file. Raises UserError for one that is damaged."""
    return [_summary(folder / name, command) for name, command in FILES.items() if (folder / name).is_file()]


def _summary(file: Path, command: str) -> str:
    expected, fix = f"what `bert-lamb {command}` wrote there", "restore the file as the run wrote it"
    summary = read_object(file, expected=expected, fix=fix).get("summary")
    if not isinstance(summary, str):
        raise UserError(found=f"{file} without a summary", expected=expected, fix=fix)
    return summary
