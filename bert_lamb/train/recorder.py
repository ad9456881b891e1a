"""What a run says of itself: its announcement, metrics.jsonl, the tracker's mirror, the progress bar, a profile."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from bert_lamb.checkpoint.position import Position
from bert_lamb.engine.launch import Process
from bert_lamb.engine.protocol import Engine, NormRecord, StepResult
from bert_lamb.outputs.metrics import MetricsLog, forget_metrics_after
from bert_lamb.outputs.run_dir import METRICS_FILE, PROFILE_FOLDER, RunDir
from bert_lamb.progress import Progress
from bert_lamb.train.guards import Spike
from bert_lamb.train.meter import Meter
from bert_lamb.train.profile import Profile
from bert_lamb.train.schedule import is_due
from bert_lamb.train.settings import LoggingSettings, MeterSettings, TrackerSettings
from bert_lamb.train.task import Counts, Stage
from bert_lamb.train.tracker import open_tracker


def announce(header: Sequence[str], stages: Sequence[Stage], *, resumed_at: Position | None) -> None:
    """Print the batch arithmetic in full, and where the run starts."""
    lines = list(header)
    for stage in stages:
        first, *more = stage.describe()
        lines += [f"{stage.name}   {first}", *(f"         {line}" for line in more)]
    if resumed_at is not None:
        is_last = resumed_at.phase == stages[-1].name and resumed_at.step == stages[-1].schedule.total_steps
        is_last = is_last or resumed_at.is_target_reached
        state = (
            "is finished; nothing to do" if is_last else f"continues after {resumed_at.phase} step {resumed_at.step:,}"
        )
        lines.append(f"resume   the run {state}")
    print("\n".join(lines), file=sys.stderr, flush=True)


def summary_of(norms: Sequence[NormRecord]) -> dict[str, float]:
    """The spread of the trust ratios over all parameters; one transfer from the device."""
    ratios = torch.cat([record.trust_ratio for record in norms])
    spread = torch.stack([ratios.min(), ratios.median(), ratios.max()]).tolist()
    return dict(zip(("trust_ratio_min", "trust_ratio_median", "trust_ratio_max"), spread, strict=True))


def by_parameter(norms: Sequence[NormRecord]) -> dict[str, dict[str, float]]:
    """Trust ratio and norms of every parameter by name; one transfer from the device."""
    names = [name for record in norms for name in record.names]
    kinds = ("trust_ratio", "param_norm", "update_norm")
    values = torch.stack([torch.cat([getattr(record, kind) for record in norms]) for kind in kinds]).tolist()
    return {kind: dict(zip(names, of_kind, strict=True)) for kind, of_kind in zip(kinds, values, strict=True)}


class Recorder:
    """Writes metrics.jsonl, mirrors it to the tracker and moves the progress bar; silent on all ranks but 0.

    config: the resolved configuration as a plain tree, for the tracker. The loop says to `meter` what it is at.
    """

    def __init__(
        self,
        run_dir: RunDir,
        process: Process,
        *,
        logging: LoggingSettings,
        tracker: TrackerSettings,
        meter: MeterSettings,
        config: Mapping[str, Any],
    ) -> None:
        self.run_dir, self.logging, self.is_main = run_dir, logging, process.is_main
        self.meter = Meter(process, meter)
        self.profile = Profile(run_dir.path / PROFILE_FOLDER, num_steps=meter.profile_steps)
        self._open_tracker = lambda: open_tracker(
            name=tracker.name, project=tracker.project, mode=tracker.mode, run_dir=run_dir.path, config=dict(config)
        )

    def __enter__(self) -> Self:
        if self.is_main:
            self.log = MetricsLog(self.run_dir.path / METRICS_FILE)
            self.tracker = self._open_tracker()
        return self

    def __exit__(self, *error: object) -> None:
        if self.is_main:
            self.profile.stop()
            self.log.close()
            self.tracker.finish()

    def forget_after(self, position: Position | None, stages: Sequence[Stage]) -> None:
        """Drop the lines of what is done again: all after `position`, or all there are."""
        if self.is_main:
            first = next((stage.index for stage in stages if position and stage.name == position.phase), 0)
            self.log.close()
            forget_metrics_after(
                self.log.path,
                finished_phases={stage.name for stage in stages[:first]},
                phase=stages[first].name,
                step=position.step if position else -1,
            )

    def roll_back(self, stages: Sequence[Stage], position: Position, spike: Spike) -> None:
        """Record that the run continues at `position`, and forget what came after it."""
        if self.is_main:
            stage = next(stage for stage in stages if stage.name == position.phase)
            self.end_stage()
            self.forget_after(position, stages)
            self.write(
                stage, position.step, "rollback", spike_step=spike.step, batches_skipped=position.batches_skipped
            )
            line = f"rollback to {stage.name} step {position.step:,}"
            past = f", past the batches up to step {spike.step:,}'s" if position.batches_skipped else ""
            print(f"{line}{past}: found {spike.found}", file=sys.stderr, flush=True)

    def start_stage(self, stage: Stage, position: Position, engine: Engine) -> None:
        if not self.is_main:
            return
        plan, peak = stage.plan, self.meter.start(stage)
        if position.step > 0 or position.batches_skipped > 0:
            self.write(stage, position.step, "resume", world_size=engine.world_size, **peak)
        else:
            self.write(
                stage,
                0,
                "phase_start",
                max_seq_length=plan.max_seq_length,
                global_batch_size=plan.global_batch_size,
                micro_batch_size=plan.micro_batch_size,
                gradient_accumulation_steps=plan.gradient_accumulation_steps,
                world_size=engine.world_size,
                total_steps=plan.total_steps,
                total_sequences=plan.total_sequences,
                num_instances=stage.num_instances,
                num_parameters=sum(shape.numel() for shape in engine.shapes.values()),
                **peak,
            )
        self.started_at, self.speed = time.monotonic(), ""
        self.profile.start()
        self.progress = Progress(stage.name, total=plan.total_steps, unit="steps", initial=position.step).__enter__()

    def step(
        self,
        stage: Stage,
        step: int,
        *,
        lr: float,
        counts: Counts,
        means: Mapping[str, float],
        result: StepResult,
        engine: Engine,
    ) -> None:
        """A line for the step, and one for every parameter's trust ratio where that is due. means: Task.metrics."""
        if not self.is_main:
            return
        norms = engine.norms() if result.is_applied else []
        if is_due(step, self.logging.interval_steps):
            measured = self.meter.read()
            of_peak = f", {measured['mfu']:.0%} of peak" if "mfu" in measured else ""
            self.speed = f", {measured['tokens_per_second']:,.0f} tokens/s{of_peak}"
            self.write(
                stage,
                step,
                "step",
                lr=lr,
                **means,
                grad_norm=result.grad_norm,
                **(summary_of(norms) if norms else {}),
                is_applied=result.is_applied,
                num_sequences=counts.num_sequences,
                num_tokens=counts.num_tokens,
                **measured,
                **({} if engine.loss_scale is None else {"loss_scale": engine.loss_scale}),
            )
        if norms and is_due(step, self.logging.trust_ratio_interval_steps):
            self.write(stage, step, "trust_ratios", **by_parameter(norms))
        self.progress.update(1, f"loss {means['loss']:.3f}, lr {lr:.2e}{self.speed}")
        self.profile.step()

    def heldout(self, stage: Stage, step: int, metrics: Mapping[str, float] | None) -> None:
        if self.is_main and metrics is not None:
            self.write(stage, step, stage.heldout_kind, **metrics)

    def phase_end(self, stage: Stage) -> None:
        if self.is_main:
            self.write(stage, stage.plan.total_steps, "phase_end", seconds=time.monotonic() - self.started_at)

    def target_reached(self, stage: Stage, step: int) -> None:
        if self.is_main:
            self.write(stage, step, "target_reached", seconds=time.monotonic() - self.started_at)

    def end_stage(self) -> None:
        """The stage has stopped: at its end, or before it by a signal."""
        if self.is_main:
            self.meter.stop()
            self.progress.__exit__(None, None, None)

    def write(self, stage: Stage, step: int, kind: str, **fields: Any) -> None:
        """A line of metrics.jsonl and its mirror; on rank 0, between `with` and its end."""
        record = {"kind": kind, "phase": stage.name, "step": step, **fields}
        self.log.write(**record)
        self.tracker.log(record, total_step=stage.steps_before + step)
