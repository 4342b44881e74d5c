#include "forge/slice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "forge/cut_rows.h"
#include "forge/folder.h"
#include "store/writer.h"
#include "tensor/format.h"

enum { MAX_SLICE_DIMS = 4, BUFFER = 1 << 20, N_DIM_IDS = NS_DIM_LATENT + 1 };

/* A stored tensor and the parts of it to copy, in stored elements: bytes of nibble pairs, block scales, floats. */
typedef struct item {
    const ns_tensor *t;
    int n_dims;                         /* 0: copied whole */
    ns_segs segs[MAX_SLICE_DIMS];
    size_t pitch[MAX_SLICE_DIMS];       /* bytes of one entry of the dimension */
    bool whole_inside[MAX_SLICE_DIMS];  /* every dimension further in is kept whole */
    int layer, expert;                  /* the weight, for decoding; of fused experts the first */
    ns_role role;
} item;

typedef struct slicer {
    const ns_ckpt *c;
    const ns_cut *cut;
    ns_writer *w;
    item *items;
    size_t n, cap;
    int layer;                /* whose segments are cached */
    bool have[N_DIM_IDS];
    ns_segs segs[N_DIM_IDS];
    uint8_t *buffer;          /* BUFFER bytes: rows may be short */
    size_t fill;
    bool decode;              /* weights are written as `plain` instead of as stored */
    ns_dtype plain;
    float *row;               /* decoding: the widest row, and as it is written */
    uint8_t *stored;
    int widest;
    ns_arena arena;
    ns_err *e;
} slicer;

ns_slice_opts ns_slice_defaults(void)
{
    return (ns_slice_opts){ .max_shard_bytes = ns_writer_defaults().max_shard_bytes };
}

static int no_memory(slicer *s)
{
    return ns_fail(s->e, NS_ENOMEM, "slice: out of memory");
}

/* ---- what to copy ---- */

static const ns_segs *segments(slicer *s, int layer, ns_dim_id id)
{
    if (layer != s->layer)
        memset(s->have, 0, sizeof s->have);
    s->layer = layer;
    if (!s->have[id] && ns_cut_segments(s->c->arch, s->cut, layer, id, &s->arena, &s->segs[id]) != 0) {
        no_memory(s);
        return NULL;
    }
    s->have[id] = true;
    return &s->segs[id];
}

/* Element segments to stored ones: `unit` elements make one stored element. */
static int to_stored(slicer *s, const item *it, const ns_segs *in, int unit, ns_segs *out)
{
    *out = *in;
    if (unit == 1)
        return 0;
    out->seg = ns_arena_array(&s->arena, (size_t)in->n, sizeof *out->seg);
    if (!out->seg)
        return no_memory(s);
    for (int i = 0; i < in->n; i++) {
        if (in->seg[i].off % unit || in->seg[i].len % unit)
            return ns_fail(s->e, NS_EINVAL, "tensor %s: columns %d..%d split a block of %d", it->t->name, in->seg[i].off,
                           in->seg[i].off + in->seg[i].len, unit);
        out->seg[i] = (ns_seg){ in->seg[i].off / unit, in->seg[i].len / unit };
    }
    out->total = in->total / unit;
    return 0;
}

static void finish_item(item *it)
{
    size_t pitch = ns_dtype_bits(it->t->dtype) / 8;
    bool whole = true;
    for (int d = it->n_dims - 1; d >= 0; d--) {
        it->pitch[d] = pitch;
        it->whole_inside[d] = whole;
        pitch *= (size_t)it->t->shape[d];
        whole = whole && it->segs[d].total == it->t->shape[d];
    }
}

/* The weight itself or its block scales: the manifest's dimensions, the experts in front where they are fused. */
static int plan_dims(slicer *s, item *it, int layer, ns_role r, bool fused, int unit)
{
    const ns_weight_def *def = ns_weight_get(r);
    for (int i = fused ? -1 : 0; i < def->n_dims; i++) {
        const ns_segs *g = segments(s, layer, i < 0 ? NS_DIM_EXPERTS : def->dim[i]);
        if (!g || to_stored(s, it, g, i == def->n_dims - 1 ? unit : 1, &it->segs[it->n_dims]) != 0)
            return -1;
        it->n_dims++;
    }
    finish_item(it);
    return 0;
}

