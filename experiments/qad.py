#!/usr/bin/env python3
"""What quantising a nested checkpoint costs at each of its sizes, and what quantisation-aware distillation gives back.

    experiments/qad.py FOLDER [--model examples/demo/model] [--steps 100] [--seeds 3] [--write]

Run it in the root of the repository after `make`; NESTAR=PATH takes another nestar.  Everything goes into FOLDER.  It can be
stopped at any time: what is complete there is kept, a training run that was interrupted goes on.  --write puts the tables
between the markers in docs/RESULTS.md.

Per checkpoint and size: KL to the whole BF16 model and cross-entropy on the answers of test problems (an elastification that
moves nothing, with that model as its teacher), and the share of test problems solved.
"""

import argparse
import json
import math
import os
import shutil
import sys

from graph import Here
from nestar import NESTAR, sizes_of
from report import between

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
SEQ, PACKS = "512", "4"
TRAIN = "plain distillation"  # the control: trained on as long, but not for the rounding
# what is quantised how: label, options of quantize and of elastify --qad
PTQ = {"fp8": ("FP8", ["--format", "fp8"]), "nvfp4": ("NVFP4", ["--format", "nvfp4"]),
       "nvfp4-search": ("NVFP4 `--search`", ["--format", "nvfp4", "--search"]),
       "all": ("NVFP4 `--all`", ["--format", "nvfp4", "--all"]),
       "all-search": ("NVFP4 `--all --search`", ["--format", "nvfp4", "--all", "--search"])}  # fmt: skip
QAD = {"qad": ("NVFP4, QAD", ["--qad", "nvfp4"]), "qad-all": ("NVFP4 `--all`, QAD", ["--qad", "nvfp4", "--all"])}
ROWS = ["bf16", "fp8", "nvfp4", "nvfp4-search", "qad", "all", "all-search", "qad-all", "more-all"]


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


