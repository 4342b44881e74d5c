#include "forge/import_gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "ckpt/ckpt.h"
#include "forge/folder.h"
#include "forge/gguf_config.h"
#include "forge/gguf_names.h"
#include "store/writer.h"
#include "tensor/format.h"

typedef struct importer {
    const ns_gguf *g;
    ns_arch *arch;
    ns_dtype base;       /* of vectors, where it loses nothing */
    ns_writer *w;
    size_t next;
    bool fp4, input_scales;
    int widest;          /* elements of the widest row */
    uint8_t *row;        /* room for it as F32 */
    uint8_t *scales;     /* block scales of a matrix */
    size_t scales_cap;
    json_t *exclude;     /* modules that are not NVFP4 */
    ns_err *e;
} importer;

static int no_memory(importer *x)
{
    return ns_fail(x->e, NS_ENOMEM, "import: out of memory");
}

static const ns_gguf_place *place_of(ns_role r)
{
    for (int i = 0; i < NS_GGUF_PLACES; i++)
        if (ns_gguf_places[i].role == r)
            return &ns_gguf_places[i];
    return NULL;
}

/* One weight of the model and where it is in the file. */
typedef struct source {
    const ns_gguf_place *place;
    const ns_gguf_tensor *t;
    int n_dims, rows, cols, expert, experts;
    int64_t shape[NS_MAX_DIMS]; /* as the folder has it */
    ns_dtype dtype;             /* as the folder gets it */
} source;

static bool exact_as_bf16(const ns_gguf_tensor *t)
{
    for (size_t i = 0; i < t->bytes; i += 4) {
        float v;
        memcpy(&v, t->data + i, 4);
        if (ns_bf16_to_f32(ns_f32_to_bf16(v)) != v)
            return false;
    }
    return true;
}

/* -exp(A_log) is rounded, so A_log comes back to within that: near enough to be the BF16 that it was. */
static ns_dtype vector_type(const importer *x, const source *s)
{
    if (s->place->role == NS_W_GATE_CORRECTION || x->base != NS_BF16)
        return NS_F32;
    return s->place->form == NS_GGUF_NEG_EXP_ONE || exact_as_bf16(s->t) ? NS_BF16 : NS_F32;
}

static int find(importer *x, int layer, ns_role r, int expert, source *s)
{
    const ns_weight_def *def = ns_weight_get(r);
    char name[NS_GGUF_NAME];
    uint64_t ne[NS_GGUF_MAX_DIMS] = { 0 };
    *s = (source){ .place = place_of(r), .n_dims = def->n_dims, .rows = 1, .expert = expert };
    if (!s->place) {
        ns_weight_name(layer, r, expert, name, sizeof name);
        return ns_fail(x->e, NS_EUNSUPPORTED, "%s has no place in a GGUF file", name);
    }
    for (int i = 0; i < def->n_dims; i++) {
        ns_dim d = ns_arch_dim(x->arch, layer, def->dim[i]);
        s->shape[i] = ns_dim_size(&d);
    }
    s->cols = (int)s->shape[def->n_dims - 1];
    s->rows = def->n_dims > 1 ? (int)s->shape[0] : 1;
    s->experts = def->per_expert ? x->arch->layers[layer].width[NS_AXIS_EXPERTS] : 0;
    ns_gguf_place_name(s->place, layer, NULL, name);
    s->t = ns_gguf_find_tensor(x->g, name);
    if (!s->t)
        return ns_fail(x->e, NS_EFORMAT, "tensor %s is missing", name);
    const int n = ns_gguf_place_shape(s->place, def->n_dims, s->rows, s->cols, s->experts, x->arch->n_groups, ne);
    for (int i = 0; i < NS_GGUF_MAX_DIMS; i++)
        if (s->t->ne[i] != (i < n ? ne[i] : 1))
            return ns_fail(x->e, NS_EFORMAT, "tensor %s: extent %d is %llu, expected %llu", name, i, (unsigned long long)s->t->ne[i],
                           (unsigned long long)(i < n ? ne[i] : 1));
    const bool matrix = s->place->form == NS_GGUF_MATRIX;
    if (!matrix && s->t->type != NS_GGUF_F32)
        return ns_fail(x->e, NS_EUNSUPPORTED, "tensor %s: type %s, expected F32", name, ns_gguf_type_name(s->t->type));
    switch (s->t->type) {
    case NS_GGUF_F16: s->dtype = NS_F16; break;
    case NS_GGUF_BF16:
    case NS_GGUF_Q8_0: s->dtype = NS_BF16; break;
    case NS_GGUF_NVFP4: s->dtype = NS_NVFP4; break;
    default: s->dtype = matrix ? NS_F32 : vector_type(x, s); break;
    }
    return 0;
}

