"""`bert-lamb pretrain`: shards -> checkpoints. Read it downhill: for each phase, for each step.

Every phase starts from a checkpoint (its own after an interruption, else the last of the phase before, handed over),
so resuming and going on are the same code. What is trained depends on the recipe alone; ranks, micro-batches, ZeRO
stage and engine only decide how it is computed.
"""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml

from bert_lamb.batch_plan import BatchPlan, plan_batch
from bert_lamb.config import EngineName, LambConfig, PhaseConfig, PretrainConfig
from bert_lamb.data.batches import HeldoutBatches, TrainingBatches, unigram_cross_entropy
from bert_lamb.data.keyed_random import fold
from bert_lamb.data.masking import MaskingRule
from bert_lamb.engine.checkpoint import Checkpoint, Position, hand_over, save_checkpoint
from bert_lamb.engine.deepspeed_engine import DeepSpeedEngine, deepspeed_json
from bert_lamb.engine.launch import Process, join_process_group, this_process
from bert_lamb.engine.protocol import Engine
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.errors import UserError
from bert_lamb.model.bert import BertPretrainingModel, PretrainingSums, bert_config
from bert_lamb.optim import Lamb, parameter_groups
from bert_lamb.progress import Progress
from bert_lamb.run_dir import METRICS_FILE, MetricsLog, RunDir, forget_metrics_after
from bert_lamb.schedule import lr_multiplier
from bert_lamb.shards import Instances, check_hashes, open_instances
from bert_lamb.tracker import open_tracker

MAX_CONSECUTIVE_SKIPS = 50  # steps; a dynamic loss scale needs some, a diverged run never stops
MAX_UNIGRAM_TOKENS = 20_000_000
STOPPED_BY_SIGNAL = 143


@dataclass(frozen=True)
class Phase:
    """A phase that has been admitted: its plan fits the machine and its shards are what it asks for."""

    name: str
    index: int
    config: PhaseConfig
    plan: BatchPlan
    steps_before: int  # optimizer steps of earlier phases
    training: Instances
    heldout: Instances | None
    rule: MaskingRule


def pretrain(config: PretrainConfig) -> None:
    """Run every phase that is not finished; raises UserError before anything is written when something disagrees."""
    runtime = config.runtime
    process = this_process(device=runtime.device, num_threads=runtime.num_threads)  # type: ignore[arg-type]
    phases = admit_phases(config, process)
    if runtime.engine is EngineName.torch and process.world_size > 1:
        raise UserError(
            found=f"runtime.engine=torch with {process.world_size} ranks",
            expected="one process",
            fix="set runtime.engine=deepspeed",
        )
    if runtime.engine is EngineName.deepspeed:
        join_process_group(process)
    run_dir = RunDir(Path(config.run_dir))
    if process.is_main:
        check_shards(config, phases)
        run_dir.admit(
            config_yaml=yaml.safe_dump(to_plain(asdict(config)), sort_keys=False),
            outcome=outcome_of(config, phases),
            vocabulary=phases[0].training.vocabulary_path,
            if_exists=config.if_exists.value,
        )
    if process.world_size > 1:
        torch.distributed.barrier()

    existing = run_dir.checkpoints()
    checkpoint = Checkpoint(existing[-1]) if existing else None
    position = checkpoint.position if checkpoint else Position(phases[0].name, step=0, optimizer_step=0)
    if process.is_main:
        announce(config, phases, process, position, is_resuming=checkpoint is not None)
        finished = {phase.name for phase in phases if phase.steps_before < total_step(phases, position) - position.step}
        forget_metrics_after(
            run_dir.path / METRICS_FILE, finished_phases=finished, phase=position.phase, step=position.step
        )
    recorder = Recorder(config, run_dir, process)
    with stop_on_signals() as stop:
        for phase in phases:
            if phase.steps_before + phase.config.total_steps <= total_step(phases, position):
                continue
            if position.phase != phase.name:
                position = hand_over(position, next_phase=phase.name)
            engine = build_engine(config, phase, process, checkpoint, loss_scale=position.loss_scale)
            engine.set_optimizer_step(position.optimizer_step)
            directory = train_phase(config, phase, engine, position, run_dir, recorder, stop)
            checkpoint = Checkpoint(directory)
            position = checkpoint.position
            if stop.is_asked:
                recorder.close()
                if process.is_main:
                    print(f"stopped after {position}; continue with if_exists=resume", file=sys.stderr)
                sys.exit(STOPPED_BY_SIGNAL)
    recorder.close()


