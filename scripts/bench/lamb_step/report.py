"""What is printed: the result as text, the table last."""

from typing import Any

from kit.table import UNKNOWN, Column, number, padded

COLUMNS = (
    Column("optimizer", lambda r: r["title"], is_text=True),
    Column("form", lambda r: r["form"], is_text=True),
    Column("tensors", lambda r: r["dtypes"], is_text=True),
    Column("ms", lambda r: number(r["median_ms"], ".3f")),
    Column("host ms", lambda r: number(r["host_ms"], ".3f")),
    Column("B/param", lambda r: number(r["counted_bytes_per_parameter"], ".1f")),
    Column("GB/s", lambda r: number(r["gb_per_s"], ",.1f")),
    Column("of copy", lambda r: number(r["share_of_copy"], ".0%")),
    Column("launches", lambda r: number(r["launches"], ",d")),
    Column("/ AdamW foreach", lambda r: number(r["ratio_to_adamw_foreach"], ".2f")),
    Column("/ AdamW fused", lambda r: number(r["ratio_to_adamw_fused"], ".2f")),
    Column("differs", lambda r: number(r["max_relative_difference"], ".0e")),
)
NUM_TEXT_COLUMNS = sum(column.is_text for column in COLUMNS)


def report(result: dict[str, Any]) -> str:
    """The result as text."""
    versions = ", ".join(f"{name} {version or UNKNOWN}" for name, version in result["versions"].items())
    hardware, reduced = result["hardware"], result["zero"]["all_reduce"]
    sizes = " + ".join(
        f"{group['num_parameters']:,} {'adapted' if group['adapt'] else 'exempt'}" for group in result["groups"]
    )
    lines = [
        f"{versions}; commit {result['commit'] or UNKNOWN}",
        f"{hardware['gpu'] or hardware['cpu']}; {hardware['num_cpus']} CPUs, threads: {hardware['threads']}",
        f"{result['settings']['model']}: {result['num_tensors']} tensors, {result['num_parameters']:,} parameters"
        f" ({sizes}); {result['settings']['repeats']} rounds of {result['settings']['steps_per_sample']} steps",
        f"copy_: {result['copy']['gb_per_s']:,.1f} GB/s read and written",
        "",
        "exactness under ZeRO, on one flat partition per group:",
        *(
            f"  norms by segment, {name}: {cost['extra_ms']:+.3f} ms on {cost['unaware_ms']:.3f} ms"
            for name, cost in result["zero"]["segment_norms"].items()
        ),
        f"  all-reduce of {reduced['shape']} float64 over {reduced['ranks']} gloo ranks: "
        + (reduced["reason"] or f"{reduced['median_ms']:.3f} ms"),
        "",
        _table(result["rows"]),
    ]
    return "\n".join(lines)


def _table(records: list[dict[str, Any]]) -> str:
    """The table without columns that no row fills; a row without numbers has its reason instead."""
    columns = [column for column in COLUMNS if any(column.cell(record) != UNKNOWN for record in records)]
    headings, *lines = padded(columns, records)
    for line, record in zip(lines, records, strict=True):
        if record["reason"]:
            line[NUM_TEXT_COLUMNS:] = [record["reason"]]
    return "\n".join("  ".join(line) for line in (headings, *lines))
