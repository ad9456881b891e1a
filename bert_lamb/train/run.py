"""A run: its stages one after the other, starting from the last checkpoint.

Every stage starts from a checkpoint (its own after an interruption, else the last of the stage before, handed over), so
resuming and continuing are the same code.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch

from bert_lamb.checkpoint.position import Position, hand_over
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.engine.agreement import together
from bert_lamb.engine.launch import Process, bound_every_wait
from bert_lamb.engine.protocol import Engine
from bert_lamb.errors import UserError
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.guards import Diverged, Spike
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.loop import train_stage
from bert_lamb.train.recorder import Recorder, announce
from bert_lamb.train.resume import newest_whole
from bert_lamb.train.settings import GuardSettings
from bert_lamb.train.stop import STOPPED_BY_SIGNAL, StopFlag
from bert_lamb.train.target import Target
from bert_lamb.train.task import Stage, Task

# What trains a stage: its engine, with the weights and moments of the checkpoint where there is one, and its task.
Builder = Callable[[Stage, Checkpoint | None, Position], tuple[Engine, Task[Any, Any]]]


def next_stage(stages: Sequence[Stage], position: Position) -> Stage | None:
    """The stage at work at `position`, or the one after it where that is finished; None at the end of the run.

    A run whose target is reached is at its end.
    """
    if position.is_target_reached:
        return None
    at_work = next(stage for stage in stages if stage.name == position.phase)
    if position.step < at_work.schedule.total_steps:
        return at_work
    return stages[at_work.index + 1] if at_work.index + 1 < len(stages) else None


def check_engine(engine: str, process: Process) -> None:
    """Refuse the plain engine on several ranks, which would each train alone."""
    if engine == "torch" and process.world_size > 1:
        raise UserError(
            found=f"runtime.engine=torch with {process.world_size} ranks",
            expected="one process",
            fix="set runtime.engine=deepspeed or fsdp",
        ).reported_by("rank 0")


def train(
    stages: Sequence[Stage],
    build: Builder,
    *,
    process: Process,
    run_dir: RunDir,
    header: Sequence[str],
    seed: int,
    guards: GuardSettings,
    keeper: Keeper,
    recorder: Recorder,
    stop: StopFlag,
    target: Target | None = None,
    evaluation_interval_steps: int = 0,
    evaluates_first: bool = False,
) -> Checkpoint:
    """Train what is left of `stages`; returns the last checkpoint. header: lines on the run, printed at its start.

    target: of held-out metrics, at which the run is done. evaluates_first: also before the first step of the first
    stage, for weights that were not drawn.
    A spike of the loss sends the run back, where guards.on_spike says so and as often as it may.

    Exits with STOPPED_BY_SIGNAL when a signal asks. Every rank calls it.
    """
    names = [stage.name for stage in stages]
    checkpoint = newest_whole(run_dir, names, process)
    start = Position(names[0], step=0, optimizer_step=0)
    position = checkpoint.position if checkpoint else start
    recorder.forget_after(checkpoint.position if checkpoint else None, stages)
    if process.is_main:
        announce(header, stages, resumed_at=position if checkpoint else None)
    while (stage := next_stage(stages, position)) is not None:
        if position.phase != stage.name:
            position = hand_over(position, next_phase=stage.name, keeps_count=stage.continues_curve)
        engine, task = build(stage, checkpoint, position)
        bound_every_wait(process)  # in the groups that the engine made
        engine.set_optimizer_step(position.optimizer_step)
        engine.loss_scale_counters = position.loss_scale_counters
        try:
            with keeper:
                position = train_stage(
                    stage,
                    task,
                    engine,
                    position,
                    seed=seed,
                    guards=guards,
                    keeper=keeper,
                    recorder=recorder,
                    stop=stop,
                    target=target,
                    evaluation_interval_steps=evaluation_interval_steps,
                    evaluates_first=evaluates_first and stage.index == 0,
                )
        except Spike as spike:
            if guards.on_spike != "rollback" or position.num_rollbacks == guards.max_rollbacks:
                raise stopped(spike, run_dir, stage) from None
            engine.close()
            del engine, task
            checkpoint = newest_whole(run_dir, names, process, until=(stage.name, spike.calm_step))
            position = past(spike, position, checkpoint.position if checkpoint else start, stages)
            recorder.roll_back(stages, position, spike)
            continue
        engine.close()
        del engine, task
        with together(process):
            checkpoint = Checkpoint(run_dir.checkpoint_dir(position.phase, position.step))
            checkpoint.check_bytes(process.rank, process.world_size)
        if stop.is_agreed:
            break
    if process.world_size > 1:
        torch.distributed.barrier()  # launchers end all ranks when the first one leaves
    if stop.is_agreed:
        leave_stopped(process, f"after {position.phase} step {position.step}")
    assert checkpoint is not None
    return checkpoint


def past(spike: Spike, interrupted: Position, checkpoint: Position, stages: Sequence[Stage]) -> Position:
    """Where a run continues after a spike: at the checkpoint's step, with the batches up to the spike passed over.

    interrupted: of the training that met it. The end of the stage before stands for the stage's first step; from
    further back, where later checkpoints are lost, the run comes to these batches again.
    """
    num_rollbacks = interrupted.num_rollbacks + 1
    stage = next_stage(stages, checkpoint)
    if stage is None or stage.name != interrupted.phase:
        return replace(checkpoint, num_rollbacks=num_rollbacks)
    at = checkpoint
    if checkpoint.phase != stage.name:
        at = hand_over(checkpoint, next_phase=stage.name, keeps_count=stage.continues_curve)
    skipped = interrupted.batches_skipped + spike.step - at.step
    return replace(at, batches_skipped=skipped, num_rollbacks=num_rollbacks)


def stopped(spike: Spike, run_dir: RunDir, stage: Stage) -> Diverged:
    """The spike as the run's end, with the checkpoint from before it; on every rank, for rank 0 to print."""
    of_stage = [(step, path.name) for name, step, path in run_dir.checkpoint_folders() if name == stage.name]
    calm = [name for step, name in of_stage if step <= spike.calm_step]
    before = f"the last checkpoint before it is {calm[-1]}" if calm else "no checkpoint of this stage is from before it"
    return Diverged(found=spike.found, expected=spike.expected, fix=f"{spike.fix}; {before}").reported_by("rank 0")


def leave_stopped(process: Process, when: str) -> NoReturn:
    """End a run that a signal stopped; every rank calls it."""
    if process.is_main:
        print(f"stopped {when}; continue with if_exists=resume", file=sys.stderr)
    sys.exit(STOPPED_BY_SIGNAL)
