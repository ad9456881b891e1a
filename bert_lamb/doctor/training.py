"""Checks of the run itself: its shards, its batch, its memory, and one real step."""

import io
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bert_lamb.data.batches import MicroBatch, full_rows
from bert_lamb.doctor.examination import Examination
from bert_lamb.doctor.finding import Finding, SkippedError, failed, ok, warning
from bert_lamb.engine.build import AUTO, build_engine, check_kernels
from bert_lamb.engine.deepspeed_json import check_overrides
from bert_lamb.engine.launch import process_group
from bert_lamb.engine.memory import usable_bytes
from bert_lamb.engine.state_size import state_bytes
from bert_lamb.errors import UserError
from bert_lamb.model.activations import activation_bytes
from bert_lamb.model.bert import BertPretrainingModel
from bert_lamb.model.encoder import choose_execution
from bert_lamb.pretraining.admission import admit_phases
from bert_lamb.pretraining.initial_weights import InitialWeights, check_phases
from bert_lamb.shards import read_manifest
from bert_lamb.train.batch_plan import plan_batch
from bert_lamb.train.run import check_engine

STEP_LR = 1e-4
CPU_STEP_TOKENS = 512  # on a CPU at most, where all the memory is not needed and BERT-Large takes seconds for these
LENGTH, PREDICTIONS = 128, 20  # of the step's rows where no recipe says any


def collect_initial_weights(examination: Examination) -> str:
    if examination.initial is None:
        raise SkippedError("no initial_weights")
    if isinstance(examination.initial, UserError):
        raise examination.initial
    return examination.initial.describe()


def judge_initial_weights(examination: Examination, described: list[str]) -> Finding:
    return ok(described[0].removeprefix("weights").strip())


def collect_shards(examination: Examination) -> str:
    """Admit every phase, as pretraining does; raises UserError. What a rank cannot see it says."""
    if examination.shards is None and not any(phase.shards for phase in examination.recipe.phases.values()):
        raise SkippedError("no shards")
    if not examination.recipe.phases:
        manifest = read_manifest(examination.shards or Path())
        sets = ", ".join(f"{one.split} of length {one.max_seq_length}" for one in manifest.instance_sets)
        return f"{sets}; no recipe says which are asked for"
    # Whether the batch fits the ranks is a check of its own; one rank shares any batch.
    examination.phases = admit_phases(examination.recipe, examination.runtime, world_size=1)
    if isinstance(examination.initial, InitialWeights):
        check_phases(examination.initial, examination.phases)
    return ", ".join(
        f"{phase.stage.name}: {len(phase.training):,} instances of length {phase.settings.max_seq_length}"
        for phase in examination.phases
    )


def judge_shards(examination: Examination, described: list[str]) -> Finding:
    return ok(f"admitted; {described[0]}" if examination.recipe.phases else described[0])


def collect_batch_plan(examination: Examination) -> list[str]:
    """The micro-batch of each phase; raises UserError where the ranks cannot share a batch."""
    if not examination.recipe.phases:
        raise SkippedError("no recipe")
    check_engine(examination.runtime.engine, examination.process)
    lengths = {phase.stage.name: float(phase.training.lengths.mean()) for phase in examination.phases}
    lines = []
    for name, phase in examination.recipe.phases.items():
        plan = plan_batch(
            key=f"phases.{name}.global_batch_size",
            global_batch_size=phase.global_batch_size,
            max_micro_batch_size=examination.runtime.max_micro_batch_size(
                name, mean_length=lengths.get(name, phase.max_seq_length)
            ),
            world_size=examination.world_size,
            total_steps=phase.total_steps,
            max_seq_length=phase.max_seq_length,
        )
        size = "auto" if examination.runtime.micro_batch_size == AUTO else f"{plan.micro_batch_size:,}"
        steps = "" if size == "auto" else f" x {plan.gradient_accumulation_steps:,} accumulation"
        ranks = "1 rank" if plan.world_size == 1 else f"{plan.world_size:,} ranks"
        lines.append(f"{name}: {plan.global_batch_size:,} = {size}{steps} x {ranks}")
    return lines


def judge_batch_plan(examination: Examination, by_rank: list[list[str]]) -> Finding:
    return ok("; ".join(by_rank[0]))


