"""Stand-ins for SLURM's own commands, for what is written for sbatch to run on this machine."""

from pathlib import Path

SBATCH = """#!/bin/bash
# Run the tasks of the array one after the other, as SLURM would on machines of its own; ended/ says which are over.
here=$(dirname "$0")
mkdir -p "$here/ended"
echo job >>"$here/submitted"
job=$((76 + $(wc -l <"$here/submitted")))
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
echo "Submitted batch job $job"
export SLURM_JOB_ID=$job SLURM_JOB_NODELIST=here SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
export SLURM_JOB_NUM_NODES=1
if [ -z "$last" ]; then # a single job is no array
    bash "$1"
    touch "$here/ended/$job"
    exit
fi >"$here/sbatch.log" 2>&1 &
for index in $(seq 0 "${last:--1}"); do
    SLURM_JOB_ID=$((100 + index)) SLURM_ARRAY_JOB_ID=$job SLURM_ARRAY_TASK_ID=$index bash "$1"
    touch "$here/ended/${job}_$index"
done >>"$here/sbatch.log" 2>&1 &
"""
SRUN = """#!/bin/bash
while [[ $1 == --* || $1 == -* ]]; do
    if [[ $1 == --output || $1 == --error ]]; then shift; fi
    shift
done
exec "$@"
"""
SACCT = """#!/bin/bash
echo 'JobID|State|NodeList'
for job in 77 78; do
    for task in "" _0 _1 _2 _3; do
        [ -e "$(dirname "$0")/ended/$job$task" ] && state=COMPLETED || state=RUNNING
        echo "$job$task|$state|here"
    done
done
"""
SCONTROL = """#!/bin/bash
echo 127.0.0.1
"""


def commands_of_slurm(folder: Path) -> Path:
    """The folder, to be put before PATH, with sbatch, srun, sacct and scontrol in it."""
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder
