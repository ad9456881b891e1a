"""From the configuration of a study to its variants, the words of a run, and what it must be continued with."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bert_lamb.config.study import StudyConfig
from bert_lamb.errors import UserError
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.read_back import read_object
from bert_lamb.study.grid import Cell, Variant, later_words_win
from bert_lamb.study.results import FIELDS

Composer = Callable[[list[str]], StudyConfig]  # words -> the typed configuration

CELLS, RESULTS, LOGS = "cells", "results", "logs"
HOW = ("parallel_runs", "launch", "keep_checkpoints", "cell", "words", "jobs")  # of `study`: do not change a result
OF_THE_RUN = ("run_dir", "runtime", "checkpoint", "logging", "tracker", "if_exists", "shards")  # nor do these


def variants_of(study: Mapping[str, Any]) -> list[Variant]:
    """study: the group `study` as a plain tree, of the configuration or of study.json."""
    return [
        Variant(
            name,
            words=tuple(one["words"]),
            batches=tuple(study["batches"] if one["batches"] is None else one["batches"]),
            tune=tuple(_tuned(word) for word in one["tune"]),
            tune_at=one["tune_at"],
        )
        for name, one in study["variants"].items()
    ]


def _tuned(word: str) -> tuple[str, tuple[str, ...]]:
    key, _, values = word.partition("=")
    return key, tuple(values.split(","))


def words_of(cell: Cell, config: StudyConfig) -> list[str]:
    """The command line of one run: the study's, and what makes it this cell."""
    of_study = [word for word in config.study.words if not word.startswith(("study.cell=", "if_exists="))]
    of_cell = cell.words(sequences_of(config))
    run_dir = Path(config.run_dir) / CELLS / cell.name
    return later_words_win([*of_study, *of_cell, f"run_dir={run_dir}", "if_exists=resume"])


def sequences_of(config: StudyConfig) -> dict[str, int]:
    """Phase -> the sequences it trains on, the same for every cell: num_sequences, or steps x batch of the recipe."""
    return {
        name: phase.num_sequences or (phase.total_steps or 0) * phase.global_batch_size
        for name, phase in config.phases.items()
    }


def outcome_of(config: StudyConfig) -> dict[str, Any]:
    """What decides the results: a study is only continued with the same. Shards are compared by each run."""
    plain = to_plain(config)
    outcome = {key: value for key, value in plain.items() if key not in OF_THE_RUN}
    outcome["study"] = {key: value for key, value in plain["study"].items() if key not in HOW}
    for phase in outcome["phases"].values():
        del phase["shards"]
    return outcome


def result_file(root: Path, cell: Cell) -> Path:
    return root / RESULTS / f"{cell.name}.json"


def read_result(file: Path) -> dict[str, Any] | None:
    """A cell's result; None where there is none yet. Raises UserError for a damaged one."""
    if not file.is_file():
        return None
    expected, fix = "the result of a run", "delete that file and the run's folder in cells/, and it is done again"
    result = read_object(file, expected=expected, fix=fix)
    if missing := sorted(FIELDS - result.keys()):
        raise UserError(found=f"{file} without {', '.join(missing)}", expected=expected, fix=fix)
    return result
