"""What a run says of itself: the announcement at its start, metrics.jsonl, the tracker's mirror, the progress bar."""

import sys
import time
from typing import Any, Self

import torch

from bert_lamb.checkpoint.position import Position
from bert_lamb.config.pretrain import PretrainConfig
from bert_lamb.config.runtime import EngineName
from bert_lamb.data.batches import BatchCounts, HeldoutBatches, unigram_cross_entropy
from bert_lamb.engine.launch import Process
from bert_lamb.engine.protocol import Engine, StepResult
from bert_lamb.model.bert import PretrainingSums
from bert_lamb.outputs.metrics import MetricsLog
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.run_dir import METRICS_FILE, RunDir
from bert_lamb.pretraining.admission import Phase
from bert_lamb.pretraining.build import build_model
from bert_lamb.progress import Progress
from bert_lamb.train.schedule import is_due
from bert_lamb.train.tracker import open_tracker

MAX_UNIGRAM_TOKENS = 20_000_000


def announce(
    config: PretrainConfig,
    phases: list[Phase],
    process: Process,
    *,
    resumed_at: Position | None,
) -> None:
    """Print the batch arithmetic in full, and where the run starts."""
    runtime = config.runtime
    machine = f"{runtime.engine.value}, {process.world_size} x {process.device.type}, {runtime.precision.value}"
    if runtime.engine is EngineName.deepspeed:
        machine += f", ZeRO stage {runtime.zero_stage}"
    lines = [
        f"run      {config.run_dir}",
        f"machine  {machine}",
        f"recipe   {config.optimizer.name}, seed {config.seed}",
    ]
    for phase in phases:
        settings = phase.config
        lines.append(
            f"{phase.name}   {settings.total_steps:,} steps, peak lr {settings.peak_lr:g},"
            f" warm-up {settings.warmup_proportion * settings.total_steps:,.0f} steps,"
            f" {len(phase.training):,} instances ({phase.plan.total_sequences / len(phase.training):.2f} epochs)"
        )
        lines.extend("         " + line for line in phase.plan.describe())
    if runtime.deepspeed_overrides:
        lines.append(f"deepspeed_overrides {runtime.deepspeed_overrides}")
    if resumed_at is not None:
        is_last = resumed_at.phase == phases[-1].name and resumed_at.step == phases[-1].config.total_steps
        state = (
            "is finished; nothing to do" if is_last else f"continues after {resumed_at.phase} step {resumed_at.step:,}"
        )
        lines.append(f"resume   the run {state}")
    print("\n".join(lines), file=sys.stderr, flush=True)


