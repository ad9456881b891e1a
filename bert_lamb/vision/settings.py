"""The settings of training on images, as plain values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.optim.build import OptimizerSettings
from bert_lamb.train.settings import CheckpointSettings, GuardSettings, LoggingSettings, TrackerSettings

STAGE = "vision"
# What decides no figure; of `data` the content does.
NOT_OF_OUTCOME = frozenset({"run_dir", "runtime", "checkpoint", "guards", "logging", "tracker", "if_exists", "data"})
NOT_OF_OUTCOME |= {"evaluation_interval_steps"}


@dataclass(frozen=True)
class ImageModelSettings:
    """A network; the fields after `name` are of a ResNet, as transformers calls them."""

    name: Literal["lenet", "resnet"]
    embedding_size: int
    hidden_sizes: list[int]
    depths: list[int]
    layer_type: Literal["basic", "bottleneck"]

    @property
    def has_batch_norm(self) -> bool:
        return self.name == "resnet"


@dataclass(frozen=True)
class PixelSettings:
    """How an image becomes what the network sees; see config/vision.py for each."""

    image_size: int
    augmentation: Literal["none", "crop_flip"]
    pixel_mean: list[float]
    pixel_std: list[float]


@dataclass(frozen=True)
class Settings:
    """A configuration of `bert-lamb vision`. plain: the whole of it as a plain tree."""

    run_dir: Path
    if_exists: str
    data: Path
    image_model: ImageModelSettings
    pixels: PixelSettings
    label_smoothing: float
    ghost_batch_size: int
    global_batch_size: int
    num_epochs: float
    peak_lr: float
    warmup_proportion: float
    decay_power: float
    evaluation_interval_steps: int
    max_grad_norm: float
    seed: int
    optimizer: OptimizerSettings
    runtime: RuntimeSettings
    checkpoint: CheckpointSettings
    guards: GuardSettings
    logging: LoggingSettings
    tracker: TrackerSettings
    plain: dict[str, Any]

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """From a resolved configuration."""
        groups: dict[str, Any] = {
            "run_dir": Path(plain["run_dir"]),
            "data": Path(plain["data"]),
            "image_model": ImageModelSettings(**plain["image_model"]),
            "pixels": PixelSettings(**{name: plain[name] for name in PixelSettings.__dataclass_fields__}),
            "optimizer": OptimizerSettings(**plain["optimizer"]),
            "runtime": RuntimeSettings(**plain["runtime"]),
            "checkpoint": CheckpointSettings(**plain["checkpoint"]),
            "guards": GuardSettings(**plain["guards"]),
            "logging": LoggingSettings(**plain["logging"]),
            "tracker": TrackerSettings(**plain["tracker"]),
            "plain": plain,
        }
        return cls(**groups, **{name: plain[name] for name in cls.__dataclass_fields__.keys() - groups.keys()})

    @property
    def images_together(self) -> int:
        """Images that a micro-batch has a multiple of: a ghost batch, where there is BatchNorm."""
        return self.ghost_batch_size if self.image_model.has_batch_norm else 1

    def outcome(self) -> dict[str, Any]:
        """What decides the score, beside the images; a run is only resumed with the same."""
        kept = {key: value for key, value in self.plain.items() if key not in NOT_OF_OUTCOME}
        kept["optimizer"] = {key: value for key, value in self.plain["optimizer"].items() if key != "implementation"}
        return kept
