"""What the programs of `fused` look up: where each of them works, and where the tensors are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bert_lamb.optim.segments import PADDING, Layout

ALIGNMENT = 16  # elements: where chunks begin
MANY = 8  # chunks for each multiprocessor, so that the last ones of a launch are a small part of it


@dataclass(frozen=True)
class Tiling:
    """How elements are dealt to the programs of passes 1 and 3. optim/README.md says why these numbers.

    block: elements that a program holds in registers at a time. num_warps: the warps that hold them, 32 threads each.
    chunks: elements that a program works on in all, the most first: the first of which there are MANY for each
    multiprocessor is taken, else the last. Multiples of the block. Raises ValueError where they are not.
    """

    block: int = 1_024
    num_warps: int = 8
    chunks: tuple[int, ...] = (16_384, 4_096)

    def __post_init__(self) -> None:
        if not self.chunks or any(chunk < 1 or chunk % self.block or chunk % ALIGNMENT for chunk in self.chunks):
            raise ValueError(f"chunks={self.chunks}: expected multiples of block={self.block} and of {ALIGNMENT}")

    def chunk_for(self, num_elements: int, num_multiprocessors: int) -> int:
        """Elements of a chunk for a launch over `num_elements`."""
        plenty = MANY * num_multiprocessors
        return next((chunk for chunk in self.chunks if num_elements >= plenty * chunk), self.chunks[-1])


def num_multiprocessors(device: torch.device) -> int:
    """Of a GPU; 1 on the CPU, where the interpreter runs one program at a time."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


class ChunkTable:
    """Where each program works, for tensors of a layout on one device; see `fused_kernels`.

    chunk: the largest number of elements of a chunk, a multiple of ALIGNMENT.
    """

    def __init__(self, layout: Layout, device: torch.device, *, chunk: int) -> None:
        self.chunk = chunk
        rows: list[tuple[int, int, int, int, int]] = []
        ranges = [(0, 0)] * len(layout.names)
        first_slot = 0
        for tensor, cut in enumerate(layout.cuts):
            start = 0
            for slot, size in zip(cut.slots, cut.sizes, strict=True):
                end = start + size
                if slot != PADDING and size:
                    first_chunk = len(rows)
                    for first in range(start - start % ALIGNMENT, end, chunk):
                        low, high = max(start - first, 0), min(end - first, chunk)
                        rows.append((tensor, first, low, high, first_slot + slot))
                    ranges[first_slot + slot] = (first_chunk, len(rows) - first_chunk)
                start = end
            first_slot += len(cut.names)
        self.num_chunks, self.num_slots = len(rows), len(layout.names)
        self.chunks = _to_device(torch.tensor(rows, dtype=torch.int64).reshape(-1, 5).T.contiguous(), device)
        self.ranges = _to_device(torch.tensor(ranges, dtype=torch.int64).reshape(-1, 2).T.contiguous(), device)


def _to_device(table: Tensor, device: torch.device) -> Tensor:
    return table if device.type == "cpu" else table.pin_memory().to(device, non_blocking=True)


class AddressTable:
    """The tensors' addresses on the device; sent again when one has moved, as gradients do.

    A captured graph goes on reading what it was captured with, so that is kept for good. If it includes the sending, it
    reads the host's memory too, at every replay, from memory set aside before: none may be pinned during a capture.
    """

    def __init__(self) -> None:
        self._sent: list[list[int]] = []
        self._table: Tensor | None = None
        self._spare: Tensor | None = None
        self._captured: list[Tensor] = []

    def on(self, device: torch.device, addresses: list[list[int]]) -> Tensor:
        """[6, num_tensors] int64 on the device. Raises RuntimeError when a capture finds no memory set aside."""
        is_capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        if self._table is None or addresses != self._sent:
            host = torch.tensor(addresses, dtype=torch.int64)
            if is_capturing:
                if self._spare is None or self._spare.shape != host.shape:
                    raise RuntimeError("take one optimizer step with these parameters before capturing a graph")
                self._captured.append(self._spare.copy_(host))
                self._table, self._spare = self._spare.to(device, non_blocking=True), None
            else:
                self._table = _to_device(host, device)
                if device.type == "cuda" and self._spare is None:
                    self._spare = torch.empty_like(host).pin_memory()
            self._sent = addresses
        if is_capturing:
            self._captured.append(self._table)
        return self._table
