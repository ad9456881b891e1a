#!/usr/bin/env bash
# Pretrain on the machines of a hostfile ("host slots=8" a line) with the deepspeed launcher over ssh and pdsh.
#   HOSTFILE=hosts MASTER_ADDR=host1 scripts/launch/hostfile.sh recipe=lamb_32k shards=SHARDS run_dir=RUN [key=value ...]
# Options of the launcher come before a "--", such as --ssh_port, --include, --exclude and --master_port:
#   HOSTFILE=hosts MASTER_ADDR=host1 scripts/launch/hostfile.sh --include host1:0,1@host2 --ssh_port 2222 -- recipe=...
# MASTER_PORT, or --master_port, is a free port of MASTER_ADDR; without it one is drawn. Without pdsh, call it on every
# machine with "--no_ssh --node_rank N --" and the same MASTER_PORT.
# Every machine needs the same environment at the same path, and sees shards and run_dir on a shared file system. Of this
# shell's variables only those named PYTHON*, NCCL*, UCX* and MLFLOW* reach the machines; others (GLOO_SOCKET_IFNAME,
# OMP_NUM_THREADS, PYTORCH_CUDA_ALLOC_CONF, WANDB_*, HF_*) do from a file .deepspeed_env, here or in the home folder, with a line NAME=value each.
# COMMAND=squad or COMMAND=glue fine-tunes instead, with the arguments of that command (and runtime=gpu).
set -euo pipefail
refuse() { # found expected fix
    echo "hostfile.sh: found $1; expected $2; fix: $3" >&2
    exit 2
}
options=()
for word in "$@"; do
    if [ "$word" = -- ]; then
        while [ "$1" != -- ]; do
            options+=("$1")
            shift
        done
        shift
        break
    fi
done
given=" ${options[*]-} "

# pdsh says when the ranks of a machine have failed, and then waits for all the others, for ever where one is stopped or
# hangs. This passes on what is said and ends the launcher, which ends the ranks, half a minute later.
end_with_the_first() {
    trap '' INT TERM HUP
    local line status until=
    while true; do
        status=0
        IFS= read -r -t 2 line || status=$?
        if [ "$status" -eq 0 ]; then
            printf '%s\n' "$line" || true
        else
            printf '%s' "$line" || true
            [ "$status" -gt 128 ] || break # all who might say something have left
        fi
        case "$line" in
        "pdsh@"*": ssh exited with exit code "*) until=${until:-$((SECONDS + ${GRACE_SECONDS:-30}))} ;;
        esac
        if [ -n "$until" ] && [ "$SECONDS" -ge "$until" ]; then
            echo "hostfile.sh: one machine's ranks have failed, and others have not ended since; ending them" || true
            kill -TERM $$ 2>/dev/null || true
            until=$((SECONDS + 3600))
        fi
    done
}

# Without this the launcher trains on this machine alone when the file is not there, and shows tracebacks for the rest.
hostfile=${HOSTFILE-}
form='a line "host slots=N" for each machine, each host once'
[ -n "$hostfile" ] || refuse "no HOSTFILE" "a file with $form" "set HOSTFILE"
[ -f "$hostfile" ] && [ -r "$hostfile" ] || refuse "no readable file $hostfile" "a file with $form" "set HOSTFILE"
wrong=$(awk '/^[ \t\r]*(#|$)/ { next }
    !/^[ \t]*[^ \t#]+[ \t]+slots=[1-9][0-9]*[ \t\r]*(#.*)?$/ { print "line " NR " of it: " $0; exit }
    seen[$1]++ { print "line " NR " of it: a second " $1; exit }
    { hosts++ } END { if (!hosts) print "no host in it" }' "$hostfile" | head -n 1)
[ -z "$wrong" ] || refuse "HOSTFILE=$hostfile with ${wrong//$'\r'/}" "$form" "write it so"
[ -n "${MASTER_ADDR-}" ] || refuse "no MASTER_ADDR" "the first host, as the others reach it" "set MASTER_ADDR"

case "$given" in
*" --master_port"*) ;;
*)
    case "$given" in
    *" --no_ssh "*) : "${MASTER_PORT:?set MASTER_PORT, the same on every machine}" ;;
    esac
    # Drawn below the range from which systems take ports for outgoing connections: a fixed one would let the ranks of a
    # second run join the first.
    options+=(--master_port "${MASTER_PORT:-$((20000 + RANDOM % 12000))}")
    ;;
esac
case "$given" in
*" --no_ssh "*) ;;
*)
    case "$given" in
    *" --launcher "* | *" --launcher="*) ;;
    *)
        command -v pdsh >/dev/null || refuse "no pdsh" "pdsh on the PATH, with which the launcher reaches the machines" \
            "install it (Debian and Ubuntu: apt install pdsh), or start every machine with --no_ssh --node_rank N --"
        ;;
    esac
    case "$PWD" in
    *[!A-Za-z0-9_./@+=:,-]*) refuse "the folder $PWD" "one without blanks and special characters" "call it elsewhere" ;;
    esac
    # pdsh hands one line to the shell of each machine and replaces %h, %n and %u in it: every word is quoted for that.
    # The launcher itself puts words with blanks between double quotes.
    words=()
    for word in "$@"; do
        case "$word" in
        *$'\n'* | *$'\t'*) refuse "a line end or tab in $(printf %q "$word")" "one line a word" "write it without" ;;
        *" "*) word=$(sed 's/[\\$`]/\\&/g' <<<"$word") ;;
        *[!A-Za-z0-9_./@%+=:,-]*) word="'${word//\'/\'\\\'\'}'" ;;
        esac
        words+=("${word//%/%%}")
    done
    set -- "${words[@]}"
    options+=(--force_multi) # one machine too is started, and stopped, over ssh
    # The ranks that are left end within runtime.collective_timeout_seconds, but pdsh waits for every ssh, and ssh for ever
    # for a machine without power or link: this is how long. Options that are there already come first and win.
    export PDSH_SSH_ARGS_APPEND="${PDSH_SSH_ARGS_APPEND:+$PDSH_SSH_ARGS_APPEND }-o ServerAliveInterval=15 -o ServerAliveCountMax=3"
    ;;
esac
case "$given" in
*" --no_ssh "*) ;;
*) exec 2> >(end_with_the_first >&2) ;;
esac
# What the launcher does is not shown step by step; --log_level info before the "--" shows it.
exec deepspeed --log_level warning --hostfile "$hostfile" --master_addr "$MASTER_ADDR" "${options[@]}" --module bert_lamb "${COMMAND:-pretrain}" "$@"
