#!/usr/bin/env python3
"""Make the golden fixtures of tests/golden/fixtures: tiny random Nemotron-H
checkpoints together with what Hugging Face transformers computes from them.

    python tools/export_golden.py -o tests/golden/fixtures            all of them
    python tools/export_golden.py -o DIR --only moe,fp8               some of them
    python tools/export_golden.py --cross-check VECTORS_DIR           the exporter against older vectors
    python tools/export_golden.py -o DIR --audit                      also show what each tensor matters

A fixture folder has
    config.json, model.safetensors (or two shards with an index), sometimes
    hf_quant_config.json                  -- a checkpoint as published
    expected.safetensors
        input_ids   I32 [n]               the prompt
        logits      F32 [n, vocab]        after every position
        hidden.I    F32 [n, hidden]       the residual stream leaving layer I (norm_f not applied)
        router.J.indices_sorted I32 [n, top_k]   experts of the J-th MoE layer, ascending
        router.J.weights        F32 [n, top_k]   their weights, in the order of the indices,
                                                 normalised and scaled as the config says
        positions   I32 [k]               only where rows were left out: the k positions kept, in
                                          every other tensor but input_ids (then [k, ...])

Everything is drawn from fixed seeds.  The prompt is redrawn until no routing
decision is closer than MIN_MARGIN, so a correct engine cannot fall on the
other side through rounding.  Expected values of quantised checkpoints are
float32 forwards of the decoded weights: activations are not quantised,
input_scale and the KV scales are not used.
"""

import argparse
import json
import math
import os
import shutil
import struct
import sys

import hf_oracle
import torch
from safetensors.torch import save_file

MIN_MARGIN = 1e-4  # smallest allowed distance between a picked and a refused expert (or group)
MAX_MODEL = 300_000  # bytes
MAX_EXPECTED = 120_000

LAYER_NAMES = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}

# --------------------------------------------------------------------------
# Fixtures: what differs from BASE
# --------------------------------------------------------------------------

BASE = dict(
    architectures=["NemotronHForCausalLM"],
    model_type="nemotron_h",
    torch_dtype="float32",
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    use_cache=True,
    num_logits_to_keep=1,
    max_position_embeddings=512,
    initializer_range=0.02,
    rescale_prenorm_residual=True,
    residual_in_fp32=False,
    tie_word_embeddings=False,
    hidden_dropout=0.0,
    layer_norm_epsilon=1e-5,
    norm_eps=1e-5,
    # attention: no positional encoding; the rope fields are there, and unused, as in the real files
    attention_bias=False,
    attention_dropout=0.0,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    partial_rotary_factor=1.0,
    rope_theta=10000,
    sliding_window=None,
    # mlp
    intermediate_size=40,
    mlp_bias=False,
    mlp_hidden_act="relu2",
    # mamba; time_step_min 0 so that no implementation clamps dt
    expand=2,
    mamba_num_heads=8,
    mamba_head_dim=6,
    n_groups=2,
    ssm_state_size=12,
    conv_kernel=4,
    chunk_size=16,
    mamba_hidden_act="silu",
    mamba_proj_bias=False,
    mamba_ssm_cache_dtype="float32",
    use_bias=False,
    use_conv_bias=True,
    use_mamba_kernels=True,
    time_step_min=0.0,
    time_step_max=0.1,
    time_step_floor=1e-4,
    # moe
    n_routed_experts=8,
    n_shared_experts=1,
    num_experts_per_tok=3,
    moe_intermediate_size=16,
    moe_shared_expert_intermediate_size=24,
    routed_scaling_factor=2.5,
    norm_topk_prob=True,
    n_group=1,
    topk_group=1,
)

# The quantised ones: everything NVFP4 blocks run along is a multiple of 16.
QUANT = dict(
    hidden_size=48, vocab_size=101, torch_dtype="bfloat16", mamba_head_dim=8, ssm_state_size=16, head_dim=16,
    num_attention_heads=4, intermediate_size=64, moe_intermediate_size=32, moe_shared_expert_intermediate_size=48,
)  # fmt: skip

