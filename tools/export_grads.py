#!/usr/bin/env python3
"""Make the training fixtures of tests/golden/grads: tiny random Nemotron-H
checkpoints with the losses, gradients and AdamW steps that autograd computes
through Hugging Face transformers' own model, in float64.

    python tools/export_grads.py -o tests/golden/grads                all of them
    python tools/export_grads.py -o DIR --only moe,tied               some of them

A fixture folder has
    config.json, model.safetensors (F32)   -- a checkpoint as published
    expected.safetensors
        ids, start, target   I32           packed sequences: sequence s holds tokens start[s] .. start[s+1]-1;
                                           token t predicts target[t] (-1: nothing)
        weight               F32 [n]       of each token's loss; 0 where there is no target
        ce, kd               F32 [n]       each token's loss (see below)
        <parameter's name>   F32 [3, ...]  gradient of the cross-entropy, gradient of the distillation loss, and the
                                           parameter after five AdamW steps on the cross-entropy
manifest.json has, beside the versions that made them, each fixture's scalars.

Losses are means over tokens by weight:
    ce   cross-entropy with the target
    kd   a * cross-entropy + b * T^2 * KL(teacher / T || student / T), with a, b and T in the manifest.  The teacher is
         the same config with every published tensor's elements in reverse order, so it needs no file of its own.
Sequences go through transformers one by one, so nothing can leak between them.

transformers computes parts in float32 whatever the model's type; here its float32 is widened to float64 (see
wide_arithmetic).  Every fixture is checked before it is written: against the unmodified float32 model, against the
one-token-at-a-time path, and every tensor's gradient against central differences.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys

import hf_oracle
import torch
import transformers
from export_golden import BASE, random_tensors, write_config, write_json
from safetensors.torch import save_file
from transformers.models.nemotron_h import modeling_nemotron_h as hf

MIN_MARGIN = 2e-4  # smallest distance between a picked and a refused expert in any forward of any step
STEPS = 5
ADAMW = dict(lr=1e-2, beta1=0.9, beta2=0.98, eps=1e-8, weight_decay=0.1, clip=1.0)

# Small everywhere: a fixture is 3,000 to 6,000 parameters.
TINY = dict(
    BASE, hidden_size=12, vocab_size=23, num_attention_heads=4, num_key_value_heads=2, head_dim=4, intermediate_size=18,
    mamba_num_heads=4, mamba_head_dim=3, n_groups=2, ssm_state_size=5, chunk_size=8, n_routed_experts=4,
    num_experts_per_tok=2, moe_intermediate_size=7, moe_shared_expert_intermediate_size=10,
)  # fmt: skip

# kd: (a, b, T)
FIXTURES = {
    "dense": dict(pattern="M-*M-", seed=201, lengths=[9, 21, 4], kd=(0, 1, 1), cfg={}),
    "moe": dict(pattern="MEM*E", seed=202, lengths=[19, 12], kd=(0, 1, 2), cfg={}),
    # 3 groups of 3, 2 groups stay; some tokens count half or double or not at all
    "grouped_router": dict(
        pattern="ME*E", seed=203, lengths=[16, 17, 8], kd=(0.25, 0.75, 1.5), weighted=True,
        cfg=dict(n_routed_experts=9, n_group=3, topk_group=2, num_experts_per_tok=3, moe_intermediate_size=5),
    ),
    # every bias but the convolution's; routed experts have none
    "biases": dict(
        pattern="M*-EM", seed=204, lengths=[15, 10], kd=(0, 1, 1),
        cfg=dict(use_bias=True, mlp_bias=True, attention_bias=True, use_conv_bias=False),
    ),
    # no lm_head: two gradients meet in the embedding
    "tied": dict(pattern="ME*-", seed=205, lengths=[11, 14, 6], kd=(0.5, 0.5, 1), cfg=dict(tie_word_embeddings=True)),
    # no power of two anywhere, 3 groups of 2 heads, a convolution of 3, an eps that shows, time steps clamped from below
    "odd": dict(
        pattern="M*-EM", seed=206, lengths=[1, 23, 10], kd=(0, 1, 0.7), weighted=True,
        cfg=dict(
            hidden_size=11, vocab_size=19, num_attention_heads=3, num_key_value_heads=1, head_dim=5, intermediate_size=13,
            mamba_num_heads=6, mamba_head_dim=3, n_groups=3, ssm_state_size=7, conv_kernel=3, chunk_size=5,
            n_routed_experts=5, num_experts_per_tok=2, moe_intermediate_size=6, moe_shared_expert_intermediate_size=9,
            layer_norm_epsilon=5e-3, norm_eps=5e-3, time_step_min=0.3, time_step_limit=[0.3, 1e30],
        ),
    ),
    # routed experts in a smaller space, weights that are not normalised, one KV head
    "latent": dict(
        pattern="E*ME", seed=207, lengths=[13, 18], kd=(0, 1, 3),
        cfg=dict(moe_latent_size=6, norm_topk_prob=False, routed_scaling_factor=1.3, num_key_value_heads=1),
    ),
    # many chunks and a rest, a sequence of one token that has a target, 8 heads in one group
    "long": dict(
        pattern="M*ME", seed=208, lengths=[150, 1, 75], kd=(0, 1, 1), weighted=True, last_target=True,
        cfg=dict(mamba_num_heads=8, mamba_head_dim=2, n_groups=1, chunk_size=32, num_key_value_heads=4),
    ),
}  # fmt: skip


# --------------------------------------------------------------------------
# transformers in float64
# --------------------------------------------------------------------------


class WideTorch:
    """The torch module as the modelling file sees it, whose float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextlib.contextmanager
