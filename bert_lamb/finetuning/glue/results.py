"""What a finished run of a task leaves in its run directory, beside what every run has (outputs/run_dir.py).

model/                  the fine-tuned model, its tokenizer and its card, for transformers
predictions/dev.tsv     index and prediction of each development example; dev_matched and dev_mismatched for MNLI
predictions/MRPC.tsv    the same for a test set, in the form and under the name that gluebenchmark.com asks for
glue.json               the result; written last, so it stands for a complete run

With task=all each task has such a folder, and glue.json beside them has all scores and their average.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bert_lamb.errors import UserError
from bert_lamb.finetuning.glue.examples import Example
from bert_lamb.finetuning.glue.tasks import TASKS, GlueTask
from bert_lamb.finetuning.model_folder import MODEL_NAME
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.read_back import read_object
from bert_lamb.outputs.run_dir import RunKind

PREDICTIONS_NAME, RESULT_NAME = "predictions", "glue.json"
KIND = RunKind("a run of glue", mark="files", results=frozenset({MODEL_NAME, PREDICTIONS_NAME, RESULT_NAME}))
KIND_OF_ALL = RunKind("a run of glue over all tasks", mark="tasks", results=frozenset({*TASKS, RESULT_NAME}))
UNDEFINED = "undefined"


def answers_of(outputs: NDArray[np.float32], task: GlueTask) -> list[float]:
    """The class with the largest logit, or the number, for each row: [N, C] -> N."""
    if task.is_regression:
        return [float(value) for value in outputs[:, 0]]
    return [int(number) for number in outputs.argmax(-1)]


def write_predictions(
    run_dir: Path, split: str, task: GlueTask, examples: Sequence[Example], answers: Sequence[float]
) -> None:
    """The tsv of a split: a line for each example, with the names of classes as the leaderboard has them."""
    name = task.submission_name(split) if split in task.test_splits else f"{split}.tsv"
    shown = [f"{answer:.6g}" if task.is_regression else task.labels[int(answer)] for answer in answers]
    lines = [f"{example.index}\t{text}" for example, text in zip(examples, shown, strict=True)]
    folder = run_dir / PREDICTIONS_NAME
    folder.mkdir(exist_ok=True)
    write_atomically(folder / name, "\n".join(["index\tprediction", *lines]) + "\n")


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """glue.json of a finished task; None where there is none. Raises UserError for one that is damaged."""
    file = run_dir / RESULT_NAME
    if not file.is_file():
        return None
    expected, fix = "what `bert-lamb glue` wrote there", "set run_dir, or if_exists=restart"
    content = read_object(file, expected=expected, fix=fix)
    if not {"task", "scores", "score", "num_examples", "summary"} <= content.keys():
        raise UserError(found=f"{file} without scores", expected=expected, fix=fix)
    return content


def write_result(run_dir: Path, content: Mapping[str, Any]) -> None:
    write_atomically(run_dir / RESULT_NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def summary(result: Mapping[str, Any]) -> str:
    """One line for people: every metric of every development set."""
    sets = [
        f"{split} ({result['num_examples'][split]:,}): "
        + ", ".join(f"{metric} {_shown(value)}" for metric, value in scores.items())
        for split, scores in result["scores"].items()
    ]
    return f"{TASKS[result['task']].folder} {'; '.join(sets)}"


def table(results: Mapping[str, Mapping[str, Any]], average: float | None, *, counts_wnli: bool) -> str:
    """The scores of all tasks in columns, and their average."""
    rows = [("task", "score", "of")]
    for name, result in results.items():
        of_sets = "; ".join(
            " / ".join(f"{metric} {_shown(value)}" for metric, value in scores.items())
            for scores in result["scores"].values()
        )
        rows.append((TASKS[name].folder, _shown(result["score"]), of_sets))
    is_left_out = "wnli" in results and not counts_wnli
    counted = len(results) - is_left_out
    rows.append(("average", _shown(average), f"{counted} tasks" + (", without WNLI" if is_left_out else "")))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]}" for row in rows)


def _shown(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.2f}"
