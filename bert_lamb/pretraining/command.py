"""`bert-lamb pretrain`: shards -> checkpoints. Read it downhill: for each phase, for each step.

Every phase starts from a checkpoint (its own after an interruption, else the last of the phase before, handed over),
so resuming and going on are the same code. What is trained depends on the recipe alone; ranks, micro-batches, ZeRO
stage and engine only decide how it is computed (with dropout, its draws follow the cut of the batch).
"""

import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import torch
import yaml

from bert_lamb.checkpoint.position import Position, hand_over
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.checkpoint.writing import save_checkpoint
from bert_lamb.config.pretrain import PretrainConfig
from bert_lamb.config.runtime import EngineName
from bert_lamb.data.batches import HeldoutBatches, TrainingBatches
from bert_lamb.engine.agreement import together
from bert_lamb.engine.launch import Process, process_group, this_process
from bert_lamb.engine.protocol import Engine
from bert_lamb.errors import UserError
from bert_lamb.model.bert import PretrainingSums
from bert_lamb.outputs.metrics import forget_metrics_after
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.run_dir import METRICS_FILE, RunDir
from bert_lamb.pretraining.admission import Phase, admit_phases, outcome_of
from bert_lamb.pretraining.build import build_engine, check_kernels
from bert_lamb.pretraining.hash_check import check_shards
from bert_lamb.sampling.keyed_random import fold
from bert_lamb.shards import NO_SENTENCE_TASK
from bert_lamb.train.recorder import Recorder, announce, mean_metrics
from bert_lamb.train.schedule import is_due, lr_multiplier
from bert_lamb.train.stop import StopFlag, stop_on_signals
from bert_lamb.train.tracker import check_tracker

MAX_CONSECUTIVE_SKIPS = 50  # steps; a dynamic loss scale needs some, a diverged run never stops
STOPPED_BY_SIGNAL = 143


def pretrain(config: PretrainConfig) -> None:
    """Run every phase that is not finished; raises UserError before anything is written when something disagrees."""
    runtime = config.runtime
    process = this_process(device=runtime.device, num_threads=runtime.num_threads)  # type: ignore[arg-type]
    if runtime.engine is EngineName.torch and process.world_size > 1:
        raise UserError(
            found=f"runtime.engine=torch with {process.world_size} ranks",
            expected="one process",
            fix="set runtime.engine=deepspeed",
        ).reported_by("rank 0")
    run_dir = RunDir(Path(config.run_dir))
    with ExitStack() as held, stop_on_signals() as stop:
        if process.world_size > 1:
            held.enter_context(process_group(process))
        with together(process):
            if process.is_main:  # the only one that has a tracker
                check_tracker(name=config.tracker.name, mode=config.tracker.mode)
            check_kernels(config, process)
            phases = admit_phases(config, world_size=process.world_size)
        if runtime.engine is EngineName.deepspeed and process.world_size == 1:
            held.enter_context(process_group(process))
        if runtime.verify_shards:
            check_shards(phases, process, stop)
        if stop.is_agreed:
            leave_stopped(process, "before the first step")
        with together(process):
            if process.is_main:
                held.enter_context(run_dir.held())
                run_dir.admit(
                    config_yaml=yaml.safe_dump(to_plain(config), sort_keys=False),
                    outcome=outcome_of(config, phases),
                    vocabulary=phases[0].training.vocabulary_path,
                    if_exists=config.if_exists.value,
                )
        train(config, phases, process, run_dir, stop)


def train(config: PretrainConfig, phases: list[Phase], process: Process, run_dir: RunDir, stop: StopFlag) -> None:
    """Run the phases from where the last checkpoint stands; exits with STOPPED_BY_SIGNAL when a signal asks."""
    latest = latest_checkpoint(run_dir, process)
    with together(process):
        checkpoint = Checkpoint(latest) if latest else None
    position = checkpoint.position if checkpoint else Position(phases[0].name, step=0, optimizer_step=0)
    if process.is_main:
        announce(config, phases, process, resumed_at=checkpoint.position if checkpoint else None)
        forget_metrics_after(
            run_dir.path / METRICS_FILE,
            finished_phases={phase.name for phase in phases if phase.index < phase_index(phases, position)},
            phase=position.phase,
            step=position.step if checkpoint else -1,
        )
    with Recorder(config, run_dir, process) as recorder:
        for phase in phases[phase_index(phases, position) :]:
            if (position.phase, position.step) == (phase.name, phase.config.total_steps):
                continue
            if position.phase != phase.name:
                position = hand_over(position, next_phase=phase.name)
            engine = build_engine(config, phase, process, checkpoint, loss_scale=position.loss_scale)
            engine.set_optimizer_step(position.optimizer_step)
            directory = train_phase(config, phase, engine, position, run_dir, recorder, stop)
            engine.close()
            del engine
            with together(process):
                checkpoint = Checkpoint(directory)
            position = checkpoint.position
            if stop.is_agreed:
                break
    if process.world_size > 1:
        torch.distributed.barrier()  # launchers end all ranks when the first one leaves
    if stop.is_agreed:
        leave_stopped(process, f"after {position.phase} step {position.step}")


def leave_stopped(process: Process, when: str) -> NoReturn:
    """End a run that a signal stopped; every rank calls it."""
    if process.is_main:
        print(f"stopped {when}; continue with if_exists=resume", file=sys.stderr)
    sys.exit(STOPPED_BY_SIGNAL)


