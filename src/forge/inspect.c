#include "forge/inspect.h"

#include <stdlib.h>
#include <string.h>

#include "arch/config.h"
#include "base/file.h"
#include "forge/formats.h"
#include "forge/synth.h"

enum { LARGEST = 8 };

/* Where a report comes from: an opened checkpoint, or a config with the formats it states. */
typedef struct subject {
    const char *path;
    const ns_arch *arch;
    const ns_variants *variants;
    ns_dtype_of_fn *dtype_of;
    void *ctx;
    int64_t context;
    ns_dtype kv;
    ns_err *e;
} subject;

static json_t *integer(int64_t x)
{
    return json_integer((json_int_t)x);
}

/* {"path", "hidden_size", .., "pattern", "layers": {"mamba": n, ..}} */
static json_t *architecture(const ns_arch *a)
{
    static const char kinds[] = { NS_LAYER_MAMBA, NS_LAYER_ATTENTION, NS_LAYER_MOE, NS_LAYER_MLP };
    char pattern[NS_MAX_LAYERS + 1];
    int count[4] = { 0 };
    for (int i = 0; i < a->n_layers; i++) {
        pattern[i] = a->layers[i].kind;
        for (int k = 0; k < 4; k++)
            count[k] += a->layers[i].kind == kinds[k];
    }
    pattern[a->n_layers] = '\0';
    json_t *o = json_pack("{s:i, s:s, s:i, s:i, s:i, s:b, s:b}", "num_layers", a->n_layers, "pattern", pattern, "hidden_size", a->hidden_size,
                          "vocab_size", a->vocab_size, "max_position", a->max_position, "tied_embeddings", a->tie_embeddings, "per_layer_widths",
                          a->per_layer);
    json_t *layers = json_pack("{s:i, s:i, s:i, s:i}", "mamba", count[0], "attention", count[1], "moe", count[2], "mlp", count[3]);
    json_object_set_new(o, "layers", layers);
    if (count[0])
        json_object_set_new(o, "mamba", json_pack("{s:i, s:i}", "n_groups", a->n_groups, "conv_kernel", a->conv_kernel));
    if (count[1])
        json_object_set_new(o, "attention", json_pack("{s:i, s:i}", "kv_heads", a->n_kv_heads, "head_dim", a->head_dim));
    if (count[2])
        json_object_set_new(o, "moe", json_pack("{s:i, s:i, s:i}", "latent_size", a->latent_size, "n_group", a->n_group, "topk_group", a->topk_group));
    return o;
}

static json_t *bytes_by_dtype(const int64_t *bytes)
{
    json_t *o = json_object();
    for (int t = 0; t < NS_DTYPE_COUNT; t++)
        if (bytes[t])
            json_object_set_new(o, ns_dtype_name((ns_dtype)t), integer(bytes[t]));
    return o;
}

/* {axis: width, or [least, most] where the layers differ} */
static json_t *widths(const ns_arch *a, const ns_cut *cut)
{
    json_t *o = json_object();
    for (int x = 0; x < NS_AXIS_COUNT; x++) {
        int lo = 0, hi = 0;
        for (int i = 0; i < cut->n_layers; i++) {
            int w = cut->layer[i].width[x];
            if (!cut->layer[i].keep || a->layers[i].width[x] == 0)
                continue;
            lo = lo == 0 || w < lo ? w : lo;
            hi = w > hi ? w : hi;
        }
        if (hi)
            json_object_set_new(o, ns_axis_name((ns_axis)x), lo == hi ? integer(hi) : json_pack("[i,i]", lo, hi));
    }
    return o;
}

/* {"name", "budget", "layers", "widths", "params_total", "params_active", "weight_bytes", "weight_bytes_by_dtype", "active_bytes",
 *  "kv_bytes_per_token", "kv_bytes", "state_bytes", "flops_per_token"} */
