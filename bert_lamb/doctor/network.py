"""Checks of what is between the ranks: the process group, the sum of a gradient, each link."""

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import combinations, pairwise
from typing import Any

import torch

from bert_lamb.doctor.examination import Examination
from bert_lamb.doctor.finding import Finding, SkippedError, differences, failed, name_ranks, ok, warning

ALL_PAIRS_UP_TO = 8  # ranks, or hosts, of which every pair is tried: 28 pairs
PAIR_BYTES = 8 << 20
GRADIENT_BYTES = 4  # of a parameter: fp32, in which every engine and precision sums it over ranks (engine/README.md)
REPETITIONS = 2
SLOW_FACTOR = 2.0  # as long as the median link of its kind
CHUNK = 1 << 24  # elements checked at once


def collect_group(examination: Examination) -> Callable[[], str]:
    """Join the process group that a run would have: NCCL on GPUs, gloo on CPUs."""
    process, ranks = examination.process, examination.ranks
    if process.world_size == 1:
        raise SkippedError("one rank")
    if examination.why_no_device is not None:
        raise SkippedError("the device that runtime asks for does not exist here")

    def join() -> str:
        is_on_gpus = process.device.type == "cuda"
        backend = "nccl" if is_on_gpus else "gloo"
        torch.distributed.init_process_group(
            backend,
            store=torch.distributed.PrefixStore("group", ranks.store),
            rank=process.rank,
            world_size=process.world_size,
            timeout=timedelta(seconds=examination.ranks.timeout_seconds),
            device_id=process.device if is_on_gpus else None,
        )
        torch.distributed.all_reduce(torch.ones(1, device=process.device))
        if is_on_gpus:
            torch.cuda.synchronize()
            backend += " " + ".".join(map(str, torch.cuda.nccl.version()))
        examination.is_connected = True
        return backend

    return join


def judge_group(examination: Examination, backends: list[str]) -> Finding:
    if differing := differences(backends, examination.hosts):
        return failed(differing, fix="install the same environment everywhere")
    return ok(f"{examination.world_size} ranks on {len(set(examination.hosts))} hosts, {backends[0]}")


