"""Which of how many ranks this process is, read from the variables that launchers set. No torch, no side effect.

torchrun and the deepspeed launcher set torch's own names. srun has others, which are translated. Of other launchers
only so much is read that a process started beside others never takes itself for the only one.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from bert_lamb.errors import UserError

# (number of processes, number of this one) as launchers other than torchrun, deepspeed and srun name them
FOREIGN_LAUNCHERS = {
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "MVAPICH": ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    "MVAPICH 3": ("MVP_COMM_WORLD_SIZE", "MVP_COMM_WORLD_RANK"),
    "Flux": ("FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
    "jsrun": ("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"),
    "PALS": ("PALS_NRANKS", "PALS_RANKID"),
    "ALPS": ("ALPS_APP_SIZE", "ALPS_APP_PE"),
    "PMI": ("PMI_SIZE", "PMI_RANK"),
    "Intel MPI": ("MPI_LOCALNRANKS", "MPI_LOCALRANKID"),
    "PMIx": ("PMIX_SIZE", "PMIX_RANK"),
}
LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")  # ranks on this machine, as torchrun and deepspeed name them
HOW_TO_START = "start the ranks with torchrun, deepspeed, or srun as in scripts/launch/slurm.sh"
MAX_PORT = 65_535


@dataclass(frozen=True)
class Place:
    """This process among the ranks. local_rank: on its machine. local_size: ranks on its machine, where known.

    is_launched: a launcher gave the rank; False for a process called by itself.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_size: int | None = None
    is_launched: bool = False

    def variables(self) -> dict[str, str]:
        """What torch.distributed and DeepSpeed read."""
        return {"RANK": str(self.rank), "LOCAL_RANK": str(self.local_rank), "WORLD_SIZE": str(self.world_size)}


