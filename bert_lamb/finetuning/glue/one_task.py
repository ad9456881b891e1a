"""One task in one run directory: what is read, fine-tuning, predictions, scores."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import BertConfig

from bert_lamb.engine.agreement import from_rank_0, together
from bert_lamb.engine.launch import Process
from bert_lamb.finetuning.glue import results
from bert_lamb.finetuning.glue.material import Material, read_material
from bert_lamb.finetuning.glue.metrics import check_libraries, score, task_score
from bert_lamb.finetuning.glue.sources import Sources
from bert_lamb.finetuning.glue.task import ClassifierTask, loss_of_full_rows
from bert_lamb.finetuning.glue.tasks import GlueTask
from bert_lamb.finetuning.learning import Learning
from bert_lamb.finetuning.model_folder import save_model, write_card
from bert_lamb.finetuning.predicting import predict_rows
from bert_lamb.finetuning.running import FineTuningRun, fine_tuning
from bert_lamb.finetuning.settings import Settings
from bert_lamb.model.classifier import SequenceClassifier
from bert_lamb.model.encoder import Execution
from bert_lamb.outputs.provenance import library_versions, versions
from bert_lamb.train.recorder import Recorder
from bert_lamb.train.task import Stage

# Their bytes decide, and of `tasks` what is set beside them.
NOT_OF_OUTCOME = frozenset({"model_dir", "data_dir", "files", "dataset", "tasks", "counts_wnli"})
USE = """```python
from transformers import pipeline

classify = pipeline("text-classification", model="FOLDER OR NAME OF THIS MODEL")
classify({"text": "First text.", "text_pair": "Second text, where the task has pairs."})
```"""


def outcome_of(settings: Settings) -> dict[str, Any]:
    """What of the configuration decides the scores."""
    return settings.outcome(without=NOT_OF_OUTCOME)


def one_task(sources: Sources, settings: Settings) -> dict[str, Any]:
    """Fine-tune (unless num_epochs is 0), predict and score, with one seed; returns glue.json's content on every rank.

    Raises UserError for input that cannot be used and for a run_dir in the way, before anything is written.
    """
    with fine_tuning(settings, results.KIND) as run:
        # Everything that can be refused, before anything is written or deleted.
        process, run_dir = run.process, settings.run_dir
        with together(process):
            execution = run.execution()
            if process.is_main:
                check_libraries()
            inputs = sources.read(process)
        finished = run.finished(inputs, results.read_result, outcome=outcome_of(settings))
        if finished is not None:
            if process.is_main:
                print(f"{run_dir} is already complete: {finished['summary']}", flush=True)
            return finished
        with together(process):
            material = read_material(inputs, process, max_seq_length=settings.max_seq_length, seed=settings.seed)
        learning = learning_of(sources, material, process, seed=settings.seed)
        run.plan(learning, execution)

        # The run's folder, and fine-tuning.
        run.admit()
        recorder = run.recorder()
        if run.stage is not None:
            checkpoint = run.train(learning, execution, recorder)
            checkpoint.load_weights(material.loaded.model)
        run.leave_if_stopped("before the predictions")
        return predict_and_score(run, sources, material, execution, recorder)


def predict_and_score(
    run: FineTuningRun, sources: Sources, material: Material, execution: Execution, recorder: Recorder
) -> dict[str, Any]:
    """Predictions for every development and test set, and the scores of the former."""
    process, task, run_dir = run.process, sources.task, run.settings.run_dir
    started_at = time.monotonic()
    model = SequenceClassifier(material.loaded.model, replace(execution, compile=None))
    answers = {}
    for split in [split for split in task.splits if split != "train" and split in material.rows]:
        outputs = predict_rows(
            model,
            material.rows[split],
            micro_batch_size=run.micro_batch_size(material.rows[split]),
            precision=run.runtime.precision,
            process=process,
            stop=run.stop,
            name=f"predict {split}",
            is_by_token=False,
        )
        answers[split] = results.answers_of(np.stack(outputs), task)
    result: dict[str, Any] = {}
    with together(process):
        if process.is_main:
            if run.stage is not None:
                name_the_classes(material.loaded.model.config, task)
                save_model(run_dir, material.loaded.model, material.loaded.tokenizer)
            for split, of_split in answers.items():
                results.write_predictions(run_dir, split, task, material.examples[split], of_split)
            scores = {split: score(task.metrics, answers[split], material.labels(split)) for split in task.dev_splits}
            result = {
                "task": task.name,
                "score": task_score(scores),
                "scores": scores,
                "num_examples": {split: len(rows) for split, rows in material.rows.items()},
                "num_train_steps": run.stage.schedule.total_steps if run.stage is not None else 0,
                "predict_seconds": time.monotonic() - started_at,
                "device": torch.cuda.get_device_name() if process.device.type == "cuda" else "cpu",
                "world_size": process.world_size,
                "inputs": run.inputs,
                "config": run.settings.plain,
                "versions": {**versions(), **library_versions(("scikit-learn", "scipy"))},
            }
            if run.stage is not None:
                for split, of_set in scores.items():
                    figures = {name: value for name, value in of_set.items() if value is not None}
                    num_examples = len(material.rows[split])
                    recorder.write(
                        run.stage, run.stage.schedule.total_steps, "glue_scores", num_examples=num_examples, **figures
                    )
            result["summary"] = results.summary(result)
            if run.stage is not None:
                write_card(run_dir, result, summary=result["summary"], use=USE, pipeline_tag="text-classification")
            results.write_result(run_dir, result)
            print(f"{run_dir}: {result['summary']}", flush=True)
    return from_rank_0(process, result)


def name_the_classes(config: BertConfig, task: GlueTask) -> None:
    """In the model's configuration, so that transformers answers with "entailment" and not with "LABEL_0"."""
    if not task.is_regression:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: number for number, label in enumerate(task.labels)}


def learning_of(sources: Sources, material: Material, process: Process, *, seed: int) -> Learning:
    """What the one loop trains: a classifier, to give the labels of the training rows."""
    train_rows = material.rows.get("train", [])

    def task(stage: Stage) -> ClassifierTask:
        return ClassifierTask(
            train_rows,
            material.labels("train"),
            stage,
            model_config=material.loaded.model.config,
            seed=seed,
            rank=process.rank,
            world_size=process.world_size,
            device=process.device,
        )

    return Learning(
        loss=f"glue with {sources.task.num_answers} answers",
        model=material.loaded.model,
        train_rows=train_rows,
        eval_rows=material.rows[sources.task.dev_splits[0]],
        token_id=material.loaded.tokenizer.cls_id,
        called_as=SequenceClassifier,
        loss_of_full_rows=partial(loss_of_full_rows, sources.task),
        task=task,
    )
