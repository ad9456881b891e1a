"""`pretrain`: model, phases and masking; what is learnt."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from bert_lamb.config.checks import (
    Complaints,
    check_if_counts_from_zero,
    check_if_positive,
    check_if_share,
    check_names,
)
from bert_lamb.config.run import RunConfig, check_run
from bert_lamb.config.runtime import check_micro_batches
from bert_lamb.config.schedule import CurveConfig, DecayOver, Scaling, check_curves, no_value


@dataclass
class PhaseConfig(CurveConfig):
    """one part of pretraining with its own length, batch and schedule."""

    shards: str = MISSING  # folder made by `prepare`
    max_seq_length: int = MISSING  # tokens
    max_predictions_per_seq: int = MISSING  # masked tokens at most
    global_batch_size: int = MISSING  # sequences per optimizer step, over all ranks
    total_steps: int | None = None  # optimizer steps; None: as many as num_sequences gives
    num_sequences: int | None = None  # to train on, in the place of total_steps; steps are rounded over the run
    mask_prob: float | None = None  # share of tokens predicted in training; None: masking.mask_prob
    mask_prob_end: float | None = None  # where a straight line from mask_prob ends; None: it does not change


def check_phase(name: str, phase: PhaseConfig, model: "ModelConfig") -> Complaints:
    complaints, prefix = Complaints(), f"phases.{name}."
    counts = ("max_seq_length", "max_predictions_per_seq", "global_batch_size", "total_steps", "num_sequences")
    check_if_positive(complaints, prefix, phase, *counts)
    if phase.total_steps is None and phase.num_sequences is None:
        complaints.append(no_value(f"{prefix}total_steps"))
    for key in ("mask_prob", "mask_prob_end"):
        value = getattr(phase, key)
        complaints.unless(value is None or 0 < value <= 0.5, f"{prefix}{key}", value, "a share in (0, 0.5]")
    complaints.unless(
        phase.mask_prob is not None or phase.mask_prob_end is None,
        f"{prefix}mask_prob",
        phase.mask_prob,
        f"a share in (0, 0.5], where the line to mask_prob_end={phase.mask_prob_end} begins",
    )
    complaints.unless(
        phase.max_predictions_per_seq <= phase.max_seq_length - 2,
        f"{prefix}max_predictions_per_seq",
        phase.max_predictions_per_seq,
        f"at most {phase.max_seq_length - 2}: of max_seq_length={phase.max_seq_length} two or more are special",
    )
    complaints.unless(
        phase.max_seq_length <= model.max_position_embeddings,
        f"{prefix}max_seq_length",
        phase.max_seq_length,
        f"at most model.max_position_embeddings={model.max_position_embeddings}",
    )
    return complaints


@dataclass
class ModelConfig:
    """Sizes of BERT (Devlin et al. 2019, section 3); the vocabulary size comes from the shards."""

    num_layers: int = MISSING
    hidden_size: int = MISSING
    num_heads: int = MISSING
    intermediate_size: int = MISSING
    dropout: float = 0.1  # hidden states and attention probabilities
    max_position_embeddings: int = 512
    vocab_size_multiple: int = 8  # the embedding is padded to a multiple, for the matrix units; 1: no padding
    init_std: float = 0.02


def check_model(model: ModelConfig) -> Complaints:
    complaints = Complaints()
    counts = ("num_layers", "hidden_size", "num_heads", "intermediate_size", "vocab_size_multiple")
    check_if_positive(complaints, "model.", model, *counts, "max_position_embeddings", "init_std")
    check_if_share(complaints, "model.", model, "dropout")
    complaints.unless(
        model.num_heads > 0 and model.hidden_size % model.num_heads == 0,
        "model.hidden_size",
        model.hidden_size,
        f"a multiple of model.num_heads={model.num_heads}",
    )
    return complaints


@dataclass
class MaskingConfig:
    """Masked-LM corruption (Devlin et al. 2019, section 3.1)."""

    mask_prob: float = 0.15  # share of tokens predicted
    mask_token_prob: float = 0.8  # of those: replaced by [MASK]
    random_token_prob: float = 0.1  # of those: replaced by a random token; the rest stays
    masking_copies: int = 0  # N: masks repeat every N epochs, as static duplication; 0: new masks every epoch
    whole_word: bool = False  # all pieces of a word are predicted together, as in BERT's whole-word-masking models


def check_masking(masking: MaskingConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(0 < masking.mask_prob <= 0.5, "masking.mask_prob", masking.mask_prob, "a share in (0, 0.5]")
    check_if_share(complaints, "masking.", masking, "mask_token_prob", "random_token_prob")
    changed = masking.mask_token_prob + masking.random_token_prob
    complaints.unless(changed <= 1, "masking.mask_token_prob + masking.random_token_prob", changed, "at most 1")
    complaints.unless(masking.masking_copies >= 0, "masking.masking_copies", masking.masking_copies, "0 or more")
    return complaints


@dataclass
class EvaluationConfig:
    """Held-out evaluation: masked-LM loss and accuracy, next-sentence accuracy."""

    interval_steps: int = 0  # optimizer steps; 0: only at the end of a phase
    max_instances: int = 4_096  # held-out instances per evaluation, from the start of the set; 0: no evaluation
    micro_batch_size: int = 32  # sequences per rank


def check_evaluation(evaluation: EvaluationConfig) -> Complaints:
    complaints = Complaints()
    check_if_counts_from_zero(complaints, "evaluation.", evaluation, "interval_steps", "max_instances")
    check_if_positive(complaints, "evaluation.", evaluation, "micro_batch_size")
    return complaints


@dataclass
class PretrainConfig(RunConfig):
    """`bert-lamb pretrain`: shards -> checkpoints, phase after phase."""

    shards: str = MISSING  # the phases' default
    # A folder with a Hugging Face BERT to start from (an export, an imported checkpoint), whose config.json gives the
    # sizes in the place of `model`; None: weights are drawn from the seed.
    initial_weights: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    phases: dict[str, PhaseConfig] = field(default_factory=dict)  # run in this order
    decay_over: DecayOver = DecayOver.phase
    scaling: Scaling = Scaling.none
    scaling_base_lr: float | None = None  # the peak lr that is right at ...
    scaling_base_batch_size: int | None = None  # sequences; for scaling=linear and sqrt
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    # Held-out metrics at which the run is done, however many steps are left: {mlm_accuracy: 0.72}.
    stop_at: dict[str, float] = field(default_factory=dict)


def check_stop_at(stop_at: dict[str, float], evaluation: EvaluationConfig) -> Complaints:
    complaints = Complaints()
    for name, value in stop_at.items():
        key = f"stop_at.{name}"
        if name not in ("mlm_accuracy", "mlm_loss"):
            complaints.unless(False, key, value, "stop_at.mlm_accuracy or stop_at.mlm_loss")
        elif name == "mlm_loss":
            complaints.unless(value > 0, key, value, "nats above 0")
        else:
            complaints.unless(0 < value <= 1, key, value, "a share in (0, 1]")
    for name in ("interval_steps", "max_instances"):
        value = getattr(evaluation, name)
        complaints.unless(not stop_at or value > 0, f"evaluation.{name}", value, "above 0 with stop_at")
    return complaints


def check_pretrain(config: PretrainConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(bool(config.phases), "phases", "{}", "at least one phase (choose a recipe)")
    complaints.extend(check_training(config))
    return complaints


def check_training(config: PretrainConfig) -> Complaints:
    """Everything but that there is something to train."""
    complaints = Complaints()
    complaints.extend(check_model(config.model))
    check_names(complaints, "phases", config.phases)
    for name, phase in config.phases.items():
        complaints.extend(check_phase(name, phase, config.model))
    complaints.extend(
        check_curves(
            config.phases,
            decay_over=config.decay_over,
            scaling=config.scaling,
            base_lr=config.scaling_base_lr,
            base_batch_size=config.scaling_base_batch_size,
        )
    )
    complaints.extend(
        check_micro_batches(config.runtime, {name: phase.max_seq_length for name, phase in config.phases.items()})
    )
    complaints.extend(check_masking(config.masking))
    complaints.extend(check_evaluation(config.evaluation))
    complaints.extend(check_stop_at(config.stop_at, config.evaluation))
    complaints.extend(check_run(config))
    return complaints
