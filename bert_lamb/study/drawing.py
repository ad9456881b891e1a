"""study.json -> table.md, figure.svg and study.html beside it; from that file alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.templates import render
from bert_lamb.study.figure import TITLE, curves, loss_by_batch, standing_alone
from bert_lamb.study.lines import read_study
from bert_lamb.study.results import MAX_POINTS
from bert_lamb.study.table import HEAD, as_markdown, loss_rows, trial_rows

TABLE_FILE, FIGURE_FILE, PAGE_FILE = "table.md", "figure.svg", "study.html"
CURVES = ("curves", "Curves of the runs")  # id and title of a section
PAGE_TEMPLATE = Path(__file__).with_name("page.html.j2")


def draw(content: Mapping[str, Any], folder: Path) -> str:
    """Write the three files; returns the table. content: study.json. The same content gives the same bytes."""
    study = read_study(content)
    table, figure = as_markdown(study), loss_by_batch(study)
    write_atomically(folder / TABLE_FILE, table)
    write_atomically(folder / FIGURE_FILE, standing_alone(figure) + "\n")
    trials = trial_rows(study)
    facts = {
        "title": "Study",
        "contents": [("losses", "Held-out loss"), *([("tuned", "What was tuned")] if trials else []), CURVES],
        "num_done": study.num_done,
        "num_known": study.num_known,
        "is_finished": study.is_finished,
        "num_sequences": study.num_sequences,
        "figure_title": TITLE,
        "figure": Markup(figure),
        "about": [line.about for line in study.lines],
        "head": HEAD,
        "rows": loss_rows(study),
        "trials": trials,
        "max_points": MAX_POINTS,
        "curves": [(title, Markup(svg)) for title, svg in curves(study)],
    }
    write_atomically(folder / PAGE_FILE, render(PAGE_TEMPLATE, facts, is_html=True))
    return table
