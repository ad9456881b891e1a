"""`bert-lamb squad`: the SQuAD path from end to end; examples -> features -> fine-tuning -> predictions -> scores.

Fine-tuning is a stage of the one loop: its engine, checkpoints, signals, tracker and metrics are those of pretraining.
Prediction reads the weights of the last checkpoint, whatever machine trained them, and is spread over the ranks.
"""

import copy
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.config.squad import STAGE, InitialWeights, SquadConfig
from bert_lamb.engine.agreement import from_rank_0, of_all_ranks, together
from bert_lamb.engine.build import AUTO, RuntimeSettings, build_engine, check_kernels
from bert_lamb.engine.deepspeed_json import check_overrides
from bert_lamb.engine.launch import Process, process_group, this_process
from bert_lamb.engine.protocol import Engine
from bert_lamb.finetuning.squad import results
from bert_lamb.finetuning.squad.features import full_windows, mean_length
from bert_lamb.finetuning.squad.material import Material, Sources, WindowSettings, read_material
from bert_lamb.finetuning.squad.predict import predict_answers, predict_logits
from bert_lamb.finetuning.squad.results import read_scores, summary
from bert_lamb.finetuning.squad.task import SquadTask, num_steps
from bert_lamb.model.encoder import Execution, choose_execution
from bert_lamb.model.span import SpanModel, span_loss_sum
from bert_lamb.optim.build import OptimizerSettings
from bert_lamb.outputs.if_exists import Decision
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.provenance import versions
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.batch_plan import plan_batch
from bert_lamb.train.fitting import Fit, Trial, remember, with_fitting_micro_batches
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.recorder import Recorder
from bert_lamb.train.run import check_engine, leave_stopped, train
from bert_lamb.train.schedule import Schedule
from bert_lamb.train.settings import CheckpointSettings, LoggingSettings, MeterSettings, TrackerSettings
from bert_lamb.train.stop import StopFlag, stop_on_signals
from bert_lamb.train.task import Stage
from bert_lamb.train.tracker import check_tracker

# What decides no figure; of the last three the bytes do.
NOT_OF_OUTCOME = {"run_dir", "runtime", "checkpoint", "logging", "tracker", "if_exists"}
NOT_OF_OUTCOME |= {"model_dir", "train_file", "eval_file"}


