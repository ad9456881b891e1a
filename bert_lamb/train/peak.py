"""The peak that a device's model FLOPs are held against where none is given: of a matrix product, measured once."""

import functools
import time

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INNER, COLUMNS = 1024, {"cuda": 4096, "cpu": 1024}  # of BERT-Large's widest layer, or of its narrower ones
MIN_ROWS, MAX_ROWS = 16, {"cuda": 8192, "cpu": 1024}
MAX_SECONDS, SAMPLES = 0.15, 3  # in all, but for the first size; of each size
PRODUCTS_PER_SAMPLE = {"cuda": 20, "cpu": 1}


@functools.cache
def measured_peak_tflops(device: torch.device, precision: str) -> float:
    """`measure_peak_tflops`, once in a process."""
    return measure_peak_tflops(device, precision)


def measure_peak_tflops(device: torch.device, precision: str) -> float:
    """The fastest of a few samples of each of several sizes, in TFLOP/s; takes a fraction of a second.

    It is what a product of such a size reaches in practice, less than the figure of a data sheet. On a GPU fp32 has
    TF32 or not, as torch is set.
    """
    flops_per_second = _measure(device, DTYPES[precision])
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what was reserved here is not the run's
    return flops_per_second / 1e12


def _measure(device: torch.device, dtype: torch.dtype) -> float:
    random = torch.Generator(device).manual_seed(0)  # zeros would take less power, and run faster
    left = torch.randn((MAX_ROWS[device.type], INNER), generator=random, device=device).to(dtype)
    right = torch.randn((INNER, COLUMNS[device.type]), generator=random, device=device).to(dtype)
    num_products, rows = PRODUCTS_PER_SAMPLE[device.type], MIN_ROWS
    fastest, spent = 0.0, 0.0  # FLOP/s, seconds
    # A machine with other work stops a sample now and then; what such a sample says ends nothing.
    while rows <= len(left) and (
        rows == MIN_ROWS or spent + SAMPLES * _flops(left[:rows], right, num_products) / fastest < MAX_SECONDS
    ):
        for _ in range(SAMPLES):
            seconds = _seconds(left[:rows], right, num_products)
            fastest, spent = max(fastest, _flops(left[:rows], right, num_products) / seconds), spent + seconds
        rows *= 2
    return fastest


def _flops(left: Tensor, right: Tensor, num_products: int) -> float:
    return 2.0 * left.shape[0] * right.numel() * num_products


def _seconds(left: Tensor, right: Tensor, num_products: int) -> float:
    _finish(left.device)
    started_at = time.perf_counter()
    for _ in range(num_products):
        left @ right
    _finish(left.device)
    return time.perf_counter() - started_at


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
