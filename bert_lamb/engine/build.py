"""Model and optimizer onto the machine that a runtime asks for, with the weights and moments of a checkpoint."""

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from bert_lamb.engine.agreement import is_first_to_say
from bert_lamb.engine.deepspeed_engine import DeepSpeedEngine
from bert_lamb.engine.deepspeed_json import deepspeed_json
from bert_lamb.engine.launch import Process, this_process
from bert_lamb.engine.place import rank_label
from bert_lamb.engine.protocol import Engine
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.errors import UserError
from bert_lamb.optim import fused
from bert_lamb.optim.build import OptimizerSettings, build_optimizer

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class RuntimeSettings:
    """How a run is computed; nothing here changes the outcome beyond rounding. See config/runtime.py for each."""

    engine: Literal["torch", "deepspeed", "fsdp"]
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    zero_stage: int
    offload_optimizer: bool
    micro_batch_size: dict[str, int] | Literal["auto"]  # sequences, by stage: at most
    num_threads: int | None
    verify_shards: bool
    loader_workers: int
    peak_tflops: float | None
    profile: int
    attention: Literal["auto", "varlen", "sdpa", "eager"] = "auto"
    compile: Literal[False, "layers", "model"] = False
    activation_checkpointing: bool = False
    micro_batch_tokens: int | None = None  # tokens: at most, on average
    tf32: bool = False
    collective_timeout_seconds: float = 300.0
    stop_after_minutes: float | None = None
    deepspeed_overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def has_whole_weights(self) -> bool:
        """Whether all weights are at hand during a forward pass; ZeRO 3 gathers each while its own module is called."""
        return not (self.engine == "deepspeed" and self.zero_stage == 3)

    def process(self) -> Process:
        """This process among the ranks; see `this_process`."""
        return this_process(
            device=self.device, num_threads=self.num_threads, timeout_seconds=self.collective_timeout_seconds
        )

    def of_model(self) -> dict[str, Any]:
        """What a model has to know of it, as `choose_execution` takes it."""
        return {
            "precision": self.precision,
            "attention": self.attention,
            "has_whole_weights": self.has_whole_weights,
            "compile": self.compile or None,
            "activation_checkpointing": self.activation_checkpointing,
        }

    def max_micro_batch_size(self, stage: str, *, mean_length: float) -> int:
        """Sequences per rank and micro-step of a stage: at most as given, and as micro_batch_tokens hold on average.

        1 where they are still to be found (auto).
        """
        if self.micro_batch_size == AUTO:
            return 1
        limits = [self.micro_batch_size[stage]] if stage in self.micro_batch_size else []
        if self.micro_batch_tokens is not None:
            limits.append(max(1, int(self.micro_batch_tokens / mean_length)))
        return min(limits)

    def describe(self, process: Process) -> list[str]:
        """Lines for the start of a run."""
        machine = f"{self.engine}, {process.world_size} x {process.device.type}, {self.precision}"
        if self.engine == "deepspeed":
            machine += f", ZeRO stage {self.zero_stage}"
        lines = [f"machine  {machine}"]
        if self.deepspeed_overrides:
            lines.append(f"deepspeed_overrides {self.deepspeed_overrides}")
        return lines


def check_kernels(implementation: str | None, runtime: RuntimeSettings, process: Process) -> None:
    """Try the Triton kernels on this rank's GPU before anything is loaded; they need a compiler when they run.

    implementation: of LAMB or LARS, None for other optimizers. Where the kernels do not run, auto takes foreach, which
    is said in a line, and fused raises UserError.
    """
    if implementation not in ("auto", "fused"):
        return
    device = torch.device("cpu") if runtime.offload_optimizer else process.device  # of the masters
    reason = fused.why_no_launch(device)
    if reason is None:
        return
    if implementation == "fused":
        raise UserError(
            found=f"optimizer.implementation=fused where {reason}",
            expected="Triton kernels that compile and run",
            fix="install what is missing, or set optimizer.implementation=foreach",
        )
    said = f"optimizer.implementation=auto takes foreach, which is slower: {reason}"
    if device.type == "cuda" and is_first_to_say(said):  # a rank that is slower than the others holds them all up
        print(f"{rank_label()}{said}", file=sys.stderr, flush=True)


def build_engine(
    model: nn.Module,
    optimizer: OptimizerSettings,
    runtime: RuntimeSettings,
    process: Process,
    *,
    idle: Collection[str] = (),
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    max_grad_norm: float,
    loss_scale: float | None,
) -> Engine:
    """The engine that trains `model`, which holds the fp32 weights to start from, on any device.

    idle: see build_optimizer. max_grad_norm: 0 for no clipping. loss_scale: of fp16 where a checkpoint has one.
    """
    if process.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = runtime.tf32
    model.to(process.device)
    if runtime.engine == "fsdp":
        from bert_lamb.engine.fsdp_engine import FsdpEngine, shard  # a second to import

        shard(model, process=process, precision=runtime.precision)
        return FsdpEngine(
            model,
            build_optimizer(model, optimizer, idle=idle, awaits_binding=False),
            process=process,
            gradient_accumulation_steps=gradient_accumulation_steps,
            max_grad_norm=max_grad_norm,
        )
    built = build_optimizer(model, optimizer, idle=idle, awaits_binding=runtime.engine == "deepspeed")
    if runtime.engine == "torch":
        return TorchEngine(
            model, built, device=process.device, precision=runtime.precision, max_grad_norm=max_grad_norm
        )
    json = deepspeed_json(
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        world_size=process.world_size,
        precision=runtime.precision,
        zero_stage=runtime.zero_stage,
        offload_optimizer=runtime.offload_optimizer,
        max_grad_norm=max_grad_norm,
        initial_loss_scale=loss_scale,
        overrides=runtime.deepspeed_overrides,
    )
    return DeepSpeedEngine(model, built, process=process, json=json)
