"""`bert-lamb pretrain`: shards -> checkpoints, phase after phase.

What is trained depends on the recipe alone; ranks, micro-batches, ZeRO stage and engine only decide how it is computed
(with dropout, its draws follow the cut of the batch).
"""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.config.pretrain import PretrainConfig
from bert_lamb.engine.agreement import together
from bert_lamb.engine.build import AUTO, RuntimeSettings, check_kernels, process_for
from bert_lamb.engine.deepspeed_json import check_overrides
from bert_lamb.engine.launch import process_group
from bert_lamb.engine.protocol import Engine
from bert_lamb.model.encoder import choose_execution
from bert_lamb.optim.build import OptimizerSettings
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.pretraining.admission import Phase, admit_phases, instance_fingerprint
from bert_lamb.pretraining.build import build_phase_engine, trial
from bert_lamb.pretraining.hash_check import check_shards
from bert_lamb.pretraining.initial_weights import InitialWeights, check_phases, read_initial_weights
from bert_lamb.pretraining.recipe import EvaluationSettings, MaskingSettings, PhaseSettings, Recipe
from bert_lamb.pretraining.scaling import RULES, settled
from bert_lamb.pretraining.task import PretrainingTask
from bert_lamb.train.fitting import Fit, remember, with_fitting_micro_batches
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.recorder import Recorder
from bert_lamb.train.run import check_engine, leave_stopped, train
from bert_lamb.train.settings import CheckpointSettings, GuardSettings, LoggingSettings, MeterSettings, TrackerSettings
from bert_lamb.train.stop import stop_on_signals
from bert_lamb.train.target import Target
from bert_lamb.train.task import Stage
from bert_lamb.train.tracker import check_tracker

OF_OUTCOME = ("model", "optimizer", "max_grad_norm", "masking", "seed", "decay_over", "stop_at")
# Keys that an earlier version did not have, and the values with which it did what is done now: where they have these,
# the outcome does not mention them, so that its runs can be resumed.
SINCE_LATER = {
    "decay_over": "phase",
    "stop_at": {},
    "exempt_embeddings": False,
    "warmup_power": 1.0,
    "warmup_start_share": 0.0,
    "decay": "polynomial",
    "decay_rate": None,
    "decay_interval_steps": None,
    "end_share": 0.0,
    "cooldown_proportion": 0.0,
    "mask_prob_end": None,
}


