"""Marks in time that cost nothing: on the host's clock, or in the GPU's stream, where no host waits for them."""

import time
from typing import Any, Protocol

import torch


class Clock(Protocol):
    def mark(self) -> Any:
        """This point of the work that was asked for so far."""

    def has_passed(self, mark: Any) -> bool:
        """Whether the device has come to it."""

    def seconds_between(self, first: Any, second: Any) -> float:
        """Of two marks that have passed."""


class HostClock:
    """On a CPU work is done when its call returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def has_passed(self, mark: float) -> bool:
        return True

    def seconds_between(self, first: float, second: float) -> float:
        return second - first


class StreamClock:
    """Events in the current stream. Between two of them lies the device's work, or its waiting for the host."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def has_passed(self, mark: torch.cuda.Event) -> bool:
        return bool(mark.query())

    def seconds_between(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        return float(first.elapsed_time(second)) / 1000


def clock_of(device: torch.device) -> Clock:
    return StreamClock() if device.type == "cuda" else HostClock()
