#!/bin/sh
# One checkpoint, several sizes: demo.sh NESTAR FOLDER. Runs the bundled model; what it writes goes into FOLDER.
set -e
nestar=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
model=$here/model
rm -rf "$out"
mkdir -p "$out"

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold= plain=; fi
say() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
# Prints the command as one would type it, then runs it; speeds and sizes come below an answer.
run() {
    printf '$ nestar'
    for a in "$@"; do
        case $a in "$model") a=examples/demo/model ;; *[\ \*\;]*) a="'$a'" ;; esac
        printf ' %s' "$a"
    done
    printf '\n'
    "$nestar" "$@"
}

cat <<'END'
The bundled model has some three million parameters and was trained by nestar alone (experiments/demo.sh) to solve small problems
with worked thoughts. Inside its weights lie smaller models; all of them run from the one copy in memory.
END

say "1. What is in it"
run inspect "$model"

question='Start with 25. Add 2. Subtract 7. Multiply by 3. Add 6.'
say "2. One question, at every size (the right answer is 66)"
for size in full medium small; do
    run run "$model" --size "$size" --temp 0 -p "$question"
    echo
done

say "3. The size changes in the middle of the answer: 20 tokens of thought at the smallest size, the rest at full"
run run "$model" --sizes small:20,full --temp 0 -p "$question"
echo
cat <<'END'

The full size went on with the cache that the small one wrote: its sizes were trained for that (elastify --switch), and nest.json says so.
--handover prefill reads again what was said so far.
END

say "4. What each size gets right of 60 problems that training never saw, by how long it may think"
run problems -n 60 --seed 7 --split test -o "$out/test.jsonl"
run eval "$model" --task "$out/test.jsonl" --sizes full,small --think-budgets 0,16,inf

say "5. One size written out as an ordinary checkpoint of its own"
run slice "$model" --size small -o "$out/small"
du -sh "$model" "$out/small" | sed "s|$here|examples/demo|"

say "Next: nestar chat examples/demo/model   (/sizes lists the sizes, /size small changes while you talk)"
say "      nestar serve examples/demo/model  (the OpenAI API and a page at http://127.0.0.1:8080)"