def squad(config: SquadConfig) -> dict[str, Any]:
    """Fine-tune (if a train_file is given), predict, score; returns what scores.json holds, on every rank.

    Raises UserError for input that cannot be used and for a run_dir in the way, before anything is written.
    """
    plain = to_plain(config)
    runtime, tracker = RuntimeSettings(**plain["runtime"]), TrackerSettings(**plain["tracker"])
    optimizer = OptimizerSettings(**plain["optimizer"])
    sources = Sources(
        Path(config.model_dir),
        Path(config.train_file) if config.train_file is not None else None,
        Path(config.eval_file),
        is_pretrained=config.initial_weights is InitialWeights.pretrained,
    )
    windows = WindowSettings(config.max_seq_length, config.doc_stride, config.max_query_length)
    process = this_process(device=runtime.device, num_threads=runtime.num_threads)
    check_engine(runtime.engine, process)
    run_dir = RunDir(Path(config.run_dir), results.KIND)
    with ExitStack() as held, stop_on_signals() as stop:
        # Everything that can be refused, before anything is written or deleted.
        if process.world_size > 1:
            held.enter_context(process_group(process))
        with together(process):
            if process.is_main:  # the only one that has a tracker
                check_tracker(name=tracker.name, mode=tracker.mode)
            check_kernels(optimizer.implementation, runtime, process)
            check_overrides(runtime.deepspeed_overrides)
            execution = choose_execution(process.device, **runtime.of_model())
            train_examples, eval_examples = sources.read_examples()
        inputs: dict[str, dict[str, str]] = {}
        outcome: dict[str, Any] = {}
        finished: dict[str, Any] | None = None
        with together(process):
            if process.is_main:
                inputs = sources.describe()
                outcome = {key: value for key, value in plain.items() if key not in NOT_OF_OUTCOME}
                outcome["optimizer"] = {k: v for k, v in plain["optimizer"].items() if k != "implementation"}
                outcome["inputs"] = {name: {"sha256": file["sha256"]} for name, file in inputs.items()}
                decision = run_dir.decide(config.if_exists.value)
                sources.check_if_outside(run_dir.path)
                if decision is Decision.resume:
                    run_dir.check_if_same(outcome)
                    finished = read_scores(run_dir.path)
        if (finished := from_rank_0(process, finished)) is not None:
            if process.is_main:
                print(f"{run_dir.path} is complete already: {summary(finished)}", flush=True)
            return finished
        with together(process):
            material = read_material(sources, train_examples, eval_examples, windows, process, seed=config.seed)
            stage = stage_of(config, material, runtime, process) if train_examples else None
        fits: dict[str, Fit] = {}
        if runtime.micro_batch_size == AUTO:
            trials = [trial(config, material, stage, execution)]
            runtime, fits = with_fitting_micro_batches(runtime, trials, process, run_dir)
            with together(process):
                stage = stage_of(config, material, runtime, process) if train_examples else None
        if runtime.engine != "torch" and process.world_size == 1 and stage is not None:
            held.enter_context(process_group(process))

        # The run's folder.
        with together(process):
            if process.is_main:
                held.enter_context(run_dir.held())
                run_dir.admit(
                    config_yaml=yaml.safe_dump(plain, sort_keys=False),
                    outcome=outcome,
                    vocabulary=None,
                    if_exists=config.if_exists.value,
                )
                if fits:
                    remember(run_dir, fits, trials, runtime, process)

        # Fine-tuning.
        recorder = held.enter_context(
            Recorder(
                run_dir,
                process,
                logging=LoggingSettings(**plain["logging"]),
                tracker=tracker,
                meter=MeterSettings(runtime.precision, runtime.peak_tflops, runtime.profile),
                config=plain,
            )
        )
        if stage is not None:
            checkpoint = fine_tune(
                config, material, stage, runtime, execution, optimizer, process, run_dir, recorder, stop, fits
            )
            checkpoint.load_weights(material.loaded.model)
        if any(of_all_ranks(process, stop.is_asked)):
            leave_stopped(process, "before the predictions")

        # Predictions and scores.
        started_at = time.monotonic()
        logits = predict_logits(
            SpanModel(material.loaded.model, replace(execution, compile=None)),
            material.eval_features,
            micro_batch_size=runtime.max_micro_batch_size(STAGE, mean_length=mean_length(material.eval_features)),
            precision=runtime.precision,
            process=process,
        )
        result: dict[str, Any] = {}
        with together(process):
            if process.is_main:
                if stage is not None:
                    results.save_model(run_dir.path, material.loaded.model, material.loaded.tokenizer)
                rankings = predict_answers(
                    material.eval_examples,
                    material.eval_features,
                    logits,
                    n_best_size=config.n_best_size,
                    max_answer_length=config.max_answer_length,
                )
                threshold = config.null_score_diff_threshold
                predictions = results.write_predictions(run_dir.path, rankings, threshold=threshold)
                result = {
                    "dataset_name": config.dataset_name or f"SQuAD v{material.eval_examples.version}",
                    **results.figures_of(material.eval_examples, predictions, results.null_odds_of(rankings)),
                    "num_train_questions": len(material.train_examples),
                    "num_train_features": len(material.train_features),
                    "num_train_steps": stage.schedule.total_steps if stage is not None else 0,
                    "num_eval_features": len(material.eval_features),
                    "predict_seconds": time.monotonic() - started_at,
                    "device": torch.cuda.get_device_name() if process.device.type == "cuda" else "cpu",
                    "world_size": process.world_size,
                    "inputs": inputs,
                    "config": plain,
                    "versions": versions(),
                }
                if stage is not None:
                    figures = {name: result[name] for name in ("exact_match", "f1", "num_questions")}
                    recorder.write(stage, stage.schedule.total_steps, "scores", **figures)
                results.write_json(run_dir.path / results.SCORES_NAME, result)
                print(f"{run_dir.path}: {summary(result)}", flush=True)
        return from_rank_0(process, result)


