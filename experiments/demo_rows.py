#!/usr/bin/env python3
"""Two comparisons of docs/RESULTS.md once more with the bundled model's parent: width against depth, and a size from scratch.

    experiments/demo_rows.py FOLDER [--seeds 3] [--dry-run]      FOLDER: what experiments/demo.sh has made

Run it in the root of the repository after `make` and `experiments/demo.sh FOLDER`.  Resumable, as run.py is; results are in
FOLDER/rows, the table in docs/RESULTS.md between its markers.
"""

import argparse
import os
import statistics

import nestar
import report
import run
from graph import Graph

DEMO = os.path.join(run.HERE, "..", "examples", "demo")
AXES = {"hidden": (192,), "expert_ffn": (64,), "shared_ffn": (128,)}
SEQ, PACKS = 1024, 8                # as demo.sh
SHORT, SCRATCH = 200, 1200          # steps of a distillation; of a model from scratch
LR_KD, LR = 1e-3, 2.5e-3
TASK_N = 1000


class Rows:
    def __init__(self, demo, seeds):
        self.demo, self.g, self.seeds = demo, Graph(os.path.join(demo, "rows")), range(seeds)
        self.data, self.task = os.path.join(demo, "train.jsonl"), os.path.join(demo, "test.jsonl")
        self.g.add("cuts", "15 % fewer parameters by width and by depth", self.cuts, param=run.FEWER)
        for s in self.seeds:
            self.g.add(f"s{s}/width-depth", "both distilled alike", self.distil(s), ["cuts"], 2 * SHORT * SEQ * PACKS, [SHORT, LR_KD])
        self.g.add("scratch", "the small size from scratch", self.scratch, [], SCRATCH * SEQ * PACKS, [SCRATCH, LR])

    def ranked(self):
        return os.path.join(self.demo, "ranked")

    def solved(self, here, ckpt, size, out):
        nestar.accuracy(here, ckpt, self.task, TASK_N, [size], out)

    def cuts(self, here, need):
        nestar.importance(here, self.ranked(), self.data, 100_000, SEQ, 8, "stats.safetensors")
        order = run.depth_order(here.path("stats.safetensors"), here.dry)
        for name, cut in run.equal_cuts(here, os.path.join(DEMO, "config.json"), AXES, order).items():
            size = nestar.size_text(cut)
            if not here.dry:
                with open(here.path(name), "w", encoding="utf-8") as f:
                    f.write(size)
            self.solved(here, self.ranked(), size, name + ".json")

    def distil(self, s):
        def distil(here, need):
            for name in ("width", "depth"):
                size = "layers=0" if here.dry else open(os.path.join(need["cuts"], name), encoding="utf-8").read()
                nestar.elastify(here, self.ranked(), self.data, SHORT, SEQ, PACKS, LR_KD, s, name, nestar.fixed(name, size))
                self.solved(here, here.path(name), name, name + ".json")

        return distil

    def scratch(self, here, need):
        model = os.path.join(self.demo, "model")
        nestar.slice_of(here, model, "small", "slice")
        nestar.train(here, here.path("slice") + "/config.json", os.path.join(DEMO, "text"), self.data, SCRATCH, SEQ, PACKS, LR, 1, 4, "ckpt")
        self.solved(here, here.path("ckpt"), "full", "accuracy.json")

    # ---- the table ----

    def row(self, name):
        cuts, seeds = self.g.folder("cuts"), [self.g.folder(f"s{s}/width-depth") for s in self.seeds]
        z = [nestar.sizes_of(f, name)[0] for f in seeds]
        after = [100 * report.read(f"{f}/{name}.json")["rows"][0]["accuracy"] for f in seeds]
        before = 100 * report.read(f"{cuts}/{name}.json")["rows"][0]["accuracy"]
        kl = [x["held_out"]["kl"] for x in z]
        with open(os.path.join(cuts, name), encoding="utf-8") as f:
            size = f.read()

        def both(v, form):
            return f"{form % statistics.mean(v)} ± {form % statistics.stdev(v)}" if len(v) > 1 else form % v[0]

        return f"| {name}: `{size}` | {z[0]['params_total']:,} | {before:.1f} % | {both(after, '%.1f')} % | {both(kl, '%.4f')} |"

    def table(self):
        lines = ["| cut | parameters | solved before training | solved after | divergence from the parent |", "|---|---|---|---|---|"]
        lines += [self.row(name) for name in ("width", "depth")]
        r = report.read(self.g.folder("scratch") + "/accuracy.json")["rows"][0]
        loss = nestar.curve(self.g.folder("scratch"))[-1][1]
        lines += ["", f"The small size from scratch, with {SCRATCH * SEQ * PACKS / 1e6:.1f} M tokens: "
                      f"{100 * r['accuracy']:.1f} % ({100 * r['low']:.1f} to {100 * r['high']:.1f}), cross-entropy {loss:.4f}."]  # fmt: skip
        return lines


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("demo")
    ap.add_argument("--seeds", type=int, default=3)
    ap.add_argument("--dry-run", action="store_true")
    args = ap.parse_args()
    rows = Rows(args.demo, args.seeds)
    rows.g.run(list(rows.g.steps), args.dry_run)
    if not args.dry_run:
        report.put_in_page(os.path.join(run.HERE, "..", "docs", "RESULTS.md"), {"demo-rows": rows.table()})


if __name__ == "__main__":
    main()
