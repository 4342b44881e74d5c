#!/bin/sh
# One checkpoint, three sizes: demo.sh NESTAR FOLDER. Makes a small checkpoint of random weights in FOLDER and runs it.
set -e
nestar=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
printable() { LC_ALL=C tr -cd '[:print:]\n'; } # random weights speak in random bytes

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold= plain=; fi
say() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
show() { printf '$ nestar'; printf ' %s' "$@"; printf '\n'; }

cat <<'END'
This demo runs a Nemotron-H model of a few million parameters with RANDOM weights: it has the layers, the files and the speed of
such a model, and what it says is noise. A trained checkpoint takes the same commands.
END

say "1. A checkpoint from a config.json, with three sizes named in nest.json"
rm -rf "$out"
show synth examples/demo/config.json --nest examples/demo/nest.json --text-dir examples/demo/text -o "$out"
"$nestar" synth "$here/config.json" --dtype bf16 --seed 1 --nest "$here/nest.json" --text-dir "$here/text" -o "$out"
show inspect "$out"
"$nestar" inspect "$out"

say "2. The same files, run at two of the sizes"
for size in full small; do
    show run "$out" --size $size -n 200 --ignore-eos -p "'Hello!'"
    "$nestar" run "$out" --size $size -n 200 --ignore-eos --seed 1 -p 'Hello!' | printable
    echo
done

say "3. A change of size in the middle of an answer: the first 100 tokens at small, the rest at full, one cache"
show run "$out" --sizes small:100,full -n 200 --ignore-eos -p "'Hello!'"
"$nestar" run "$out" --sizes small:100,full -n 200 --ignore-eos --seed 1 -p 'Hello!' | printable

say "4. One size written out as an ordinary checkpoint of its own"
show slice "$out" --size small -o "$out-small"
rm -rf "$out-small"
"$nestar" slice "$out" --size small -o "$out-small"
du -sh "$out" "$out-small"

say "Next: $nestar chat $out   (/sizes lists them, /size small changes while you talk)"