def wide_arithmetic():
    narrow = torch.Tensor.float
    hf.torch, torch.Tensor.float = WideTorch(), torch.Tensor.double
    try:
        yield
    finally:
        hf.torch, torch.Tensor.float = torch, narrow


def load(folder, tied, transform=None):
    """A transformers model of the folder with gradients on; a tied head shares the embedding's parameter."""
    tensors = hf_oracle.canonical_names(hf_oracle.dequantise_all(hf_oracle.read_tensors(folder)))
    if transform:
        tensors = {k: transform(v) for k, v in tensors.items()}
    model = hf_oracle.build_model(hf_oracle.read_config(folder), tensors)
    if tied:
        model.lm_head.weight = model.model.embeddings.weight
    return model


def reverse(t):
    return t.flatten().flip(0).reshape(t.shape)


# --------------------------------------------------------------------------
# Losses
# --------------------------------------------------------------------------


def sequences(batch):
    start = batch["start"].tolist()
    return [batch["ids"][a:b].long()[None] for a, b in zip(start, start[1:])]


def logits_of(model, batch):
    """[n, vocab], one sequence after the other."""
    return torch.cat([model(s, use_cache=False).logits[0] for s in sequences(batch)])


def token_ce(logits, batch):
    target = batch["target"].long()
    ce = -logits.log_softmax(-1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    return torch.where(target >= 0, ce, 0.0)


def token_kl(logits, teacher, temperature):
    p, q = (teacher / temperature).log_softmax(-1), (logits / temperature).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def mean(values, batch):
    weight = batch["weight"].to(values.dtype)
    return (weight * values).sum() / weight.sum()


def losses(model, teacher_logits, batch, kd):
    a, b, temperature = kd
    logits = logits_of(model, batch)
    ce, kl = token_ce(logits, batch), token_kl(logits, teacher_logits, temperature)
    return {"ce": ce, "kl": kl, "kd": a * ce + b * temperature**2 * kl, "logits": logits}


def gradients(model, value):
    """Parameter name in the model -> gradient; zeros for what the value does not depend on (an expert nobody picked)."""
    names, params = zip(*model.named_parameters())
    got = torch.autograd.grad(value, params, allow_unused=True, retain_graph=True)
    return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, params, got)}


def train(model, batch):
    """Five AdamW steps on the cross-entropy -> losses before each step and after the last, gradient norms."""
    matrices, others = [], []
    for name, p in model.named_parameters():  # fused experts have three dimensions, and so has the convolution
        (matrices if p.dim() > 1 and "conv1d" not in name else others).append(p)
    opt = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": ADAMW["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
        lr=ADAMW["lr"], betas=(ADAMW["beta1"], ADAMW["beta2"]), eps=ADAMW["eps"], foreach=False,
    )  # fmt: skip
    curve, norms = [], []
    for _ in range(STEPS):
        loss = mean(token_ce(logits_of(model, batch), batch), batch)
        opt.zero_grad(set_to_none=False)
        loss.backward()
        grads = []
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad  # so that decay acts on unused experts too
            grads.append(p.grad)
        norm = torch.sqrt(sum(g.pow(2).sum() for g in grads))
        for g in grads:
            g *= min(1.0, ADAMW["clip"] / float(norm))
        opt.step()
        curve.append(float(loss.detach()))
        norms.append(float(norm))
    with torch.no_grad():
        curve.append(float(mean(token_ce(logits_of(model, batch), batch), batch)))
    return curve, norms