def train_phase(
    config: PretrainConfig,
    phase: Phase,
    engine: Engine,
    position: Position,
    run_dir: RunDir,
    recorder: "Recorder",
    stop: "StopFlag",
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
    for step in range(position.step + 1, settings.total_steps + 1):
        counts = batches.counts(step)
        sums = torch.zeros(len(PretrainingSums._fields) + 1, device=engine.device)
        for micro_step in range(plan.gradient_accumulation_steps):
            batch = next(loader).to(engine.device)
            torch.manual_seed(int(fold(config.seed, phase.index, step, micro_step, engine.rank)))  # dropout
            micro: PretrainingSums = engine.model(*batch)
            engine.backward(micro.mlm_loss / counts.num_predictions + micro.nsp_loss / counts.num_sequences)
            sums[:-1] += torch.stack(micro).detach()
        sums[-1] = stop.is_asked
        lr = settings.peak_lr * lr_multiplier(
            step,
            total_steps=settings.total_steps,
            warmup_proportion=settings.warmup_proportion,
            decay_power=settings.decay_power,
            decay_origin=settings.decay_origin.value,
        )
        result = engine.step(lr)
        *of_batch, num_asked = engine.all_reduce_sum(sums).tolist()
        stop.is_asked = num_asked > 0  # a signal to one rank stops all of them after the same step
        num_skipped = 0 if result.is_applied else num_skipped + 1
        recorder.step(phase, step, lr=lr, counts=counts, sums=PretrainingSums(*of_batch), result=result, engine=engine)
        if num_skipped > MAX_CONSECUTIVE_SKIPS:
            raise UserError(
                found=f"{num_skipped} steps in a row with a gradient that is not finite ({phase.name}, step {step})",
                expected="a finite gradient",
                fix=f"resume from {run_dir.path}/checkpoints with a lower phases.{phase.name}.peak_lr",
            )

        is_last = step == settings.total_steps or stop.is_asked
        if heldout is not None and (is_last or is_due(step, config.evaluation.interval_steps)):
            recorder.heldout(phase, step, evaluate(engine, heldout, config.evaluation.micro_batch_size))
        if is_last or is_due(step, config.checkpoint.interval_steps):
            directory = run_dir.checkpoint_dir(phase.name, step)
            save_checkpoint(
                engine,
                directory,
                position=Position(phase.name, step, engine.optimizer_step, engine.loss_scale),
                shapes=recorder.shapes,
                about={
                    "total_step": phase.steps_before + step,
                    "vocabulary": asdict(phase.training.manifest.vocabulary),
                },
            )
            if engine.rank == 0:
                run_dir.remove_old_checkpoints(phase.name, keep_last=config.checkpoint.keep_last)
        if is_last:
            break
    recorder.end_phase(phase, step)
    return directory


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
    return mean_metrics(PretrainingSums(*engine.all_reduce_sum(sums).tolist()), heldout.counts)


def mean_metrics(sums: PretrainingSums, counts: Any) -> dict[str, float]:
    """Means of a batch's sums under the names of metrics.jsonl."""
    return {
        "mlm_loss": float(sums.mlm_loss) / counts.num_predictions,
        "mlm_accuracy": float(sums.mlm_correct) / counts.num_predictions,
        "nsp_loss": float(sums.nsp_loss) / counts.num_sequences,
        "nsp_accuracy": float(sums.nsp_correct) / counts.num_sequences,
    }


def is_due(step: int, interval_steps: int) -> bool:
    return interval_steps > 0 and step % interval_steps == 0


def total_step(phases: list[Phase], position: Position) -> int:
    """Optimizer steps since the start of the run."""
    return next(phase.steps_before for phase in phases if phase.name == position.phase) + position.step


# Admission: everything that can be refused is refused before the first file is written.


def admit_phases(config: PretrainConfig, process: Process) -> list[Phase]:
    """Check each phase's batch and shards; raises UserError at the first that does not fit."""
    phases: list[Phase] = []
    steps_before = 0
    for index, (name, settings) in enumerate(config.phases.items()):
        plan = plan_batch(
            phase=name,
            global_batch_size=settings.global_batch_size,
            micro_batch_size=config.runtime.micro_batch_size[name],
            world_size=process.world_size,
            total_steps=settings.total_steps,
            max_seq_length=settings.max_seq_length,
        )
        shards = Path(settings.shards)
        training = open_instances(shards, max_seq_length=settings.max_seq_length, split="train")
        heldout = None
        if config.evaluation.max_instances:
            heldout = open_instances(shards, max_seq_length=settings.max_seq_length, split="heldout")
        vocabulary = training.manifest.vocabulary
        if phases and vocabulary.sha256 != phases[0].training.manifest.vocabulary.sha256:
            raise UserError(
                found=f"another vocabulary in phases.{name}.shards than in phases.{phases[0].name}.shards",
                expected="one vocabulary for all phases",
                fix=f"prepare the shards of {name} with vocabulary.file={phases[0].training.vocabulary_path}",
            )
        rule = MaskingRule(
            mask_prob=config.masking.mask_prob,
            mask_token_prob=config.masking.mask_token_prob,
            random_token_prob=config.masking.random_token_prob,
            masking_copies=config.masking.masking_copies,
            max_predictions_per_seq=settings.max_predictions_per_seq,
            vocab_size=vocabulary.size,
            mask_token_id=vocabulary.mask_id,
            special_token_ids=(vocabulary.cls_id, vocabulary.sep_id),
        )
        phases.append(Phase(name, index, settings, plan, steps_before, training, heldout, rule))
        steps_before += settings.total_steps
    return phases


def check_shards(config: PretrainConfig, phases: list[Phase]) -> None:
    """Hash the shards of every phase, when the configuration asks for it."""
    if not config.runtime.verify_shards:
        return
    for directory, max_seq_length in {(phase.config.shards, phase.config.max_seq_length) for phase in phases}:
        check_hashes(Path(directory), max_seq_length=max_seq_length)


def outcome_of(config: PretrainConfig, phases: list[Phase]) -> dict[str, Any]:
    """What decides the weights beyond rounding: a run is only resumed with the same."""
    plain = to_plain(asdict(config))
    kept = {key: plain[key] for key in ("model", "optimizer", "max_grad_norm", "masking", "seed")}
    kept["phases"] = {
        phase.name: {**to_plain(asdict(phase.config)), "shards": instance_fingerprint(phase.training)}
        for phase in phases
    }
    kept["optimizer"].pop("implementation", None)
    return kept


def instance_fingerprint(instances: Instances) -> str:
    """The content of an instance set: the hash of its shards' hashes, wherever the folder lies."""
    import hashlib

    chosen = instances.manifest.instance_set(max_seq_length=instances.max_seq_length, split=instances.split)
    return hashlib.sha256("".join(shard.sha256 for shard in chosen.shards).encode()).hexdigest()[:16]


def to_plain(value: Any) -> Any:
    """Enums to their values and tuples to lists, through dicts and lists, for YAML and JSON."""
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


# Building what a phase needs.


def build_model(config: PretrainConfig, phase: Phase) -> BertPretrainingModel:
    """The model at its seeded start; the same for every phase."""
    vocabulary = phase.training.manifest.vocabulary
    sizes = asdict(config.model)
    bert = bert_config(vocab_size=vocabulary.size, pad_token_id=vocabulary.pad_id, **sizes)
    return BertPretrainingModel(bert, seed=int(fold(config.seed, -1)))


def build_engine(
    config: PretrainConfig, phase: Phase, process: Process, checkpoint: Checkpoint | None, *, loss_scale: float | None
) -> Engine:
    """Model, optimizer and machine of a phase, with weights and moments of `checkpoint` when there is one."""
    runtime, settings = config.runtime, config.optimizer
    model = build_model(config, phase)
    if checkpoint is not None:
        with torch.no_grad():
            parameters = dict(model.named_parameters())
            for name, weight in checkpoint.weights():
                parameters[name].copy_(weight)
    model.to(process.device)
    groups = parameter_groups(model.named_parameters(), weight_decay=settings.weight_decay)
    beta1, beta2 = settings.betas
    betas = (beta1, beta2)
    optimizer: torch.optim.Optimizer
    if isinstance(settings, LambConfig):
        optimizer = Lamb(
            groups,
            lr=0.0,
            betas=betas,
            eps=settings.eps,
            bias_correction=settings.bias_correction,
            implementation=settings.implementation.value,
            awaits_binding=runtime.engine is EngineName.deepspeed,
        )
    else:
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=settings.eps)
    engine: Engine
    if runtime.engine is EngineName.torch:
        engine = TorchEngine(
            model,
            optimizer,
            device=process.device,
            precision=runtime.precision.value,
            max_grad_norm=config.max_grad_norm,
        )
    else:
        json = deepspeed_json(
            micro_batch_size=phase.plan.micro_batch_size,
            gradient_accumulation_steps=phase.plan.gradient_accumulation_steps,
            world_size=process.world_size,
            precision=runtime.precision.value,
            zero_stage=runtime.zero_stage,
            offload_optimizer=runtime.offload_optimizer,
            max_grad_norm=config.max_grad_norm,
            initial_loss_scale=loss_scale,
            overrides=runtime.deepspeed_overrides,
        )
        engine = DeepSpeedEngine(model, optimizer, process=process, json=json)
    if checkpoint is not None:
        checkpoint.load_into(engine)
    return engine


