"""What is learnt in pretraining, as plain values; config/pretrain.py explains each."""

from dataclasses import dataclass
from typing import Any

from bert_lamb.optim.build import OptimizerSettings
from bert_lamb.train.schedule import DecayOriginName, Schedule


@dataclass(frozen=True)
class PhaseSettings:
    """One phase; lengths in tokens, batch in sequences."""

    shards: str
    max_seq_length: int
    max_predictions_per_seq: int
    global_batch_size: int
    total_steps: int
    peak_lr: float
    warmup_proportion: float
    decay_power: float
    decay_origin: DecayOriginName

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.total_steps, self.peak_lr, self.warmup_proportion, self.decay_power, self.decay_origin)


@dataclass(frozen=True)
class MaskingSettings:
    mask_prob: float
    mask_token_prob: float
    random_token_prob: float
    masking_copies: int
    whole_word: bool


@dataclass(frozen=True)
class EvaluationSettings:
    interval_steps: int
    max_instances: int
    micro_batch_size: int


@dataclass(frozen=True)
class Recipe:
    """A run of pretraining but for where and how it is computed. model: the sizes that `bert_config` takes."""

    model: dict[str, Any]
    phases: dict[str, PhaseSettings]
    optimizer: OptimizerSettings
    max_grad_norm: float
    masking: MaskingSettings
    evaluation: EvaluationSettings
    seed: int
