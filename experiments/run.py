#!/usr/bin/env python3
"""Regenerates docs/RESULTS.md: trains a small parent, makes nested checkpoints of it in many ways, and measures them.

    experiments/run.py --list                 the steps, what they train and the hours they take here
    experiments/run.py [--scale 0.1] [--seeds 3] [--work DIR] [--only PATTERN ..] [--dry-run]
    experiments/run.py --report               tables and plots from what is there

Run it in the root of the repository after `make`.  It can be stopped at any time: what is complete is kept, and a training
run that was interrupted goes on where it was.  --scale 0.1 takes a tenth of the time and says less.  Every command is spelled
in nestar.py.  Needs Python 3 and, for the plots, gnuplot.

Cost: three seeds took 0.4 hours at --scale 0.2 on two cores of a Zen 5 (AVX-512), so about two hours at scale 1.
"""

import argparse
import fnmatch
import json
import os
import struct
import sys

import nestar
import report
from graph import Graph

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIG = os.path.join(HERE, "small.json")
TEXT = os.path.join(HERE, "..", "examples", "demo", "text")

PARENT, ELASTIC, SHORT = 16e6, 8e6, 3e6   # tokens of the parent, of an elastification, of a short distillation, at scale 1
KD = 4 / 3                                # what a distilled token costs: the teacher's forward beside the student's three
SEQ, SEQ2, PACK = 256, 1024, 16           # tokens of a pack in stage one and two, packs of a step in stage one
LR, LR_KD = 2e-3, 1e-3
BUDGETS, NAMES = (1.0, 0.75, 0.5), report.NAMES
AXES = {"hidden": (96, 80, 64, 48), "expert_ffn": (48, 32, 16), "mamba_heads": (8, 6, 4)}
UNSEEN = (0.92, 0.85, 0.8, 0.7, 0.65, 0.6, 0.55)
HAND_CUT = {"hidden": 64, "expert_ffn": 32, "mamba_heads": 6}  # for comparing orders
EXPERT_CUT = {"experts": 4}                                    # for comparing ways to rank experts
ORDERS = {"importance": ("ranked", HAND_CUT), "random": ("shuffled", HAND_CUT), "reap": ("ranked", EXPERT_CUT),
          "frequency": ("frequency", EXPERT_CUT)}  # fmt: skip
FEWER = 0.85                                                   # share of the parameters that width and depth keep
TASK_N = 300                                                   # problems of an accuracy (fewer below a tenth of the scale)


def router_sizes():
    out = ["--budgets", ",".join(map(str, BUDGETS)), "--names", ",".join(NAMES), "--axes", ",".join(AXES)]
    return out + [x for axis, widths in AXES.items() for x in ("--choices", f"{axis}={','.join(map(str, widths))}")]


class Plan:
    """The graph of all experiments."""

    def __init__(self, work, scale, seeds):
        self.g, self.scale, self.seeds = Graph(work), scale, seeds
        with open(CONFIG, encoding="utf-8") as f:
            self.config = json.load(f)
        count = max(2000, int(400_000 * scale))
        self.task_n = max(30, int(TASK_N * min(1.0, 10 * scale)))

        def data(here, need):
            nestar.problems(here, "train.jsonl", count, 1, "train", "2-10")
            nestar.problems(here, "test.jsonl", TASK_N, 2, "test", "2-6")
            nestar.problems(here, "long.jsonl", 2 * nestar.HOLD_OUT, 3, "test", "8-10")

        self.g.add("data", "problems for training and for measuring", data, param=[self.config, count])
        for s in range(seeds):
            Seed(self, s)

    def steps(self, tokens, seq=SEQ):
        return max(4, round(tokens * self.scale / (seq * PACK)))

    def nest_tokens(self):
        return self.steps(ELASTIC) * SEQ * PACK


