"""`vision`: a network that classifies images, the second task of the LAMB paper."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from bert_lamb.config.checks import Complaints, check_if_counts_from_zero, check_if_positive, check_if_share
from bert_lamb.config.run import RunConfig, check_run
from bert_lamb.config.runtime import AUTO, check_micro_batches

STAGE = "vision"  # of runtime.micro_batch_size
MIN_LENET_PIXELS = 12  # two convolutions of 5 x 5 and two poolings leave one


class Network(Enum):
    lenet = "lenet"
    resnet = "resnet"


class LayerType(Enum):
    basic = "basic"  # two convolutions of 3 x 3
    bottleneck = "bottleneck"  # 1 x 1, 3 x 3, 1 x 1


class Augmentation(Enum):
    none = "none"
    crop_flip = "crop_flip"  # a random part of the image, resized; the mirror image of every second


@dataclass
class ImageModelConfig:
    """A network; the fields after `name` are of a ResNet, as transformers calls them."""

    name: Network = MISSING
    embedding_size: int = 64  # channels after the first convolution
    hidden_sizes: list[int] = field(default_factory=list)  # channels, by stage
    depths: list[int] = field(default_factory=list)  # blocks, by stage
    layer_type: LayerType = LayerType.bottleneck


@dataclass
class VisionConfig(RunConfig):
    """`bert-lamb vision`: train a network on images and score it on the test images."""

    data: str = MISSING  # an .npz, a folder train/CLASS/IMAGE and test/CLASS/IMAGE, or one with train*.parquet
    image_model: ImageModelConfig = field(default_factory=ImageModelConfig)
    image_size: int = MISSING  # pixels of height and of width that the network sees
    augmentation: Augmentation = Augmentation.none  # of training images
    pixel_mean: list[float] = field(default_factory=lambda: [0.5])  # in 0..1; one, or one for each channel
    pixel_std: list[float] = field(default_factory=lambda: [0.5])
    label_smoothing: float = 0.0  # share of the probability that is spread over all classes, in training
    ghost_batch_size: int = 32  # images whose statistics BatchNorm takes together, however the batch is cut
    global_batch_size: int = MISSING  # images per optimizer step, over all ranks
    num_epochs: float = MISSING
    peak_lr: float = MISSING
    warmup_proportion: float = 0.0  # of the steps
    decay_power: float = 1.0
    evaluation_interval_steps: int = 0  # steps between scores on the test images; 0: at the end only


def check_vision(config: VisionConfig) -> Complaints:
    complaints = Complaints()
    positive = ("image_size", "ghost_batch_size", "global_batch_size", "num_epochs", "peak_lr", "decay_power")
    check_if_positive(complaints, "", config, *positive)
    check_if_counts_from_zero(complaints, "", config, "evaluation_interval_steps")
    check_if_share(complaints, "", config, "warmup_proportion")
    smoothing = config.label_smoothing
    complaints.unless(0 <= smoothing < 1, "label_smoothing", smoothing, "a share in [0, 1)")
    for name, is_right, expected in (
        ("pixel_mean", all(0 <= one <= 1 for one in config.pixel_mean), "shares of the brightest pixel, in 0..1"),
        ("pixel_std", all(one > 0 for one in config.pixel_std), "numbers above 0"),
    ):
        value = getattr(config, name)
        complaints.unless(is_right and len(value) in (1, 3), name, value, f"{expected}: one, or three for RGB")
    complaints.extend(check_image_model(config))
    complaints.extend(check_micro_batches(config.runtime, {STAGE: 1}))
    for name, off in (("compile", False), ("activation_checkpointing", False)):
        value = getattr(config.runtime, name)
        complaints.unless(value == off, f"runtime.{name}", value, "false: `vision` has no use for it")
    complaints.unless(
        config.runtime.micro_batch_size != AUTO, "runtime.micro_batch_size", AUTO, f"images as {{{STAGE}: 64}}"
    )
    complaints.extend(check_run(config))
    return complaints


def check_image_model(config: VisionConfig) -> Complaints:
    complaints, model = Complaints(), config.image_model
    if model.name is Network.lenet:
        complaints.unless(
            config.image_size >= MIN_LENET_PIXELS,
            "image_size",
            config.image_size,
            f"{MIN_LENET_PIXELS} pixels or more for a LeNet",
        )
        return complaints
    sizes = {"hidden_sizes": model.hidden_sizes, "depths": model.depths}
    for name, value in sizes.items():
        is_right = len(value) > 0 and all(one > 0 for one in value)
        complaints.unless(is_right, f"image_model.{name}", value, "numbers above 0, one a stage")
    complaints.unless(
        len(model.hidden_sizes) == len(model.depths),
        "image_model.depths",
        model.depths,
        "as many as image_model.hidden_sizes",
    )
    check_if_positive(complaints, "image_model.", model, "embedding_size")
    complaints.unless(
        model.layer_type is LayerType.basic or all(size % 4 == 0 for size in model.hidden_sizes),
        "image_model.hidden_sizes",
        model.hidden_sizes,
        "multiples of 4 with layer_type=bottleneck",
    )
    complaints.unless(
        config.global_batch_size % max(config.ghost_batch_size, 1) == 0,
        "ghost_batch_size",
        config.ghost_batch_size,
        f"a divisor of global_batch_size, {config.global_batch_size}",
    )
    return complaints
