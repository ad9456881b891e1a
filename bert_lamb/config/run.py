"""What every command that trains has: a run directory, an optimizer, a runtime, and how the run is kept and watched."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from bert_lamb.config.checks import (
    Complaints,
    IfExists,
    check_if_counts_from_zero,
    check_if_positive,
    check_seed,
)
from bert_lamb.config.optimizer import OptimizerConfig, check_optimizer
from bert_lamb.config.runtime import (
    CheckpointConfig,
    LoggingConfig,
    RuntimeConfig,
    TrackerConfig,
    check_checkpoint,
    check_logging,
    check_runtime,
    check_tracker,
)


class OnSpike(Enum):
    """What to do when the loss has risen beyond `guards.max_loss_rise`."""

    stop = "stop"  # with a diagnosis
    rollback = "rollback"  # back to the last checkpoint before the rise, and past the batches in between
    ignore = "ignore"


@dataclass
class GuardsConfig:
    """When a run that learns nothing any more ends."""

    max_skipped_steps: int = 50  # in a row, for a gradient that is not finite; a dynamic loss scale needs some
    on_spike: OnSpike = OnSpike.stop
    max_loss_rise: float = 2.0  # of the mean over window_steps above the lowest such mean of the phase; nats, mostly
    window_steps: int = 10
    max_rollbacks: int = 3  # in the whole run; then it stops


def check_guards(guards: GuardsConfig) -> Complaints:
    complaints = Complaints()
    check_if_positive(complaints, "guards.", guards, "max_loss_rise", "window_steps")
    check_if_counts_from_zero(complaints, "guards.", guards, "max_skipped_steps", "max_rollbacks")
    return complaints


@dataclass
class RunConfig:
    run_dir: str = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    max_grad_norm: float = 1.0  # clip of the global gradient norm; 0: no clipping
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guards: GuardsConfig = field(default_factory=GuardsConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    seed: int = 42
    if_exists: IfExists = IfExists.refuse


def check_run(config: RunConfig) -> Complaints:
    complaints = Complaints()
    check_seed(complaints, config.seed)
    complaints.unless(config.max_grad_norm >= 0, "max_grad_norm", config.max_grad_norm, "0 (off) or more")
    complaints.extend(check_optimizer(config.optimizer, config.runtime))
    complaints.extend(check_runtime(config.runtime))
    complaints.extend(check_checkpoint(config.checkpoint))
    complaints.extend(check_guards(config.guards))
    complaints.extend(check_logging(config.logging))
    complaints.extend(check_tracker(config.tracker))
    return complaints
