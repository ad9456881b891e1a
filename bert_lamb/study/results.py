"""What a run of a study came to, from its own metrics.jsonl: nothing in it depends on how often it was interrupted."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_lamb.outputs.run_dir import METRICS_FILE
from bert_lamb.report.metrics import Record, Run, read_metrics

MAX_POINTS = 64  # of a curve
FIELDS = {
    "heldout_loss",
    "unigram_cross_entropy",
    "num_steps",
    "peak_lr",
    "diverged",
    "curve",
    "batch",
    "seed",
    "tuned",
}


def result_of(run_dir: Path, *, reason: str | None) -> dict[str, Any]:
    """The result of a run that has ended. reason: why its guards stopped it; None: it did all of its steps.

    heldout_loss is None where the run diverged: it was stopped, or its last held-out loss is not finite.
    """
    run = read_metrics(run_dir / METRICS_FILE)
    last = run.phases[-1]
    heldout = last.heldout[-1] if last.heldout and reason is None else None
    is_finished = heldout is not None and math.isfinite(heldout["mlm_loss"])
    if reason is None and not is_finished:
        reason = f"a held-out loss of {heldout['mlm_loss']}" if heldout else "no held-out loss"
    steps = [one for phase in run.phases for one in phase.steps]
    return {
        "heldout_loss": heldout["mlm_loss"] if heldout and is_finished else None,
        "heldout_accuracy": heldout["mlm_accuracy"] if heldout and is_finished else None,
        "unigram_cross_entropy": heldout.get("unigram_cross_entropy") if heldout else None,
        "num_steps": sum(phase.num_steps for phase in run.phases),
        "num_skipped_steps": sum(not one["is_applied"] for one in steps),
        "peak_lr": max((one["lr"] for one in steps), default=None),
        "diverged": None if is_finished else {"phase": last.name, "step": diverged_at(last.steps), "reason": reason},
        "curve": curve_of(run),
    }


def diverged_at(steps: list[Record]) -> int | None:
    """The step after which none was applied with a finite loss, or else the last; None without steps."""
    sound = [one["step"] for one in steps if one["is_applied"] and math.isfinite(one["loss"])]
    later = [one["step"] for one in steps if one["step"] > max(sound, default=0)]
    return later[0] if later else (steps[-1]["step"] if steps else None)


def curve_of(run: Run) -> dict[str, list[float | None]]:
    """Sequences seen, and the mean masked-LM loss (nats) over as many steps that there are MAX_POINTS at most.

    None stands for what is not finite.
    """
    seen, points = 0, []
    for phase in run.phases:
        points += [(seen + one["step"] * phase.global_batch_size, one["mlm_loss"]) for one in phase.steps]
        seen += phase.num_steps * phase.global_batch_size
    width = max(1, math.ceil(len(points) / MAX_POINTS))
    means = [(chunk[-1][0], sum(loss for _, loss in chunk) / len(chunk)) for chunk in _chunks(points, width)]
    return {
        "sequences": [sequences for sequences, _ in means],
        "loss": [loss if math.isfinite(loss) else None for _, loss in means],
    }


def _chunks(points: list[tuple[int, float]], width: int) -> Iterator[list[tuple[int, float]]]:
    return (points[start : start + width] for start in range(0, len(points), width))
