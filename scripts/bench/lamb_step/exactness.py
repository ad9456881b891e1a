"""What exactness costs under ZeRO: norms by segment on a flat partition, and the all-reduce that sums them."""

import argparse
import os
import tempfile
import time
from datetime import timedelta
from statistics import median
from typing import Any

import torch

from lamb_step.groups import Group
from lamb_step.rows import Row, find

NUM_WARMUPS = 5


def price_of_exactness(rows: list[Row], groups: list[Group], settings: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds that norms by segment add to a step on a flat partition, and those of the all-reduce they need."""
    extra = {}
    for implementation in ("foreach", "fused"):
        exact, unaware = (find(rows, f"{name}-{implementation}", "flat") for name in ("lamb", "unaware"))
        if exact is not None and unaware is not None and exact.samples and unaware.samples:
            pairs = zip(exact.samples, unaware.samples, strict=True)
            extra[implementation] = {
                "exact_ms": median(exact.samples),
                "unaware_ms": median(unaware.samples),
                "extra_ms": median(a - b for a, b in pairs),
            }
    num_norms = sum(len(group.names) for group in groups if group.adapt)
    return {"segment_norms": extra, "all_reduce": all_reduce_of_norms(num_norms, settings.num_all_reduces)}


def all_reduce_of_norms(num_parameters: int, num_repeats: int) -> dict[str, Any]:
    """Time of an all-reduce of [2, num_parameters] float64 by gloo over two processes, or why there is none."""
    about = {"shape": [2, num_parameters], "ranks": 2, "backend": "gloo"}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        arguments = (f"file://{folder}/store", num_parameters, num_repeats)
        other = torch.multiprocessing.get_context("spawn").Process(target=_all_reduce, args=(1, *arguments))
        other.start()
        try:
            samples = _all_reduce(0, *arguments)
        except RuntimeError as error:  # a machine without a loopback network must not cost the table
            return {**about, "reason": str(error).splitlines()[0], "median_ms": None, "ms": []}
        finally:
            other.join()
    return {**about, "reason": None, "median_ms": median(samples), "ms": samples}


def _all_reduce(rank: int, store: str, num_parameters: int, num_repeats: int) -> list[float]:
    """Milliseconds of each all-reduce, on this rank."""
    torch.set_num_threads(1)
    patience = timedelta(minutes=2)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=patience)
    norms = torch.ones(2, num_parameters, dtype=torch.float64)
    samples = []
    for _ in range(NUM_WARMUPS + num_repeats):
        norms.fill_(1.0)
        torch.distributed.barrier()
        began = time.perf_counter()
        torch.distributed.all_reduce(norms)
        samples.append((time.perf_counter() - began) * 1e3)
    torch.distributed.destroy_process_group()
    return samples[NUM_WARMUPS:]
