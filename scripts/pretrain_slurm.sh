#!/usr/bin/env bash
# Pretrain on SLURM: sbatch --nodes 8 scripts/pretrain_slurm.sh recipe=lamb_32k shards=SHARDS run_dir=RUN [key=value ...]
# SLURM asks the run to stop five minutes before the time limit; it saves a checkpoint and the job goes back to the queue.
#SBATCH --job-name=bert-lamb
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
# srun starts one process for each rank; rank and world size are read from SLURM's own variables.
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" bert-lamb pretrain "$@" if_exists=resume
status=$?
if [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
