"""LARS (You et al. 2020, Algorithm 1), the paper's baseline, as a drop-in torch.optim.Optimizer."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from bert_lamb.optim import foreach, fused, reference
from bert_lamb.optim.eager import MATH, EagerPasses
from bert_lamb.optim.layerwise import LayerwiseOptimizer, require
from bert_lamb.optim.passes import Implementation, Passes, Work
from bert_lamb.optim.trust_ratio import Bounds, Norm

DIRECTIONS = {"reference": reference.lars_directions, "foreach": foreach.lars_directions}


class Lars(LayerwiseOptimizer):
    """Momentum with a trust ratio, as the LAMB paper defines its baseline (Algorithm 1).

    m = beta m + (1 - beta) (g + weight_decay w), then w -= lr phi(||w||) / ||m|| m. (You et al. 2017, where LARS comes
    from, divides by ||g|| + weight_decay ||w|| before the momentum and has a coefficient of its own; that is another
    optimizer.)

    beta: decay of the momentum. Everything else is as in `Lamb`; a group may set lr, beta, weight_decay and adapt.
    State per tensor: step (0-d float32), exp_avg (like the tensor, fp32 at least), master for low precision.
    Raises ValueError for values out of range, RuntimeError for tensors that it was neither built with nor bound to.
    """

    MOMENTS = ("exp_avg",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        beta: float = 0.9,
        weight_decay: float = 0.01,
        *,
        adapt: bool = True,
        norm: Norm = "l2",
        param_norm_bounds: Bounds | None = None,
        trust_ratio_bounds: Bounds | None = None,
        max_grad_norm: float | None = None,
        skip_nonfinite: bool = True,
        implementation: Implementation = "auto",
        awaits_binding: bool = False,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "beta": beta, "weight_decay": weight_decay, "adapt": adapt},
            norm=norm,
            param_norm_bounds=param_norm_bounds,
            trust_ratio_bounds=trust_ratio_bounds,
            max_grad_norm=max_grad_norm,
            skip_nonfinite=skip_nonfinite,
            implementation=implementation,
            awaits_binding=awaits_binding,
        )

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        require("beta", group["beta"], 0 <= group["beta"] < 1, "a number in [0, 1)")

    def _eager_passes(self, implementation: str, work: Work) -> Passes:
        group = work.group

        def directions(grads: list[Tensor], steps: list[int]) -> list[Tensor]:
            return DIRECTIONS[implementation](
                work.params, grads, work.moments["exp_avg"], beta=group["beta"], weight_decay=group["weight_decay"]
            )

        return EagerPasses(work, MATH[implementation], directions, self.trust_ratio)

    def _fused_passes(self, work: Work) -> Passes:
        return fused.LarsPasses(work, self.fused_memory, self.trust_ratio, self.tiling)
