"""`bert-lamb squad`: the SQuAD path from end to end; examples -> features -> fine-tuning -> predictions -> scores.

Everything it makes lies in output_dir, which belongs to it alone:

    squad_config.json       the resolved configuration; written first, marks the folder as ours
    train_log.jsonl         one line per optimizer step
    model/                  the fine-tuned model and its tokenizer, for transformers
    nbest_predictions.json  question id -> the best answers with logits and probabilities
    predictions.json        question id -> the best answer, as the official scorer reads it
    scores.json             the result; written last, so it stands for a complete run
"""

import hashlib
import json
import logging
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering, PreTrainedTokenizerBase

from bert_lamb import __version__
from bert_lamb.config import IfExists, InitialWeights, Precision, SquadConfig
from bert_lamb.errors import UserError
from bert_lamb.run_dir import write_atomically
from bert_lamb.squad.examples import Example, read_examples
from bert_lamb.squad.features import NO_ANSWER, Feature, answer_positions, make_features
from bert_lamb.squad.fine_tune import StepRecord, fine_tune, num_steps
from bert_lamb.squad.predict import predict_answers, predict_logits
from bert_lamb.squad.scoring import score

CONFIG_NAME = "squad_config.json"
TRAIN_LOG_NAME = "train_log.jsonl"
MODEL_NAME = "model"
NBEST_NAME = "nbest_predictions.json"
PREDICTIONS_NAME = "predictions.json"
SCORES_NAME = "scores.json"
OUTPUT_NAMES = {CONFIG_NAME, TRAIN_LOG_NAME, MODEL_NAME, NBEST_NAME, PREDICTIONS_NAME, SCORES_NAME}
TEMPORARY_SUFFIX = ".partial"  # of a file that `write_atomically` did not finish

QA_HEAD = {"qa_outputs.weight", "qa_outputs.bias"}