/* The scalar beside a matrix, of this expert. */
static int side_scale(importer *x, const source *s, int layer, const char *tail, bool need, float *out, bool *there)
{
    char name[NS_GGUF_NAME];
    ns_gguf_place_name(s->place, layer, tail, name);
    const ns_gguf_tensor *t = ns_gguf_find_tensor(x->g, name);
    *there = t != NULL;
    if (!t)
        return need ? ns_fail(x->e, NS_EFORMAT, "tensor %s is missing", name) : 0;
    if (t->type != NS_GGUF_F32 || t->n_dims != 1 || t->ne[0] != (uint64_t)(s->experts ? s->experts : 1))
        return ns_fail(x->e, NS_EFORMAT, "tensor %s: expected %d F32 numbers", name, s->experts ? s->experts : 1);
    memcpy(out, t->data + 4 * (size_t)s->expert, 4);
    return isfinite(*out) && *out > 0 ? 0 : ns_fail(x->e, NS_EFORMAT, "tensor %s: a scale of %g", name, (double)*out);
}

static int declare_part(importer *x, const char *weight, const char *part, ns_dtype t, int n, const int64_t *shape)
{
    char name[300];
    snprintf(name, sizeof name, "%.*s%s", (int)(strlen(weight) - strlen("weight")), weight, part);
    return ns_writer_declare(x->w, name, t, n, shape, x->e);
}

static int declare(void *ctx, int layer, ns_role r, int expert)
{
    importer *x = ctx;
    source s;
    char name[300];
    float scale;
    bool there;
    if (find(x, layer, r, expert, &s) != 0)
        return -1;
    ns_weight_name(layer, r, expert, name, sizeof name);
    if (s.dtype != NS_NVFP4) {
        if (ns_weight_get(r)->quantisable) {
            char module[300];
            snprintf(module, sizeof module, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
            json_array_append_new(x->exclude, json_string(module));
        }
        return ns_writer_declare(x->w, name, s.dtype, s.n_dims, s.shape, x->e);
    }
    x->fp4 = true;
    if (side_scale(x, &s, layer, "input_scale", false, &scale, &there) != 0 ||
        declare_part(x, name, "weight", NS_U8, 2, (int64_t[]){ s.rows, s.cols / 2 }) != 0 ||
        declare_part(x, name, "weight_scale", NS_F8_E4M3, 2, (int64_t[]){ s.rows, s.cols / 16 }) != 0 ||
        declare_part(x, name, "weight_scale_2", NS_F32, 0, NULL) != 0)
        return -1;
    x->input_scales = x->input_scales || there;
    return there ? declare_part(x, name, "input_scale", NS_F32, 0, NULL) : 0;
}

/* ---- bytes ---- */

static void q8_0_block(const uint8_t *in, float *out)
{
    uint16_t h;
    memcpy(&h, in, 2);
    for (int i = 0; i < 32; i++)
        out[i] = ns_f16_to_f32(h) * (float)(int8_t)in[2 + i];
}

static float value(const source *s, const uint8_t *in, int i)
{
    float v;
    memcpy(&v, in + 4 * (size_t)i, 4);
    return s->place->form == NS_GGUF_NEG_EXP_ONE ? logf(-v) : v;
}

/* One row in the folder's type, in x->row; returns its bytes. */
static size_t convert(importer *x, const source *s, const uint8_t *in)
{
    const size_t width = s->dtype == NS_F32 ? 4 : 2;
    uint16_t half[32];
    float v[32];
    if (s->t->type == NS_GGUF_F16 || s->t->type == NS_GGUF_BF16)
        memcpy(x->row, in, width * (size_t)s->cols);
    else
        for (int i = 0; i < s->cols; i += 32) {
            const int n = s->cols - i < 32 ? s->cols - i : 32;
            if (s->t->type == NS_GGUF_Q8_0)
                q8_0_block(in + (size_t)i / 32 * 34, v);
            for (int k = 0; k < n; k++) {
                v[k] = s->t->type == NS_GGUF_Q8_0 ? v[k] : value(s, in, i + k);
                half[k] = ns_f32_to_bf16(v[k]);
            }
            memcpy(x->row + width * (size_t)i, width == 4 ? (const void *)v : (const void *)half, width * (size_t)n);
        }
    return width * (size_t)s->cols;
}

static int write_nvfp4(importer *x, const source *s, int layer, const uint8_t *data)
{
    const size_t row = ns_gguf_row_bytes(NS_GGUF_NVFP4, (size_t)s->cols), blocks = (size_t)s->cols / 16;
    float scale = 0;
    bool there;
    if (blocks * (size_t)s->rows > x->scales_cap) {
        free(x->scales);
        x->scales_cap = blocks * (size_t)s->rows;
        x->scales = malloc(x->scales_cap);
    }
    if (!x->scales) {
        x->scales_cap = 0;
        return no_memory(x);
    }
    if (ns_writer_tensor_begin(x->w, x->next++, x->e) != 0)
        return -1;
    for (int i = 0; i < s->rows; i++) {
        ns_gguf_unpack_nvfp4(data + (size_t)i * row, s->cols, x->row, x->scales + (size_t)i * blocks);
        if (ns_writer_append(x->w, x->row, (size_t)s->cols / 2, x->e) != 0)
            return -1;
    }
    if (ns_writer_tensor_begin(x->w, x->next++, x->e) != 0 || ns_writer_append(x->w, x->scales, blocks * (size_t)s->rows, x->e) != 0 ||
        side_scale(x, s, layer, "scale", true, &scale, &there) != 0 || ns_writer_tensor_begin(x->w, x->next++, x->e) != 0 ||
        ns_writer_append(x->w, &scale, 4, x->e) != 0 || side_scale(x, s, layer, "input_scale", false, &scale, &there) != 0)
        return -1;
    if (!there)
        return 0;
    return ns_writer_tensor_begin(x->w, x->next++, x->e) != 0 ? -1 : ns_writer_append(x->w, &scale, 4, x->e);
}

static int write(void *ctx, int layer, ns_role r, int expert)
{
    importer *x = ctx;
    source s;
    if (find(x, layer, r, expert, &s) != 0)
        return -1;
    const size_t row = ns_gguf_row_bytes(s.t->type, (size_t)s.cols);
    const uint8_t *data = s.t->data + (size_t)s.expert * (size_t)s.rows * row;
    if (s.dtype == NS_NVFP4)
        return write_nvfp4(x, &s, layer, data);
    if (ns_writer_tensor_begin(x->w, x->next++, x->e) != 0)
        return -1;
    for (int i = 0; i < s.rows; i++) {
        size_t n = convert(x, &s, data + (size_t)i * row);
        if (ns_writer_append(x->w, x->row, n, x->e) != 0)
            return -1;
    }
    return 0;
}

static int widest_row(void *ctx, int layer, ns_role r, int expert)
{
    importer *x = ctx;
    const ns_weight_def *def = ns_weight_get(r);
    ns_dim d = ns_arch_dim(x->arch, layer, def->dim[def->n_dims - 1]);
    (void)expert;
    x->widest = ns_dim_size(&d) > x->widest ? ns_dim_size(&d) : x->widest;
    return 0;
}

static int write_weights(importer *x, const char *dir, const ns_import_opts *o)
{
    ns_writer_options wo = ns_writer_defaults();
    wo.max_shard_bytes = o->max_shard_bytes ? o->max_shard_bytes : wo.max_shard_bytes;
    wo.progress = o->progress;
    wo.ctx = o->ctx;
    ns_manifest_each(x->arch, widest_row, x);
    x->row = malloc((size_t)x->widest * 4);
    x->w = ns_writer_new(dir, &wo, x->e);
    if (!x->row || !x->w)
        return x->row ? -1 : no_memory(x);
    if (ns_manifest_each(x->arch, declare, x) != 0 || ns_manifest_each(x->arch, write, x) != 0)
        return -1;
    return ns_writer_finish(x->w, x->e);
}

static int write_quant(importer *x, const char *dir)
{
    if (!x->fp4)
        return 0;
    for (int i = 0; i < x->arch->n_layers; i++) {
        char name[64];
        snprintf(name, sizeof name, "backbone.layers.%d.mixer.conv1d", i);
        if (x->arch->layers[i].kind == NS_LAYER_MAMBA)
            json_array_append_new(x->exclude, json_string(name));
    }
    json_t *q = json_pack("{s:{s:s}, s:{s:s, s:n, s:i, s:O}}", "producer", "name", "nestar", "quantization", "quant_algo",
                          x->input_scales ? "NVFP4" : "W4A16_NVFP4", "kv_cache_quant_algo", "group_size", 16, "exclude_modules", x->exclude);
    int rc = q ? ns_folder_json(dir, "hf_quant_config.json", q, x->e) : no_memory(x);
    json_decref(q);
    return rc;
}

static int write_folder(importer *x, const json_t *cfg, const char *dir, const ns_import_opts *o)
{
    if (ns_folder_json(dir, "config.json", cfg, x->e) != 0 || ns_gguf_write_text(x->g, dir, x->e) != 0 || write_weights(x, dir, o) != 0 ||
        write_quant(x, dir) != 0)
        return -1;
    ns_ckpt *made = ns_ckpt_open(dir, NULL, x->e);
    ns_ckpt_close(made);
    return made ? 0 : ns_err_wrap(x->e, "checking the result");
}

static int import_to(importer *x, const char *path, const char *out_dir, const ns_import_opts *o)
{
    ns_outdir dir = { 0 };
    const char *type;
    json_t *cfg = ns_gguf_config(x->g, x->e);
    int rc = cfg && (x->arch = ns_arch_parse(cfg, "its config", x->e)) ? 0 : -1;
    if (rc == 0) {
        type = json_string_value(json_object_get(cfg, "torch_dtype"));
        x->base = type && strcmp(type, "bfloat16") == 0 ? NS_BF16 : NS_F32;
        rc = (x->exclude = json_array()) ? 0 : no_memory(x);
    }
    if (rc == 0)
        rc = ns_outdir_open(&dir, out_dir, x->e);
    if (rc == 0)
        rc = write_folder(x, cfg, dir.tmp, o);
    ns_writer_free(x->w);
    if (rc == 0)
        rc = ns_outdir_commit(&dir, x->e);
    ns_outdir_release(&dir);
    json_decref(cfg);
    json_decref(x->exclude);
    ns_arch_free(x->arch);
    free(x->row);
    free(x->scales);
    return rc ? ns_err_wrap(x->e, "%s", path) : 0;
}

int ns_import_gguf(const char *path, const ns_import_opts *o, const char *out_dir, ns_err *e)
{
    const ns_import_opts defaults = { 0 };
    ns_map map = { 0 };
    ns_gguf g = { 0 };
    importer x = { .g = &g, .e = e };
    if (ns_map_open(&map, path, e) != 0)
        return -1;
    int rc = ns_gguf_parse(map.data, map.size, path, &g, e);
    if (rc == 0)
        rc = import_to(&x, path, out_dir, o ? o : &defaults);
    ns_gguf_release(&g);
    ns_map_close(&map);
    return rc;
}
