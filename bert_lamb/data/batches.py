"""Micro-batches of tensors: sampled, masked, padded and labelled, addressed by (step, micro_step).

Letters: G instances of a global batch, B sequences of a micro-batch, S tokens, M masked tokens of a micro-batch.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bert_lamb.data.masking import MaskingRule, mask_batch, num_predictions
from bert_lamb.data.sampler import global_batch, micro_batch_slice
from bert_lamb.shards import NO_SENTENCE_TASK, Instances

HELDOUT_EPOCH = 0  # held-out masks are fixed: one key for ever


class MicroBatch(NamedTuple):
    """What the model is called with, in its order of arguments (see BertPretrainingModel.forward)."""

    input_ids: Tensor  # [B, S] int64
    token_type_ids: Tensor  # [B, S] int64
    attention_mask: Tensor  # [B, S] int64
    masked_positions: Tensor  # [M] int64
    masked_labels: Tensor  # [M] int64
    sentence_labels: Tensor | None  # [B] int64; None: there is no sentence task

    def to(self, device: torch.device) -> "MicroBatch":
        return MicroBatch._make(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self)


@dataclass(frozen=True)
class BatchCounts:
    """The normalisers of one global batch, known to every rank before any loss is."""

    num_sequences: int
    num_predictions: int
    num_tokens: int  # without padding


def micro_batch(
    instances: Instances,
    indices: NDArray[np.int64],  # [B]
    epochs: NDArray[np.int64],  # [B]
    *,
    rule: MaskingRule,
    seed: int,
) -> MicroBatch:
    """Read, pad to the set's max_seq_length, mask and label the instances with these numbers."""
    ragged = instances.take(indices)
    lengths = np.diff(ragged.offsets)
    columns = np.arange(instances.max_seq_length)
    is_token = columns < lengths[:, None]
    input_ids = np.full(is_token.shape, instances.manifest.vocabulary.pad_id, dtype=np.int64)
    has_task = instances.manifest.sentence_task != NO_SENTENCE_TASK
    input_ids[is_token] = ragged.input_ids
    is_second = is_token & (columns >= ragged.segment_a_lengths[:, None])
    masked = mask_batch(input_ids, lengths, indices, epochs, rule=rule, seed=seed)
    return MicroBatch(
        input_ids=torch.from_numpy(masked.input_ids),
        token_type_ids=torch.from_numpy(is_second.astype(np.int64)),
        attention_mask=torch.from_numpy(is_token.astype(np.int64)),
        masked_positions=torch.from_numpy(masked.positions),
        masked_labels=torch.from_numpy(masked.labels),
        sentence_labels=torch.from_numpy(ragged.sentence_labels.astype(np.int64)) if has_task else None,
    )


