"""The loop of every stage, to be read from top to bottom: gradient, update, agreement, log, evaluate, save, stop."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bert_lamb.checkpoint.position import Position
from bert_lamb.engine import heartbeat
from bert_lamb.engine.protocol import Engine
from bert_lamb.sampling.keyed_random import fold
from bert_lamb.train.guards import Guard
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.recorder import Recorder
from bert_lamb.train.schedule import is_due
from bert_lamb.train.settings import GuardSettings
from bert_lamb.train.stop import StopFlag
from bert_lamb.train.target import Target
from bert_lamb.train.task import Stage, Task


def train_stage(
    stage: Stage,
    task: Task[Any, Any],
    engine: Engine,
    position: Position,
    *,
    seed: int,
    guards: GuardSettings,
    keeper: Keeper,
    recorder: Recorder,
    stop: StopFlag,
    evaluation_interval_steps: int,
    target: Target | None = None,
    evaluates_first: bool = False,
) -> Position:
    """Train from `position` to the end of the stage, to the target or to a signal; returns where its checkpoint stands.

    seed: keys the draws of dropout. evaluation_interval_steps: 0 evaluates at the end only. evaluates_first: before the
    stage's first step as well. Every rank calls it. Raises what `Guard` raises, on every rank after the same step.
    """
    total_steps, meter = stage.schedule.total_steps, recorder.meter
    recorder.start_stage(stage, position, engine)
    keeper.start_clock()
    guard = Guard(guards, position)
    if evaluates_first and position.step == 0 and position.batches_skipped == 0:
        meter.enter("evaluation")
        recorder.heldout(stage, 0, task.evaluate(engine))
    meter.enter("data")
    passed_over = position.batches_skipped  # step k trains on global batch k + passed_over
    first, last = position.step + 1 + passed_over, total_steps + passed_over
    micro_batches = task.micro_batches(first, last)
    batch, counts = next(micro_batches), task.counts(first)
    for step in range(position.step + 1, total_steps + 1):
        heartbeat.enter("data", step=f"{stage.name} step {step}")

        # Gradient: this rank's micro-batches, each divided by the counts of the whole global batch.
        of_batch: list[Tensor] = []
        for micro_step in range(stage.plan.gradient_accumulation_steps):
            meter.enter("forward_backward")
            torch.manual_seed(int(fold(seed, stage.index, step, micro_step, engine.rank)))  # dropout
            loss, of_micro_batch = task.loss(engine.model, batch, counts)
            engine.backward(loss)
            of_batch.append(of_micro_batch)
            meter.enter("data")
            batch = next(micro_batches, None)  # the next one, of the next step too, while the device computes this one
        counts_of_next = task.counts(min(step + 1 + passed_over, last))

        # Update.
        meter.enter("optimizer")
        lr = stage.schedule.lr(step)
        result = engine.step(lr)

        # Agreement: the sums of the batch, and what one rank may know alone: a signal, the time on rank 0's clock, how
        # far its part of a checkpoint is.
        meter.enter("agreement")
        known_here = (stop.is_asked, engine.rank == 0 and keeper.is_due_by_clock(), *keeper.known_here())
        sums, known = add_over_ranks(engine, torch.stack(of_batch).sum(0), known_here)
        is_asked, is_due_by_clock, is_writing, has_failed = known
        stop.is_agreed = is_asked  # a signal to one rank stops all of them after the same step

        # Log, and give up where no step is applied any more.
        meter.enter("logging")
        meter.count(counts, task.flops(counts))
        means, is_end = task.metrics(sums, counts), step == total_steps
        recorder.step(stage, step, lr=lr, counts=counts, means=means, result=result, engine=engine)
        guard.watch(step, means["loss"], result, engine, is_last=is_end)

        # Evaluate.
        if is_end or is_due(step, evaluation_interval_steps):
            meter.enter("evaluation")
            heldout = task.evaluate(engine)
            recorder.heldout(stage, step, heldout)
            position = replace(position, is_target_reached=target is not None and target.is_reached(heldout))

        # Save, and stop. All lines of a step come before its checkpoint, after which a killed run continues.
        if position.is_target_reached:
            recorder.target_reached(stage, step)
        if is_end:
            recorder.phase_end(stage)
        keeper.heed(is_writing=is_writing, has_failed=has_failed)
        is_last = is_end or stop.is_agreed or position.is_target_reached
        if is_last or is_due_by_clock or keeper.is_due(step):
            meter.enter("checkpoint")
            position = replace(
                position,
                step=step,
                optimizer_step=engine.optimizer_step,
                loss_scale=engine.loss_scale,
                loss_scale_counters=engine.loss_scale_counters,
                lowest_loss=guard.lowest_loss,
                calm_step=guard.calm_step,
                recent_losses=guard.recent_losses,
            )
            keeper.save(engine, stage, position, is_by_clock=not (is_last or keeper.is_due(step)))
        if is_last:
            keeper.finish()
            break
        counts = counts_of_next
    recorder.end_stage()
    return position


def add_over_ranks(engine: Engine, sums: Tensor, known_here: Sequence[bool]) -> tuple[list[float], list[bool]]:
    """Each of `sums` over all ranks, and of each flag whether any rank has it: one collective, one transfer."""
    flags = [sums.new_full((1,), is_known, dtype=torch.float32) for is_known in known_here]
    added = engine.all_reduce_sum(torch.cat([sums.float(), *flags])).tolist()
    return added[: len(sums)], [value > 0 for value in added[len(sums) :]]
