#!/bin/sh
# Folders of plain floats in Hugging Face transformers: what `nestar export --to hf --dtype f32` makes of cuts of BF16, FP8 and NVFP4
# checkpoints loads there as it is, and gives the logits that `nestar logits --size` gives on the parent.
#   tools/check_exports.sh NESTAR PYTHON     (PYTHON has torch, transformers, safetensors)
# The plain kernels: the vector ones round the activations of NVFP4 products to 16 bits, so that no run on them is within 1e-4.
# First the fixtures, then a larger model of each format made by `nestar synth`.
nestar=$1 python=$2 root=$(cd "$(dirname "$0")/.." && pwd)
[ -x "$nestar" ] && [ -n "$python" ] || { echo "usage: $0 NESTAR PYTHON" >&2; exit 2; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
export NS_CPU=ref
i=0
while [ $i -lt 33 ]; do echo $(((i * 37 + 11) % 60)); i=$((i + 1)); done >"$tmp/ids"
passed=0 failed=0 n=0
demo=$root/examples/demo/model
for format in fp8 nvfp4; do "$nestar" quantize "$demo" --format $format -o "$tmp/$format" >/dev/null || exit 1; done
while read -r what size; do
    n=$((n + 1))
    case $what in demo) from=$demo ;; demo-*) from=$tmp/${what#demo-} ;; *) from=$root/tests/golden/fixtures/$what ;; esac
    rm -f "$tmp/out"
    if "$nestar" export "$from" --size "$size" --to hf --dtype f32 -o "$tmp/x$n" 2>"$tmp/out" &&
        "$nestar" logits "$from" --ids-file "$tmp/ids" --size "$size" -o "$tmp/l$n" 2>>"$tmp/out" &&
        "$python" "$root/tools/check_slice_hf.py" "$tmp/x$n" "$tmp/ids" "$tmp/l$n" --as-stored >>"$tmp/out" 2>&1; then
        passed=$((passed + 1)) word=ok
    else
        failed=$((failed + 1)) word="not ok"
    fi
    echo "$word $what $size: $(tail -n 1 "$tmp/out")"
done <<LIST
bf16 hidden=32,mamba_heads=4
fp8 hidden=48,expert_ffn=32
fp8 full
nvfp4 hidden=32,expert_ffn=32
nvfp4 full
mixed hidden=32
demo full
demo medium
demo small
demo-fp8 medium
demo-fp8 small
demo-nvfp4 full
demo-nvfp4 medium
demo-nvfp4 small
demo-nvfp4 experts=12,attn_heads=4,mamba_heads=4
LIST
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
