"""`planner.measure=true`: what this machine reaches, in a matrix product and in micro-steps of the run's own model."""

import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from bert_lamb.data.batches import full_rows
from bert_lamb.engine.memory import usable_bytes
from bert_lamb.errors import UserError
from bert_lamb.model.bert import BertPretrainingModel, bert_config
from bert_lamb.model.encoder import choose_execution
from bert_lamb.planner.hardware import Gpu
from bert_lamb.planner.plan import Measured, PlannedPhase, Run
from bert_lamb.planner.step import Shape
from bert_lamb.train.peak import DTYPES, measure_peak_tflops

TOKENS = {
    "cuda": 32_768,
    "cpu": 512,
}  # of a micro-step: what conf/runtime/gpu.yaml takes; a CPU takes seconds for these
STEPS = 3  # of which the fastest counts; one more before them
MASK_ID = 1


def measure(run: Run, model: dict[str, Any], gpu: Gpu, *, gpus: int) -> Measured:
    """Of this process's device, in the runtime's precision: full rows of the phase that takes most of the FLOPs.

    Raises UserError where there is no GPU and one is planned for. Takes seconds on a GPU, on a CPU as long as the model
    takes for 2,048 tokens.
    """
    device = torch.device("cpu" if gpu.is_cpu else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            found=f"planner.measure=true for planner.gpu={gpu.name} where torch sees no GPU",
            expected="to run on a machine with that GPU",
            fix="set planner.gpu=cpu, or leave planner.measure out",
        )
    runtime = run.runtime
    if device.type == "cpu" and runtime.num_threads is not None:
        torch.set_num_threads(runtime.num_threads)
    phase = max(run.phases, key=lambda one: one.total_steps * one.global_batch_size * one.max_seq_length)
    peak = measure_peak_tflops(device, runtime.precision) * 1e12
    seconds, flops = micro_step(run, model, phase, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    what = f"{name}, full rows of {phase.max_seq_length}, product's peak {peak / 1e12:.3g} TFLOP/s"
    ranks = 1 if device.type == "cuda" else gpus
    return Measured(peak, flops / seconds, usable_bytes(device, ranks_on_host=ranks), what)


def micro_step(run: Run, model: dict[str, Any], phase: PlannedPhase, device: torch.device) -> tuple[float, float]:
    """(seconds of forward and backward, their FLOPs)."""
    runtime = run.runtime
    rows = max(1, TOKENS[device.type] // phase.max_seq_length)
    execution = choose_execution(device, **runtime.of_model(device.type))
    config = bert_config(vocab_size=run.sizes.vocab_size, pad_token_id=0, **model)
    bert: nn.Module = BertPretrainingModel(config, seed=0, execution=execution)
    is_autocast = runtime.engine == "torch" and runtime.precision != "fp32"
    bert.to(device, torch.float32 if is_autocast else DTYPES[runtime.precision]).train()
    batch = full_rows(
        rows,
        phase.max_seq_length,
        num_predictions=phase.max_predictions_per_seq,
        token_id=MASK_ID,
        has_sentence_task=phase.has_sentence_task,
    ).to(device)
    fastest = float("inf")
    for step in range(STEPS + 1):
        _wait(device)
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16) if is_autocast else nullcontext():
            sums = bert(*batch)
            loss = sums.mlm_loss + sums.nsp_loss
        loss.backward()
        _wait(device)
        if step > 0:
            fastest = min(fastest, time.perf_counter() - started)
    shape = Shape(
        rows, 1, phase.max_seq_length, phase.max_seq_length**2, phase.max_predictions_per_seq, phase.has_sentence_task
    )
    return fastest, shape.flops(run.sizes)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
