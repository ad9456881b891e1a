"""What is admitted to training: phases whose batch fits the machine and whose shards are what they ask for.

Everything that can be refused is refused here, before the first file is written.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bert_lamb.data.masking import MaskingRate, MaskingRule, continuations
from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.errors import UserError
from bert_lamb.pretraining.recipe import MaskingSettings, PhaseSettings, Recipe
from bert_lamb.shards import NO_SENTENCE_TASK, Instances, open_instances
from bert_lamb.train.batch_plan import plan_batch
from bert_lamb.train.schedule import Schedule
from bert_lamb.train.task import Stage


@dataclass(frozen=True)
class Phase:
    """A phase that has been admitted: its plan fits the machine and its shards are what it asks for."""

    stage: Stage
    settings: PhaseSettings
    training: Instances
    heldout: Instances | None
    rule: MaskingRule
    rate: MaskingRate  # of training; held-out instances have the rule's mask_prob, whatever the phase

    @property
    def has_sentence_task(self) -> bool:
        return self.training.manifest.sentence_task != NO_SENTENCE_TASK


def admit_phases(recipe: Recipe, runtime: RuntimeSettings, *, world_size: int) -> list[Phase]:
    """Check each phase's batch and shards; raises UserError at the first that does not fit."""
    phases: list[Phase] = []
    steps_before = 0
    schedules = recipe.schedules
    for index, (name, settings) in enumerate(recipe.phases.items()):
        check_if_moving(name, schedules[index])
        shards = Path(settings.shards)
        training = open_instances(shards, max_seq_length=settings.max_seq_length, split="train")
        plan = plan_batch(
            key=f"phases.{name}.global_batch_size",
            global_batch_size=settings.global_batch_size,
            max_micro_batch_size=runtime.max_micro_batch_size(name, mean_length=float(training.lengths.mean())),
            world_size=world_size,
            total_steps=settings.total_steps,
            max_seq_length=settings.max_seq_length,
        )
        heldout = None
        if recipe.evaluation.max_instances:
            heldout = open_instances(shards, max_seq_length=settings.max_seq_length, split="heldout")
        if phases:
            check_if_like_first(name, training, phases[0])
        rule = masking_rule(training, recipe.masking, settings.max_predictions_per_seq)
        stage = Stage(name, index, plan, schedules[index], num_instances=len(training), steps_before=steps_before)
        rate = settings.masking_rate(recipe.masking)
        phases.append(Phase(stage, settings, training, heldout, rule, rate))
        steps_before += settings.total_steps
    return phases


def check_if_moving(name: str, schedule: Schedule) -> None:
    """Refuse a phase that would read its batches and leave the weights as they are."""
    if schedule.moves_nothing:
        raise UserError(
            found=f"phases.{name}.total_steps={schedule.total_steps}, whose learning rate is 0 at every step",
            expected="a step that moves the weights: a decay to 0 is there in the last one",
            fix=f"set phases.{name}.total_steps to 2 or more, or phases.{name}.end_share above 0",
        )


def masking_rule(instances: Instances, masking: MaskingSettings, max_predictions_per_seq: int) -> MaskingRule:
    """How instances are masked: the settings, and the ids of their vocabulary."""
    vocabulary = instances.manifest.vocabulary
    return MaskingRule(
        mask_prob=masking.mask_prob,
        mask_token_prob=masking.mask_token_prob,
        random_token_prob=masking.random_token_prob,
        masking_copies=masking.masking_copies,
        max_predictions_per_seq=max_predictions_per_seq,
        vocab_size=vocabulary.size,
        mask_token_id=vocabulary.mask_id,
        special_token_ids=(vocabulary.cls_id, vocabulary.sep_id),
        is_continuation=continuations(instances.vocabulary_path) if masking.whole_word else None,
    )


def check_if_like_first(name: str, training: Instances, first: Phase) -> None:
    """All phases have one vocabulary and one sentence task."""
    if training.manifest.vocabulary.sha256 != first.training.manifest.vocabulary.sha256:
        raise UserError(
            found=f"another vocabulary in phases.{name}.shards than in phases.{first.stage.name}.shards",
            expected="one vocabulary for all phases",
            fix=f"prepare the shards of {name} with vocabulary.file={first.training.vocabulary_path}",
        )
    task, task_of_first = training.manifest.sentence_task, first.training.manifest.sentence_task
    if task != task_of_first:
        raise UserError(
            found=f"sentence_task {task} in phases.{name}.shards, {task_of_first} in those of {first.stage.name}",
            expected="one sentence task for all phases",
            fix=f"prepare the shards of {name} with sentence_task={task_of_first}",
        )


def instance_fingerprint(instances: Instances) -> str:
    """The content of an instance set: the hash of its shards' hashes, wherever the folder lies."""
    chosen = instances.manifest.instance_set(max_seq_length=instances.max_seq_length, split=instances.split)
    return hashlib.sha256("".join(shard.sha256 for shard in chosen.shards).encode()).hexdigest()[:16]
