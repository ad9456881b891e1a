"""`squad`: fine-tuning, predicting and scoring extractive question answering."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, IfExists, check_if_positive, check_if_share, check_seed
from bert_lamb.config.optimizer import OptimizerConfig, check_optimizer
from bert_lamb.config.runtime import (
    CheckpointConfig,
    LoggingConfig,
    RuntimeConfig,
    TrackerConfig,
    check_checkpoint,
    check_logging,
    check_micro_batch_sizes,
    check_runtime,
    check_tracker,
)

STAGE = "fine_tuning"  # the name of its only stage, under which runtime.micro_batch_size has an entry

# Keys of 0.1 that are called otherwise since fine-tuning runs on the engines.
RENAMED = {
    "output_dir": "run_dir",
    "batch_size": "global_batch_size",
    "micro_batch_size": f"runtime.micro_batch_size.{STAGE}",
    "weight_decay": "optimizer.weight_decay",
    "device": "runtime.device",
    "precision": "runtime.precision",
}


class InitialWeights(Enum):
    pretrained = "pretrained"  # the encoder in `model_dir`
    random = "random"  # the same sizes with random weights: the baseline of a pretraining run


@dataclass
class SquadConfig:
    """`bert-lamb squad`: fine-tune, predict and score extractive question answering on SQuAD v1.1 json."""

    run_dir: str = MISSING
    model_dir: str = MISSING  # an export, or any folder with a Hugging Face BERT
    train_file: str | None = None  # None: predict and score only
    eval_file: str = MISSING
    dataset_name: str = "SQuAD v1.1"  # how reports call these questions
    initial_weights: InitialWeights = InitialWeights.pretrained
    max_seq_length: int = 384  # tokens: question, context window and special tokens
    doc_stride: int = 128  # tokens from one window's start to the next's, as in Google's run_squad.py
    max_query_length: int = 64  # tokens of the question; the rest is cut
    n_best_size: int = 20
    max_answer_length: int = 30  # tokens
    global_batch_size: int = 32  # features per optimizer step, over all ranks
    peak_lr: float = 3e-5
    warmup_proportion: float = 0.1  # of the steps
    decay_power: float = 1.0
    num_epochs: float = 2.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    max_grad_norm: float = 1.0  # clip of the global gradient norm; 0: no clipping
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    seed: int = 42
    if_exists: IfExists = IfExists.refuse


def check_squad(config: SquadConfig) -> Complaints:
    complaints = Complaints()
    check_seed(complaints, config.seed)
    counts = ("max_seq_length", "doc_stride", "max_query_length", "n_best_size", "max_answer_length")
    check_if_positive(complaints, "", config, *counts, "global_batch_size", "peak_lr", "num_epochs", "decay_power")
    check_if_share(complaints, "", config, "warmup_proportion")
    complaints.unless(config.max_grad_norm >= 0, "max_grad_norm", config.max_grad_norm, "0 (off) or more")
    complaints.unless(
        config.max_query_length + config.doc_stride + 3 <= config.max_seq_length,
        "max_seq_length",
        config.max_seq_length,
        "at least max_query_length + doc_stride + 3, so that windows overlap",
    )
    complaints.extend(check_micro_batch_sizes(config.runtime.micro_batch_size, (STAGE,)))
    complaints.extend(check_optimizer(config.optimizer, config.runtime))
    complaints.extend(check_runtime(config.runtime))
    complaints.extend(check_checkpoint(config.checkpoint))
    complaints.extend(check_logging(config.logging))
    complaints.extend(check_tracker(config.tracker))
    return complaints
