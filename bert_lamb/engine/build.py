"""Model and optimizer onto the machine that a runtime asks for, with the weights and moments of a checkpoint."""

import sys
from collections.abc import Collection

import torch
from torch import nn

from bert_lamb.engine.agreement import is_first_to_say
from bert_lamb.engine.deepspeed_engine import DeepSpeedEngine
from bert_lamb.engine.deepspeed_json import deepspeed_json
from bert_lamb.engine.launch import Process, this_process
from bert_lamb.engine.place import rank_label
from bert_lamb.engine.protocol import Engine
from bert_lamb.engine.settings import AUTO as AUTO
from bert_lamb.engine.settings import RuntimeSettings as RuntimeSettings
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.errors import UserError
from bert_lamb.optim import fused
from bert_lamb.optim.build import OptimizerSettings, build_optimizer


def process_for(runtime: RuntimeSettings) -> Process:
    """This process as a run's settings want it; raises what `this_process` does."""
    timeout_seconds = runtime.collective_timeout_seconds
    return this_process(device=runtime.device, num_threads=runtime.num_threads, timeout_seconds=timeout_seconds)


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
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
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
