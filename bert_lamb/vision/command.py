"""`bert-lamb vision`: images -> a trained network -> its score on the test images, through the one loop."""

import copy
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
import yaml

from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.config.vision import VisionConfig
from bert_lamb.engine.agreement import from_rank_0, of_all_ranks, together
from bert_lamb.engine.build import build_engine, check_kernels, process_for
from bert_lamb.engine.deepspeed_json import check_overrides
from bert_lamb.engine.launch import process_group
from bert_lamb.engine.protocol import Engine
from bert_lamb.errors import UserError
from bert_lamb.outputs.if_exists import Decision
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.provenance import versions
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.recorder import Recorder
from bert_lamb.train.run import check_engine, leave_stopped, train
from bert_lamb.train.settings import MeterSettings
from bert_lamb.train.stop import stop_on_signals
from bert_lamb.train.task import Stage
from bert_lamb.train.tracker import check_tracker
from bert_lamb.vision import results
from bert_lamb.vision.images import ImageData, read_images
from bert_lamb.vision.networks import build_network, flops_per_image
from bert_lamb.vision.plan import stage_of
from bert_lamb.vision.settings import Settings
from bert_lamb.vision.task import ImageTask, scores_on_test


def vision(config: VisionConfig) -> dict[str, Any]:
    """Train and score; returns what vision.json holds, on every rank.

    Raises UserError for input that cannot be used and for a run_dir in the way, before anything is written.
    """
    settings = Settings.of(to_plain(config))
    runtime, run_dir = settings.runtime, RunDir(settings.run_dir, results.KIND)
    process = process_for(runtime)
    check_engine(runtime.engine, process)
    with ExitStack() as held, stop_on_signals(after_minutes=runtime.stop_after_minutes) as stop:
        # Everything that can be refused, before anything is written.
        if process.world_size > 1 or runtime.engine != "torch":
            held.enter_context(process_group(process))
        with together(process):
            if process.is_main:
                check_tracker(name=settings.tracker.name, mode=settings.tracker.mode)
            check_kernels(settings.optimizer.implementation, runtime, process)
            check_overrides(runtime.deepspeed_overrides)
            data = read_images(settings.data)
            check_channels(settings, data)
            stage = stage_of(settings, len(data.train.labels), world_size=process.world_size)
        outcome = {**settings.outcome(), results.KIND.mark: data.sha256}
        finished = None
        with together(process):
            if process.is_main and run_dir.decide(settings.if_exists) is Decision.resume:
                run_dir.check_if_same(outcome)
                finished = results.read_result(run_dir.path)
        finished = from_rank_0(process, finished)
        if finished is not None:
            if process.is_main:
                print(f"{run_dir.path} is already complete: {finished['summary']}", flush=True)
            return finished

        # The run's folder.
        with together(process):
            if process.is_main:
                held.enter_context(run_dir.held())
                run_dir.admit(
                    config_yaml=yaml.safe_dump(settings.plain, sort_keys=False),
                    outcome=outcome,
                    vocabulary=None,
                    if_exists=settings.if_exists,
                )

        # Training.
        sizes = {"num_channels": data.num_channels, "image_size": settings.pixels.image_size}
        build = partial(
            build_network,
            settings.image_model,
            **sizes,
            num_classes=len(data.classes),
            ghost_batch_size=settings.ghost_batch_size,
            seed=settings.seed,
        )
        network, flops = build(), flops_per_image(build, **sizes)
        recorder = held.enter_context(
            Recorder(
                run_dir,
                process,
                logging=settings.logging,
                tracker=settings.tracker,
                meter=MeterSettings(runtime.precision, runtime.peak_tflops, runtime.profile),
                config=settings.plain,
            )
        )

        def build_stage(stage: Stage, checkpoint: Checkpoint | None, position: Position) -> tuple[Engine, ImageTask]:
            model = copy.deepcopy(network).train()  # engines cast and cut what they are given
            if checkpoint is not None:
                checkpoint.load_weights(model)
            engine = build_engine(
                model,
                settings.optimizer,
                runtime,
                process,
                micro_batch_size=stage.plan.micro_batch_size,
                gradient_accumulation_steps=stage.plan.gradient_accumulation_steps,
                max_grad_norm=settings.max_grad_norm,
                loss_scale=position.loss_scale,
            )
            if checkpoint is not None:
                checkpoint.load_into(engine)
            task = ImageTask(
                data,
                stage,
                process,
                pixels=settings.pixels,
                label_smoothing=settings.label_smoothing,
                flops_per_image=flops,
                seed=settings.seed,
                num_threads=runtime.loader_workers,
            )
            return engine, task

        checkpoint = train(
            [stage],
            build_stage,
            process=process,
            run_dir=run_dir,
            header=[
                f"run      {settings.run_dir}",
                *runtime.describe(process),
                f"images   {len(data.train.labels):,} to train on, {len(data.test.labels):,} to test on,"
                f" {len(data.classes):,} classes",
                f"recipe   {settings.image_model.name}, {settings.optimizer.name}, seed {settings.seed}",
            ],
            seed=settings.seed,
            guards=settings.guards,
            keeper=Keeper(run_dir, process, settings.checkpoint, about={}),
            recorder=recorder,
            stop=stop,
            evaluation_interval_steps=settings.evaluation_interval_steps,
        )
        if any(of_all_ranks(process, stop.is_asked)):
            leave_stopped(process, "before the score")

        # The score of what the last checkpoint holds, in fp32.
        checkpoint.load_weights(network)
        scores = scores_on_test(
            network.to(process.device),
            data,
            process,
            pixels=settings.pixels,
            batch_size=stage.plan.micro_batch_size,
            num_threads=runtime.loader_workers,
            all_reduce_sum=partial(sum_over_ranks, process.world_size),
        )
        summary = (
            f"{settings.image_model.name}: {scores['accuracy']:.2%} of {scores['num_instances']:,} test images right,"
            f" loss {scores['loss']:.4f} nats, after {stage.schedule.total_steps:,} steps"
        )
        result = {
            **scores,
            "summary": summary,
            "num_train_steps": stage.schedule.total_steps,
            "num_parameters": sum(parameter.numel() for parameter in network.parameters()),
            "device": torch.cuda.get_device_name() if process.device.type == "cuda" else "cpu",
            "world_size": process.world_size,
            "images": {"data": str(settings.data), "sha256": data.sha256, "of": data.identity},
            "config": settings.plain,
            "versions": versions(),
        }
        with together(process):
            if process.is_main:
                results.save_model(run_dir.path, network.cpu(), data.classes)
                results.write_result(run_dir.path, result)
                print(f"{run_dir.path}: {summary}", flush=True)
        return result


def check_channels(settings: Settings, data: ImageData) -> None:
    """The scale of the pixels fits the images; raises UserError."""
    for name in ("pixel_mean", "pixel_std"):
        value = getattr(settings.pixels, name)
        if len(value) not in (1, data.num_channels):
            raise UserError(
                found=f"{name}={value} for images of {data.num_channels} channel",
                expected=f"one number, or {data.num_channels}",
                fix=f"set {name}",
            )


def sum_over_ranks(world_size: int, values: torch.Tensor) -> torch.Tensor:
    if world_size > 1:
        torch.distributed.all_reduce(values)
    return values