def step_shape(examination: Examination) -> tuple[str, int, int, int]:
    """(stage, rows, max_seq_length, predictions a row) of the largest micro-batch, its tokens being all there."""
    recipe, runtime = examination.recipe, examination.runtime
    if not recipe.phases:
        rows = (runtime.micro_batch_tokens or 8 * LENGTH) // LENGTH
        return "a step", max(1, rows), LENGTH, PREDICTIONS
    shapes = []
    for name, phase in recipe.phases.items():
        rows = runtime.max_micro_batch_size(name, mean_length=phase.max_seq_length)
        rows = min(rows, max(1, phase.global_batch_size // examination.world_size))
        shapes.append((name, rows, phase.max_seq_length, phase.max_predictions_per_seq))
    return max(shapes, key=lambda shape: (shape[1] * shape[2], shape[2]))


def collect_memory(examination: Examination) -> int:
    """Bytes that this rank may fill."""
    if examination.why_no_device is not None:
        raise SkippedError("the device that runtime asks for does not exist here")
    ranks_on_host = examination.hosts.count(examination.hosts[examination.process.rank])
    return usable_bytes(examination.process.device, ranks_on_host=ranks_on_host)


def judge_memory(examination: Examination, usable: list[int]) -> Finding:
    runtime, least = examination.runtime, min(usable)
    of_state = state_bytes(runtime, examination.num_parameters, examination.world_size)
    name, rows, length, predictions = step_shape(examination)
    of_rows = activation_bytes(
        examination.model_config,
        precision=runtime.precision,
        activation_checkpointing=runtime.activation_checkpointing,
        num_tokens=rows * length,
        num_predictions=rows * predictions,
    )
    said = (
        f"{examination.num_parameters / 1e6:,.1f} M parameters: {of_state / 1e9:,.2f} GB of weights, gradients and"
        f" moments, and by estimate {of_rows / 1e9:,.2f} GB for {rows:,} rows of length {length} ({name}), of"
        f" {least / 1e9:,.1f} GB that a rank may fill"
    )
    if of_state > least:
        return failed(said, fix="start more ranks, or set runtime.zero_stage or a smaller model")
    if runtime.micro_batch_size == AUTO:
        return ok(f"{said}; runtime.micro_batch_size=auto finds how many rows fit")
    if of_state + of_rows > least:
        return warning(
            said, fix="set runtime.micro_batch_size=auto, less of it, or runtime.activation_checkpointing=true"
        )
    return ok(said)


def collect_step(examination: Examination) -> Callable[[], dict[str, Any]]:
    """One optimizer step of the configured model on random rows: the largest micro-batch, on a CPU a short one."""
    if not examination.takes_step:
        raise SkippedError("step=false")
    examination.needs_all_ranks_connected()
    recipe, runtime, process = examination.recipe, examination.runtime, examination.process
    check_engine(runtime.engine, process)
    check_kernels(recipe.optimizer.implementation, runtime, process)
    check_overrides(runtime.deepspeed_overrides)
    execution = choose_execution(process.device, **runtime.of_model(process.device.type))
    _, rows, length, predictions = step_shape(examination)
    if process.device.type == "cpu":
        rows = max(1, min(rows, CPU_STEP_TOKENS // length))
    model = BertPretrainingModel(examination.model_config, seed=0, execution=execution)
    batch = random_rows(rows, length, predictions, vocabulary_size=model.bert.config.vocab_size, rank=process.rank)

    def measure() -> dict[str, Any]:
        with ExitStack() as held:
            held.enter_context(redirect_stdout(io.StringIO()))  # DeepSpeed prints its memory, whatever it is told
            if process.world_size == 1 and runtime.engine != "torch":
                held.enter_context(process_group(process))
            return take_step(examination, model, batch)

    return measure


def random_rows(num_rows: int, length: int, predictions: int, *, vocabulary_size: int, rank: int) -> MicroBatch:
    """Full rows of random tokens, other ones on each rank."""
    batch = full_rows(num_rows, length, num_predictions=predictions, token_id=0, has_sentence_task=True)
    random = torch.Generator().manual_seed(rank)
    ids = torch.randint(vocabulary_size, batch.input_ids.shape, generator=random)
    return batch._replace(input_ids=ids, masked_labels=ids[batch.masked_positions])


def take_step(examination: Examination, model: nn.Module, batch: MicroBatch) -> dict[str, Any]:
    recipe, process = examination.recipe, examination.process
    num_rows, world_size = len(batch.cu_seqlens) - 1, process.world_size
    started = time.perf_counter()
    engine = build_engine(
        model,
        recipe.optimizer,
        examination.runtime,
        process,
        micro_batch_size=num_rows,
        gradient_accumulation_steps=1,
        max_grad_norm=recipe.max_grad_norm,
        loss_scale=None,
    )
    built = time.perf_counter()
    sums = engine.model(*batch.to(process.device))
    loss = sums.mlm_loss / (len(batch.masked_labels) * world_size) + sums.nsp_loss / (num_rows * world_size)
    engine.backward(loss)
    result = engine.step(STEP_LR)
    total = float(engine.all_reduce_sum(loss.detach().float().clone()))
    facts = {
        "loss": total if math.isfinite(total) else None,
        "grad_norm": float(result.grad_norm) if math.isfinite(result.grad_norm) else None,
        "is_applied": result.is_applied,
        "rows": num_rows,
        "length": batch.max_length,
        "build_seconds": built - started,
        "seconds": time.perf_counter() - built,
    }
    engine.close()
    return facts


def _short(number: float | None) -> str:
    return "not finite" if number is None else f"{number:.4g}"


def judge_step(examination: Examination, by_rank: list[dict[str, Any]]) -> Finding:
    facts, runtime = by_rank[0], examination.runtime
    slowest = max(one["seconds"] for one in by_rank)
    said = (
        f"{runtime.engine}, {runtime.precision}: loss {_short(facts['loss'])},"
        f" gradient norm {_short(facts['grad_norm'])}, on {facts['rows']:,} random rows of length {facts['length']}"
        f" a rank in {slowest:.2f} s (the engine was built in {facts['build_seconds']:.1f} s; a first step is slower"
        " than later ones)"
    )
    if any(one["loss"] is None for one in by_rank):
        return failed(f"{said}: the loss is not finite", fix="set runtime.precision=fp32, and test the device's memory")
    is_fp16 = runtime.precision == "fp16"  # whose loss scale begins too high and is found in some steps
    if not is_fp16 and not all(one["is_applied"] for one in by_rank):
        return failed(f"{said}: the gradient is not finite", fix="set runtime.precision=fp32, and test the device")
    return ok(said)
