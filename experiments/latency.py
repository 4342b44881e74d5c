#!/usr/bin/env python3
"""What an answer costs in time by every pair of sizes, and what a size change costs at a length of thought.

    experiments/latency.py NESTAR CKPT FOLDER [--pairs] [--switches 1024 8192 32768] [--handovers cache prefill late]
                           [--load mmap|huge] [--only 12B:full full:full ..]

--pairs: 2000 tokens of thought at one size, 300 of answer at another, for every pair of the named sizes.
--switches: a prompt of so many random ids is read at the first size, then one token is written at it and one at the last.
Every measurement is a file in FOLDER; what is there is not measured again. The table goes to standard output. Meant for a checkpoint
of random weights (nestar synth) with the published tokenizer beside it, on a machine with nothing else to do."""
import argparse
import json
import pathlib
import random
import subprocess

PROMPT = "A farmer has 17 sheep, buys 4 dozen more and sells a third of all. How many are left?"


def measure(folder, name, command):
    path = folder / (name + ".json")
    if not path.exists():
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
        part = path.with_suffix(".part")
        part.write_text(done.stdout)
        part.rename(path)
    return json.loads(path.read_text())


def pair(args, think, answer, how):
    r = measure(args.folder, f"{think}-{answer}-{how}", [
        args.nestar, "run", args.ckpt, "--load", args.load, "-p", PROMPT, "--think", think, "--answer", answer, "--think-budget", str(args.think), "--answer-tokens",
        str(args.answer), "--ignore-eos", "--temp", "0", "--handover", how, "--context", str(args.think + args.answer + 256), "--json"])
    s = r["stats"]
    if r["thought"]["tokens"] != args.think or r["thought"]["answer_tokens"] != args.answer:
        raise SystemExit(f"{think} > {answer}: {r['thought']}")
    return s["prefill_seconds"] + s["decode_seconds"] + s["switch_seconds"], r["thought"]["seconds"], r["thought"]["answer_seconds"], s["switch_seconds"]


def pairs(args):
    base = None
    print("| think > answer | handover | seconds | thought | answer | switch | beside full > full |")
    print("|---|---|---|---|---|---|---|")
    for think, answer in args.order:
        for how in args.handovers if think != answer else ["cache"]:
            total, thought, said, switch = pair(args, think, answer, how)
            base = base or total
            print(f"| {think} > {answer} | {how if think != answer else '-'} | {total:.1f} | {thought:.1f} | {said:.1f} | "
                  f"{switch * 1000:.2f} ms | {base / total:.2f} |", flush=True)


def switches(args, sizes):
    print("| tokens | from | to | handover | switch |")
    print("|---|---|---|---|---|")
    for n in args.switches:
        ids = args.folder / f"ids-{n}.txt"
        draw = random.Random(n)
        ids.write_text(" ".join(str(draw.randrange(1000, 100000)) for _ in range(n)))
        state = args.folder / f"state-{n}"
        common = ["--load", args.load, "--ignore-eos", "--temp", "0", "--context", str(n + 16), "--json"]
        first, last = sizes[0], sizes[-1]
        measure(args.folder, f"read-{n}", [args.nestar, "run", args.ckpt, "--ids-file", str(ids), "--size", first, "-n", "1", "--save-state",
                                           str(state)] + common)
        empty = args.folder / "none.txt"
        empty.write_text("1000")
        for how in args.handovers:
            r = measure(args.folder, f"switch-{n}-{how}", [args.nestar, "run", args.ckpt, "--load-state", str(state), "--ids-file", str(empty),
                                                           "--sizes", f"{first}:1,{last}:1", "--handover", how] + common)
            print(f"| {n} | {first} | {last} | {how} | {r['stats']['switch_seconds'] * 1000:.2f} ms |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("nestar")
    p.add_argument("ckpt")
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--sizes", nargs="+", default=["12B", "23B", "full"])
    p.add_argument("--think", type=int, default=2000)
    p.add_argument("--answer", type=int, default=300)
    p.add_argument("--pairs", action="store_true")
    p.add_argument("--load", default="mmap", choices=["mmap", "huge"])
    p.add_argument("--only", nargs="+", help="these pairs of sizes")
    p.add_argument("--switches", type=int, nargs="*", default=[])
    p.add_argument("--handovers", nargs="+", default=["cache"])
    args = p.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    full = args.sizes[-1]
    rest = [(a, b) for a in args.sizes for b in args.sizes if (a, b) != (full, full)]
    args.order = [(full, full)] + sorted(rest, key=lambda x: (x[1] != full, x[0] == x[1]))
    if args.only:
        args.order = [tuple(o.split(":")) for o in args.only]
    if args.pairs:
        pairs(args)
    if args.switches:
        switches(args, args.sizes)


main()
