"""Who this process is among the ranks, from the environment that torchrun, deepspeed and srun set."""

import logging
import os
import socket
from dataclasses import dataclass
from typing import Literal

import torch

from bert_lamb.errors import UserError

# SLURM's names for what torch.distributed reads; scripts/pretrain_slurm.sh exports MASTER_ADDR and MASTER_PORT.
SLURM_NAMES = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}


@dataclass(frozen=True)
class Process:
    """This process's place. rank: over all machines; local_rank: on this machine, and the index of its GPU."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def this_process(*, device: Literal["auto", "cpu", "cuda"], num_threads: int | None) -> Process:
    """Read rank and world size from the environment and choose the device; a bare call is rank 0 of 1.

    Raises UserError for device="cuda" without a GPU, or fewer GPUs than ranks on this machine.
    """
    if "RANK" not in os.environ and "SLURM_PROCID" in os.environ and "MASTER_ADDR" in os.environ:
        os.environ.update({name: os.environ[slurm] for name, slurm in SLURM_NAMES.items()})
    rank, local_rank, world_size = (int(os.environ.get(name, default)) for name, default in _DEFAULTS)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return Process(rank, local_rank, world_size, torch.device("cpu"))
    num_gpus = torch.cuda.device_count()
    if local_rank >= num_gpus:
        raise UserError(
            found=f"{num_gpus} GPUs for local rank {local_rank}",
            expected="a GPU for each rank on a machine",
            fix="start fewer ranks per machine, or set runtime.device=cpu",
        )
    torch.cuda.set_device(local_rank)
    return Process(rank, local_rank, world_size, torch.device("cuda", local_rank))


_DEFAULTS = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))


def join_process_group(process: Process) -> None:
    """Initialise torch.distributed through DeepSpeed: nccl on GPUs, gloo on CPUs. Does nothing when it is done.

    DeepSpeed's shared-memory collective for CPUs is left out: it is compiled when the process starts, which takes
    half a minute and a compiler, and gloo serves the CPU's purpose here.
    """
    import deepspeed
    import deepspeed.comm

    # Its warnings at start are about what this room does on purpose (an optimizer that is not on DeepSpeed's list).
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if deepspeed.comm.is_initialized():
        return
    if "RANK" not in os.environ:
        os.environ.update(
            RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port())
        )
    if process.device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("nccl" if process.device.type == "cuda" else "gloo", verbose=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
