"""Checks of each machine by itself: versions, GPU, Triton, memory that processes share, files, cores."""

import os
import platform
import re
import resource
from pathlib import Path
from typing import Any

import torch

from bert_lamb.doctor.examination import Examination
from bert_lamb.doctor.finding import Finding, SkippedError, differences, failed, name_ranks, ok, warning
from bert_lamb.optim import fused
from bert_lamb.outputs.provenance import LIBRARIES, library_versions, versions

NOT_INSTALLED = "not installed"
SHM = Path("/dev/shm")
MIN_SHM_BYTES = 1 << 30  # Docker gives 64 MB; loader processes and NCCL hand over batches there
MIN_OPEN_FILES = 1024
OPEN_FILES_A_RANK = 16  # of one machine's or of rank 0's, which serves the store


def collect_versions(examination: Examination) -> dict[str, str]:
    known = versions()
    found = {"python": platform.python_version(), **library_versions((*LIBRARIES, "triton", "safetensors"))}
    found["CUDA of torch"] = str(torch.version.cuda or torch.version.hip or "none")
    found["commit"] = known["git_commit"]
    return found


def judge_versions(examination: Examination, by_rank: list[dict[str, str]]) -> Finding:
    """The same everywhere, and what the engine needs is there."""
    differing = [
        f"{name}: {said}"
        for name in by_rank[0]
        if (said := differences([versions[name] for versions in by_rank], examination.hosts))
    ]
    if differing:
        return failed("; ".join(differing), fix="install the same environment everywhere (constraints.txt)")
    found = by_rank[0]
    engine = examination.runtime.engine
    if engine == "deepspeed" and found["deepspeed"] == NOT_INSTALLED:
        return failed(
            "deepspeed is not installed", fix="install the package with its constraints, or runtime.engine=fsdp"
        )
    said = ", ".join(f"{name} {version}" for name, version in found.items() if version != NOT_INSTALLED)
    return ok(said + _on_all(examination))


def _on_all(examination: Examination) -> str:
    return f"; the same on {examination.world_size} ranks" if examination.world_size > 1 else ""


def collect_gpu(examination: Examination) -> dict[str, Any] | None:
    """This rank's GPU; None on the CPU. Raises UserError where the runtime asks for one that is not there."""
    if examination.why_no_device is not None:
        raise examination.why_no_device
    device = examination.process.device
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "has_bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        "driver": _driver(),
        "uuid": str(getattr(properties, "uuid", "")),
    }


def _driver() -> str:
    file = Path("/proc/driver/nvidia/version")
    found = re.search(r"Module(?: for \S+)?\s+(\d[\d.]*)", file.read_text()) if file.is_file() else None
    return found[1] if found else "unknown"


def judge_gpus(examination: Examination, by_rank: list[dict[str, Any] | None]) -> Finding:
    hosts = examination.hosts
    without = [rank for rank, gpu in enumerate(by_rank) if gpu is None]
    if len(without) == len(by_rank):
        if examination.runtime.device == "cpu":
            return ok("none, and runtime.device=cpu asks for none")
        return warning(
            f"none: runtime.device={examination.runtime.device} computes on the CPU",
            fix="set runtime=cpu, or see that torch finds the GPU; runtime=gpu, pretrain's default, would be refused",
        )
    if without:
        return failed(f"none on {name_ranks(without, hosts)}", fix="start ranks on machines with GPUs alone")
    gpus = [gpu for gpu in by_rank if gpu is not None]
    owners: dict[tuple[str, str], list[int]] = {}
    for rank, gpu in enumerate(gpus):
        if gpu["uuid"]:
            owners.setdefault((hosts[rank], gpu["uuid"]), []).append(rank)
    shared = [ranks for ranks in owners.values() if len(ranks) > 1]
    if shared:
        return failed(f"one GPU for {name_ranks(shared[0], hosts)}", fix="give each rank a GPU of its own")
    lacking = [rank for rank, gpu in enumerate(gpus) if not gpu["has_bf16"]]
    if lacking and examination.runtime.precision == "bf16":
        return failed(
            f"no bf16 in hardware on {name_ranks(lacking, hosts)}: {gpus[lacking[0]]['name']},"
            f" compute capability {gpus[lacking[0]]['capability']}",
            fix="set runtime.precision=fp16 or fp32",
        )
    said = [
        f"{gpu['name']}, {gpu['bytes'] / 1e9:.1f} GB, compute capability {gpu['capability']}, driver {gpu['driver']}"
        for gpu in gpus
    ]
    if differing := differences(said, hosts):
        return warning(differing, fix="the slowest rank holds up the others: take like GPUs, and one driver")
    return ok(f"{said[0]}{', bf16' if gpus[0]['has_bf16'] else ''}{_on_all(examination)}")


