"""`bert-lamb evaluate`: how well any BERT predicts masked words of any shards.

The masks are those of a run's own held-out evaluation under the same seed, so the figures compare with its lines.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bert_lamb.checkpoint.export import read_run, to_transformers
from bert_lamb.checkpoint.folder.pretrained import read_pretrained
from bert_lamb.checkpoint.meta import META_FILE
from bert_lamb.data.batches import HeldoutBatches, unigram_cross_entropy
from bert_lamb.engine.launch import this_process
from bert_lamb.errors import UserError
from bert_lamb.model.bert import BertPretrainingModel, PretrainingSums
from bert_lamb.model.encoder import choose_execution
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.outputs.run_dir import OUTCOME_FILE
from bert_lamb.pretraining.admission import masking_rule
from bert_lamb.pretraining.initial_weights import check_vocabulary
from bert_lamb.pretraining.recipe import MaskingSettings
from bert_lamb.pretraining.task import MAX_UNIGRAM_TOKENS, means_of
from bert_lamb.progress import Progress
from bert_lamb.shards import NO_SENTENCE_TASK, Instances, open_instances, read_manifest

OPTION = "model_dir"
SENTENCE_HEAD = ("bert.pooler.", "cls.seq_relationship.")


@dataclass(frozen=True)
class Subject:
    """The model that is evaluated. has_sentence_head: its pooler and the sentence task's classes are its own."""

    name: str
    model: BertPretrainingModel
    has_sentence_head: bool


@dataclass(frozen=True)
class Question:
    """What it is evaluated on. max_predictions_per_seq: None for every token that mask_prob asks for."""

    max_seq_length: int | None  # tokens; None: every length that the shards have
    split: str
    max_instances: int
    masking: MaskingSettings
    max_predictions_per_seq: int | None
    seed: int


def evaluate(
    model_dir: Path, shards: Path, question: Question, *, device: str, precision: str, micro_batch_size: int
) -> None:
    """Print losses in nats, accuracies and counts by length, as json. Raises UserError."""
    process = this_process(device=device, num_threads=None)  # type: ignore[arg-type]
    if process.world_size > 1:
        raise UserError(found=f"{process.world_size} ranks", expected="one process", fix="start it without a launcher")
    lengths = (
        sorted({one.max_seq_length for one in read_manifest(shards).instance_sets if one.split == question.split})
        if question.max_seq_length is None
        else [question.max_seq_length]
    )
    instances = {length: open_instances(shards, max_seq_length=length, split=question.split) for length in lengths}
    if not instances:
        raise UserError(found=f"no split {question.split!r} in {shards}", expected="one of its splits", fix="set split")
    subject = read_subject(model_dir, next(iter(instances.values())), process.device, precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    subject.model.to(process.device, dtype).eval()
    positions = subject.model.bert.config.max_position_embeddings
    for length in lengths:
        if length > positions:
            raise UserError(
                found=f"instances of length {length} in {shards}",
                expected=f"at most the {positions} positions of {model_dir}",
                fix="set max_seq_length to a shorter one of the shards",
            )
    figures = {
        length: figures_of(subject, of_length, question, process.device, micro_batch_size)
        for length, of_length in instances.items()
    }
    content = {"model": subject.name, "shards": str(shards), "split": question.split, "by_length": figures}
    print(json.dumps(content, indent=2))


def read_subject(folder: Path, instances: Instances, device: torch.device, precision: str) -> Subject:
    """The model of a run's folder (its newest checkpoint), of a checkpoint's folder, or of a Hugging Face BERT."""
    execution = choose_execution(
        device,
        precision=precision,
        attention="auto",
        has_whole_weights=True,
        compile=None,
        activation_checkpointing=False,
    )
    is_run, is_checkpoint = (folder / OUTCOME_FILE).is_file(), (folder / META_FILE).is_file()
    if is_run or is_checkpoint:
        run_dir, name = (folder, "latest") if is_run else (folder.resolve().parent.parent, folder.name)
        run = read_run(run_dir, name)
        of_run: Any = run.source.meta["vocabulary"]
        if of_run["sha256"] != file_sha256(instances.vocabulary_path):
            raise UserError(
                found=f"shards with a vocabulary of sha256 {file_sha256(instances.vocabulary_path)[:12]}...",
                expected=f"{of_run['sha256'][:12]}..., as {run_dir} was trained with",
                fix="evaluate on shards with the vocabulary of the run",
            )
        weights = to_transformers(run.source, run.config).state_dict()
        model = BertPretrainingModel(run.config, seed=0, execution=execution)
        model.bert.load_state_dict(weights)
        return Subject(str(run.source.directory), model, has_sentence_head=True)
    pretrained = read_pretrained(folder, option=OPTION)
    check_vocabulary(pretrained, instances.manifest.vocabulary, instances.vocabulary_path, option=OPTION)
    without_head = [name for name in pretrained.missing if name.startswith("cls.predictions.")]
    if without_head:
        raise UserError(
            found=f"{folder} without {without_head[0]}",
            expected="a model with its masked-LM head",
            fix=f"set {OPTION} to such a model; an encoder alone predicts no words",
        )
    model = BertPretrainingModel(pretrained.config, seed=0, execution=execution)
    model.bert.load_state_dict(pretrained.weights, strict=False)
    model.bert.tie_weights()
    has_sentence_head = not any(name.startswith(SENTENCE_HEAD) for name in pretrained.missing)
    return Subject(str(folder), model, has_sentence_head)


@torch.no_grad()
def figures_of(
    subject: Subject, instances: Instances, question: Question, device: torch.device, micro_batch_size: int
) -> dict[str, float]:
    """The figures of one length; those of the sentence task where shards and model have it."""
    max_predictions = question.max_predictions_per_seq
    if max_predictions is None:
        max_predictions = max(1, round(question.masking.mask_prob * instances.max_seq_length))
    rule = masking_rule(instances, question.masking, max_predictions)
    heldout = HeldoutBatches(instances, rule=rule, seed=question.seed, max_instances=question.max_instances)
    sums = torch.zeros(len(PretrainingSums._fields), device=device)
    with Progress(f"length {instances.max_seq_length}", total=heldout.num_instances, unit="instances") as progress:
        for batch, _ in heldout.of_rank(rank=0, world_size=1, micro_batch_size=micro_batch_size):
            sums += torch.stack([value.float() for value in subject.model(*batch.to(device))])
            progress.update(len(batch.cu_seqlens) - 1)
    has_sentence_task = instances.manifest.sentence_task != NO_SENTENCE_TASK and subject.has_sentence_head
    training = open_instances(instances.directory, max_seq_length=instances.max_seq_length, split="train")
    return {
        **means_of(sums.tolist(), heldout.counts, has_sentence_task=has_sentence_task),
        "unigram_cross_entropy": unigram_cross_entropy(training, heldout, max_tokens=MAX_UNIGRAM_TOKENS),
        "num_instances": heldout.num_instances,
        "num_predictions": heldout.counts.num_predictions,
    }
