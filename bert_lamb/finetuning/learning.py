"""What a fine-tuning learns, as the commands describe it to the one loop: rows, a model, a loss; its stage follows."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.engine.launch import Process
from bert_lamb.finetuning.settings import Settings
from bert_lamb.finetuning.task import FineTuningTask, num_steps
from bert_lamb.finetuning.tokens import FeatureBatch, TokenRow, full_rows, mean_length
from bert_lamb.model.encoder import Execution
from bert_lamb.train.batch_plan import plan_batch
from bert_lamb.train.fitting import Trial
from bert_lamb.train.schedule import Schedule
from bert_lamb.train.task import Stage


@dataclass(frozen=True)
class Learning:
    """What is learnt, and by which model.

    loss: its name, on which the memory depends. model: fp32, on the CPU; it is copied before it is trained. train_rows:
    empty where nothing is trained. called_as: the model as it is called over rows laid end to end. loss_of_full_rows:
    of such a model, summed over a batch of so many rows. task: of a stage, for this rank.
    """

    loss: str
    model: Any
    train_rows: Sequence[TokenRow]
    eval_rows: Sequence[TokenRow]
    token_id: int  # any token of a text
    called_as: Callable[[Any, Execution], nn.Module]
    loss_of_full_rows: Callable[[nn.Module, FeatureBatch, int], Tensor]
    task: Callable[[Stage], FineTuningTask]


def stage_of(learning: Learning, settings: Settings, runtime: RuntimeSettings, process: Process) -> Stage | None:
    """The only stage, None without training rows; raises UserError when the ranks do not share the global batch evenly.

    runtime: with the micro-batches that were found, where they had to be.
    """
    rows = learning.train_rows
    if not rows:
        return None
    total_steps = num_steps(len(rows), settings.global_batch_size, settings.num_epochs)
    plan = plan_batch(
        key="global_batch_size",
        global_batch_size=settings.global_batch_size,
        max_micro_batch_size=runtime.max_micro_batch_size(settings.stage, mean_length=mean_length(rows)),
        world_size=process.world_size,
        total_steps=total_steps,
        max_seq_length=settings.max_seq_length,
    )
    schedule = Schedule(
        total_steps,
        settings.peak_lr,
        settings.warmup_proportion,
        settings.decay_power,
        decay_end="after_last_step",
    )
    return Stage(settings.stage, 0, plan, schedule, num_instances=len(rows))


def trial(learning: Learning, execution: Execution, settings: Settings, stage: Stage | None) -> Trial:
    """What `runtime.micro_batch_size=auto` tries; predictions take less memory, and as many rows at once."""
    rows = learning.train_rows or learning.eval_rows

    def loss(model: nn.Module, num_rows: int, device: torch.device) -> Tensor:
        batch = full_rows(num_rows, settings.max_seq_length, learning.token_id).to(device)
        return learning.loss_of_full_rows(model, batch, num_rows)

    return Trial(
        settings.stage,
        about={"model": learning.model.config.to_diff_dict(), "loss": learning.loss},
        build=lambda: learning.called_as(copy.deepcopy(learning.model), replace(execution, compile=None)),
        loss=loss,
        max_seq_length=settings.max_seq_length,
        mean_length=mean_length(rows),
        is_padded=execution.attention != "varlen",
        max_sequences=stage.plan.sequences_per_rank_and_step if stage is not None else len(rows),
    )
