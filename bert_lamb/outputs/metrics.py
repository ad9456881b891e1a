"""metrics.jsonl: what a run logs while it trains."""

import json
from pathlib import Path
from typing import Any

from bert_lamb.outputs.atomic import write_atomically


class MetricsLog:
    """metrics.jsonl: one JSON object a line, flushed as it is written, so that a killed run keeps what it logged.

    Kinds: phase_start, step, heldout, trust_ratios, resume, phase_end; `bert_lamb.report` lists their fields.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("a", encoding="utf-8")

    def write(self, kind: str, **fields: Any) -> None:
        self._stream.write(json.dumps({"kind": kind, **fields}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


def forget_metrics_after(path: Path, *, finished_phases: set[str], phase: str, step: int) -> None:
    """Drop the lines that a resumed run will write again: later steps of `phase`, and phases not yet begun.

    A last line cut short by a kill is dropped too.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["phase"] in finished_phases or (record["phase"] == phase and record["step"] <= step):
            kept.append(line + "\n")
    write_atomically(path, "".join(kept))
