#!/usr/bin/env python3
"""Compare logits with Hugging Face transformers, in float32 on the CPU.

    python tools/check_slice_hf.py DIR_SLICE IDS_FILE LOGITS.safetensors [--tol 1e-4] [--as-stored]

DIR_SLICE  a checkpoint folder (config.json, model.safetensors or shards); FP8, NVFP4
           and BF16 weights are decoded first, activations are never quantised
IDS_FILE   the prompt's token ids, separated by white space or commas
LOGITS     a file with a tensor `logits` [k, vocab] (or [1, k, vocab], or [vocab]).
           If it also has `positions` [k], row r belongs to position positions[r];
           otherwise the rows are the last k positions of the prompt

With --as-stored the folder is loaded as any user would load it, by
AutoModelForCausalLM.from_pretrained(DIR), and nothing is decoded or renamed here:
that is for folders of `nestar export --to hf --dtype`.

Prints max |a-b| / max |b| (b: transformers).  Exit status 1 if that is above --tol or
not a number, 2 if the files do not fit together.
"""

import argparse
import re
import sys

import hf_oracle
import torch
from safetensors.torch import load_file


def fail(message):
    print(f"check_slice_hf: {message}", file=sys.stderr)
    sys.exit(2)


def load_as_stored(folder):
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", attn_implementation="eager", experts_implementation="eager", output_loading_info=True
    )
    bad = {k: sorted(v)[:4] for k, v in info.items() if v}
    if bad:
        fail(f"transformers did not load every tensor: {bad}")
    if {p.dtype for p in model.parameters()} != {torch.float32}:
        fail(f"parameters of {sorted({str(p.dtype) for p in model.parameters()})}, expected float32")
    return model.eval()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("dir_slice")
    ap.add_argument("ids_file")
    ap.add_argument("logits")
    ap.add_argument("--tol", type=float, default=1e-4, help="largest accepted relative error (default 1e-4)")
    ap.add_argument("--as-stored", action="store_true", help="load the folder with from_pretrained and nothing else")
    ap.add_argument("--threads", type=int, default=1)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)

    with open(args.ids_file, encoding="utf-8") as f:
        ids = [int(x) for x in re.split(r"[\s,]+", f.read().strip()) if x]
    if not ids:
        fail("no ids")
    ours = load_file(args.logits)
    if "logits" not in ours:
        fail(f"{args.logits} has no tensor `logits`")
    got = ours["logits"].float()
    if got.dim() == 3 and got.shape[0] == 1:
        got = got[0]
    elif got.dim() == 1:
        got = got[None]
    if got.dim() != 2:
        fail(f"`logits` has shape {list(ours['logits'].shape)}")
    if "positions" in ours:
        rows = ours["positions"].long()
    else:
        rows = torch.arange(len(ids) - got.shape[0], len(ids))
    if len(rows) != got.shape[0] or int(rows.min()) < 0 or int(rows.max()) >= len(ids):
        fail(f"{got.shape[0]} rows of logits do not fit {len(ids)} ids")

    model = load_as_stored(args.dir_slice) if args.as_stored else hf_oracle.load_model(args.dir_slice)
    vocab = model.config.vocab_size
    if min(ids) < 0 or max(ids) >= vocab:
        fail(f"ids outside 0..{vocab - 1}")
    if got.shape[1] != vocab:
        fail(f"`logits` has {got.shape[1]} columns, the model's vocabulary {vocab} tokens")
    result = hf_oracle.run(model, torch.tensor(ids))
    want = result["logits"][rows]

    error = hf_oracle.rel_err(got, want)
    same_top = int((got.argmax(-1) == want.argmax(-1)).sum())
    print(f"max relative error {error:.3e} (tolerance {args.tol:.1e}), {len(rows)} positions, same top token at {same_top}")
    for j, r in enumerate(result["router"]):
        if float(r["margin"].min()) < 1e-5:
            print(f"note: MoE layer {j} has a routing decision only {float(r['margin'].min()):.1e} wide")
    return 0 if error <= args.tol else 1  # a NaN is an error


if __name__ == "__main__":
    sys.exit(main())
