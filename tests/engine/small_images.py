"""Another training small enough to be repeated: a ResNet of odd sizes, with weights of 4 dimensions and BatchNorm."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bert_lamb.vision.networks import build_network, logits_of
from bert_lamb.vision.settings import ImageModelSettings
from tests.engine.small_training import GLOBAL_BATCH

NUM_CLASSES, IMAGE_SIZE = 7, 9
GHOST_BATCH = 6  # a micro-batch of two ranks with two micro-steps


def make_model() -> nn.Module:
    settings = ImageModelSettings("resnet", 5, [6, 10], [1, 2], "basic")
    sizes = {"num_channels": 3, "image_size": IMAGE_SIZE, "num_classes": NUM_CLASSES}
    model = build_network(settings, **sizes, ghost_batch_size=GHOST_BATCH, seed=3).train()
    with torch.no_grad():  # scales as different as in a trained network, so that a wrong trust ratio shows
        for index, weight in enumerate(one for one in model.parameters() if one.ndim > 1):
            weight.mul_((0.3, 1.0, 3.0)[index % 3])
    return model


def share_of_loss(model: nn.Module, step: int, begin: int, num_images: int) -> Tensor:
    """The loss of images begin and following of a step's batch, divided by the number of all."""
    random = torch.Generator().manual_seed(step)
    images = torch.randn(GLOBAL_BATCH, 3, IMAGE_SIZE, IMAGE_SIZE, generator=random)
    labels = torch.randint(0, NUM_CLASSES, (GLOBAL_BATCH,), generator=random)
    members = slice(begin, begin + num_images)
    logits = logits_of(model, images[members], keeps_statistics=begin == 0)
    return functional.cross_entropy(logits, labels[members], reduction="sum") / GLOBAL_BATCH
