"""`bert-lamb study`: its folder, its runs one after the other, and what they came to.

RUN/config.yaml, outcome.json, versions.json, lock   as of every run
RUN/cells/NAME, RUN/results/NAME.json                cell.py
RUN/logs/NAME.log                                    what each run printed
RUN/study.json                                       definition and results, after every run
RUN/table.md, figure.svg, study.html                 drawing.py: what study.json says; drawn with it
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from bert_lamb.config.study import StudyConfig
from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.run_dir import RunDir, RunKind
from bert_lamb.pretraining.scaling import settled
from bert_lamb.shards import open_instances
from bert_lamb.study.definition import (
    CELLS,
    LOGS,
    RESULTS,
    Composer,
    outcome_of,
    read_result,
    result_file,
    variants_of,
    words_of,
)
from bert_lamb.study.drawing import FIGURE_FILE, PAGE_FILE, TABLE_FILE, draw
from bert_lamb.study.grid import Cell, all_cells, known_cells
from bert_lamb.study.jobs import Jobs, run_rounds
from bert_lamb.study.processes import Launcher, check_launch, run_all, threads_of
from bert_lamb.train.stop import STOPPED_BY_SIGNAL, stop_on_signals

STUDY_JSON = "study.json"
DRAWN_AFTER_SECONDS = 60.0  # of a run: a shorter one waits for the end, since a drawing takes seconds
DRAWN = {TABLE_FILE, FIGURE_FILE, PAGE_FILE}
STUDY = RunKind("a study", mark="study", results=frozenset({CELLS, RESULTS, LOGS, STUDY_JSON, *DRAWN}))


def study(config: StudyConfig, composed: Composer) -> None:
    """Do every run that is not done, and write study.json; raises UserError before anything is written.

    composed: the typed configuration of words. Exits with STOPPED_BY_SIGNAL when a signal asks.
    """
    root, settings = Path(config.run_dir), config.study
    if settings.jobs and settings.parallel_runs != 1:
        raise UserError(
            found=f"study.parallel_runs={settings.parallel_runs} with {' '.join(settings.jobs)}",
            expected="the launcher to decide how many jobs there are at a time",
            fix="leave it out; on SLURM, set hydra.launcher.array_parallelism",
        )
    if not settings.jobs:  # else it is for the machines of the jobs
        check_launch(settings.launch)
    run_dir, variants = RunDir(root, STUDY), variants_of(to_plain(settings))
    outcome = outcome_of(config)
    cells = list(all_cells(variants, settings.seeds))
    run_dir.decide(config.if_exists.value)
    needed = set()  # shards
    for cell in cells:  # whatever can be refused, of every run; seeds do not differ
        if cell.seed == settings.seeds[0] and not result_file(root, cell).is_file():
            plain = settled(to_plain(composed(words_of(cell, config))))
            splits = ("train", "heldout") if plain["evaluation"]["max_instances"] else ("train",)
            phases = plain["phases"].values()
            needed |= {(phase["shards"], phase["max_seq_length"], split) for phase in phases for split in splits}
    for shards, max_seq_length, split in sorted(needed):
        open_instances(Path(shards), max_seq_length=max_seq_length, split=split)
    with stop_on_signals(after_minutes=config.runtime.stop_after_minutes) as stop, run_dir.held():
        plain = to_plain(config)
        plain["study"] = {key: value for key, value in plain["study"].items() if key not in ("cell", "words", "jobs")}
        config_yaml = yaml.safe_dump(plain, sort_keys=False)
        run_dir.admit(config_yaml=config_yaml, outcome=outcome, vocabulary=None, if_exists=config.if_exists.value)
        results = results_in(root, cells)
        total = len(cells)

        def waiting() -> list[Cell]:
            return [cell for cell in known_cells(variants, settings.seeds, results) if cell.name not in results]

        def next_cell(at_work: set[str]) -> Cell | None:
            return next((cell for cell in waiting() if cell.name not in at_work), None)

        def done(cell: Cell, seconds: float) -> None:
            result = read_result(result_file(root, cell))
            assert result is not None, f"a run that has ended without a result: {cell.name}"
            results[cell.name] = result
            loss = result["heldout_loss"]
            came_to = "diverged" if loss is None else f"held-out loss {loss:.4f}"
            num_known = sum(1 for _ in known_cells(variants, settings.seeds, results))
            print(f"{len(results)}/{num_known} runs | {cell.name}: {came_to}, {seconds:,.0f} s", flush=True)
            content = write_study(root, outcome, results)
            if seconds >= DRAWN_AFTER_SECONDS:
                draw(content, root)

        words = [word for word in settings.words if not word.startswith("if_exists=")]
        print(f"study    {root}: {len(results)} runs done, of {total} at most", flush=True)
        if settings.jobs:
            jobs = Jobs(words, settings.jobs, root / LOGS)

            def has_result(cell: Cell) -> bool:
                return result_file(root, cell).is_file()

            is_done = run_rounds(waiting, jobs, stop=stop, is_done=has_result, done=done)
        else:
            launcher = Launcher(words, settings.launch, root / LOGS, threads_of(settings.parallel_runs))
            is_done = run_all(next_cell, launcher, at_once=settings.parallel_runs, stop=stop, done=done)
        table = draw(write_study(root, outcome, results), root)
    print(f"\n{table}\n{root / PAGE_FILE}")
    if not is_done:
        of_jobs = "; jobs of other machines go on: cancel them, or wait for them" if settings.jobs else ""
        print(f"stopped; call it again to continue{of_jobs}", file=sys.stderr)
        sys.exit(STOPPED_BY_SIGNAL)


def results_in(root: Path, cells: list[Cell]) -> dict[str, Any]:
    """Cell's name -> result of the cells that are done."""
    read = {cell.name: read_result(result_file(root, cell)) for cell in cells}
    return {name: result for name, result in read.items() if result is not None}


def write_study(root: Path, outcome: dict[str, Any], results: dict[str, Any]) -> Any:
    """Write study.json; returns what can be read in it.

    The same bytes whatever the order in which the runs ended, and however often they were interrupted.
    """
    content = {"definition": outcome, "results": dict(sorted(results.items()))}
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(root / STUDY_JSON, text)
    return json.loads(text)
