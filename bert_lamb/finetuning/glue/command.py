"""`bert-lamb glue`: tasks of GLUE from end to end; examples -> rows -> fine-tuning -> predictions -> scores.

Fine-tuning is a stage of the one loop, as in `bert-lamb squad`. With task=all the tasks follow one another, each in a
run directory of its own, so that an interrupted run resumes where it stopped.
"""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from bert_lamb.config.glue import GlueConfig, GlueTaskName, recipe_of, tasks_of
from bert_lamb.config.squad import STAGE, InitialWeights
from bert_lamb.engine.agreement import of_all_ranks, together
from bert_lamb.engine.build import process_for
from bert_lamb.engine.launch import process_group
from bert_lamb.finetuning.glue import results
from bert_lamb.finetuning.glue.material import check_model
from bert_lamb.finetuning.glue.metrics import check_libraries, glue_average
from bert_lamb.finetuning.glue.one_task import one_task, outcome_of
from bert_lamb.finetuning.glue.sources import Sources
from bert_lamb.finetuning.glue.tasks import TASKS
from bert_lamb.finetuning.settings import Settings
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.run import check_engine, leave_stopped
from bert_lamb.train.stop import stop_on_signals


def glue(config: GlueConfig) -> dict[str, Any]:
    """Fine-tune, predict and score one task or all; returns what glue.json holds, on every rank.

    Raises UserError for input that cannot be used and for a run_dir in the way, before anything is written.
    """
    if config.task is GlueTaskName.all:
        return all_tasks(config)
    name = config.task.value
    return one_task(sources_of(config, name), Settings.of(plain_of(config, name), stage=STAGE))


def plain_of(config: GlueConfig, name: str) -> dict[str, Any]:
    """The configuration of one task, as a run of it alone would have it."""
    recipe = to_plain(recipe_of(config, name))
    return {**to_plain(config), **recipe, "task": name, "tasks": {name: recipe}}


def sources_of(config: GlueConfig, name: str) -> Sources:
    return Sources(
        TASKS[name],
        Path(config.model_dir),
        Path(config.data_dir) if config.data_dir is not None else None,
        {split: Path(file) for split, file in config.files.items()},
        config.dataset,
        is_trained=recipe_of(config, name).num_epochs > 0,
        is_pretrained=config.initial_weights is InitialWeights.pretrained,
    )


def all_tasks(config: GlueConfig) -> dict[str, Any]:
    """Each task in run_dir/TASK, whatever was finished before is kept; then their table and average."""
    plain, names = to_plain(config), tasks_of(config)
    settings = {name: Settings.of(plain_of(config, name), stage=STAGE) for name in names}
    sources = {name: sources_of(config, name) for name in names}
    runtime = settings[names[0]].runtime
    process = process_for(runtime)
    check_engine(runtime.engine, process)
    run_dir = RunDir(Path(config.run_dir), results.KIND_OF_ALL)
    with ExitStack() as held, stop_on_signals(after_minutes=runtime.stop_after_minutes) as stop:
        if process.world_size > 1 or runtime.engine != "torch":
            held.enter_context(process_group(process))
        # Everything that can be refused, before anything is written or deleted.
        with together(process):
            if process.is_main:
                check_libraries()
                run_dir.decide(config.if_exists.value)
                for name in names:  # read again when its turn comes, so that no task's texts stay in memory
                    sources[name].read(process).check_if_outside(run_dir.path)
                longest = max(one.max_seq_length for one in settings.values())
                check_model(sources[names[0]], max_seq_length=longest, seed=config.seed)
        with together(process):
            if process.is_main:
                held.enter_context(run_dir.held())
                run_dir.admit(
                    config_yaml=yaml.safe_dump(plain, sort_keys=False),
                    outcome={"tasks": {name: outcome_of(one) for name, one in settings.items()}},
                    vocabulary=None,
                    if_exists=config.if_exists.value,
                )
        of_tasks: dict[str, dict[str, Any]] = {}
        for name in names:
            own = replace(settings[name], run_dir=run_dir.path / name, if_exists="resume")
            of_tasks[name] = one_task(sources[name], own)
            if any(of_all_ranks(process, stop.is_asked)):
                leave_stopped(process, f"after {name}")
        numbers = {name: result["score"] for name, result in of_tasks.items()}
        average = glue_average(numbers, counts_wnli=config.counts_wnli)
        kept = ("score", "scores", "num_examples")
        summed_up = {
            "average": average,
            "counts_wnli": config.counts_wnli,
            "tasks": {name: {key: of_task[key] for key in kept} for name, of_task in of_tasks.items()},
        }
        with together(process):
            if process.is_main:
                results.write_result(run_dir.path, summed_up)
                print(results.table(of_tasks, average, counts_wnli=config.counts_wnli), flush=True)
        return summed_up
