"""Where the time of a stage goes and what it buys: rates, shares of time, model FLOPs utilization, memory.

The loop says which part of a step begins; nothing here looks into a batch or waits for the device. On a GPU the parts
are separated by events in its stream, which are read when they have passed: a line of metrics.jsonl then says what the
device did, or waited for, since the line before. outputs/METRICS.md explains each figure.
"""

import resource
import sys
import time
from collections import deque
from typing import Any

import torch

from bert_lamb.engine import heartbeat
from bert_lamb.engine.launch import Process
from bert_lamb.outputs.metrics import PARTS, PAUSES
from bert_lamb.train.clock import clock_of
from bert_lamb.train.peak import measure_peak_tflops, measured_peak_tflops
from bert_lamb.train.settings import MeterSettings
from bert_lamb.train.task import Counts, Stage

MAX_MEASURED = 4  # times in a stage, each a fraction of a second


class Meter:
    """Measures the stages of a run on rank 0; on other ranks it only tells their heartbeat.

    Time runs from one `read` to the next, parts of it from one `enter` to the next.
    """

    def __init__(self, process: Process, settings: MeterSettings) -> None:
        self.is_on, self.device, self.world_size = process.is_main, process.device, process.world_size
        self.settings = settings
        self._clock = clock_of(process.device)
        self._range: Any = None  # the part's name in a trace
        self._part: str | None = None
        self._since: Any = None
        self._entered_at = 0.0  # seconds, on the host's clock

    def start(self, stage: Stage) -> dict[str, float]:
        """Forget what was measured; returns the peak that utilization is held against, as fields of metrics.jsonl."""
        if not self.is_on:
            return {}
        peak = self.settings.peak_tflops
        self.peak_tflops = measured_peak_tflops(self.device, self.settings.precision) if peak is None else peak
        self._num_measured = 1
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._max_seq_length = stage.plan.max_seq_length
        self._passing: deque[tuple[str, Any, Any]] = deque()  # parts that the device may not have finished
        self._forget()
        return {"peak_tflops": self.peak_tflops, "is_peak_measured": peak is None}

    def _forget(self) -> None:
        self._seconds: dict[str, float] = {}
        self._pause_seconds = 0.0
        self._num_steps = self._num_sequences = self._num_tokens = self._flops = 0
        self._read_at = time.perf_counter()

    def enter(self, part: str) -> None:
        """From here on, time is that of `part`, one of PARTS."""
        heartbeat.enter(part)
        self._turn_to(part)

    def stop(self) -> None:
        """The stage is over, and with it the last part."""
        self._turn_to(None)

    def _turn_to(self, part: str | None) -> None:
        if not self.is_on:
            return
        mark, now = self._clock.mark(), time.perf_counter()
        if self._part is not None:
            self._passing.append((self._part, self._since, mark))
            if self._part in PAUSES:
                self._pause_seconds += now - self._entered_at
        self._part, self._since, self._entered_at = part, mark, now
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
        if part is not None and self.settings.profile_steps > 0:
            self._range = torch.profiler.record_function(part)
            self._range.__enter__()

    def count(self, counts: Counts, flops: int) -> None:
        """A step was taken. flops: see Task."""
        if not self.is_on:
            return
        self._num_steps += 1
        self._num_sequences += counts.num_sequences
        self._num_tokens += counts.num_tokens
        self._flops += flops
        self._collect()

    def _collect(self) -> None:
        while self._passing and self._clock.has_passed(self._passing[0][2]):
            part, first, second = self._passing.popleft()
            self._seconds[part] = self._seconds.get(part, 0.0) + self._clock.seconds_between(first, second)

    def read(self) -> dict[str, float]:
        """Fields of a step's line in metrics.jsonl: what was measured since the last `read`, or since `start`."""
        self._collect()
        seconds = time.perf_counter() - self._read_at - self._pause_seconds
        num_positions = self._num_sequences * self._max_seq_length
        model_tflops = self._flops / seconds / self.world_size / 1e12
        all_parts = sum(self._seconds.values())
        shares = {f"{part}_share": self._seconds[part] / all_parts for part in PARTS if self._seconds.get(part)}
        fields = {
            "seconds": seconds / self._num_steps,
            "sequences_per_second": self._num_sequences / seconds,
            "tokens_per_second": self._num_tokens / seconds,
            "positions_per_second": num_positions / seconds,
            "fill": self._num_tokens / num_positions,
            "model_tflops": model_tflops,
            **self._utilization(model_tflops),
            **shares,
            **self._memory(),
            **compiled_graphs(),
        }
        self._forget()
        return fields

    def _utilization(self, model_tflops: float) -> dict[str, float]:
        """Nothing where a step is faster than the peak, which was measured while the machine had other work."""
        if self.settings.peak_tflops is None and model_tflops > self.peak_tflops:
            if self._num_measured == MAX_MEASURED:
                return {}
            self._num_measured += 1
            again = measure_peak_tflops(self.device, self.settings.precision)
            self.peak_tflops = max(self.peak_tflops, again)
            if model_tflops > self.peak_tflops:
                return {}
        return {"mfu": model_tflops / self.peak_tflops}

    def _memory(self) -> dict[str, int]:
        if self.device.type == "cuda":
            return {
                "peak_allocated_bytes": torch.cuda.max_memory_allocated(self.device),
                "peak_reserved_bytes": torch.cuda.max_memory_reserved(self.device),
            }
        unit = 1 if sys.platform == "darwin" else 1024
        return {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def compiled_graphs() -> dict[str, int]:
    """How many graphs torch.compile has made in this process, where it has: a number that grows is time lost."""
    counting = sys.modules.get("torch._dynamo.utils")
    num_graphs = counting.counters["stats"]["unique_graphs"] if counting else 0
    return {"num_graphs": num_graphs} if num_graphs else {}
