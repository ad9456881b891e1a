"""This process among the ranks: its place, its device, and the process group it belongs to."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch

from bert_lamb.engine import heartbeat
from bert_lamb.engine.place import Place, place_in
from bert_lamb.errors import UserError

HIDES_EVERY_GPU = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES; the last one is SLURM's
OTHER_DEVICE = "or set runtime.device=cpu"
# oneDNN keeps what it made for each shape, 1,024 of them, and without padding every micro-batch is a new one: the heap
# grows by gigabytes and never shrinks. A step has far fewer shapes than these, and none comes again.
KEPT_SHAPES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


@dataclass(frozen=True)
class Process:
    """This process's place. rank: over all machines; local_rank: on this machine, and the index of its GPU.

    timeout_seconds: that it waits for other ranks in one collective.
    """

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    timeout_seconds: float = 300.0

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def this_process(
    *, device: Literal["auto", "cpu", "cuda"], num_threads: int | None, timeout_seconds: float = 300.0
) -> Process:
    """Read rank and world size from the environment and choose the device; a bare call is rank 0 of 1.

    It also bounds what oneDNN keeps, which must come before its first operation; a value that is set already stays.

    Raises UserError for an environment that contradicts itself, for device="cuda" without a usable GPU, and for fewer
    GPUs than ranks on this machine.
    """
    try:
        place = place_in(os.environ)
    except UserError as error:
        error.reported_by("machine")
        raise
    if place.is_launched:
        os.environ.update(place.variables())
    os.environ.setdefault(*KEPT_SHAPES)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device("cpu")
    if device == "cuda":
        check_gpus(place)
        torch.cuda.set_device(place.local_rank)
        found = torch.device("cuda", place.local_rank)
    return Process(place.rank, place.local_rank, place.world_size, found, timeout_seconds)


def check_gpus(place: Place) -> None:
    """Raise UserError when this machine has no usable GPU for this rank, or for another one that it knows of."""
    if torch.version.cuda is None and torch.version.hip is None:
        raise UserError(
            found=f"torch {torch.__version__}, a build without CUDA",
            expected="a CUDA build of torch for runtime.device=cuda",
            fix="reinstall torch with --constraint constraints.txt from the CUDA builds' index that"
            f" https://pytorch.org/get-started/locally names for the CUDA that nvidia-smi shows, {OTHER_DEVICE}",
        ).reported_by("machine")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in HIDES_EVERY_GPU:
        raise UserError(
            found=f"CUDA_VISIBLE_DEVICES={hidden!r}, which hides every GPU",
            expected="the numbers of the GPUs to use",
            fix=f"unset CUDA_VISIBLE_DEVICES, {OTHER_DEVICE}",
        ).reported_by("machine")
    num_gpus = torch.cuda.device_count()
    if num_gpus == 0:
        raise UserError(
            found=f"no usable GPU ({_why_no_gpu()})",
            expected=f"a GPU and a driver for CUDA {torch.version.cuda}, which torch {torch.__version__} was built for",
            fix="see what nvidia-smi shows; update the driver or install a torch build for an older CUDA"
            f" (https://pytorch.org/get-started/previous-versions), {OTHER_DEVICE}",
        ).reported_by("machine")
    fix = f"start fewer ranks per machine, {OTHER_DEVICE}; under srun leave out --gpus-per-task and --gpu-bind"
    if place.local_size is not None and place.local_size > num_gpus:
        raise UserError(
            found=f"{num_gpus} GPUs for {place.local_size} ranks on {socket.gethostname()}",
            expected="a GPU for each rank on a machine",
            fix=fix,
        ).reported_by("machine")
    if place.local_rank >= num_gpus:
        raise UserError(
            found=f"{num_gpus} GPUs for local rank {place.local_rank}",
            expected="a GPU for each rank on a machine",
            fix=fix,
        )


def _why_no_gpu() -> str:
    """torch's own reason in a sentence: a driver that is too old, none at all, or no device."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).split(". ")[0].strip().rstrip(".") or type(error).__name__
    return "the driver lists none"