def squad(config: SquadConfig) -> dict[str, Any]:
    """Fine-tune (if a train_file is given), predict, score; returns what scores.json holds.

    Raises UserError for input that cannot be used and for an output_dir in the way.
    """
    output_dir, model_dir = Path(config.output_dir), Path(config.model_dir)
    has_training = config.train_file is not None
    is_pretrained = config.initial_weights is InitialWeights.pretrained
    check_model_dir(model_dir, has_weights=is_pretrained)
    if not has_training and not is_pretrained:
        raise UserError(
            found="initial_weights=random without train_file", expected="something to learn from", fix="set train_file"
        )
    train_examples = read_examples(Path(config.train_file)) if config.train_file is not None else []
    eval_examples = read_examples(Path(config.eval_file))
    inputs = describe_inputs(config, model_dir)

    finished = admit_output_dir(output_dir, config, inputs)
    if finished is not None:
        print(f"{output_dir} is complete already: {summary(finished)}", flush=True)
        return finished

    tokenizer, model = load_model(model_dir, is_pretrained=is_pretrained, needs_head=not has_training, seed=config.seed)
    check_lengths(config.max_seq_length, model, tokenizer)
    device = choose_device(config.device)
    # From here on nothing is refused for how it was called, so an older output may go.
    start_output_dir(output_dir, config)
    print(
        f"{model_dir}: BERT with {model.config.num_hidden_layers} layers, hidden size {model.config.hidden_size}, "
        f"{config.initial_weights.value} weights"
        + (", new question-answering head" if has_training and is_pretrained else ""),
        flush=True,
    )
    autocast_dtype = torch.bfloat16 if config.precision is Precision.bf16 else None
    pad_token_id = tokenizer.pad_token_id

    train_features = windows_of(train_examples, tokenizer, config) if has_training else []
    train_seconds = 0.0
    if has_training:
        positions = positions_of(train_examples, train_features)
        started_at = time.monotonic()
        with (output_dir / TRAIN_LOG_NAME).open("w", encoding="utf-8") as log:

            def record(step: StepRecord) -> None:
                print(json.dumps(asdict(step)), file=log, flush=True)

            fine_tune(
                model,
                train_features,
                positions,
                batch_size=config.batch_size,
                micro_batch_size=config.micro_batch_size,
                peak_lr=config.peak_lr,
                warmup_proportion=config.warmup_proportion,
                num_epochs=config.num_epochs,
                weight_decay=config.weight_decay,
                max_grad_norm=config.max_grad_norm,
                pad_token_id=pad_token_id,
                device=device,
                autocast_dtype=autocast_dtype,
                seed=config.seed,
                record=record,
            )
        train_seconds = time.monotonic() - started_at
        with quiet_transformers():
            model.save_pretrained(output_dir / MODEL_NAME)
            tokenizer.save_pretrained(output_dir / MODEL_NAME)

    eval_features = windows_of(eval_examples, tokenizer, config)
    started_at = time.monotonic()
    logits = predict_logits(
        model,
        eval_features,
        micro_batch_size=config.micro_batch_size,
        pad_token_id=pad_token_id,
        device=device,
        autocast_dtype=autocast_dtype,
    )
    candidates = predict_answers(
        eval_examples,
        eval_features,
        logits,
        n_best_size=config.n_best_size,
        max_answer_length=config.max_answer_length,
    )
    predict_seconds = time.monotonic() - started_at
    predictions = {question_id: best[0].text for question_id, best in candidates.items()}
    write_json(output_dir / NBEST_NAME, {id_: [asdict(one) for one in best] for id_, best in candidates.items()})
    write_json(output_dir / PREDICTIONS_NAME, predictions)

    scores = score({one.id: [answer.text for answer in one.answers] for one in eval_examples}, predictions)
    num_train_steps = num_steps(len(train_features), config.batch_size, config.num_epochs)
    result = {
        "dataset_name": config.dataset_name,
        **asdict(scores),
        "num_train_questions": len(train_examples),
        "num_train_features": len(train_features),
        "num_train_steps": num_train_steps,
        "num_eval_features": len(eval_features),
        "train_seconds": train_seconds,
        "predict_seconds": predict_seconds,
        "train_features_per_second": num_train_steps * config.batch_size / train_seconds if has_training else None,
        "predict_features_per_second": len(eval_features) / predict_seconds,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "inputs": inputs,
        "config": plain_config(config),
        "versions": versions(),
    }
    write_json(output_dir / SCORES_NAME, result)
    print(f"{output_dir}: {summary(result)}", flush=True)
    return result


def summary(result: dict[str, Any]) -> str:
    """One line for people, with the questions' name, since EM and F1 mean nothing without it."""
    return (
        f"{result['dataset_name']}, {result['num_questions']:,} questions: "
        f"exact match {result['exact_match']:.2f}, F1 {result['f1']:.2f}"
    )


def windows_of(examples: list[Example], tokenizer: PreTrainedTokenizerBase, config: SquadConfig) -> list[Feature]:
    """The features of `examples` with the lengths of `config`."""
    return make_features(
        examples,
        tokenizer,
        max_seq_length=config.max_seq_length,
        doc_stride=config.doc_stride,
        max_query_length=config.max_query_length,
    )


def positions_of(examples: list[Example], features: list[Feature]) -> list[tuple[int, int]]:
    """Where each feature shows its question's first answer; says how many answers no window shows whole."""
    positions = [answer_positions(feature, examples[feature.example_index].answers[0]) for feature in features]
    shown = {f.example_index for f, position in zip(features, positions, strict=True) if position != NO_ANSWER}
    print(
        f"train: {len(examples):,} questions in {len(features):,} windows; "
        f"{len(examples) - len(shown):,} answers lie whole in no window",
        flush=True,
    )
    return positions


# --- the model ---


