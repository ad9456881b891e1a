#!/usr/bin/env bash
# Everything that only a GPU can show, in one call of less than ten minutes: the tests that need one, then each benchmark.
#   scripts/bench/gpu_all.sh [FOLDER [PART...]]     default: gpu_results, and all parts
# Parts: tests (those that need a GPU), kernels (the fused optimizers' tests, compiled and not interpreted), lamb_step,
# train_step, plan (planner.measure=true), batch_32k (steps of the paper's batch by `bert-lamb pretrain`).
# FOLDER gets environment.txt, a log of each part, what the benchmarks write, and table.txt, which is printed last.
# A part that fails or takes too long is said in the table, and the next one runs. Exit status: 0 all passed, 1 some did
# not, 2 nothing was started. TOTAL_SECONDS=N (default 570) is the time for all of it, PYTHON the interpreter, SHARDS a
# folder with rows for train_step, which makes random ones without it, and for batch_32k, which is left out without it.
set -euo pipefail
folder=${1:-gpu_results}
parts=" ${*:2} "
python=${PYTHON:-python}
total_seconds=${TOTAL_SECONDS:-570}

refuse() {
    echo "gpu_all.sh: found $1; expected $2; fix: $3" >&2
    exit 2
}
case "$total_seconds" in
'' | 0* | *[!0-9]*) refuse "TOTAL_SECONDS=$total_seconds" "a number of seconds" "set TOTAL_SECONDS" ;;
esac
checkout=$(cd "$(dirname "$0")/../.." && pwd)
if [ -e "$folder" ] && { [ ! -d "$folder" ] || [ -n "$(ls -A "$folder")" ]; }; then
    refuse "$folder, which is there already" "a folder that is new or empty" "give another FOLDER"
fi
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
    refuse "no CUDA device that torch can use" "an NVIDIA GPU and a CUDA build of torch" \
        "run it on a GPU machine (nvidia-smi lists GPUs), or set PYTHON to the right interpreter"
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$checkout"
started_at=$SECONDS

{
    date -u +%Y-%m-%dT%H:%M:%SZ
    git rev-parse HEAD && git status --short
    nvidia-smi
    "$python" -V
    "$python" -m pip freeze
    lscpu
} >"$folder/environment.txt" 2>&1 || true

rows=()
num_failed=0
# run NAME LIMIT_SECONDS COMMAND...: into NAME.log, and a row: outcome, seconds, last line of the log.
run() {
    local name=$1 limit=$2 begun=$SECONDS status=0 outcome left
    shift 2
    if [ "$parts" != "  " ] && [[ "$parts" != *" $name "* ]]; then
        return
    fi
    left=$((total_seconds - (SECONDS - started_at)))
    if [ "$left" -lt 2 ]; then
        note "$name" "no time left" 0 "TOTAL_SECONDS=$total_seconds"
        return
    fi
    [ "$limit" -le "$left" ] || limit=$left
    echo "$name, at most $limit s ..." >&2
    timeout --kill-after=5 "$limit" "$@" >"$folder/$name.log" 2>&1 || status=$?
    case $status in
    0) outcome=passed ;;
    124 | 137) outcome="over $limit s" ;;
    *) outcome="failed ($status)" ;;
    esac
    note "$name" "$outcome" $((SECONDS - begun)) "$(grep . "$folder/$name.log" | tail -n 1 | cut -c 1-100 || true)"
}
note() {
    [ "$2" = passed ] || [ "$2" = skipped ] || num_failed=$((num_failed + 1))
    rows+=("$(printf '%-20s %-14s %7s  %s' "$1" "$2" "$3" "$4")")
}

train_step=(scripts/bench/train_step --preset gpu --models bert_large --rounds 6)
phases=(phases.phase1.total_steps=2 phases.phase2.total_steps=2 phases.phase2.global_batch_size=4096)
run tests 120 "$python" -m pytest -m gpu -p no:cacheprovider
run kernels 60 "$python" -m pytest -p no:cacheprovider tests/optim/test_optim_fused.py
run lamb_step 60 "$python" scripts/bench/lamb_step --out "$folder/lamb_step.json" --repeats 10
run train_step 225 "$python" "${train_step[@]}" --out "$folder/train_step.json" ${SHARDS:+--shards "$SHARDS"}
run plan 25 "$python" -m bert_lamb plan recipe=lamb_32k planner.gpus=1 planner.measure=true output="$folder/plan.json"
if [ -n "${SHARDS:-}" ]; then
    run batch_32k 75 "$python" -m bert_lamb pretrain recipe=lamb_32k "${phases[@]}" shards="$SHARDS" \
        run_dir="$folder/batch_32k" checkpoint.interval_minutes=0
fi

{
    printf '%-20s %-14s %7s  %s\n' part outcome seconds "last line"
    printf '%s\n' "${rows[@]}"
} | tee "$folder/table.txt"
[ "$num_failed" -eq 0 ]
