#include "forge/formats.h"

#include <stdlib.h>
#include <string.h>

#include "arch/config.h"
#include "base/buf.h"

typedef struct mover {
    const ns_arch *a;
    const ns_cut *cut;
    ns_err *e;
} mover;

typedef enum verdict { KEEP, DROP, FAIL } verdict;

/* The number after "word." where it starts a path component of `s`; *end is behind it. NULL when there is none. */
static const char *find_number(const char *s, const char *word, int *value, const char **end)
{
    size_t n = strlen(word);
    for (const char *p = s; (p = strstr(p, word)); p += n) {
        if (p != s && p[-1] != '.')
            continue;
        char *stop;
        long v = strtol(p + n, &stop, 10);
        if (stop == p + n || p[n] < '0' || p[n] > '9' || v > 1000000)
            continue;
        *value = (int)v;
        *end = stop;
        return p + n;
    }
    return NULL;
}

static int new_layer(const ns_cut *cut, int layer)
{
    int n = 0;
    for (int i = 0; i < layer; i++)
        n += cut->layer[i].keep;
    return n;
}

static int new_expert(const mover *m, int layer, int expert)
{
    int n = 0;
    for (int i = 0; i < expert; i++)
        n += ns_cut_has_expert(m->a, m->cut, layer, i);
    return n;
}

static bool all_kept(const ns_cut *cut)
{
    return new_layer(cut, cut->n_layers) == cut->n_layers;
}

/* A number inside a pattern ("layers.4*", a regular expression) stands for more than one layer: it cannot be moved. */
static verdict check_pattern(const mover *m, const char *name, const char *end)
{
    if (*end == '\0' || *end == '.')
        return KEEP;
    if (all_kept(m->cut))
        return KEEP;
    ns_fail(m->e, NS_EUNSUPPORTED, "quantisation config: the pattern \"%.200s\" cannot be renumbered for a cut that drops layers", name);
    return FAIL;
}

static verdict move_expert(const mover *m, int layer, const char *rest, ns_buf *out)
{
    int expert;
    const char *end, *at = find_number(rest, "experts.", &expert, &end);
    if (!at || *end != '.' || m->a->layers[layer].kind != NS_LAYER_MOE || expert >= m->a->layers[layer].width[NS_AXIS_EXPERTS]) {
        ns_buf_adds(out, rest);
        return KEEP;
    }
    if (!ns_cut_has_expert(m->a, m->cut, layer, expert))
        return DROP;
    ns_buf_addf(out, "%.*s%d%s", (int)(at - rest), rest, new_expert(m, layer, expert), end);
    return KEEP;
}

static verdict move_name(const mover *m, const char *name, ns_buf *out)
{
    int layer;
    const char *end;
    ns_buf_clear(out);
    if (strncmp(name, "mtp.", 4) == 0)
        return DROP;
    const char *at = find_number(name, "layers.", &layer, &end);
    if (!at || layer >= m->a->n_layers) {
        ns_buf_adds(out, name);
        return KEEP;
    }
    verdict v = check_pattern(m, name, end);
    if (v != KEEP)
        return v;
    if (!m->cut->layer[layer].keep)
        return DROP;
    ns_buf_addf(out, "%.*s%d", (int)(at - name), name, new_layer(m->cut, layer));
    return move_expert(m, layer, end, out);
}

static int move_all(const mover *m, json_t *v);

static int move_array(const mover *m, json_t *v)
{
    ns_buf name = { 0 };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(v);) {
        json_t *x = json_array_get(v, i);
        verdict what = json_is_string(x) ? move_name(m, json_string_value(x), &name) : KEEP;
        if (what == FAIL)
            rc = -1;
        else if (what == DROP)
            json_array_remove(v, i);
        else if (json_is_string(x))
            rc = name.failed ? ns_fail(m->e, NS_ENOMEM, "out of memory") : json_array_set_new(v, i++, json_string(name.data ? name.data : ""));
        else
            rc = move_all(m, json_array_get(v, i++));
    }
    ns_buf_release(&name);
    return rc;
}

/* Into a second object, since a new name may be one that is still to be moved. */
static int move_object(const mover *m, json_t *v)
{
    ns_buf name = { 0 };
    const char *key;
    json_t *x, *moved = json_object();
    int rc = moved ? 0 : ns_fail(m->e, NS_ENOMEM, "out of memory");
    json_object_foreach(v, key, x) {
        verdict what = rc == 0 ? move_name(m, key, &name) : FAIL;
        if (what == FAIL)
            rc = -1;
        if (what != KEEP)
            continue;
        rc = move_all(m, x);
        if (rc == 0 && (name.failed || json_object_set(moved, name.data ? name.data : "", x) != 0))
            rc = ns_fail(m->e, NS_ENOMEM, "out of memory");
    }
    if (rc == 0) {
        json_object_clear(v);
        rc = json_object_update(v, moved);
    }
    json_decref(moved);
    ns_buf_release(&name);
    return rc;
}

static int move_all(const mover *m, json_t *v)
{
    if (json_is_array(v))
        return move_array(m, v);
    return json_is_object(v) ? move_object(m, v) : 0;
}

int ns_formats_renumber(json_t *q, const ns_arch *a, const ns_cut *cut, ns_err *e)
{
    return move_all(&(mover){ .a = a, .cut = cut, .e = e }, q);
}

/* ---- a new quantisation config ---- */

