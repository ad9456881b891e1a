#!/usr/bin/env bash
# The main job, end to end, on the embedded default corpus and two CPU ranks; `make demo` calls it.
#   IF_EXISTS=resume   (default) keep what is finished, continue what is not; each command says so
#   IF_EXISTS=restart  start anew
#   RUN=folder         where everything goes (default runs/demo)
set -euo pipefail
RUN=${RUN:-runs/demo}
IF_EXISTS=${IF_EXISTS:-resume}
RANKS=${RANKS:-2}
export BERT_LAMB_DEMO_DATA="$RUN/data"

say() { printf '\n== %s\n' "$*"; }
started=$SECONDS
if [ -e "$RUN" ]; then
    say "$RUN exists; if_exists=$IF_EXISTS (make demo FRESH=1 starts anew)"
fi

say "1/7 corpus"
bert-lamb demo-data output_dir="$RUN/data" if_exists=resume
say "2/7 shards for lengths 128 and 512"
bert-lamb prepare corpus=demo output_dir="$RUN/shards" if_exists="$IF_EXISTS"
say "3/7 pretraining, $RANKS ranks, DeepSpeed ZeRO stage 1"
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} torchrun --standalone --nproc-per-node "$RANKS" --no-python \
    bert-lamb pretrain recipe=demo shards="$RUN/shards" run_dir="$RUN/pretrain" if_exists="$IF_EXISTS"
say "4/7 export"
bert-lamb export run_dir="$RUN/pretrain" output_dir="$RUN/export" if_exists="$IF_EXISTS"
for weights in pretrained random; do
    say "$([ $weights = pretrained ] && echo 5 || echo 6)/7 question answering from $weights weights"
    bert-lamb squad fine_tuning=demo model_dir="$RUN/export" initial_weights=$weights \
        train_file="$RUN/data/questions/train.json" eval_file="$RUN/data/questions/dev.json" \
        run_dir="$RUN/questions-$weights" if_exists="$IF_EXISTS"
done
say "7/7 report"
bert-lamb report run_dir="$RUN/pretrain" \
    +scores.pretrained="$RUN/questions-pretrained" +scores.random_weights="$RUN/questions-random"

COMMAND=bert-lamb
if [ -x .venv/bin/bert-lamb ]; then COMMAND=.venv/bin/bert-lamb; fi
TEXT="$RUN/somalia.txt"
echo "Planes can land at 40 airports. In a year it produces goods and services worth \$12.109 billion." >"$TEXT"
say "done in $((SECONDS - started)) s. Now"
cat <<END
look      open $RUN/pretrain/report.html in a browser
ask       $COMMAND ask model_dir=$RUN/questions-pretrained/model context=$TEXT question='How much does Somalia produce in a year?'
compare   $COMMAND report run_dir=$RUN/questions-pretrained 'compare=[$RUN/questions-random]'
your text docs/own_text.md takes a folder of text files through the same steps
read on   docs/getting_started.md
END
