"""Second stop of the report: phases and question-answering scores -> the numbers of report.json, and a short table."""

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.metrics import MAX_COUNT
from bert_lamb.outputs.read_back import read_object
from bert_lamb.report.layers import interval_of, rows_of
from bert_lamb.report.metrics import NORM_FIELDS, Phase, Record, Run
from bert_lamb.report.speed import describe_speed

SCORES_FILE = "scores.json"
POINTS, QUESTIONS = ("exact_match", "f1"), ("num_questions", "num_unanswered")  # of it
WATCHED = ("loss", "grad_norm")  # what a step may report as not finite, when it overflowed


def summarise(run: Run, scores: list[Record]) -> dict[str, Any]:
    """Everything report.json holds, but for the versions."""
    phases = [describe_phase(phase) for phase in run.phases]
    heldout = [describe_heldout(phase) for phase in run.phases if phase.heldout]
    scores = compare_with_baselines(scores)
    notes = run.notes + find_oddities(run)
    return {
        "sentences": tell(phases, heldout, scores),
        "notes": notes,
        "phases": phases,
        "speed": describe_speed(run),
        "heldout": heldout,
        "scores": scores,
        "trust_ratios": describe_trust_ratios(run),
        "num_steps": sum(phase["num_steps"] for phase in phases),
        "num_sequences": sum(phase["num_sequences"] for phase in phases),
        "num_token_positions": sum(phase["num_token_positions"] for phase in phases),
        "num_skipped_steps": sum(phase["num_skipped_steps"] for phase in phases),
        "num_resumes": run.num_resumes,
        "train_seconds": total(phase["train_seconds"] for phase in phases),
    }


def describe_phase(phase: Phase) -> Record:
    """A row of the table of phases.

    num_token_positions counts padding. train_seconds is the time in steps, without evaluation; where not every step
    was logged, the logged ones stand for the rest.
    """
    num_sequences = phase.num_steps * phase.global_batch_size
    train_seconds = fmean(one["seconds"] for one in phase.steps) * phase.num_steps if phase.steps else None
    return {
        "name": phase.name,
        "num_steps": phase.num_steps,
        "total_steps": phase.total_steps,
        "max_seq_length": phase.max_seq_length,
        "global_batch_size": phase.global_batch_size,
        "num_sequences": num_sequences,
        "num_token_positions": num_sequences * phase.max_seq_length,
        "num_skipped_steps": sum(not one["is_applied"] for one in phase.steps),
        "train_seconds": train_seconds,
        "sequences_per_second": num_sequences / train_seconds if train_seconds else None,
        "first_loss": phase.steps[0]["loss"] if phase.steps else None,
        "final_loss": phase.steps[-1]["loss"] if phase.steps else None,
    }


def describe_heldout(phase: Phase) -> Record:
    """A row of the held-out table: the last evaluation of the phase against guessing each token by its frequency.

    Losses in nats; perplexity is e to the loss. mlm_loss_before: of the weights that the phase began with, where it was
    measured. What the run did not measure is None.
    """
    last = phase.heldout[-1]
    unigram = last.get("unigram_cross_entropy")
    return {
        "phase": phase.name,
        "step": last["step"],
        "num_instances": last["num_instances"],
        "mlm_loss": last["mlm_loss"],
        "mlm_loss_before": phase.heldout[0]["mlm_loss"] if phase.heldout[0]["step"] == 0 else None,
        "mlm_perplexity": perplexity(last["mlm_loss"]),
        "mlm_accuracy": last["mlm_accuracy"],
        "unigram_cross_entropy": unigram,
        "unigram_perplexity": perplexity(unigram),
        "gain_over_unigram": None if unigram is None else unigram - last["mlm_loss"],
        "nsp_loss": last.get("nsp_loss"),
        "nsp_accuracy": last.get("nsp_accuracy"),
    }


def describe_trust_ratios(run: Run) -> list[Record]:
    """Per phase, the median over its records of each parameter's trust ratio and norms; empty without any record.

    Parameters are in the order of the heat maps' rows. None where no finite number was recorded; a record that was due
    and is missing is one of a skipped step.
    """
    interval_steps, rows = interval_of(run), rows_of(run)

    def middle(phase: Phase, quantity: str, name: str) -> float | None:
        values = [record[quantity].get(name, math.nan) for record in phase.trust_ratios]
        return median(finite) if (finite := [value for value in values if math.isfinite(value)]) else None

    return [
        {
            "phase": phase.name,
            "interval_steps": interval_steps,
            "num_records": len(phase.trust_ratios),
            "num_missing_records": phase.num_steps // interval_steps - len(phase.trust_ratios),
            "parameters": [
                {"name": row.name, **{quantity: middle(phase, quantity, row.name) for quantity in NORM_FIELDS}}
                for row in rows
            ],
        }
        for phase in run.phases
        if interval_steps
    ]


def perplexity(nats: float | None) -> float | None:
    """e to the cross-entropy; None where that is more than a float holds."""
    return math.exp(nats) if nats is not None and nats < 700 else None


def read_scores(label: str, folder: Path, *, option: str) -> Record:
    """The part of a `bert-lamb squad` result that a report quotes, under `label`. option: what names the folder."""
    file, fix = folder / SCORES_FILE, f"set {option}, or restore the file as the run wrote it"
    result = read_object(file, expected="a finished output of `bert-lamb squad`", fix=fix)
    found: Record = {name: result.get(name) for name in ("dataset_name", *POINTS, *QUESTIONS)}
    config: Any = result.get("config")
    is_sound = (
        isinstance(found["dataset_name"], str)
        and all(type(found[name]) in (int, float) and 0 <= found[name] <= 100 for name in POINTS)
        and all(type(found[name]) is int and 0 <= found[name] < MAX_COUNT for name in QUESTIONS)
        and isinstance(config, dict)
        and "initial_weights" in config
    )
    if not is_sound:
        raise UserError(
            found=f"{file} with {found}"[:500],
            expected="scores of `bert-lamb squad`, in percent, their numbers of questions and their config",
            fix=fix,
        )
    return {"label": label, **found, "is_baseline": config["initial_weights"] == "random"}


