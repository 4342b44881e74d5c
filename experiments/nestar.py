"""How each command of nestar is called here, and what its output means: the one place that knows their options."""

import json
import os

NESTAR = os.environ.get("NESTAR", "build/nestar")
HOLD_OUT = 512  # documents that no run trains on; the same ones for all runs of a seed


def problems(here, out, n, seed, split, level):
    here.sh([NESTAR, "problems", "-n", n, "--seed", seed, "--split", split, "--level", level, "-o", here.path(out)], out)


def schedule(steps, seq, packs, lr, seed):
    return ["--steps", steps, "--seq", seq, "--batch", packs, "--lr", lr, "--lr-min", lr / 10, "--warmup", max(1, steps // 50),
            "--seed", seed, "--eval-docs", HOLD_OUT, "--resume", "--dtype", "f32"]  # fmt: skip


def train(here, config, text_dir, data, steps, seq, packs, lr, seed, evals, out):
    """From scratch; `evals` evaluations on the way are in the log of the run, OUT.train."""
    here.sh([NESTAR, "train", config, "--tokenizer", text_dir, "--data", data, *schedule(steps, seq, packs, lr, seed),
             "--eval-every", max(1, steps // evals), "-o", here.path(out)], out)  # fmt: skip


def curve(folder, name="ckpt"):
    """[(tokens, held-out loss)] of a training run; None where there was none."""
    path, out = os.path.join(folder, name + ".train", "log.jsonl"), []
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        for line in map(json.loads, f):
            if line.get("eval_loss") is not None:
                out.append((line["tokens"], line["eval_loss"]))
    return out


def elastify(here, parent, data, steps, seq, packs, lr, seed, out, sizes, stage2=()):
    """sizes: options that say which sizes. OUT.jsonl has the log and, in its last line, the report."""
    here.sh([NESTAR, "elastify", parent, "--data", data, *schedule(steps, seq, packs, lr, seed), *sizes, *stage2, "--json",
             "-o", here.path(out)], out, out + ".jsonl")  # fmt: skip


def sizes_of(folder, out="ckpt"):
    """The sizes in the report of an elastification: [{name, budget, share, params_total, params_active, held_out: {ce, kl, ..}}]."""
    with open(os.path.join(folder, out + ".jsonl"), encoding="utf-8") as f:
        return json.loads(f.readlines()[-1])["sizes"]


def fixed(name, size):
    return ["--fixed", name if name == size == "full" else f"{name}={size}"]


def measure(here, ckpt, data, seq, packs, seed, out, sizes):
    """Held-out losses of sizes {name: size} as they are: one step that moves nothing."""
    elastify(here, ckpt, data, 1, seq, packs, 0, seed, out, [x for name, size in sizes.items() for x in fixed(name, size)])


def importance(here, ckpt, data, tokens, seq, keep, out):
    here.sh([NESTAR, "importance", ckpt, "--data", data, "--tokens", tokens, "--seq", seq, "--depth", keep, "-o", here.path(out)], out)


def permute(here, ckpt, out, *how):
    here.sh([NESTAR, "permute", ckpt, *how, "-o", here.path(out)], out)


def slice_of(here, ckpt, size, out):
    here.sh([NESTAR, "slice", ckpt, "--size", size, "-o", here.path(out)], out)


def accuracy(here, ckpt, task, n, sizes, out):
    here.sh([NESTAR, "eval", ckpt, "--task", task, "-n", n, "--sizes", ",".join(sizes), "--max-thought", 256, "--json"], stdout=out)


def costs(here, config, variants, out):
    """{name: (total, active parameters)} of "full" and of cuts {name: {axis: width, ..}}, as the engine counts them."""
    nest = {"version": 1, "variants": [{"name": k, "cut": v} for k, v in variants.items()]}
    if here.dry:
        return dict.fromkeys(["full", *variants], (1, 1))
    with open(here.path(out + ".nest.json"), "w", encoding="utf-8") as f:
        json.dump(nest, f)
    here.sh([NESTAR, "inspect", "--json", "--nest", here.path(out + ".nest.json"), config], stdout=out)
    with open(here.path(out), encoding="utf-8") as f:
        return {v["name"]: (v["params_total"], v["params_active"]) for v in json.load(f)["variants"]["list"]}


def size_text(cut):
    """A nest.json cut as --size takes it."""
    parts = []
    for axis, width in cut.items():
        if axis == "layers":
            parts.append("layers=" + "+".join(map(str, width)))
        elif isinstance(width, list):
            raise ValueError(f"{axis}: widths per layer")
        else:
            parts.append(f"{axis}={width}")
    return ",".join(parts) or "full"


def variants(ckpt):
    """nest.json's {name: cut}, largest first, without the whole model."""
    with open(os.path.join(ckpt, "nest.json"), encoding="utf-8") as f:
        return {v["name"]: v.get("cut", {}) for v in json.load(f)["variants"] if v.get("cut")}
