"""Milliseconds of a step, all candidates in turns, and the copy that they are compared with."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from kit.rounds import in_turns

from lamb_step.rows import Row
from lamb_step.tensors import FP32_BYTES


def synchronize(device: str) -> None:
    """Wait until the device has finished what it was sent."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure(call: Callable[[], Any], *, num_calls: int, device: str) -> tuple[float, float]:
    """(milliseconds of one call, of which the host was at work: sending to a GPU, or on the CPU in all threads)."""
    is_gpu = device == "cuda"
    clock = time.perf_counter if is_gpu else time.process_time
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if is_gpu else []
    synchronize(device)
    if is_gpu:
        events[0].record()
    began, began_work = time.perf_counter(), clock()
    for _ in range(num_calls):
        call()
    worked, took = clock() - began_work, time.perf_counter() - began
    if is_gpu:
        events[1].record()
        torch.cuda.synchronize()
        took = events[0].elapsed_time(events[1]) / 1e3
    return took * 1e3 / num_calls, worked * 1e3 / num_calls


@dataclass
class Copy:
    """torch's copy_ of a tensor too large for any cache: the bandwidth that steps are compared with."""

    num_bytes: int  # read and written by one copy
    samples: list[float]  # milliseconds of one copy, one for each round

    @property
    def gb_per_s(self) -> float:
        return self.num_bytes / median(self.samples) / 1e6


def take_turns(rows: list[Row], settings: argparse.Namespace) -> Copy:
    """Fill the rows' samples; in each round the copy and every candidate are measured once."""
    source = torch.ones(settings.copy_mb * 1_000_000 // FP32_BYTES, device=settings.device)
    target = torch.empty_like(source)
    timed = [(row, row.optimizer) for row in rows if row.optimizer is not None]
    calls: list[Callable[[], Any]] = [lambda: target.copy_(source), *(optimizer.step for _, optimizer in timed)]
    for _ in range(settings.warmup):
        for call in calls:
            call()
    measurements = [
        partial(measure, call, num_calls=settings.steps_per_sample, device=settings.device) for call in calls
    ]
    of_copy, *of_rows = in_turns(measurements, num_rounds=settings.repeats)
    for (row, _), samples in zip(timed, of_rows, strict=True):
        row.samples = [milliseconds for milliseconds, _ in samples]
        row.host_samples = [host for _, host in samples]
    return Copy(num_bytes=2 * source.numel() * FP32_BYTES, samples=[milliseconds for milliseconds, _ in of_copy])
