"""LAMB (You et al. 2020, Algorithm 2) as a drop-in torch.optim.Optimizer. Formulas and sources: README.md."""

from collections.abc import Iterable
from typing import Any, Literal, get_args

from torch import Tensor

from bert_lamb.optim import foreach, fused, reference
from bert_lamb.optim.eager import MATH, EagerPasses
from bert_lamb.optim.layerwise import LayerwiseOptimizer, require
from bert_lamb.optim.passes import Implementation, Passes, Work
from bert_lamb.optim.trust_ratio import Bounds, Norm

Nesterov = Literal["none", "first", "both"]
NESTEROV: tuple[str, ...] = get_args(Nesterov)
DIRECTIONS = {"reference": reference.lamb_directions, "foreach": foreach.lamb_directions}


class Lamb(LayerwiseOptimizer):
    """Layer-wise adaptive moments, exact also where parameters are flattened and partitioned.

    params: tensors, named tensors, or groups of either; a group may set lr, betas, eps, weight_decay, bias_correction,
    nesterov and adapt (False: no trust ratio, for biases and LayerNorm; see `parameter_groups`). Tensors of bf16 or
    fp16 get fp32 masters. DTensors (FSDP2) are taken as they are; flat partitions (DeepSpeed ZeRO) must be bound.
    lr: learning rate eta; a 0-d tensor on the parameters' device where a captured graph must see it change.
    betas: decay of the moments. eps: added outside the root. weight_decay: lambda, joins the direction before its norm.
    bias_correction: on the moments (paper v5) or off (v3, Google's code).
    nesterov: "first": N-LAMB, "both": NN-LAMB (appendix C of the paper); they need bias_correction.
    norm: "l2", "l1" or "linf", of weights and directions. param_norm_bounds: phi clips the weights' norm to them.
    trust_ratio_bounds: the ratio is clipped to them.
    max_grad_norm: gradients are multiplied by max_grad_norm / (norm + 1e-6) where their global norm is larger.
    skip_nonfinite: a step with a gradient that is not finite changes nothing but `num_skipped_steps`.
    implementation: "reference", "foreach", "fused" (Triton, on a GPU), or "auto": fused where it can be, else foreach.
    awaits_binding: True when an engine will swap the parameters and call `bind`; until then `step` does nothing on
    zero gradients (DeepSpeed makes such a call while it initializes) and refuses others.

    State per tensor: step (0-d float32), exp_avg and exp_avg_sq (like the tensor, fp32 at least), and master (fp32) for
    tensors of low precision. `last_norms` and `num_skipped_steps` say what the steps did.
    Raises ValueError for values out of range, RuntimeError for tensors that it was neither built with nor bound to.
    """

    MOMENTS = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        bias_correction: bool = True,
        adapt: bool = True,
        nesterov: Nesterov = "none",
        norm: Norm = "l2",
        param_norm_bounds: Bounds | None = None,
        trust_ratio_bounds: Bounds | None = None,
        max_grad_norm: float | None = None,
        skip_nonfinite: bool = True,
        implementation: Implementation = "auto",
        awaits_binding: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "nesterov": nesterov,
            "adapt": adapt,
        }
        super().__init__(
            params,
            defaults,
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
        nesterov = group["nesterov"]
        require("betas", group["betas"], all(0 <= beta < 1 for beta in group["betas"]), "two numbers in [0, 1)")
        require("eps", group["eps"], group["eps"] >= 0, "0 or more")
        require("nesterov", nesterov, nesterov in NESTEROV, f"one of {', '.join(NESTEROV)}")
        require("nesterov", nesterov, nesterov == "none" or group["bias_correction"], "none without bias_correction")

    def _eager_passes(self, implementation: str, work: Work) -> Passes:
        group = work.group
        beta1, beta2 = group["betas"]

        def directions(grads: list[Tensor], steps: list[int]) -> list[Tensor]:
            return DIRECTIONS[implementation](
                work.params,
                grads,
                work.moments["exp_avg"],
                work.moments["exp_avg_sq"],
                steps,
                beta1=beta1,
                beta2=beta2,
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                bias_correction=group["bias_correction"],
                nesterov=group["nesterov"],
            )

        return EagerPasses(work, MATH[implementation], directions, self.trust_ratio)

    def _fused_passes(self, work: Work) -> Passes:
        return fused.LambPasses(work, self.fused_memory, self.trust_ratio, self.tiling)
