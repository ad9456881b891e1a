"""Rows of tokens laid end to end, as the models of fine-tuning take them: nothing is padded.

Letters: B rows of a micro-batch, T tokens of a row.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class TokenRow(Protocol):
    """One text, or a pair of texts, with its special tokens."""

    @property
    def input_ids(self) -> list[int]:
        """T token ids."""

    @property
    def second_start(self) -> int:
        """Where the second text begins in input_ids; T where there is none."""


class FeatureBatch(NamedTuple):
    """What a model is called with, in its order of arguments (see `encode`): rows laid end to end."""

    input_ids: Tensor  # [sum of T] int64
    token_type_ids: Tensor  # [sum of T] int64
    position_ids: Tensor  # [sum of T] int64, from 0 in each row
    cu_seqlens: Tensor  # [B + 1] int32
    max_length: int  # no row is longer

    def to(self, device: torch.device) -> "FeatureBatch":
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "FeatureBatch":
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> "FeatureBatch":
        return FeatureBatch._make(change(value) if isinstance(value, Tensor) else value for value in self)


def lay_out(rows: Sequence[TokenRow], max_length: int) -> FeatureBatch:
    """These rows as one batch, in order. max_length: of all rows of the run, the same in all batches."""
    lengths = np.array([len(row.input_ids) for row in rows])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    position_ids = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    second_starts = np.array([row.second_start for row in rows])
    return FeatureBatch(
        input_ids=torch.tensor([token for row in rows for token in row.input_ids]),
        token_type_ids=torch.from_numpy((position_ids >= np.repeat(second_starts, lengths)).astype(np.int64)),
        position_ids=torch.from_numpy(position_ids),
        cu_seqlens=torch.from_numpy(bounds.astype(np.int32)),
        max_length=max_length,
    )


def full_rows(num_rows: int, max_seq_length: int, token_id: int) -> FeatureBatch:
    """The largest batch of so many rows: none has room left."""
    starts = torch.arange(0, (num_rows + 1) * max_seq_length, max_seq_length, dtype=torch.int32)
    positions = torch.arange(max_seq_length).repeat(num_rows)
    ids = torch.full_like(positions, token_id)
    return FeatureBatch(ids, torch.zeros_like(ids), positions, starts, max_seq_length)


def mean_length(rows: Sequence[TokenRow]) -> float:
    """Tokens of a row on average."""
    return sum(len(row.input_ids) for row in rows) / len(rows)
