"""What is found, on the screen as it comes and as json at the end; rank 0's alone."""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bert_lamb.doctor.finding import Finding, Verdict
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.provenance import versions

VERDICT_WIDTH = max(len(verdict.value) for verdict in Verdict)


@dataclass
class Report:
    """names: of all checks, in order. is_shown: only on rank 0. file: where the json goes, if anywhere."""

    names: Sequence[str]
    hosts: Sequence[str]
    is_shown: bool
    file: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    stream: TextIO = field(default_factory=lambda: sys.stdout)  # also while a library's own words are kept off it
    started: float = field(default_factory=time.monotonic)

    def add(self, name: str, finding: Finding) -> None:
        """A row: printed now, since a later check may take minutes."""
        seconds, self.started = time.monotonic() - self.started, time.monotonic()
        self.rows.append(
            {
                "name": name,
                "verdict": finding.verdict.value,
                "found": finding.found,
                "fix": finding.fix,
                "seconds": round(seconds, 3),
            }
        )
        if self.is_shown:
            print("\n".join(self.lines(name, finding)), file=self.stream, flush=True)

    def lines(self, name: str, finding: Finding) -> list[str]:
        """verdict, name, what was found; below it what to do."""
        name_width = max(map(len, self.names))
        margin = VERDICT_WIDTH + 2 + name_width + 2
        width = max(shutil.get_terminal_size((120, 24)).columns, margin + 40)
        texts = [finding.found, *([f"fix: {finding.fix}"] if finding.fix else [])]
        wrapped = [line for text in texts for line in textwrap.wrap(text, width - margin, break_long_words=False)]
        head = f"{finding.verdict.value:{VERDICT_WIDTH}}  {name:{name_width}}  "
        return [f"{head if number == 0 else ' ' * margin}{line}" for number, line in enumerate(wrapped or [""])]

    @property
    def has_failed(self) -> bool:
        return any(row["verdict"] == Verdict.failed.value for row in self.rows)

    def finish(self) -> None:
        """The last line, and the json. Raises OSError where that cannot be written."""
        if not self.is_shown:
            return
        counts = [(verdict.value, sum(row["verdict"] == verdict.value for row in self.rows)) for verdict in Verdict]
        print(", ".join(f"{count} {name}" for name, count in counts), file=self.stream, flush=True)
        if self.file is not None:
            content = {
                "verdict": "failed" if self.has_failed else "ok",
                "world_size": len(self.hosts),
                "hosts": list(dict.fromkeys(self.hosts)),
                "checks": self.rows,
                "versions": versions(),
            }
            write_atomically(self.file, json.dumps(content, indent=1) + "\n")

    def add_last(self, name: str, finding: Finding) -> None:
        """The check at hand, and what comes after it as skipped: the ranks can no longer go on together."""
        self.add(name, finding)
        for later in self.names[len(self.rows) :]:
            self.add(later, Finding(Verdict.skipped, f"not all ranks came back from the check {name!r}"))
