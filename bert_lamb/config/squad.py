"""`squad`: fine-tuning, predicting and scoring extractive question answering."""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, IfExists, check_if_positive, check_if_share, check_seed
from bert_lamb.config.runtime import Precision


class InitialWeights(Enum):
    pretrained = "pretrained"  # the encoder in `model_dir`
    random = "random"  # the same sizes with random weights: the baseline of a pretraining run


@dataclass
class SquadConfig:
    """`bert-lamb squad`: fine-tune, predict and score extractive question answering on SQuAD v1.1 json."""

    model_dir: str = MISSING  # an export, or any folder with a Hugging Face BERT
    output_dir: str = MISSING
    train_file: str | None = None  # None: predict and score only
    eval_file: str = MISSING
    dataset_name: str = "SQuAD v1.1"  # how reports call these questions
    initial_weights: InitialWeights = InitialWeights.pretrained
    max_seq_length: int = 384  # tokens: question, context window and special tokens
    doc_stride: int = 128  # tokens from one window's start to the next's, as in Google's run_squad.py
    max_query_length: int = 64  # tokens of the question; the rest is cut
    n_best_size: int = 20
    max_answer_length: int = 30  # tokens
    batch_size: int = 32  # features per optimizer step
    micro_batch_size: int = 32  # features per forward and backward: at most
    peak_lr: float = 3e-5
    warmup_proportion: float = 0.1
    num_epochs: float = 2.0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    device: str = "auto"  # auto, cpu or cuda
    precision: Precision = Precision.fp32  # fp32 or bf16 (autocast)
    seed: int = 42
    if_exists: IfExists = IfExists.refuse


def check_squad(config: SquadConfig) -> Complaints:
    complaints = Complaints()
    check_seed(complaints, config.seed)
    check_if_positive(
        complaints, "", config, "max_seq_length", "doc_stride", "max_query_length", "n_best_size", "max_answer_length"
    )
    check_if_positive(complaints, "", config, "batch_size", "micro_batch_size", "peak_lr", "num_epochs")
    check_if_share(complaints, "", config, "warmup_proportion")
    for name in ("weight_decay", "max_grad_norm"):
        complaints.unless(getattr(config, name) >= 0, name, getattr(config, name), "0 (off) or more")
    complaints.unless(
        config.max_query_length + config.doc_stride + 3 <= config.max_seq_length,
        "max_seq_length",
        config.max_seq_length,
        "at least max_query_length + doc_stride + 3, so that windows overlap",
    )
    complaints.unless(
        config.precision in (Precision.fp32, Precision.bf16), "precision", config.precision.value, "fp32 or bf16"
    )
    complaints.unless(config.device in ("auto", "cpu", "cuda"), "device", config.device, "auto, cpu or cuda")
    return complaints
