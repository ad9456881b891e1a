"""The groups `runtime`, `checkpoint`, `logging` and `tracker`: how a run is computed, kept and watched."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from bert_lamb.config.checks import Complaints, check_if_counts_from_zero, check_if_positive

# Stages for which conf/runtime has a micro-batch, needed or not.
STAGES_OF_RUNTIMES = {"phase1", "phase2", "fine_tuning"}
AUTO = "auto"


class EngineName(Enum):
    torch = "torch"  # plain PyTorch, one process
    deepspeed = "deepspeed"
    fsdp = "fsdp"  # PyTorch's own sharding (FSDP2)


class Precision(Enum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"  # GPU only; dynamic loss scale


class Attention(Enum):
    auto = "auto"  # varlen; sdpa on a GPU in fp32, or before compute capability 8.0
    varlen = "varlen"
    sdpa = "sdpa"
    eager = "eager"


@dataclass
class RuntimeConfig:
    """How the run is computed; nothing here changes the outcome beyond rounding, and the draws of dropout."""

    engine: EngineName = EngineName.deepspeed
    device: str = "auto"  # auto, cpu or cuda
    precision: Precision = Precision.bf16
    # auto; varlen: no padding is computed; sdpa, eager: transformers' own, on rows padded to the stage's length.
    attention: Attention = Attention.auto
    # What torch.compile takes: false, layers or model, not with ZeRO stage 3; auto: layers on a GPU in half precision.
    compile: bool | str = False
    activation_checkpointing: bool = False  # layers are computed again in the backward pass: less memory, more time
    tf32: bool = False  # matrix products of precision fp32 on a GPU keep 10 bits of mantissa
    zero_stage: int = 1  # 0..3, deepspeed only
    offload_optimizer: bool = False  # optimizer state in CPU memory; deepspeed with zero_stage 1..3
    # Sequences per rank and micro-step, by stage (a phase, or fine_tuning): at most. Or auto: as many as the memory of
    # the device holds, which is found at the start, whatever micro_batch_tokens says.
    micro_batch_size: Any = field(default_factory=dict)
    # Tokens per rank and micro-step: at most, on average over the stage's rows. Where both are given, both hold.
    micro_batch_tokens: int | None = None
    num_threads: int | None = None  # CPU threads per rank; None: as the environment says
    # Seconds that a rank waits for the others in one collective; then the job ends and names who is silent or behind.
    collective_timeout_seconds: float = 300.0
    # Minutes since the start of the process, then a stop as by a signal, with a checkpoint; null: never.
    stop_after_minutes: float | None = None
    verify_shards: bool = True  # hash every shard before the first step, dealt out over the ranks
    loader_workers: int = 0  # processes per rank that build batches; 0: in the training process
    # TFLOP/s of one device in this precision, against which utilization is given; None: measured at the start
    peak_tflops: float | None = None
    profile: int = 0  # optimizer steps whose trace is written to run_dir/profile, after a few to warm up; 0: none
    deepspeed_overrides: dict[str, Any] = field(default_factory=dict)  # merged last into DeepSpeed's json, and printed


def check_runtime(runtime: RuntimeConfig) -> Complaints:
    complaints = Complaints()
    is_deepspeed, precision = runtime.engine is EngineName.deepspeed, runtime.precision
    counts = ("num_threads", "micro_batch_tokens", "peak_tflops")
    check_if_positive(complaints, "runtime.", runtime, *counts, "collective_timeout_seconds", "stop_after_minutes")
    complaints.unless(
        runtime.compile in (False, AUTO, "layers", "model"),
        "runtime.compile",
        runtime.compile,
        "false, auto, layers or model",
    )
    complaints.unless(
        not (runtime.compile not in (False, AUTO) and is_deepspeed and runtime.zero_stage == 3),
        "runtime.compile",
        runtime.compile,
        "false or auto in ZeRO stage 3, which gathers weights module by module",
    )
    check_if_counts_from_zero(complaints, "runtime.", runtime, "loader_workers", "profile")
    complaints.unless(runtime.zero_stage in (0, 1, 2, 3), "runtime.zero_stage", runtime.zero_stage, "0, 1, 2 or 3")
    complaints.unless(runtime.device in ("auto", "cpu", "cuda"), "runtime.device", runtime.device, "auto, cpu or cuda")
    complaints.unless(
        not is_deepspeed or precision is Precision.fp32 or runtime.zero_stage != 0,
        "runtime.zero_stage",
        0,
        f"1, 2 or 3 with {precision.value}: in stage 0 DeepSpeed accumulates gradients in that precision"
        " instead of fp32 (stage 1 is the same on one rank)",
    )
    complaints.unless(
        not runtime.offload_optimizer or (is_deepspeed and runtime.zero_stage != 0),
        "runtime.offload_optimizer",
        True,
        "runtime.engine=deepspeed with runtime.zero_stage 1..3",
    )
    complaints.unless(
        is_deepspeed or precision is not Precision.fp16,
        "runtime.precision",
        "fp16",
        f"fp32 or bf16 with runtime.engine={runtime.engine.value} (loss scaling is DeepSpeed's)",
    )
    complaints.unless(
        is_deepspeed or not runtime.deepspeed_overrides,
        "runtime.deepspeed_overrides",
        runtime.deepspeed_overrides,
        f"none with runtime.engine={runtime.engine.value}",
    )
    complaints.unless(
        not (runtime.device == "cpu" and precision is Precision.fp16),
        "runtime.precision",
        "fp16",
        "fp32 or bf16 on the CPU",
    )
    return complaints


def check_micro_batches(runtime: RuntimeConfig, max_seq_lengths: dict[str, int]) -> Complaints:
    """Each stage of the run has a micro-batch, in tokens or in sequences; max_seq_lengths: tokens, by stage.

    runtime.micro_batch_size has no entry for other stages, but for those of conf/runtime.
    """
    complaints, sizes, stages = Complaints(), runtime.micro_batch_size, list(max_seq_lengths)
    if sizes == AUTO:
        return complaints
    if not isinstance(sizes, dict):
        complaints.unless(False, "runtime.micro_batch_size", sizes, "auto, or sequences by stage")
        return complaints
    if runtime.micro_batch_tokens is not None:
        longest = max(max_seq_lengths.values(), default=0)
        expected = f"at least max_seq_length, {longest}"
        complaints.unless(
            runtime.micro_batch_tokens >= longest, "runtime.micro_batch_tokens", runtime.micro_batch_tokens, expected
        )
    for name in stages:
        if name in sizes or runtime.micro_batch_tokens is None:
            size, expected = sizes.get(name), "sequences per rank and micro-step, above 0 (or micro_batch_tokens)"
            is_size = type(size) is int and size > 0
            complaints.unless(
                is_size, f"runtime.micro_batch_size.{name}", size if name in sizes else "nothing", expected
            )
    for name in sorted(sizes.keys() - set(stages) - STAGES_OF_RUNTIMES):
        expected = f"a stage of this run: {', '.join(stages)}"
        complaints.unless(False, f"runtime.micro_batch_size.{name}", sizes[name], expected)
    return complaints


@dataclass
class CheckpointConfig:
    """Saved at the end of each phase, and as often as these say: a lost machine costs what is between."""

    interval_steps: int = 0  # optimizer steps; 0: not by steps
    interval_minutes: float = 10.0  # by rank 0's clock, after the step that is at work; 0: not by time
    keep_last: int = 2  # older ones by steps are removed within a phase; of those by the clock the newest stays
    keep_every: int = 0  # steps of the phase: checkpoints whose step is a multiple are never removed; 0: none
    # Training stops for a copy to host memory (12 bytes a parameter, divided over the ranks), and continues while a
    # thread writes it. false: it waits until the checkpoint is on the disk.
    is_asynchronous: bool = True


def check_checkpoint(checkpoint: CheckpointConfig) -> Complaints:
    complaints = Complaints()
    check_if_counts_from_zero(complaints, "checkpoint.", checkpoint, "interval_steps", "interval_minutes", "keep_every")
    check_if_positive(complaints, "checkpoint.", checkpoint, "keep_last")
    return complaints


@dataclass
class LoggingConfig:
    interval_steps: int = 1  # optimizer steps between lines of metrics.jsonl
    trust_ratio_interval_steps: int = 0  # steps between records of every parameter's trust ratio; 0: never


def check_logging(logging: LoggingConfig) -> Complaints:
    complaints = Complaints()
    check_if_positive(complaints, "logging.", logging, "interval_steps")
    check_if_counts_from_zero(complaints, "logging.", logging, "trust_ratio_interval_steps")
    return complaints


@dataclass
class TrackerConfig:
    name: str = "none"  # none, wandb or tensorboard
    project: str = "bert-lamb"
    mode: str = "offline"  # wandb: online, offline or disabled


def check_tracker(tracker: TrackerConfig) -> Complaints:
    complaints = Complaints()
    modes = ("online", "offline", "disabled")
    names = ("none", "wandb", "tensorboard")
    complaints.unless(tracker.name in names, "tracker.name", tracker.name, "none, wandb or tensorboard")
    complaints.unless(tracker.mode in modes, "tracker.mode", tracker.mode, "online, offline or disabled")
    return complaints