def collect_kernels(examination: Examination) -> str | None:
    """Why Triton's kernels do not run on this rank, or None."""
    if examination.process.device.type != "cuda" or examination.runtime.offload_optimizer:
        where = "optimizer state is in CPU memory" if examination.runtime.offload_optimizer else "no GPU"
        raise SkippedError(f"{where}: {implementation_without_kernels(examination)}")
    return fused.why_no_launch(examination.process.device)


def judge_kernels(examination: Examination, reasons: list[str | None]) -> Finding:
    optimizer = examination.recipe.optimizer
    asked = optimizer.implementation
    if differing := differences([str(reason or "they run") for reason in reasons], examination.hosts):
        return failed(differing, fix="install gcc and Python's header files (python3-dev) on every machine")
    if reasons[0] is None:
        used = {"auto": "fused (Triton)", None: "torch's own"}.get(asked, asked)
        return ok(f"a kernel was compiled and launched; {optimizer.name} runs as {used}")
    if asked == "fused":
        return failed(reasons[0], fix="install what is missing, or set optimizer.implementation=foreach")
    if asked == "auto":
        return warning(
            f"{reasons[0]}; {implementation_without_kernels(examination)}, which is slower", fix="install it"
        )
    return ok(f"not needed: {implementation_without_kernels(examination)} ({reasons[0]})")


def implementation_without_kernels(examination: Examination) -> str:
    optimizer = examination.recipe.optimizer
    used = {"auto": "foreach", None: "torch's own"}.get(optimizer.implementation, optimizer.implementation)
    return f"{optimizer.name} runs as {used}"


def collect_resources(examination: Examination) -> dict[str, Any]:
    room = os.statvfs(SHM) if SHM.is_dir() else None
    return {
        "shm_bytes": room.f_blocks * room.f_frsize if room else 0,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "cores": sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1)),
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
    }


def judge_resources(examination: Examination, by_rank: list[dict[str, Any]]) -> Finding:
    """/dev/shm, open files and cores of each host, where its ranks share them."""
    hosts, runtime = examination.hosts, examination.runtime
    is_shm_used = runtime.loader_workers > 0 or examination.process.device.type == "cuda"
    complaints: list[str] = []
    fixes: dict[str, None] = {}
    for host in dict.fromkeys(hosts):
        ranks = [rank for rank, one in enumerate(hosts) if one == host]
        facts = [by_rank[rank] for rank in ranks]
        if is_shm_used and facts[0]["shm_bytes"] < MIN_SHM_BYTES:
            complaints.append(f"{facts[0]['shm_bytes'] / 1e6:,.0f} MB of /dev/shm on {host}")
            fixes["give containers 1 GB or more of /dev/shm (docker run --ipc host or --shm-size)"] = None
        needed = max(MIN_OPEN_FILES, OPEN_FILES_A_RANK * examination.world_size)
        if 0 <= facts[0]["open_files"] < needed:
            complaints.append(f"{facts[0]['open_files']} open files on {host} where {needed} may be needed")
            fixes[f"ulimit -n {max(4096, needed)}"] = None
        cores = len({core for one in facts for core in one["cores"]})
        busy = sum(one["threads"] + runtime.loader_workers for one in facts)
        if busy > cores:
            complaints.append(
                f"{busy} threads and loader processes of {len(ranks)} ranks for {cores} cores on {host}"
                f" (OMP_NUM_THREADS {facts[0]['OMP_NUM_THREADS']})"
            )
            fixes[f"set OMP_NUM_THREADS={max(1, cores // len(ranks) - runtime.loader_workers)}"] = None
    first = by_rank[0]
    said = (
        f"{first['shm_bytes'] / 1e9:.2f} GB of /dev/shm, {first['open_files']} open files, {len(first['cores'])} cores,"
        f" {first['threads']} threads a rank (OMP_NUM_THREADS {first['OMP_NUM_THREADS']})"
    )
    if complaints:
        return warning("; ".join(complaints), fix="; ".join(fixes))
    return ok(said)
