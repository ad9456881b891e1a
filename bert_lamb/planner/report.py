"""A plan as text, section by section, and as json; and where it may be written."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.if_exists import Decision, State, check_if_same, decide
from bert_lamb.planner.comparison import Compared, number, phases_in_words
from bert_lamb.planner.plan import Machine, PhasePlan, Plan

FORMAT, KIND = "bert_lamb plan", "a plan of `bert-lamb plan`"


def text(plan: Plan, compared: Sequence[Compared]) -> str:
    """compared: published rows near it, the error of each beside it."""
    sections = [
        ("machine", of_machine(plan.machine)),
        ("batch", [line for phase in plan.phases for line in of_batch(phase)]),
        ("memory of a rank, GB", of_memory(plan)),
        ("step, ms", of_steps(plan.phases)),
        ("run", of_run(plan)),
        ("checkpoints", of_checkpoints(plan)),
        ("the same arithmetic against published runs", of_published(compared)),
    ]
    return "\n\n".join("\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in sections)


def of_machine(machine: Machine) -> list[str]:
    nodes = -(-machine.gpus // machine.gpus_per_node)
    lines = [
        f"{machine.gpus:,} x {machine.gpu.name} on {nodes:,} nodes of {machine.gpus_per_node:,},"
        f" {machine.network_gbit:,.0f} Gbit/s each ({machine.gpu.source})",
        f"compute efficiency {machine.compute.value:.3f} ({machine.compute.source})",
    ]
    if not machine.gpu.runs_bert_lamb:
        lines.append("only to compare with: bert_lamb does not run there")
    if machine.gpus > 1:
        lines.append(f"network efficiency {machine.network.value:.3f} ({machine.network.source})")
    return lines


def of_batch(phase: PhasePlan) -> list[str]:
    first, *others = phase.batch.describe()
    fill = phase.phase.mean_length / phase.phase.max_seq_length
    return [
        f"{phase.phase.name}: {first}",
        *(f"  {line}" for line in others),
        f"  mean length {phase.phase.mean_length:.0f} of {phase.phase.max_seq_length}, {100 * (1 - fill):.0f} % padding"
        f" that is {'computed' if phase.computes_padding else 'not computed'};"
        f" {phase.fitting_micro_batch:,} rows fit",
    ]


def of_memory(plan: Plan) -> list[str]:
    rows = [["", *(phase.phase.name for phase in plan.phases)]]
    for part in plan.phases[0].memory:
        rows.append([part, *(f"{phase.memory[part] / 1e9:.2f}" for phase in plan.phases)])
    totals = [sum(phase.memory.values()) for phase in plan.phases]
    rows.append(["in all", *(f"{total / 1e9:.2f}" for total in totals)])
    rows.append(["may be filled", *(f"{plan.machine.usable_bytes / 1e9:.2f}" for _ in totals)])
    return aligned(rows)


def of_steps(phases: Sequence[PhasePlan]) -> list[str]:
    rows = [["", *(phase.phase.name for phase in phases)]]
    for part in phases[0].step.parts:
        if any(phase.step.parts[part] for phase in phases):
            rows.append([part, *(f"{1e3 * phase.step.parts[part]:,.1f}" for phase in phases)])
    rows.append(["in all", *(f"{1e3 * phase.step.seconds:,.1f}" for phase in phases)])
    for what in phases[0].step.collectives:
        rows.append([f"traffic of {what}, hidden or not", *(f"{1e3 * p.step.collectives[what]:,.1f}" for p in phases)])
    rows.append(["sequences/s", *(f"{phase.sequences_per_second:,.0f}" for phase in phases)])
    rows.append(["useful FLOPs of peak", *(f"{100 * phase.model_flops_utilization:.1f} %" for phase in phases)])
    return aligned(rows)


def of_run(plan: Plan) -> list[str]:
    rows = [
        [phase.phase.name, f"{phase.batch.total_steps:,} steps", f"{phase.seconds / 3600:,.2f} h"]
        for phase in plan.phases
    ]
    rows.append(["in all", f"{plan.gpu_hours:,.1f} GPU hours", f"{plan.hours:,.2f} h"])
    watts = f"{plan.machine.watts:,.0f} W a GPU, without hosts, network and cooling"
    cost = "planner.price_per_gpu_hour not given" if plan.cost is None else f"{plan.cost:,.2f}"
    left_out = "evaluation, saving, start and end" + (
        ", and the optimizer's step on the host" if plan.run.runtime.offload_optimizer else ""
    )
    energy = f"energy: {plan.kilowatt_hours:,.1f} kWh at {watts}"
    return [*aligned(rows), energy, f"cost: {cost}", f"left out: {left_out}"]


def of_checkpoints(plan: Plan) -> list[str]:
    one, count = plan.checkpoint_bytes, plan.checkpoints_at_once
    return [
        f"{plan.num_parameters / 1e6:,.1f} M parameters: {one / 1e9:.2f} GB each, of a rank"
        f" {plan.checkpoint_bytes_per_rank / 1e6:,.1f} MB; {count:,} at once at most: {count * one / 1e9:,.1f} GB"
    ]


def of_published(compared: Sequence[Compared]) -> list[str]:
    if not compared:
        return ["no published run of this device"]
    rows = [["", "GPUs", "precision", "length x batch", "published", "arithmetic", "error"]]
    for one in compared:
        row = one.row
        published = f"{number(row.value)} {row.unit}"
        error = f"{100 * one.error:+.1f} %"
        shape = [f"{row.gpus:,}", row.stack.precision, phases_in_words(row)]
        rows.append([row.name, *shape, published, number(one.predicted), error])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def content(plan: Plan, settings: dict[str, Any]) -> dict[str, Any]:
    """The plan as json takes it; settings: the configuration that it is of."""
    return {
        "format": FORMAT,
        "settings": settings,
        "num_parameters": plan.num_parameters,
        "machine": asdict(plan.machine),
        "phases": [
            {
                **asdict(phase.phase),
                "micro_batch_size": phase.batch.micro_batch_size,
                "gradient_accumulation_steps": phase.batch.gradient_accumulation_steps,
                "fitting_micro_batch": phase.fitting_micro_batch,
                "memory_bytes": phase.memory,
                "step_seconds": phase.step.seconds,
                "step_parts_seconds": phase.step.parts,
                "traffic_seconds": phase.step.collectives,
                "hours": phase.seconds / 3600,
                "sequences_per_second": phase.sequences_per_second,
                "model_flops_utilization": phase.model_flops_utilization,
            }
            for phase in plan.phases
        ],
        "hours": plan.hours,
        "gpu_hours": plan.gpu_hours,
        "kilowatt_hours": plan.kilowatt_hours,
        "cost": plan.cost,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "checkpoints_at_once": plan.checkpoints_at_once,
    }


def is_to_be_written(file: Path, settings: dict[str, Any], *, if_exists: str) -> bool:
    """Whether a plan goes to `file`, by the protocol of outputs/if_exists.py; raises UserError."""
    if not file.absolute().parent.is_dir():
        raise UserError(
            found=f"output={file}, whose folder does not exist", expected="a file in a folder", fix="set output"
        )
    state, there = State.absent, None
    if file.exists():
        there = _read(file)
        state = State.foreign if there is None else State.finished
    decision = decide(state, file, kind=KIND, option="output", if_exists=if_exists)
    if decision is Decision.keep and there is not None:
        check_if_same(there["settings"], settings, file, kind=KIND, option="output")
    return decision is not Decision.keep


def _read(file: Path) -> dict[str, Any] | None:
    """The plan in a file; None where it is something else."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_plan = isinstance(found, dict) and found.get("format") == FORMAT and isinstance(found.get("settings"), dict)
    return found if is_plan else None


def write(file: Path, plan: Plan, settings: dict[str, Any]) -> None:
    write_atomically(file, json.dumps(content(plan, settings), indent=1) + "\n")