/* One scale for the tensor is copied; one for each of the fused experts follows them. */
static int plan_scalar(slicer *s, item *it, int layer, bool fused)
{
    if (!fused || it->t->n_dims == 0 || it->t->bytes <= ns_dtype_bits(it->t->dtype) / 8)
        return 0;
    const ns_segs *g = segments(s, layer, NS_DIM_EXPERTS);
    if (!g)
        return -1;
    it->n_dims = 1; /* any further dimensions are 1 */
    it->segs[0] = *g;
    finish_item(it);
    return 0;
}

/* The name after dropped layers and experts have gone; everything else as the source spells it. */
static void new_name(const slicer *s, const char *name, int layer, int expert, char *out, size_t cap)
{
    int n_layer = 0, n_expert = 0;
    const char *at = layer < 0 ? NULL : strstr(name, "layers."), *ex = expert < 0 ? NULL : strstr(name, ".experts.");
    for (int i = 0; i < layer; i++)
        n_layer += s->cut->layer[i].keep;
    for (int i = 0; i < expert; i++)
        n_expert += ns_cut_has_expert(s->c->arch, s->cut, layer, i);
    if (!at) {
        snprintf(out, cap, "%s", name);
        return;
    }
    const char *rest = strchr(at + strlen("layers."), '.');
    int n = snprintf(out, cap, "%.*slayers.%d", (int)(at - name), name, n_layer);
    if (ex && n > 0 && (size_t)n < cap)
        snprintf(out + n, cap - (size_t)n, "%.*s.experts.%d%s", (int)(ex - rest), rest, n_expert, strchr(ex + strlen(".experts."), '.'));
    else if (n > 0 && (size_t)n < cap)
        snprintf(out + n, cap - (size_t)n, "%s", rest);
}

static item *add_item(slicer *s, const ns_tensor *t)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 1024;
        item *p = realloc(s->items, cap * sizeof *p);
        if (!p) {
            no_memory(s);
            return NULL;
        }
        s->items = p;
        s->cap = cap;
    }
    s->items[s->n] = (item){ .t = t };
    return &s->items[s->n++];
}

/* The correction decides between experts by small differences: it is F32 in every published type. */
static ns_dtype written_type(const slicer *s, const item *it)
{
    return !s->decode ? it->t->dtype : it->role == NS_W_GATE_CORRECTION ? NS_F32 : s->plain;
}

static int declare(slicer *s, const item *it, int layer, int expert)
{
    char name[512];
    int64_t shape[NS_MAX_DIMS] = { 0 };
    memcpy(shape, it->t->shape, sizeof shape);
    for (int d = 0; d < it->n_dims; d++)
        shape[d] = it->segs[d].total;
    new_name(s, it->t->name, layer, expert, name, sizeof name);
    return ns_writer_declare(s->w, name, written_type(s, it), it->t->n_dims, shape, s->e);
}

/* unit 0: a per-tensor scale. */
static int plan_tensor(slicer *s, const ns_tensor *t, const ns_bound *b, int layer, ns_role r, int expert, int unit)
{
    if (!t)
        return 0;
    bool fused = b->expert_index >= 0;
    item *it = add_item(s, t);
    if (it) {
        it->layer = layer;
        it->expert = expert;
        it->role = r;
    }
    if (!it || (unit ? plan_dims(s, it, layer, r, fused, unit) : plan_scalar(s, it, layer, fused)) != 0)
        return -1;
    return declare(s, it, layer, fused || !ns_weight_get(r)->per_expert ? -1 : expert);
}

