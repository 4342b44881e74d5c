#!/usr/bin/env python3
"""Load on running servers: throughput against concurrency, sizes mixed in one batch against size by size, or a soak.

    experiments/load.py --server nestar=http://127.0.0.1:8080 --server llama.cpp=http://127.0.0.1:8081 -o load.json
    experiments/load.py --server nestar=http://127.0.0.1:8080 --mix full,small -o mix.json
    experiments/load.py --server nestar=http://127.0.0.1:8080 --soak 3600 -o soak.json

Every request is a streamed /v1/completions of --prompt random token ids, fresh ones each time so that no kept prefix helps, with --tokens to
be made, greedy, with `ignore_eos` where the server takes it. Servers take turns cell by cell, --rounds times; a server that is not asked is
idle. What a cell gives: all tokens made (as the server's own `usage` counts them) over the time from the first request to the last reply;
time to the first token; and tokens/s of one sequence between its first and last token. The client takes part of the same machine: client_cpu
in the JSON says how much of a core.

Both servers need room for the highest concurrency, on the same weights:
    nestar synth experiments/mid.json -o mid --dtype bf16 --nest experiments/mid_nest.json --text-dir TOKENIZER --seed 1
    nestar export mid --to gguf -o mid.gguf
    nestar serve mid --port 8080 --parallel 64 --ctx 512
    llama-server -m mid.gguf --port 8081 -t 2 -np 64 -c 32768 --no-kv-unified --cache-ram 0

Results as JSON (-o) and as a Markdown table (standard output). Needs Python 3.11, no packages."""

import argparse
import asyncio
import collections
import json
import os
import platform
import random
import statistics
import time

from load_client import Server, quantile, usage_of
from load_soak import soak


def body_of(args, draw, model):
    low, high = args.ids
    return {"model": model, "prompt": [draw.randrange(low, high) for _ in range(args.prompt)], "max_tokens": args.tokens, "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip


async def batch(server, bodies, at_once):
    """All requests, so many in flight at a time; [{tokens, first, rate}] and the seconds it took."""
    waiting, out = collections.deque(bodies), []

    async def worker():
        while waiting:
            status, _, text, reply = await server.ask("POST", "/v1/completions", waiting.popleft() | server.extra)
            usage = usage_of(text) if status == 200 else None
            if not usage or not usage["completion_tokens"] or reply.first is None:
                raise SystemExit(f"{server.name}: status {status}: {text[-300:]!r}")
            n, span = usage["completion_tokens"], reply.last - reply.first
            out.append({"tokens": n, "first": reply.first - reply.start, "rate": (n - 1) / span if n > 1 and span > 0 else None})

    start = time.perf_counter()
    await asyncio.gather(*[worker() for _ in range(min(at_once, len(bodies)))])
    return out, time.perf_counter() - start


async def measure(server, bodies, at_once):
    cpu = time.process_time()
    replies, seconds = await batch(server, bodies, at_once)
    return {"tokens": sum(r["tokens"] for r in replies), "seconds": seconds, "client_cpu": (time.process_time() - cpu) / seconds,
            "rate": sum(r["tokens"] for r in replies) / seconds, "replies": replies}  # fmt: skip


def spread(ratios):
    return ", ".join(f"{r:.2f}" for r in ratios)


def summary(runs):
    replies = [r for run in runs for r in run["replies"]]
    rates = [run["rate"] for run in runs]
    first = [r["first"] for r in replies]
    return {"rate": statistics.median(rates), "lowest": min(rates), "highest": max(rates), "requests": len(replies),
            "tokens_per_request": sum(r["tokens"] for r in replies) / len(replies),
            "first_p50": quantile(first, 0.5), "first_p95": quantile(first, 0.95),
            "one_sequence": quantile([r["rate"] for r in replies if r["rate"]], 0.5), "client_cpu": max(run["client_cpu"] for run in runs),
            "runs": rates}  # fmt: skip


async def throughput(args, servers, draw):
    runs = collections.defaultdict(list)
    for _ in range(args.rounds):
        for c in args.concurrency:
            for s in servers:
                bodies = [body_of(args, draw, args.model) for _ in range(max(4, 2 * c))]
                runs[c, s.name].append(await measure(s, bodies, c))
    cells = [{"concurrency": c, "server": name, **summary(r)} for (c, name), r in runs.items()]
    print("| at once | server | tok/s in all (lowest to highest) | first token p50, p95 | tok/s of one | tokens a request |")
    print("|---|---|---|---|---|---|")
    for x in cells:
        first = f"{x['first_p50'] * 1000:.0f} ms, {x['first_p95'] * 1000:.0f} ms"
        print(f"| {x['concurrency']} | {x['server']} | {x['rate']:.1f} ({x['lowest']:.1f} to {x['highest']:.1f}) | {first} | "
              f"{'-' if x['one_sequence'] is None else format(x['one_sequence'], '.1f')} | {x['tokens_per_request']:.0f} |")  # fmt: skip
    for c in args.concurrency if len(servers) == 2 else []:
        a, b = (runs[c, s.name] for s in servers)
        ratios = [x["rate"] / y["rate"] for x, y in zip(a, b, strict=True)]
        print(f"\n{c} at once: {servers[0].name} / {servers[1].name} = {statistics.median(ratios):.2f} ({spread(ratios)})")
    return cells


async def mix(args, servers, draw):
    """The same requests, half of each size: all sizes together, and one size after the other. Twice: so many of each size in flight (together
    that makes the sum), and so many in flight in all."""
    sizes, cells = args.mix.split(","), []
    print("| server | requests of each size | in flight together, by size | together tok/s | by size tok/s | ratio (each round) |")
    print("|---|---|---|---|---|---|")
    for s in servers:
        for c in args.concurrency:
            for together in (c * len(sizes), c):
                each, ratios, a_rates, b_rates = max(2, 2 * c), [], [], []
                for _ in range(args.rounds):
                    jobs = [body_of(args, draw, size) for _ in range(each) for size in sizes]
                    a = await measure(s, jobs, together)
                    by = [await measure(s, [body_of(args, draw, size) for _ in range(each)], c) for size in sizes]
                    b = sum(x["tokens"] for x in by) / sum(x["seconds"] for x in by)
                    ratios.append(a["rate"] / b)
                    a_rates.append(a["rate"])
                    b_rates.append(b)
                cells.append({"server": s.name, "sizes": sizes, "each": each, "in_flight": [together, c], "together": a_rates, "by_size": b_rates,
                              "ratio": statistics.median(ratios)})  # fmt: skip
                print(f"| {s.name} | {each} | {together}, {c} | {statistics.median(a_rates):.1f} | {statistics.median(b_rates):.1f} | "
                      f"**{statistics.median(ratios):.2f}** ({spread(ratios)}) |", flush=True)  # fmt: skip
    return cells


def machine():
    return next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())


