"""First stop of the report: metrics.jsonl -> the phases of the run with their records.

outputs/METRICS.md tells the kinds of lines and their fields, outputs/metrics.py has the table that is checked here.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.metrics import FIELDS, MAX_COUNT, PAUSES, error_in
from bert_lamb.outputs.read_back import NOT_AS_WRITTEN, read_text

Record = dict[str, Any]

SIZES = ("max_seq_length", "global_batch_size", "total_steps")  # of a phase_start
NORM_FIELDS = ("trust_ratio", "param_norm", "update_norm")  # the fields of a trust_ratios line


@dataclass
class Phase:
    """One phase and what was logged of it, by ascending step."""

    name: str
    max_seq_length: int
    global_batch_size: int
    total_steps: int
    peak_tflops: float | None  # of one device, that utilization is held against
    first_step: int  # steps of the run before this phase: step s of the phase is step first_step + s of the run
    steps: list[Record] = field(default_factory=list)
    heldout: list[Record] = field(default_factory=list)
    image_scores: list[Record] = field(default_factory=list)
    trust_ratios: list[Record] = field(default_factory=list)
    num_steps: int = 0  # optimizer steps done, as far as any line tells
    is_at_target: bool = False  # done, however many steps were left


@dataclass
class Run:
    """What metrics.jsonl holds."""

    phases: list[Phase] = field(default_factory=list)
    num_resumes: int = 0
    notes: list[str] = field(default_factory=list)  # what a reader of the report should know about the file


def read_metrics(file: Path, *, option: str = "run_dir") -> Run:
    """The phases in the order in which they were trained. option: what the user sets to choose the run.

    A last line cut short, as a killed run leaves it, is left out and noted. Raises UserError with the line's number
    for anything else that is malformed, and for a file that is missing or has no phase.
    """
    text = read_text(
        file, expected="the metrics of a run", fix=f"set {option}, or restore the file as the run wrote it"
    )
    run = Run()
    unknown_kinds: Counter[str] = Counter()
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except NOT_AS_WRITTEN as error:
            if number == len(lines) and not text.endswith("\n"):
                run.notes.append(f"The last line of {file.name} (line {number}) was cut short and is left out.")
                break
            raise _refusal(file, number, f"no JSON ({error})", "one JSON object") from error
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            raise _refusal(file, number, "no object with a kind", "one JSON object with a kind")
        if record["kind"] not in FIELDS:
            unknown_kinds[record["kind"]] += 1
            continue
        _check_fields(file, number, record)
        _add(run, file, number, record)
    run.notes += [f"{count} lines of the unknown kind {kind!r} are left out." for kind, count in unknown_kinds.items()]
    if not run.phases:
        raise UserError(found=f"{file} without a phase_start", expected="a run that has begun", fix=f"set {option}")
    return run


def _add(run: Run, file: Path, number: int, record: Record) -> None:
    kind, step = record["kind"], record["step"]
    names = [phase.name for phase in run.phases]
    if kind == "phase_start":
        if record["phase"] in names:
            raise _refusal(file, number, f"a second start of {record['phase']}", "one start of each phase")
        first_step = run.phases[-1].first_step + run.phases[-1].num_steps if run.phases else 0
        sizes = {name: record[name] for name in SIZES}
        peak_tflops = record.get("peak_tflops")
        run.phases.append(Phase(record["phase"], peak_tflops=peak_tflops, first_step=first_step, **sizes))
        return
    if record["phase"] not in names:
        raise _refusal(file, number, f"a {kind} of {record['phase']}", "the phase's phase_start before it")
    phase = run.phases[names.index(record["phase"])]
    if kind == "resume":
        run.num_resumes += 1
        del run.phases[names.index(phase.name) + 1 :]
        for records in (phase.steps, phase.heldout, phase.image_scores, phase.trust_ratios):
            records[:] = [one for one in records if one["step"] <= step]
        phase.num_steps = step
        return
    if phase is not run.phases[-1]:
        raise _refusal(file, number, f"a {kind} of {phase.name}", f"one of {names[-1]}, which has begun")
    phase.num_steps = max(phase.num_steps, step)
    if kind == "rollback":
        run.notes.append(
            f"The loss rose in step {record['spike_step']:,} of {phase.name}; the run went back to step {step:,} and"
            f" passed over batches, {record['batches_skipped']:,} of the phase so far."
        )
    if kind == "target_reached":
        run.notes.append(f"The held-out target was reached after step {step:,} of {phase.name}, which ended the run.")
        phase.is_at_target = True
    if kind in ("rollback", "target_reached", "phase_end", "scores", "glue_scores"):
        return
    records = {
        "step": phase.steps,
        "heldout": phase.heldout,
        "image_scores": phase.image_scores,
        "trust_ratios": phase.trust_ratios,
    }[kind]
    if records and step <= records[-1]["step"]:
        raise _refusal(file, number, f"a {kind} at step {step}", f"one after step {records[-1]['step']}")
    records.append(record)


def _check_fields(file: Path, number: int, record: Record) -> None:
    kind = record["kind"]
    if not isinstance(record.get("phase"), str):
        raise _refusal(file, number, f"a {kind} without phase", "the phase's name")
    first = 1 if kind in ("step", "trust_ratios") else 0
    if type(record.get("step")) is not int or not first <= record["step"] < MAX_COUNT:
        raise _refusal(file, number, f"a {kind} with step {record.get('step')!r:.80}", "a number of steps")
    if wrong := error_in(kind, record):
        raise _refusal(file, number, wrong, "the fields of outputs/METRICS.md")
    if kind == "step" and not sum(record.get(f"{part}_share", 0.0) for part in PAUSES) < 1:
        raise _refusal(file, number, "a step whose pauses took all of its time", "shares that add up to 1")


def _refusal(file: Path, number: int, found: str, expected: str) -> UserError:
    return UserError(
        found=f"{found} in {file}, line {number}", expected=expected, fix="restore the file as the run wrote it"
    )