def pretrain(config: PretrainConfig) -> None:
    """Run every phase that is not finished; raises UserError before anything is written when something disagrees."""
    plain = settled(to_plain(config))
    recipe, runtime = recipe_of(plain), RuntimeSettings(**plain["runtime"])
    tracker = TrackerSettings(**plain["tracker"])
    process = process_for(runtime)
    check_engine(runtime.engine, process)
    run_dir = RunDir(Path(config.run_dir))
    with ExitStack() as held, stop_on_signals(after_minutes=runtime.stop_after_minutes) as stop:
        # Everything that can be refused, before anything is written.
        if process.world_size > 1:
            held.enter_context(process_group(process))
        with together(process):
            if process.is_main:  # the only one that has a tracker
                check_tracker(name=tracker.name, mode=tracker.mode)
            check_kernels(recipe.optimizer.implementation, runtime, process)
            check_overrides(runtime.deepspeed_overrides)
            execution = choose_execution(process.device, **runtime.of_model(process.device.type))
            phases = admit_phases(recipe, runtime, world_size=process.world_size)
            initial: InitialWeights | None = None
            if config.initial_weights is not None:
                initial = read_initial_weights(Path(config.initial_weights))
                check_phases(initial, phases)
                plain["model"] |= initial.sizes()
                recipe = recipe_of(plain)
        fits: dict[str, Fit] = {}
        if runtime.micro_batch_size == AUTO:
            trials = [trial(recipe, execution, phase) for phase in phases]
            runtime, fits = with_fitting_micro_batches(runtime, trials, process, run_dir)
            with together(process):
                phases = admit_phases(recipe, runtime, world_size=process.world_size)
        if runtime.engine != "torch" and process.world_size == 1:
            held.enter_context(process_group(process))
        if runtime.verify_shards:
            check_shards(phases, process, stop)
        if stop.is_agreed:
            leave_stopped(process, "before the first step")

        # The run's folder.
        with together(process):
            if process.is_main:
                held.enter_context(run_dir.held())
                run_dir.admit(
                    config_yaml=yaml.safe_dump(plain, sort_keys=False),
                    outcome=outcome_of(plain, phases, initial),
                    vocabulary=phases[0].training.vocabulary_path,
                    if_exists=config.if_exists.value,
                )
                if fits:
                    remember(run_dir, fits, trials, runtime, process)

        # Training.
        def build(stage: Stage, checkpoint: Checkpoint | None, position: Position) -> tuple[Engine, PretrainingTask]:
            phase = phases[stage.index]
            engine = build_phase_engine(recipe, runtime, execution, phase, process, checkpoint, position, initial)
            task = PretrainingTask(
                recipe,
                phase,
                rank=process.rank,
                world_size=process.world_size,
                device=process.device,
                loader_workers=runtime.loader_workers,
            )
            return engine, task

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
        train(
            [phase.stage for phase in phases],
            build,
            process=process,
            run_dir=run_dir,
            header=[
                f"run      {config.run_dir}",
                *runtime.describe(process),
                f"recipe   {recipe.optimizer.name}, seed {recipe.seed}",
                *(f"scaling  {line}" for line in RULES[plain["scaling"]]),
                *([initial.describe()] if initial is not None else []),
                *(fit.describe(name) for name, fit in fits.items()),
            ],
            seed=recipe.seed,
            guards=GuardSettings(**plain["guards"]),
            keeper=Keeper(
                run_dir,
                process,
                CheckpointSettings(**plain["checkpoint"]),
                about={"vocabulary": asdict(phases[0].training.manifest.vocabulary)},
            ),
            recorder=recorder,
            stop=stop,
            target=Target(plain["stop_at"]),
            evaluation_interval_steps=recipe.evaluation.interval_steps,
            evaluates_first=initial is not None,
        )


def recipe_of(plain: dict[str, Any]) -> Recipe:
    """The part of the configuration, as a plain tree, that says what is learnt; raises what `settled` raises."""
    plain = settled(plain)
    return Recipe(
        model=plain["model"],
        phases={name: PhaseSettings(**settings) for name, settings in plain["phases"].items()},
        optimizer=OptimizerSettings(**plain["optimizer"]),
        max_grad_norm=plain["max_grad_norm"],
        masking=MaskingSettings(**plain["masking"]),
        evaluation=EvaluationSettings(**plain["evaluation"]),
        seed=plain["seed"],
        decay_over=plain["decay_over"],
    )


def outcome_of(plain: dict[str, Any], phases: list[Phase], initial: InitialWeights | None) -> dict[str, Any]:
    """What decides the weights beyond rounding: a run is only resumed with the same."""
    kept = {key: plain[key] for key in OF_OUTCOME}
    if initial is not None:
        kept["initial_weights"] = initial.sha256()
    kept["optimizer"] = {key: value for key, value in plain["optimizer"].items() if key != "implementation"}
    kept["phases"] = {
        phase.stage.name: {**plain["phases"][phase.stage.name], "shards": instance_fingerprint(phase.training)}
        for phase in phases
    }
    for of_phase in kept["phases"].values():
        if of_phase["mask_prob"] is None:
            del of_phase["mask_prob"]
        del of_phase["num_sequences"]  # it has become total_steps
    return without(kept, SINCE_LATER)


def without(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The tree without the keys that have these values, at any depth."""
    return {
        key: without(value, values) if isinstance(value, dict) else value
        for key, value in tree.items()
        if key not in values or value != values[key]
    }
