"""Model and engine of a phase, from the sizes of the recipe and the vocabulary of the shards."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.data.batches import full_rows
from bert_lamb.engine.build import RuntimeSettings, build_engine
from bert_lamb.engine.launch import Process
from bert_lamb.engine.protocol import Engine
from bert_lamb.model.bert import BertConfig, BertPretrainingModel, bert_config, is_of_sentence_head
from bert_lamb.model.encoder import Execution
from bert_lamb.pretraining.admission import Phase
from bert_lamb.pretraining.initial_weights import InitialWeights
from bert_lamb.pretraining.recipe import Recipe
from bert_lamb.sampling.keyed_random import fold
from bert_lamb.train.fitting import Trial


def model_config(recipe: Recipe, phase: Phase) -> BertConfig:
    """The sizes of the recipe, with the vocabulary of the shards."""
    vocabulary = phase.training.manifest.vocabulary
    return bert_config(vocab_size=vocabulary.size, pad_token_id=vocabulary.pad_id, **recipe.model)


def build_model(recipe: Recipe, phase: Phase, execution: Execution) -> BertPretrainingModel:
    """BERT with both heads; weights drawn from the seed."""
    return BertPretrainingModel(model_config(recipe, phase), seed=int(fold(recipe.seed, -1)), execution=execution)


def build_phase_engine(
    recipe: Recipe,
    runtime: RuntimeSettings,
    execution: Execution,
    phase: Phase,
    process: Process,
    checkpoint: Checkpoint | None,
    position: Position,
    initial: InitialWeights | None,
) -> Engine:
    """The engine of a phase, with weights and moments of `checkpoint` when there is one, else with `initial` weights.

    Without a sentence task its head stays as it began.
    """
    model = build_model(recipe, phase, execution)
    if checkpoint is not None:
        checkpoint.load_weights(model)
    elif initial is not None:
        initial.load_into(model)
    head = [name for name, _ in model.named_parameters() if is_of_sentence_head(name)]
    engine = build_engine(
        model,
        recipe.optimizer,
        runtime,
        process,
        idle=() if phase.has_sentence_task else head,
        micro_batch_size=phase.stage.plan.micro_batch_size,
        gradient_accumulation_steps=phase.stage.plan.gradient_accumulation_steps,
        max_grad_norm=recipe.max_grad_norm,
        loss_scale=position.loss_scale,
    )
    if checkpoint is not None:
        checkpoint.load_into(engine)
    return engine


def trial(recipe: Recipe, execution: Execution, phase: Phase) -> Trial:
    """What `runtime.micro_batch_size=auto` tries for a phase."""
    settings, vocabulary, plan = phase.settings, phase.training.manifest.vocabulary, phase.stage.plan

    def loss(model: nn.Module, num_rows: int, device: torch.device) -> Tensor:
        batch = full_rows(
            num_rows,
            settings.max_seq_length,
            num_predictions=settings.max_predictions_per_seq,
            token_id=vocabulary.mask_id,
            has_sentence_task=phase.has_sentence_task,
        )
        sums = model(*batch.to(device))
        total: Tensor = sums.mlm_loss + sums.nsp_loss
        return total

    return Trial(
        phase.stage.name,
        about={"model": recipe.model, "vocabulary_size": vocabulary.size, "loss": "pretraining"},
        build=lambda: build_model(recipe, phase, replace(execution, compile=None)),
        loss=loss,
        max_seq_length=settings.max_seq_length,
        mean_length=float(phase.training.lengths.mean()),
        is_padded=execution.attention != "varlen",
        max_sequences=plan.sequences_per_rank_and_step,
    )
