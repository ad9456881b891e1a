"""What is printed: a table for each workload, the last one last."""

from typing import Any

from kit.table import UNKNOWN, Column, number, table

COLUMNS = (
    Column("candidate", lambda r: r["candidate"], is_text=True),
    Column("seq/s", lambda r: number(r["sequences_per_second"], ",.1f")),
    Column("s/step", lambda r: number(r["median_seconds"], ".3f")),
    Column("min", lambda r: number(min(r["seconds"]), ".3f")),
    Column("max", lambda r: number(max(r["seconds"]), ".3f")),
    Column("x Trainer", lambda r: number(r["ratio"], ".2f")),
    Column("of ceiling", lambda r: number(r["share_of_ceiling"], ".0%")),
    Column("data", lambda r: number(r["data_share"], ".1%")),
    Column("peak GB", lambda r: number(r["peak_memory_gb"], ".2f")),
    Column("first loss", lambda r: number(r["first_loss"], ".4f")),
)


def report(result: dict[str, Any]) -> str:
    """The result as text."""
    hardware, ceiling = result["hardware"], result["ceiling"]
    versions = ", ".join(f"{name} {version or UNKNOWN}" for name, version in result["versions"].items())
    lines = [
        f"{versions}; commit {result['commit'] or UNKNOWN}",
        f"{hardware['gpu'] or hardware['cpu']}; {hardware['num_cpus']} CPUs, threads: {hardware['threads']};"
        f" {result['settings']['precision']} matrix products: {ceiling / 1e9:,.0f} GFLOP/s",
    ]
    for workload in result["workloads"]:
        model = workload["model"]
        lines += [
            "",
            f"{model['name']} ({model['num_layers']} layers, hidden {model['hidden_size']}), length"
            f" {workload['max_seq_length']} of {workload['shards']}, dropout {workload['dropout']:g}:"
            f" {workload['global_batch_size']} rows a step in micro-batches of {workload['micro_batch_size']},"
            f" fill {workload['fill']:.2f} (all rows {workload['fill_of_shards']:.2f});"
            f" transformers does {workload['flops_ratio']:.1f} x our operations",
            table(
                COLUMNS,
                ({**row, "share_of_ceiling": row["useful_flops_per_second"] / ceiling} for row in workload["rows"]),
            ),
        ]
    return "\n".join(lines)
