"""How fast the machine multiplies matrices: what a step is held against."""

import time

import torch

SIZE = {"cpu": 2048, "cuda": 8192}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def matrix_product_flops(device: torch.device, precision: str) -> float:
    """Operations a second of the fastest of several products of two square matrices."""
    size = SIZE[device.type]
    left, right = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