class Study:
    def __init__(self, args):
        self.o = args
        self.here = Here(args.folder, False)
        self.label = {"bf16": "BF16", "more-all": f"NVFP4 `--all`, after {TRAIN}"}
        self.label.update({k: v[0] for k, v in (PTQ | QAD).items()})
        self.sizes = [v["name"] for v in read(os.path.join(args.model, "nest.json"))["variants"]]
        self.members = {row: [row] for row in ROWS}  # the checkpoints of a row: one, or one per seed
        for row in ("qad", "qad-all", "more-all"):
            self.members[row] = [f"{row}-s{s}" for s in range(args.seeds)]

    def path(self, name):
        return self.o.model if name == "bf16" else self.here.path(name)

    def distil(self, out, seed, how):
        self.here.sh([NESTAR, "elastify", self.o.model, *how, "--data", self.here.path("train.jsonl"), "--steps", self.o.steps, "--seq", SEQ,
                      "--batch", PACKS, "--lr", self.o.lr, "--seed", seed, "--resume", "-o", self.here.path(out)], out)  # fmt: skip

    def quantise(self, source, out, how):
        self.here.sh([NESTAR, "quantize", self.path(source), *how, "-o", self.here.path(out)], out)

    def losses(self, name):
        """What the measuring run itself writes is thrown away."""
        scratch, report = name + ".same", name + ".same.jsonl"
        if os.path.exists(self.here.path(report)):
            return
        for folder in (scratch, scratch + ".train"):
            shutil.rmtree(self.here.path(folder), ignore_errors=True)
        self.here.sh([NESTAR, "elastify", self.path(name), "--teacher", self.o.model, "--data", self.here.path("test.jsonl"), "--lr", "0",
                      "--steps", "1", "--seq", SEQ, "--batch", "1", "--eval-docs", self.o.held, "--json", "-o", self.here.path(scratch)],
                     stdout=report)  # fmt: skip
        for folder in (scratch, scratch + ".train"):
            shutil.rmtree(self.here.path(folder))

    def solve(self, name):
        solved = name + ".eval.json"
        self.here.sh([NESTAR, "eval", self.path(name), "--task", self.here.path("test.jsonl"), "-n", self.o.problems, "--sizes",
                      ",".join(self.sizes), "--json"], stdout=solved)  # fmt: skip

    def run(self):
        os.makedirs(self.o.folder, exist_ok=True)
        self.here.sh([NESTAR, "problems", "-n", "40000", "--seed", "1", "-o", self.here.path("train.jsonl")], "train.jsonl")
        self.here.sh([NESTAR, "problems", "-n", "1000", "--seed", "2", "--split", "test", "-o", self.here.path("test.jsonl")], "test.jsonl")
        for name, (_, how) in PTQ.items():
            self.quantise("bf16", name, how)
        for row in ROWS:  # the control comes last
            for s, name in enumerate(self.members[row]):
                if row in QAD:
                    self.distil(name, s, QAD[row][1])
                elif row == "more-all":
                    self.distil(f"more-s{s}", s, [])
                    self.quantise(f"more-s{s}", name, PTQ["all"][1])
                self.losses(name)
        for row in ROWS:
            for name in self.members[row]:
                self.solve(name)

    # ---- tables

    def figures(self, name):
        """{size: {kl, ce, right}}"""
        out = {z["name"]: {k: z["held_out"][k] for k in ("kl", "ce")} for z in sizes_of(self.o.folder, name + ".same")}
        if os.path.exists(self.here.path(name + ".eval.json")):
            for r in read(self.here.path(name + ".eval.json"))["rows"]:
                out[r["size"]]["right"] = r["accuracy"]
        return out

    def table(self):
        done = {row: [n for n in self.members[row] if os.path.exists(self.here.path(n + ".same.jsonl"))] for row in ROWS}
        rows = {row: [self.figures(n) for n in names] for row, names in done.items() if names}
        bf16 = rows["bf16"][0]

        def cell(values, form, scale=1.0):
            if None in values:
                return "-"  # not measured yet
            mean = sum(values) / len(values)
            text = form.format(scale * mean)
            if len(values) > 1:
                text += " ± " + form.format(scale * math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)))
            return text

        def lines(head, cells):
            out = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
            return out + ["| " + " | ".join([self.label[row], *cells(rows[row])]) + " |" for row in rows]

        def losses(members):
            return [cell([1000 * m[z][k] for m in members], "{:.2f}") for k in ("kl", "ce") for z in self.sizes]

        def solved(members):
            right = [cell([m[z].get("right") for m in members], "{:.1f}", 100) for z in self.sizes]
            share = [[m[z]["right"] / bf16[z]["right"] if "right" in m[z] else None for m in members] for z in self.sizes]
            return right + [cell(values, "{:.1f}", 100) for values in share]

        head = [f"{k}, {z}" for k in ("KL", "CE") for z in self.sizes]
        text = ["Thousandths of a nat per token of the answers:", "", *lines(head, losses), "", "Problems solved, %, and share of BF16's, %:", ""]
        head = [f"{k}{z}" for k in ("", "share, ") for z in self.sizes]
        return "\n".join(text + lines(head, solved))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder")
    ap.add_argument("--model", default=os.path.join("examples", "demo", "model"), help="the nested checkpoint, in BF16 or F32")
    ap.add_argument("--steps", type=int, default=100, help="of a distillation, 2048 tokens each")
    ap.add_argument("--seeds", type=int, default=3)
    ap.add_argument("--lr", default="3e-5")
    ap.add_argument("--held", type=int, default=400, help="test problems whose losses are measured, below 1000")
    ap.add_argument("--problems", type=int, default=1000, help="test problems to solve")
    ap.add_argument("--report", action="store_true", help="only the tables, of what is there")
    ap.add_argument("--write", action="store_true", help="put the tables into docs/RESULTS.md")
    study = Study(ap.parse_args())
    if not study.o.report:
        study.run()
    text = study.table()
    print(text)
    if study.o.write:
        page = os.path.join(ROOT, "docs", "RESULTS.md")
        with open(page, encoding="utf-8") as f:
            old = f.read()
        with open(page, "w", encoding="utf-8") as f:
            f.write(between(old, "qad", text))


if __name__ == "__main__":
    sys.exit(main())