def place_in(environment: Mapping[str, str]) -> Place:
    """The place that `environment` gives; raises UserError where its variables contradict each other or say too little.

    An empty variable counts as absent. Left-overs that change nothing (WORLD_SIZE=1, MASTER_ADDR alone) are ignored.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    if "RANK" in given:
        return _place_of_torch(given)
    if (place := _place_of_slurm(given)) is not None:
        return place
    _refuse_foreign_launchers(given)
    for name, alone in (("WORLD_SIZE", 1), ("LOCAL_RANK", 0)):
        if _number(given, name, default=alone) != alone:
            raise UserError(
                found=f"{name}={given[name]} without RANK",
                expected="RANK, LOCAL_RANK and WORLD_SIZE as a launcher sets them, or none of them",
                fix=f"unset {name} for a run of one process, or {HOW_TO_START}",
            )
    return Place()


def rank_label() -> str:
    """ "rank 3 of 8 on host2: " when there are several ranks, else nothing."""
    try:
        place = place_in(os.environ)
    except UserError:
        return ""
    if place.world_size == 1:
        return ""
    import socket

    return f"rank {place.rank} of {place.world_size} on {socket.gethostname()}: "


class WithoutRanksError(UserError):
    """Several processes were started by a launcher that gives no rank; number: which of them this one is."""

    def __init__(self, *, number: int, found: str, expected: str, fix: str) -> None:
        self.number = number
        super().__init__(found=found, expected=expected, fix=fix)


def may_speak(environment: Mapping[str, str]) -> bool:
    """Whether this process says what every process of its machine finds alike: the first one does.

    Where the variables contradict each other nobody knows which is the first, so each process speaks.
    """
    try:
        return place_in(environment).local_rank == 0
    except WithoutRanksError as error:
        return error.number == 0
    except UserError:
        return True


def _place_of_torch(given: Mapping[str, str]) -> Place:
    if "WORLD_SIZE" not in given:
        raise UserError(
            found=f"RANK={given['RANK']} without WORLD_SIZE",
            expected="RANK, LOCAL_RANK and WORLD_SIZE as a launcher sets them, or none of them",
            fix=f"unset RANK for a run of one process, or {HOW_TO_START}",
        )
    rank, world_size = _number(given, "RANK"), _number(given, "WORLD_SIZE")
    _check(0 <= rank < world_size, f"RANK={rank} with WORLD_SIZE={world_size}", "RANK in 0..WORLD_SIZE - 1")
    local_name = next((name for name in LOCAL_SIZES if name in given), None)
    local_size = _number(given, local_name) if local_name else None
    if world_size == 1:
        local_rank = _number(given, "LOCAL_RANK", default=0)
        _check(local_rank == 0, f"LOCAL_RANK={local_rank} with WORLD_SIZE=1", "LOCAL_RANK=0")
        return Place(local_size=1, is_launched=True)
    _check(
        "LOCAL_RANK" in given,
        f"RANK={rank} of WORLD_SIZE={world_size} without LOCAL_RANK",
        "LOCAL_RANK, the number of the rank on its machine, which chooses its GPU",
    )
    local_rank = _number(given, "LOCAL_RANK")
    most, of_what = (local_size, local_name) if local_size is not None else (world_size, "WORLD_SIZE")
    _check(0 <= local_rank < most, f"LOCAL_RANK={local_rank} with {of_what}={most}", f"LOCAL_RANK in 0..{of_what} - 1")
    _check_meeting_point(given, world_size)
    return Place(rank, local_rank, world_size, local_size, is_launched=True)


def _place_of_slurm(given: Mapping[str, str]) -> Place | None:
    """The place of a task of srun's; None without one. A batch script's own process is alone, whatever --ntasks says.

    SLURM_STEP_NUM_TASKS counts the tasks of this very step, which a batch script does not have; SLURM_NTASKS counts
    those of the whole job in a batch script, and those of the step under srun.
    """
    if "SLURM_PROCID" not in given:
        return None
    rank = _number(given, "SLURM_PROCID")
    num_tasks = _number(given, "SLURM_STEP_NUM_TASKS", default=1)
    if rank > 0:
        num_tasks = max(num_tasks, _number(given, "SLURM_NTASKS", default=1))
    if num_tasks <= 1:
        _check(rank == 0, f"SLURM_PROCID={rank} without SLURM_NTASKS", "the number of tasks beside the number of this")
        return None
    if "MASTER_ADDR" not in given:
        raise WithoutRanksError(
            number=rank,
            found=f"{num_tasks} tasks of srun without MASTER_ADDR",
            expected="MASTER_ADDR and MASTER_PORT, where the ranks meet; without them each task would train alone",
            fix="use scripts/launch/slurm.sh, or export both as it does; for one process, srun --ntasks=1",
        )
    _check(rank < num_tasks, f"SLURM_PROCID={rank} with {num_tasks} tasks", "SLURM_PROCID below the number of tasks")
    _check_meeting_point(given, num_tasks)
    return Place(rank, _number(given, "SLURM_LOCALID"), num_tasks, is_launched=True)


def _refuse_foreign_launchers(given: Mapping[str, str]) -> None:
    for launcher, (size_name, rank_name) in FOREIGN_LAUNCHERS.items():
        # A single process of such a launcher is fine; what does not look like a number is somebody else's variable.
        size, rank = (int(given[name]) if given.get(name, "").isdecimal() else 0 for name in (size_name, rank_name))
        if size > 1 or rank > 0:
            seen = f"{size_name}={given[size_name]}" if size > 1 else f"{rank_name}={given[rank_name]}"
            raise WithoutRanksError(
                number=rank,
                found=f"several processes of {launcher} ({seen}) without RANK and WORLD_SIZE",
                expected="a launcher that gives ranks; from this one each process would train alone",
                fix=HOW_TO_START,
            )


def _check_meeting_point(given: Mapping[str, str], world_size: int) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        _check(
            name in given,
            f"WORLD_SIZE={world_size} without {name}",
            "MASTER_ADDR and MASTER_PORT, where the ranks meet",
        )
    port = _number(given, "MASTER_PORT")
    _check(0 < port <= MAX_PORT, f"MASTER_PORT={port}", f"a port in 1..{MAX_PORT}")


def _number(given: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    if name not in given:
        if default is not None:
            return default
        raise UserError(found=f"no {name}", expected="it beside the launcher's other variables", fix=HOW_TO_START)
    _check(given[name].isdecimal() and given[name].isascii(), f"{name}={given[name]!r}", "a whole number, 0 or more")
    return int(given[name])


def _check(is_right: bool, found: str, expected: str) -> None:
    if not is_right:
        raise UserError(
            found=found, expected=expected, fix=f"unset the variables for a run of one process, or {HOW_TO_START}"
        )
