#include "tiny/tiny.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "forge/synth.h"

tiny_opts tiny_defaults(void)
{
    return (tiny_opts){ .pattern = "MEM*E-ME", .dtype = "f32", .seed = 1, .hidden = 64, .vocab = 96, .experts = 8, .topk = 2, .n_group = 1,
                        .topk_group = 1, .expert_ffn = 48, .shared_ffn = 80, .dense_ffn = 96, .mamba_heads = 8, .mamba_groups = 2,
                        .mamba_head_dim = 16, .state = 16, .conv_kernel = 4, .chunk = 8, .heads = 8, .kv_heads = 2, .head_dim = 16 };
}

static json_t *config_json(const tiny_opts *o)
{
    json_t *c = json_pack("{s:[s], s:s, s:s, s:s}", "architectures", "NemotronHForCausalLM", "model_type", "nemotron_h", "torch_dtype", "bfloat16",
                          "hybrid_override_pattern", o->pattern);
    const struct { const char *key; int value; } ints[] = {
        { "num_hidden_layers", (int)strlen(o->pattern) }, { "hidden_size", o->hidden }, { "vocab_size", o->vocab },
        { "n_routed_experts", o->experts }, { "num_experts_per_tok", o->topk }, { "n_group", o->n_group }, { "topk_group", o->topk_group },
        { "moe_intermediate_size", o->expert_ffn }, { "moe_shared_expert_intermediate_size", o->shared_ffn }, { "n_shared_experts", 1 },
        { "intermediate_size", o->dense_ffn }, { "mamba_num_heads", o->mamba_heads }, { "n_groups", o->mamba_groups },
        { "mamba_head_dim", o->mamba_head_dim }, { "ssm_state_size", o->state }, { "conv_kernel", o->conv_kernel }, { "chunk_size", o->chunk },
        { "num_attention_heads", o->heads }, { "num_key_value_heads", o->kv_heads }, { "head_dim", o->head_dim },
        { "max_position_embeddings", 512 }, { "bos_token_id", 1 }, { "eos_token_id", 2 }, { "pad_token_id", 0 } };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++)
        json_object_set_new(c, ints[i].key, json_integer(ints[i].value));
    if (o->latent)
        json_object_set_new(c, "moe_latent_size", json_integer(o->latent));
    const struct { const char *key; bool value; } bools[] = {
        { "use_bias", o->biases }, { "mamba_proj_bias", o->biases }, { "use_conv_bias", true }, { "attention_bias", o->biases },
        { "mlp_bias", o->biases }, { "norm_topk_prob", true }, { "tie_word_embeddings", o->tied }, { "residual_in_fp32", false } };
    for (size_t i = 0; i < sizeof bools / sizeof *bools; i++)
        json_object_set_new(c, bools[i].key, json_boolean(bools[i].value));
    json_object_set_new(c, "layer_norm_epsilon", json_real(1e-5));
    json_object_set_new(c, "norm_eps", json_real(1e-5));
    json_object_set_new(c, "routed_scaling_factor", json_real(2.5));
    json_object_set_new(c, "mlp_hidden_act", json_string("relu2"));
    json_object_set_new(c, "mamba_hidden_act", json_string("silu"));
    return c;
}

int tiny_config(const char *path, const tiny_opts *o)
{
    const tiny_opts d = tiny_defaults();
    json_t *c = config_json(o ? o : &d);
    int rc = c ? json_dump_file(c, path, JSON_INDENT(2) | JSON_SORT_KEYS) : -1;
    json_decref(c);
    if (rc != 0)
        fprintf(stderr, "tiny: cannot write %s\n", path);
    return rc;
}

static int synthesise(const char *config, const char *dir, const tiny_opts *o)
{
    ns_err e = { 0 };
    ns_synth_opts so = ns_synth_defaults();
    so.seed = o->seed;
    so.dtype = o->dtype;
    int rc = ns_synth(config, &so, dir, &e);
    if (rc == 0 && o->nest) {
        char *nest = tiny_path(dir, "nest.json");
        rc = ns_file_write(nest, o->nest, strlen(o->nest), &e);
        free(nest);
    }
    if (rc != 0)
        fprintf(stderr, "tiny: %s\n", e.msg);
    return rc;
}

