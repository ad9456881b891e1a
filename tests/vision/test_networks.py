"""The networks: published sizes, BatchNorm over ghost batches, which parameters LAMB adapts.

Truth: the published count of ResNet-50's parameters, transformers' own network, torch's BatchNorm on each ghost batch.
"""

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from bert_lamb.optim import parameter_groups
from bert_lamb.vision.networks import GhostBatchNorm, LeNet, build_network, flops_per_image, logits_of
from bert_lamb.vision.settings import ImageModelSettings

RESNET_50 = ImageModelSettings("resnet", 64, [256, 512, 1024, 2048], [3, 4, 6, 3], "bottleneck")
TINY = ImageModelSettings("resnet", 8, [8, 16], [1, 1], "basic")
SIZES = {"num_channels": 3, "image_size": 224, "num_classes": 1000}


def make(settings, ghost_batch_size=4, **sizes):
    return build_network(settings, **{**SIZES, **sizes}, ghost_batch_size=ghost_batch_size, seed=1)


def test_resnet_50_has_the_published_number_of_parameters_and_transformers_shapes():
    """25,557,032: He et al.'s network as torchvision, timm and the MLPerf reference count it."""
    with torch.device("meta"):
        ours, theirs = make(RESNET_50), ResNetForImageClassification(ResNetConfig(num_labels=1000))
    assert sum(parameter.numel() for parameter in ours.parameters()) == 25_557_032
    assert {name: one.shape for name, one in ours.state_dict().items()} == {
        name: one.shape for name, one in theirs.state_dict().items()
    }
    assert sum(isinstance(module, GhostBatchNorm) for module in ours.modules()) == 53


def test_lamb_adapts_4_dimensional_weights_and_the_classifier_and_no_batch_norm():
    with torch.device("meta"):
        adapted, exempt = parameter_groups(make(RESNET_50), weight_decay=1.5)
    assert sorted({parameter.ndim for _, parameter in adapted["params"]}) == [2, 4]
    assert len(adapted["params"]) == 54
    assert all("normalization" in name or name == "classifier.1.bias" for name, _ in exempt["params"])
    assert (adapted["weight_decay"], exempt["weight_decay"], exempt["adapt"]) == (1.5, 0.0, False)


def test_lenet_is_lecuns():
    """61,706 parameters and 416,520 products in an image of 28 pixels: LeCun et al.'s sizes, by hand."""
    network = LeNet(num_channels=1, image_size=28, num_classes=10)
    by_hand = (25 + 1) * 6 + (6 * 25 + 1) * 16 + (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert sum(parameter.numel() for parameter in network.parameters()) == by_hand == 61_706
    products = 28 * 28 * 25 * 6 + 10 * 10 * 6 * 25 * 16 + 400 * 120 + 120 * 84 + 84 * 10
    build = lambda: LeNet(num_channels=1, image_size=28, num_classes=10)  # noqa: E731
    assert flops_per_image(build, num_channels=1, image_size=28) == 3 * 2 * products
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_each_ghost_batch_is_normalized_by_itself_and_the_first_one_is_remembered():
    images = torch.randn(8, 3, 5, 5) * torch.arange(1.0, 9).view(8, 1, 1, 1)
    ghost, truth = GhostBatchNorm(3, 4), nn.BatchNorm2d(3)
    nn.init.normal_(ghost.weight)
    truth.load_state_dict(ghost.state_dict())
    ghost.keeps_statistics = True
    torch.testing.assert_close(ghost(images)[:4], truth(images[:4]))
    torch.testing.assert_close(ghost.running_mean, truth.running_mean)
    torch.testing.assert_close(ghost.running_var, truth.running_var)
    kept = {name: value.clone() for name, value in ghost.state_dict().items()}
    ghost.keeps_statistics = False
    torch.testing.assert_close(ghost(images)[4:], truth(images[4:]))
    assert all(torch.equal(value, kept[name]) for name, value in ghost.state_dict().items())
    ghost.eval()
    truth.load_state_dict(ghost.state_dict())
    torch.testing.assert_close(ghost(images), truth.eval()(images))


def test_running_statistics_stay_fp32():
    """In bf16 a step of a tenth of a small difference is lost."""
    network = make(TINY, image_size=8).bfloat16()
    logits = logits_of(network.train(), torch.randn(8, 3, 8, 8), keeps_statistics=True)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert next(network.parameters()).dtype == torch.bfloat16
    buffers = {name: buffer for name, buffer in network.named_buffers() if buffer.is_floating_point()}
    assert {buffer.dtype for buffer in buffers.values()} == {torch.float32}


@pytest.mark.parametrize("settings", [TINY, ImageModelSettings("lenet", 0, [], [], "basic")])
def test_a_network_is_drawn_from_its_seed(settings):
    first, second = (make(settings, image_size=12).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
