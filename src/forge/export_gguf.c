#include "forge/export_gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "forge/cut_rows.h"
#include "forge/gguf_names.h"
#include "forge/gguf_vocab.h"
#include "store/gguf.h"
#include "tensor/format.h"

/* One tensor of the file. */
typedef enum content { ROWS, GLOBAL_SCALES, INPUT_SCALES } content;
typedef struct item {
    int layer, place;
    ns_gguf_type type;
    content content;
} item;

typedef struct exporter {
    const ns_ckpt *c;
    const ns_cut *cut;
    const ns_gguf_opts *o;
    ns_arch *arch;      /* of the cut */
    ns_gguf_writer *w;
    item *items;
    size_t n, cap;
    size_t done;
    float *row;
    uint8_t *stored;    /* a row as it goes into the file */
    uint8_t *nibbles, *scales;
    ns_arena arena;     /* segments of the weight in hand */
    ns_err *e;
} exporter;

static int no_memory(exporter *x)
{
    return ns_fail(x->e, NS_ENOMEM, "export: out of memory");
}

/* ---- what llama.cpp's model can hold ---- */

static int check_arch(const exporter *x)
{
    const ns_arch *a = x->arch;
    bool moe = false, dense = false;
    for (int i = 0; i < a->n_layers; i++) {
        moe = moe || a->layers[i].kind == NS_LAYER_MOE;
        dense = dense || a->layers[i].kind == NS_LAYER_MLP;
        if (a->layers[i].kind == NS_LAYER_MOE && !a->layers[i].width[NS_AXIS_SHARED_FFN])
            return ns_fail(x->e, NS_EUNSUPPORTED, "layer %d has no shared expert, which llama.cpp's model needs", i);
    }
    if (a->per_layer)
        return ns_fail(x->e, NS_EUNSUPPORTED, "layers of different widths cannot be written as GGUF");
    if (moe && dense)
        return ns_fail(x->e, NS_EUNSUPPORTED, "a model with expert layers and dense FFN layers cannot be written as GGUF");
    if (a->mamba_bias || (a->mlp_bias && moe))
        return ns_fail(x->e, NS_EUNSUPPORTED, "biases of Mamba projections and experts cannot be written as GGUF");
    if (a->dt_min > 0 || isfinite(a->dt_max))
        return ns_fail(x->e, NS_EUNSUPPORTED, "time_step_limit cannot be written as GGUF");
    return 0;
}

static bool has_kind(const ns_arch *a, char kind)
{
    for (int i = 0; i < a->n_layers; i++)
        if (a->layers[i].kind == kind)
            return true;
    return false;
}

/* Dims of the first layer of a kind; all are the same (check_arch). */
static const int *width_of(const ns_arch *a, char kind)
{
    for (int i = 0; i < a->n_layers; i++)
        if (a->layers[i].kind == kind)
            return a->layers[i].width;
    static const int none[NS_AXIS_COUNT];
    return none;
}

/* ---- keys ---- */

typedef struct keys {
    ns_gguf_writer *w;
    const char *prefix;
    char name[96];
} keys;

static const char *key(keys *k, const char *name)
{
    snprintf(k->name, sizeof k->name, "%s.%s", k->prefix, name);
    return k->name;
}

static void u32(keys *k, const char *name, int v)
{
    ns_gguf_put_u32(k->w, key(k, name), (uint32_t)v);
}

static void f32(keys *k, const char *name, double v)
{
    ns_gguf_put_f32(k->w, key(k, name), (float)v);
}

static void put_moe(keys *k, const ns_arch *a)
{
    const int *w = width_of(a, NS_LAYER_MOE);
    int topk = 0;
    for (int i = 0; i < a->n_layers; i++)
        topk = a->layers[i].kind == NS_LAYER_MOE ? a->layers[i].topk : topk;
    u32(k, "expert_count", w[NS_AXIS_EXPERTS]);
    u32(k, "expert_used_count", topk);
    u32(k, "expert_feed_forward_length", w[NS_AXIS_EXPERT_FFN]);
    u32(k, "expert_shared_feed_forward_length", w[NS_AXIS_SHARED_FFN]);
    u32(k, "expert_shared_count", 1);
    ns_gguf_put_bool(k->w, key(k, "expert_weights_norm"), a->norm_topk);
    f32(k, "expert_weights_scale", a->routed_scaling);
    u32(k, "expert_group_count", a->n_group);
    u32(k, "expert_group_used_count", a->topk_group);
    if (a->latent_size)
        u32(k, "moe_latent_size", a->latent_size);
}

