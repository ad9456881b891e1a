"""Other runs beside the one of the report: read, named by what differs, and their results side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_lamb.errors import UserError
from bert_lamb.outputs.run_dir import CONFIG_FILE, METRICS_FILE
from bert_lamb.report.configuration import Config, differences, labels_of, planned_steps, read_config
from bert_lamb.report.headline import status_of
from bert_lamb.report.metrics import Record, Run, read_metrics
from bert_lamb.report.summary import SCORES_FILE, read_scores, summarise

ROWS = (  # of the table of results: title, field, digits after the point; without what no run measured
    ("sequences", "num_sequences", 0),
    ("final loss", "final_loss", 3),
    ("held-out loss", "mlm_loss", 3),
    ("held-out accuracy", "mlm_accuracy", 3),
    ("exact match", "exact_match", 2),
    ("F1", "f1", 2),
    ("accuracy on test images", "image_accuracy", 3),
    ("skipped steps", "num_skipped_steps", 0),
)


@dataclass(frozen=True)
class Comparison:
    """labels: of all runs, this one first. different: dotted key -> its value in each run. runs: numbers of each."""

    labels: list[str]
    others: dict[str, Run]  # without this one, by label
    different: dict[str, list[str]]
    runs: list[Record]

    def as_plain(self) -> dict[str, Any] | None:
        """For report.json; None without other runs."""
        if not self.others:
            return None
        return {"runs": self.runs, "differences": self.different}


def compare_with(folders: Sequence[Path], *, run_dir: Path, run: Run, config: Config) -> Comparison:
    """Raises UserError for a folder that is no run, or that is given twice."""
    places = [path.resolve() for path in (run_dir, *folders)]
    for i, (path, place) in enumerate(zip(folders, places[1:], strict=True), 1):
        if place in places[:i]:
            raise UserError(
                found=f"{path} twice among the runs", expected="each run once", fix="leave it out of compare"
            )
        if not path.is_dir():
            raise UserError(found=f"no folder {path}", expected="the folder of a run", fix="set compare")
    names = [place.name for place in places]
    if len(set(names)) < len(names):
        names = [str(path) for path in (run_dir, *folders)]
    runs, configs = {names[0]: run}, {names[0]: config}
    for name, path in zip(names[1:], folders, strict=True):
        runs[name] = read_metrics(path / METRICS_FILE, option="compare")
        fix = "set compare, or restore the file as the run wrote it"
        configs[name] = read_config(path / CONFIG_FILE, expected="what a run wrote there", fix=fix)[1]
    different = differences(configs)
    labels = labels_of(names, different)
    known = zip(labels, (run_dir, *folders), runs.values(), configs.values(), strict=True)
    rows = [result_of(label, path, one, settings) for label, path, one, settings in known]
    return Comparison(labels, dict(zip(labels[1:], list(runs.values())[1:], strict=True)), different, rows)


def result_of(label: str, folder: Path, run: Run, config: Config) -> Record:
    """The numbers by which runs are compared; None for what a run did not measure."""
    numbers = summarise(run, [])
    last: Mapping[str, Any] = numbers["heldout"][-1] if numbers["heldout"] else {}
    scores = read_scores(label, folder, option="compare") if (folder / SCORES_FILE).is_file() else {}
    images = run.phases[-1].image_scores
    return {
        "label": label,
        "folder": folder.resolve().name,
        "status": status_of(run, planned_steps(config)),
        "num_sequences": numbers["num_sequences"],
        "final_loss": numbers["phases"][-1]["final_loss"],
        "mlm_loss": last.get("mlm_loss"),
        "mlm_accuracy": last.get("mlm_accuracy"),
        "exact_match": scores.get("exact_match"),
        "f1": scores.get("f1"),
        "image_accuracy": images[-1]["accuracy"] if images else None,
        "num_skipped_steps": numbers["num_skipped_steps"],
        "train_seconds": numbers["train_seconds"],
    }