static void exclude(json_t *list, int layer, const char *module)
{
    char name[128];
    snprintf(name, sizeof name, "backbone.layers.%d.mixer.%s", layer, module);
    json_array_append_new(list, json_string(name));
}

static void exclude_as_published(json_t *list, const ns_arch *a)
{
    static const char *const attention[] = { "q_proj", "k_proj", "v_proj", "o_proj" };
    json_array_append_new(list, json_string("lm_head"));
    for (int i = 0; i < a->n_layers; i++) {
        if (a->layers[i].kind != NS_LAYER_ATTENTION)
            continue;
        if (i > 0 && a->layers[i - 1].kind == NS_LAYER_MAMBA) {
            exclude(list, i - 1, "in_proj");
            exclude(list, i - 1, "out_proj");
        }
        for (int k = 0; k < 4; k++)
            exclude(list, i, attention[k]);
    }
}

json_t *ns_formats_config(const ns_arch *a, const char *algo, bool all, ns_err *e)
{
    json_t *list = json_array(), *out = NULL;
    if (list && !all)
        exclude_as_published(list, a);
    for (int i = 0; list && i < a->n_layers; i++)
        if (a->layers[i].kind == NS_LAYER_MAMBA)
            exclude(list, i, "conv1d");
    if (list)
        out = json_pack("{s:{s:s}, s:{s:s, s:s, s:O}}", "producer", "name", "nestar", "quantization", "quant_algo", algo,
                        "kv_cache_quant_algo", "FP8", "exclude_modules", list);
    if (out && strcmp(algo, "NVFP4") == 0)
        json_object_set_new(json_object_get(out, "quantization"), "group_size", json_integer(16));
    json_decref(list);
    if (!out)
        ns_fail(e, NS_ENOMEM, "hf_quant_config.json: out of memory");
    return out;
}

/* ---- formats of weights that are not there yet ---- */

static int base_type(const json_t *text, const json_t *config, ns_dtype *out, ns_err *e)
{
    static const struct { const char *name; ns_dtype dtype; } types[] = {
        { "bfloat16", NS_BF16 }, { "float16", NS_F16 }, { "float32", NS_F32 } };
    const json_t *v = json_object_get(text, "dtype");
    v = v ? v : json_object_get(text, "torch_dtype");
    v = v ? v : json_object_get(config, "torch_dtype");
    const char *name = v && !json_is_null(v) ? json_string_value(v) : "bfloat16";
    for (int i = 0; name && i < 3; i++)
        if (strcmp(name, types[i].name) == 0) {
            *out = types[i].dtype;
            return 0;
        }
    return ns_fail(e, NS_EUNSUPPORTED, "key \"torch_dtype\": unknown type \"%.100s\"", name ? name : "");
}

static bool weight_only(const ns_formats *f, const char *module)
{
    const json_t *entry = json_object_get(f->quantized_layers, module);
    const char *algo = json_string_value(json_object_get(entry, "quant_algo"));
    return algo && strncmp(algo, "W4A16", 5) == 0;
}

ns_format ns_formats_get(const ns_formats *f, int layer, ns_role r, int expert)
{
    char name[256];
    ns_format out = { .dtype = r == NS_W_GATE_CORRECTION ? NS_F32 : f->base };
    out.kv_scale = (r == NS_W_K || r == NS_W_V) && f->quant && ns_quant_kv_algo(f->quant);
    if (!f->quant || !ns_weight_get(r)->quantisable)
        return out;
    ns_weight_name(layer, r, expert, name, sizeof name);
    name[strlen(name) - strlen(".weight")] = '\0';
    ns_scheme scheme = ns_quant_scheme(f->quant, name);
    if (scheme == NS_SCHEME_NONE)
        return out;
    out.dtype = scheme == NS_SCHEME_FP8 ? NS_F8_E4M3 : NS_NVFP4;
    out.input_scale = !weight_only(f, name);
    return out;
}

ns_stored ns_formats_dtype_of(void *formats, int layer, ns_role r, int expert)
{
    ns_format f = ns_formats_get(formats, layer, r, expert);
    bool quantised = f.dtype == NS_NVFP4 || f.dtype == NS_F8_E4M3; /* one scale for the tensor: weight_scale_2 or weight_scale */
    return (ns_stored){ .dtype = f.dtype, .scalar_bytes = 4 * (quantised + f.input_scale + f.kv_scale) };
}

int ns_formats_open(ns_formats *f, const json_t *hf_quant, const json_t *config, ns_err *e)
{
    const json_t *text = ns_config_text(config);
    const json_t *q = hf_quant ? json_object_get(hf_quant, "quantization") : json_object_get(config, "quantization_config");
    *f = (ns_formats){ .quantized_layers = json_object_get(q, "quantized_layers") };
    if (base_type(text, config, &f->base, e) != 0)
        return -1;
    f->quant = ns_quant_parse(hf_quant, config, e);
    return f->quant ? 0 : -1;
}

void ns_formats_close(ns_formats *f)
{
    ns_quant_free(f->quant);
    *f = (ns_formats){ 0 };
}

void ns_formats_drop_mtp(json_t *config)
{
    const char *key;
    json_t *v, *text = (json_t *)(uintptr_t)ns_config_text(config); /* of a config that is the caller's to change */
    void *next;
    json_object_del(text, "num_nextn_predict_layers");
    json_object_foreach_safe(text, next, key, v)
        if (strncmp(key, "mtp_", 4) == 0)
            json_object_del(text, key);
}
