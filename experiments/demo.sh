#!/bin/sh
# Makes the bundled checkpoint (examples/demo/model) from nothing: experiments/demo.sh FOLDER [NESTAR [SEED]]. Everything goes into FOLDER, the
# result is FOLDER/model; with a SEED the same parent is nested once more, into FOLDER/model-SEED. Resumable: a step whose output is there is passed over, a training run that was interrupted goes on.
# Cost on two cores of a Zen 5: about an hour (docs/RESULTS.md, "The bundled model").
set -e
[ $# -ge 1 ] || { echo "usage: $0 FOLDER [NESTAR [SEED]]" >&2; exit 2; }
out=$1 nestar=${2:-build/nestar} seed=${3:-2} model=model${3:+-$3}
demo=$(cd "$(dirname "$0")/../examples/demo" && pwd)
mkdir -p "$out"
step() { # step OUTPUT COMMAND..
    target=$1
    shift
    [ -e "$target" ] && return 0
    printf '+ nestar' >&2
    printf ' %s' "$@" >&2
    printf '\n' >&2
    "$nestar" "$@"
}

# 420,000 problems, 29 M tokens; the parent sees 16 M of them once
step "$out/train.jsonl" problems -n 420000 --seed 1 -o "$out/train.jsonl"
step "$out/test.jsonl" problems -n 1000 --seed 2 --split test -o "$out/test.jsonl"
step "$out/parent" train "$demo/config.json" --tokenizer "$demo/text" --data "$out/train.jsonl" -o "$out/parent" --seq 1024 --batch 8 \
    --steps 2000 --lr 2.5e-3 --lr-min 1e-4 --weight-decay 0.01 --balance 0.001 --eval-docs 500 --eval-every 250 --seed 1 --resume
step "$out/stats.safetensors" importance "$out/parent" --data "$out/train.jsonl" --tokens 500000 --seq 1024 -o "$out/stats.safetensors"
step "$out/ranked" permute "$out/parent" --stats "$out/stats.safetensors" -o "$out/ranked"
step "$out/$model" elastify "$out/ranked" --budgets 1,0.75,0.5 --names full,medium,small --axes hidden,expert_ffn,shared_ffn \
    --choices hidden=192,176,160,144,128,112,96 --choices expert_ffn=64,48,32 --choices shared_ffn=128,96,64 --data "$out/train.jsonl" \
    -o "$out/$model" --seq 1024 --batch 2 --accum 4 --steps 800 --stage2-steps 800 --freeze-router --switch 0.6 --lr 1e-3 \
    --lr-min 5e-5 --eval-docs 500 --seed "$seed" --dtype bf16 --resume
"$nestar" eval "$out/$model" --task "$out/test.jsonl" --sizes full,medium,small --think-budgets 0,16,32,inf
