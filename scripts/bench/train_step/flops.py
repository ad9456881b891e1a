"""Floating-point operations of a step, counted by formula: what a candidate must do, whatever it takes for it.

Forward and backward are three times the forward. Letters: T tokens (or padded positions), L layers, H hidden size,
I intermediate size, V vocabulary, M tokens that the vocabulary's matrix is applied to, B sequences.
"""

from collections.abc import Sequence

from bert_lamb.data.batches import MicroBatch
from train_step.workload import Workload


def flops_of_ours(workload: Workload, micro_batches: Sequence[MicroBatch]) -> float:
    """Without padding, and the vocabulary's matrix at masked tokens alone."""
    lengths = [length for batch in micro_batches for length in batch.cu_seqlens.diff().tolist()]
    num_masked = sum(len(batch.masked_labels) for batch in micro_batches)
    return _flops(workload, lengths, num_head_tokens=num_masked)


def flops_of_transformers(workload: Workload, micro_batches: Sequence[MicroBatch]) -> float:
    """Every row padded, and the vocabulary's matrix at every position."""
    num_rows = sum(len(batch.cu_seqlens) - 1 for batch in micro_batches)
    lengths = [workload.max_seq_length] * num_rows
    return _flops(workload, lengths, num_head_tokens=sum(lengths))


def _flops(workload: Workload, lengths: Sequence[int], *, num_head_tokens: int) -> float:
    sizes = workload.model
    hidden, layers = sizes["hidden_size"], sizes["num_layers"]
    vocab_size = workload.config().vocab_size
    linear = 2 * (4 * hidden**2 + 2 * hidden * sizes["intermediate_size"]) * layers * sum(lengths)
    attention = 4 * hidden * layers * sum(length**2 for length in lengths)
    head = 2 * (hidden**2 + hidden * vocab_size) * num_head_tokens
    pairs = 2 * (hidden**2 + 2 * hidden) * len(lengths)
    return 3.0 * (linear + attention + head + pairs)
