"""transformers' Trainer, one optimizer step a call: what a user would run instead, whatever is learnt."""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

Batch = dict[str, Tensor]


class TrainerStep:
    """Trainer with torch's fused AdamW. accumulation: micro-batches of a step."""

    def __init__(
        self,
        model: nn.Module,
        *,
        accumulation: int,
        lr: float,
        is_bf16: bool = False,
        is_compiled: bool = False,
        on_cpu: bool = True,
    ) -> None:
        self.clock, self.folder = _Clock(), tempfile.TemporaryDirectory()
        with alone():
            arguments = TrainingArguments(
                self.folder.name,
                max_steps=1,
                per_device_train_batch_size=1,  # one item of the data set, which is a micro-batch
                gradient_accumulation_steps=accumulation,
                learning_rate=lr,
                optim="adamw_torch_fused",
                bf16=is_bf16,
                torch_compile=is_compiled,
                use_cpu=on_cpu,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                logging_strategy="no",
            )
            self.trainer = Trainer(
                model=model,
                args=arguments,
                train_dataset=_Rows([]),
                data_collator=_OneBatch(),
                callbacks=[self.clock],
            )

    def step(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        """Seconds of a step over micro-batches that are made already, and the loss that the Trainer reports."""
        self.trainer.train_dataset = _Rows(micro_batches)
        with alone():
            loss = self.trainer.train().training_loss
        return {"seconds": self.clock.seconds, "loss": loss}


class _Rows(IterableDataset[Batch]):
    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
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

    def __call__(self, rows: list[Batch]) -> Batch:
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
