#!/bin/sh
# Think with one size, answer with another: experiments/pairs.sh FOLDER [NESTAR] [MODEL]. Every pair of sizes, the cache kept and the prefix read
# again, under several budgets of thought; three answers drawn for each of the first 300 of 1000 problems. FOLDER/pairs.db has all answers, FOLDER/pairs the page of
# `nestar report`. The same command again goes on where it was.
set -e
[ $# -ge 1 ] || { echo "usage: $0 FOLDER [NESTAR] [MODEL]" >&2; exit 2; }
out=$1 nestar=${2:-build/nestar}
model=${3:-$(cd "$(dirname "$0")/../examples/demo/model" && pwd)}
mkdir -p "$out"
[ -e "$out/test.jsonl" ] || "$nestar" problems -n 1000 --seed 2 --split test -o "$out/test.jsonl"
"$nestar" eval "$model" --task "$out/test.jsonl" -n 300 --think full,medium,small --answers full,medium,small --handover cache,prefill \
    --think-budgets 8,16,24,32,40,48,inf --samples 3 --temperature 0.6 --seed 1 --results "$out/pairs.db"
"$nestar" report "$out/pairs.db" --checkpoint "$model" -o "$out/pairs"