class Recorder:
    """Writes metrics.jsonl, mirrors it to the tracker and moves the progress bar; silent on all ranks but 0."""

    def __init__(self, config: PretrainConfig, run_dir: RunDir, process: Process) -> None:
        self.config, self.is_main = config, process.is_main
        self.shapes: dict[str, torch.Size] = {}
        if self.is_main:
            self.log = MetricsLog(run_dir.path / METRICS_FILE)
            self.tracker = open_tracker(
                name=config.tracker.name,
                project=config.tracker.project,
                mode=config.tracker.mode,
                run_dir=run_dir.path,
                config=to_plain(config),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start_phase(self, phase: Phase, position: Position, engine: Engine, heldout: HeldoutBatches | None) -> None:
        if not self.shapes:
            with torch.device("meta"):
                model = build_model(self.config, phase)
            self.shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self.unigram: float | None = None
        if not self.is_main:
            return
        if heldout is not None:
            self.unigram = unigram_cross_entropy(phase.training, heldout, max_tokens=MAX_UNIGRAM_TOKENS)
        if position.step > 0:
            self._write(phase, position.step, "resume", world_size=engine.world_size)
        else:
            self._write(
                phase,
                0,
                "phase_start",
                max_seq_length=phase.plan.max_seq_length,
                global_batch_size=phase.plan.global_batch_size,
                micro_batch_size=phase.plan.micro_batch_size,
                gradient_accumulation_steps=phase.plan.gradient_accumulation_steps,
                world_size=engine.world_size,
                total_steps=phase.plan.total_steps,
                total_sequences=phase.plan.total_sequences,
                num_instances=len(phase.training),
                num_parameters=sum(shape.numel() for shape in self.shapes.values()),
            )
        self.started_at = self.last_step_at = time.monotonic()
        self.progress = Progress(
            phase.name, total=phase.config.total_steps, unit="steps", initial=position.step
        ).__enter__()

    def step(
        self,
        phase: Phase,
        step: int,
        *,
        lr: float,
        counts: BatchCounts,
        sums: PretrainingSums,
        result: StepResult,
        engine: Engine,
    ) -> None:
        if not self.is_main:
            return
        now = time.monotonic()
        seconds, self.last_step_at = now - self.last_step_at, now
        means = mean_metrics(sums, counts, has_sentence_task=phase.has_sentence_task)
        loss = means["mlm_loss"] + means.get("nsp_loss", 0.0)
        self.progress.update(1, f"loss {loss:.3f}, lr {lr:.2e}")
        norms = engine.norms() if result.is_applied else []
        if is_due(step, self.config.logging.interval_steps):
            ratios = torch.cat([record.trust_ratio for record in norms]) if norms else None
            summary = {}
            if ratios is not None:
                summary = {
                    "trust_ratio_min": float(ratios.min()),
                    "trust_ratio_median": float(ratios.median()),
                    "trust_ratio_max": float(ratios.max()),
                }
            self._write(
                phase,
                step,
                "step",
                lr=lr,
                loss=loss,
                **{key: value for key, value in means.items() if key != "nsp_accuracy"},
                grad_norm=result.grad_norm,
                **summary,
                is_applied=result.is_applied,
                num_sequences=counts.num_sequences,
                num_tokens=counts.num_tokens,
                seconds=seconds,
                sequences_per_second=counts.num_sequences / seconds,
                **({} if engine.loss_scale is None else {"loss_scale": engine.loss_scale}),
            )
        if norms and is_due(step, self.config.logging.trust_ratio_interval_steps):
            self._write(
                phase,
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

    def heldout(self, phase: Phase, step: int, metrics: dict[str, float]) -> None:
        if self.is_main and phase.heldout is not None:
            num_instances = min(len(phase.heldout), self.config.evaluation.max_instances)
            baseline = {} if self.unigram is None else {"unigram_cross_entropy": self.unigram}
            self._write(phase, step, "heldout", **metrics, num_instances=num_instances, **baseline)
            self.last_step_at = time.monotonic()

    def end_phase(self, phase: Phase, step: int) -> None:
        """Say that the phase stopped after `step`: at its end, or before it by a signal."""
        if self.is_main:
            self.progress.__exit__(None, None, None)
            if step == phase.plan.total_steps:
                self._write(phase, step, "phase_end", seconds=time.monotonic() - self.started_at)

    def close(self) -> None:
        if self.is_main:
            self.log.close()
            self.tracker.finish()

    def _write(self, phase: Phase, step: int, kind: str, **fields: Any) -> None:
        record = {"kind": kind, "phase": phase.name, "step": step, **fields}
        self.log.write(**record)
        self.tracker.log(record, total_step=phase.steps_before + step)


def mean_metrics(sums: PretrainingSums, counts: BatchCounts, *, has_sentence_task: bool) -> dict[str, float]:
    """Means of a batch's sums under the names of metrics.jsonl; nsp: the sentence task, where there is one."""
    means = {
        "mlm_loss": float(sums.mlm_loss) / counts.num_predictions,
        "mlm_accuracy": float(sums.mlm_correct) / counts.num_predictions,
    }
    if not has_sentence_task:
        return means
    return means | {
        "nsp_loss": float(sums.nsp_loss) / counts.num_sequences,
        "nsp_accuracy": float(sums.nsp_correct) / counts.num_sequences,
    }
