#!/usr/bin/env bash
# Pretrain on all GPUs of this machine.
#   scripts/launch/one_machine.sh recipe=lamb_32k shards=SHARDS run_dir=RUN [key=value ...]
# Run it again with if_exists=resume after an interruption, on another number of GPUs too.
# NUM_GPUS=N starts N ranks; without it as many as CUDA_VISIBLE_DEVICES names, or nvidia-smi lists.
# COMMAND=squad or COMMAND=glue fine-tunes instead, with the arguments of that command (and runtime=gpu).
set -euo pipefail
if [ -z "${NUM_GPUS-}" ] && [ -n "${CUDA_VISIBLE_DEVICES-}" ]; then
    NUM_GPUS=$(tr , '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .)
fi
NUM_GPUS=${NUM_GPUS:-$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)}
case "$NUM_GPUS" in
'' | 0 | *[!0-9]*)
    echo "one_machine.sh: found NUM_GPUS=$NUM_GPUS; expected 1 or more (nvidia-smi lists the GPUs);" \
        "fix: set NUM_GPUS, and runtime=cpu for ranks without a GPU" >&2
    exit 2
    ;;
esac
# SIGTERM, SIGINT, SIGHUP and SIGUSR1 end the run after the step, with a checkpoint; SIGQUIT ends it at once. torchrun
# hands on what it handles. What this shell was started to ignore, such as SIGHUP under nohup, must stay ignored: torchrun
# would take it all the same, and end ranks that do not listen.
ignored=$(trap)
signals=SIGQUIT
for signal in SIGTERM SIGINT SIGHUP SIGUSR1; do
    case "$ignored" in
    *"-- '' $signal"*) ;;
    *) signals+=,$signal ;;
    esac
done
# How long ranks may take to finish the step and save before torchrun kills them. torch before 2.13 may not know it, and
# waits for 30 seconds.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # what torchrun would set, with a banner
# Micro-batches differ in tokens; segments that grow keep a GPU's memory from fragmenting.
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
exec torchrun --signals-to-handle "$signals" --standalone --nproc-per-node "$NUM_GPUS" --no-python \
    bert-lamb "${COMMAND:-pretrain}" "$@"
