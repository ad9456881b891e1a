"""How a run is kept and watched, as plain values."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save, and how many to keep; 0 as an interval: never."""

    interval_steps: int
    interval_minutes: float  # by rank 0's clock
    keep_last: int
    keep_every: int  # steps of the phase: multiples stay for ever; 0: none
    is_asynchronous: bool  # a thread writes while the training goes on


@dataclass(frozen=True)
class GuardSettings:
    """When to give up; see config/run.py for each."""

    max_skipped_steps: int
    on_spike: Literal["stop", "rollback", "ignore"]
    max_loss_rise: float
    window_steps: int
    max_rollbacks: int


@dataclass(frozen=True)
class LoggingSettings:
    interval_steps: int  # between lines of steps
    trust_ratio_interval_steps: int  # between records of every parameter's trust ratio; 0: never


@dataclass(frozen=True)
class MeterSettings:
    precision: str  # fp32, bf16 or fp16: of the matrix product that measures the peak
    peak_tflops: float | None  # of one device; None: measured
    profile_steps: int  # steps of the run whose trace is written; 0: none


@dataclass(frozen=True)
class TrackerSettings:
    name: str  # none, wandb or tensorboard
    project: str
    mode: str  # online, offline or disabled
