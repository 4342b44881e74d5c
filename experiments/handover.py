#!/usr/bin/env python3
"""A change of size in mid-thought: ten tokens at one size, the rest at another, the cache kept or the prefix read again.

    experiments/handover.py TEST.jsonl [--model examples/demo/model] [-n 200] [--tokens 10]

Run it in the root of the repository after `make`; NESTAR=PATH takes another nestar.  TEST.jsonl is what `nestar problems` writes.
Prints a Markdown table: problems solved, greedy, with Wilson's 95 % interval.
"""

import argparse
import itertools
import json
import math
import subprocess

from nestar import NESTAR

SIZES = ("full", "medium", "small")


def solved(model, question, sizes, how):
    out = subprocess.run([NESTAR, "run", model, "-p", question, "--temp", "0", "--sizes", sizes, "--handover", how, "--json"],
                         check=True, capture_output=True, text=True).stdout  # fmt: skip
    return json.loads(out)["text"].rpartition("</think>")[2].strip()


def wilson(k, n, z=1.959964):
    p, d = k / n, 1 + z * z / n
    mid, half = (p + z * z / (2 * n)) / d, z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return f"{100 * p:.1f} % ({100 * (mid - half):.1f} to {100 * (mid + half):.1f})"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("task")
    ap.add_argument("--model", default="examples/demo/model")
    ap.add_argument("-n", type=int, default=200)
    ap.add_argument("--tokens", type=int, default=10)
    args = ap.parse_args()
    with open(args.task, encoding="utf-8") as f:
        items = [json.loads(line) for line in itertools.islice(f, args.n)]

    def row(first, then, hows):
        sizes = first if first == then else f"{first}:{args.tokens},{then}"
        right = {how: sum(solved(args.model, i["messages"][0]["content"], sizes, how) == i["answer"] for i in items) for how in hows}
        print(f"| {first}, then {then} | " + " | ".join(wilson(k, len(items)) for k in right.values()) + " |", flush=True)

    print("| | cache kept | read again |\n|---|---|---|")
    for size in SIZES:
        row(size, size, ["cache"])
    for first, then in itertools.permutations(SIZES, 2):
        row(first, then, ["cache", "prefill"])


if __name__ == "__main__":
    main()