def make_heldout(config: PretrainConfig, phase: Phase) -> HeldoutBatches | None:
    if phase.heldout is None:
        return None
    return HeldoutBatches(
        phase.heldout, rule=phase.rule, seed=config.seed, max_instances=config.evaluation.max_instances
    )


# Saying what happens.


def announce(
    config: PretrainConfig, phases: list[Phase], process: Process, position: Position, *, is_resuming: bool
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
    if is_resuming:
        is_finished = total_step(phases, position) == phases[-1].steps_before + phases[-1].config.total_steps
        state = (
            "is finished; nothing to do" if is_finished else f"continues after {position.phase} step {position.step:,}"
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
                config=to_plain(asdict(config)),
            )

    def start_phase(self, phase: Phase, position: Position, engine: Engine, heldout: HeldoutBatches | None) -> None:
        if not self.shapes:
            with torch.device("meta"):
                model = build_model(self.config, phase)
            self.shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self.started_at = self.last_step_at = time.monotonic()
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
        self.progress = Progress(
            phase.name, total=phase.config.total_steps, unit="steps", initial=position.step
        ).__enter__()

    def step(
        self, phase: Phase, step: int, *, lr: float, counts: Any, sums: PretrainingSums, result: Any, engine: Engine
    ) -> None:
        if not self.is_main:
            return
        now = time.monotonic()
        seconds, self.last_step_at = now - self.last_step_at, now
        means = mean_metrics(sums, counts)
        loss = means["mlm_loss"] + means["nsp_loss"]
        self.progress.update(1, f"loss {loss:.3f}, lr {lr:.2e}")
        norms = engine.norms()
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
        if self.is_main:
            self.progress.__exit__(None, None, None)
            self._write(phase, step, "phase_end", seconds=time.monotonic() - self.started_at)

    def close(self) -> None:
        if self.is_main:
            self.log.close()
            self.tracker.finish()

    def _write(self, phase: Phase, step: int, kind: str, **fields: Any) -> None:
        record = {"kind": kind, "phase": phase.name, "step": step, **fields}
        self.log.write(**record)
        self.tracker.log(record, total_step=phase.steps_before + step)


class StopFlag:
    """Whether someone asked the run to stop after the current step."""

    is_asked = False


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """SIGTERM and SIGUSR1 (as SLURM sends before a time limit) end the run after the step, with a checkpoint."""
    flag = StopFlag()

    def ask(number: int, frame: FrameType | None) -> None:
        flag.is_asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