class TrainingBatches(Dataset[MicroBatch]):
    """The micro-batches of one rank in a phase; item k is micro_step k % G of step k // G + 1, G the accumulation."""

    def __init__(
        self,
        instances: Instances,
        *,
        rule: MaskingRule,
        seed: int,
        global_batch_size: int,
        micro_batch_size: int,
        gradient_accumulation_steps: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.instances, self.rule, self.seed = instances, rule, seed
        self.global_batch_size, self.micro_batch_size = global_batch_size, micro_batch_size
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.rank, self.world_size = rank, world_size
        self._batch_of_step: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def __getitem__(self, index: int) -> MicroBatch:
        step, micro_step = index // self.gradient_accumulation_steps + 1, index % self.gradient_accumulation_steps
        chosen, epochs = self.global_batch(step)
        part = micro_batch_slice(
            micro_step=micro_step, rank=self.rank, micro_batch_size=self.micro_batch_size, world_size=self.world_size
        )
        return micro_batch(self.instances, chosen[part], epochs[part], rule=self.rule, seed=self.seed)

    def global_batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Instances and epochs of a step's global batch, [G] each; the last one asked for is remembered."""
        if self._batch_of_step is None or self._batch_of_step[0] != step:
            chosen, epochs = global_batch(
                step, global_batch_size=self.global_batch_size, num_instances=len(self.instances), seed=self.seed
            )
            self._batch_of_step = step, chosen, epochs
        return self._batch_of_step[1:]

    def counts(self, step: int) -> BatchCounts:
        """The normalisers of a step, from the lengths alone."""
        return _counts(self.instances.lengths[self.global_batch(step)[0]], self.rule)

    def loader(self, *, first_step: int, total_steps: int, num_workers: int, pin_memory: bool) -> Iterator[MicroBatch]:
        """Every micro-batch of this rank from `first_step` to the end of the phase, in order."""
        order = range(
            (first_step - 1) * self.gradient_accumulation_steps, total_steps * self.gradient_accumulation_steps
        )
        # batch_size=None: an item is a batch already. The sampler is a range, so seeking costs nothing. Workers are
        # spawned, since forking a process whose libraries run threads may deadlock.
        return iter(
            DataLoader(
                self,
                batch_size=None,
                sampler=order,
                num_workers=num_workers,
                pin_memory=pin_memory,
                multiprocessing_context="spawn" if num_workers else None,
                worker_init_fn=_leave_signals_to_the_trainer,
            )
        )


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Launchers signal the whole process group; a worker that died of it would take the last checkpoint along."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class HeldoutBatches:
    """The first held-out instances with fixed masks, dealt to ranks micro-batch by micro-batch."""

    def __init__(self, instances: Instances, *, rule: MaskingRule, seed: int, max_instances: int) -> None:
        self.instances, self.rule, self.seed = instances, rule, seed
        self.num_instances = min(len(instances), max_instances)
        self.counts = _counts(instances.lengths[: self.num_instances], rule)

    def of_rank(self, *, rank: int, world_size: int, micro_batch_size: int) -> Iterator[tuple[MicroBatch, bool]]:
        """(micro-batch, whether it counts); every rank gets equally many, since ZeRO 3 needs all ranks in a forward."""
        starts = range(0, self.num_instances, micro_batch_size)
        for round_start in range(0, len(starts), world_size):
            turn = round_start + rank
            start = starts[min(turn, len(starts) - 1)]
            indices = np.arange(start, min(start + micro_batch_size, self.num_instances), dtype=np.int64)
            epochs = np.full_like(indices, HELDOUT_EPOCH)
            yield micro_batch(self.instances, indices, epochs, rule=self.rule, seed=self.seed), turn < len(starts)


def _counts(lengths: NDArray[np.uint16], rule: MaskingRule) -> BatchCounts:
    predictions = num_predictions(
        lengths, mask_prob=rule.mask_prob, max_predictions_per_seq=rule.max_predictions_per_seq
    )
    return BatchCounts(len(lengths), int(predictions.sum()), int(lengths.sum(dtype=np.int64)))


def unigram_cross_entropy(training: Instances, heldout: HeldoutBatches, *, max_tokens: int) -> float:
    """Nats per masked held-out token when each is guessed from the training tokens' frequencies: the honest baseline.

    Frequencies are those of the first `max_tokens` training tokens with one added to every entry (Laplace); special
    tokens are left out, since they are never masked.
    """
    counts = np.ones(training.manifest.vocabulary.size, dtype=np.float64)
    num_seen = 0
    for tokens in training.iter_input_ids(1 << 22):
        counts += np.bincount(tokens, minlength=len(counts))
        num_seen += len(tokens)
        if num_seen >= max_tokens:
            break
    counts[list(heldout.rule.special_token_ids)] = 0
    log_probs = np.log(counts, where=counts > 0, out=np.full_like(counts, -np.inf)) - np.log(counts.sum())
    total = 0.0
    for batch, _ in heldout.of_rank(rank=0, world_size=1, micro_batch_size=256):
        total -= float(log_probs[batch.masked_labels.numpy()].sum())
    return total / heldout.counts.num_predictions
