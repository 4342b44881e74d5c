#!/usr/bin/env python3
"""Training speed of the peer: the same model in Hugging Face transformers, on this machine's CPU, in float32.

    OMP_NUM_THREADS=2 python tools/bench_torch_train.py CONFIG.json [--seqs 16] [--tokens 128] [--threads 2]
                                                        [--steps 7] [--warmup 2] [--experts eager] [--compile]

Builds the model of a config.json with random weights and times whole training steps (forward, cross-entropy, backward,
AdamW) on a batch of SEQS sequences of TOKENS random tokens.  Prints one JSON object:

    tokens_per_s   of the median step (_best: of the fastest); spread is (slowest - fastest) / median
    seconds        median step, and its parts: forward, backward, optimizer
    scan_share     share of the step that goes away when Mamba's scan, which transformers computes in plain PyTorch, is
                   replaced by one multiplication (gradients then mean nothing; only the time counts)
"""

import argparse
import json
import os
import statistics
import time
import warnings

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch
import transformers
from transformers import NemotronHConfig, NemotronHForCausalLM
from transformers.models.nemotron_h import modeling_nemotron_h as hf


def build(path, experts):
    with open(path, encoding="utf-8") as f:
        config = NemotronHConfig.from_dict(json.load(f))
    config._attn_implementation, config._experts_implementation = "sdpa", experts
    torch.manual_seed(0)
    return NemotronHForCausalLM._from_config(config, dtype=torch.float32).train()


def no_scan(hidden_states, dt, A, B, C, chunk_size, D=None, **kwargs):
    return hidden_states * D[:, None]


class Bench:
    def __init__(self, model, ids):
        self.model, self.ids = model, ids
        self.opt = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def step(self):
        """Seconds of forward, backward and optimizer."""
        t0 = time.perf_counter()
        loss = self.model(self.ids, labels=self.ids, use_cache=False).loss
        t1 = time.perf_counter()
        loss.backward()
        t2 = time.perf_counter()
        self.opt.step()
        self.opt.zero_grad(set_to_none=False)
        return t1 - t0, t2 - t1, time.perf_counter() - t2

    def run(self, warmup, steps):
        for _ in range(warmup):
            self.step()
        return [self.step() for _ in range(steps)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("config", help="config.json of a Nemotron-H model")
    ap.add_argument("--seqs", type=int, default=16)
    ap.add_argument("--tokens", type=int, default=128, help="tokens of a sequence")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--steps", type=int, default=7, help="timed steps")
    ap.add_argument("--warmup", type=int, default=2, help="steps before them")
    ap.add_argument("--experts", default="eager", choices=["eager", "batched_mm", "grouped_mm"], help="transformers' way with experts")
    ap.add_argument("--compile", action="store_true", help="through torch.compile")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)

    model = build(args.config, args.experts)
    ids = torch.randint(0, model.config.vocab_size, (args.seqs, args.tokens), generator=torch.Generator().manual_seed(1))
    t0 = time.perf_counter()
    bench = Bench(torch.compile(model) if args.compile else model, ids)
    bench.step()
    first = time.perf_counter() - t0
    parts = bench.run(args.warmup, args.steps)
    totals = [sum(p) for p in parts]
    median = statistics.median(totals)

    scan, hf.mamba2_chunk_scan = hf.mamba2_chunk_scan, no_scan
    torch._dynamo.reset()
    without = Bench(torch.compile(model) if args.compile else model, ids).run(args.warmup, args.steps)
    hf.mamba2_chunk_scan = scan

    print(json.dumps({
        "tokens_per_s": round(args.seqs * args.tokens / median, 1),
        "tokens_per_s_best": round(args.seqs * args.tokens / min(totals), 1),
        "seconds": {
            "step": round(median, 4),
            **{k: round(statistics.median(p[i] for p in parts), 4) for i, k in enumerate(("forward", "backward", "optimizer"))},
            "first_step": round(first, 2),
        },
        "spread": round((max(totals) - min(totals)) / median, 3),
        "scan_share": round(1 - statistics.median(sum(p) for p in without) / median, 3),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seqs": args.seqs, "tokens": args.tokens, "threads": torch.get_num_threads(), "steps": args.steps,
        "experts": args.experts, "compile": args.compile,
        "torch": torch.__version__, "transformers": transformers.__version__, "load_average": round(os.getloadavg()[0], 1),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
