"""What is learnt from images: `Task` for one rank.

The global batch of step k is a function of (seed, k) alone. It is cut into ghost batches in its own order, a
micro-batch is some that follow one another, and micro-batch 0 is rank 0's first; so neither the loss nor BatchNorm's
running statistics depend on ranks and micro-batches beyond rounding.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bert_lamb.engine.launch import Process
from bert_lamb.engine.protocol import Engine
from bert_lamb.sampling.dealing import micro_batch_number
from bert_lamb.sampling.sampler import global_batch
from bert_lamb.train.task import Stage
from bert_lamb.vision.images import ImageData
from bert_lamb.vision.networks import logits_of
from bert_lamb.vision.pixels import shown_image, training_image
from bert_lamb.vision.settings import PixelSettings


@dataclass(frozen=True)
class ImageBatch:
    """One micro-batch. is_first: of its step, over all ranks."""

    images: Tensor  # [B, C, S, S] fp32
    labels: Tensor  # [B] int64
    is_first: bool


@dataclass(frozen=True)
class ImageCounts:
    """The normalizer of a global batch: its images, each a sequence of one position."""

    num_sequences: int

    @property
    def num_tokens(self) -> int:
        return self.num_sequences


class ImageTask:
    """Implements `Task`. flops_per_image: forward and backward. num_threads: decode images at once."""

    def __init__(
        self,
        data: ImageData,
        stage: Stage,
        process: Process,
        *,
        pixels: PixelSettings,
        label_smoothing: float,
        flops_per_image: int,
        seed: int,
        num_threads: int,
    ) -> None:
        self.data, self.stage, self.process, self.pixels = data, stage, process, pixels
        self.label_smoothing, self.flops_per_image, self.seed = label_smoothing, flops_per_image, seed
        self.num_threads = num_threads

    def micro_batches(self, first: int, last: int) -> Iterator[ImageBatch]:
        plan, process = self.stage.plan, self.process
        size, images = plan.micro_batch_size, self.data.train
        with ThreadPoolExecutor(max(1, self.num_threads)) as threads:
            for step in range(first, last + 1):
                numbers, epochs = global_batch(
                    step, global_batch_size=plan.global_batch_size, num_instances=len(images.labels), seed=self.seed
                )
                for micro_step in range(plan.gradient_accumulation_steps):
                    index = micro_batch_number(micro_step, rank=process.rank, world_size=process.world_size)
                    members = slice(index * size, (index + 1) * size)
                    of_batch = threads.map(self._training_image, numbers[members].tolist(), epochs[members].tolist())
                    labels = torch.from_numpy(images.labels[numbers[members]])
                    shown, labels = on_device(process.device, torch.stack(list(of_batch)), labels)
                    yield ImageBatch(shown, labels, is_first=index == 0)

    def _training_image(self, number: int, epoch: int) -> Tensor:
        image = self.data.train.image(number)
        return training_image(image, self.pixels, seed=self.seed, epoch=epoch, number=number)

    def counts(self, number: int) -> ImageCounts:
        return ImageCounts(self.stage.plan.global_batch_size)

    def loss(self, model: Any, batch: ImageBatch, counts: ImageCounts) -> tuple[Tensor, Tensor]:
        logits = logits_of(model, batch.images, keeps_statistics=batch.is_first)
        total = functional.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=self.label_smoothing)
        return total / counts.num_sequences, torch.stack([total.detach(), num_correct(logits, batch.labels)])

    def metrics(self, sums: list[float], counts: ImageCounts) -> dict[str, float]:
        loss, accuracy = (value / counts.num_sequences for value in sums)
        return {"loss": loss, "accuracy": accuracy}

    def flops(self, counts: ImageCounts) -> int:
        return self.flops_per_image * counts.num_sequences

    def evaluate(self, engine: Engine) -> dict[str, float]:
        """Loss and accuracy on the test images, with rank 0's running statistics on every rank."""
        if self.process.world_size > 1:
            for buffer in engine.buffers.values():
                torch.distributed.broadcast(buffer, 0)
        return scores_on_test(
            engine.model,
            self.data,
            self.process,
            pixels=self.pixels,
            batch_size=self.stage.plan.micro_batch_size,
            num_threads=self.num_threads,
            all_reduce_sum=engine.all_reduce_sum,
        )


def scores_on_test(
    model: Any,
    data: ImageData,
    process: Process,
    *,
    pixels: PixelSettings,
    batch_size: int,
    num_threads: int,
    all_reduce_sum: Callable[[Tensor], Tensor],
) -> dict[str, float]:
    """Mean loss in nats, without smoothing, and share of right answers over all test images; every rank calls it.

    Every rank computes equally many batches, since some engines gather weights in each; one too many is not counted.
    """
    num_images = len(data.test.labels)
    sums = torch.zeros(2, dtype=torch.float64, device=process.device)
    model.eval()
    with torch.no_grad(), ThreadPoolExecutor(max(1, num_threads)) as threads:
        for start in range(math.ceil(num_images / (batch_size * process.world_size))):
            begin = (start * process.world_size + process.rank) * batch_size
            numbers = [number for number in range(begin, begin + batch_size) if number < num_images] or [0]
            shown = list(threads.map(lambda number: shown_image(data.test.image(number), pixels), numbers))
            labels = torch.from_numpy(data.test.labels[numbers])
            images, labels = on_device(process.device, torch.stack(shown), labels)
            logits = logits_of(model, images)
            if begin < num_images:
                loss = functional.cross_entropy(logits, labels, reduction="sum")
                sums += torch.stack([loss, num_correct(logits, labels)])
    model.train()
    loss_sum, correct = all_reduce_sum(sums).tolist()
    return {"loss": loss_sum / num_images, "accuracy": correct / num_images, "num_instances": num_images}


def num_correct(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(-1) == labels).sum().to(logits.dtype)


def on_device(device: torch.device, *tensors: Tensor) -> Sequence[Tensor]:
    """Copies on their way; on a GPU the host does not wait for what it does before."""
    if device.type == "cuda":
        tensors = tuple(tensor.pin_memory() for tensor in tensors)
    return [tensor.to(device, non_blocking=True) for tensor in tensors]
