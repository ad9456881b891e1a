"""What is broken: a pretraining in two phases, a fine-tuning, an export, of a size that takes seconds.

Every global batch can be dealt to one, two and three ranks.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.outputs.run_dir import METRICS_FILE, RunDir
from tests.golden.curves import make_model_folder, make_questions
from tests.synthetic import make_shards

MAX_DISTANCE = 1e-6  # ||w - w'|| / ||w'|| over all weights, where ranks or engines changed
MEASURED = ("seconds", "_per_second", "_tflops", "mfu", "_share", "_bytes")  # fields that differ from run to run
INTERVAL_STEPS = 2  # between checkpoints, and between evaluations
COMMON = [
    "runtime.device=cpu",
    "runtime.num_threads=1",
    "runtime.peak_tflops=1",
    f"checkpoint.interval_steps={INTERVAL_STEPS}",
    "checkpoint.keep_last=2",
    "logging.interval_steps=1",
    "optimizer.eps=1e-4",  # with less, rounding in a gradient that nearly cancels becomes a whole step
]
PRETRAINING = [
    "recipe=demo",
    "model.num_layers=1",
    "model.hidden_size=32",
    "model.num_heads=2",
    "model.intermediate_size=48",
    "phases.phase1.max_seq_length=16",
    "phases.phase1.max_predictions_per_seq=3",
    "phases.phase1.global_batch_size=24",
    "phases.phase1.total_steps=8",
    "phases.phase1.peak_lr=8e-3",
    "phases.phase2.max_seq_length=32",
    "phases.phase2.max_predictions_per_seq=5",
    "phases.phase2.global_batch_size=12",
    "phases.phase2.total_steps=6",
    "phases.phase2.peak_lr=4e-3",
    "runtime.micro_batch_size.phase1=8",
    "runtime.micro_batch_size.phase2=4",
    "evaluation.micro_batch_size=4",
    "evaluation.max_instances=16",
    f"evaluation.interval_steps={INTERVAL_STEPS}",
    "logging.trust_ratio_interval_steps=0",
]
FINE_TUNING = [
    "max_seq_length=24",
    "doc_stride=8",
    "max_query_length=8",
    "global_batch_size=6",
    "peak_lr=1e-3",
    "num_epochs=6",
    "runtime.micro_batch_size.fine_tuning=2",
]


@dataclass(frozen=True)
class Machine:
    """words: of the command line. max_ranks: that it can have."""

    name: str
    words: tuple[str, ...]
    max_ranks: int = 3


def _machines() -> dict[str, Machine]:
    machines = []
    for precision in ("fp32", "bf16"):
        of_precision = f"runtime.precision={precision}"
        machines.append(Machine(f"torch {precision}", ("runtime.engine=torch", of_precision), max_ranks=1))
        machines.append(Machine(f"fsdp {precision}", ("runtime.engine=fsdp", of_precision)))
        for stage in (0, 1, 2, 3) if precision == "fp32" else (1, 2, 3):
            words = ("runtime.engine=deepspeed", f"runtime.zero_stage={stage}", of_precision)
            machines.append(Machine(f"ZeRO {stage} {precision}", words))
    return {machine.name: machine for machine in machines}


MACHINES = _machines()


@dataclass
class Material:
    """Shards, model folders and questions. dropout: probability in every model."""

    folder: Path

    def make(self) -> None:
        self.folder.mkdir()
        make_shards(self.folder / "shards")
        make_questions(self.folder / "questions.json")
        for name, dropout in (("model", 0.0), ("model-dropout", 0.1)):
            make_model_folder(self.folder / name)
            file = self.folder / name / "config.json"
            sizes = json.loads(file.read_text())
            dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
            file.write_text(json.dumps({**sizes, **dropouts}))


@dataclass(frozen=True)
class Program:
    """One of the commands. phases: name -> steps. has_dropout: its draws follow the cut of the batch."""

    name: str
    phases: Mapping[str, int]
    material: Material
    has_dropout: bool

    def words(self, run_dir: Path, machine: Machine) -> list[str]:
        """The command line that begins or continues it."""
        folder = self.material.folder
        if self.name == "export":
            return ["export", f"run_dir={run_dir.with_name('trained')}", f"output_dir={run_dir}", "if_exists=resume"]
        common = [*COMMON, *machine.words, f"run_dir={run_dir}", "if_exists=resume"]
        if self.name == "pretraining":
            dropout = f"model.dropout={0.1 if self.has_dropout else 0.0}"
            return ["pretrain", *PRETRAINING, dropout, f"shards={folder / 'shards'}", *common]
        model = folder / ("model-dropout" if self.has_dropout else "model")
        files = [f"{key}={folder / 'questions.json'}" for key in ("train_file", "eval_file")]
        return ["squad", f"model_dir={model}", *files, *FINE_TUNING, *common]

    def newest(self, run_dir: Path) -> tuple[str, int] | None:
        """(phase, step) of the newest checkpoint that is there."""
        found = [(phase, step) for phase, step, _ in RunDir(run_dir).checkpoint_folders() if phase in self.phases]
        order = list(self.phases)
        return max(found, key=lambda one: (order.index(one[0]), one[1]), default=None)

    def total_step(self, position: tuple[str, int] | None) -> int:
        """Steps since the start of the run."""
        if position is None:
            return 0
        phases = list(self.phases)
        return sum(self.phases[name] for name in phases[: phases.index(position[0])]) + position[1]

    def reached(self, run_dir: Path) -> int:
        """Steps since the start of the run by the last whole line of metrics.jsonl."""
        steps = [(one["phase"], one["step"]) for one in records_of(run_dir) if one["kind"] == "step"]
        return self.total_step(steps[-1]) if steps else 0


def records_of(run_dir: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    file = run_dir / METRICS_FILE
    records = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue  # cut short by a kill
    return records


def differences(program: Program, found: Path, expected: Path, *, is_same_machine: bool) -> tuple[list[str], float]:
    """What is not as in the undisturbed run; and the relative distance of the weights."""
    if program.name == "export":
        hashes = [{file.name: file_sha256(file) for file in folder.iterdir()} for folder in (found, expected)]
        return ([] if hashes[0] == hashes[1] else ["files of the export"]), 0.0
    wrong, distance = _of_weights(found, expected)
    if not is_same_machine:
        wrong = ["weights"] if distance > MAX_DISTANCE else []
    lines = [_lasting(records_of(folder), with_values=is_same_machine) for folder in (found, expected)]
    if lines[0] != lines[1]:
        wrong.append("lines of metrics.jsonl")
    for name in ("predictions.json", "nbest_predictions.json", "answers.html") if program.name == "fine-tuning" else ():
        is_exact = is_same_machine or name == "predictions.json"
        if is_exact and (found / name).read_bytes() != (expected / name).read_bytes():
            wrong.append(name)
    if program.name == "fine-tuning" and not (found / "scores.json").exists():
        wrong.append("scores.json")
    return wrong, distance


def _of_weights(found: Path, expected: Path) -> tuple[list[str], float]:
    """(kinds of tensors of which not every bit is the same, distance of the weights)."""
    ours, theirs = (Checkpoint(RunDir(folder).checkpoint("latest")) for folder in (found, expected))
    ours.check_bytes()
    wrong = [] if ours.position == theirs.position else ["position"]
    squares = torch.zeros(2, dtype=torch.float64)
    for kind in theirs.meta["tensor_kinds"]:
        is_same = True
        for name, shape in theirs.shapes.items():
            one, other = (side.read(kind, name, 0, shape.numel()) for side in (ours, theirs))
            is_same = is_same and torch.equal(one, other)
            if kind == "weight":
                squares[0] += (one.double() - other.double()).square().sum()
                squares[1] += other.double().square().sum()
        if not is_same:
            wrong.append(kind)
    return wrong, float((squares[0] / squares[1]).sqrt())


def _lasting(records: list[dict[str, Any]], *, with_values: bool) -> list[Any]:
    """What every run of the same kind must have, once and in this order. with_values: the numbers too."""
    kept = [one for one in records if one["kind"] != "resume"]
    if with_values:
        return [{k: v for k, v in one.items() if not k.endswith(MEASURED)} for one in kept]
    return [(one["kind"], one["phase"], one["step"]) for one in kept]