def stage_of(config: SquadConfig, material: Material, runtime: RuntimeSettings, process: Process) -> Stage:
    """The only stage; raises UserError when the ranks do not share the global batch evenly."""
    total_steps = num_steps(len(material.train_features), config.global_batch_size, config.num_epochs)
    plan = plan_batch(
        key="global_batch_size",
        global_batch_size=config.global_batch_size,
        max_micro_batch_size=runtime.max_micro_batch_size(STAGE, mean_length=mean_length(material.train_features)),
        world_size=process.world_size,
        total_steps=total_steps,
        max_seq_length=config.max_seq_length,
    )
    schedule = Schedule(
        total_steps,
        config.peak_lr,
        config.warmup_proportion,
        config.decay_power,
        decay_end="after_last_step",
    )
    return Stage(STAGE, 0, plan, schedule, num_instances=len(material.train_features))


def trial(config: SquadConfig, material: Material, stage: Stage | None, execution: Execution) -> Trial:
    """What `runtime.micro_batch_size=auto` tries; predictions take less memory, and as many features at once."""
    model, features = material.loaded.model, material.train_features or material.eval_features

    def loss(model: torch.nn.Module, num_rows: int, device: torch.device) -> torch.Tensor:
        batch = full_windows(num_rows, config.max_seq_length, material.loaded.tokenizer.cls_id).to(device)
        targets = torch.zeros(num_rows, 2, dtype=torch.int64, device=device)
        return span_loss_sum(model(*batch), batch.position_ids, batch.cu_seqlens, batch.max_length, targets)

    return Trial(
        STAGE,
        about={"model": model.config.to_diff_dict(), "loss": "squad"},
        build=lambda: SpanModel(copy.deepcopy(model), replace(execution, compile=None)),
        loss=loss,
        max_seq_length=config.max_seq_length,
        mean_length=mean_length(features),
        is_padded=execution.attention != "varlen",
        max_sequences=stage.plan.sequences_per_rank_and_step if stage is not None else len(features),
    )


def fine_tune(
    config: SquadConfig,
    material: Material,
    stage: Stage,
    runtime: RuntimeSettings,
    execution: Execution,
    optimizer: OptimizerSettings,
    process: Process,
    run_dir: RunDir,
    recorder: Recorder,
    stop: StopFlag,
    fits: dict[str, Fit],
) -> Checkpoint:
    """Train what is left of the stage; returns the last checkpoint. The model of `material` stays as it is."""

    def build(stage: Stage, checkpoint: Checkpoint | None, position: Position) -> tuple[Engine, SquadTask]:
        model = SpanModel(
            copy.deepcopy(material.loaded.model),  # engines cast and cut what they are given
            execution,
        ).train()
        if checkpoint is not None:
            checkpoint.load_weights(model)
        engine = build_engine(
            model,
            optimizer,
            runtime,
            process,
            micro_batch_size=stage.plan.micro_batch_size,
            gradient_accumulation_steps=stage.plan.gradient_accumulation_steps,
            max_grad_norm=config.max_grad_norm,
            loss_scale=position.loss_scale,
        )
        if checkpoint is not None:
            checkpoint.load_into(engine)
        task = SquadTask(
            material.train_features,
            material.positions,
            stage,
            model_config=material.loaded.model.config,
            seed=config.seed,
            rank=process.rank,
            world_size=process.world_size,
            device=process.device,
        )
        return engine, task

    return train(
        [stage],
        build,
        process=process,
        run_dir=run_dir,
        header=[
            f"run      {config.run_dir}",
            *runtime.describe(process),
            f"recipe   {optimizer.name}, seed {config.seed}",
            *(fit.describe(name) for name, fit in fits.items()),
        ],
        seed=config.seed,
        keeper=Keeper(run_dir, CheckpointSettings(**to_plain(config.checkpoint)), about={}),
        recorder=recorder,
        stop=stop,
    )
