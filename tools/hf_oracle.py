"""Shared helpers of export_golden.py, export_grads.py, bench_torch_train.py and check_slice_hf.py.

The oracle of every golden fixture is Hugging Face transformers' own NemotronH
model, run on the CPU in float32.  This file

  * reads a checkpoint folder (one model.safetensors, or shards with an index),
    brings the tensor names to the published form (backbone.*, one tensor per
    expert) and widens BF16 / FP8 / NVFP4 weights to float32;
  * hands these to transformers, working around the few published config
    switches transformers does not implement (see build_model);
  * runs a prompt and collects logits, the hidden state after every layer and
    the router's picks.

Needs torch, transformers, safetensors (made with torch 2.13.0, transformers 5.23.0).
"""

import json
import os
import re
import warnings

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch
from safetensors.torch import load_file
from torch import nn
from transformers.utils import logging as hf_logging

torch.set_num_threads(1)
hf_logging.disable_progress_bar()

# --------------------------------------------------------------------------
# Reading a checkpoint folder
# --------------------------------------------------------------------------


def read_tensors(folder):
    """All tensors of a folder, exactly as stored."""
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return load_file(os.path.join(folder, "model.safetensors"))
    with open(index, encoding="utf-8") as f:
        weight_map = json.load(f)["weight_map"]
    out = {}
    for shard in sorted(set(weight_map.values())):
        out.update(load_file(os.path.join(folder, shard)))
    missing = set(weight_map) - set(out)
    if missing:
        raise SystemExit(f"{folder}: index names tensors no shard has: {sorted(missing)[:3]}")
    return out


def read_config(folder):
    """config.json without quantization_config (weights are widened here, not by transformers)."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        cfg = json.load(f)
    cfg.pop("quantization_config", None)
    return cfg


# Magnitudes of the eight E2M1 codes; bit 3 of a code is the sign.
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float32)


def dequantise_nvfp4(weight, scale, scale2):
    """weight U8 [out, in/2] (low nibble = even element), scale E4M3 [out, in/16], scale2 F32 []."""
    codes = torch.stack([weight & 15, weight >> 4], dim=-1).flatten(1).long()
    value = E2M1[codes & 7] * torch.where(codes >= 8, -1.0, 1.0)
    blocks = value.unflatten(1, (-1, 16)) * scale.float()[..., None]  # exact in float32
    return (blocks * scale2.float()).flatten(1)  # the one rounding


def dequantise_all(stored):
    """Every stored tensor as float32; ModelOpt's scale tensors are consumed, input/KV scales dropped."""
    out = {}
    for name, t in stored.items():
        if name.endswith((".weight_scale", ".weight_scale_2", ".input_scale", ".k_scale", ".v_scale")):
            continue
        if t.dtype == torch.uint8 and name.endswith(".weight") and name + "_scale_2" in stored:
            t = dequantise_nvfp4(t, stored[name + "_scale"], stored[name + "_scale_2"])
        elif t.dtype == torch.float8_e4m3fn:
            t = t.float() * stored[name + "_scale"].float()
        elif not t.dtype.is_floating_point:
            continue  # not a weight (only ignored modules have such tensors)
        out[name] = t.float().contiguous()
    return out


def canonical_names(tensors):
    """Other accepted spellings -> the published one: backbone.*, embeddings.weight, one tensor per expert."""
    out = {}
    for name, t in tensors.items():
        if name.startswith("mtp."):
            continue
        name = re.sub(r"^model\.", "backbone.", name)
        name = name.replace("backbone.embedding.weight", "backbone.embeddings.weight")
        fused = re.fullmatch(r"(.*\.mixer\.experts)\.(up_proj|down_proj)", name)
        if fused:  # [n_experts, out, in], the in-memory form of transformers >= 5
            for e in range(t.shape[0]):
                out[f"{fused[1]}.{e}.{fused[2]}.weight"] = t[e].clone()
        else:
            out[name] = t
    return out


# --------------------------------------------------------------------------
# The model
# --------------------------------------------------------------------------


