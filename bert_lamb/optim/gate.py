"""Before a step: is the gradient finite, and by what is it multiplied (clipping, loss scale)? Stays on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bert_lamb.optim.passes import Gate, Passes, Work


class Gatekeeper:
    """Makes the gate of each step, and counts on the device how often it stayed shut."""

    def __init__(self) -> None:
        self.num_skipped: Tensor | None = None  # 0-d int64, once there was something to count

    def gate(
        self,
        todo: Sequence[tuple[Work, Passes]],
        *,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        max_grad_norm: float | None,
        skip_nonfinite: bool,
    ) -> Gate:
        """The gate of one step. grad_scale, found_inf: what torch.amp.GradScaler has set for this call, or None."""
        is_skipped = None if found_inf is None else found_inf.squeeze() > 0
        multiplier = None if grad_scale is None else grad_scale.squeeze().double().reciprocal()
        if todo and (max_grad_norm is not None or (skip_nonfinite and is_skipped is None)):
            device = todo[0][0].params[0].device
            squares = [work.layout.reduce(passes.grad_squares()[None], "sum").sum().to(device) for work, passes in todo]
            norm = torch.stack(squares).sum().sqrt()
            if multiplier is not None:
                norm = norm * multiplier.to(device)
            if skip_nonfinite:
                is_infinite = ~torch.isfinite(norm)
                is_skipped = is_infinite if is_skipped is None else is_infinite | is_skipped.to(device)
            if max_grad_norm is not None:
                clip = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
                multiplier = clip if multiplier is None else clip * multiplier.to(device)
        if is_skipped is not None:
            if self.num_skipped is None:
                self.num_skipped = torch.zeros((), dtype=torch.int64, device=is_skipped.device)
            self.num_skipped += is_skipped  # in place: a captured graph continues to count
        return Gate(is_skipped, None if multiplier is None else multiplier.float())