def train_phase(
    config: PretrainConfig,
    phase: Phase,
    engine: Engine,
    position: Position,
    run_dir: RunDir,
    recorder: Recorder,
    stop: StopFlag,
) -> Path:
    """Train from `position` to the end of the phase, or to a signal; returns the folder of the last checkpoint."""
    settings, plan = phase.config, phase.plan
    batches = TrainingBatches(
        phase.training,
        rule=phase.rule,
        seed=config.seed,
        global_batch_size=plan.global_batch_size,
        micro_batch_size=plan.micro_batch_size,
        gradient_accumulation_steps=plan.gradient_accumulation_steps,
        rank=engine.rank,
        world_size=engine.world_size,
    )
    loader = batches.loader(
        first_step=position.step + 1,
        total_steps=settings.total_steps,
        num_workers=config.runtime.loader_workers,
        pin_memory=engine.device.type == "cuda",
    )
    heldout = make_heldout(config, phase)
    recorder.start_phase(phase, position, engine, heldout)
    num_skipped = 0
    clock = CheckpointClock(config.checkpoint.interval_minutes)
    for step in range(position.step + 1, settings.total_steps + 1):
        counts = batches.counts(step)
        sums = torch.zeros(len(PretrainingSums._fields) + 2, device=engine.device)
        for micro_step in range(plan.gradient_accumulation_steps):
            batch = next(loader).to(engine.device)
            torch.manual_seed(int(fold(config.seed, phase.index, step, micro_step, engine.rank)))  # dropout
            micro: PretrainingSums = engine.model(*batch)
            engine.backward(micro.mlm_loss / counts.num_predictions + micro.nsp_loss / counts.num_sequences)
            sums[:-2] += torch.stack(micro).detach()
        # What one rank knows reaches all of them with the sums: a signal, and the time on rank 0's clock.
        sums[-2], sums[-1] = stop.is_asked, engine.rank == 0 and clock.is_due()
        lr = settings.peak_lr * lr_multiplier(
            step,
            total_steps=settings.total_steps,
            warmup_proportion=settings.warmup_proportion,
            decay_power=settings.decay_power,
            decay_origin=settings.decay_origin.value,
        )
        result = engine.step(lr)
        *of_batch, num_asked, is_due_by_clock = engine.all_reduce_sum(sums).tolist()
        stop.is_agreed = num_asked > 0  # a signal to one rank stops all of them after the same step
        num_skipped = 0 if result.is_applied else num_skipped + 1
        recorder.step(phase, step, lr=lr, counts=counts, sums=PretrainingSums(*of_batch), result=result, engine=engine)
        if num_skipped > MAX_CONSECUTIVE_SKIPS:
            raise UserError(
                found=f"{num_skipped} steps in a row with a gradient that is not finite ({phase.name}, step {step})",
                expected="a finite gradient",
                fix=f"start again in another run_dir with a lower phases.{phase.name}.peak_lr",
            ).reported_by("rank 0")

        is_last = step == settings.total_steps or stop.is_agreed
        is_end = step == settings.total_steps
        if heldout is not None and (is_end or is_due(step, config.evaluation.interval_steps)):
            recorder.heldout(phase, step, evaluate(engine, heldout, config.evaluation.micro_batch_size))
        is_by_steps = is_last or is_due(step, config.checkpoint.interval_steps)
        if is_by_steps or is_due_by_clock:
            directory = run_dir.checkpoint_dir(phase.name, step)
            save_checkpoint(
                engine,
                directory,
                position=Position(phase.name, step, engine.optimizer_step, engine.loss_scale),
                shapes=recorder.shapes,
                about={
                    "total_step": phase.steps_before + step,
                    "is_by_clock": not is_by_steps,
                    "vocabulary": asdict(phase.training.manifest.vocabulary),
                },
            )
            if engine.rank == 0:
                run_dir.remove_old_checkpoints(phase.name, keep_last=config.checkpoint.keep_last)
            clock.start_again()
        if is_last:
            break
    recorder.end_phase(phase, step)
    return directory


class CheckpointClock:
    """Minutes since the last checkpoint, or since the phase began. interval_minutes: 0 for never."""

    def __init__(self, interval_minutes: float) -> None:
        self.interval_seconds = 60 * interval_minutes
        self.start_again()

    def start_again(self) -> None:
        self.started_at = time.monotonic()

    def is_due(self) -> bool:
        return 0 < self.interval_seconds <= time.monotonic() - self.started_at


@torch.no_grad()
def evaluate(engine: Engine, heldout: HeldoutBatches, micro_batch_size: int) -> dict[str, float]:
    """Held-out losses in nats and accuracies; the same number on every rank, whatever the number of ranks."""
    engine.model.eval()
    sums = torch.zeros(len(PretrainingSums._fields), device=engine.device)
    deal = heldout.of_rank(rank=engine.rank, world_size=engine.world_size, micro_batch_size=micro_batch_size)
    for batch, is_counted in deal:
        micro = torch.stack(engine.model(*batch.to(engine.device)))
        sums += micro * is_counted
    engine.model.train()
    has_task = heldout.instances.manifest.sentence_task != NO_SENTENCE_TASK
    return mean_metrics(
        PretrainingSums(*engine.all_reduce_sum(sums).tolist()), heldout.counts, has_sentence_task=has_task
    )


def make_heldout(config: PretrainConfig, phase: Phase) -> HeldoutBatches | None:
    if phase.heldout is None:
        return None
    return HeldoutBatches(
        phase.heldout, rule=phase.rule, seed=config.seed, max_instances=config.evaluation.max_instances
    )


def latest_checkpoint(run_dir: RunDir, process: Process) -> Path | None:
    """The newest checkpoint as rank 0 sees it: caches of a network file system may show other ranks an older one."""
    with together(process):
        found = run_dir.checkpoints() if process.is_main else []
    latest = [found[-1] if found else None]
    if process.world_size > 1:
        torch.distributed.broadcast_object_list(latest)
    return latest[0]


def phase_index(phases: list[Phase], position: Position) -> int:
    return next(phase.index for phase in phases if phase.name == position.phase)
