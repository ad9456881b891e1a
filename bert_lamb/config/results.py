"""`export`, `push`, `batch` and `report`: what is made of a run."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, IfExists, check_if_counts_from_zero, check_if_positive


@dataclass
class ExportConfig:
    """`bert-lamb export`: a checkpoint -> a folder that transformers loads."""

    run_dir: str = MISSING
    checkpoint: str = "latest"  # latest, or the name of a folder under run_dir/checkpoints
    output_dir: str = MISSING
    onnx: bool = False  # model.onnx beside the weights, for runtimes without PyTorch; the extra bert-lamb[onnx]
    if_exists: IfExists = IfExists.refuse


@dataclass
class PushConfig:
    """`bert-lamb push`: a model folder -> a repository of the Hugging Face hub."""

    model_dir: str = MISSING  # an export, an imported model, or model/ of a fine-tuning
    repo: str = MISSING  # NAME/MODEL
    private: bool = True  # of a repository that is made now; one that is there stays as it is
    message: str | None = None  # of the commit
    endpoint: str | None = None  # another hub; None: HF_ENDPOINT, or huggingface.co
    dry_run: bool = False  # check the folder, say what would be sent, send nothing


@dataclass
class BatchConfig:
    """`bert-lamb batch`: what a pretraining run trains on in a step, as text; or the order of an epoch, as a file."""

    run_dir: str = MISSING
    phase: str | None = None  # None: the first
    step: int = 1  # optimizer steps of the phase; it may be to come
    first: int = 0  # row of the global batch, the first one shown
    count: int = 3  # rows shown, at most
    pieces: bool = False  # every piece with its id, instead of words
    shards: str | None = None  # where the shards lie now; None: where they lay
    epoch: int | None = None  # 0 for the first: its order of all instances goes to `output` instead
    output: str | None = None  # a .npy file of int64


def check_batch(config: BatchConfig) -> Complaints:
    complaints = Complaints()
    check_if_counts_from_zero(complaints, "", config, "first")
    check_if_positive(complaints, "", config, "step", "count")
    complaints.unless(config.epoch is None or config.epoch >= 0, "epoch", config.epoch, "0 or more")
    is_whole = (config.epoch is None) == (config.output is None)
    complaints.unless(is_whole, "output", config.output, "a file with epoch, and none without it")
    return complaints


@dataclass
class ReportConfig:
    """`bert-lamb report`: report.json and report.html of a run."""

    run_dir: str = MISSING
    scores: dict[str, str] = field(default_factory=dict)  # label -> folder of a `squad` run
    compare: list[str] = field(default_factory=list)  # run_dir of other runs, drawn over this one
