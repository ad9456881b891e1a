"""What a user would run instead: transformers' Trainer, and a loop written by hand, over the same rows padded."""

import time

import torch
from kit.trainer import TrainerStep
from transformers import BertForPreTraining

from bert_lamb.engine.launch import Process
from train_step.workload import SEED, Workload, as_transformers_takes_it


def make_model(workload: Workload) -> BertForPreTraining:
    torch.manual_seed(SEED)
    return BertForPreTraining._from_config(workload.config(), attn_implementation="sdpa", dtype=torch.float32)


def padded_step(workload: Workload, number: int) -> list[dict[str, torch.Tensor]]:
    pad_id = workload.batches.instances.manifest.vocabulary.pad_id
    return [as_transformers_takes_it(batch, pad_id) for batch in workload.micro_batches(number)]


class PlainLoop:
    """BertForPreTraining with its own loss, torch's fused AdamW and clipping, as a script would write it."""

    def __init__(self, workload: Workload, process: Process, *, precision: str) -> None:
        self.workload, self.device, self.is_bf16 = workload, process.device, precision == "bf16"
        self.model = make_model(workload).to(process.device).train()  # type: ignore[arg-type]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self, number: int) -> dict[str, float]:
        """Take step `number`; the batches are made before the clock starts."""
        micro_batches = padded_step(self.workload, number)
        began = time.perf_counter()
        losses = []
        for batch in micro_batches:
            inputs = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16):
                loss = self.model(**inputs).loss / len(micro_batches)
            loss.backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        total = float(torch.stack(losses).sum())
        return {"seconds": time.perf_counter() - began, "loss": total}


class HuggingFaceTrainer:
    """transformers' Trainer with sdpa, with torch.compile if asked for."""

    def __init__(self, workload: Workload, process: Process, *, precision: str, compiled: bool) -> None:
        self.workload = workload
        self.trainer = TrainerStep(
            make_model(workload),
            accumulation=workload.batches.gradient_accumulation_steps,
            lr=1e-4,
            is_bf16=precision == "bf16",
            is_compiled=compiled,
            on_cpu=process.device.type == "cpu",
        )

    def step(self, number: int) -> dict[str, float]:
        """Take step `number`; the batches are made before the clock starts."""
        return self.trainer.step(padded_step(self.workload, number))
