"""Dropout on a CPU: PyTorch draws each Bernoulli number by itself there, which takes a tenth of a training step."""

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 1 << 16  # a draw is one of these; the share of zeros is the nearest multiple of 1 / LEVELS


def keep_mask(like: Tensor, p: float) -> Tensor:
    """Independent numbers in the shape and dtype of `like`, on the CPU: 0 with probability p, else 1 / (1 - p).

    p is rounded to a multiple of 2^-16, in the scale as in the draws, so that the mean is 1. The draws are numpy's
    SFC64, four to a word, whose seed comes from PyTorch's generator: they are a function of torch.manual_seed, and
    checkpointed activations see the same again.
    """
    mask: Tensor = _keep_mask(like.detach(), p)
    return mask


@torch.library.custom_op("bert_lamb::keep_mask", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def _keep_mask(like: Tensor, p: float) -> Tensor:
    """An operator of its own, so that torch.compile leaves it as it is."""
    num_dropped = round(p * LEVELS)
    seed = int(torch.randint(1 << 62, ()))
    words = np.random.SFC64(seed).random_raw(-(-like.numel() // 4))
    draws = torch.from_numpy(words.view(np.int16))[: like.numel()].view(like.shape)
    return (draws >= num_dropped - LEVELS // 2).to(like.dtype).mul_(LEVELS / (LEVELS - num_dropped))


@_keep_mask.register_fake
def _(like: Tensor, p: float) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


class Dropout(nn.Dropout):
    """torch's dropout, with `keep_mask` on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        return input * keep_mask(input, self.p)


def replace_dropout(module: nn.Module) -> None:
    """Every dropout below `module` becomes a `Dropout`; it has no parameters, so no name changes."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
