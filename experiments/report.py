"""From the steps' outputs to results.json, the tables of docs/RESULTS.md and the plots in docs/plots."""

import json
import math
import os
import shutil
import subprocess
import tempfile

import nestar

NAMES = ("full", "mid", "small")


# --------------------------------------------------------------------------
# Figures of one seed
# --------------------------------------------------------------------------


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def held(folder, name="ckpt"):
    """{size: its held-out cross-entropy, share of the parent's cost, parameters} of an elastification or a measurement."""
    out = {}
    for z in nestar.sizes_of(folder, name):
        out[z["name"]] = {
            "ce": z["held_out"]["ce"], "share": z["share"], "budget": z["budget"], "active": z["params_active"], "total": z["params_total"],
        }  # fmt: skip
    return out


def accuracies(path):
    return {r["size"]: r["accuracy"] for r in read(path)["rows"]}


def tokens_to_reach(curve, loss):
    """Where the curve first comes down to `loss`, between its points; None where it does not."""
    for (t0, l0), (t1, l1) in zip(curve, curve[1:]):
        if l1 <= loss:
            return t0 + (t1 - t0) * (l0 - loss) / (l0 - l1) if l0 > loss else t0
    return None


def seed_figures(plan, s):
    """Figures by name of what is there; keys are paths such as sizes/mid/nested."""
    out, folder = {}, lambda step: plan.g.folder(f"s{s}/{step}")

    def put(key, value):
        out[key] = value

    def ready(step):
        return plan.g.done(f"s{s}/{step}") is not None

    if ready("parent"):
        put("parent/full/ce", held(folder("parent"), "held")["full"]["ce"])
        put("parent/full/accuracy", accuracies(folder("parent") + "/accuracy.json")["full"])
    if ready("elastic"):
        nested = held(folder("elastic"))
        for name, z in nested.items():
            for k, v in z.items():
                put(f"nested/{name}/{k}", v)
        for name, v in accuracies(folder("elastic") + "/accuracy.json").items():
            put(f"nested/{name}/accuracy", v)
        for part in ("pruned", "unseen", "long"):
            for name, z in held(folder("elastic"), part).items():
                put(f"{part}/{name}/ce", z["ce"])
                put(f"{part}/{name}/share", z["share"])
    for name in NAMES[1:]:
        if ready("alone-" + name) and os.path.exists(folder("alone-" + name) + "/ckpt"):
            put(f"alone/{name}/ce", held(folder("alone-" + name))[name]["ce"])
        curve = nestar.curve(folder("scratch-" + name)) if ready("scratch-" + name) else None
        if curve:
            put(f"scratch/{name}/ce", curve[-1][1])
            put(f"scratch/{name}/tokens", tokens_to_reach(curve, out[f"nested/{name}/ce"]))
            put(f"scratch/{name}/last", curve[-1][0])
    if ready("uniform"):
        for name, z in held(folder("uniform")).items():
            put(f"uniform/{name}/ce", z["ce"])
            put(f"uniform/{name}/share", z["share"])
    if ready("two-stages"):
        for part, key in (("held", "ce"), ("long", "long")):
            for name, z in held(folder("two-stages"), part).items():
                put(f"two/{name}/{key}", z["ce"])
    for step, names in (("width-depth", ("width", "depth")), ("rankings", ("importance", "random", "reap", "frequency"))):
        for name in names if ready(step) else ():
            z = held(folder(step), name)[name]
            put(f"{step}/{name}/after", z["ce"])
            put(f"{step}/{name}/total", z["total"])
            put(f"{step}/{name}/before", held(folder(step), name + ".before")[name]["ce"])
    return out


def collect(plan):
    seeds = [seed_figures(plan, s) for s in range(plan.seeds)]
    keys = sorted({k for f in seeds for k in f})
    cost = {n: {k: d[k] for k in ("seconds", "tokens", "load_average")} for n in plan.g.steps if (d := plan.g.done(n))}
    return {"scale": plan.scale, "seeds": plan.seeds, "figures": {k: [f.get(k) for f in seeds] for k in keys}, "steps": cost}


# --------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------