/* A layer's kind is told by these two: no key/value heads and no FFN is Mamba. */
static int put_layers(exporter *x, keys *k)
{
    const ns_arch *a = x->arch;
    int32_t *v = calloc((size_t)a->n_layers, sizeof *v);
    if (!v)
        return no_memory(x);
    for (int i = 0; i < a->n_layers; i++) {
        const ns_layer *l = &a->layers[i];
        v[i] = l->kind == NS_LAYER_MOE ? l->width[NS_AXIS_EXPERT_FFN] : l->kind == NS_LAYER_MLP ? l->width[NS_AXIS_DENSE_FFN] : 0;
    }
    ns_gguf_put_i32s(k->w, key(k, "feed_forward_length"), v, (size_t)a->n_layers);
    for (int i = 0; i < a->n_layers; i++)
        v[i] = a->layers[i].kind == NS_LAYER_ATTENTION ? a->n_kv_heads : 0;
    ns_gguf_put_i32s(k->w, key(k, "attention.head_count_kv"), v, (size_t)a->n_layers);
    free(v);
    return 0;
}

/* The config itself, for what GGUF's keys leave out: `nestar import` reads it, others pass over it. */
static int put_config(exporter *x)
{
    json_t *cfg = json_copy(x->arch->config);
    json_object_del(cfg, "quantization_config"); /* the file's own types say it */
    char *text = json_dumps(cfg, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(cfg);
    if (!text)
        return no_memory(x);
    ns_gguf_put_str(x->w, NS_GGUF_CONFIG_KEY, text, strlen(text));
    free(text);
    return 0;
}

static int put_keys(exporter *x)
{
    const ns_arch *a = x->arch;
    const bool moe = has_kind(a, NS_LAYER_MOE), attention = has_kind(a, NS_LAYER_ATTENTION);
    const int *m = width_of(a, NS_LAYER_MAMBA);
    const char *slash = strrchr(x->c->dir, '/'), *name = x->o->name ? x->o->name : slash && slash[1] ? slash + 1 : x->c->dir;
    keys k = { .w = x->w, .prefix = moe ? "nemotron_h_moe" : "nemotron_h" };
    ns_gguf_put_str(x->w, "general.architecture", k.prefix, strlen(k.prefix));
    ns_gguf_put_str(x->w, "general.type", "model", 5);
    ns_gguf_put_str(x->w, "general.name", name, strlen(name));
    ns_gguf_put_u32(x->w, "general.quantization_version", 2);
    u32(&k, "block_count", a->n_layers);
    u32(&k, "context_length", a->max_position);
    u32(&k, "embedding_length", a->hidden_size);
    u32(&k, "vocab_size", a->vocab_size);
    u32(&k, "attention.head_count", attention ? width_of(a, NS_LAYER_ATTENTION)[NS_AXIS_ATTN_HEADS] : 1);
    u32(&k, "attention.key_length", a->head_dim);
    u32(&k, "attention.value_length", a->head_dim);
    f32(&k, "attention.layer_norm_rms_epsilon", a->norm_eps);
    f32(&k, "attention.layer_norm_epsilon", a->norm_eps);
    u32(&k, "ssm.conv_kernel", a->conv_kernel);
    u32(&k, "ssm.inner_size", m[NS_AXIS_MAMBA_HEADS] * m[NS_AXIS_MAMBA_HEAD_DIM]);
    u32(&k, "ssm.state_size", m[NS_AXIS_SSM_STATE]);
    u32(&k, "ssm.time_step_rank", m[NS_AXIS_MAMBA_HEADS]);
    u32(&k, "ssm.group_count", a->n_groups);
    if (moe)
        put_moe(&k, a);
    if (put_layers(x, &k) != 0 || put_config(x) != 0)
        return -1;
    return ns_gguf_put_vocab(x->w, x->c->dir, a, x->o->pre, x->e);
}

/* ---- tensors ---- */

static int choose_type(const exporter *x, const ns_bound *b, ns_gguf_form f, const char *name, ns_gguf_type *out)
{
    static const struct { const char *name; ns_gguf_type type; } asked[] = {
        { "f32", NS_GGUF_F32 }, { "f16", NS_GGUF_F16 }, { "bf16", NS_GGUF_BF16 }, { "q8_0", NS_GGUF_Q8_0 } };
    *out = NS_GGUF_F32;
    if (f != NS_GGUF_MATRIX)
        return 0;
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++)
        if (x->o->type && strcmp(x->o->type, asked[i].name) == 0) {
            *out = asked[i].type;
            return 0;
        }
    if (x->o->type && strcmp(x->o->type, "auto") != 0)
        return ns_fail(x->e, NS_EINVAL, "unknown type \"%s\": auto, f32, f16, bf16 or q8_0", x->o->type);
    switch (b->mat.dtype) {
    case NS_F32: *out = NS_GGUF_F32; return 0;
    case NS_F16: *out = NS_GGUF_F16; return 0;
    case NS_NVFP4: *out = NS_GGUF_NVFP4; return 0;
    case NS_BF16:
    case NS_F8_E4M3: *out = NS_GGUF_BF16; return 0;
    default: return ns_fail(x->e, NS_EUNSUPPORTED, "%s: cannot be exported", name);
    }
}

