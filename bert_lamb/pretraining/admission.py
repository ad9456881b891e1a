"""What is admitted to training: phases whose batch fits the machine and whose shards are what they ask for.

Everything that can be refused is refused here, before the first file is written.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.config.pretrain import PhaseConfig, PretrainConfig
from bert_lamb.data.masking import MaskingRule, continuations
from bert_lamb.engine.deepspeed_json import check_overrides
from bert_lamb.errors import UserError
from bert_lamb.outputs.plain import to_plain
from bert_lamb.shards import NO_SENTENCE_TASK, Instances, open_instances
from bert_lamb.train.batch_plan import BatchPlan, plan_batch


@dataclass(frozen=True)
class Phase:
    """A phase that has been admitted: its plan fits the machine and its shards are what it asks for."""

    name: str
    index: int
    config: PhaseConfig
    plan: BatchPlan
    steps_before: int  # optimizer steps of earlier phases
    training: Instances
    heldout: Instances | None
    rule: MaskingRule

    @property
    def has_sentence_task(self) -> bool:
        return self.training.manifest.sentence_task != NO_SENTENCE_TASK


def admit_phases(config: PretrainConfig, *, world_size: int) -> list[Phase]:
    """Check each phase's batch and shards; raises UserError at the first that does not fit."""
    check_overrides(config.runtime.deepspeed_overrides)
    phases: list[Phase] = []
    steps_before = 0
    for index, (name, settings) in enumerate(config.phases.items()):
        plan = plan_batch(
            phase=name,
            global_batch_size=settings.global_batch_size,
            max_micro_batch_size=config.runtime.micro_batch_size[name],
            world_size=world_size,
            total_steps=settings.total_steps,
            max_seq_length=settings.max_seq_length,
        )
        shards = Path(settings.shards)
        training = open_instances(shards, max_seq_length=settings.max_seq_length, split="train")
        heldout = None
        if config.evaluation.max_instances:
            heldout = open_instances(shards, max_seq_length=settings.max_seq_length, split="heldout")
        vocabulary = training.manifest.vocabulary
        if phases and vocabulary.sha256 != phases[0].training.manifest.vocabulary.sha256:
            raise UserError(
                found=f"another vocabulary in phases.{name}.shards than in phases.{phases[0].name}.shards",
                expected="one vocabulary for all phases",
                fix=f"prepare the shards of {name} with vocabulary.file={phases[0].training.vocabulary_path}",
            )
        task = training.manifest.sentence_task
        if phases and task != (task_of_first := phases[0].training.manifest.sentence_task):
            raise UserError(
                found=f"sentence_task {task} in phases.{name}.shards, {task_of_first} in those of {phases[0].name}",
                expected="one sentence task for all phases",
                fix=f"prepare the shards of {name} with sentence_task={task_of_first}",
            )
        rule = MaskingRule(
            mask_prob=config.masking.mask_prob,
            mask_token_prob=config.masking.mask_token_prob,
            random_token_prob=config.masking.random_token_prob,
            masking_copies=config.masking.masking_copies,
            max_predictions_per_seq=settings.max_predictions_per_seq,
            vocab_size=vocabulary.size,
            mask_token_id=vocabulary.mask_id,
            special_token_ids=(vocabulary.cls_id, vocabulary.sep_id),
            is_continuation=continuations(training.vocabulary_path) if config.masking.whole_word else None,
        )
        phases.append(Phase(name, index, settings, plan, steps_before, training, heldout, rule))
        steps_before += settings.total_steps
    return phases


def outcome_of(config: PretrainConfig, phases: list[Phase]) -> dict[str, Any]:
    """What decides the weights beyond rounding: a run is only resumed with the same."""
    plain = to_plain(config)
    kept = {key: plain[key] for key in ("model", "optimizer", "max_grad_norm", "masking", "seed")}
    kept["phases"] = {
        phase.name: {**to_plain(phase.config), "shards": instance_fingerprint(phase.training)} for phase in phases
    }
    kept["optimizer"].pop("implementation", None)
    return kept


def instance_fingerprint(instances: Instances) -> str:
    """The content of an instance set: the hash of its shards' hashes, wherever the folder lies."""
    chosen = instances.manifest.instance_set(max_seq_length=instances.max_seq_length, split=instances.split)
    return hashlib.sha256("".join(shard.sha256 for shard in chosen.shards).encode()).hexdigest()[:16]
