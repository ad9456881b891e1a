"""What every fine-tuning is told, as plain values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.optim.build import OptimizerSettings
from bert_lamb.train.settings import CheckpointSettings, GuardSettings, LoggingSettings, TrackerSettings

# What decides no figure, whatever is learnt.
NOT_OF_OUTCOME = frozenset({"run_dir", "runtime", "checkpoint", "guards", "logging", "tracker", "if_exists"})


@dataclass(frozen=True)
class Settings:
    """A configuration of a fine-tuning.

    stage: the name of its only stage, under which runtime.micro_batch_size has an entry. plain: the whole configuration
    as a plain tree.
    """

    stage: str
    run_dir: Path
    if_exists: str
    max_seq_length: int
    global_batch_size: int
    num_epochs: float
    peak_lr: float
    warmup_proportion: float
    decay_power: float
    max_grad_norm: float
    seed: int
    optimizer: OptimizerSettings
    runtime: RuntimeSettings
    checkpoint: CheckpointSettings
    guards: GuardSettings
    logging: LoggingSettings
    tracker: TrackerSettings
    plain: dict[str, Any]

    @classmethod
    def of(cls, plain: dict[str, Any], *, stage: str) -> Self:
        """From a resolved configuration, of which keys beyond these are the command's own."""
        groups: dict[str, Any] = {
            "stage": stage,
            "run_dir": Path(plain["run_dir"]),
            "optimizer": OptimizerSettings(**plain["optimizer"]),
            "runtime": RuntimeSettings(**plain["runtime"]),
            "checkpoint": CheckpointSettings(**plain["checkpoint"]),
            "guards": GuardSettings(**plain["guards"]),
            "logging": LoggingSettings(**plain["logging"]),
            "tracker": TrackerSettings(**plain["tracker"]),
            "plain": plain,
        }
        return cls(**groups, **{name: plain[name] for name in cls.__dataclass_fields__.keys() - groups.keys()})

    def outcome(self, *, without: frozenset[str]) -> dict[str, Any]:
        """The part that decides what is learnt and scored; a run is only resumed with the same. without: more keys."""
        kept = {key: value for key, value in self.plain.items() if key not in NOT_OF_OUTCOME | without}
        optimizer = {key: value for key, value in self.plain["optimizer"].items() if key != "implementation"}
        if not optimizer["exempt_embeddings"]:  # runs of an earlier version say nothing of it
            del optimizer["exempt_embeddings"]
        return {**kept, "optimizer": optimizer}