# --------------------------------------------------------------------------
# Checks
# --------------------------------------------------------------------------


@contextlib.contextmanager
def routing_margin(model, out):
    """out[0] becomes the smallest margin of any routing decision inside."""
    def hook(module, args, result):
        biased = result[0].detach().sigmoid() + module.e_score_correction_bias
        out[0] = min(out[0], float(hf_oracle.routing_margin(module, biased).min()))

    hooks = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, hf.NemotronHTopkRouter)]
    try:
        yield
    finally:
        for h in hooks:
            h.remove()


@torch.no_grad()
def difference_error(model, loss, grads, gen):
    """Worst disagreement, over all parameters, between a gradient's product with a random direction and the central difference
    along it, relative to what such a product is on average."""
    worst, h = 0.0, 1e-5
    for name, p in model.named_parameters():
        d = torch.randn(p.shape, generator=gen, dtype=p.dtype)
        d /= d.norm()
        old = p.clone()
        p.copy_(old + h * d)
        up = float(loss())
        p.copy_(old - h * d)
        down = float(loss())
        p.copy_(old)
        scale = float(grads[name].norm()) / p.numel() ** 0.5
        if scale > 1e-12:  # k_proj's bias moves nothing, and then this would compare noise with noise
            worst = max(worst, abs((up - down) / (2 * h) - float((grads[name] * d).sum())) / scale)
    return worst


def rel(a, b):
    return float((a.double() - b.double()).abs().max() / max(float(b.double().abs().max()), 1e-30))


# --------------------------------------------------------------------------
# One fixture
# --------------------------------------------------------------------------


