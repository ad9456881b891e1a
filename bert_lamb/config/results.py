"""`export`, `push` and `report`: what is made of a run."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from bert_lamb.config.checks import IfExists


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
class ReportConfig:
    """`bert-lamb report`: report.json and report.html of a run."""

    run_dir: str = MISSING
    scores: dict[str, str] = field(default_factory=dict)  # label -> folder of a `squad` run
