"""`bert-lamb squad`: the SQuAD path from end to end; examples -> features -> fine-tuning -> predictions -> scores.

Everything it makes lies in output_dir, which belongs to it alone:

    squad_config.json       the resolved configuration; written first, marks the folder as ours
    train_log.jsonl         one line per optimizer step
    model/                  the fine-tuned model and its tokenizer, for transformers
    nbest_predictions.json  question id -> the best answers with logits and probabilities
    predictions.json        question id -> the best answer, as the official scorer reads it
    scores.json             the result; written last, so it stands for a complete run
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bert_lamb.config.runtime import Precision
from bert_lamb.config.squad import InitialWeights, SquadConfig
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.examples import Example, read_examples
from bert_lamb.finetuning.squad.features import NO_ANSWER, Feature, answer_positions, make_features
from bert_lamb.finetuning.squad.fine_tune import StepRecord, fine_tune, num_steps
from bert_lamb.finetuning.squad.model import Loaded, check_folder, check_lengths, load_model, quiet_transformers
from bert_lamb.finetuning.squad.output_dir import (
    MODEL_NAME,
    NBEST_NAME,
    PREDICTIONS_NAME,
    SCORES_NAME,
    TRAIN_LOG_NAME,
    admit_output_dir,
    describe_inputs,
    plain_config,
    start_output_dir,
    versions,
    write_json,
)
from bert_lamb.finetuning.squad.predict import predict_answers, predict_logits
from bert_lamb.finetuning.squad.scoring import score
from bert_lamb.finetuning.squad.tokenizer import WordPieces

MAX_UNKNOWN_SHARE = 0.05  # of the tokens; more [UNK] is said


def squad(config: SquadConfig) -> dict[str, Any]:
    """Fine-tune (if a train_file is given), predict, score; returns what scores.json holds.

    Raises UserError for input that cannot be used and for an output_dir in the way.
    """
    output_dir, model_dir = Path(config.output_dir), Path(config.model_dir)
    has_training = config.train_file is not None
    is_pretrained = config.initial_weights is InitialWeights.pretrained
    if not has_training and not is_pretrained:
        raise UserError(
            found="initial_weights=random without train_file", expected="something to learn from", fix="set train_file"
        )
    check_folder(model_dir)
    train_examples = read_examples(Path(config.train_file)) if config.train_file is not None else []
    eval_examples = read_examples(Path(config.eval_file))
    inputs = describe_inputs(config)

    finished = admit_output_dir(output_dir, config, inputs)
    if finished is not None:
        print(f"{output_dir} is complete already: {summary(finished)}", flush=True)
        return finished

    loaded = load_model(model_dir, is_pretrained=is_pretrained, needs_head=not has_training, seed=config.seed)
    tokenizer, model = loaded.tokenizer, loaded.model
    check_lengths(config.max_seq_length, model)
    device = choose_device(config.device)
    print(f"{model_dir}: {describe_model(loaded, config)}", flush=True)
    if (warning := tokenizer.warn_of_casing()) is not None:
        print(f"{model_dir}: {warning}", flush=True)
    train_features = windows_of(train_examples, tokenizer, config, name="train") if has_training else []
    positions = positions_of(train_examples, train_features) if has_training else []
    eval_features = windows_of(eval_examples, tokenizer, config, name="eval")
    # From here on nothing is refused for how it was called or what it was given, so an older output may go.
    start_output_dir(output_dir, config)
    autocast_dtype = torch.bfloat16 if config.precision is Precision.bf16 else None
    pad_token_id = tokenizer.pad_id

    train_seconds = 0.0
    if has_training:
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
            for_transformers = tokenizer.for_transformers(model_max_length=model.config.max_position_embeddings)
            for_transformers.save_pretrained(output_dir / MODEL_NAME)

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


def describe_model(loaded: Loaded, config: SquadConfig) -> str:
    """One line on what is fine-tuned: sizes, where the weights come from, and what of the folder is not used."""
    sizes, head = loaded.model.config, "its own" if loaded.has_own_head else "new"
    return (
        f"BERT with {sizes.num_hidden_layers} layers, hidden size {sizes.hidden_size}, "
        f"{config.initial_weights.value} weights, {head} question-answering head"
        + (f"; not used: {', '.join(sorted({root_of(key) for key in loaded.left_over}))}" if loaded.left_over else "")
    )


def root_of(key: str) -> str:
    """Which part of a model a weight belongs to: cls, pooler, classifier."""
    return key.removeprefix("bert.").split(".")[0]


def windows_of(examples: list[Example], tokenizer: WordPieces, config: SquadConfig, *, name: str) -> list[Feature]:
    """The features of `examples` with the lengths of `config`; says so when much of them is not in the vocabulary."""
    features = make_features(
        examples,
        tokenizer,
        max_seq_length=config.max_seq_length,
        doc_stride=config.doc_stride,
        max_query_length=config.max_query_length,
        name=name,
    )
    num_tokens = sum(len(feature.input_ids) for feature in features)
    unknown_share = sum(feature.input_ids.count(tokenizer.unk_id) for feature in features) / num_tokens
    if unknown_share > MAX_UNKNOWN_SHARE:
        print(
            f"{name}: {unknown_share:.0%} of the tokens are {tokenizer.special['unk']}; is this the right vocabulary?",
            flush=True,
        )
    return features


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


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(found="device=cuda without a CUDA device", expected="a GPU", fix="use device=cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
