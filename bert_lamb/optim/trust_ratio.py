"""The trust ratio: how long a parameter's step is, from the norms of its weights and of its direction."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Norm = Literal["l2", "l1", "linf"]
NORMS: tuple[str, ...] = get_args(Norm)
Bounds = tuple[float, float]


@dataclass(frozen=True)
class TrustRatio:
    """phi(||w||) / ||u||, clipped to `ratio_bounds`; 1 where phi(||w||) or ||u|| is 0.

    norm: which norm is taken of both (the paper's ablation, appendix F of arXiv 1904.00962v5; l2 everywhere else).
    param_norm_bounds: phi clips to them; None: phi is the identity. ratio_bounds: None: not clipped.

    Norms are assembled from partial ones, which add up over segments and ranks: sums of squares for l2, sums of
    absolute values for l1, maxima of absolute values for linf.
    Source: You et al. 2020, Algorithm 2; the guard at 0 is the authors' code.
    """

    norm: Norm = "l2"
    param_norm_bounds: Bounds | None = None
    ratio_bounds: Bounds | None = None

    @property
    def reduce_operation(self) -> str:
        """How partial norms of several ranks become one: "sum" or "max"."""
        return "max" if self.norm == "linf" else "sum"

    def __call__(self, partial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[2, n] global partial norms of w and u -> (param_norm, update_norm, trust_ratio), each [n]."""
        param_norm, update_norm = partial.sqrt() if self.norm == "l2" else partial
        phi = param_norm if self.param_norm_bounds is None else param_norm.clamp(*self.param_norm_bounds)
        ratio = phi / update_norm
        if self.ratio_bounds is not None:
            ratio = ratio.clamp(*self.ratio_bounds)
        is_defined = (phi > 0) & (update_norm > 0)
        return param_norm, update_norm, torch.where(is_defined, ratio, torch.ones_like(ratio))