static int plan_weight(void *ctx, int layer, ns_role r, int expert)
{
    slicer *s = ctx;
    const ns_bound *b = ns_ckpt_weight(s->c, layer, r, expert);
    if (!b || (layer >= 0 && !s->cut->layer[layer].keep) || b->expert_index > 0)
        return 0;
    if (ns_weight_get(r)->per_expert && b->expert_index < 0 && !ns_cut_has_expert(s->c->arch, s->cut, layer, expert))
        return 0;
    if (s->decode) { /* in elements, and no scales */
        s->widest = b->mat.cols > s->widest ? b->mat.cols : s->widest;
        return plan_tensor(s, b->tensor, b, layer, r, expert, 1);
    }
    const bool blocks = b->mat.dtype == NS_NVFP4;
    return plan_tensor(s, b->tensor, b, layer, r, expert, blocks ? 2 : 1) != 0 ||
           plan_tensor(s, b->scale, b, layer, r, expert, blocks ? 16 : 0) != 0 ||
           plan_tensor(s, b->scale_2, b, layer, r, expert, 0) != 0 ||
           plan_tensor(s, b->input_scale, b, layer, r, expert, 0) != 0 ||
           plan_tensor(s, b->kv_scale, b, layer, r, expert, 0) != 0 ? -1 : 0;
}

/* ---- copying ---- */

static int flush(slicer *s)
{
    size_t n = s->fill;
    s->fill = 0;
    return n ? ns_writer_append(s->w, s->buffer, n, s->e) : 0;
}

static int append(slicer *s, const uint8_t *p, size_t n)
{
    if (n > BUFFER - s->fill && flush(s) != 0)
        return -1;
    for (; n > BUFFER; p += BUFFER, n -= BUFFER) /* in pieces, so that progress is seen */
        if (ns_writer_append(s->w, p, BUFFER, s->e) != 0)
            return -1;
    memcpy(s->buffer + s->fill, p, n);
    s->fill += n;
    return 0;
}

static int copy_dim(slicer *s, const item *it, int d, const uint8_t *p)
{
    const ns_segs *g = &it->segs[d];
    for (int i = 0; i < g->n; i++) {
        const uint8_t *at = p + (size_t)g->seg[i].off * it->pitch[d];
        if (it->whole_inside[d]) {
            if (append(s, at, (size_t)g->seg[i].len * it->pitch[d]) != 0)
                return -1;
            continue;
        }
        for (int k = 0; k < g->seg[i].len; k++, at += it->pitch[d])
            if (copy_dim(s, it, d + 1, at) != 0)
                return -1;
    }
    return 0;
}

/* ---- decoding ---- */

static int find_type(const char *name, ns_dtype *out, ns_err *e)
{
    static const struct { const char *name; ns_dtype dtype; } types[] = { { "f32", NS_F32 }, { "bf16", NS_BF16 }, { "f16", NS_F16 } };
    for (int i = 0; i < 3; i++)
        if (strcmp(name, types[i].name) == 0) {
            *out = types[i].dtype;
            return 0;
        }
    return ns_fail(e, NS_EINVAL, "unknown type \"%.100s\": f32, bf16 or f16", name);
}

/* false: an entry is none of the type's finite numbers. */
static bool to_plain(const float *x, int n, ns_dtype t, uint8_t *out)
{
    const uint16_t exponent = t == NS_F16 ? 0x7c00 : 0x7f80;
    bool fits = true;
    for (int i = 0; t == NS_F32 && i < n; i++)
        fits = fits && isfinite(x[i]);
    if (t == NS_F32)
        memcpy(out, x, (size_t)n * sizeof *x);
    for (int i = 0; t != NS_F32 && i < n; i++) {
        const uint16_t h = t == NS_F16 ? ns_f32_to_f16(x[i]) : ns_f32_to_bf16(x[i]);
        fits = fits && (h & exponent) != exponent;
        memcpy(out + 2 * (size_t)i, &h, 2);
    }
    return fits;
}

static int decode_weight(slicer *s, const item *it, int expert)
{
    ns_cut_rows w;
    const ns_dtype t = written_type(s, it);
    ns_arena_release(&s->arena);
    if (ns_cut_rows_init(s->c, s->cut, it->layer, it->role, expert, &s->arena, &w, s->e) != 0)
        return -1;
    for (int i = 0; i < w.rows; i++) {
        ns_cut_rows_get(&w, i, s->row);
        if (!to_plain(s->row, w.cols, t, s->stored))
            return ns_fail(s->e, NS_EFORMAT, "tensor %s, row %d: holds a number that %s cannot", it->t->name, i, ns_dtype_name(t));
        if (append(s, s->stored, ns_dtype_row_bytes(t, (size_t)w.cols)) != 0)
            return -1;
    }
    return 0;
}

