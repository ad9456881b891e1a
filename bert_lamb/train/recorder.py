"""What a run says of itself: the announcement at its start, metrics.jsonl, the tracker's mirror, the progress bar."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from bert_lamb.checkpoint.position import Position
from bert_lamb.engine.launch import Process
from bert_lamb.engine.protocol import Engine, StepResult
from bert_lamb.outputs.metrics import MetricsLog
from bert_lamb.outputs.run_dir import METRICS_FILE, RunDir
from bert_lamb.progress import Progress
from bert_lamb.train.schedule import is_due
from bert_lamb.train.settings import LoggingSettings, TrackerSettings
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
        state = (
            "is finished; nothing to do" if is_last else f"continues after {resumed_at.phase} step {resumed_at.step:,}"
        )
        lines.append(f"resume   the run {state}")
    print("\n".join(lines), file=sys.stderr, flush=True)


class Recorder:
    """Writes metrics.jsonl, mirrors it to the tracker and moves the progress bar; silent on all ranks but 0.

    config: the resolved configuration as a plain tree, for the tracker.
    """

    def __init__(
        self,
        run_dir: RunDir,
        process: Process,
        *,
        logging: LoggingSettings,
        tracker: TrackerSettings,
        config: Mapping[str, Any],
    ) -> None:
        self.run_dir, self.logging, self.is_main = run_dir, logging, process.is_main
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
            self.log.close()
            self.tracker.finish()

    def start_stage(self, stage: Stage, position: Position, engine: Engine) -> None:
        if not self.is_main:
            return
        plan = stage.plan
        if position.step > 0:
            self.write(stage, position.step, "resume", world_size=engine.world_size)
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
            )
        self.started_at = self.last_step_at = time.monotonic()
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
        now = time.monotonic()
        seconds, self.last_step_at = now - self.last_step_at, now
        self.progress.update(1, f"loss {means['loss']:.3f}, lr {lr:.2e}")
        norms = engine.norms() if result.is_applied else []
        if is_due(step, self.logging.interval_steps):
            summary = {}
            if norms:
                ratios = torch.cat([record.trust_ratio for record in norms])
                summary = {
                    "trust_ratio_min": float(ratios.min()),
                    "trust_ratio_median": float(ratios.median()),
                    "trust_ratio_max": float(ratios.max()),
                }
            self.write(
                stage,
                step,
                "step",
                lr=lr,
                **means,
                grad_norm=result.grad_norm,
                **summary,
                is_applied=result.is_applied,
                num_sequences=counts.num_sequences,
                num_tokens=counts.num_tokens,
                seconds=seconds,
                sequences_per_second=counts.num_sequences / seconds,
                **({} if engine.loss_scale is None else {"loss_scale": engine.loss_scale}),
            )
        if norms and is_due(step, self.logging.trust_ratio_interval_steps):
            self.write(
                stage,
                step,
                "trust_ratios",
                **{
                    kind: {
                        name: value
                        for record in norms
                        for name, value in zip(record.names, getattr(record, kind).tolist(), strict=True)
                    }
                    for kind in ("trust_ratio", "param_norm", "update_norm")
                },
            )

    def heldout(self, stage: Stage, step: int, metrics: Mapping[str, float] | None) -> None:
        if self.is_main and metrics is not None:
            self.write(stage, step, "heldout", **metrics)
            self.last_step_at = time.monotonic()

    def end_stage(self, stage: Stage, step: int) -> None:
        """Say that the stage stopped after `step`: at its end, or before it by a signal."""
        if self.is_main:
            self.progress.__exit__(None, None, None)
            if step == stage.plan.total_steps:
                self.write(stage, step, "phase_end", seconds=time.monotonic() - self.started_at)

    def write(self, stage: Stage, step: int, kind: str, **fields: Any) -> None:
        """A line of metrics.jsonl and its mirror; on rank 0, between `with` and its end."""
        record = {"kind": kind, "phase": stage.name, "step": step, **fields}
        self.log.write(**record)
        self.tracker.log(record, total_step=stage.steps_before + step)