static json_t *variant(const subject *s, const ns_variant *v)
{
    ns_cost k;
    int layers = 0;
    if (ns_cut_cost(s->arch, &v->cut, s->dtype_of, s->ctx, &k, s->e) != 0)
        return NULL;
    ns_cost_set_kv(&k, s->kv);
    for (int i = 0; i < v->cut.n_layers; i++)
        layers += v->cut.layer[i].keep;
    json_t *o = json_pack("{s:s, s:i, s:o, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:f}", "name", v->name, "layers", layers,
                          "widths", widths(s->arch, &v->cut), "params_total", (json_int_t)k.params_total,
                          "params_active", (json_int_t)k.params_active, "weight_bytes", (json_int_t)k.weight_bytes,
                          "weight_bytes_by_dtype", bytes_by_dtype(k.weight_bytes_by_dtype), "active_bytes", (json_int_t)k.active_bytes,
                          "kv_bytes_per_token", (json_int_t)k.kv_bytes_per_token, "kv_bytes", (json_int_t)(k.kv_bytes_per_token * s->context),
                          "state_bytes", (json_int_t)k.state_bytes, "flops_per_token", k.flops_per_token);
    json_object_set_new(o, "budget", v->budget > 0 ? json_real(v->budget) : json_null());
    return o;
}

/* Bytes of every size in one format, {"format", "nested_bytes", "separate_bytes", "sizes": {name: bytes}}: one file that holds all the
 * sizes against a file for each. null for a size that a block of the format would split, and then for the sum. */
static json_t *family(const subject *s, const char *format, const char *algo)
{
    ns_formats f = { 0 };
    json_t *quant = algo ? ns_formats_config(s->arch, algo, false, s->e) : NULL, *plain = json_copy(s->arch->config), *sizes = json_object();
    json_object_del(plain, "quantization_config");
    json_t *o = NULL;
    int64_t separate = 0, nested = 0;
    bool all = true;
    if ((algo && !quant) || !plain || ns_formats_open(&f, quant, plain, s->e) != 0)
        goto out;
    f.base = NS_BF16;
    for (int i = 0; i < s->variants->n; i++) {
        const ns_variant *v = &s->variants->v[i];
        ns_err split = { 0 };
        ns_cost k;
        bool fits = ns_cut_validate(s->arch, &v->cut, ns_formats_dtype_of, &f, &split) == 0;
        if (fits && ns_cut_cost(s->arch, &v->cut, ns_formats_dtype_of, &f, &k, s->e) != 0)
            goto out;
        json_object_set_new(sizes, v->name, fits ? integer(k.weight_bytes) : json_null());
        all = all && fits;
        separate += fits ? k.weight_bytes : 0;
        nested = i == 0 && fits ? k.weight_bytes : nested;
    }
    o = json_pack("{s:s, s:I, s:o, s:O}", "format", format, "nested_bytes", (json_int_t)nested, "separate_bytes",
                  all ? integer(separate) : json_null(), "sizes", sizes);
out:
    ns_formats_close(&f);
    json_decref(quant);
    json_decref(plain);
    json_decref(sizes);
    return o;
}

/* A list of them, where there is more than one size. */
static int add_families(const subject *s, json_t *o)
{
    static const struct { const char *format, *algo; } formats[] = { { "bf16", NULL }, { "fp8", "FP8" }, { "nvfp4", "NVFP4" } };
    json_t *list = json_array();
    for (int i = 0; i < 3 && s->variants->n > 1; i++)
        if (json_array_append_new(list, family(s, formats[i].format, formats[i].algo)) != 0) {
            json_decref(list);
            return -1;
        }
    return json_object_set_new(o, "families", list);
}