class Seed:
    """The steps of one seed: of weights, data order, router and noise."""

    def __init__(self, plan, s):
        self.plan, self.g, self.s, self.steps = plan, plan.g, s, plan.steps
        self.parent()
        self.orders()
        self.elastic()
        for name in NAMES[1:]:
            self.alone(name)
            self.scratch(name)
        self.uniform()
        self.two_stages()
        self.width_depth()
        self.rankings()

    def add(self, name, what, run, needs, tokens, param=None):
        """needs: steps of this seed; run gets their folders by those names."""
        full = {n: n if n == "data" else f"s{self.s}/{n}" for n in ["data", *needs]}

        def renamed(here, need):
            run(here, {n: need[f] for n, f in full.items()})

        self.g.add(f"s{self.s}/{name}", what, renamed, full.values(), tokens, param)

    # ---- what several experiments do ----

    def distil(self, here, need, ckpt, tokens, sizes, out="ckpt", stage2=(), steps=None):
        steps = steps or self.steps(tokens)
        nestar.elastify(here, ckpt, need["data"] + "/train.jsonl", steps, SEQ, PACK, LR_KD, self.s, out, sizes, stage2)

    def held_out(self, here, need, ckpt, out, sizes):
        nestar.measure(here, ckpt, need["data"] + "/train.jsonl", SEQ, PACK, self.s, out, sizes)

    def long(self, here, need, ckpt):
        sizes = {n: n for n in ["full", *self.cuts(here, ckpt)]}
        nestar.measure(here, ckpt, need["data"] + "/long.jsonl", SEQ2, PACK, self.s, "long", sizes)

    def solved(self, here, need, ckpt, sizes):
        nestar.accuracy(here, ckpt, need["data"] + "/test.jsonl", self.plan.task_n, sizes, "accuracy.json")

    def before_and_after(self, here, need, ckpt, name, cut):
        size = nestar.size_text(cut)
        self.held_out(here, need, ckpt, name + ".before", {name: size})
        self.distil(here, need, ckpt, SHORT, nestar.fixed(name, size), name)

    def cuts(self, here, ckpt):
        """{name: cut} of the nested sizes; two budgets may share one, and then the smaller has none of its own."""
        got = {n: HAND_CUT for n in NAMES[1:]} if here.dry else nestar.variants(ckpt)
        return {n: got[n] for n in NAMES[1:] if n in got}

    # ---- the parent and its orders ----

    def parent(self):
        steps = self.steps(PARENT)

        def run(here, need):
            nestar.train(here, CONFIG, TEXT, need["data"] + "/train.jsonl", steps, SEQ, PACK, LR, self.s, 10, "ckpt")
            self.held_out(here, need, here.path("ckpt"), "held", {"full": "full"})
            self.solved(here, need, here.path("ckpt"), ["full"])

        self.add("parent", "the parent, from scratch", run, [], PARENT, [steps, LR])

    def orders(self):
        tokens = max(20_000, int(1e6 * self.plan.scale))

        def run(here, need):
            ckpt, stats = need["parent"] + "/ckpt", ["--stats", here.path("stats.safetensors")]
            nestar.importance(here, ckpt, need["data"] + "/train.jsonl", tokens, SEQ, 6, "stats.safetensors")
            nestar.permute(here, ckpt, "ranked", *stats)
            nestar.permute(here, ckpt, "frequency", *stats, "--expert-metric", "frequency")
            nestar.permute(here, ckpt, "shuffled", "--random", self.s)

        self.add("orders", "importance, and the parent in three orders", run, ["parent"], 1e6, tokens)

    # ---- one nested checkpoint: against its parent, its own budgets, and budgets in between ----

    def elastic(self):
        def run(here, need):
            ranked, ckpt = need["orders"] + "/ranked", here.path("ckpt")
            self.distil(here, need, ranked, ELASTIC, router_sizes())
            cuts = self.cuts(here, ckpt)
            self.held_out(here, need, ckpt, "unseen", {f"u{round(100 * b)}": b for b in UNSEEN})
            if cuts:
                self.held_out(here, need, ranked, "pruned", {k: nestar.size_text(c) for k, c in cuts.items()})
            self.long(here, need, ckpt)
            self.solved(here, need, ckpt, ["full", *cuts])

        self.add("elastic", "one nested checkpoint of three sizes, with a learned router", run, ["orders"], ELASTIC * KD,
                 [self.steps(ELASTIC), LR_KD, router_sizes(), UNSEEN])  # fmt: skip

    # ---- against models of one size ----

    def alone(self, name):
        def run(here, need):
            cut = self.cuts(here, need["elastic"] + "/ckpt").get(name)
            if cut is not None:
                self.distil(here, need, need["orders"] + "/ranked", ELASTIC, nestar.fixed(name, nestar.size_text(cut)))

        what = f"the router's size {name} distilled alone, with the same tokens"
        self.add("alone-" + name, what, run, ["orders", "elastic"], ELASTIC * KD)

    def scratch(self, name):
        steps = self.steps(PARENT)

        def run(here, need):
            cut = self.cuts(here, need["elastic"] + "/ckpt").get(name)
            if cut is not None:
                nestar.slice_of(here, need["elastic"] + "/ckpt", nestar.size_text(cut), "slice")
                config = here.path("slice") + "/config.json"
                nestar.train(here, config, TEXT, need["data"] + "/train.jsonl", steps, SEQ, PACK, LR, self.s, 20, "ckpt")

        what = f"a model of the size {name} from scratch, with the parent's tokens"
        self.add("scratch-" + name, what, run, ["elastic"], PARENT, [steps, LR])

    # ---- hand-set sizes ----

    def uniform(self):
        def run(here, need):
            sizes = [{"name": n, "share": b} for n, b in zip(NAMES, BUDGETS)] if here.dry else nestar.sizes_of(need["elastic"])
            shares = {z["name"]: z["share"] for z in sizes}
            budgets = [1.0, *(shares[n] for n in NAMES[1:])]  # what the router's sizes cost, not what they were asked to
            sizes = ["--uniform", "--budgets", ",".join(f"{b:.4f}" for b in budgets), "--names", ",".join(NAMES), "--axes", ",".join(AXES),
                     "--round", 2]  # fmt: skip
            self.distil(here, need, need["orders"] + "/ranked", ELASTIC, sizes)

        self.add("uniform", "hand-set sizes at the cost of the router's: all axes cut alike", run, ["orders", "elastic"], ELASTIC * KD)

    # ---- the second stage ----

    def two_stages(self):
        one, two = self.steps(0.7 * ELASTIC), self.steps(0.3 * ELASTIC, SEQ2)
        stage2 = ["--stage2-steps", two, "--stage2-seq", SEQ2, "--weights", ".5,.3,.2"]

        def run(here, need):
            self.distil(here, need, need["orders"] + "/ranked", ELASTIC, router_sizes(), stage2=stage2, steps=one)
            sizes = {n: n for n in ["full", *self.cuts(here, here.path("ckpt"))]}
            self.held_out(here, need, here.path("ckpt"), "held", sizes)  # its own report is of documents as the second stage cuts them
            self.long(here, need, here.path("ckpt"))

        self.add("two-stages", "the same tokens in two stages, the second of whole long documents and larger sizes", run, ["orders"],
                 ELASTIC * KD, [one, two, LR_KD, router_sizes()])  # fmt: skip

    # ---- width against depth ----

    def width_depth(self):
        def run(here, need):
            for name, cut in equal_cuts(here, CONFIG, AXES, depth_order(need["orders"] + "/stats.safetensors", here.dry)).items():
                self.before_and_after(here, need, need["orders"] + "/ranked", name, cut)

        self.add("width-depth", f"{100 * (1 - FEWER):.0f} % fewer parameters by width, and by depth", run, ["orders"], 2 * SHORT * KD,
                 [self.steps(SHORT), FEWER])  # fmt: skip

    # ---- orders ----

    def rankings(self):
        def run(here, need):
            for name, (order, cut) in ORDERS.items():
                self.before_and_after(here, need, f"{need['orders']}/{order}", name, cut)

        self.add("rankings", "one cut by importance and by chance; half of the experts by REAP and by frequency", run, ["orders"],
                 len(ORDERS) * SHORT * KD, [self.steps(SHORT), ORDERS])  # fmt: skip


