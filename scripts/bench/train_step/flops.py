"""Floating-point operations of a step, by the meter's formula: what a candidate must do, whatever it takes for it."""

from collections.abc import Sequence

from bert_lamb.data.batches import MicroBatch
from bert_lamb.model.flops import pretraining_flops
from train_step.workload import Workload


def flops_of_ours(workload: Workload, micro_batches: Sequence[MicroBatch]) -> int:
    """Without padding, and the vocabulary's matrix at masked tokens alone."""
    lengths = [length for batch in micro_batches for length in batch.cu_seqlens.diff().tolist()]
    num_masked = sum(len(batch.masked_labels) for batch in micro_batches)
    return _flops(workload, lengths, num_predictions=num_masked)


def flops_of_transformers(workload: Workload, micro_batches: Sequence[MicroBatch]) -> int:
    """Every row padded, and the vocabulary's matrix at every position."""
    num_rows = sum(len(batch.cu_seqlens) - 1 for batch in micro_batches)
    lengths = [workload.max_seq_length] * num_rows
    return _flops(workload, lengths, num_predictions=sum(lengths))


def _flops(workload: Workload, lengths: Sequence[int], *, num_predictions: int) -> int:
    return pretraining_flops(
        workload.config(),
        num_sequences=len(lengths),
        num_tokens=sum(lengths),
        sum_squared_lengths=sum(length**2 for length in lengths),
        num_predictions=num_predictions,
        has_sentence_task=True,
    )
