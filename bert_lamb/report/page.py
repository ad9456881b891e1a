"""Last stop of the report: numbers, plots and configuration -> report.html, one page that fetches nothing."""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bert_lamb.outputs.templates import render
from bert_lamb.report.compare import ROWS, Comparison
from bert_lamb.report.curves import panels_of
from bert_lamb.report.figures import Drawing, Plot, draw_plots
from bert_lamb.report.formats import as_duration, as_number, as_percent
from bert_lamb.report.headline import cards_of
from bert_lamb.report.heat_maps import draw_heat_maps
from bert_lamb.report.metrics import Run

TEMPLATE, SCRIPT = Path(__file__).with_name("page.html.j2"), Path(__file__).with_name("page.js")


def page_of(content: dict[str, Any], run: Run, comparison: Comparison, *, folder: str, config_yaml: str) -> str:
    """The text of report.html. content: report.json's. folder: what the run's is called."""
    script = SCRIPT.read_text(encoding="utf-8")
    facts = {
        "folder": folder,
        "contents": contents_of(content),
        "cards": cards_of(content, run),
        "labels": comparison.labels,
        "compared_rows": ROWS,
        "plots": draw_plots(panels_of(run, comparison.others, comparison.labels[0]), run),
        "heat_maps": draw_heat_maps(run),
        "config_yaml": config_yaml.strip(),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **content,
    }
    filters: dict[str, Callable[..., Any]] = {"number": as_number, "duration": as_duration, "percent": as_percent}
    filters |= {"svg": Markup, "frame": as_frame, "found": as_found}
    return render(TEMPLATE, facts, is_html=True, filters=filters)


def contents_of(content: dict[str, Any]) -> list[tuple[str, str]]:
    """(id, title) of the page's sections, in their order; which of them there are."""
    sections = [
        ("compared", "Runs compared", bool(content["compared"])),
        ("phases", "Phases", True),
        ("speed", "Speed", bool(content["speed"])),
        ("heldout", "Held-out text", bool(content["heldout"])),
        ("scores", "Question answering", bool(content["scores"])),
        ("curves", "Course of the run", True),
        ("parameters", "Parameter by parameter", True),
        ("configuration", "Configuration and versions", True),
    ]
    return [(id, title) for id, title, is_there in sections if is_there]


def as_frame(drawing: Drawing) -> str:
    """Where a drawing has its axes, for page.js."""
    frame = {"box": drawing.box, "x": drawing.x, "y": drawing.y, "log": drawing.is_logarithmic}
    return json.dumps(frame, separators=(",", ":"))


def as_found(plot: Plot) -> str:
    """What the pointer finds in a plot, for page.js."""
    return json.dumps(plot.found, separators=(",", ":"), allow_nan=False)
