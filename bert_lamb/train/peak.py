"""The peak that a device's model FLOPs are held against where none is given: of a matrix product, measured once."""

import functools
import math
import time

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Rows, columns and inner size of the product: on a GPU those of BERT-Large's widest layer, on a CPU a part of them.
SHAPES = {"cuda": (8192, 4096, 1024), "cpu": (128, 1024, 1024)}
PRODUCTS_PER_SAMPLE = {"cuda": 20, "cpu": 1}
MAX_SECONDS, MAX_SAMPLES = 0.1, 5


@functools.cache
def measured_peak_tflops(device: torch.device, precision: str) -> float:
    """The fastest of a few samples, in TFLOP/s; takes a fraction of a second, once in a process.

    It is what a product of such a size reaches in practice, less than the figure of a data sheet. On a GPU fp32 has
    TF32 or not, as torch is set.
    """
    tflops = 2 * _products_per_second(device, DTYPES[precision]) * math.prod(SHAPES[device.type]) / 1e12
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what was reserved here is not the run's
    return tflops


def _products_per_second(device: torch.device, dtype: torch.dtype) -> float:
    rows, columns, inner = SHAPES[device.type]
    random = torch.Generator(device).manual_seed(0)  # zeros would take less power, and run faster
    left = torch.randn((rows, inner), generator=random, device=device).to(dtype)
    right = torch.randn((inner, columns), generator=random, device=device).to(dtype)
    num_products = PRODUCTS_PER_SAMPLE[device.type]

    def sample() -> float:
        started_at = time.perf_counter()
        for _ in range(num_products):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started_at

    sample()
    seconds = [sample()]
    while len(seconds) < MAX_SAMPLES and sum(seconds) < MAX_SECONDS:
        seconds.append(sample())
    return num_products / min(seconds)
