"""Micro-batches of tensors: sampled, dealt, masked, laid end to end and labelled, addressed by (step, micro_step).

Letters: G instances of a global batch; B sequences, T tokens and M masked tokens of a micro-batch.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bert_lamb.data.masking import MaskingRate, MaskingRule, mask_batch, num_predictions
from bert_lamb.sampling.dealing import deal, micro_batch_number
from bert_lamb.sampling.sampler import global_batch
from bert_lamb.shards import NO_SENTENCE_TASK, Instances

HELDOUT_EPOCH = 0  # held-out masks are fixed: one key for ever
SIGNALS_TO_THE_GROUP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
TOKENS_PER_BLOCK = 1 << 16  # made and handed over at once; more no longer fits a core's cache


class MicroBatch(NamedTuple):
    """What the model is called with, in its order of arguments (see BertPretrainingModel.forward)."""

    input_ids: Tensor  # [T] int64
    token_type_ids: Tensor  # [T] int64
    position_ids: Tensor  # [T] int64, from 0 in each sequence
    cu_seqlens: Tensor  # [B + 1] int32: sequence i is tokens cu_seqlens[i]..cu_seqlens[i + 1] - 1
    max_length: int  # of the instance set; no sequence is longer
    masked_positions: Tensor  # [M] int64, indices into [T]
    masked_labels: Tensor  # [M] int64
    sentence_labels: Tensor | None  # [B] int64; None: there is no sentence task

    def to(self, device: torch.device) -> "MicroBatch":
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "MicroBatch":
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        return MicroBatch._make(change(value) if isinstance(value, Tensor) else value for value in self)


def full_rows(
    num_rows: int, max_seq_length: int, *, num_predictions: int, token_id: int, has_sentence_task: bool
) -> MicroBatch:
    """The largest micro-batch of so many rows: none has room left, and every prediction is asked for."""
    starts = torch.arange(0, (num_rows + 1) * max_seq_length, max_seq_length, dtype=torch.int32)
    positions = torch.arange(max_seq_length).repeat(num_rows)
    masked = (starts[:-1, None].long() + torch.arange(min(num_predictions, max_seq_length))).flatten()
    return MicroBatch(
        torch.full_like(positions, token_id),
        torch.zeros_like(positions),
        positions,
        starts,
        max_seq_length,
        masked,
        torch.full_like(masked, token_id),
        torch.zeros(num_rows, dtype=torch.int64) if has_sentence_task else None,
    )


@dataclass(frozen=True)
class BatchCounts:
    """The normalizers of one global batch, known to every rank before any loss is."""

    num_sequences: int
    num_predictions: int
    num_tokens: int  # without padding
    sum_squared_lengths: int  # what attention grows with


@dataclass(frozen=True)
class MaskedInstances:
    """Masked instances as loader processes hand them over: a few bytes a token, where tensors for the model take 24.

    Letters: n sequences, N tokens of all of them, M masked tokens of all of them.
    """

    input_ids: NDArray[Any]  # [N] in the shards' dtype, corrupted
    lengths: NDArray[np.uint16]  # [n]
    segment_a_lengths: NDArray[np.uint16]  # [n]
    sentence_labels: NDArray[np.bool_] | None  # [n]; None: there is no sentence task
    masked_positions: NDArray[np.int32]  # [M] indices into [N], ascending
    masked_labels: NDArray[Any]  # [M] in the shards' dtype
    max_length: int
    micro_batch_size: int

    def micro_batches(self) -> list[MicroBatch]:
        """Cut into micro-batches, in order."""
        bounds = _bounds(self.lengths)
        position_ids = np.arange(bounds[-1]) - np.repeat(bounds[:-1], self.lengths)
        is_second = position_ids >= np.repeat(self.segment_a_lengths, self.lengths)
        batches = []
        for first in range(0, len(self.lengths), self.micro_batch_size):
            of_batch = bounds[first : first + self.micro_batch_size + 1]
            start, end = of_batch[0], of_batch[-1]
            masked = slice(*np.searchsorted(self.masked_positions, (start, end)))
            rows = slice(first, first + self.micro_batch_size)
            batches.append(
                MicroBatch(
                    input_ids=_int64(self.input_ids[start:end]),
                    token_type_ids=_int64(is_second[start:end]),
                    position_ids=_int64(position_ids[start:end]),
                    cu_seqlens=torch.from_numpy((of_batch - start).astype(np.int32)),
                    max_length=self.max_length,
                    masked_positions=_int64(self.masked_positions[masked] - start),
                    masked_labels=_int64(self.masked_labels[masked]),
                    sentence_labels=None if self.sentence_labels is None else _int64(self.sentence_labels[rows]),
                )
            )
        return batches

    def pin_memory(self) -> list[MicroBatch]:
        """What DataLoader's pinning thread calls: widened, cut and pinned outside the training thread."""
        return [batch.pin_memory() for batch in self.micro_batches()]


