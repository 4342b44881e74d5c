#!/bin/sh
# Slices in Hugging Face transformers: for cuts on every axis, a folder made by `nestar slice` loads there and gives the logits that
# `nestar logits --size` gives on the parent.   tools/check_slices.sh NESTAR PYTHON   (PYTHON has torch, transformers, safetensors)
# Tolerance 1e-4 of the largest logit; 5e-4 where the vector kernels round NVFP4 activations to 16 bits.
nestar=$1 python=$2 root=$(cd "$(dirname "$0")/.." && pwd)
[ -x "$nestar" ] && [ -n "$python" ] || { echo "usage: $0 NESTAR PYTHON" >&2; exit 2; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
i=0
while [ $i -lt 33 ]; do echo $(((i * 37 + 11) % 60)); i=$((i + 1)); done >"$tmp/ids"
passed=0 failed=0 n=0
while read -r fixture size tol; do
    n=$((n + 1))
    f=$root/tests/golden/fixtures/$fixture
    if "$nestar" slice "$f" --size "$size" -o "$tmp/s$n" && "$nestar" logits "$f" --ids-file "$tmp/ids" --size "$size" -o "$tmp/l$n" &&
        "$python" "$root/tools/check_slice_hf.py" "$tmp/s$n" "$tmp/ids" "$tmp/l$n" --tol "$tol" >"$tmp/out" 2>&1; then
        passed=$((passed + 1)) word=ok
    else
        failed=$((failed + 1)) word="not ok"
    fi
    echo "$word $fixture $size: $(tail -n 1 "$tmp/out")"
done <<LIST
moe hidden=32,expert_ffn=16 1e-4
moe mamba_heads=4 1e-4
moe mamba_head_dim=4 1e-4
moe ssm_state=8 1e-4
moe experts=6,shared_ffn=24 1e-4
moe attn_heads=4 1e-4
dense hidden=32,dense_ffn=24 1e-4
dense layers=0-3+5-6 1e-4
latent hidden=32,expert_ffn=16,experts=6 1e-4
bf16 hidden=32,mamba_heads=4 1e-4
fp8 hidden=48,expert_ffn=32 1e-4
nvfp4 hidden=32,expert_ffn=32 5e-4
mixed hidden=32 5e-4
attn_heavy hidden=32,attn_heads=4,layers=0-5 1e-4
LIST
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
