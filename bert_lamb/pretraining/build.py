"""Put together what a phase trains with: the model at its seeded start, the optimizer, and the machine around them."""

import sys
from dataclasses import asdict
from typing import Any

import torch

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.config.optimizer import AdamWConfig, LambConfig, LarsConfig, LayerwiseConfig, OptimizerImplementation
from bert_lamb.config.pretrain import PretrainConfig
from bert_lamb.config.runtime import EngineName
from bert_lamb.engine.agreement import is_first_to_say
from bert_lamb.engine.deepspeed_engine import DeepSpeedEngine
from bert_lamb.engine.deepspeed_json import deepspeed_json
from bert_lamb.engine.launch import Process
from bert_lamb.engine.place import rank_label
from bert_lamb.engine.protocol import Engine
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.errors import UserError
from bert_lamb.model.bert import BertPretrainingModel, bert_config, is_of_sentence_head
from bert_lamb.optim import Lamb, Lars, fused, parameter_groups
from bert_lamb.optim.apex_lamb import build_apex_lamb
from bert_lamb.pretraining.admission import Phase
from bert_lamb.sampling.keyed_random import fold


def build_model(config: PretrainConfig, phase: Phase) -> BertPretrainingModel:
    """The model at its seeded start; the same for every phase."""
    vocabulary = phase.training.manifest.vocabulary
    sizes = asdict(config.model)
    bert = bert_config(vocab_size=vocabulary.size, pad_token_id=vocabulary.pad_id, **sizes)
    return BertPretrainingModel(bert, seed=int(fold(config.seed, -1)))


def build_optimizer(
    config: PretrainConfig, model: BertPretrainingModel, *, has_sentence_task: bool = True
) -> torch.optim.Optimizer:
    """LAMB, LARS or torch's AdamW over the model's parameters with the usual exemptions; lr is set at each step.

    Without a sentence task its head stays as it began: under LAMB, decay alone would shrink it at the rate of lr.
    """
    settings = config.optimizer
    groups = parameter_groups(
        model,
        weight_decay=settings.weight_decay,
        adapt_undecayed=isinstance(settings, LayerwiseConfig) and settings.adapt_undecayed,
        idle=() if has_sentence_task else [name for name, _ in model.named_parameters() if is_of_sentence_head(name)],
    )
    if isinstance(settings, AdamWConfig):
        return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps)
    if isinstance(settings, LambConfig) and settings.implementation is OptimizerImplementation.apex:
        return build_apex_lamb(
            groups,
            betas=settings.betas,
            eps=settings.eps,
            bias_correction=settings.bias_correction,
            adapt_undecayed=settings.adapt_undecayed,
        )
    assert isinstance(settings, LambConfig | LarsConfig)
    shared: dict[str, Any] = {
        "lr": 0.0,
        "norm": settings.norm.value,
        "param_norm_bounds": settings.param_norm_bounds,
        "trust_ratio_bounds": settings.trust_ratio_bounds,
        "skip_nonfinite": False,  # the engine does, from the norm it has anyway
        "implementation": settings.implementation.value,
        "awaits_binding": config.runtime.engine is EngineName.deepspeed,
    }
    if isinstance(settings, LarsConfig):
        return Lars(groups, beta=settings.beta, **shared)
    return Lamb(
        groups,
        betas=settings.betas,
        eps=settings.eps,
        bias_correction=settings.bias_correction,
        nesterov=settings.nesterov.value,
        **shared,
    )


def check_kernels(config: PretrainConfig, process: Process) -> None:
    """Try the Triton kernels on this rank's GPU before anything is loaded; they need a compiler when they run.

    Where they do not run, optimizer.implementation=auto takes foreach, which is said in a line, and fused raises
    UserError.
    """
    settings = config.optimizer
    if not isinstance(settings, LayerwiseConfig):
        return
    if settings.implementation not in (OptimizerImplementation.auto, OptimizerImplementation.fused):
        return
    device = torch.device("cpu") if config.runtime.offload_optimizer else process.device  # of the masters
    reason = fused.why_no_launch(device)
    if reason is None:
        return
    if settings.implementation is OptimizerImplementation.fused:
        raise UserError(
            found=f"optimizer.implementation=fused where {reason}",
            expected="Triton kernels that compile and run",
            fix="install what is missing, or set optimizer.implementation=foreach",
        )
    said = f"optimizer.implementation=auto takes foreach, which is slower: {reason}"
    if device.type == "cuda" and is_first_to_say(said):  # a rank that is slower than the others holds them all up
        print(f"{rank_label()}{said}", file=sys.stderr, flush=True)


def build_engine(
    config: PretrainConfig, phase: Phase, process: Process, checkpoint: Checkpoint | None, *, loss_scale: float | None
) -> Engine:
    """Model, optimizer and machine of a phase, with weights and moments of `checkpoint` when there is one."""
    runtime = config.runtime
    model = build_model(config, phase)
    if checkpoint is not None:
        with torch.no_grad():
            parameters = dict(model.named_parameters())
            for name, weight in checkpoint.weights():
                parameters[name].copy_(weight)
    model.to(process.device)
    optimizer = build_optimizer(config, model, has_sentence_task=phase.has_sentence_task)
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
