"""The networks: LeNet-5 in plain torch, ResNet from transformers' modules with BatchNorm over ghost batches.

Letters: B images, C channels, S pixels of a side, K classes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig, ResNetForImageClassification

from bert_lamb.vision.settings import ImageModelSettings

BACKWARD_AND_FORWARD = 3  # in units of the forward pass: a product in each, and one more in the backward pass


class LeNet(nn.Module):
    """LeNet-5, [B, C, S, S] -> [B, K] logits; 61,706 parameters for 28 pixels, one channel and ten classes.

    Source: LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", figure 2:
    6 and 16 maps of 5 x 5, then 120, 84 and K units. ReLU and maximum pooling are today's; C3 sees all maps of S2, and
    the first convolution is padded by 2, as their images of 28 pixels were.
    """

    def __init__(self, *, num_channels: int, image_size: int, num_classes: int) -> None:
        super().__init__()
        side = (image_size // 2 - 4) // 2
        self.c1 = nn.Conv2d(num_channels, 6, 5, padding=2)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.c5 = nn.Linear(16 * side**2, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.max_pool2d(self.c1(images).relu(), 2)
        hidden = functional.max_pool2d(self.c3(hidden).relu(), 2)
        hidden = self.f6(self.c5(hidden.flatten(1)).relu()).relu()
        logits: Tensor = self.output(hidden)
        return logits


class GhostBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose statistics are those of ghost batches, so that they do not depend on how a batch is cut.

    In training each `ghost_batch_size` images that follow one another are normalized by their own mean and variance.
    The running statistics, always fp32, take those of the first of them where `keeps_statistics` says so.
    Source: Hoffer, Hubara, Soudry 2017, "Train longer, generalize better", Algorithm 1.
    """

    def __init__(self, num_channels: int, ghost_batch_size: int) -> None:
        super().__init__(num_channels)
        self.ghost_batch_size, self.keeps_statistics = ghost_batch_size, False

    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.weight.float(), self.bias.float()
        mean, var = self.running_mean, self.running_var
        if not self.training:
            return functional.batch_norm(images, mean, var, weight, bias, False, 0.0, self.eps)
        parts = []
        for index, ghost_batch in enumerate(images.split(self.ghost_batch_size)):
            running = (mean, var) if self.keeps_statistics and index == 0 else (None, None)
            parts.append(
                functional.batch_norm(ghost_batch, *running, weight, bias, True, self.momentum or 0.0, self.eps)
            )
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GhostBatchNorm":
        """Moved and cast like every module, but for the running statistics' precision: bf16 would lose their steps."""
        super()._apply(fn, recurse)
        for name in ("running_mean", "running_var"):
            setattr(self, name, getattr(self, name).float())
        return self


def build_network(
    settings: ImageModelSettings,
    *,
    num_channels: int,
    image_size: int,
    num_classes: int,
    ghost_batch_size: int,
    seed: int,
) -> nn.Module:
    """A network with fp32 weights drawn from `seed`, on the CPU; call it through `logits_of`."""
    torch.manual_seed(seed)
    if settings.name == "lenet":
        return LeNet(num_channels=num_channels, image_size=image_size, num_classes=num_classes)
    sizes: dict[str, Any] = {"num_labels": num_classes}  # of transformers' base class, which takes any word
    config = ResNetConfig(
        num_channels=num_channels,
        embedding_size=settings.embedding_size,
        hidden_sizes=settings.hidden_sizes,
        depths=settings.depths,
        layer_type=settings.layer_type,
        **sizes,
    )
    network = ResNetForImageClassification(config)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            holder, _, own_name = name.rpartition(".")
            setattr(network.get_submodule(holder), own_name, GhostBatchNorm(module.num_features, ghost_batch_size))
    return network


def logits_of(network: Any, images: Tensor, *, keeps_statistics: bool = False) -> Tensor:
    """[B, C, S, S] in the weights' precision or fp32 -> [B, K] logits, fp32.

    network: of `build_network`, or an engine's around it. keeps_statistics: BatchNorm notes those of the first ghost
    batch, in training.
    """
    for module in network.modules():
        if isinstance(module, GhostBatchNorm):
            module.keeps_statistics = keeps_statistics
    answer = network(images.to(next(network.parameters()).dtype))
    logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
    return logits.float()


def flops_per_image(build: Callable[[], nn.Module], *, num_channels: int, image_size: int) -> int:
    """Operations of convolutions and products, forward and backward, of one image; counted without memory for it."""
    with torch.device("meta"):
        network = build().eval()
        image = torch.empty(1, num_channels, image_size, image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return BACKWARD_AND_FORWARD * int(counter.get_total_flops())
