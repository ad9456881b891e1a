"""What is learnt in pretraining, as plain values; config/pretrain.py explains each."""

from dataclasses import dataclass
from typing import Any, Literal

from bert_lamb.data.masking import MaskingRate
from bert_lamb.optim.build import OptimizerSettings
from bert_lamb.train.schedule import DecayName, DecayOriginName, Schedule


@dataclass(frozen=True)
class PhaseSettings:
    """One phase, with nothing left open (see scaling.py); lengths in tokens, batch in sequences.

    mask_prob, mask_prob_end: None where the phase does not say.
    """

    shards: str
    max_seq_length: int
    max_predictions_per_seq: int
    global_batch_size: int
    total_steps: int
    peak_lr: float
    warmup_proportion: float
    warmup_power: float
    warmup_start_share: float
    decay: DecayName
    decay_power: float
    decay_origin: DecayOriginName
    decay_rate: float | None
    decay_interval_steps: int | None
    end_share: float
    cooldown_proportion: float
    num_sequences: int | None
    mask_prob: float | None
    mask_prob_end: float | None

    def schedule(self, *, steps_before: int = 0, steps_after: int = 0) -> Schedule:
        """Its learning rate, on a curve of its own or shared with phases of so many steps."""
        return Schedule(
            self.total_steps,
            self.peak_lr,
            self.warmup_proportion,
            warmup_power=self.warmup_power,
            warmup_start_share=self.warmup_start_share,
            decay=self.decay,
            decay_power=self.decay_power,
            decay_origin=self.decay_origin,
            decay_rate=self.decay_rate,
            decay_interval_steps=self.decay_interval_steps,
            end_share=self.end_share,
            cooldown_proportion=self.cooldown_proportion,
            steps_before=steps_before,
            steps_after=steps_after,
        )

    def masking_rate(self, masking: "MaskingSettings") -> MaskingRate:
        """The share of tokens that training predicts, step by step."""
        first = masking.mask_prob if self.mask_prob is None else self.mask_prob
        return MaskingRate(first, first if self.mask_prob_end is None else self.mask_prob_end, self.total_steps)


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
    decay_over: Literal["phase", "run"]

    @property
    def schedules(self) -> list[Schedule]:
        """The learning rate of each phase, in order."""
        if self.decay_over == "phase":
            return [phase.schedule() for phase in self.phases.values()]
        steps = [phase.total_steps for phase in self.phases.values()]
        return [
            phase.schedule(steps_before=sum(steps[:index]), steps_after=sum(steps[index + 1 :]))
            for index, phase in enumerate(self.phases.values())
        ]
