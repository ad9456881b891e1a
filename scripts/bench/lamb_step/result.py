"""What is written to the result file: the numbers of every row, and every sample."""

from statistics import median
from typing import Any

from lamb_step.groups import Group
from lamb_step.rows import Row, find
from lamb_step.timing import Copy


def result_of(
    rows: list[Row], groups: list[Group], copy: Copy, *, about: dict[str, Any], zero: dict[str, Any]
) -> dict[str, Any]:
    """All of the file. about: the surroundings; zero: from `price_of_exactness`."""
    num_parameters = sum(group.numel for group in groups)
    return {
        "benchmark": "lamb_step",
        **about,
        "num_tensors": sum(len(group.names) for group in groups),
        "num_parameters": num_parameters,
        "groups": [{"adapt": g.adapt, "num_tensors": len(g.names), "num_parameters": g.numel} for g in groups],
        "copy": {
            "bytes_read_and_written": copy.num_bytes,
            "median_ms": median(copy.samples),
            "gb_per_s": copy.gb_per_s,
            "ms": copy.samples,
        },
        "zero": zero,
        "rows": [_record(row, rows, num_parameters, copy) for row in rows],
    }


def _record(row: Row, rows: list[Row], num_parameters: int, copy: Copy) -> dict[str, Any]:
    """One row; null stands for what is not known."""
    time_ms = median(row.samples) if row.samples else None
    gb_per_s = row.counted_bytes / time_ms / 1e6 if row.counted_bytes is not None and time_ms is not None else None
    return {
        "kind": row.kind,
        "title": row.title,
        "form": row.form,
        "tiling": row.tiling,
        "chunks": row.chunks,
        "dtypes": row.dtypes,
        "reason": row.reason,
        "median_ms": time_ms,
        "min_ms": min(row.samples, default=None),
        "max_ms": max(row.samples, default=None),
        "host_ms": median(row.host_samples) if row.host_samples else None,
        "counted_bytes": row.counted_bytes,
        "counted_bytes_per_parameter": None if row.counted_bytes is None else row.counted_bytes / num_parameters,
        "gb_per_s": gb_per_s,
        "share_of_copy": None if gb_per_s is None else gb_per_s / copy.gb_per_s,
        "launches": row.launches,
        "ratio_to_adamw_foreach": _ratio(row, find(rows, "adamw-foreach", row.form)),
        "ratio_to_adamw_fused": _ratio(row, find(rows, "adamw-fused", row.form)),
        "max_relative_difference": row.max_relative_difference,
        "ms": row.samples,
        "host_ms_samples": row.host_samples,
    }


def _ratio(row: Row, other: Row | None) -> float | None:
    """Median over the rounds of row's time over other's: in a round both were measured within moments."""
    if other is None or not row.samples or not other.samples:
        return None
    return median(mine / its for mine, its in zip(row.samples, other.samples, strict=True))