def pair(text):
    name, _, url = text.partition("=")
    return name, url


async def work(args):
    servers = [Server(name, url, args.key) for name, url in args.server]
    draw = random.Random(args.seed)
    out = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "cores": len(os.sched_getaffinity(0)),
           "load_before": os.getloadavg(), "options": {k: str(v) for k, v in vars(args).items()}}  # fmt: skip
    for s in servers:
        if not await s.agree(body_of(args, draw, args.model)):
            print(f"{s.name} does not take ignore_eos: its answers may be shorter than {args.tokens} tokens\n")
    if args.soak:
        out["soak"] = await soak(args, servers[0], draw)
    else:
        for s in servers:
            await batch(s, [body_of(args, draw, args.model) for _ in range(2)], 2)
        out["cells"] = await (mix if args.mix else throughput)(args, servers, draw)
    out["load_after"] = os.getloadavg()
    if args.output:
        with open(args.output, "w") as f:
            json.dump(out, f, indent=1)
    return 1 if args.soak and out["soak"]["faults"] else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--server", type=pair, action="append", required=True, metavar="NAME=URL")
    p.add_argument("--key")
    p.add_argument("--model", default="full")
    p.add_argument("--concurrency", type=lambda t: [int(x) for x in t.split(",")], default=[1, 4, 16, 64])
    p.add_argument("--prompt", type=int, default=64, help="token ids of a prompt")
    p.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    p.add_argument(
        "--ids",
        type=lambda t: [int(x) for x in t.split(":")],
        default=[1000, 100000],
        metavar="LOW:HIGH",
        help="where ids are drawn from (demo: 20:380)",
    )
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--mix", metavar="SIZE,SIZE")
    p.add_argument("--soak", type=float, metavar="SECONDS")
    p.add_argument("--workers", type=int, default=12, help="of a soak")
    p.add_argument("--longest", type=int, default=512, help="of a soak: tokens of prompt and answer together")
    p.add_argument("-o", "--output")
    raise SystemExit(asyncio.run(work(p.parse_args())))


if __name__ == "__main__":
    main()
