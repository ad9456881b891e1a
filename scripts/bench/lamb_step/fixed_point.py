"""Hyperparameters of all candidates, and the state that every compared step starts from."""

import torch
from torch import Tensor

BETAS, EPS, WEIGHT_DECAY = (0.9, 0.999), 1e-6, 0.01
LR = 1e-3  # while timed: weights stay small over thousands of steps
LR_COMPARED = 0.1  # of the step that is compared: long, so that rounding of w is a small part of it
STEPS_BEFORE = 9  # counted before the step that is compared, so that bias corrections matter


def fill(number: int, w: Tensor, g: Tensor, m: Tensor, v: Tensor) -> None:
    """Fill the tensors of one parameter. number: its place in the model, by which its values are random."""
    random = torch.Generator(w.device).manual_seed(number)
    w.normal_(0, 0.02, generator=random)
    g.normal_(0, 1e-3, generator=random)
    m.normal_(0, 1e-3, generator=random)
    v.uniform_(1e-7, 1e-6, generator=random)
