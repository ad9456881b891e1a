#!/usr/bin/env bash
# Pretrain on all GPUs of this machine.
#   scripts/pretrain_one_machine.sh recipe=lamb_32k shards=SHARDS run_dir=RUN [key=value ...]
# Run it again with if_exists=resume after an interruption, on another number of GPUs too.
set -euo pipefail
NUM_GPUS=${NUM_GPUS:-$(nvidia-smi --list-gpus | wc -l)}
# torchrun hands these signals to its ranks, which have 30 seconds to finish the step and save.
exec torchrun --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --standalone --nproc-per-node "$NUM_GPUS" --no-python bert-lamb pretrain "$@"