def _bounds(lengths: NDArray[np.uint16]) -> NDArray[np.int64]:
    """[n + 1] where each sequence begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _int64(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def masked_instances(
    instances: Instances,
    indices: NDArray[np.int64],  # [n]
    epochs: NDArray[np.int64],  # [n]
    *,
    rule: MaskingRule,
    seed: int,
    micro_batch_size: int,
    mask_probs: NDArray[np.float64] | None = None,  # [n]; None: rule.mask_prob for each
) -> MaskedInstances:
    """Read the instances with these numbers and mask them."""
    ragged = instances.take(indices)
    lengths = instances.lengths[indices]
    is_token = np.arange(instances.max_seq_length, dtype=np.uint16) < lengths[:, None]
    input_ids = np.full(is_token.shape, instances.manifest.vocabulary.pad_id, dtype=ragged.input_ids.dtype)
    input_ids[is_token] = ragged.input_ids
    masked = mask_batch(input_ids, lengths, indices, epochs, rule=rule, seed=seed, mask_probs=mask_probs)
    rows, columns = np.divmod(masked.positions, instances.max_seq_length)
    has_task = instances.manifest.sentence_task != NO_SENTENCE_TASK
    return MaskedInstances(
        input_ids=masked.input_ids[is_token],
        lengths=lengths,
        segment_a_lengths=ragged.segment_a_lengths,
        sentence_labels=ragged.sentence_labels if has_task else None,
        masked_positions=(_bounds(lengths)[rows] + columns).astype(np.int32),
        masked_labels=masked.labels,
        max_length=instances.max_seq_length,
        micro_batch_size=micro_batch_size,
    )


def micro_batch(
    instances: Instances,
    indices: NDArray[np.int64],  # [B]
    epochs: NDArray[np.int64],  # [B]
    *,
    rule: MaskingRule,
    seed: int,
) -> MicroBatch:
    """The instances with these numbers as one micro-batch."""
    (batch,) = masked_instances(
        instances, indices, epochs, rule=rule, seed=seed, micro_batch_size=len(indices)
    ).micro_batches()
    return batch


class TrainingBatches:
    """The micro-batches of one rank in a phase; number k is micro_step k % G of step k // G + 1, G the accumulation.

    rate: the share of tokens predicted, step by step; None: rule.mask_prob at every step.
    """

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
        rate: MaskingRate | None = None,
    ) -> None:
        self.instances, self.rule, self.seed = instances, rule, seed
        self.rate = rate or MaskingRate(rule.mask_prob, rule.mask_prob, num_steps=1)
        self.global_batch_size, self.micro_batch_size = global_batch_size, micro_batch_size
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.rank, self.world_size = rank, world_size
        self._dealt: tuple[int, NDArray[np.int64]] | None = None  # the last step dealt, and its rows by micro-batch

    def __getitem__(self, number: int) -> MicroBatch:
        (batch,) = self.masked(number, number + 1).micro_batches()
        return batch

    def masked(self, first: int, last: int) -> MaskedInstances:
        """Micro-batches first..last-1, made in one go: numpy's calls cost more than the work of a small micro-batch."""
        chosen, epochs = np.concatenate([self._instances_of(number) for number in range(first, last)], axis=1)
        return masked_instances(
            self.instances,
            chosen,
            epochs,
            rule=self.rule,
            seed=self.seed,
            micro_batch_size=self.micro_batch_size,
            mask_probs=np.repeat(
                [self.rate.of(number // self.gradient_accumulation_steps + 1) for number in range(first, last)],
                self.micro_batch_size,
            ),
        )

    def _instances_of(self, number: int) -> NDArray[np.int64]:
        """[2, B] instances and epochs of a micro-batch of this rank."""
        step, micro_step = divmod(number, self.gradient_accumulation_steps)
        if self._dealt is None or self._dealt[0] != step:
            instances, epochs = self.global_batch(step + 1)
            rows = deal(self.instances.lengths[instances], self.gradient_accumulation_steps * self.world_size)
            self._dealt = step, np.stack([instances[rows], epochs[rows]])
        return self._dealt[1][:, micro_batch_number(micro_step, rank=self.rank, world_size=self.world_size)]

    def global_batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Instances and epochs of a step's global batch, [G] each."""
        return global_batch(
            step, global_batch_size=self.global_batch_size, num_instances=len(self.instances), seed=self.seed
        )

    def counts(self, step: int) -> BatchCounts:
        """The normalizers of a step, from the lengths alone."""
        return _counts(self.instances.lengths[self.global_batch(step)[0]], self.rule, mask_prob=self.rate.of(step))

    def loader(self, *, first_step: int, last_step: int, num_workers: int, pin_memory: bool) -> Iterator[MicroBatch]:
        """Every micro-batch of this rank of these steps, both included, in order."""
        blocks = _Blocks(
            self,
            first=(first_step - 1) * self.gradient_accumulation_steps,
            last=last_step * self.gradient_accumulation_steps,
        )
        # batch_size=None: an item is a batch already. The sampler is a range, so seeking costs nothing. Workers are
        # spawned, since forking a process whose libraries run threads may deadlock.
        loaded = DataLoader(
            blocks,
            batch_size=None,
            sampler=range(len(blocks)),
            num_workers=num_workers,
            pin_memory=pin_memory,
            multiprocessing_context="spawn" if num_workers else None,
            worker_init_fn=_leave_signals_to_the_trainer,
        )
        # Workers start with these signals blocked: until they can ignore them, one would be their end.
        if num_workers:
            resource_tracker.ensure_running()  # starting it would unblock some of them
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_TO_THE_GROUP)
        try:
            blocks_in_order = iter(loaded)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        for block in blocks_in_order:
            yield from block.micro_batches() if isinstance(block, MaskedInstances) else block


class _Blocks(Dataset[MaskedInstances]):
    """Micro-batches first..last-1 in blocks of about TOKENS_PER_BLOCK tokens; nothing depends on how they are cut."""

    def __init__(self, batches: TrainingBatches, *, first: int, last: int) -> None:
        self.batches, self.first, self.last = batches, first, last
        self.size = max(1, TOKENS_PER_BLOCK // (batches.micro_batch_size * batches.instances.max_seq_length))

    def __len__(self) -> int:
        return -(-(self.last - self.first) // self.size)

    def __getitem__(self, number: int) -> MaskedInstances:
        start = self.first + number * self.size
        return self.batches.masked(start, min(start + self.size, self.last))


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Launchers signal the whole process group; a worker that died of it would take the last checkpoint along."""
    for number in SIGNALS_TO_THE_GROUP:
        signal.signal(number, signal.SIG_IGN)


class HeldoutBatches:
    """The first held-out instances with fixed masks, dealt to ranks micro-batch by micro-batch."""

    def __init__(self, instances: Instances, *, rule: MaskingRule, seed: int, max_instances: int) -> None:
        self.instances, self.rule, self.seed = instances, rule, seed
        self.num_instances = min(len(instances), max_instances)
        self.counts = _counts(instances.lengths[: self.num_instances], rule, mask_prob=rule.mask_prob)

    def of_rank(self, *, rank: int, world_size: int, micro_batch_size: int) -> Iterator[tuple[MicroBatch, bool]]:
        """(micro-batch, whether it counts); every rank gets equally many, since ZeRO 3 needs all ranks in a forward."""
        starts = range(0, self.num_instances, micro_batch_size)
        for round_start in range(0, len(starts), world_size):
            turn = round_start + rank
            start = starts[min(turn, len(starts) - 1)]
            indices = np.arange(start, min(start + micro_batch_size, self.num_instances), dtype=np.int64)
            epochs = np.full_like(indices, HELDOUT_EPOCH)
            yield micro_batch(self.instances, indices, epochs, rule=self.rule, seed=self.seed), turn < len(starts)


def _counts(lengths: NDArray[np.uint16], rule: MaskingRule, *, mask_prob: float) -> BatchCounts:
    predictions = num_predictions(lengths, mask_prob=mask_prob, max_predictions_per_seq=rule.max_predictions_per_seq)
    tokens = lengths.astype(np.int64)
    return BatchCounts(len(lengths), int(predictions.sum()), int(tokens.sum()), int(tokens @ tokens))


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