def draw_batch(spec, vocab, gen):
    n = sum(spec["lengths"])
    start = torch.tensor([0, *spec["lengths"]]).cumsum(0)
    ids = torch.randint(0, vocab, (n,), generator=gen)
    ids[1], ids[n // 2] = vocab - 1, 0
    target = ids.roll(-1)
    weight = torch.ones(n)
    if spec.get("weighted"):
        weight = torch.tensor([0.0, 0.5, 1.0, 2.0])[torch.randint(0, 4, (n,), generator=gen)]
    for last in (start[1:] - 1).tolist():
        if spec.get("last_target"):
            target[last], weight[last] = torch.randint(0, vocab, (1,), generator=gen), 1.0
        else:
            target[last], weight[last] = -1, 0.0
    return {"ids": ids.int(), "start": start.int(), "target": target.int(), "weight": weight}


def compute(folder, spec, tied, batch, wide):
    """Everything that a fixture states, in float64 (wide) or in the float32 of the unmodified model."""
    model, teacher = load(folder, tied), load(folder, tied, reverse)
    margin = [float("inf")]
    with contextlib.ExitStack() as stack:
        if wide:
            model.double(), teacher.double()
            stack.enter_context(wide_arithmetic())
        stack.enter_context(routing_margin(model, margin))
        stack.enter_context(routing_margin(teacher, margin))
        with torch.no_grad():
            teacher_logits = logits_of(teacher, batch)
        values = losses(model, teacher_logits, batch, spec["kd"])
        out = {k: v.detach() for k, v in values.items()}
        out["teacher_logits"] = teacher_logits
        out["grad_ce"] = gradients(model, mean(values["ce"], batch))
        out["grad_kd"] = gradients(model, mean(values["kd"], batch))
        if wide:
            gen = torch.Generator().manual_seed(spec["seed"] + 7000)
            out["difference"] = max(
                difference_error(model, lambda k=k: mean(losses(model, teacher_logits, batch, spec["kd"])[k], batch), out["grad_" + k], gen)
                for k in ("ce", "kd")
            )
        del values
        out["curve"], out["norms"] = train(model, batch)
    out["final"] = {n: p.detach() for n, p in model.named_parameters()}
    out["margin"] = margin[0]
    return out


def write_expected(folder, batch, wide):
    out = {**batch, "ce": wide["ce"].float(), "kd": wide["kd"].float()}
    stacked = {n: torch.stack([wide["grad_ce"][n], wide["grad_kd"][n], wide["final"][n]]) for n in wide["final"]}
    for i in range(3):
        for name, t in hf_oracle.canonical_names({n: s[i] for n, s in stacked.items()}).items():
            out.setdefault(name, []).append(t.float())
    out = {k: (torch.stack(v) if isinstance(v, list) else v).contiguous().clone() for k, v in out.items()}
    save_file(out, os.path.join(folder, "expected.safetensors"))


def make(root, name):
    spec = FIXTURES[name]
    cfg = dict(TINY, **spec["cfg"])
    folder = os.path.join(root, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    tensors = random_tensors(cfg, spec["pattern"], spec["seed"])
    write_config(folder, spec, cfg, None)
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})

    tied, gen = cfg["tie_word_embeddings"], torch.Generator().manual_seed(spec["seed"] + 9000)
    for attempt in range(100):
        batch = draw_batch(spec, cfg["vocab_size"], gen)
        wide = compute(folder, spec, tied, batch, True)
        if wide["margin"] > MIN_MARGIN:
            break
    else:
        raise SystemExit(f"{name}: no batch with a safe routing margin; take another seed")
    write_expected(folder, batch, wide)

    # The unmodified model in float32: proves the widening, and shows what rounding alone does.
    plain = compute(folder, spec, tied, batch, False)
    noise = {
        "logits": rel(plain["logits"], wide["logits"]),
        "ce": max(rel(plain["grad_ce"][n], g) for n, g in wide["grad_ce"].items() if ".k_proj.bias" not in n),
        "kd": max(rel(plain["grad_kd"][n], g) for n, g in wide["grad_kd"].items() if ".k_proj.bias" not in n),
        "curve": max(abs(a / b - 1) for a, b in zip(plain["curve"], wide["curve"])),
        "norms": max(abs(a / b - 1) for a, b in zip(plain["norms"], wide["norms"])),
        # in steps of the learning rate
        "final": max(
            float((plain["final"][n] - p).abs().max()) for n, p in wide["final"].items() if ".k_proj.bias" not in n
        ) / ADAMW["lr"],
    }
    model = load(folder, tied)
    steps = torch.cat([hf_oracle.run_decode(model, s[0]) for s in sequences(batch)])
    clamped = cfg["time_step_min"] > 0.0
    decode = rel(steps, wide["logits"])
    zero = [n for n, g in wide["grad_ce"].items() if float(g.abs().max()) < 1e-12 and ".k_proj.bias" not in n]
    if noise["logits"] > 2e-5 or wide["difference"] > 5e-6 or (decode < 1e-2 if clamped else decode > 2e-5) or zero:
        raise SystemExit(f"{name}: noise {noise}, central differences {wide['difference']}, step by step {decode}, zero gradients {zero}")

    weights, a, b, t = batch["weight"].double(), *spec["kd"]
    has = batch["target"] >= 0
    top = wide["logits"].argmax(-1)
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(
        f"{name:15s} {sum(p.numel() for p in wide['final'].values()):6d} parameters {size:7d} B  loss {wide['curve'][0]:.3f} -> "
        f"{wide['curve'][-1]:.3f}  norm {wide['norms'][0]:.2f}  margin {wide['margin']:.1e} after {attempt + 1}  "
        f"differences {wide['difference']:.1e}  step by step {decode:.1e}\n{'':15s} float32 noise: "
        + "  ".join(f"{k} {v:.1e}" for k, v in noise.items())
    )
    return {
        "pattern": spec["pattern"],
        "n_parameters": sum(p.numel() for p in wide["final"].values()),
        "kd": {"ce": a, "kd": b, "temperature": t},
        "weight": float(weights.sum()),
        "ce": float(mean(wide["ce"], batch)),
        "kl": float(mean(wide["kl"], batch)),
        "kd_loss": float(mean(wide["kd"], batch)),
        "top1": float((weights * (has & (top == batch["target"]))).sum()),
        "agree": float((weights * (top == wide["teacher_logits"].argmax(-1))).sum()),
        "losses": wide["curve"],
        "grad_norms": wide["norms"],
        "torch_float32_noise": {k: float(f"{v:.2g}") for k, v in noise.items()},
    }


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-o", metavar="DIR", required=True, help="folder to write the fixture folders into")
    ap.add_argument("--only", metavar="NAMES", help="comma-separated fixtures (default: all)")
    args = ap.parse_args()
    names = args.only.split(",") if args.only else list(FIXTURES)
    unknown = [n for n in names if n not in FIXTURES]
    if unknown:
        ap.error(f"unknown fixtures {unknown}; there are {', '.join(FIXTURES)}")
    os.makedirs(args.o, exist_ok=True)
    path = os.path.join(args.o, "manifest.json")
    fixtures = {}
    if args.only and os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            fixtures = json.load(f)["fixtures"]
    for name in names:
        fixtures[name] = make(args.o, name)
    write_json(path, {
        "made_by": "tools/export_grads.py",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": sys.version.split()[0],
        "adamw": dict(ADAMW, steps=STEPS),
        "fixtures": fixtures,
    })  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
