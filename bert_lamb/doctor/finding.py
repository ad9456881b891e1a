"""What a check comes to, and what the checks are told: plain values, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby


class Verdict(Enum):
    ok = "ok"
    warning = "warning"  # it will run, not as it should
    failed = "failed"
    skipped = "skipped"


@dataclass(frozen=True)
class Finding:
    """One row of the report. found: facts with their units. fix: what to do; empty where there is nothing to do."""

    verdict: Verdict
    found: str
    fix: str = ""


class SkippedError(Exception):
    """Raised by a check that has nothing to examine; its text says why."""


def ok(found: str) -> Finding:
    return Finding(Verdict.ok, found)


def warning(found: str, *, fix: str) -> Finding:
    return Finding(Verdict.warning, found, fix)


def failed(found: str, *, fix: str) -> Finding:
    return Finding(Verdict.failed, found, fix)


def skipped(why: str) -> Finding:
    return Finding(Verdict.skipped, why)


def name_ranks(ranks: Sequence[int], hosts: Sequence[str]) -> str:
    """ "ranks 0, 8-15 (host1, host2)"; hosts: of every rank, by rank."""
    runs = [[rank for _, rank in run] for _, run in groupby(enumerate(sorted(ranks)), lambda pair: pair[1] - pair[0])]
    spans = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    named = list(dict.fromkeys(hosts[rank] for rank in sorted(ranks)))
    shown = ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "")
    return f"rank{'s' if len(ranks) > 1 else ''} {spans} ({shown})"


def differences(values: Sequence[str], hosts: Sequence[str]) -> str | None:
    """ "A on ranks 0-7 (host1), B on ranks 8-15 (host2)" where not every rank has the same; values: by rank."""
    by_value: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        by_value.setdefault(value, []).append(rank)
    if len(by_value) < 2:
        return None
    return ", ".join(f"{value} on {name_ranks(ranks, hosts)}" for value, ranks in by_value.items())