static void item_name(const exporter *x, const item *it, char out[NS_GGUF_NAME])
{
    int layer = it->layer < 0 ? -1 : 0;
    for (int i = 0; i < it->layer; i++)
        layer += x->cut->layer[i].keep;
    ns_gguf_place_name(&ns_gguf_places[it->place], layer,
                       it->content == GLOBAL_SCALES ? "scale" : it->content == INPUT_SCALES ? "input_scale" : NULL, out);
}

static int kept_experts(const exporter *x, int layer, ns_role r)
{
    return ns_weight_get(r)->per_expert ? ns_cut_dim(x->c->arch, x->cut, layer, NS_DIM_EXPERTS) : 0;
}

static int push(exporter *x, item it)
{
    if (x->n == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 512;
        item *p = realloc(x->items, cap * sizeof *p);
        if (!p)
            return no_memory(x);
        x->items = p;
        x->cap = cap;
    }
    x->items[x->n++] = it;
    return 0;
}

static int declare(exporter *x, item it, int rows, int cols)
{
    char name[NS_GGUF_NAME];
    const ns_gguf_place *p = &ns_gguf_places[it.place];
    const int experts = kept_experts(x, it.layer, p->role);
    uint64_t ne[NS_GGUF_MAX_DIMS] = { experts ? (uint64_t)experts : 1 };
    int n = 1;
    if (it.content == ROWS)
        n = ns_gguf_place_shape(p, ns_weight_get(p->role)->n_dims, rows, cols, experts, x->arch->n_groups, ne);
    item_name(x, &it, name);
    if (ns_gguf_declare(x->w, name, it.type, n, ne, x->e) != 0)
        return ns_err_wrap(x->e, "export (another --type may fit)");
    return push(x, it);
}

static int plan(exporter *x, int layer, int place)
{
    const ns_role r = ns_gguf_places[place].role;
    const ns_bound *b = ns_ckpt_weight(x->c, layer, r, 0);
    ns_cut_rows rows;
    item it = { .layer = layer, .place = place };
    if (!b || !ns_weight_exists(x->c->arch, layer, r))
        return 0;
    if (choose_type(x, b, ns_gguf_places[place].form, ns_gguf_places[place].name, &it.type) != 0 ||
        ns_cut_rows_init(x->c, x->cut, layer, r, 0, &x->arena, &rows, x->e) != 0 || declare(x, it, rows.rows, rows.cols) != 0)
        return -1;
    if (it.type != NS_GGUF_NVFP4)
        return 0;
    it.type = NS_GGUF_F32;
    it.content = GLOBAL_SCALES;
    if (declare(x, it, 1, 1) != 0)
        return -1;
    it.content = INPUT_SCALES;
    return b->input_scale ? declare(x, it, 1, 1) : 0;
}

static int plan_all(exporter *x)
{
    for (int layer = -1; layer < x->c->arch->n_layers; layer++)
        for (int p = 0; p < NS_GGUF_PLACES; p++)
            if ((layer < 0 || x->cut->layer[layer].keep) && plan(x, layer, p) != 0)
                return -1;
    return 0;
}

/* ---- bytes ---- */

static void to_q8_0(const float *v, int n, uint8_t *out)
{
    for (int b = 0; b < n; b += 32, out += 34) {
        float amax = 0;
        for (int i = 0; i < 32; i++)
            amax = fmaxf(amax, fabsf(v[b + i]));
        const float d = amax / 127, inverse = d > 0 ? 1 / d : 0;
        const uint16_t h = ns_f32_to_f16(d);
        memcpy(out, &h, 2);
        for (int i = 0; i < 32; i++)
            out[2 + i] = (uint8_t)(int8_t)lrintf(roundf(v[b + i] * inverse));
    }
}

static void encode(exporter *x, ns_gguf_type t, int n)
{
    uint16_t *half = (uint16_t *)(void *)x->stored;
    switch (t) {
    case NS_GGUF_F16:
        for (int i = 0; i < n; i++)
            half[i] = ns_f32_to_f16(x->row[i]);
        break;
    case NS_GGUF_BF16:
        for (int i = 0; i < n; i++)
            half[i] = ns_f32_to_bf16(x->row[i]);
        break;
    case NS_GGUF_Q8_0: to_q8_0(x->row, n, x->stored); break;
    default: memcpy(x->stored, x->row, (size_t)n * 4); break;
    }
}

