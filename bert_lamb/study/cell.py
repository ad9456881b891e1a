"""One run of a study: `pretrain` with the words of its cell, and its result.

RUN/cells/NAME/        the run, as `bert-lamb pretrain` leaves it
RUN/results/NAME.json  what it came to; it is there when the run is done
"""

import json
import os
import shutil
import sys
from dataclasses import fields
from pathlib import Path

from bert_lamb.config.pretrain import PretrainConfig
from bert_lamb.config.study import StudyConfig
from bert_lamb.engine.place import place_in
from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.run_dir import CHECKPOINTS
from bert_lamb.pretraining.command import pretrain
from bert_lamb.study.definition import CELLS, LOGS, Composer, result_file, variants_of, words_of
from bert_lamb.study.grid import Cell, all_cells
from bert_lamb.study.processes import Launcher, check_launch, run_all, threads_of
from bert_lamb.study.results import result_of
from bert_lamb.train.guards import Diverged
from bert_lamb.train.stop import STOPPED_BY_SIGNAL, stop_on_signals


def run_cell(config: StudyConfig, composed: Composer) -> None:
    """Do the cell that is named in the configuration, from where it stands, and write its result; on every rank.

    composed: the typed configuration of words. Raises what `pretrain` raises, but for a run that diverged, which is a
    result.
    """
    cell = _cell_of(config)
    of_cell = composed(words_of(cell, config))
    reason = None
    try:
        pretrain(PretrainConfig(**{one.name: getattr(of_cell, one.name) for one in fields(PretrainConfig)}))
    except Diverged as diverged:
        reason = diverged.found
    if place_in(os.environ).rank != 0:
        return
    root, run_dir = Path(config.run_dir), Path(config.run_dir) / CELLS / cell.name
    result = {"tuned": cell.tuned, "batch": cell.batch, "seed": cell.seed, **result_of(run_dir, reason=reason)}
    result_file(root, cell).parent.mkdir(exist_ok=True)
    write_atomically(result_file(root, cell), json.dumps(result, indent=1, allow_nan=False) + "\n")
    if not config.study.keep_checkpoints:
        shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)


def launch_cell(config: StudyConfig) -> None:
    """Do the named cell in processes that `study.launch` starts: in a job that is one process of its machine.

    Raises UserError with what the run said if it fails, and where the job has several processes already.
    """
    cell, place = _cell_of(config), place_in(os.environ)
    if place.world_size > 1:
        raise UserError(
            found=f"study.launch={config.study.launch} in each of {place.world_size} processes of a job",
            expected="one of the two to start the ranks of a run",
            fix="leave study.launch out, or hydra.launcher.tasks_per_node",
        ).reported_by("machine")
    check_launch(config.study.launch)
    launcher = Launcher(config.study.words, config.study.launch, Path(config.run_dir) / LOGS, threads_of(1))
    left = [cell]
    with stop_on_signals() as stop:
        is_done = run_all(
            lambda _: left.pop() if left else None, launcher, at_once=1, stop=stop, done=lambda cell, seconds: None
        )
    if not is_done:
        sys.exit(STOPPED_BY_SIGNAL)


def _cell_of(config: StudyConfig) -> Cell:
    cells = {cell.name: cell for cell in all_cells(variants_of(to_plain(config.study)), config.study.seeds)}
    if config.study.cell not in cells:
        raise UserError(
            found=f"study.cell={config.study.cell}", expected=f"one of {', '.join(cells)}", fix="set study.cell"
        ).reported_by("machine")
    return cells[config.study.cell]
