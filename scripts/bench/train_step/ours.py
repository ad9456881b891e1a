"""Our candidates: the loop's own pieces, padded or not, compiled or not, on the plain engine or under ZeRO 1."""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from bert_lamb.data.batches import MicroBatch
from bert_lamb.engine.build import RuntimeSettings, build_engine
from bert_lamb.engine.launch import Process
from bert_lamb.model.bert import BertPretrainingModel
from bert_lamb.model.encoder import choose_execution
from bert_lamb.optim.build import OptimizerSettings
from train_step.workload import SEED, Workload

ADAMW = OptimizerSettings("adamw", weight_decay=0.01, betas=(0.9, 0.999), eps=1e-6)
LAMB = replace(ADAMW, name="lamb", bias_correction=True, nesterov="none", norm="l2", implementation="auto")


@dataclass(frozen=True)
class Settings:
    """What distinguishes our candidates."""

    attention: str = "auto"
    engine: str = "torch"
    compile: Any = False
    optimizer: OptimizerSettings = ADAMW


class Ours:
    """One of our ways to take a step."""

    def __init__(self, workload: Workload, settings: Settings, process: Process, *, precision: str) -> None:
        self.workload, self.device = workload, process.device
        batches = workload.batches
        runtime = RuntimeSettings(
            engine=settings.engine,  # type: ignore[arg-type]
            device="auto",
            precision=precision,  # type: ignore[arg-type]
            zero_stage=1,
            offload_optimizer=False,
            micro_batch_size={},
            num_threads=None,
            verify_shards=False,
            loader_workers=0,
            peak_tflops=None,
            profile=0,
            attention=settings.attention,  # type: ignore[arg-type]
            compile=settings.compile,
        )
        execution = choose_execution(process.device, **runtime.of_model(process.device.type))
        model = BertPretrainingModel(workload.config(), seed=SEED, execution=execution).train()
        self.engine = build_engine(
            model,
            settings.optimizer,
            runtime,
            process,
            micro_batch_size=batches.micro_batch_size,
            gradient_accumulation_steps=batches.gradient_accumulation_steps,
            max_grad_norm=1.0,
            loss_scale=None,
        )

    def step(self, number: int) -> dict[str, float]:
        """Take step `number`; seconds, of which for making the batches, and the loss in nats."""
        began = time.perf_counter()
        micro_batches = self.workload.micro_batches(number)
        in_data = time.perf_counter() - began
        counts = self.workload.batches.counts(number)
        torch.manual_seed(number)
        losses = []
        for batch in micro_batches:
            loss = self.loss(batch.to(self.device), counts)
            self.engine.backward(loss)
            losses.append(loss.detach())
        self.engine.step(1e-4)
        total = float(torch.stack(losses).sum())
        return {"seconds": time.perf_counter() - began, "data_seconds": in_data, "loss": total}

    def loss(self, batch: MicroBatch, counts: Any) -> torch.Tensor:
        sums = self.engine.model(*batch)
        loss: torch.Tensor = sums.mlm_loss / counts.num_predictions + sums.nsp_loss / counts.num_sequences
        return loss