static int append(exporter *x, size_t n)
{
    x->done += n;
    if (ns_gguf_append(x->w, x->stored, n, x->e) != 0)
        return -1;
    if (x->o->progress)
        x->o->progress(x->o->ctx, x->done, ns_gguf_total(x->w));
    return 0;
}

static int write_rows(exporter *x, const item *it, const ns_cut_rows *w)
{
    for (int i = 0; i < w->rows; i++) {
        if (it->type == NS_GGUF_NVFP4) {
            ns_cut_rows_nvfp4(w, i, x->nibbles, x->scales);
            ns_gguf_pack_nvfp4(x->nibbles, x->scales, w->cols, x->stored);
        } else {
            ns_cut_rows_get(w, i, x->row);
            for (int k = 0; ns_gguf_places[it->place].form == NS_GGUF_NEG_EXP_ONE && k < w->cols; k++)
                x->row[k] = -expf(x->row[k]);
            encode(x, it->type, w->cols);
        }
        if (append(x, ns_gguf_row_bytes(it->type, (size_t)w->cols)) != 0)
            return -1;
    }
    return 0;
}

static int write_scale(exporter *x, const item *it, const ns_bound *b)
{
    float v = b->mat.global_scale;
    if (it->content == INPUT_SCALES && b->input_scale) /* fused: one for all experts, or one each */
        memcpy(&v, b->input_scale->data + (b->input_scale->bytes > 4 && b->expert_index > 0 ? 4 * (size_t)b->expert_index : 0), 4);
    memcpy(x->stored, &v, 4);
    return append(x, 4);
}

static int write_item(exporter *x, const item *it)
{
    const ns_role r = ns_gguf_places[it->place].role;
    const int n = ns_weight_get(r)->per_expert ? x->c->arch->layers[it->layer].width[NS_AXIS_EXPERTS] : 1;
    for (int expert = 0; expert < n; expert++) {
        ns_cut_rows w;
        if (n > 1 && !ns_cut_has_expert(x->c->arch, x->cut, it->layer, expert))
            continue;
        ns_arena_release(&x->arena);
        if (ns_cut_rows_init(x->c, x->cut, it->layer, r, expert, &x->arena, &w, x->e) != 0)
            return -1;
        if ((it->content == ROWS ? write_rows(x, it, &w) : write_scale(x, it, w.bound)) != 0)
            return -1;
    }
    return 0;
}

static int allocate(exporter *x)
{
    int widest = 16;
    for (int r = 0; r < NS_W_COUNT; r++)
        for (int layer = -1; layer < x->c->arch->n_layers; layer++) {
            const ns_bound *b = ns_ckpt_weight(x->c, layer, (ns_role)r, 0);
            widest = b && b->mat.cols > widest ? b->mat.cols : widest;
        }
    const size_t n = (size_t)widest;
    x->row = malloc(n * 4);
    x->stored = malloc(n * 4);
    x->nibbles = malloc(n);
    x->scales = malloc(n);
    return x->row && x->stored && x->nibbles && x->scales ? 0 : no_memory(x);
}

static int export_to(exporter *x, const char *path)
{
    json_t *cfg = ns_cut_config(x->c->arch, x->cut, x->e);
    x->arch = cfg ? ns_arch_parse(cfg, "the cut's config", x->e) : NULL;
    json_decref(cfg);
    if (!x->arch || check_arch(x) != 0 || allocate(x) != 0 || !(x->w = ns_gguf_writer_new(path, x->e)) || put_keys(x) != 0 || plan_all(x) != 0)
        return -1;
    for (size_t i = 0; i < x->n; i++)
        if (write_item(x, &x->items[i]) != 0)
            return -1;
    return ns_gguf_finish(x->w, x->e);
}

int ns_export_gguf(const ns_ckpt *c, const ns_cut *cut, const ns_gguf_opts *o, const char *path, ns_err *e)
{
    exporter x = { .c = c, .cut = cut, .o = o, .e = e };
    if (ns_cut_validate(c->arch, cut, ns_ckpt_dtype_of, (void *)(uintptr_t)c, e) != 0)
        return -1;
    int rc = export_to(&x, path);
    ns_gguf_writer_free(x.w);
    ns_arch_free(x.arch);
    ns_arena_release(&x.arena);
    free(x.items);
    free(x.row);
    free(x.stored);
    free(x.nibbles);
    free(x.scales);
    return rc;
}