class Table:
    def __init__(self, results):
        self.f = results["figures"]

    def values(self, key):
        return [v for v in self.f.get(key, []) if v is not None]

    def cell(self, key, form="{:.3f}", scale=1.0):
        """Mean and sample deviation over the seeds that have it."""
        v = [x * scale for x in self.values(key)]
        if not v:
            return "-"
        mean = sum(v) / len(v)
        text = form.format(mean)
        if len(v) > 1:
            text += " ± " + form.format(math.sqrt(sum((x - mean) ** 2 for x in v) / (len(v) - 1)))
        return text

    def rows(self, head, rows):
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        return lines + ["| " + " | ".join(r) + " |" for r in rows]

    def parent(self):
        kinds = [("parent", "parent/full"), *((f"nested, {n}", f"nested/{n}") for n in NAMES)]
        rows = [[label, self.cell(key + "/ce"), self.cell(key + "/accuracy", "{:.1f} %", 100)] for label, key in kinds]
        return self.rows(["", "cross-entropy", "problems solved"], rows)

    def sizes(self):
        kinds = ("nested", "pruned", "alone", "scratch")
        rows = [[n, self.cell(f"nested/{n}/active", "{:,.0f}"), *(self.cell(f"{k}/{n}/ce") for k in kinds)] for n in NAMES[1:]]
        return self.rows(["size", "active parameters", "nested", "cut, not trained", "distilled alone", "from scratch"], rows)

    def needed(self, names):
        """Tokens from scratch, over seeds, summed over names; whether each was reached everywhere."""
        total, reached = [], True
        for s in range(len(next(iter(self.f.values()), []))):
            t = 0.0
            for n in names:
                got, last = (self.f.get(f"scratch/{n}/{k}", [None] * (s + 1))[s] for k in ("tokens", "last"))
                if last is None:
                    return None, False
                reached, t = reached and got is not None, t + (last if got is None else got)
            total.append(t)
        return sum(total) / len(total) if total else None, reached

    def family(self, plan):
        rows, spent = [], plan.nest_tokens()
        for label, names in (("mid", ["mid"]), ("small", ["small"]), ("family", NAMES[1:])):
            need, reached = self.needed(names)
            sign = "" if reached else ">"
            rows.append([label, "-", "-"] if need is None else [label, f"{sign}{need / 1e6:.1f} M", f"{sign}{need / spent:.1f}"])
        return self.rows(["", "tokens from scratch", f"ratio to the {spent / 1e6:.1f} M of nesting"], rows)

    def pairs(self, step, names):
        rows = [[n, self.cell(f"{step}/{n}/total", "{:,.0f}"), *(self.cell(f"{step}/{n}/{x}") for x in ("before", "after"))] for n in names]
        return self.rows(["", "parameters", "before training", "after"], rows)

    def router(self):
        rows = [[n, *(self.cell(f"{k}/{n}/{x}") for k in ("nested", "uniform") for x in ("share", "ce"))] for n in NAMES]
        return self.rows(["size", "router: share", "router: loss", "hand-set: share", "hand-set: loss"], rows)

    def stages(self):
        keys = ("nested/{}/ce", "two/{}/ce", "long/{}/ce", "two/{}/long")
        rows = [[n, *(self.cell(k.format(n)) for k in keys)] for n in NAMES]
        return self.rows(["size", "one stage", "two stages", "one stage, long", "two stages, long"], rows)

    def budgets(self):
        rows = [[n, self.cell(f"nested/{n}/budget", "{:.2f}"), self.cell(f"nested/{n}/share")] for n in NAMES]
        return self.rows(["size", "asked for", "chosen"], rows)

    def unseen(self):
        names = sorted({k.split("/")[1] for k in self.f if k.startswith("unseen/")}, key=lambda n: -int(n[1:]))
        rows = [[f"0.{n[1:]}", self.cell(f"unseen/{n}/share"), self.cell(f"unseen/{n}/ce")] for n in names]
        return self.rows(["asked for", "chosen", "cross-entropy"], rows)

    def all(self, plan):
        return {
            "parent": self.parent(), "sizes": self.sizes(), "family": self.family(plan),
            "depth": self.pairs("width-depth", ("width", "depth")),
            "orders": self.pairs("rankings", ("importance", "random", "reap", "frequency")),
            "router": self.router(), "stages": self.stages(), "budgets": self.budgets(), "unseen": self.unseen(),
        }  # fmt: skip


# --------------------------------------------------------------------------
# Plots
# --------------------------------------------------------------------------