/* {"path", "context", "kv", "architecture", "variants": {"source", "assumed", "list"}, "families"} */
static json_t *report(const subject *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->variants->n; i++) {
        json_t *v = variant(s, &s->variants->v[i]);
        if (!v || json_array_append_new(list, v) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    json_t *o = json_pack("{s:s, s:I, s:s, s:o, s:{s:s, s:b, s:o}}", "path", s->path, "context", (json_int_t)s->context, "kv", ns_dtype_name(s->kv),
                          "architecture", architecture(s->arch), "variants", "source", s->variants->source, "assumed", s->variants->assumed, "list", list);
    if (o && add_families(s, o) == 0)
        return o;
    json_decref(o);
    return NULL;
}

static int larger(const void *a, const void *b)
{
    const ns_tensor *x = *(const ns_tensor *const *)a, *y = *(const ns_tensor *const *)b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes) - (x->bytes > y->bytes) : strcmp(x->name, y->name);
}

/* [{"name", "dtype", "shape", "bytes"}] */
static json_t *largest(const ns_ckpt *c)
{
    json_t *list = json_array();
    const ns_tensor **t = malloc((c->n_used + 1) * sizeof *t);
    if (!t)
        return list;
    memcpy(t, c->used, c->n_used * sizeof *t);
    qsort(t, c->n_used, sizeof *t, larger);
    for (size_t i = 0; i < c->n_used && i < LARGEST; i++) {
        json_t *shape = json_array();
        for (int d = 0; d < t[i]->n_dims; d++)
            json_array_append_new(shape, integer(t[i]->shape[d]));
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:I}", "name", t[i]->name, "dtype", ns_dtype_name(t[i]->dtype), "shape", shape,
                                              "bytes", (json_int_t)t[i]->bytes));
    }
    free(t);
    return list;
}

/* {"tensors", "bytes", "shards", "ignored_tensors", "quantisation_config", "kv_cache"} and the list of largest tensors */
static void add_storage(json_t *o, const ns_ckpt *c)
{
    const char *kv = ns_quant_kv_algo(c->quant);
    json_t *s = json_pack("{s:I, s:I, s:i, s:I, s:b, s:s?}", "tensors", (json_int_t)ns_store_count(c->store), "bytes",
                          (json_int_t)ns_store_bytes(c->store), "shards", ns_store_n_shards(c->store), "ignored_tensors",
                          (json_int_t)(ns_store_count(c->store) - c->n_used), "quantisation_config", ns_quant_present(c->quant), "kv_cache", kv);
    json_object_set_new(o, "storage", s);
    json_object_set_new(o, "largest", largest(c));
}

json_t *ns_inspect(const ns_ckpt *c, int64_t context, ns_dtype kv, ns_err *e)
{
    /* the context is only read: ns_ckpt_dtype_of takes it as it takes every ctx */
    subject s = { c->dir, c->arch, &c->variants, ns_ckpt_dtype_of, (void *)(uintptr_t)c, context, kv, e };
    json_t *o = report(&s);
    if (o)
        add_storage(o, c);
    else
        ns_fail(e, NS_ENOMEM, "%s: out of memory", c->dir);
    return o;
}

json_t *ns_inspect_config(const char *config_path, const char *nest_path, int64_t context, ns_dtype kv, ns_err *e)
{
    json_t *hf = NULL, *nest = NULL, *o = NULL;
    ns_formats formats = { 0 };
    ns_variants variants = { 0 };
    ns_arch *arch = ns_arch_open(config_path, e);
    if (!arch || ns_synth_find_quant(config_path, &hf, e) != 0 || ns_formats_open(&formats, hf, arch->config, e) != 0)
        goto out;
    if (nest_path && !(nest = ns_json_open(nest_path, false, e)))
        goto out;
    if (ns_variants_parse(arch, nest, nest_path ? nest_path : "nest.json", &variants, e) != 0)
        goto out;
    subject s = { config_path, arch, &variants, ns_formats_dtype_of, &formats, context, kv, e };
    o = report(&s);
    if (!o)
        ns_fail(e, NS_ENOMEM, "%s: out of memory", config_path);
out:
    ns_variants_release(&variants);
    ns_formats_close(&formats);
    json_decref(nest);
    json_decref(hf);
    ns_arch_free(arch);
    return o;
}
