"""`seeds=N`: the same fine-tuning from N seeds, since one run of it says little (Dodge et al. 2020, arXiv 2002.06305).

Each seed is a run of its own in RUN/seed-S, resumed or kept as such; RUN/seeds.json is written last.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import yaml

from bert_lamb.engine.agreement import of_all_ranks, together
from bert_lamb.engine.build import process_for
from bert_lamb.engine.launch import process_group
from bert_lamb.finetuning.settings import Settings
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.run_dir import RunDir, RunKind
from bert_lamb.train.run import check_engine, leave_stopped
from bert_lamb.train.stop import stop_on_signals

RESULT_NAME = "seeds.json"
FIGURES = ("exact_match", "f1")


def over_seeds(settings: Settings, seeds: Sequence[int], run: Callable[[Settings], dict[str, Any]]) -> dict[str, Any]:
    """Every seed in a folder of its own; returns what seeds.json holds, on every rank.

    run: fine-tunes with settings and returns its scores. Raises UserError for a run_dir in the way before anything is
    written, and what `run` raises.
    """
    process = process_for(settings.runtime)
    check_engine(settings.runtime.engine, process)
    folders = {seed: f"seed-{seed}" for seed in seeds}
    kind = RunKind("runs of squad over seeds", mark="seeds", results=frozenset({*folders.values(), RESULT_NAME}))
    run_dir = RunDir(settings.run_dir, kind)
    with ExitStack() as held, stop_on_signals(after_minutes=settings.runtime.stop_after_minutes) as stop:
        if process.world_size > 1 or settings.runtime.engine != "torch":
            held.enter_context(process_group(process))
        with together(process):
            if process.is_main:
                held.enter_context(run_dir.held())
                run_dir.admit(
                    config_yaml=yaml.safe_dump(settings.plain, sort_keys=False),
                    outcome={"seeds": list(seeds)},  # each run compares the rest
                    vocabulary=None,
                    if_exists=settings.if_exists,
                )
        of_seeds: dict[int, dict[str, Any]] = {}
        for seed, folder in folders.items():
            place = settings.run_dir / folder
            plain = {**settings.plain, "seed": seed, "run_dir": str(place), "if_exists": "resume", "seeds": 1}
            of_seeds[seed] = run(replace(settings, seed=seed, run_dir=place, if_exists="resume", plain=plain))
            if any(of_all_ranks(process, stop.is_asked)):
                leave_stopped(process, f"after seed {seed}")
        summed_up = summary_of(of_seeds, settings.plain["published"], settings.plain["published_by"])
        with together(process):
            if process.is_main:
                write_atomically(settings.run_dir / RESULT_NAME, json.dumps(summed_up, indent=1) + "\n")
                print(table(summed_up), flush=True)
        return summed_up


def summary_of(
    of_seeds: Mapping[int, Mapping[str, Any]], published: Mapping[str, float], published_by: str | None
) -> dict[str, Any]:
    """Values by seed, their mean, standard deviation (n - 1; None for one seed) and best, and what was published."""
    figures = {}
    for name in FIGURES:
        values = {str(seed): float(scores[name]) for seed, scores in of_seeds.items()}
        best = max(values, key=lambda seed: values[seed])
        figures[name] = {
            "mean": statistics.fmean(values.values()),
            "standard_deviation": statistics.stdev(values.values()) if len(values) > 1 else None,
            "best": values[best],
            "seed_of_best": int(best),
            "by_seed": values,
            "published": published.get(name),
        }
    first = next(iter(of_seeds.values()))
    kept = {name: first[name] for name in ("dataset_name", "num_questions")}
    return {**kept, "published_by": published_by, "figures": figures}


def table(summed_up: Mapping[str, Any]) -> str:
    """Lines for people; percent."""
    lines = [f"{summed_up['dataset_name']}, {summed_up['num_questions']:,} questions"]
    for name, figure in summed_up["figures"].items():
        deviation = figure["standard_deviation"]
        spread = "" if deviation is None else f" +- {deviation:.2f}"
        lines.append(
            f"{name:<12} {figure['mean']:.2f}{spread}, best {figure['best']:.2f} (seed {figure['seed_of_best']}); "
            + " ".join(f"{value:.2f}" for value in figure["by_seed"].values())
            + (f"; published {figure['published']:.2f}" if figure["published"] is not None else "")
        )
    if summed_up["published_by"] is not None:
        lines.append(f"published: {summed_up['published_by']}")
    return "\n".join(lines)
