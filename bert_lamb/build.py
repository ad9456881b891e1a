"""Put together what a phase trains with: the model at its seeded start, the optimizer, and the machine around them."""

from dataclasses import asdict

import torch

from bert_lamb.config import EngineName, LambConfig, PretrainConfig
from bert_lamb.data.keyed_random import fold
from bert_lamb.engine.checkpoint import Checkpoint
from bert_lamb.engine.deepspeed_engine import DeepSpeedEngine, deepspeed_json
from bert_lamb.engine.launch import Process
from bert_lamb.engine.protocol import Engine
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.model.bert import BertPretrainingModel, bert_config
from bert_lamb.optim import Lamb, parameter_groups
from bert_lamb.phase import Phase


def build_model(config: PretrainConfig, phase: Phase) -> BertPretrainingModel:
    """The model at its seeded start; the same for every phase."""
    vocabulary = phase.training.manifest.vocabulary
    sizes = asdict(config.model)
    bert = bert_config(vocab_size=vocabulary.size, pad_token_id=vocabulary.pad_id, **sizes)
    return BertPretrainingModel(bert, seed=int(fold(config.seed, -1)))


def build_optimizer(config: PretrainConfig, model: BertPretrainingModel) -> torch.optim.Optimizer:
    """LAMB, or torch's AdamW, over the model's parameters with the usual exemptions; its lr is set at each step."""
    settings = config.optimizer
    beta1, beta2 = settings.betas
    groups = parameter_groups(model.named_parameters(), weight_decay=settings.weight_decay)
    if isinstance(settings, LambConfig):
        return Lamb(
            groups,
            lr=0.0,
            betas=(beta1, beta2),
            eps=settings.eps,
            bias_correction=settings.bias_correction,
            implementation=settings.implementation.value,
            awaits_binding=config.runtime.engine is EngineName.deepspeed,
        )
    return torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2), eps=settings.eps)


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
    optimizer = build_optimizer(config, model)
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
