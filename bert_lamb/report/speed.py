"""Beside the summary: how fast each phase was, what share of the machine it used, and where its time went."""

from typing import Any

from bert_lamb.outputs.metrics import PARTS, PAUSES
from bert_lamb.report.metrics import Phase, Record, Run

RATES = ("sequences_per_second", "tokens_per_second", "positions_per_second", "model_tflops", "mfu")


def describe_speed(run: Run) -> list[Record]:
    """A row for each phase whose steps say more than their sequences a second; None for what they do not say.

    Averages over the logged steps, weighted with their time: rates without evaluation and saving, shares with them.
    peak_gigabytes: of 10^9 bytes, reserved on the GPU, or without one resident.
    """
    rows = []
    for phase in run.phases:
        if not any("tokens_per_second" in step for step in phase.steps):
            continue
        rates = {name: average(phase, name, with_pauses=False) for name in RATES}
        tokens, positions = rates["tokens_per_second"], rates["positions_per_second"]
        rows.append(
            {
                "phase": phase.name,
                **rates,
                "peak_tflops": phase.peak_tflops,
                "fill": tokens / positions if tokens is not None and positions else None,
                "shares": {part: average(phase, f"{part}_share", with_pauses=True, absent=0.0) for part in PARTS},
                "peak_gigabytes": largest(phase, "peak_reserved_bytes", "peak_rss_bytes"),
            }
        )
    return rows


def largest(phase: Phase, *names: str) -> float | None:
    """The maximum, in gigabytes, of whichever field the steps have."""
    return max((step[name] / 1e9 for step in phase.steps for name in names if name in step), default=None)


def average(phase: Phase, name: str, *, with_pauses: bool, absent: float | None = None) -> float | None:
    """The mean of a field over time. absent: what a line without it stands for; None: it is left out."""
    total = total_seconds = 0.0
    for step in phase.steps:
        value = step.get(name, absent)
        if value is not None:
            seconds = step["seconds"] / (1 - pauses(step)) if with_pauses else step["seconds"]
            total, total_seconds = total + value * seconds, total_seconds + seconds
    return total / total_seconds if total_seconds else None


def pauses(step: dict[str, Any]) -> float:
    """The share of its time that a line does not count in `seconds`."""
    return float(sum(step.get(f"{part}_share", 0.0) for part in PAUSES))