static int decode_item(slicer *s, const item *it)
{
    if (ns_ckpt_weight(s->c, it->layer, it->role, it->expert)->expert_index < 0)
        return decode_weight(s, it, it->expert);
    for (int x = 0; x < s->c->arch->layers[it->layer].width[NS_AXIS_EXPERTS]; x++)
        if (ns_cut_has_expert(s->c->arch, s->cut, it->layer, x) && decode_weight(s, it, x) != 0)
            return -1;
    return 0;
}

/* ---- the folder ---- */

static int write_item(slicer *s, const item *it)
{
    if (s->decode)
        return decode_item(s, it);
    return it->n_dims ? copy_dim(s, it, 0, it->t->data) : append(s, it->t->data, it->t->bytes);
}

static int write_items(slicer *s)
{
    for (size_t i = 0; i < s->n; i++) {
        if (ns_writer_tensor_begin(s->w, i, s->e) != 0 || write_item(s, &s->items[i]) != 0 || flush(s) != 0)
            return -1;
    }
    return ns_writer_finish(s->w, s->e);
}

static int write_weights(slicer *s, const char *dir, const ns_slice_opts *o)
{
    ns_writer_options wo = ns_writer_defaults();
    ns_st_meta meta[2] = { { "format", "pt" }, { "nestar.size", o->name } };
    wo.max_shard_bytes = o->max_shard_bytes ? o->max_shard_bytes : wo.max_shard_bytes;
    wo.meta = meta;
    wo.n_meta = o->name ? 2 : 1;
    wo.progress = o->progress;
    wo.ctx = o->ctx;
    s->buffer = malloc(BUFFER);
    if (!s->buffer)
        return no_memory(s);
    s->w = ns_writer_new(dir, &wo, s->e);
    if (!s->w || ns_manifest_each(s->c->arch, plan_weight, s) != 0)
        return -1;
    if (s->decode) {
        s->row = malloc((size_t)s->widest * sizeof *s->row);
        s->stored = malloc((size_t)s->widest * sizeof *s->row);
        if (!s->row || !s->stored)
            return no_memory(s);
    }
    return write_items(s);
}

/* What is said of the weights beside them. */
static int write_texts(const slicer *s, const char *dir, const ns_slice_opts *o)
{
    ns_cut full = { 0 };
    int rc = ns_folder_describe(s->c, s->cut, s->decode ? ns_dtype_name(s->plain) : NULL, dir, s->e);
    if (rc == 0 && o->keep_nest) {
        rc = ns_cut_full(s->c->arch, &full, s->e);
        if (rc == 0 && ns_cut_equal(&full, s->cut))
            rc = ns_folder_copy_nest(s->c->dir, dir, s->e);
        ns_cut_release(&full);
    }
    return rc;
}

int ns_slice(const ns_ckpt *c, const ns_cut *cut, const char *out_dir, const ns_slice_opts *o, ns_err *e)
{
    const ns_slice_opts defaults = ns_slice_defaults();
    slicer s = { .c = c, .cut = cut, .layer = -2, .decode = o && o->dtype, .e = e };
    ns_outdir dir = { 0 };
    o = o ? o : &defaults;
    if (s.decode && find_type(o->dtype, &s.plain, e) != 0)
        return -1;
    if (ns_cut_validate(c->arch, cut, ns_ckpt_dtype_of, (void *)(uintptr_t)c, e) != 0)
        return -1;
    int rc = ns_outdir_open(&dir, out_dir, e);
    if (rc == 0)
        rc = write_texts(&s, dir.tmp, o);
    if (rc == 0)
        rc = write_weights(&s, dir.tmp, o);
    if (rc == 0)
        rc = ns_folder_check(dir.tmp, e);
    ns_writer_free(s.w);
    if (rc == 0)
        rc = ns_outdir_commit(&dir, e);
    ns_outdir_release(&dir);
    free(s.items);
    free(s.buffer);
    free(s.row);
    free(s.stored);
    ns_arena_release(&s.arena);
    return rc;
}