@contextmanager
def process_group(process: Process) -> Iterator[None]:
    """The process group, joined and at the end destroyed; one that was there before stays.

    That of several ranks stays for the next job of a sweep, which could not join again: the store in which they met
    keeps the addresses of the first group alone. `leave_together` ends it. After an error that this rank has alone the
    group is left as it is: to destroy it, all ranks would have to come.
    """
    is_ours = join_process_group(process)
    if is_ours and process.world_size > 1:
        _left_at_the_end.append(process)
        is_ours = False
    is_common = True
    try:
        yield
    except BaseException as error:
        # SystemExit: a signal that all ranks have agreed upon.
        is_common = isinstance(error, SystemExit) or (isinstance(error, UserError) and error.reporter == "rank 0")
        raise
    finally:
        if is_ours and is_common:
            leave_process_group()


def join_process_group(process: Process) -> bool:
    """Initialize torch.distributed: nccl on GPUs, gloo on CPUs. False when that was done before.

    Raises UserError when the ranks do not meet.
    """
    if torch.distributed.is_initialized():
        return False
    # A single process meets nobody: its port is its own, whatever is left over in the environment, unless torchrun
    # holds the store.
    if process.world_size == 1 and "TORCHELASTIC_USE_AGENT_STORE" not in os.environ:
        os.environ.update(
            RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port())
        )
    is_on_gpus = process.device.type == "cuda"
    # Bound to its GPU, as DeepSpeed does it; a process alone has no other to reach.
    bound_to = process.device if is_on_gpus and process.world_size > 1 else None
    try:
        torch.distributed.init_process_group(
            "nccl" if is_on_gpus else "gloo", timeout=timedelta(seconds=process.timeout_seconds), device_id=bound_to
        )
    except torch.distributed.DistError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            found=f"{process.world_size} ranks that do not meet at {where} ({str(error).splitlines()[0][:200]})",
            expected="every rank started, and MASTER_ADDR and a free MASTER_PORT that all machines reach",
            fix="look at the other ranks' first error; else set MASTER_PORT to a free port of the first machine",
        ) from error
    if process.world_size > 1:
        heartbeat.start(rank=process.rank, world_size=process.world_size, timeout_seconds=process.timeout_seconds)
    return True


def bound_every_wait(process: Process) -> None:
    """Give every process group this run's timeout: libraries make their own, with half an hour for a hung rank.

    A private function of torch's, the only one that reaches a group which is there; without it 30 minutes remain.
    """
    set_timeout = getattr(torch.distributed.distributed_c10d, "_set_pg_timeout", None)
    if process.world_size > 1 and set_timeout is not None:
        for group in torch.distributed.distributed_c10d._world.pg_map:
            set_timeout(timedelta(seconds=process.timeout_seconds), group)


def lend_to_deepspeed(process: Process) -> None:
    """Have DeepSpeed use the process group; the only engine that imports it calls this.

    DeepSpeed's shared-memory collective for CPUs is left out: it is compiled when the process starts, which takes
    half a minute and a compiler, and gloo serves the CPU's purpose here.
    """
    import deepspeed

    if process.device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(torch.distributed.get_backend(), verbose=False)


_left_at_the_end: list[Process] = []  # this process, while it is in a group of several ranks that was joined here


def leave_together() -> None:
    """Destroy the group of several ranks that `process_group` joined, if there is one; every rank calls it."""
    if _left_at_the_end:
        _left_at_the_end.clear()
        leave_process_group()


def leave_process_group() -> None:
    """Destroy the process group; every rank calls it."""
    heartbeat.stop()
    deepspeed = sys.modules.get("deepspeed")
    if deepspeed is not None and deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()  # with what it keeps of the group
    else:
        torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