FIXTURES = {
    "dense": dict(pattern="M-M*-M-", seed=101, n=37, cfg=dict(hidden_size=40, vocab_size=101)),
    # in two shards with an index
    "moe": dict(pattern="MEM*EME", seed=102, n=40, shards=2, cfg=dict(hidden_size=36, vocab_size=97)),
    # groups of 4 experts, 2 of the 4 groups stay
    "grouped_router": dict(
        pattern="ME*EME", seed=103, n=48,
        cfg=dict(hidden_size=32, vocab_size=89, n_routed_experts=16, n_group=4, topk_group=2, moe_intermediate_size=10),
    ),
    # nothing is a power of two, 3 heads to a group, several chunks and a rest, an eps that shows;
    # the layers as a list instead of a pattern
    "odd_axes": dict(
        pattern="M*-EM", seed=104, n=23, layer_list=LAYER_NAMES,
        cfg=dict(
            hidden_size=26, vocab_size=93, num_attention_heads=6, num_key_value_heads=2, head_dim=10,
            intermediate_size=22, mamba_num_heads=12, mamba_head_dim=24, n_groups=4, ssm_state_size=20, chunk_size=5,
            n_routed_experts=5, num_experts_per_tok=2, moe_intermediate_size=9,
            moe_shared_expert_intermediate_size=13, layer_norm_epsilon=5e-3, norm_eps=5e-3,
        ),
    ),
    # Super's variant: routed experts work in a smaller space; JSON Infinity, as Super's config has it
    "latent": dict(
        pattern="MEME*ME", seed=105, n=40,
        cfg=dict(
            hidden_size=40, vocab_size=83, moe_latent_size=20, n_routed_experts=11, num_experts_per_tok=4,
            routed_scaling_factor=5.0, moe_shared_expert_overlap=False, time_step_limit=[0.0, float("inf")],
        ),
    ),
    "attn_heavy": dict(
        pattern="*M*E*-*", seed=106, n=44,
        cfg=dict(
            hidden_size=40, vocab_size=101, num_attention_heads=8, num_key_value_heads=1, head_dim=12,
            norm_topk_prob=False, routed_scaling_factor=1.0,
        ),
    ),
    # every bias on, the one of the convolution off; routed experts have none (see README)
    "biases": dict(
        pattern="M*-EM*-", seed=107, n=37,
        cfg=dict(
            hidden_size=36, vocab_size=79, use_bias=True, mlp_bias=True, attention_bias=True, use_conv_bias=False,
        ),
    ),
    # no lm_head tensor in the file
    "tied": dict(pattern="ME*-M", seed=108, n=33, cfg=dict(hidden_size=40, vocab_size=113, tie_word_embeddings=True)),
    # three chunks of 128; the last 16 positions only
    "long": dict(
        pattern="MEM*ME", seed=109, n=300, keep=16,
        cfg=dict(hidden_size=32, vocab_size=89, chunk_size=128, num_attention_heads=4),
    ),
    "nvfp4": dict(pattern="MEM*E-ME", seed=110, n=32, quant="NVFP4", cfg=QUANT),
    "fp8": dict(pattern="MEM*E-ME", seed=111, n=32, quant="FP8", cfg=dict(QUANT, n_routed_experts=6)),
    "bf16": dict(pattern="MEM*-E", seed=112, n=32, quant="BF16", cfg=QUANT),
    # Lightning's way: W4A16_NVFP4 and FP8 by module, in quantization_config of config.json, F32 gate
    "mixed": dict(
        pattern="MEM*E-ME", seed=113, n=32, quant="MIXED", layer_list=LAYER_NAMES,
        cfg=dict(QUANT, vocab_size=96),
    ),
    # spellings a loader also has to take: model.* prefix, embedding.weight, experts fused into 3-d
    # tensors, an mtp.* tensor to ignore, the older Mamba config keys, the newer layer names,
    # conv_kernel 3, and data offsets that are not aligned to anything
    "aliases": dict(
        pattern="ME*-M", seed=114, n=29, spelling="alias",
        layer_list={"M": "linear_attention", "*": "full_attention", "E": "moe", "-": "mlp"},
        cfg=dict(hidden_size=28, vocab_size=71, conv_kernel=3),
    ),
}  # fmt: skip

# --------------------------------------------------------------------------
# Random weights
# --------------------------------------------------------------------------


