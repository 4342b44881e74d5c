#!/bin/sh
# Exported GGUF files in llama.cpp against `nestar logits`: check_gguf.sh NESTAR LLAMA PYTHON [CKPT]. LLAMA is a folder with include/ and lib/ of
# llama.cpp (libllama, ggml); PYTHON has numpy and safetensors. CKPT (the bundled model): plain floats, widths in multiples of 64.
# F32 must agree within 1e-4 of the largest logit, also where it is NVFP4 decoded (nvfp4-f32). Of the other types the difference is printed: llama.cpp
# rounds activations to 8 or 16 bits there. Beside NVFP4 stands what `--activations 8` changes in nestar itself.
set -e
[ $# -ge 3 ] || { echo "usage: $0 NESTAR LLAMA PYTHON [CKPT]" >&2; exit 2; }
nestar=$(realpath "$1") llama=$(realpath "$2") python=$3
here=$(cd "$(dirname "$0")" && pwd)
ckpt=$(realpath "${4:-$here/../examples/demo/model}")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
export NS_CPU=ref # the vector kernels round activations to 16 bits in NVFP4 products
cc -O1 "$here/llama_logits.c" -I"$llama/include" -L"$llama/lib" -Wl,-rpath,"$llama/lib" -lllama -o llama_logits
printf 'Start with 25. Add 2. Subtract 7. Multiply by 3. Add 6. 25+2=27, 27-7=20, 20*3=60, 60+6=66: that makes 66.' | "$nestar" tokenize "$ckpt" |
    tr ' ' '\n' >ids.txt
"$nestar" quantize "$ckpt" --format nvfp4 -o nvfp4 >/dev/null 2>&1
"$nestar" quantize "$ckpt" --format nvfp4 --all -o nvfp4-all >/dev/null 2>&1
for size in full hidden=128 hidden=128,shared_ffn=64,experts=8; do
    for type in f32 bf16 q8_0 nvfp4 nvfp4-f32 nvfp4-all; do
        from=$ckpt how="--type $type"
        case $type in
        nvfp4-f32) from=nvfp4 how="--type f32" ;;
        nvfp4*) from=$type how= ;;
        esac
        # shellcheck disable=SC2086
        "$nestar" export "$from" --size "$size" --to gguf $how -o x.gguf 2>/dev/null
        "$nestar" logits "$from" --size "$size" --ids-file ids.txt -o ours.safetensors 2>/dev/null
        "$nestar" logits "$from" --size "$size" --ids-file ids.txt --activations 8 -o eight.safetensors 2>/dev/null || rm -f eight.safetensors
        ./llama_logits x.gguf ids.txt theirs 2>llama.log || { tail -3 llama.log >&2; exit 1; }
        "$python" - "$type" "$size" <<'PY'
import os
import sys
import numpy as np
from safetensors.numpy import load_file
ours = load_file("ours.safetensors")["logits"]
theirs = np.fromfile("theirs", dtype=np.float32).reshape(ours.shape)
off, top = abs(ours - theirs).max() / abs(ours).max(), (ours.argmax(1) == theirs.argmax(1)).mean()
line = f"{sys.argv[1]:10s} {sys.argv[2]:36s} largest difference {off:.1e} of the largest logit, same top token {100 * top:.1f} %"
if sys.argv[1] in ("nvfp4", "nvfp4-all") and os.path.exists("eight.safetensors"):
    eight = load_file("eight.safetensors")["logits"]
    line += f"; own 8-bit activations {abs(ours - eight).max() / abs(ours).max():.1e}"
print(line)
sys.exit(int(sys.argv[1] in ("f32", "nvfp4-f32") and off > 1e-4))
PY
        rm x.gguf
    done
done
