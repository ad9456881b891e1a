"""metrics.jsonl: what a run logs while it trains. METRICS.md explains each field; FIELDS is the table that holds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from bert_lamb.outputs.atomic import write_atomically

MAX_COUNT = 2**63  # a whole number of more is no count
Kind = Literal["number", "flag", "by_parameter"]  # by_parameter: parameter name -> number


@dataclass(frozen=True)
class Field:
    """is_required: each line of its kind has it; others have it where it means something."""

    kind: Kind = "number"
    is_required: bool = True


OPTIONAL = Field(is_required=False)
OPTIONAL_FLAG = Field("flag", is_required=False)
NUMBER = Field()

# Where the time between two lines of steps goes; the shares add up to 1.
PARTS = ("data", "forward_backward", "optimizer", "agreement", "logging", "evaluation", "checkpoint")
PAUSES = ("evaluation", "checkpoint")  # of training: rates leave them out

# kind of line -> its fields, beside kind, phase and step, which every line has.
FIELDS: dict[str, dict[str, Field]] = {
    "phase_start": {
        "max_seq_length": NUMBER,
        "global_batch_size": NUMBER,
        "micro_batch_size": OPTIONAL,
        "gradient_accumulation_steps": OPTIONAL,
        "world_size": OPTIONAL,
        "total_steps": NUMBER,
        "total_sequences": OPTIONAL,
        "num_instances": OPTIONAL,
        "num_parameters": OPTIONAL,
        "peak_tflops": OPTIONAL,
        "is_peak_measured": OPTIONAL_FLAG,
    },
    "resume": {"world_size": OPTIONAL, "peak_tflops": OPTIONAL, "is_peak_measured": OPTIONAL_FLAG},
    "step": {
        "lr": NUMBER,
        "loss": NUMBER,
        "mlm_loss": OPTIONAL,
        "mlm_accuracy": OPTIONAL,
        "nsp_loss": OPTIONAL,
        "accuracy": OPTIONAL,
        "grad_norm": NUMBER,
        "trust_ratio_min": OPTIONAL,
        "trust_ratio_median": OPTIONAL,
        "trust_ratio_max": OPTIONAL,
        "is_applied": Field("flag"),
        "num_sequences": NUMBER,
        "num_tokens": OPTIONAL,
        "seconds": NUMBER,
        "sequences_per_second": NUMBER,
        "tokens_per_second": OPTIONAL,
        "positions_per_second": OPTIONAL,
        "fill": OPTIONAL,
        "model_tflops": OPTIONAL,
        "mfu": OPTIONAL,
        **{f"{part}_share": OPTIONAL for part in PARTS},
        "peak_allocated_bytes": OPTIONAL,
        "peak_reserved_bytes": OPTIONAL,
        "peak_rss_bytes": OPTIONAL,
        "loss_scale": OPTIONAL,
        "num_graphs": OPTIONAL,
    },
    "heldout": {
        "mlm_loss": NUMBER,
        "mlm_accuracy": NUMBER,
        "nsp_loss": OPTIONAL,
        "nsp_accuracy": OPTIONAL,
        "num_instances": NUMBER,
        "unigram_cross_entropy": OPTIONAL,
    },
    "trust_ratios": {name: Field("by_parameter") for name in ("trust_ratio", "param_norm", "update_norm")},
    "scores": {"exact_match": NUMBER, "f1": NUMBER, "num_questions": NUMBER},
    "glue_scores": {
        "num_examples": NUMBER,
        **dict.fromkeys(("accuracy", "f1", "matthews", "pearson", "spearman"), OPTIONAL),
    },
    "image_scores": {"loss": NUMBER, "accuracy": NUMBER, "num_instances": NUMBER},
    "rollback": {"spike_step": NUMBER, "batches_skipped": NUMBER},
    "target_reached": {"seconds": OPTIONAL},
    "phase_end": {"seconds": OPTIONAL},
}


def error_in(kind: str, fields: dict[str, Any]) -> str | None:
    """What is wrong with the fields of a line of this kind, or None; fields of no table are left to their writer."""
    for name, field in FIELDS[kind].items():
        value = fields.get(name)
        if value is None and name not in fields and not field.is_required:
            continue
        if field.kind == "number" and not is_number(value):
            return f"a {kind} with {name} {value!r:.80}, which is no number"
        if field.kind == "flag" and not isinstance(value, bool):
            return f"a {kind} with {name} {value!r:.80}, which is neither true nor false"
        if field.kind == "by_parameter" and not (isinstance(value, dict) and all(map(is_number, value.values()))):
            return f"{kind} with {name} {value!r:.80}, which is no mapping of parameter names to numbers"
    return None


def is_number(value: Any) -> bool:
    """Any float, a loss that overflowed too, or a whole number that a float can stand for."""
    return isinstance(value, float) or (type(value) is int and abs(value) < MAX_COUNT)


class MetricsLog:
    """One JSON object a line, flushed as it is written, so that a killed run keeps what it logged.

    The file is opened at the first line. Raises ValueError for a kind or a field that FIELDS does not have.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: IO[str] | None = None

    def write(self, kind: str, *, phase: str, step: int, **fields: Any) -> None:
        unknown = sorted(fields.keys() - FIELDS[kind].keys()) if kind in FIELDS else [kind]
        wrong = f"{', '.join(unknown)} in no table" if unknown else error_in(kind, fields)
        if wrong:
            raise ValueError(f"{self.path.name}: {wrong}")
        if self._stream is None:
            self._stream = self.path.open("a", encoding="utf-8")
        self._stream.write(json.dumps({"kind": kind, "phase": phase, "step": step, **fields}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Until the next line."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def forget_metrics_after(path: Path, *, finished_phases: set[str], phase: str, step: int) -> None:
    """Drop the lines that a resumed run will write again: later steps of `phase`, and phases not yet begun.

    So is a line that is no record, such as a last one cut short by a kill.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
            name, at = record["phase"], record["step"]
            is_kept = name in finished_phases or (name == phase and at <= step)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if is_kept:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept))
