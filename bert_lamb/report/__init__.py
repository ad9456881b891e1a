"""`bert-lamb report`: the last station; a run's metrics and its scores -> report.json, report.html and a short table.

metrics.py        metrics.jsonl -> phases with their records, refused where malformed
configuration.py  config.yaml -> what to call the run, and how runs differ
layers.py         what was recorded of single parameters -> rows in order, tables by step
summary.py        phases and scores -> the numbers of report.json
formats.py        numbers as words
headline.py       where the run stands, and the cards on top of the page
sentences.py      the scores of a task of GLUE, or on images
speed.py          rates, utilization, memory and where the time went, by phase
compare.py        other runs beside this one
curves.py         phases -> panels of curves
figures.py        panels -> plots as SVG, and the values that the pointer finds
heat_maps.py      what was recorded of single parameters -> plots as SVG
page.py           all of it -> one self-contained page, by page.html.j2, page_plots.css and page.js
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.read_back import read_object
from bert_lamb.outputs.run_dir import CONFIG_FILE, METRICS_FILE, VERSIONS_FILE
from bert_lamb.report.compare import compare_with
from bert_lamb.report.configuration import planned_steps, read_config, title_of
from bert_lamb.report.headline import sentence_on, status_of
from bert_lamb.report.metrics import read_metrics
from bert_lamb.report.page import page_of
from bert_lamb.report.sentences import score_sentences
from bert_lamb.report.summary import SCORES_FILE, as_table, read_scores, summarise

REPORT_JSON, REPORT_HTML = "report.json", "report.html"
OWN_LABEL = "this run"
OF_A_RUN, RESTORE = "what a run wrote there", "set run_dir, or restore the file as the run wrote it"


def report(*, run_dir: Path, score_dirs: dict[str, Path], compare: Sequence[Path] = ()) -> dict[str, Any]:
    """Write run_dir/report.json and run_dir/report.html, print a short table, return what report.json holds.

    score_dirs: label -> the output folder of a `bert-lamb squad`. compare: folders of other runs, whose curves are
    drawn over this run's. In report.json, null stands for a number that is unknown or not finite.
    Raises UserError for files that are missing or malformed.
    """
    if not run_dir.is_dir():
        raise UserError(found=f"no folder {run_dir}", expected="the folder of a run", fix="set run_dir")
    run = read_metrics(run_dir / METRICS_FILE)
    config_yaml, config = read_config(run_dir / CONFIG_FILE, expected=OF_A_RUN, fix=RESTORE)
    versions = read_object(run_dir / VERSIONS_FILE, expected=OF_A_RUN, fix=RESTORE)
    own = (run_dir / SCORES_FILE).is_file()  # of a fine-tuning
    scores = [read_scores(OWN_LABEL, run_dir, option="run_dir")] if own else []
    scores += [read_scores(label, folder, option=f"scores.{label}") for label, folder in score_dirs.items()]
    comparison = compare_with(compare, run_dir=run_dir, run=run, config=config)

    batches = [phase.global_batch_size for phase in run.phases]
    status = status_of(run, planned_steps(config))
    content = without_nan(
        {
            "title": title_of(config, str(versions.get("command", "")), batches) or run_dir.resolve().name,
            "status": status,
            **summarise(run, scores),
            "compared": comparison.as_plain(),
            "versions": versions,
        }
    )
    of_scores = score_sentences(run_dir)
    standing = [] if status["is_finished"] else [sentence_on(status)]
    content["sentences"] = standing + content["sentences"]
    content["sentences"] += of_scores
    page = page_of(content, run, comparison, folder=run_dir.resolve().name, config_yaml=config_yaml)
    write_atomically(run_dir / REPORT_JSON, json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_atomically(run_dir / REPORT_HTML, page)
    print("\n\n".join([*standing, as_table(content), *of_scores]))
    print(f"{run_dir / REPORT_HTML}")
    return content


def without_nan(value: Any) -> Any:
    """The same tree with None for floats that are not finite, which JSON cannot express."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
