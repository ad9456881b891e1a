"""`bert-lamb squad`: the SQuAD path from end to end; examples -> features -> fine-tuning -> predictions -> scores.

Fine-tuning is a stage of the one loop: its engine, checkpoints, signals, tracker and metrics are those of pretraining.
Prediction reads the weights of the last checkpoint, whatever machine trained them, and is spread over the ranks.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bert_lamb.config.squad import STAGE, InitialWeights, SquadConfig
from bert_lamb.engine.agreement import from_rank_0, together
from bert_lamb.engine.launch import Process
from bert_lamb.finetuning.learning import Learning
from bert_lamb.finetuning.model_folder import save_model, write_card
from bert_lamb.finetuning.running import fine_tuning
from bert_lamb.finetuning.settings import Settings
from bert_lamb.finetuning.squad import results
from bert_lamb.finetuning.squad.answers_page import write_answers_page
from bert_lamb.finetuning.squad.hub import source_of
from bert_lamb.finetuning.squad.material import Material, Sources, WindowSettings, read_material
from bert_lamb.finetuning.squad.predict import predict_answers, predict_logits
from bert_lamb.finetuning.squad.results import read_scores, summary
from bert_lamb.finetuning.squad.seeds import over_seeds
from bert_lamb.finetuning.squad.task import SquadTask
from bert_lamb.finetuning.tokens import FeatureBatch
from bert_lamb.model.span import SpanModel, span_loss_sum
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.provenance import versions
from bert_lamb.train.task import Stage

NOT_OF_OUTCOME = frozenset({"model_dir", "train_file", "eval_file"})  # their bytes decide
NOT_OF_OUTCOME |= {"seeds", "published", "published_by"}
USE = """```sh
bert-lamb ask model_dir=FOLDER context=FILE question="Who ...?"
```

`AutoModelForQuestionAnswering` loads it; the answer is the span whose start and end logits have the largest sum."""


def squad(config: SquadConfig) -> dict[str, Any]:
    """Fine-tune (if a train_file is given), predict, score, with one seed or several.

    Returns what scores.json holds, or seeds.json, on every rank. Raises UserError for input that cannot be used and for
    a run_dir in the way, before anything is written.
    """
    settings = Settings.of(to_plain(config), stage=STAGE)
    if config.seeds == 1:
        return of_one_seed(config, settings)
    return over_seeds(settings, range(config.seed, config.seed + config.seeds), partial(of_one_seed, config))


def of_one_seed(config: SquadConfig, settings: Settings) -> dict[str, Any]:
    """Fine-tune, predict and score; returns what scores.json holds. settings: of this seed, and its run_dir."""
    sources = Sources(
        Path(config.model_dir),
        source_of("train_file", config.train_file) if config.train_file is not None else None,
        source_of("eval_file", config.eval_file),
        is_pretrained=config.initial_weights is InitialWeights.pretrained,
    )
    windows = WindowSettings(config.max_seq_length, config.doc_stride, config.max_query_length)
    with fine_tuning(settings, results.KIND) as run:
        # Everything that can be refused, before anything is written or deleted.
        process, run_dir = run.process, settings.run_dir
        with together(process):
            execution = run.execution()
            train_examples, eval_examples = sources.read_examples()
        finished = run.finished(sources, read_scores, outcome=settings.outcome(without=NOT_OF_OUTCOME))
        if finished is not None:
            if process.is_main:
                print(f"{run_dir} is already complete: {summary(finished)}", flush=True)
            return finished
        with together(process):
            material = read_material(sources, train_examples, eval_examples, windows, process, seed=settings.seed)
        learning = learning_of(material, process, seed=settings.seed)
        run.plan(learning, execution)

        # The run's folder, and fine-tuning.
        run.admit()
        recorder = run.recorder()
        if run.stage is not None:
            checkpoint = run.train(learning, execution, recorder)
            checkpoint.load_weights(material.loaded.model)
        run.leave_if_stopped("before the predictions")

        # Predictions and scores.
        started_at = time.monotonic()
        logits = predict_logits(
            SpanModel(material.loaded.model, replace(execution, compile=None)),
            material.eval_features,
            micro_batch_size=run.micro_batch_size(material.eval_features),
            precision=run.runtime.precision,
            process=process,
            stop=run.stop,
        )
        result: dict[str, Any] = {}
        with together(process):
            if process.is_main:
                if run.stage is not None:
                    save_model(run_dir, material.loaded.model, material.loaded.tokenizer)
                rankings = predict_answers(
                    material.eval_examples,
                    material.eval_features,
                    logits,
                    n_best_size=config.n_best_size,
                    max_answer_length=config.max_answer_length,
                )
                threshold = config.null_score_diff_threshold
                predictions = results.write_predictions(run_dir, rankings, threshold=threshold)
                dataset_name = config.dataset_name or f"SQuAD v{material.eval_examples.version}"
                write_answers_page(run_dir / results.PAGE_NAME, material.eval_examples, predictions, title=dataset_name)
                result = {
                    "dataset_name": dataset_name,
                    **results.figures_of(material.eval_examples, predictions, results.null_odds_of(rankings)),
                    "num_train_questions": len(material.train_examples),
                    "num_train_features": len(material.train_features),
                    "num_train_steps": run.stage.schedule.total_steps if run.stage is not None else 0,
                    "num_eval_features": len(material.eval_features),
                    "predict_seconds": time.monotonic() - started_at,
                    "device": torch.cuda.get_device_name() if process.device.type == "cuda" else "cpu",
                    "world_size": process.world_size,
                    "inputs": run.inputs,
                    "config": settings.plain,
                    "versions": versions(),
                }
                if run.stage is not None:
                    figures = {name: result[name] for name in ("exact_match", "f1", "num_questions")}
                    recorder.write(run.stage, run.stage.schedule.total_steps, "scores", **figures)
                    write_card(run_dir, result, summary=summary(result), use=USE, pipeline_tag="question-answering")
                results.write_json(run_dir / results.SCORES_NAME, result)
                print(f"{run_dir}: {summary(result)}", flush=True)
        return from_rank_0(process, result)


def learning_of(material: Material, process: Process, *, seed: int) -> Learning:
    """What the one loop trains: a span model, to point at the answers of the training features."""

    def loss_of_full_rows(model: nn.Module, batch: FeatureBatch, num_rows: int) -> Tensor:
        targets = torch.zeros(num_rows, 2, dtype=torch.int64, device=batch.input_ids.device)
        return span_loss_sum(model(*batch), batch.position_ids, batch.cu_seqlens, batch.max_length, targets)

    def task(stage: Stage) -> SquadTask:
        return SquadTask(
            material.train_features,
            material.positions,
            stage,
            model_config=material.loaded.model.config,
            seed=seed,
            rank=process.rank,
            world_size=process.world_size,
            device=process.device,
        )

    return Learning(
        loss="squad",
        model=material.loaded.model,
        train_rows=material.train_features,
        eval_rows=material.eval_features,
        token_id=material.loaded.tokenizer.cls_id,
        called_as=SpanModel,
        loss_of_full_rows=loss_of_full_rows,
        task=task,
    )
