"""What a phase of pretraining learns: masked words, and how two segments belong together."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bert_lamb.data.batches import BatchCounts, HeldoutBatches, MicroBatch, TrainingBatches, unigram_cross_entropy
from bert_lamb.engine.protocol import Engine
from bert_lamb.model.bert import PretrainingSums
from bert_lamb.model.flops import pretraining_flops
from bert_lamb.pretraining.admission import Phase
from bert_lamb.pretraining.build import model_config
from bert_lamb.pretraining.recipe import Recipe

MAX_UNIGRAM_TOKENS = 20_000_000


class PretrainingTask:
    """Implements `Task` for one rank of a phase."""

    def __init__(
        self, recipe: Recipe, phase: Phase, *, rank: int, world_size: int, device: torch.device, loader_workers: int
    ) -> None:
        plan = phase.stage.plan
        self.phase, self.device, self.loader_workers = phase, device, loader_workers
        self.model_config = model_config(recipe, phase)
        self.batches = TrainingBatches(
            phase.training,
            rule=phase.rule,
            seed=recipe.seed,
            global_batch_size=plan.global_batch_size,
            micro_batch_size=plan.micro_batch_size,
            gradient_accumulation_steps=plan.gradient_accumulation_steps,
            rank=rank,
            world_size=world_size,
            rate=phase.rate,
        )
        self.evaluation_micro_batch_size = recipe.evaluation.micro_batch_size
        self.heldout: HeldoutBatches | None = None
        self.of_heldout: dict[str, float] = {}  # what every held-out line says beside the losses
        if phase.heldout is not None:
            max_instances = recipe.evaluation.max_instances
            self.heldout = HeldoutBatches(phase.heldout, rule=phase.rule, seed=recipe.seed, max_instances=max_instances)
            self.of_heldout["num_instances"] = self.heldout.num_instances
            if rank == 0:  # the one that writes it
                self.of_heldout["unigram_cross_entropy"] = unigram_cross_entropy(
                    phase.training, self.heldout, max_tokens=MAX_UNIGRAM_TOKENS
                )

    def micro_batches(self, first: int, last: int) -> Iterator[MicroBatch]:
        loader = self.batches.loader(
            first_step=first,
            last_step=last,
            num_workers=self.loader_workers,
            pin_memory=self.device.type == "cuda",
        )
        return (batch.to(self.device) for batch in loader)

    def counts(self, number: int) -> BatchCounts:
        return self.batches.counts(number)

    def loss(self, model: Any, batch: MicroBatch, counts: BatchCounts) -> tuple[Tensor, Tensor]:
        sums: PretrainingSums = model(*batch)
        loss = sums.mlm_loss / counts.num_predictions + sums.nsp_loss / counts.num_sequences
        return loss, torch.stack(sums).detach()

    def metrics(self, sums: list[float], counts: BatchCounts) -> dict[str, float]:
        means = self._means(sums, counts)
        means.pop("nsp_accuracy", None)  # of one batch, it is noise; see the held-out lines
        return {"loss": means["mlm_loss"] + means.get("nsp_loss", 0.0), **means}

    def flops(self, counts: BatchCounts) -> int:
        return pretraining_flops(
            self.model_config,
            num_sequences=counts.num_sequences,
            num_tokens=counts.num_tokens,
            sum_squared_lengths=counts.sum_squared_lengths,
            num_predictions=counts.num_predictions,
            has_sentence_task=self.phase.has_sentence_task,
        )

    @torch.no_grad()
    def evaluate(self, engine: Engine) -> dict[str, float] | None:
        """Held-out losses in nats and accuracies, whatever the number of ranks."""
        if self.heldout is None:
            return None
        engine.model.eval()
        sums = torch.zeros(len(PretrainingSums._fields), device=self.device)
        deal = self.heldout.of_rank(
            rank=engine.rank, world_size=engine.world_size, micro_batch_size=self.evaluation_micro_batch_size
        )
        for batch, is_counted in deal:
            sums += torch.stack(engine.model(*batch.to(self.device))) * is_counted
        engine.model.train()
        return {**self._means(engine.all_reduce_sum(sums).tolist(), self.heldout.counts), **self.of_heldout}

    def _means(self, sums: list[float], counts: BatchCounts) -> dict[str, float]:
        return means_of(sums, counts, has_sentence_task=self.phase.has_sentence_task)


def means_of(sums: list[float], counts: BatchCounts, *, has_sentence_task: bool) -> dict[str, float]:
    """Means of PretrainingSums under the names of metrics.jsonl; nsp: the sentence task, where there is one."""
    of_batch = dict(zip(PretrainingSums._fields, sums, strict=True))
    means = {
        "mlm_loss": of_batch["mlm_loss"] / counts.num_predictions,
        "mlm_accuracy": of_batch["mlm_correct"] / counts.num_predictions,
    }
    if not has_sentence_task:
        return means
    return means | {
        "nsp_loss": of_batch["nsp_loss"] / counts.num_sequences,
        "nsp_accuracy": of_batch["nsp_correct"] / counts.num_sequences,
    }