def build_model(cfg, tensors):
    """A float32 transformers model with `tensors` (published names) in it.

    What transformers (5.23) does not implement, and what is done instead:
      * tie_word_embeddings: NemotronHForCausalLM declares no tied keys, so the
        switch does nothing there.  lm_head.weight is filled from the embedding.
      * attention_bias: the projections are built without bias whatever the
        config says.  They are replaced by nn.Linear with bias before loading.
    """
    from transformers import NemotronHConfig, NemotronHForCausalLM
    from transformers.models.nemotron_h import modeling_nemotron_h as hf

    tensors = dict(tensors)
    if cfg.get("tie_word_embeddings") and "lm_head.weight" not in tensors:
        tensors["lm_head.weight"] = tensors["backbone.embeddings.weight"].clone()

    config = NemotronHConfig.from_dict(dict(cfg))
    plain_init = hf.NemotronHAttention.__init__

    def init_with_bias(self, config, layer_idx):
        plain_init(self, config, layer_idx)
        for proj in ("q_proj", "k_proj", "v_proj", "o_proj"):
            old = getattr(self, proj)
            setattr(self, proj, nn.Linear(old.in_features, old.out_features, bias=True))

    if config.attention_bias:
        hf.NemotronHAttention.__init__ = init_with_bias
    try:
        model, info = NemotronHForCausalLM.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            attn_implementation="eager",
            experts_implementation="eager",  # the loop in the modelling file; the default needs 16-byte rows
            output_loading_info=True,
        )
    finally:
        hf.NemotronHAttention.__init__ = plain_init
    bad = {k: sorted(v)[:4] for k, v in info.items() if v}
    if bad:
        raise SystemExit(f"transformers did not load every tensor: {bad}")
    return model.eval()


def load_model(folder):
    return build_model(read_config(folder), canonical_names(dequantise_all(read_tensors(folder))))


# --------------------------------------------------------------------------
# Running
# --------------------------------------------------------------------------


def routing_margin(router, biased):
    """[n]: how far each token's pick is from another one, so that one can tell whether rounding could change it.
    biased: the router's scores with the correction bias, [n, experts]."""
    groups = biased.unflatten(1, (router.num_group, -1)).topk(2, dim=-1)[0].sum(-1)
    ranked = groups.sort(dim=-1, descending=True)
    margin = torch.full((len(biased),), float("inf"))
    allowed = biased
    if router.topk_group < router.num_group:
        margin = ranked.values[:, router.topk_group - 1] - ranked.values[:, router.topk_group]
        keep = torch.zeros_like(groups).scatter_(1, ranked.indices[:, : router.topk_group], 1)
        keep = keep.repeat_interleave(biased.shape[1] // router.num_group, dim=1)
        allowed = biased.masked_fill(keep == 0, float("-inf"))
    best = allowed.sort(dim=-1, descending=True).values
    if router.top_k < best.shape[1]:
        margin = torch.minimum(margin, best[:, router.top_k - 1] - best[:, router.top_k])
    return margin


@torch.no_grad()
def run(model, ids):
    """ids [n] -> {"logits" [n,V], "hidden" [layer][n,H], "router" [{"indices","weights","margin",...}]}.

    hidden[i] is the residual stream leaving layer i; norm_f is applied to none of them.
    router[j] belongs to the j-th MoE layer (not to layer j); its columns are in
    ascending order of the expert index, the weights in that same order.
    """
    hidden, router, hooks = [], [], []

    def on_router(module, args, result):
        logits, weights, indices = result
        order = indices.argsort(dim=-1)
        scores = logits.sigmoid()
        biased = scores + module.e_score_correction_bias
        router.append(
            {
                "indices": indices.gather(1, order).to(torch.int32),
                "weights": weights.gather(1, order).float(),
                "margin": routing_margin(module, biased),
                # the picks without the correction bias / without the groups, for the audit
                "unbiased": scores.topk(module.top_k, dim=-1)[1].sort(-1)[0].to(torch.int32),
                "ungrouped": biased.topk(module.top_k, dim=-1)[1].sort(-1)[0].to(torch.int32),
            }
        )

    for layer in model.model.layers:
        hooks.append(layer.register_forward_hook(lambda m, a, out: hidden.append(out[0].clone())))
        if layer.block_type == "moe":
            hooks.append(layer.mixer.gate.register_forward_hook(on_router))
    try:
        logits = model(torch.as_tensor(ids).long()[None], use_cache=False).logits[0]
    finally:
        for h in hooks:
            h.remove()
    return {"logits": logits, "hidden": hidden, "router": router}


@torch.no_grad()
def run_decode(model, ids):
    """Logits [n,V] from one-token steps with transformers' cache (its recurrent, not chunked, path)."""
    cache, rows = None, []
    for t in range(len(ids)):
        out = model(torch.as_tensor(ids[t : t + 1]).long()[None], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0, -1])
    return torch.stack(rows)


def rel_err(a, b):
    """max |a-b| / max |b|"""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())