int tiny_make(const char *dir, const tiny_opts *o)
{
    const tiny_opts d = tiny_defaults();
    char config[4096];
    o = o ? o : &d;
    snprintf(config, sizeof config, "%s.config.json", dir);
    int rc = tiny_config(config, o);
    if (rc == 0)
        rc = synthesise(config, dir, o);
    unlink(config);
    return rc;
}

static void die(const char *what)
{
    fprintf(stderr, "tiny: %s\n", what);
    abort();
}

char *tiny_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    char *path = tiny_path(tmp && *tmp ? tmp : "/tmp", "nestar-XXXXXX");
    if (!mkdtemp(path))
        die("no temporary folder");
    return path;
}

char *tiny_path(const char *base, const char *name)
{
    size_t n = strlen(base) + strlen(name) + 2;
    char *path = malloc(n);
    if (!path)
        die("out of memory");
    snprintf(path, n, "%s/%s", base, name);
    return path;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

void tiny_remove(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

ns_ckpt *tiny_open(const char *base, const char *name, const tiny_opts *o)
{
    ns_err e = { 0 };
    char *dir = tiny_path(base, name);
    ns_ckpt *c = tiny_make(dir, o) == 0 ? ns_ckpt_open(dir, NULL, &e) : NULL;
    free(dir);
    if (!c)
        die(e.msg);
    return c;
}

/* ---- random cuts ---- */

static bool has_blocks(const ns_ckpt *c)
{
    for (size_t i = 0; i < ns_store_count(c->store); i++)
        if (ns_store_at(c->store, i)->dtype == NS_U8)
            return true;
    return false;
}

static int pick(ns_rng *r, int n)
{
    return (int)(ns_rng_u64(r) % (uint64_t)n);
}

/* Half of the time the full width; else a multiple of what the axis comes in. */
static int random_width(const ns_arch *a, ns_axis x, int full, int block, ns_rng *r)
{
    int step = x == NS_AXIS_MAMBA_HEADS ? a->n_groups : x == NS_AXIS_EXPERTS ? a->n_group : x == NS_AXIS_ATTN_HEADS ? a->n_kv_heads : 1;
    if (x == NS_AXIS_HIDDEN || x == NS_AXIS_EXPERT_FFN || x == NS_AXIS_SHARED_FFN || x == NS_AXIS_DENSE_FFN)
        step = block;
    if (full < step || pick(r, 2))
        return full;
    return step * (1 + pick(r, full / step));
}

static void random_cut(const ns_ckpt *c, int block, ns_rng *r, ns_cut *cut)
{
    const ns_arch *a = c->arch;
    const bool per_layer = pick(r, 3) == 0, drop = pick(r, 3) == 0;
    int width[NS_AXIS_COUNT] = { 0 };
    for (int i = 0; i < cut->n_layers; i++) {
        cut->layer[i].keep = !drop || i == 0 || pick(r, 4) != 0;
        for (int x = 0; x < NS_AXIS_COUNT; x++) {
            int full = a->layers[i].width[x];
            if (full && (!width[x] || (per_layer && x != NS_AXIS_HIDDEN)))
                width[x] = random_width(a, (ns_axis)x, full, block, r);
            cut->layer[i].width[x] = full ? (width[x] < full ? width[x] : full) : 0;
        }
    }
}

int tiny_random_cut(const ns_ckpt *c, uint64_t seed, ns_cut *out)
{
    ns_rng r;
    ns_err e = { 0 };
    int block = has_blocks(c) ? 16 : 1;
    ns_rng_init(&r, seed);
    if (ns_cut_full(c->arch, out, &e) != 0)
        return -1;
    for (int attempt = 0; attempt < 1000; attempt++) {
        random_cut(c, block, &r, out);
        e = (ns_err){ 0 };
        if (ns_cut_validate(c->arch, out, ns_ckpt_dtype_of, (void *)(uintptr_t)c, &e) == 0)
            return 0;
    }
    fprintf(stderr, "tiny: no valid cut: %s\n", e.msg);
    ns_cut_release(out);
    return -1;
}

char *tiny_base;

int tiny_setup(void **state)
{
    (void)state;
    tiny_base = tiny_dir();
    return 0;
}

int tiny_teardown(void **state)
{
    (void)state;
    tiny_remove(tiny_base);
    free(tiny_base);
    tiny_base = NULL;
    return 0;
}
