"""`export` and `report`: what is made of a run."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from bert_lamb.config.checks import IfExists


@dataclass
class ExportConfig:
    """`bert-lamb export`: a checkpoint -> a folder that transformers loads."""

    run_dir: str = MISSING
    checkpoint: str = "latest"  # latest, or the name of a folder under run_dir/checkpoints
    output_dir: str = MISSING
    if_exists: IfExists = IfExists.refuse


@dataclass
class ReportConfig:
    """`bert-lamb report`: report.json and report.html of a run."""

    run_dir: str = MISSING
    scores: dict[str, str] = field(default_factory=dict)  # label -> folder of a `squad` run