class Draw:
    """Random tensors with names; the scales keep every mixer's output O(1)."""

    def __init__(self, seed):
        self.gen = torch.Generator().manual_seed(seed)
        self.out = {}

    def randn(self, *shape):
        return torch.randn(*shape, generator=self.gen)

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.gen)

    def linear(self, name, out_dim, in_dim, gain=1.0, bias=False):
        self.out[name + ".weight"] = self.randn(out_dim, in_dim) * (gain / math.sqrt(in_dim))
        if bias:
            self.out[name + ".bias"] = 0.3 * self.randn(out_dim)

    def norm(self, name, size):
        self.out[name + ".weight"] = 1.0 + 0.25 * self.randn(size)


def random_tensors(cfg, pattern, seed):
    """Published names -> float32 tensors."""
    d = Draw(seed)
    hidden, c = cfg["hidden_size"], cfg
    d.out["backbone.embeddings.weight"] = d.randn(c["vocab_size"], hidden) * (0.3 if c["tie_word_embeddings"] else 1.0)
    for i, kind in enumerate(pattern):
        d.norm(f"backbone.layers.{i}.norm", hidden)
        m = f"backbone.layers.{i}.mixer"
        if kind == "M":
            draw_mamba(d, m, c)
        elif kind == "*":
            q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
            bias = c["attention_bias"]
            d.linear(m + ".q_proj", q, hidden, 1.3, bias)
            d.linear(m + ".k_proj", kv, hidden, 1.3, bias)
            d.linear(m + ".v_proj", kv, hidden, 1.5, bias)
            d.linear(m + ".o_proj", hidden, q, 1.5, bias)
        elif kind == "-":
            draw_mlp(d, m, hidden, c["intermediate_size"], 0.8, c["mlp_bias"])
        else:
            draw_moe(d, m, c)
    d.norm("backbone.norm_f", hidden)
    if not c["tie_word_embeddings"]:
        d.linear("lm_head", c["vocab_size"], hidden, 1.5)
    return d.out


def draw_mamba(d, m, c):
    heads, inner = c["mamba_num_heads"], c["mamba_num_heads"] * c["mamba_head_dim"]
    conv = inner + 2 * c["n_groups"] * c["ssm_state_size"]
    # Time steps of about 0.02 .. 1 and decay rates of 0.05 .. 8: some heads forget at once,
    # some still know the first token hundreds of positions later.
    dt = torch.exp(d.rand(heads) * math.log(50) + math.log(0.02))
    d.out[m + ".dt_bias"] = dt + torch.log(-torch.expm1(-dt))
    d.out[m + ".A_log"] = d.rand(heads) * math.log(160) + math.log(0.05)
    d.out[m + ".D"] = 0.6 + 0.5 * d.randn(heads)
    d.out[m + ".conv1d.weight"] = 0.7 * d.randn(conv, 1, c["conv_kernel"])
    if c["use_conv_bias"]:
        d.out[m + ".conv1d.bias"] = 0.3 * d.randn(conv)
    d.linear(m + ".in_proj", inner + conv + heads, c["hidden_size"], 1.0, c["use_bias"])
    d.norm(m + ".norm", inner)
    d.linear(m + ".out_proj", c["hidden_size"], inner, 0.8, c["use_bias"])


def draw_mlp(d, name, size, inner, gain, bias):
    # relu(x)^2 of a unit normal has mean square 1.5
    d.linear(name + ".up_proj", inner, size, 1.0, bias)
    d.linear(name + ".down_proj", size, inner, gain / math.sqrt(1.5), bias)


def draw_moe(d, m, c):
    hidden, n = c["hidden_size"], c["n_routed_experts"]
    latent = c.get("moe_latent_size")
    d.linear(m + ".gate", n, hidden, 1.0)
    d.out[m + ".gate.e_score_correction_bias"] = 0.15 * d.randn(n)
    if latent:
        d.linear(m + ".fc1_latent_proj", latent, hidden, 1.0, c["mlp_bias"])
        d.linear(m + ".fc2_latent_proj", hidden, latent, 0.4, c["mlp_bias"])
    for e in range(n):
        draw_mlp(d, f"{m}.experts.{e}", latent or hidden, c["moe_intermediate_size"], 0.7, False)
    draw_mlp(d, m + ".shared_experts", hidden, c["moe_shared_expert_intermediate_size"], 0.7, c["mlp_bias"])


