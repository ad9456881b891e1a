"""A fine-tuning from its refusals to its last checkpoint, whatever it learns; a command calls this in order.

with fine_tuning(settings, kind) as run:
    run.execution()             what the machine cannot do is refused
    run.finished(...)           the run directory is judged; a finished run is not done again
    run.plan(learning)          the stage, and the micro-batch that fits
    run.admit()                 the first that is written
    run.recorder()
    run.train(learning, ...)    the one loop
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml

from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.engine.agreement import from_rank_0, of_all_ranks, together
from bert_lamb.engine.build import AUTO, build_engine, check_kernels, process_for
from bert_lamb.engine.deepspeed_json import check_overrides
from bert_lamb.engine.launch import Process, process_group
from bert_lamb.engine.protocol import Engine
from bert_lamb.finetuning.learning import Learning, stage_of, trial
from bert_lamb.finetuning.settings import Settings
from bert_lamb.finetuning.task import FineTuningTask
from bert_lamb.finetuning.tokens import TokenRow, mean_length
from bert_lamb.model.encoder import Execution, choose_execution
from bert_lamb.outputs.if_exists import Decision
from bert_lamb.outputs.run_dir import RunDir, RunKind
from bert_lamb.train.fitting import Fit, Trial, remember, with_fitting_micro_batches
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.recorder import Recorder
from bert_lamb.train.run import check_engine, leave_stopped, train
from bert_lamb.train.settings import MeterSettings
from bert_lamb.train.stop import StopFlag, stop_on_signals
from bert_lamb.train.task import Stage
from bert_lamb.train.tracker import check_tracker


class Sources(Protocol):
    """Files and folders that a fine-tuning reads."""

    def describe(self) -> dict[str, dict[str, str]]:
        """Name -> at least the sha256 of everything that the scores depend on."""

    def check_if_outside(self, run_dir: Path) -> None:
        """UserError for anything below run_dir, which may be deleted."""


@contextmanager
def fine_tuning(settings: Settings, kind: RunKind) -> Iterator["FineTuningRun"]:
    """This process among the ranks, listening for signals, with what a run holds until it ends."""
    runtime = settings.runtime
    process = process_for(runtime)
    check_engine(runtime.engine, process)
    with ExitStack() as held, stop_on_signals(after_minutes=runtime.stop_after_minutes) as stop:
        if process.world_size > 1:
            held.enter_context(process_group(process))
        yield FineTuningRun(settings, RunDir(settings.run_dir, kind), process, stop, held)


class FineTuningRun:
    """One run in one run directory. Every rank calls every method, in the order at the top of this file."""

    def __init__(self, settings: Settings, run_dir: RunDir, process: Process, stop: StopFlag, held: ExitStack) -> None:
        self.settings, self.run_dir, self.process, self.stop, self._held = settings, run_dir, process, stop, held
        self.runtime = settings.runtime  # with the micro-batches that were found, once they are
        self.inputs: dict[str, dict[str, str]] = {}  # on rank 0
        self.stage: Stage | None = None  # None: nothing is trained
        self._outcome: dict[str, Any] = {}
        self._fits: dict[str, Fit] = {}
        self._trials: list[Trial] = []

    def execution(self) -> Execution:
        """How the model is computed; raises UserError for what this machine or its software cannot do."""
        settings, runtime = self.settings, self.settings.runtime
        if self.process.is_main:  # the only one that has a tracker
            check_tracker(name=settings.tracker.name, mode=settings.tracker.mode)
        check_kernels(settings.optimizer.implementation, runtime, self.process)
        check_overrides(runtime.deepspeed_overrides)
        return choose_execution(self.process.device, **runtime.of_model(self.process.device.type))

    def finished(
        self,
        sources: Sources,
        read_result: Callable[[Path], dict[str, Any] | None],
        *,
        outcome: dict[str, Any],
    ) -> dict[str, Any] | None:
        """The result of the run that is there and is to be kept; None where one begins or continues.

        outcome: what decides the result, beside the bytes of `sources`. Raises UserError for a folder in the way.
        """
        finished: dict[str, Any] | None = None
        with together(self.process):
            if self.process.is_main:
                self.inputs = sources.describe()
                hashes = {name: {"sha256": source["sha256"]} for name, source in self.inputs.items()}
                self._outcome = {**outcome, self.run_dir.kind.mark: hashes}
                decision = self.run_dir.decide(self.settings.if_exists)
                sources.check_if_outside(self.run_dir.path)
                if decision is Decision.resume:
                    self.run_dir.check_if_same(self._outcome)
                    finished = read_result(self.run_dir.path)
        return from_rank_0(self.process, finished)

    def plan(self, learning: Learning, execution: Execution) -> None:
        """Decide batch and steps; raises UserError when the ranks do not share the batch or no row fits."""
        with together(self.process):
            self.stage = stage_of(learning, self.settings, self.runtime, self.process)
        if self.runtime.micro_batch_size == AUTO:
            self._trials = [trial(learning, execution, self.settings, self.stage)]
            self.runtime, self._fits = with_fitting_micro_batches(
                self.runtime, self._trials, self.process, self.run_dir
            )
            with together(self.process):
                self.stage = stage_of(learning, self.settings, self.runtime, self.process)
        if self.runtime.engine != "torch" and self.process.world_size == 1 and self.stage is not None:
            self._held.enter_context(process_group(self.process))

    def admit(self) -> None:
        """Make the run directory ready, and hold it until the run ends; nothing was written before."""
        with together(self.process):
            if self.process.is_main:
                self._held.enter_context(self.run_dir.held())
                self.run_dir.admit(
                    config_yaml=yaml.safe_dump(self.settings.plain, sort_keys=False),
                    outcome=self._outcome,
                    vocabulary=None,
                    if_exists=self.settings.if_exists,
                )
                if self._fits:
                    remember(self.run_dir, self._fits, self._trials, self.runtime, self.process)

    def recorder(self) -> Recorder:
        return self._held.enter_context(
            Recorder(
                self.run_dir,
                self.process,
                logging=self.settings.logging,
                tracker=self.settings.tracker,
                meter=MeterSettings(self.runtime.precision, self.runtime.peak_tflops, self.runtime.profile),
                config=self.settings.plain,
            )
        )

    def train(self, learning: Learning, execution: Execution, recorder: Recorder) -> Checkpoint:
        """Train what is left of the stage; returns the last checkpoint. The model of `learning` stays as it is."""
        settings, runtime, process = self.settings, self.runtime, self.process

        def build(stage: Stage, checkpoint: Checkpoint | None, position: Position) -> tuple[Engine, FineTuningTask]:
            # A copy: engines cast and cut what they are given.
            model = learning.called_as(copy.deepcopy(learning.model), execution).train()
            if checkpoint is not None:
                checkpoint.load_weights(model)
            engine = build_engine(
                model,
                settings.optimizer,
                runtime,
                process,
                micro_batch_size=stage.plan.micro_batch_size,
                gradient_accumulation_steps=stage.plan.gradient_accumulation_steps,
                max_grad_norm=settings.max_grad_norm,
                loss_scale=position.loss_scale,
            )
            if checkpoint is not None:
                checkpoint.load_into(engine)
            return engine, learning.task(stage)

        assert self.stage is not None
        return train(
            [self.stage],
            build,
            process=process,
            run_dir=self.run_dir,
            header=[
                f"run      {settings.run_dir}",
                *runtime.describe(process),
                f"recipe   {settings.optimizer.name}, seed {settings.seed}",
                *(fit.describe(name) for name, fit in self._fits.items()),
            ],
            seed=settings.seed,
            guards=settings.guards,
            keeper=Keeper(self.run_dir, process, settings.checkpoint, about={}),
            recorder=recorder,
            stop=self.stop,
        )

    def leave_if_stopped(self, when: str) -> None:
        """End the run where a signal has asked any rank to."""
        if any(of_all_ranks(self.process, self.stop.is_asked)):
            leave_stopped(self.process, when)

    def micro_batch_size(self, rows: Sequence[TokenRow]) -> int:
        """Rows that are predicted at once, at most."""
        return self.runtime.max_micro_batch_size(self.settings.stage, mean_length=mean_length(rows))
