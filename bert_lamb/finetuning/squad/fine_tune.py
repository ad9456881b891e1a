"""Third stop of the SQuAD path: features and answer positions -> a fine-tuned BertForQuestionAnswering.

AdamW with linear warm-up and linear decay, as Devlin et al. 2019, section 4.2. One loop, in the order of events.

Letters: M features of a micro-batch, T tokens of the longest of them.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertForQuestionAnswering

from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.features import Feature, pad
from bert_lamb.progress import Progress

ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 1e-6  # as in Google's optimization.py


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step did; a line of train_log.jsonl."""

    step: int  # 1-based
    lr: float
    loss: float  # nats, mean over the features of the step
    grad_norm: float  # before clipping
    seconds: float  # since fine-tuning began


def fine_tune(
    model: BertForQuestionAnswering,
    features: Sequence[Feature],
    positions: Sequence[tuple[int, int]],
    *,
    batch_size: int,
    micro_batch_size: int,
    peak_lr: float,
    warmup_proportion: float,
    num_epochs: float,
    weight_decay: float,
    max_grad_norm: float,
    pad_token_id: int,
    device: torch.device,
    autocast_dtype: torch.dtype | None,
    seed: int,
    record: Callable[[StepRecord], None],
) -> None:
    """Train `model` in place to point at `positions`, the first and last answer token of each feature.

    batch_size: features per optimizer step. micro_batch_size: features per forward and backward; the loss is the mean
    over the whole batch, so it does not change the update beyond rounding (and the draw of dropout).
    max_grad_norm: 0 means no clipping. seed: decides order and dropout; 0 or more. Raises UserError when the loss is
    no longer finite.
    """
    total_steps = num_steps(len(features), batch_size, num_epochs)
    model.to(device).train()  # type: ignore[arg-type]  # the decorator on transformers' `to` hides its type
    optimizer = make_optimizer(model, weight_decay)
    started_at = time.monotonic()
    with Progress("fine-tune", total=total_steps, unit="steps") as progress:
        for step in range(total_steps):
            batch = batch_indices(len(features), batch_size, step, seed)
            # Micro-batches of like length need little padding; the mean over the batch does not see their order.
            batch.sort(key=lambda i: len(features[i].input_ids))
            torch.manual_seed(key_of_dropout(seed, step))
            loss = 0.0
            for first in range(0, batch_size, micro_batch_size):
                members = batch[first : first + micro_batch_size]
                inputs = {k: v.to(device) for k, v in pad([features[i] for i in members], pad_token_id).items()}
                targets = torch.tensor([positions[i] for i in members], device=device)  # [M, 2]
                with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                    output = model(**inputs)
                is_token = inputs["attention_mask"].bool()
                micro_loss = span_loss_sum(output.start_logits, output.end_logits, is_token, targets) / batch_size
                micro_loss.backward()
                loss += micro_loss.item()
            if not math.isfinite(loss):
                raise UserError(
                    found=f"loss {loss} at step {step + 1} of {total_steps}",
                    expected="a finite number",
                    fix=f"lower peak_lr={peak_lr}, or use precision=fp32",
                )
            grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm or math.inf)
            lr = peak_lr * linear_warmup_decay(step, total_steps, warmup_proportion)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
            record(StepRecord(step + 1, lr, loss, float(grad_norm), time.monotonic() - started_at))
            progress.update(note=f"loss {loss:.3f}")


def span_loss_sum(start_logits: Tensor, end_logits: Tensor, is_token: Tensor, targets: Tensor) -> Tensor:
    """Sum over the features of (cross-entropy of the start + cross-entropy of the end) / 2, in fp32.

    Padding takes no part in the softmax; transformers' own loss lets it, and so depends on how much is padded.
    start_logits, end_logits: [M, T]. is_token: bool [M, T]. targets: int64 [M, 2].
    """
    start_logits, end_logits = (one.float().masked_fill(~is_token, -math.inf) for one in (start_logits, end_logits))
    start_loss = F.cross_entropy(start_logits, targets[:, 0], reduction="sum")
    end_loss = F.cross_entropy(end_logits, targets[:, 1], reduction="sum")
    return (start_loss + end_loss) / 2


def linear_warmup_decay(step: int, total_steps: int, warmup_proportion: float) -> float:
    """The share of peak_lr at 0-based `step`: up from above 0 to 1 during warm-up, then down to 0 after the last step.

    No step has lr 0: the first is 1 / num_warmup_steps, the last 1 / (total_steps - num_warmup_steps).
    """
    num_warmup_steps = int(total_steps * warmup_proportion)
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    return (total_steps - step) / (total_steps - num_warmup_steps)


def num_steps(num_features: int, batch_size: int, num_epochs: float) -> int:
    """Optimizer steps after which every feature was seen at least `num_epochs` times on average."""
    return math.ceil(num_features * num_epochs / batch_size)


def batch_indices(num_features: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The features of 0-based `step`: a stretch of the endless sequence of shuffled epochs."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(num_features)
        for epoch in range(positions[0] // num_features, positions[-1] // num_features + 1)
    }
    return [int(orders[position // num_features][position % num_features]) for position in positions]


def key_of_dropout(seed: int, step: int) -> int:
    """A seed for torch that belongs to one step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def make_optimizer(model: torch.nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays all but bias and LayerNorm, which are BERT's one-dimensional parameters."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=ADAM_EPS)
