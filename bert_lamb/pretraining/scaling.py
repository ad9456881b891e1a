"""What the global batch size decides: peak lr, warm-up and number of steps of phases that leave them open. Pure."""

import math
from dataclasses import fields
from fractions import Fraction
from itertools import pairwise
from typing import Any

from bert_lamb.errors import UserError, UserErrors
from bert_lamb.train.schedule import Schedule

PAPER_LR, PAPER_BATCH = 5e-3, 32_768
PAPER_SEQUENCES, PAPER_WARMUP_STEPS = 512_000_000, 3_125
AGREEMENT = 1e-4  # relative; a recipe writes five digits of 5e-3 / sqrt(8)
RULES = {
    "none": [],
    "lamb_paper": [
        "lamb_paper: peak lr 5e-3 sqrt(batch / 32,768), warm-up batch / 163,840 of a phase's steps",
        "from the table of You et al. 2020 (arXiv 1904.00962): 3,125 warm-up steps of 512,000,000 / batch;"
        " that it holds beyond 512..32,768 nobody has shown",
    ],
    "linear": ["linear: peak lr scaling_base_lr x batch / scaling_base_batch_size (Goyal et al. 2017)"],
    "sqrt": ["sqrt: peak lr scaling_base_lr x sqrt(batch / scaling_base_batch_size) (Krizhevsky 2014)"],
}
OF_CURVE = {field.name for field in fields(Schedule)} - {"total_steps", "steps_before", "steps_after", "decay_end"}


def lamb_paper(batch: int) -> dict[str, float]:
    """peak_lr and warmup_proportion for a global batch of so many sequences; a proportion above 1 is no schedule.

    Source: the table of You et al. 2020, of whose rows this is what they have in common: lr 5 / (2^k 1000) with k half
    the number of halvings of the batch from 32K, and 3,125 warm-up steps of 512,000,000 / batch in all.
    """
    return {
        "peak_lr": PAPER_LR * math.sqrt(batch / PAPER_BATCH),
        "warmup_proportion": PAPER_WARMUP_STEPS * batch / PAPER_SEQUENCES,
    }


def derived(batch: int, *, scaling: str, base_lr: float | None, base_batch_size: int | None) -> dict[str, float]:
    """What the rule says for a global batch of so many sequences."""
    match scaling:
        case "lamb_paper":
            return lamb_paper(batch)
        case "linear" | "sqrt":
            assert base_lr is not None
            assert base_batch_size is not None
            return {"peak_lr": base_lr * (batch / base_batch_size) ** (1.0 if scaling == "linear" else 0.5)}
    return {}


def total_steps(num_sequences: list[Fraction | int], batches: list[int]) -> list[int]:
    """Steps of phases on so many sequences at these batches.

    What is rounded, a half up, is the step at which each phase ends, so that the run's total is right: the paper's
    14,062.5 + 1,562.5 steps become its 14,063 + 1,562.
    """
    ends, before = [0], Fraction(0)
    for number, batch in zip(num_sequences, batches, strict=True):
        before += Fraction(number, batch)
        ends.append(math.floor(before + Fraction(1, 2)))
    return [end - start for start, end in pairwise(ends)]


def settled(plain: dict[str, Any]) -> dict[str, Any]:
    """The configuration, as a plain tree, with everything in its phases that they leave to a rule.

    A value that is there already must be the rule's, so what was settled can be settled again. Raises UserErrors.
    """
    phases = {name: dict(phase) for name, phase in plain["phases"].items()}
    complaints: list[UserError] = []
    counts = [phase["num_sequences"] or phase["total_steps"] * phase["global_batch_size"] for phase in phases.values()]
    steps = total_steps(counts, [phase["global_batch_size"] for phase in phases.values()])
    first = next(iter(phases.values()), {})
    for index, (name, phase) in enumerate(phases.items()):
        rule: dict[str, Any] = {}
        if phase["num_sequences"] is not None:
            rule["total_steps"] = steps[index]
        if index > 0 and plain["decay_over"] == "run":
            rule |= {key: first[key] for key in OF_CURVE}
            phase |= dict.fromkeys(OF_CURVE)
        else:
            rule |= derived(
                phase["global_batch_size"],
                scaling=plain["scaling"],
                base_lr=plain["scaling_base_lr"],
                base_batch_size=plain["scaling_base_batch_size"],
            )
        complaints += [
            UserError(
                found=f"phases.{name}.{key}={phase[key]}",
                expected=f"{value:.6g}, by scaling={plain['scaling']} or num_sequences",
                fix=f"set phases.{name}.{key}=null, or scaling=none",
            )
            for key, value in rule.items()
            if phase[key] is not None and not math.isclose(phase[key], value, rel_tol=AGREEMENT)
        ]
        phase |= {key: value for key, value in rule.items() if phase[key] is None}
        complaints += _impossible(name, phase)
    if complaints:
        raise UserErrors(complaints)
    return {**plain, "phases": phases}


def _impossible(name: str, phase: dict[str, Any]) -> list[UserError]:
    """What a rule may come to beyond what it was made for."""
    batch, found = phase["global_batch_size"], []
    if phase["warmup_proportion"] > 1:
        found.append(
            UserError(
                found=f"phases.{name}.global_batch_size={batch}, for which the rule's warm-up is"
                f" {phase['warmup_proportion']:.3g} of the steps",
                expected=f"at most {PAPER_SEQUENCES // PAPER_WARMUP_STEPS} with scaling=lamb_paper",
                fix=f"set phases.{name}.global_batch_size, or scaling=none",
            )
        )
    if phase["total_steps"] == 0:
        found.append(
            UserError(
                found=f"phases.{name}.num_sequences={phase['num_sequences']}, fewer than half a batch of {batch}",
                expected="one step or more",
                fix=f"set phases.{name}.num_sequences",
            )
        )
    return found
