"""Who this process is, from the environments that launchers set; what is said about those that say too little.

Truths: the variables that torchrun, deepspeed, srun and mpirun set, as their documentation and sources say.
Breaks that turn this file red: SLURM's names swapped, torchrun overruled by SLURM, WORLD_SIZE believed without RANK.
"""

import pytest

from bert_lamb.engine.place import may_speak, place_in
from bert_lamb.errors import UserError

MEET = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16", "SLURM_NPROCS": "16", "SLURM_NNODES": "2"}
BATCH = {**ALLOCATION, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = {**ALLOCATION, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "11", "SLURM_LOCALID": "3"}
TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", **MEET}
DEEPSPEED = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_SIZE": "4", "CROSS_RANK": "1", **MEET}


@pytest.mark.parametrize(
    ("environment", "expected"),  # rank, local rank, world size
    [
        ({}, (0, 0, 1)),
        (TORCHRUN, (5, 1, 8)),
        (DEEPSPEED, (5, 1, 8)),
        ({**TORCHRUN, **STEP}, (5, 1, 8)),  # torchrun in a task of srun
        ({**TORCHRUN, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, (5, 1, 8)),  # a script under mpirun
        ({**STEP, **MEET}, (11, 3, 16)),
        ({**STEP, **MEET, "SLURM_STEP_NUM_TASKS": ""}, (11, 3, 16)),
        ({**STEP, **MEET, "PMI_SIZE": "16", "PMI_RANK": "11", "PMIX_RANK": "11"}, (11, 3, 16)),  # srun --mpi=pmi2, pmix
        (ALLOCATION, (0, 0, 1)),  # salloc
        (BATCH, (0, 0, 1)),  # called by sbatch's script, without srun
        ({**BATCH, **MEET}, (0, 0, 1)),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 0, 1)),  # srun -n 1
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, (0, 0, 1)),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, (0, 0, 1)),
        ({"PMI_SIZE": "many"}, (0, 0, 1)),
        ({"WORLD_SIZE": "1"}, (0, 0, 1)),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "1"}, (0, 0, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 0, 1)),
        ({"RANK": "", "WORLD_SIZE": " ", "LOCAL_RANK": ""}, (0, 0, 1)),
        (MEET, (0, 0, 1)),
        ({"MASTER_ADDR": "node1"}, (0, 0, 1)),
    ],
)
def test_a_place_is_read(environment, expected):
    place = place_in(environment)
    assert (place.rank, place.local_rank, place.world_size) == expected


def without(environment, *names):
    return {name: value for name, value in environment.items() if name not in names}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"WORLD_SIZE": "2"}, "found WORLD_SIZE=2 without RANK"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1", **MEET}, "found WORLD_SIZE=2 without RANK"),
        ({"LOCAL_RANK": "3"}, "found LOCAL_RANK=3 without RANK"),
        ({"WORLD_SIZE": "0"}, "found WORLD_SIZE=0 without RANK"),
        ({"RANK": "0"}, "found RANK=0 without WORLD_SIZE"),
        ({"RANK": "3", "LOCAL_RANK": "3"}, "found RANK=3 without WORLD_SIZE"),
        ({**TORCHRUN, "RANK": "two"}, "found RANK='two'; expected a whole number"),
        ({**TORCHRUN, "RANK": "-1"}, "found RANK='-1'"),
        ({**TORCHRUN, "WORLD_SIZE": "8.0"}, "found WORLD_SIZE='8.0'"),
        ({**TORCHRUN, "LOCAL_RANK": "x"}, "found LOCAL_RANK='x'"),
        ({"WORLD_SIZE": "many"}, "found WORLD_SIZE='many'"),
        ({**TORCHRUN, "RANK": "8"}, "found RANK=8 with WORLD_SIZE=8"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "found RANK=1 with WORLD_SIZE=1"),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "2"}, "found LOCAL_RANK=2 with WORLD_SIZE=1"),
        ({**TORCHRUN, "LOCAL_RANK": "4"}, "found LOCAL_RANK=4 with LOCAL_WORLD_SIZE=4"),
        ({**DEEPSPEED, "LOCAL_RANK": "4"}, "found LOCAL_RANK=4 with LOCAL_SIZE=4"),
        ({**without(TORCHRUN, "LOCAL_WORLD_SIZE"), "LOCAL_RANK": "8"}, "found LOCAL_RANK=8 with WORLD_SIZE=8"),
        (without(TORCHRUN, "LOCAL_RANK"), "found RANK=5 of WORLD_SIZE=8 without LOCAL_RANK"),
        (without(TORCHRUN, "MASTER_PORT"), "found WORLD_SIZE=8 without MASTER_PORT"),
        (without(TORCHRUN, "MASTER_ADDR"), "found WORLD_SIZE=8 without MASTER_ADDR"),
        ({**TORCHRUN, "MASTER_PORT": "0"}, "found MASTER_PORT=0; expected a port"),
        ({**TORCHRUN, "MASTER_PORT": "70000"}, "found MASTER_PORT=70000"),
        (STEP, "found 16 tasks of srun without MASTER_ADDR"),
        ({**STEP, "SLURM_PROCID": "0"}, "found 16 tasks of srun without MASTER_ADDR"),
        ({**STEP, "MASTER_ADDR": "node1"}, "found WORLD_SIZE=16 without MASTER_PORT"),
        (without({**STEP, **MEET}, "SLURM_LOCALID"), "found no SLURM_LOCALID"),
        ({"SLURM_PROCID": "2"}, "found SLURM_PROCID=2 without SLURM_NTASKS"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, "found several processes of Open MPI (OMPI_COMM"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "WORLD_SIZE": "4"}, "found several processes of Open MPI"),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, "found several processes of PMI (PMI_SIZE=4)"),
        ({"PMIX_RANK": "1"}, "found several processes of PMIx (PMIX_RANK=1)"),
        ({"FLUX_JOB_SIZE": "2", "FLUX_TASK_RANK": "0"}, "found several processes of Flux"),
        ({"JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_RANK": "0"}, "found several processes of jsrun"),
        ({"MV2_COMM_WORLD_SIZE": "2"}, "found several processes of MVAPICH"),
        ({"MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "0"}, "found several processes of Intel MPI"),
        ({"PALS_RANKID": "3"}, "found several processes of PALS"),
    ],
)
def test_what_says_too_little_is_refused_in_a_line(environment, found):
    with pytest.raises(UserError) as refused:
        place_in(environment)
    assert str(refused.value).startswith(found)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({**TORCHRUN, "LOCAL_RANK": "0", "RANK": "4"}, True),  # the first of its machine
        (TORCHRUN, False),
        ({**STEP, **MEET}, False),
        ({**STEP, **MEET, "SLURM_PROCID": "8", "SLURM_LOCALID": "0"}, True),
        ({**STEP, "SLURM_PROCID": "0"}, True),
        (STEP, False),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2"}, False),
        ({"LOCAL_RANK": "3"}, True),  # left over: this process may be the only one
        ({"RANK": "3", "LOCAL_RANK": "3"}, True),
        ({"SLURM_PROCID": "2"}, True),
    ],
)
def test_what_all_find_alike_is_said_by_the_first(environment, expected):
    assert may_speak(environment) is expected
