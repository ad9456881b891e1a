"""What every command that trains has: a run directory, an optimizer, a runtime, and how the run is kept and watched."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, IfExists, check_seed
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


@dataclass
class RunConfig:
    run_dir: str = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    max_grad_norm: float = 1.0  # clip of the global gradient norm; 0: no clipping
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
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
    complaints.extend(check_logging(config.logging))
    complaints.extend(check_tracker(config.tracker))
    return complaints
