"""metrics.jsonl: METRICS.md and the table of fields say the same, and nothing else can be written."""

import json
import re
from pathlib import Path

import pytest

from bert_lamb.outputs import metrics
from bert_lamb.outputs.metrics import FIELDS, MetricsLog, forget_metrics_after

STEP = {"lr": 1e-3, "loss": 2.0, "grad_norm": 0.5, "is_applied": True, "num_sequences": 8, "seconds": 0.1}
STEP["sequences_per_second"] = 80.0


def test_the_page_lists_the_fields_of_the_table():
    page = Path(metrics.__file__).with_name("METRICS.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    listed: dict[str, dict[str, bool]] = {}
    kind = None
    for row in rows:
        if len(row) == 3 and "`" in row[1]:
            kind = row[0].strip("`") or kind
            for bracket, name in re.findall(r"(\[?)`(\w+)`", row[1]):
                listed.setdefault(kind, {})[name] = not bracket
    assert listed == {
        kind: {name: field.is_required for name, field in fields.items()} for kind, fields in FIELDS.items()
    }
    kinds = {row[0].strip("`") for row in rows if len(row) == 2}
    assert kinds - {"kind", "---"} == FIELDS.keys()


def test_what_is_written_can_be_read(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert not log.path.exists()
    log.write("step", phase="p", step=1, **STEP)
    log.close()
    assert json.loads(log.path.read_text()) == {"kind": "step", "phase": "p", "step": 1, **STEP}


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("step", {**STEP, "correctness": 1.0}, "correctness in no table"),
        ("steps", STEP, "steps in no table"),
        ("step", {name: value for name, value in STEP.items() if name != "loss"}, "loss None, which is no number"),
        ("step", {**STEP, "loss": "2"}, "loss '2', which is no number"),
        ("step", {**STEP, "is_applied": 1}, "is_applied 1, which is neither true nor false"),
        ("step", {**STEP, "mlm_loss": None}, "mlm_loss None, which is no number"),
        ("trust_ratios", {"trust_ratio": 1.0}, "trust_ratio 1.0, which is no mapping"),
    ],
)
def test_what_no_reader_knows_is_not_written(tmp_path, kind, fields, message):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=message):
        log.write(kind, phase="p", step=1, **fields)
    assert not log.path.exists()


def test_a_resumed_run_forgets_what_is_no_record(tmp_path):
    """A log that was damaged, or edited, does not keep a run from being resumed."""
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"phase": phase, "step": step}) for phase, step in (("a", 9), ("b", 1), ("b", 2), ("b", 3))]
    odd = [
        "[]",
        "{}",
        '{"phase": [], "step": 1}',
        '{"phase": "b"}',
        '{"phase": "b", "step": "1"}',
        "[" * 100_000,
        "\xff",
    ]
    file.write_bytes("\n".join([*lines[:2], *odd, *lines[2:], '{"phase": "b", "st']).encode("latin-1"))
    forget_metrics_after(file, finished_phases={"a"}, phase="b", step=2)
    assert file.read_text().splitlines() == lines[:3]