def gnuplot(path, labels, series):
    """series: (title, style, [(x, y)]). One SVG."""
    blocks = [f"$d{i} << EOD\n" + "".join(f"{x} {y}\n" for x, y in pts) + "EOD\n" for i, (_, _, pts) in enumerate(series)]
    plots = ", ".join(f"$d{i} using 1:2 with {style} title '{title}'" for i, (title, style, _) in enumerate(series))
    script = (f"set terminal svg size 720,440 font 'sans,13' background 'white'\nset output '{path}'\nset xlabel '{labels[0]}'\n"
              f"set ylabel '{labels[1]}'\nset grid\nset key top right\n" + "".join(blocks) + f"plot {plots}\n")  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".gp") as f:
        f.write(script)
        f.flush()
        subprocess.run(["gnuplot", f.name], check=True)


def mean(values):
    v = [x for x in values if x is not None]
    return sum(v) / len(v) if v else None


def points(f, kind, names, shares):
    """(share, loss) means over seeds."""
    out = [(mean(f.get(f"{shares}/{n}/share", [])), mean(f.get(f"{kind}/{n}/ce", []))) for n in names]
    return sorted(p for p in out if None not in p)


def plots(plan, results, folder):
    f = results["figures"]
    os.makedirs(folder, exist_ok=True)
    unseen = [k.split("/")[1] for k in f if k.startswith("unseen/") and k.endswith("/ce")]
    series = [
        ("nested", "linespoints pt 7", points(f, "nested", NAMES, "nested")),
        ("nested, budgets not trained", "points pt 6", points(f, "unseen", unseen, "unseen")),
        ("hand-set, nested", "points pt 5", points(f, "uniform", NAMES, "uniform")),
        ("distilled alone", "points pt 9", points(f, "alone", NAMES, "nested")),
        ("from scratch", "points pt 11", points(f, "scratch", NAMES, "nested")),
    ]
    series = [s for s in series if s[2]]
    if series:
        gnuplot(os.path.join(folder, "sizes.svg"), ("active parameters, share of the parent", "held-out cross-entropy"), series)
    curves = []
    for name in NAMES[1:]:
        step = f"s0/scratch-{name}"
        curve = nestar.curve(plan.g.folder(step)) if plan.g.done(step) else None
        if curve:
            curve = [(t / 1e6, loss) for t, loss in curve]
            level = f[f"nested/{name}/ce"][0]
            flat = [(t, level) for t, _ in curve]
            curves += [(f"{name} from scratch", "lines lw 2", curve), (f"{name}, nested", "lines dt 2", flat)]
    if curves:
        gnuplot(os.path.join(folder, "scratch.svg"), ("tokens from scratch, millions", "held-out cross-entropy"), curves)


# --------------------------------------------------------------------------


def between(text, name, body):
    """Puts body between the page's markers of that name."""
    begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    a, b = text.index(begin) + len(begin), text.index(end)
    return text[:a] + "\n" + body + "\n" + text[b:]


def put_in_page(page, tables):
    """tables: {marker: lines}."""
    with open(page, encoding="utf-8") as f:
        text = f.read()
    for name, lines in tables.items():
        text = between(text, name, "\n".join(lines))
    with open(page + ".partial", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(page + ".partial", page)


def summary(results):
    hours = sum(s["seconds"] for s in results["steps"].values()) / 3600
    tokens = sum(s["tokens"] for s in results["steps"].values()) * results["scale"]
    return (f"{results['seeds']} seeds at scale {results['scale']:g}: {len(results['steps'])} steps, {tokens / 1e6:.0f} million tokens of "
            f"training, {hours:.1f} hours.\nFigures are means over seeds, ± the sample deviation; losses are nats per token on held-out "
            "problems.")  # fmt: skip


def write(plan, docs):
    results = collect(plan)
    if not results["figures"]:
        print("nothing is measured yet")
        return
    with open(os.path.join(plan.g.work, "results.json"), "w", encoding="utf-8") as f:
        json.dump(results, f, indent=1)
    page = os.path.join(docs, "RESULTS.md")
    if not os.path.exists(page):
        shutil.copyfile(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "RESULTS.md"), page)
    put_in_page(page, {"summary": [summary(results)], **Table(results).all(plan)})
    if shutil.which("gnuplot"):
        plots(plan, results, os.path.join(docs, "plots"))
    else:
        print("no gnuplot: docs/plots is as it was")
    print(f"{page}, {plan.g.work}/results.json")
