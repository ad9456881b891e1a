"""A run: its stages one after the other, from where the last checkpoint stands.

Every stage starts from a checkpoint (its own after an interruption, else the last of the stage before, handed over), so
resuming and continuing are the same code.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from bert_lamb.checkpoint.position import Position, hand_over
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.engine.agreement import together
from bert_lamb.engine.launch import Process
from bert_lamb.engine.protocol import Engine
from bert_lamb.errors import UserError
from bert_lamb.outputs.metrics import forget_metrics_after
from bert_lamb.outputs.run_dir import METRICS_FILE, RunDir
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.loop import train_stage
from bert_lamb.train.recorder import Recorder, announce
from bert_lamb.train.resume import newest_whole
from bert_lamb.train.stop import StopFlag
from bert_lamb.train.task import Stage, Task

STOPPED_BY_SIGNAL = 143

# What trains a stage: its engine, with the weights and moments of the checkpoint where there is one, and its task.
Builder = Callable[[Stage, Checkpoint | None, Position], tuple[Engine, Task[Any, Any]]]


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
    keeper: Keeper,
    recorder: Recorder,
    stop: StopFlag,
    evaluation_interval_steps: int = 0,
    evaluates_first: bool = False,
) -> Checkpoint:
    """Train what is left of `stages`; returns the last checkpoint. header: lines on the run, printed at its start.

    evaluates_first: also before the first step of the first stage, for weights that were not drawn.

    Exits with STOPPED_BY_SIGNAL when a signal asks. Every rank calls it.
    """
    checkpoint = newest_whole(run_dir, [stage.name for stage in stages], process)
    position = checkpoint.position if checkpoint else Position(stages[0].name, step=0, optimizer_step=0)
    first = next(stage.index for stage in stages if stage.name == position.phase)
    if process.is_main:
        announce(header, stages, resumed_at=position if checkpoint else None)
        forget_metrics_after(
            run_dir.path / METRICS_FILE,
            finished_phases={stage.name for stage in stages[:first]},
            phase=position.phase,
            step=position.step if checkpoint else -1,
        )
    for stage in stages[first:]:
        if (position.phase, position.step) == (stage.name, stage.schedule.total_steps):
            continue
        if position.phase != stage.name:
            position = hand_over(position, next_phase=stage.name)
        engine, task = build(stage, checkpoint, position)
        engine.set_optimizer_step(position.optimizer_step)
        engine.loss_scale_counters = position.loss_scale_counters
        with keeper:
            position = train_stage(
                stage,
                task,
                engine,
                position,
                seed=seed,
                keeper=keeper,
                recorder=recorder,
                stop=stop,
                evaluation_interval_steps=evaluation_interval_steps,
                evaluates_first=evaluates_first and stage.index == 0,
            )
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


def leave_stopped(process: Process, when: str) -> NoReturn:
    """End a run that a signal stopped; every rank calls it."""
    if process.is_main:
        print(f"stopped {when}; continue with if_exists=resume", file=sys.stderr)
    sys.exit(STOPPED_BY_SIGNAL)