def check_model_dir(model_dir: Path, *, has_weights: bool) -> None:
    """Refuse a folder that is not a Hugging Face BERT; `has_weights` asks for the weights as well."""
    fix = "set model_dir to an export, or to a folder with a Hugging Face BERT"
    if not model_dir.is_dir():
        raise UserError(found=f"no folder {model_dir}", expected="the model's folder", fix=fix)
    config_file = model_dir / "config.json"
    if not config_file.is_file():
        raise UserError(found=f"no config.json in {model_dir}", expected="the model's configuration", fix=fix)
    try:
        model_config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(found=f"{config_file} that is not json ({error})", expected="json", fix=fix) from error
    model_type = model_config.get("model_type") if isinstance(model_config, dict) else None
    if model_type != "bert":
        raise UserError(found=f"model_type {model_type!r} in {config_file}", expected="'bert'", fix=fix)
    if not any((model_dir / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise UserError(found=f"no vocabulary in {model_dir}", expected="tokenizer.json or vocab.txt", fix=fix)
    if has_weights and not weight_files(model_dir):
        raise UserError(found=f"no *.safetensors in {model_dir}", expected="the weights as safetensors", fix=fix)


def weight_files(model_dir: Path) -> list[Path]:
    """The files that hold the weights: one, or several with an index."""
    return sorted(model_dir.glob("model*.safetensors"))


def load_model(
    model_dir: Path, *, is_pretrained: bool, needs_head: bool, seed: int
) -> tuple[PreTrainedTokenizerBase, BertForQuestionAnswering]:
    """Tokenizer and fp32 model; `seed` draws what the folder does not hold: the new head, or all weights.

    needs_head: the folder must hold the question-answering head too. Raises UserError if weights are missing.
    """
    torch.manual_seed(seed)
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        if not is_pretrained:
            model_config = BertConfig.from_pretrained(model_dir, local_files_only=True)
            return tokenizer, BertForQuestionAnswering._from_config(model_config, dtype=torch.float32)
        loaded: Any = BertForQuestionAnswering.from_pretrained(
            model_dir, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    model, loading = loaded
    absent = set(loading["missing_keys"]) - (set() if needs_head else QA_HEAD)
    if absent <= QA_HEAD and absent:
        raise UserError(
            found=f"{model_dir} without a question-answering head (qa_outputs)",
            expected="a model fine-tuned on questions, since train_file is not set",
            fix="set train_file, or set model_dir to the model/ folder of a finished `bert-lamb squad`",
        )
    if absent:
        raise UserError(
            found=f"{model_dir} without {len(absent)} weights, such as {min(absent)}",
            expected="every weight of the encoder that config.json describes",
            fix="export the model again",
        )
    return tokenizer, model


def check_lengths(max_seq_length: int, model: BertForQuestionAnswering, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse sequences longer than the position embeddings and token ids beyond the word embeddings."""
    if max_seq_length > model.config.max_position_embeddings:
        raise UserError(
            found=f"max_seq_length={max_seq_length}",
            expected=f"at most the model's {model.config.max_position_embeddings} positions",
            fix="set max_seq_length",
        )
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            found=f"a tokenizer of {len(tokenizer):,} entries with a model of {model.config.vocab_size:,}",
            expected="at most as many entries as embeddings",
            fix="put the vocabulary that the model was trained with into its folder",
        )


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(found="device=cuda without a CUDA device", expected="a GPU", fix="use device=cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hush what transformers and DeepSpeed, which it imports, say on loading; what matters is checked and said here."""
    level, has_bar = logging.root.manager.disable, transformers.logging.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(level)
        if has_bar:
            transformers.logging.enable_progress_bar()


# --- the output folder ---


def admit_output_dir(output_dir: Path, config: SquadConfig, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Refuse an `output_dir` that `config.if_exists` does not allow to use; return the scores if it is finished."""
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(found=f"a file at {output_dir}", expected="a folder or nothing", fix="set output_dir")
    if not output_dir.is_dir() or not any(output_dir.iterdir()):
        return None
    if config.if_exists is IfExists.refuse:
        raise UserError(
            found=f"{output_dir} with files in it",
            expected="an empty or new folder",
            fix="set output_dir, or if_exists=resume (keep a finished run) or restart (delete it)",
        )
    check_if_ours(output_dir)
    if Path(config.model_dir).resolve().is_relative_to(output_dir.resolve()):
        raise UserError(
            found=f"the model {config.model_dir} inside output_dir={output_dir}",
            expected="a model elsewhere, since what was in output_dir is deleted",
            fix="set output_dir",
        )
    if config.if_exists is IfExists.resume:
        check_if_same_config(output_dir, config)
        if (output_dir / SCORES_NAME).is_file():
            return read_finished(output_dir, inputs)
    return None


def start_output_dir(output_dir: Path, config: SquadConfig) -> None:
    """Empty an admitted `output_dir` and mark it as ours."""
    if output_dir.is_dir():
        shutil.rmtree(output_dir)
    output_dir.mkdir(parents=True)
    write_json(output_dir / CONFIG_NAME, plain_config(config))


def check_if_ours(output_dir: Path) -> None:
    """Refuse to delete from a folder that `bert-lamb squad` did not make."""
    names = {entry.name.removesuffix(TEMPORARY_SUFFIX) for entry in output_dir.iterdir()}
    if not (output_dir / CONFIG_NAME).is_file() or not names <= OUTPUT_NAMES:
        stranger = min(names - OUTPUT_NAMES, default=f"no {CONFIG_NAME}")
        raise UserError(
            found=f"{output_dir} that is no output of `bert-lamb squad` ({stranger})",
            expected="such an output, or an empty or new folder",
            fix="set output_dir",
        )


def check_if_same_config(output_dir: Path, config: SquadConfig) -> None:
    """Refuse to continue a run that was started with another configuration."""
    then, now = json.loads((output_dir / CONFIG_NAME).read_text(encoding="utf-8")), plain_config(config)
    changed = sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    if changed:
        was, is_ = (", ".join(f"{key}={one.get(key)}" for key in changed) for one in (then, now))
        raise UserError(found=f"{output_dir} made with {was}", expected=is_, fix="set output_dir, or if_exists=restart")


def read_finished(output_dir: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """The scores of a finished run, which must have read the same bytes."""
    finished: dict[str, Any] = json.loads((output_dir / SCORES_NAME).read_text(encoding="utf-8"))
    changed = sorted(name for name in inputs if finished["inputs"].get(name) != inputs[name])
    if changed:
        raise UserError(
            found=f"{output_dir} made from another {changed[0]}",
            expected="the same file as then",
            fix="set output_dir, or if_exists=restart",
        )
    return finished


def describe_inputs(config: SquadConfig, model_dir: Path) -> dict[str, dict[str, str]]:
    """Name -> path and sha256 of every file that the scores depend on."""
    files = {"eval_file": Path(config.eval_file), "model/config.json": model_dir / "config.json"}
    if config.train_file is not None:
        files["train_file"] = Path(config.train_file)
    for name in ("tokenizer.json", "vocab.txt"):
        if (model_dir / name).is_file():
            files[f"model/{name}"] = model_dir / name
    if config.initial_weights is InitialWeights.pretrained:
        files |= {f"model/{file.name}": file for file in weight_files(model_dir)}
    return {name: {"path": str(file), "sha256": sha256_of(file)} for name, file in files.items()}


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plain_config(config: SquadConfig) -> dict[str, Any]:
    """The configuration as json; without if_exists, which says nothing about the result."""
    values = {name: value.value if isinstance(value, Enum) else value for name, value in asdict(config).items()}
    del values["if_exists"]
    return values


def versions() -> dict[str, str]:
    return {
        "bert_lamb": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
    }


def write_json(file: Path, content: Any) -> None:
    write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
