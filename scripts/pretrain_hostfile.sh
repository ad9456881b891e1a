#!/usr/bin/env bash
# Pretrain on the machines of a hostfile ("host slots=8" a line) with the deepspeed launcher over ssh.
#   HOSTFILE=hosts MASTER_ADDR=host1 scripts/pretrain_hostfile.sh recipe=lamb_32k shards=SHARDS run_dir=RUN [key=value ...]
# Every machine needs the same environment at the same path, and sees shards and run_dir on a shared file system.
set -euo pipefail
: "${HOSTFILE:?set HOSTFILE to a file with a line \"host slots=N\" for each machine}"
: "${MASTER_ADDR:?set MASTER_ADDR to the first host, as the others reach it}"
exec deepspeed --hostfile "$HOSTFILE" --master_addr "$MASTER_ADDR" --module bert_lamb pretrain "$@"