def compare_with_baselines(scores: list[Record]) -> list[Record]:
    """Each score with its lead, in points, over every baseline (random weights) on the same questions."""
    baselines = [one for one in scores if one["is_baseline"]]
    return [
        {
            **one,
            "leads": [
                {
                    "over": baseline["label"],
                    "exact_match": one["exact_match"] - baseline["exact_match"],
                    "f1": one["f1"] - baseline["f1"],
                }
                for baseline in baselines
                if not one["is_baseline"]
                and (one["dataset_name"], one["num_questions"]) == (baseline["dataset_name"], baseline["num_questions"])
            ],
        }
        for one in scores
    ]


def find_oddities(run: Run) -> list[str]:
    """What the plots and sums do not show, each as a sentence."""
    notes = []
    for phase in run.phases:
        num_odd = sum(any(not math.isfinite(one[name]) for name in WATCHED) for one in phase.steps)
        if num_odd:
            notes.append(
                f"{phase.name}: {num_odd} of {len(phase.steps)} logged steps have a loss or gradient norm "
                "that is not finite; the plots leave them out."
            )
        if len(phase.steps) < phase.num_steps:
            notes.append(
                f"{phase.name}: {len(phase.steps)} of {phase.num_steps} steps were logged; skipped steps are counted "
                "among these, and their mean time stands for all."
            )
        norms = [value for one in phase.trust_ratios for field in NORM_FIELDS for value in one[field].values()]
        num_odd = sum(not 0 < value < math.inf for value in norms)
        if num_odd:
            notes.append(
                f"{phase.name}: {num_odd} of {len(norms):,} recorded trust ratios and norms are 0 or not finite; "
                "the heat maps leave them out."
            )
        if phase.num_steps < phase.total_steps and not phase.is_at_target:
            notes.append(f"{phase.name} is unfinished: {phase.num_steps} of {phase.total_steps} steps.")
    if run.num_resumes:
        notes.append(f"The run was resumed {run.num_resumes} times.")
    return notes


def tell(phases: list[Record], heldout: list[Record], scores: list[Record]) -> list[str]:
    """The result in plain sentences."""
    seconds = total(phase["train_seconds"] for phase in phases)
    num_sequences = sum(phase["num_sequences"] for phase in phases)
    sentences = [
        f"{sum(phase['num_steps'] for phase in phases):,} steps in {len(phases)} phase{'s' * (len(phases) > 1)}, "
        f"{num_sequences:,} sequences" + (f" at {num_sequences / seconds:,.1f} a second." if seconds else ".")
    ]
    if heldout:
        last = heldout[-1]
        sentence = f"Held-out masked-LM loss after {last['phase']}: {last['mlm_loss']:.3f} nats"
        if last["unigram_cross_entropy"] is not None:
            sentence += f", against {last['unigram_cross_entropy']:.3f} for guessing by word frequency"
        if heldout[0]["mlm_loss_before"] is not None:
            sentence += f" and {heldout[0]['mlm_loss_before']:.3f} before the first step of {heldout[0]['phase']}"
        sentences.append(f"{sentence}; {last['mlm_accuracy']:.1%} of the masked tokens are right.")
    for one in scores:
        leads = [f"{lead['f1']:+.2f} F1 over {lead['over']}" for lead in one["leads"]]
        sentences.append(
            f"{one['label']} on {one['dataset_name']}: exact match {one['exact_match']:.2f}, F1 {one['f1']:.2f}"
            + (f" ({', '.join(leads)})." if leads else ".")
        )
    return sentences


def total(values: Iterable[float | None]) -> float | None:
    """Their sum; None if none is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def as_table(content: Record) -> str:
    """The report in a few lines for a terminal."""

    def cell(value: float | None, digits: int = 0) -> str:
        return "-" if value is None else f"{value:,.{digits}f}"

    heldout = {row["phase"]: row for row in content["heldout"]}
    phases: list[tuple[str, ...]] = [
        ("phase", "steps", "length", "batch", "sequences/s", "first loss", "final loss", "held-out", "word frequency")
    ]
    for phase in content["phases"]:
        measured = heldout.get(phase["name"], {})
        phases.append(
            (
                phase["name"],
                *(cell(phase[name]) for name in ("num_steps", "max_seq_length", "global_batch_size")),
                cell(phase["sequences_per_second"], 1),
                *(cell(phase[name], 3) for name in ("first_loss", "final_loss")),
                *(cell(measured.get(name), 3) for name in ("mlm_loss", "unigram_cross_entropy")),
            )
        )
    blocks = [align(phases)]
    if content["scores"]:
        scores: list[tuple[str, ...]] = [("model", "exact match", "F1", "questions", "question set")]
        for one in content["scores"]:
            figures = (cell(one["exact_match"], 2), cell(one["f1"], 2), cell(one["num_questions"]))
            scores.append((one["label"], *figures, one["dataset_name"]))
        blocks.append(align(scores))
    if content["notes"]:
        blocks.append("\n".join(content["notes"]))
    return "\n\n".join(blocks)


def align(rows: list[tuple[str, ...]]) -> str:
    """Columns of equal width: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