def equal_cuts(here, config, axes, order):
    """The depth cut nearest to FEWER of all parameters, and the width cut nearest to that one."""
    with open(config, encoding="utf-8") as f:
        n = json.load(f)["num_hidden_layers"]
    depths = {f"d{k}": {"layers": sorted(set(range(n)) - set(order[:k]))} for k in range(1, n // 2)}
    widths = {f"w{r}": {axis: 2 * round(w[0] * r / 200) for axis, w in axes.items()} for r in range(60, 98)}
    total = {k: t for k, (t, _) in nestar.costs(here, config, {**depths, **widths}, "costs.json").items()}
    depth = min(depths, key=lambda k: abs(total[k] / total["full"] - FEWER))
    width = min(widths, key=lambda k: abs(total[k] - total[depth]))
    return {"depth": depths[depth], "width": widths[width]}


def depth_order(path, dry):
    """The tensor depth.order of a statistics file: layers, least important first."""
    if dry:
        return [1, 6, 4, 9]
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        t = json.loads(f.read(n))["depth.order"]
        f.seek(8 + n + t["data_offsets"][0])
        raw = f.read(t["data_offsets"][1] - t["data_offsets"][0])
    kind = {"I32": "i", "I64": "q", "F32": "f"}[t["dtype"]]
    return [int(x) for x in struct.unpack(f"<{len(raw) // struct.calcsize(kind)}{kind}", raw)]


def show(plan):
    """Steps, tokens, and hours at the speed of the parents that are there."""
    done = {n: plan.g.done(n) for n in plan.g.steps}
    speeds = [d["tokens"] * plan.scale / d["seconds"] for n, d in done.items() if d and n.endswith("/parent")]
    speed, left = sum(speeds) / len(speeds) if speeds else None, 0.0
    for n, s in plan.g.steps.items():
        t = s.tokens * plan.scale
        left += 0 if done[n] else t
        hours = f"{done[n]['seconds'] / 3600:6.2f} h, done" if done[n] else f"{t / speed / 3600:6.2f} h" if speed else ""
        print(f"{n:18s} {t / 1e6:7.2f} M tokens {hours:15s} {s.what}")
    print(f"left: {left / 1e6:.1f} M tokens" + (f", {left / speed / 3600:.1f} h at {speed:.0f} tokens/s" if speed else ""))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--scale", type=float, default=1.0, help="tokens, relative to the published page")
    ap.add_argument("--seeds", type=int, default=3)
    ap.add_argument("--work", default="build/experiments", help="folder of the steps' results")
    ap.add_argument("--docs", default=os.path.join(HERE, "..", "docs"), help="folder of RESULTS.md and plots/")
    ap.add_argument("--only", nargs="+", metavar="PATTERN", help="steps to make, with what they need, such as 's0/*'")
    ap.add_argument("--list", action="store_true", help="show the steps and their cost")
    ap.add_argument("--dry-run", action="store_true", help="show the commands")
    ap.add_argument("--report", action="store_true", help="results.json, RESULTS.md and plots from what is there")
    args = ap.parse_args()
    plan = Plan(os.path.join(args.work, f"scale{args.scale:g}"), args.scale, args.seeds)
    if args.list:
        return show(plan)
    if not args.report:
        names = [n for n in plan.g.steps if not args.only or any(fnmatch.fnmatch(n, o) for o in args.only)]
        if not names:
            ap.error(f"no step is called {' '.join(args.only)}")
        plan.g.run(names, args.dry_run)
    if not args.dry_run:
        report.write(plan, args.docs)


if __name__ == "__main__":
    sys.exit(main())
