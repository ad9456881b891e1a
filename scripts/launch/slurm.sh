#!/usr/bin/env bash
# Pretrain on SLURM: sbatch --nodes 8 scripts/launch/slurm.sh recipe=lamb_32k shards=SHARDS run_dir=RUN [key=value ...]
# Five minutes before the time limit SLURM asks the job to stop; it saves a checkpoint and goes back to the queue.
# `scancel --batch --signal=USR1 JOB` asks for the same at any time. A mistake ends the job as FAILED.
# What sbatch is told comes before what is written below. Nodes of 4 GPUs and 128 cores:
#     sbatch --nodes 16 --ntasks-per-node 4 --gpus-per-node 4 --cpus-per-task 32 scripts/launch/slurm.sh ...
# Nodes without GPUs, two ranks each (tests/cluster starts it so):
#     sbatch --nodes 8 --ntasks-per-node 2 --gpus-per-node 0 --cpus-per-task 32 scripts/launch/slurm.sh runtime=cpu ...
# COMMAND=squad or COMMAND=glue fine-tunes instead, with the arguments of that command (and runtime=gpu).
#SBATCH --job-name=bert-lamb
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# A port of this job's own, below the range from which systems take ports for outgoing connections.
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}
# Micro-batches differ in tokens; segments that grow keep a GPU's memory from fragmenting.
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}

# Whether to come back is decided by who asked, never by the status: srun returns the highest of all tasks, and tasks that
# it ends because one failed count as ended by SIGTERM, just like tasks that saved.
is_asked=no
asking=
ask_ranks() { # again and again, since ranks that are still starting may not hear the first
    is_asked=yes
    [ -z "$asking" ] || return
    while scancel --signal=USR1 "$SLURM_JOB_ID" || true; do sleep 20; done >/dev/null 2>&1 &
    asking=$!
}
trap ask_ranks USR1

# srun starts one process for each rank; rank and world size are read from SLURM's own variables.
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    bert-lamb "${COMMAND:-pretrain}" "$@" if_exists=resume &
ranks=$!
while kill -0 "$ranks" 2>/dev/null; do
    wait "$ranks" # a trapped signal ends this as well
done
wait "$ranks"
status=$?
[ -z "$asking" ] || kill "$asking"
if [ "$is_asked" = yes ] && [ "$status" -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
