"""`bert-lamb report`: the last station; a run's metrics and its scores -> report.json, report.html and a short table.

metrics.py   metrics.jsonl -> phases with their records, refused where malformed
layers.py    what was recorded of single parameters -> rows in order, tables by step
summary.py   phases and scores -> the numbers of report.json
sentences.py the scores of a task of GLUE, or on images
speed.py     rates, utilization, memory and where the time went, by phase
figures.py   phases -> plots as SVG
page.html.j2 all of it -> one self-contained page
"""

import json
import math
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.read_back import read_object, read_text
from bert_lamb.outputs.run_dir import CONFIG_FILE, METRICS_FILE, VERSIONS_FILE
from bert_lamb.outputs.templates import render
from bert_lamb.report.figures import draw_figures, draw_heat_maps
from bert_lamb.report.metrics import read_metrics
from bert_lamb.report.sentences import score_sentences
from bert_lamb.report.summary import SCORES_FILE, as_table, read_scores, summarise

REPORT_JSON, REPORT_HTML = "report.json", "report.html"
PAGE_TEMPLATE = Path(__file__).with_name("page.html.j2")
OWN_LABEL = "this run"
OF_A_RUN, RESTORE = "what a run wrote there", "set run_dir, or restore the file as the run wrote it"
UNKNOWN = "\u2013"  # a dash


def report(*, run_dir: Path, score_dirs: dict[str, Path]) -> dict[str, Any]:
    """Write run_dir/report.json and run_dir/report.html, print a short table, return what report.json holds.

    score_dirs: label -> the output folder of a `bert-lamb squad`. In report.json, null stands for a number that is
    unknown or not finite. Raises UserError for files that are missing or malformed.
    """
    if not run_dir.is_dir():
        raise UserError(found=f"no folder {run_dir}", expected="the folder of a run", fix="set run_dir")
    run = read_metrics(run_dir / METRICS_FILE)
    config_yaml = read_text(run_dir / CONFIG_FILE, expected=OF_A_RUN, fix=RESTORE)
    versions = read_object(run_dir / VERSIONS_FILE, expected=OF_A_RUN, fix=RESTORE)
    own = {OWN_LABEL: run_dir} if (run_dir / SCORES_FILE).is_file() else {}  # of a fine-tuning
    scores = [read_scores(label, folder) for label, folder in {**own, **score_dirs}.items()]

    content = without_nan({**summarise(run, scores), "versions": versions})
    of_scores = score_sentences(run_dir)
    content["sentences"] += of_scores
    page = render(
        PAGE_TEMPLATE,
        {
            "title": run_dir.resolve().name,
            "figures": [(title, Markup(svg)) for title, svg in draw_figures(run)],
            "heat_maps": [(title, Markup(svg)) for title, svg in draw_heat_maps(run)],
            "config_yaml": config_yaml.strip(),
            **content,
        },
        is_html=True,
        filters={"number": as_number, "duration": as_duration, "percent": as_percent},
    )
    write_atomically(run_dir / REPORT_JSON, json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_atomically(run_dir / REPORT_HTML, page)
    print("\n\n".join([as_table(content), *of_scores]))
    print(f"{run_dir / REPORT_HTML}")
    return content


def without_nan(value: Any) -> Any:
    """The same tree with None for floats that are not finite, which JSON cannot express."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_number(value: float | None, digits: int = 0) -> str:
    """With thousands separators; a dash for what is not known."""
    return UNKNOWN if value is None else f"{value:,.{digits}f}"


def as_percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"


def as_duration(seconds: float | None) -> str:
    """ "45 s", "12 min 3 s", "5 h 20 min"."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
