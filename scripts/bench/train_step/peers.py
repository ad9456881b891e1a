"""What a user would run instead: transformers' Trainer, and a loop written by hand, over the same rows padded."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import IterableDataset
from transformers import BertForPreTraining, Trainer, TrainerCallback, TrainingArguments

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


class _Rows(IterableDataset[dict[str, torch.Tensor]]):
    def __init__(self, batches: list[dict[str, torch.Tensor]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        yield from self.batches


class _Clock(TrainerCallback):
    """Seconds from the begin of a step to its end, evaluation, saving and set-up left out."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.began


class _OneBatch:
    """The collator of batches that are made already."""

    def __call__(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        (batch,) = rows
        return batch


@contextmanager
def alone() -> Iterator[None]:
    """Hide the variables of a process group of one, from which accelerate would conclude that there are ranks."""
    hidden = {name: os.environ.pop(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


class HuggingFaceTrainer:
    """transformers' Trainer with sdpa and fused AdamW, with torch.compile if asked for; one `train` call a step."""

    def __init__(self, workload: Workload, process: Process, *, precision: str, compiled: bool) -> None:
        self.workload, self.clock, self.folder = workload, _Clock(), tempfile.TemporaryDirectory()
        with alone():
            arguments = TrainingArguments(
                self.folder.name,
                max_steps=1,
                per_device_train_batch_size=1,  # one item of the data set, which is a micro-batch
                gradient_accumulation_steps=workload.batches.gradient_accumulation_steps,
                learning_rate=1e-4,
                optim="adamw_torch_fused",
                bf16=precision == "bf16",
                torch_compile=compiled,
                use_cpu=process.device.type == "cpu",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                logging_strategy="no",
            )
            self.trainer = Trainer(
                model=make_model(workload),
                args=arguments,
                train_dataset=_Rows([]),
                data_collator=_OneBatch(),
                callbacks=[self.clock],
            )

    def step(self, number: int) -> dict[str, float]:
        """Take step `number`; the batches are made before the clock starts."""
        self.trainer.train_dataset = _Rows(padded_step(self.workload, number))
        with alone():
            loss = self.trainer.train().training_loss
        return {"seconds": self.clock.seconds, "loss": loss}
