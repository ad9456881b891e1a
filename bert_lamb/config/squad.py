"""`squad`, `ask` and `score`: fine-tuning, predicting and scoring extractive question answering."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, check_if_bearable, check_if_positive, check_if_share
from bert_lamb.config.run import RunConfig, check_run
from bert_lamb.config.runtime import check_micro_batches

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
class SquadConfig(RunConfig):
    """`bert-lamb squad`: fine-tune, predict and score extractive question answering on SQuAD v1.1 or v2.0."""

    model_dir: str = MISSING  # an export, or any folder with a Hugging Face BERT
    # SQuAD json, or hub:NAME:SPLIT, a Hugging Face data set in the form of squad (hub:rajpurkar/squad_v2:validation).
    train_file: str | None = None  # None: predict and score only
    eval_file: str = MISSING
    dataset_name: str | None = None  # how reports call these questions; None: SQuAD, with the version of eval_file
    initial_weights: InitialWeights = InitialWeights.pretrained
    max_seq_length: int = 384  # tokens: question, context window and special tokens
    doc_stride: int = 128  # tokens from one window's start to the next's, as in Google's run_squad.py
    max_query_length: int = 64  # tokens of the question; the rest is cut
    n_best_size: int = 20
    max_answer_length: int = 30  # tokens
    # SQuAD v2.0: no answer is predicted where its score exceeds that of the best span by more than this. Choose it as
    # best_f1_thresh on other questions than those that are scored.
    null_score_diff_threshold: float = 0.0
    global_batch_size: int = 32  # features per optimizer step, over all ranks
    peak_lr: float = 3e-5
    warmup_proportion: float = 0.1  # of the steps
    decay_power: float = 1.0
    num_epochs: float = 2.0
    seeds: int = 1  # runs, with seed, seed + 1, ..., each in run_dir/seed-S, and their mean in run_dir/seeds.json
    published: dict[str, float] = field(default_factory=dict)  # exact_match, f1: what others reached so, in percent
    published_by: str | None = None  # who, with which model


def check_windows(complaints: Complaints, config: "SquadConfig | AskConfig") -> None:
    complaints.unless(
        config.max_query_length + config.doc_stride + 3 <= config.max_seq_length,
        "max_seq_length",
        config.max_seq_length,
        "at least max_query_length + doc_stride + 3, so that windows overlap",
    )


def check_squad(config: SquadConfig) -> Complaints:
    complaints = Complaints()
    counts = ("max_seq_length", "doc_stride", "max_query_length", "n_best_size", "max_answer_length")
    check_if_positive(complaints, "", config, *counts, "global_batch_size", "peak_lr", "num_epochs", "decay_power")
    check_if_positive(complaints, "", config, "seeds")
    check_if_bearable(complaints, "peak_lr", config.peak_lr)
    check_if_share(complaints, "", config, "warmup_proportion")
    unknown = sorted(config.published.keys() - {"exact_match", "f1"})
    complaints.unless(not unknown, "published", ", ".join(unknown), "exact_match and f1")
    check_windows(complaints, config)
    complaints.extend(check_micro_batches(config.runtime, {STAGE: config.max_seq_length}))
    complaints.extend(check_run(config))
    return complaints


@dataclass
class AskConfig:
    """`bert-lamb ask`: one question about one text, answered by a fine-tuned model."""

    model_dir: str = MISSING  # the model/ folder of a finished `bert-lamb squad`, or any BERT with such a head
    context: str = MISSING  # a text file
    question: str = MISSING
    num_answers: int = 3
    may_be_unanswerable: bool = False  # SQuAD v2.0: "no answer" is one of the answers
    max_seq_length: int = 384  # tokens; these four as in squad
    doc_stride: int = 128
    max_query_length: int = 64
    max_answer_length: int = 30


def check_ask(config: AskConfig) -> Complaints:
    complaints = Complaints()
    counts = ("num_answers", "max_seq_length", "doc_stride", "max_query_length", "max_answer_length")
    check_if_positive(complaints, "", config, *counts)
    check_windows(complaints, config)
    return complaints


@dataclass
class ScoreConfig:
    """`bert-lamb score`: predictions -> the figures that the official SQuAD scripts print, as json."""

    data: str = MISSING  # a SQuAD json file
    predictions: str = MISSING  # json: question id -> text
    na_prob: str | None = None  # json: question id -> how sure the model is that there is no answer (null_odds.json)
    na_prob_thresh: float = 1.0  # predictions above it are taken for the empty text
    version: str | None = None  # 1.1 or 2.0; None: as the data says
    page: str | None = None  # an html file to write: every answer in its context, wrong ones first


def check_score(config: ScoreConfig) -> Complaints:
    complaints = Complaints()
    complaints.unless(config.version in (None, "1.1", "2.0"), "version", config.version, "1.1 or 2.0")
    complaints.unless(
        config.version != "1.1" or config.na_prob is None, "na_prob", config.na_prob, "none in version 1.1"
    )
    is_page = config.page is None or config.page.lower().endswith((".html", ".htm"))
    complaints.unless(is_page, "page", config.page, "a file that ends in .html, so that nothing else is replaced")
    return complaints
