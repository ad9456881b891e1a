"""`runtime.micro_batch_size=auto`: as many sequences as the device's memory holds beside the state of the training.

Found before anything is written, by micro-steps of full rows that double in number, with the stage's own model in the
precision of the forward pass. The peak of n rows is a maximum of lines a + b n with a >= 0 (what does not depend on n,
and what is kept for each row), so peak(n) / n never grows with n. Hence 2 n rows are tried only where twice the peak of
n fits, nothing runs out of memory, and room / (peak(n) / n) rows fit; the larger n, the fewer are given away.
"""

import json
import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from bert_lamb.engine.agreement import from_rank_0, of_all_ranks, together
from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.engine.launch import Process
from bert_lamb.engine.memory import peak_of, usable_bytes
from bert_lamb.engine.state_size import state_bytes
from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.run_dir import MICRO_BATCH_FILE, RunDir

TRIED_TOKENS = {
    "cuda": 1 << 24,
    "cpu": 2048,
}  # at most; a CPU takes seconds for these, and all the memory is not needed
OF_MEMORY = (  # of the runtime
    "engine",
    "precision",
    "zero_stage",
    "offload_optimizer",
    "attention",
    "activation_checkpointing",
    "deepspeed_overrides",
)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Trial:
    """A stage whose micro-batch is to be found.

    about: what the memory depends on beside the runtime, as plain values. build: the model, fp32, on the CPU, to be run
    as in training. loss: of so many full rows on a device. mean_length: tokens of a row of the stage. max_sequences:
    more are of no use.
    """

    stage: str
    about: dict[str, object]
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, int, torch.device], Tensor]
    max_seq_length: int
    mean_length: float
    is_padded: bool
    max_sequences: int


@dataclass(frozen=True)
class Fit:
    """What was found for a stage. full_rows: of max_seq_length tokens; sequences: of the stage's mean length."""

    full_rows: int
    sequences: int
    row_bytes: float
    state_bytes: float
    usable_bytes: int

    def describe(self, stage: str) -> str:
        """A line for the start of a run."""
        return (
            f"memory   {stage}: {self.sequences:,} sequences fit: {self.row_bytes / 1e6:,.1f} MB a full row beside"
            f" {self.state_bytes / 1e9:,.2f} GB of weights, gradients and moments, of {self.usable_bytes / 1e9:,.1f} GB"
        )


def with_fitting_micro_batches(
    runtime: RuntimeSettings, trials: Sequence[Trial], process: Process, run_dir: RunDir
) -> tuple[RuntimeSettings, dict[str, Fit]]:
    """The runtime with the sizes that fit on every rank; what was found, or is remembered in `run_dir`, by stage.

    Raises UserError where not even one row fits. Every rank calls it; nothing is written (see `remember`).
    """
    ranks_on_host = of_all_ranks(process, socket.gethostname()).count(socket.gethostname())
    fits: dict[str, Fit] = {}
    for trial in trials:
        usable = usable_bytes(process.device, ranks_on_host=ranks_on_host)
        usable = min(of_all_ranks(process, usable))
        remembered = from_rank_0(process, _remembered(run_dir, _key(trial, runtime, process, usable)))
        with together(process):
            fit = remembered or find(trial, runtime, process, usable)
        fits[trial.stage] = min(of_all_ranks(process, fit), key=lambda one: one.sequences)
    sizes = {stage: fit.sequences for stage, fit in fits.items()}
    return replace(runtime, micro_batch_size=sizes, micro_batch_tokens=None), fits


def find(trial: Trial, runtime: RuntimeSettings, process: Process, usable: int) -> Fit:
    """Try micro-steps on this rank's device; raises UserError where not even one row fits."""
    device = process.device
    model = trial.build().train()
    of_state = state_bytes(runtime, sum(p.numel() for p in model.parameters()), process.world_size)
    room = usable - of_state
    max_rows = min(trial.max_sequences, max(1, TRIED_TOKENS[device.type] // trial.max_seq_length))
    row_bytes = bytes_of_a_row(partial(peak_of_micro_step, trial, model, runtime, device), room, max_rows)
    full_rows = int(room / row_bytes)
    if full_rows < 1:
        raise UserError(
            found=f"{usable / 1e9:.2f} GB of memory for a rank, {of_state / 1e9:.2f} GB of weights, gradients and"
            f" moments, and {row_bytes / 1e9:.2f} GB for one row of {trial.max_seq_length} tokens",
            expected="room for one row",
            fix="set runtime.activation_checkpointing=true, start more ranks, or take a smaller model",
        )
    rows_of_tokens = 1.0 if trial.is_padded else trial.max_seq_length / trial.mean_length
    return Fit(full_rows, int(full_rows * rows_of_tokens), row_bytes, of_state, usable)


def peak_of_micro_step(
    trial: Trial, model: nn.Module, runtime: RuntimeSettings, device: torch.device, num_rows: int
) -> int:
    """Bytes that forward and backward of so many full rows take at once, beyond weights and gradients.

    Gradients are there before, as `state_bytes` has them, so that what does not grow with the rows is little.
    """
    is_autocast = runtime.engine == "torch" and runtime.precision != "fp32"
    model.to(device, torch.float32 if is_autocast else DTYPES[runtime.precision])
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    context = torch.autocast(device.type, torch.bfloat16) if is_autocast else nullcontext()
    with peak_of(device) as peak:
        with context:
            loss = trial.loss(model, num_rows, device)
        loss.backward()
    return peak.bytes


def bytes_of_a_row(peak: Callable[[int], float], room: float, max_rows: int) -> float:
    """peak(n) / n for the largest n, doubled from 1, that fits surely and is not above max_rows."""
    num_rows, taken = 1, peak(1)
    while 2 * taken <= room and 2 * num_rows <= max_rows:
        num_rows *= 2
        taken = peak(num_rows)
    return taken / num_rows


def remember(
    run_dir: RunDir, fits: dict[str, Fit], trials: Sequence[Trial], runtime: RuntimeSettings, process: Process
) -> None:
    """Write what was found to the run's folder, so that a run that is resumed on the same machine cuts alike."""
    found = [
        {"of": _key(trial, runtime, process, fits[trial.stage].usable_bytes), "fit": asdict(fits[trial.stage])}
        for trial in trials
    ]
    write_atomically(run_dir.path / MICRO_BATCH_FILE, json.dumps(found, indent=1) + "\n")


def _key(trial: Trial, runtime: RuntimeSettings, process: Process, usable: int) -> dict[str, object]:
    """Everything that the outcome depends on, as JSON returns it."""
    device = torch.cuda.get_device_name(process.device) if process.device.type == "cuda" else "cpu"
    key = {
        "stage": trial.stage,
        "max_seq_length": trial.max_seq_length,
        "mean_length": trial.mean_length,
        "is_padded": trial.is_padded,
        "max_sequences": trial.max_sequences,
        **trial.about,
        "device": device,
        "usable_bytes": usable,
        "world_size": process.world_size,
        "torch": torch.__version__,
        "runtime": {name: getattr(runtime, name) for name in OF_MEMORY},
    }
    decoded: dict[str, object] = json.loads(json.dumps(key))
    return decoded


def _remembered(run_dir: RunDir, key: dict[str, object]) -> Fit | None:
    """The fit of a key; None where there is none, or the file is not as it was written."""
    try:
        for entry in json.loads((run_dir.path / MICRO_BATCH_FILE).read_bytes()):
            if entry["of"] == key:
                return Fit(**entry["fit"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return None