# --------------------------------------------------------------------------
# ModelOpt's quantised layouts, from the format description
# --------------------------------------------------------------------------


def encode_e2m1(x):
    """float32 -> 4-bit codes, nearest value, ties to the even code, saturating at 6."""
    half_way = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    a = x.abs()
    code = (a[..., None] > half_way).sum(-1)  # on a tie: the lower of the two codes
    tie = (a[..., None] == half_way).any(-1)
    code = torch.where(tie & (code % 2 == 1), code + 1, code)
    return (code + torch.where(torch.signbit(x), 8, 0)).to(torch.uint8)


def encode_nvfp4(w):
    """[out, in] -> weight U8 [out, in/2], weight_scale E4M3 [out, in/16], weight_scale_2 F32 []"""
    scale2 = w.abs().max() / (6.0 * 448.0)
    blocks = w.unflatten(1, (-1, 16))
    scale = blocks.abs().amax(-1) / (6.0 * scale2)
    scale = torch.where(scale == 0, 1.0, scale).clamp(2.0**-9, 448.0).to(torch.float8_e4m3fn)
    codes = encode_e2m1(blocks / (scale.float() * scale2)[..., None]).flatten(1)
    return codes[:, 0::2] | (codes[:, 1::2] << 4), scale, scale2


def store_nvfp4(out, name, w, d, with_input_scale):
    # Uneven blocks, so that the scales differ (mean square 1); one empty block, one far below the
    # smallest scale, one with a subnormal scale.
    w = w.unflatten(1, (-1, 16)) * torch.exp(0.6 * d.randn(w.shape[0], w.shape[1] // 16, 1) - 0.36)
    w[1, 0] = 0.0
    w[2, -1] *= 2e-6
    w[3, 0] *= 3e-5
    w = w.flatten(1)
    out[name + ".weight"], out[name + ".weight_scale"], out[name + ".weight_scale_2"] = encode_nvfp4(w)
    if with_input_scale:  # not used weight-only; far from 1 so that using it shows
        out[name + ".input_scale"] = torch.tensor(0.0037)


def store_fp8(out, name, w):
    scale = w.abs().max() / 448.0
    out[name + ".weight"] = (w / scale).clamp(-448.0, 448.0).to(torch.float8_e4m3fn)
    out[name + ".weight_scale"] = scale
    out[name + ".input_scale"] = torch.tensor([0.0211])


def quantise(tensors, spec):
    """-> stored tensors, hf_quant_config.json (or None), quantization_config (or None)"""
    scheme, pattern, d = spec["quant"], spec["pattern"], Draw(spec["seed"] + 5000)
    # Left in BF16: lm_head, the mamba layer before each attention, the attention, every convolution.
    excluded = [] if scheme == "MIXED" else ["lm_head"]
    for i, kind in enumerate(pattern):
        m = f"backbone.layers.{i}.mixer."
        if scheme != "MIXED" and kind == "M" and pattern[i + 1 : i + 2] == "*":
            excluded += [m + "in_proj", m + "out_proj"]
        if kind == "*":
            excluded += [m + p + "_proj" for p in "qkvo"]
        if kind == "M":
            excluded.append(m + "conv1d")
        if scheme == "MIXED" and kind == "E":
            excluded.append(m + "gate")

    out, layers = {}, {}
    for name, w in tensors.items():
        module = name.removesuffix(".weight")
        is_linear = module.endswith("_proj") or module == "lm_head"
        if scheme == "BF16" or module in excluded or not is_linear:
            f32 = name.endswith("e_score_correction_bias") or (scheme == "MIXED" and module.endswith(".gate"))
            out[name] = w if f32 else w.to(torch.bfloat16)
        elif scheme == "FP8" or (scheme == "MIXED" and module.endswith(("in_proj", "out_proj"))):
            store_fp8(out, module, w)
            layers[module] = {"quant_algo": "FP8"}
        else:
            store_nvfp4(out, module, w, d, with_input_scale=scheme == "NVFP4")
            layers[module] = {"quant_algo": "W4A16_NVFP4", "group_size": 16}
    if scheme == "BF16":
        return out, None, None

    # The KV cache scales such checkpoints carry; nothing here uses them.
    for i, kind in enumerate(pattern):
        if kind == "*":
            out[f"backbone.layers.{i}.mixer.k_proj.k_scale"] = torch.tensor([0.0131])
            out[f"backbone.layers.{i}.mixer.v_proj.v_scale"] = torch.tensor([0.0117])

    if scheme == "MIXED":
        return out, None, {
            "quant_method": "modelopt",
            "quant_algo": "MIXED_PRECISION",
            "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
            "producer": {"name": "modelopt", "version": "0.44.0rc5"},
            "quantized_layers": layers,
            "ignore": ["backbone.embeddings", *excluded, "mtp*"],
        }  # fmt: skip
    quantization = {"quant_algo": scheme, "kv_cache_quant_algo": "FP8", "exclude_modules": excluded}
    if scheme == "NVFP4":
        quantization["group_size"] = 16
    return out, {"producer": {"name": "modelopt", "version": "0.29.0"}, "quantization": quantization}, None


# --------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_config(folder, spec, cfg, quantization_config):
    cfg = dict(cfg, num_hidden_layers=len(spec["pattern"]))
    if "layer_list" in spec:
        cfg["layers_block_type"] = [spec["layer_list"][k] for k in spec["pattern"]]
    else:
        cfg["hybrid_override_pattern"] = spec["pattern"]
    if spec.get("spelling") == "alias":
        older = dict(n_groups="mamba_n_groups", conv_kernel="mamba_d_conv", expand="mamba_expand",
                     time_step_min="mamba_dt_min", time_step_max="mamba_dt_max",
                     time_step_floor="mamba_dt_init_floor", use_conv_bias="mamba_conv_bias",
                     chunk_size="mamba_chunk_size")  # fmt: skip
        cfg = {older.get(k, k): v for k, v in cfg.items()}
    if quantization_config:
        cfg["quantization_config"] = quantization_config
    write_json(os.path.join(folder, "config.json"), cfg)


def alias_names(tensors, cfg):
    """The other spelling of every name: model.*, embedding.weight, fused experts; plus an ignored mtp.* tensor."""
    out = {"mtp.layers.0.odd": torch.tensor([1, 2, 3], dtype=torch.uint8)}
    for name, t in tensors.items():
        name = name.replace("backbone.embeddings.", "backbone.embedding.").replace("backbone.", "model.")
        if ".experts." in name:
            before, after = name.split(".experts.")
            e, proj = after.removesuffix(".weight").split(".")
            if e == "0":
                n = cfg["n_routed_experts"]
                names = [f"{before}.experts.{i}.{proj}.weight".replace("model.", "backbone.") for i in range(n)]
                out[f"{before}.experts.{proj}"] = torch.stack([tensors[k] for k in names])
        else:
            out[name] = t
    return out


def write_unaligned(path, tensors):
    """A safetensors file in the order given, with no padding: legal, and no tensor need be aligned."""
    dtypes = {torch.float32: "F32", torch.uint8: "U8"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, t in tensors.items():
        raw = t.contiguous().numpy().tobytes()
        header[name] = {
            "dtype": dtypes[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def write_model(folder, spec, cfg, stored):
    if spec.get("spelling") == "alias":
        write_unaligned(os.path.join(folder, "model.safetensors"), alias_names(stored, cfg))
        return
    stored = {k: v.contiguous().clone() for k, v in stored.items()}
    count = spec.get("shards", 1)
    if count == 1:
        save_file(stored, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        return
    total, seen = sum(t.nbytes for t in stored.values()), 0
    shards, weight_map = [{} for _ in range(count)], {}
    for name, t in stored.items():
        which = min(count - 1, seen * count // total)
        shards[which][name] = t
        weight_map[name] = f"model-{which + 1:05d}-of-{count:05d}.safetensors"
        seen += t.nbytes
    for i, shard in enumerate(shards):
        save_file(
            shard, os.path.join(folder, f"model-{i + 1:05d}-of-{count:05d}.safetensors"), metadata={"format": "pt"}
        )
    write_json(
        os.path.join(folder, "model.safetensors.index.json"),
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def write_expected(folder, name, spec, ids, result):
    import transformers

    n, keep = len(ids), spec.get("keep", len(ids))
    rows = slice(n - keep, n)
    out = {"input_ids": ids.to(torch.int32), "logits": result["logits"][rows]}
    if keep < n:
        out["positions"] = torch.arange(n - keep, n, dtype=torch.int32)
    for i, h in enumerate(result["hidden"]):
        out[f"hidden.{i}"] = h[rows]
    for j, r in enumerate(result["router"]):
        out[f"router.{j}.indices_sorted"] = r["indices"][rows]
        out[f"router.{j}.weights"] = r["weights"][rows]
    out = {k: v.contiguous().clone() for k, v in out.items()}
    metadata = {
        "fixture": name,
        "source": f"transformers {transformers.__version__} NemotronHForCausalLM, "
        f"torch {torch.__version__}, CPU float32, eager attention and experts",
        "layers": spec["pattern"],
        "hidden": "hidden.I = residual stream leaving layer I, before norm_f",
        "router": "router.J = J-th MoE layer; experts in ascending index order, weights in the same order",
        "positions": f"rows are positions {n - keep}..{n - 1}",
        "quantisation": "weights decoded, activations not quantised, input_scale / k_scale / v_scale not used",
    }
    if "quant" not in spec:
        del metadata["quantisation"]
    # one key, because the library writes several in a random order
    save_file(out, os.path.join(folder, "expected.safetensors"), metadata={"golden": json.dumps(metadata)})


# --------------------------------------------------------------------------
# Making one fixture
# --------------------------------------------------------------------------


def draw_ids(gen, vocab, n):
    ids = torch.randint(0, vocab, (n,), generator=gen)
    ids[1], ids[n // 2] = vocab - 1, 0  # both ends of the vocabulary
    return ids


def choose_prompt(model, spec, vocab):
    """A prompt whose routing no rounding can change."""
    gen = torch.Generator().manual_seed(spec["seed"] + 9000)
    for attempt in range(400):
        ids = draw_ids(gen, vocab, spec["n"])
        result = hf_oracle.run(model, ids)
        margin = min([float(r["margin"].min()) for r in result["router"]], default=float("inf"))
        if margin > MIN_MARGIN:
            return ids, result, margin, attempt + 1
    raise SystemExit("no prompt with a safe routing margin; take another seed")


def rms(x):
    return float(x.double().pow(2).mean().sqrt())


def make(root, name, audit):
    spec = FIXTURES[name]
    cfg = dict(BASE, **spec["cfg"])
    folder = os.path.join(root, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)

    tensors = random_tensors(cfg, spec["pattern"], spec["seed"])
    stored, hf_quant, quantization_config = quantise(tensors, spec) if "quant" in spec else (tensors, None, None)
    write_config(folder, spec, cfg, quantization_config)
    write_model(folder, spec, cfg, stored)
    if hf_quant:
        write_json(os.path.join(folder, "hf_quant_config.json"), hf_quant)

    # From here on only what was written counts.
    model = hf_oracle.load_model(folder)
    ids, result, margin, attempts = choose_prompt(model, spec, cfg["vocab_size"])
    write_expected(folder, name, spec, ids, result)

    # transformers against itself: one token at a time, and another chunk size
    noise = hf_oracle.rel_err(hf_oracle.run_decode(model, ids), result["logits"])
    mixers = [layer.mixer for layer in model.model.layers if layer.block_type == "linear_attention"]
    for mixer in mixers:
        mixer.chunk_size = 7
    noise = max(noise, hf_oracle.rel_err(hf_oracle.run(model, ids)["logits"], result["logits"]))
    for mixer in mixers:
        mixer.chunk_size = cfg["chunk_size"]

    # every layer must matter
    into = [model.model.embeddings.weight[ids], *result["hidden"][:-1]]
    share = [rms(out - x) / rms(x) for x, out in zip(into, result["hidden"])]
    if min(share) < 0.1 or noise > 2e-5:
        raise SystemExit(f"{name}: layer shares {share}, noise {noise}")
    sizes = {f: os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder)}
    model_bytes = sum(v for f, v in sizes.items() if f.startswith("model") and f.endswith("safetensors"))
    if model_bytes > MAX_MODEL or sizes["expected.safetensors"] > MAX_EXPECTED:
        raise SystemExit(f"{name}: too large: {sizes}")
    hit = [len(r["indices"].unique()) for r in result["router"]]
    moved = [float((r["indices"] != r["unbiased"]).any(-1).float().mean()) for r in result["router"]]
    regrouped = [float((r["indices"] != r["ungrouped"]).any(-1).float().mean()) for r in result["router"]]
    print(
        f"{name:15s} model {model_bytes:7d} B  expected {sizes['expected.safetensors']:6d} B  "
        f"|logits| {rms(result['logits']):.2f}  |hidden| {rms(result['hidden'][-1]):.2f}  "
        f"layer share {min(share):.2f}..{max(share):.2f}  HF noise {noise:.1e}"
    )
    if hit:
        print(
            f"{'':15s} routing: margin {margin:.1e} after {attempts} prompts, experts used {hit} of "
            f"{cfg['n_routed_experts']}, changed by the bias {[round(x, 2) for x in moved]}"
            + (f", by the groups {[round(x, 2) for x in regrouped]}" if cfg["n_group"] > 1 else "")
        )
    if audit:
        show_audit(model, ids, result, spec.get("keep", len(ids)))


@torch.no_grad()
def show_audit(model, ids, result, keep):
    """What the logits lose when one tensor is emptied (norms, A_log: made constant); should all be >> 1e-4."""
    base, effects = result["logits"][-keep:], {}
    everything = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, p in everything.items():
        old = p.clone()
        p.fill_(1.0 if "norm" in name else 0.0)
        effects[name] = hf_oracle.rel_err(hf_oracle.run(model, ids)["logits"][-keep:], base)
        p.copy_(old)
    for name, effect in sorted(effects.items(), key=lambda kv: kv[1])[:4]:
        print(f"{'':15s} audit: {effect:.1e} without {name}")


# --------------------------------------------------------------------------


def cross_check(vectors):
    """The same pipeline on vectors made elsewhere, by the model code published with the checkpoints."""
    from safetensors.torch import load_file

    ok = True
    for name in sorted(os.listdir(vectors)):
        folder = os.path.join(vectors, name)
        if not os.path.exists(os.path.join(folder, "expected.safetensors")):
            continue
        want = load_file(os.path.join(folder, "expected.safetensors"))
        model = hf_oracle.load_model(folder)
        got = hf_oracle.run(model, want["input_ids"])
        rows = want["positions"].long() if "positions" in want else slice(None)
        worst = float((got["logits"][rows] - want["logits"]).abs().max())
        hidden = [float((h[rows] - want[f"hidden.{i}"]).abs().max()) for i, h in enumerate(got["hidden"])]
        same = all(
            torch.equal(r["indices"][rows], want[f"router.{j}.indices_sorted"].int())
            and torch.allclose(r["weights"][rows], want[f"router.{j}.weights"], atol=1e-5)
            for j, r in enumerate(got["router"])
        )
        print(f"{name:15s} max |logits difference| {worst:.2e}, |hidden| {max(hidden):.2e}, routing equal: {same}")
        ok = ok and worst < 2e-5 and same
    return 0 if ok else 1


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-o", metavar="DIR", help="folder to write the fixture folders into")
    ap.add_argument("--only", metavar="NAMES", help="comma-separated fixtures (default: all)")
    ap.add_argument("--audit", action="store_true", help="show the least influential tensors of each fixture")
    ap.add_argument("--cross-check", metavar="DIR", help="compare with the expected values of every folder in DIR")
    args = ap.parse_args()
    if not args.o and not args.cross_check:
        ap.error("nothing to do: give -o or --cross-check")
    names = args.only.split(",") if args.only else list(FIXTURES)
    unknown = [n for n in names if n not in FIXTURES]
    if unknown:
        ap.error(f"unknown fixtures {unknown}; there are {', '.join(FIXTURES)}")
    if args.o:
        for name in names:
            make(args.o, name, args.audit)
    return cross_check(args.cross_check) if args.cross_check else 0


if __name__ == "__main__":
    sys.exit(main())