def collect_all_reduce(examination: Examination) -> Callable[[], dict[str, Any]]:
    """Sum a tensor of the gradient's size, with values whose sum is known."""
    if examination.world_size == 1:
        raise SkippedError("one rank")
    examination.needs_all_ranks_connected()
    num_bytes = examination.num_parameters * GRADIENT_BYTES
    if examination.all_reduce_bytes is not None:
        num_bytes = min(num_bytes, examination.all_reduce_bytes)
    process = examination.process
    tensor = torch.empty(max(1, num_bytes // GRADIENT_BYTES), device=process.device)

    def measure() -> dict[str, Any]:
        seconds, wrong = [], None
        for _ in range(1 + REPETITIONS):  # the first one sets up connections
            fill(tensor, scale=share_of(process.rank))
            _wait(process.device)
            torch.distributed.barrier()
            started = time.perf_counter()
            torch.distributed.all_reduce(tensor)
            _wait(process.device)
            seconds.append(time.perf_counter() - started)
            wrong = wrong or first_wrong(tensor, process.world_size)
        return {"bytes": tensor.numel() * GRADIENT_BYTES, "seconds": min(seconds[1:]), "wrong": wrong}

    return measure


def share_of(rank: int) -> int:
    """What a rank multiplies the pattern by: small, so that sums over thousands of ranks are exact in fp32."""
    return rank % 13 + 1


def fill(tensor: torch.Tensor, *, scale: int) -> None:
    """Element i is (i mod 7 + 1) times `scale`."""
    for start in range(0, tensor.numel(), CHUNK):
        part = tensor[start : start + CHUNK]
        part.copy_((torch.arange(start, start + part.numel(), device=tensor.device) % 7 + 1) * scale)


def first_wrong(tensor: torch.Tensor, world_size: int) -> list[float] | None:
    """[index, value, expected] of the first element that is not the sum over ranks, or None; exact."""
    total = sum(share_of(rank) for rank in range(world_size))
    for start in range(0, tensor.numel(), CHUNK):
        part = tensor[start : start + CHUNK]
        expected = (torch.arange(start, start + part.numel(), device=tensor.device) % 7 + 1) * total
        differing = torch.nonzero(part != expected)
        if len(differing):
            index = int(differing[0])
            return [start + index, float(part[index]), float(expected[index])]
    return None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bus_bandwidth(num_bytes: int, seconds: float, world_size: int) -> float:
    """Bytes a second that each rank's link carries: 2 (n - 1) / n x bytes / seconds, as nccl-tests has it."""
    return 2 * (world_size - 1) / world_size * num_bytes / seconds


def judge_all_reduce(examination: Examination, by_rank: list[dict[str, Any]]) -> Finding:
    hosts, world_size = examination.hosts, examination.world_size
    wrong = [rank for rank, facts in enumerate(by_rank) if facts["wrong"]]
    if wrong:
        index, value, expected = by_rank[wrong[0]]["wrong"]
        return failed(
            f"a wrong sum on {name_ranks(wrong, hosts)}: {value:g} at element {index:.0f} where {expected:g} is right",
            fix="take these machines out, and test their memory and links (dcgmi diag -r 3, ibdiagnet)",
        )
    seconds, num_bytes = max(facts["seconds"] for facts in by_rank), by_rank[0]["bytes"]
    whole = examination.num_parameters * GRADIENT_BYTES
    part = f", of the {whole / 1e6:,.1f} MB of the gradient" if num_bytes < whole else ", the gradient"
    return ok(
        f"{num_bytes / 1e6:,.1f} MB of fp32{part}, in {seconds * 1e3:,.1f} ms: the right sum; bus bandwidth"
        f" {bus_bandwidth(num_bytes, seconds, world_size) / 1e9:.2f} GB/s (2 (n - 1) / n x bytes / seconds, n ="
        f" {world_size}; the faster of {REPETITIONS}, on the slowest rank)"
    )


def pairs_to_try(hosts: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """(which pairs of ranks these are, the pairs): all of few ranks, else one rank a host, else a ring of those."""
    if len(hosts) <= ALL_PAIRS_UP_TO:
        return "all pairs of ranks", list(combinations(range(len(hosts)), 2))
    firsts = list({host: rank for rank, host in reversed(list(enumerate(hosts)))}.values())
    firsts.sort()
    if len(firsts) == 1:
        return "neighbours in a ring of ranks", [*pairwise(range(len(hosts))), (0, len(hosts) - 1)]
    if len(firsts) <= ALL_PAIRS_UP_TO:
        return "all pairs of hosts, by their first ranks", list(combinations(firsts, 2))
    return "neighbours in a ring of hosts, by their first ranks", [*pairwise(firsts), (firsts[0], firsts[-1])]


def collect_pairs(examination: Examination) -> Callable[[], list[list[float]]]:
    """[first, second, seconds] of the pairs in which this rank is the first: there and back, one pair at a time."""
    if examination.world_size == 1:
        raise SkippedError("one rank")
    examination.needs_all_ranks_connected()
    rank, device = examination.process.rank, examination.process.device
    tensor = torch.zeros(PAIR_BYTES, dtype=torch.uint8, device=device)

    def measure() -> list[list[float]]:
        found = []
        for first, second in pairs_to_try(examination.hosts)[1]:
            torch.distributed.barrier()
            if rank not in (first, second):
                continue
            seconds = []
            for _ in range(1 + REPETITIONS):
                started = time.perf_counter()
                if rank == first:
                    torch.distributed.send(tensor, second)
                    torch.distributed.recv(tensor, second)
                else:
                    torch.distributed.recv(tensor, first)
                    torch.distributed.send(tensor, first)
                _wait(device)
                seconds.append(time.perf_counter() - started)
            if rank == first:
                found.append([first, second, min(seconds[1:])])
        return found

    return measure


def judge_pairs(examination: Examination, by_rank: list[list[list[float]]]) -> Finding:
    """The slowest pair, and whether it is slow beside those of its kind: within one host, or between two."""
    hosts = examination.hosts
    tried = [(int(first), int(second), seconds) for found in by_rank for first, second, seconds in found]
    kinds = {
        kind: [one for one in tried if (hosts[one[0]] == hosts[one[1]]) == (kind == "within a host")]
        for kind in ("between hosts", "within a host")
    }
    said, slow = [], []
    for kind, pairs in kinds.items():
        if not pairs:
            continue
        first, second, seconds = max(pairs, key=lambda one: one[2])
        median = statistics.median(one[2] for one in pairs)
        where = f"ranks {first} and {second} ({hosts[first]}, {hosts[second]})"
        said.append(f"slowest {kind} {where}: {speed_of(seconds):,.2f} GB/s, median {speed_of(median):,.2f} GB/s")
        if len(pairs) > 2 and seconds > SLOW_FACTOR * median:
            slow.append(where)
    text = f"{pairs_to_try(hosts)[0]}, {PAIR_BYTES >> 20} MiB there and back: {'; '.join(said)}"
    if slow:
        return warning(text, fix=f"look at the link between {'; '.join(slow)}: every step waits for the slowest")
    return ok(text)


def speed_of(seconds: float) -> float:
    """GB a second of PAIR_BYTES there and back."""
    return 2 * PAIR_BYTES / seconds / 1e9
