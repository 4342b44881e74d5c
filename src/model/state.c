#include "model/state.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/file.h"

/* One layer's parts: bytes of the keys, and as many of the values; floats. */
struct shape {
    size_t kv, conv, ssm;
};

static struct shape shape_of(const ns_arch *a, const ns_cut *c, ns_dtype kv, int layer, int context)
{
    struct shape s = { 0 };
    const int *w = c->layer[layer].width;
    if (!c->layer[layer].keep)
        return s;
    if (a->layers[layer].kind == NS_LAYER_ATTENTION)
        s.kv = (size_t)a->n_kv_heads * ns_dtype_row_bytes(kv, (size_t)a->head_dim) * (size_t)context;
    if (a->layers[layer].kind == NS_LAYER_MAMBA) {
        s.conv = (size_t)(a->conv_kernel - 1) * (size_t)ns_cut_dim(a, c, layer, NS_DIM_CONV);
        s.ssm = (size_t)w[NS_AXIS_MAMBA_HEADS] * (size_t)w[NS_AXIS_SSM_STATE] * (size_t)w[NS_AXIS_MAMBA_HEAD_DIM];
    }
    return s;
}

static size_t line(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

ns_state *ns_state_new(const ns_arch *a, const ns_cut *cut, ns_dtype kv, int context, ns_err *e)
{
    ns_state *s = calloc(1, sizeof *s);
    if (context < 1) {
        free(s);
        ns_fail(e, NS_EINVAL, "context %d: at least 1", context);
        return NULL;
    }
    if (!s || !(s->layer = calloc((size_t)a->n_layers, sizeof *s->layer)) || ns_cut_copy(cut, &s->cut, e) != 0)
        goto no_memory;
    s->arch = a;
    s->kv = kv;
    s->context = context;
    for (int i = 0; i < a->n_layers; i++) {
        struct shape h = shape_of(a, cut, kv, i, context);
        s->bytes += 2 * line(h.kv) + line(h.conv * sizeof(float)) + line(h.ssm * sizeof(float));
    }
    /* an anonymous mapping: zeroed, and paged in only as the context fills */
    s->memory = mmap(NULL, s->bytes ? s->bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->memory == MAP_FAILED) {
        s->memory = NULL;
        goto no_memory;
    }
    uint8_t *p = s->memory;
    for (int i = 0; i < a->n_layers; i++) {
        struct shape h = shape_of(a, cut, kv, i, context);
        ns_layer_state *l = &s->layer[i];
        *l = (ns_layer_state){ .k = p, .v = p + line(h.kv), .conv_len = h.conv, .ssm_len = h.ssm };
        p += 2 * line(h.kv);
        l->conv = (float *)p; /* lines keep every part aligned */
        p += line(h.conv * sizeof(float));
        l->ssm = (float *)p;
        p += line(h.ssm * sizeof(float));
    }
    return s;
no_memory:
    ns_fail(e, NS_ENOMEM, "a state for %d tokens: out of memory", context);
    ns_state_free(s);
    return NULL;
}

void ns_state_free(ns_state *s)
{
    if (!s)
        return;
    if (s->memory)
        munmap(s->memory, s->bytes ? s->bytes : 1);
    ns_cut_release(&s->cut);
    free(s->layer);
    free(s);
}

void ns_state_reset(ns_state *s)
{
    s->len = 0;
    for (int i = 0; i < s->arch->n_layers; i++) {
        memset(s->layer[i].conv, 0, s->layer[i].conv_len * sizeof(float));
        memset(s->layer[i].ssm, 0, s->layer[i].ssm_len * sizeof(float));
    }
}

int ns_state_adopt(ns_state *s, const ns_cut *cut, ns_err *e)
{
    ns_cut copy;
    if (ns_cut_equal(&s->cut, cut))
        return 0;
    if (!ns_cut_same_state(s->arch, &s->cut, cut))
        return ns_fail(e, NS_EINVAL, "the cache of one size does not fit the other: their head dims or layers differ");
    if (ns_cut_copy(cut, &copy, e) != 0)
        return -1;
    ns_cut_release(&s->cut);
    s->cut = copy;
    return 0;
}

/* ---- parts ---- */

static bool has_kv(const ns_state *s, int layer)
{
    return s->cut.layer[layer].keep && s->arch->layers[layer].kind == NS_LAYER_ATTENTION;
}

size_t ns_state_rows_bytes(const ns_state *s, int n)
{
    size_t layers = 0;
    for (int i = 0; i < s->arch->n_layers; i++)
        layers += has_kv(s, i);
    return 2 * layers * (size_t)s->arch->n_kv_heads * (size_t)n * ns_state_row(s);
}

/* [layer][kv head][k, v][n][head_dim], one of the two directions. */
static void copy_rows(const ns_state *s, int from, int n, uint8_t *out, const uint8_t *in)
{
    size_t row = ns_state_row(s), bytes = (size_t)n * row, at = 0;
    for (int i = 0; i < s->arch->n_layers; i++)
        for (int g = 0; has_kv(s, i) && g < 2 * s->arch->n_kv_heads; g++, at += bytes) {
            size_t head = (size_t)(g / 2) * (size_t)s->context + (size_t)from;
            uint8_t *cache = (g % 2 ? s->layer[i].v : s->layer[i].k) + head * row;
            memcpy(out ? out + at : cache, out ? cache : in + at, bytes);
        }
}

void ns_state_rows_out(const ns_state *s, int from, int n, uint8_t *rows)
{
    copy_rows(s, from, n, rows, NULL);
}

void ns_state_rows_in(ns_state *s, int from, int n, const uint8_t *rows)
{
    copy_rows(s, from, n, NULL, rows);
}

size_t ns_state_recurrent(const ns_state *s)
{
    size_t n = 0;
    for (int i = 0; i < s->arch->n_layers; i++)
        n += s->layer[i].conv_len + s->layer[i].ssm_len;
    return n;
}

void ns_state_recurrent_out(const ns_state *s, float *parts)
{
    for (int i = 0; i < s->arch->n_layers; i++) {
        const ns_layer_state *l = &s->layer[i];
        memcpy(parts, l->conv, l->conv_len * sizeof *parts);
        memcpy(parts + l->conv_len, l->ssm, l->ssm_len * sizeof *parts);
        parts += l->conv_len + l->ssm_len;
    }
}

void ns_state_recurrent_in(ns_state *s, const float *parts)
{
    for (int i = 0; i < s->arch->n_layers; i++) {
        const ns_layer_state *l = &s->layer[i];
        memcpy(l->conv, parts, l->conv_len * sizeof *parts);
        memcpy(l->ssm, parts + l->conv_len, l->ssm_len * sizeof *parts);
        parts += l->conv_len + l->ssm_len;
    }
}

struct ns_mark {
    int len;
    size_t floats;
    float *data; /* [floats] */
};

ns_mark *ns_state_mark(const ns_state *s, ns_err *e)
{
    ns_mark *m = calloc(1, sizeof *m);
    size_t n = ns_state_recurrent(s);
    if (!m || !(m->data = malloc((n ? n : 1) * sizeof(float)))) {
        free(m);
        ns_fail(e, NS_ENOMEM, "a mark of the state: out of memory");
        return NULL;
    }
    *m = (ns_mark){ .len = s->len, .floats = n, .data = m->data };
    ns_state_recurrent_out(s, m->data);
    return m;
}

int ns_state_rewind(ns_state *s, const ns_mark *m, ns_err *e)
{
    if (m->len > s->len || m->floats != ns_state_recurrent(s))
        return ns_fail(e, NS_EINVAL, "rewind: the mark is not of this state's past");
    ns_state_recurrent_in(s, m->data);
    s->len = m->len;
    return 0;
}

void ns_mark_free(ns_mark *m)
{
    if (m)
        free(m->data);
    free(m);
}

/* ---- files ----
 * "NSSTATE2", the kv type's name in 8 bytes; then little-endian: u32 layers, u32 tokens, u32 kv heads, u32 head_dim, u32 vocab; per
 * layer u8 kind, u64 conv floats, u64 ssm floats; i32 ids[tokens]; per layer: k [kv head][tokens][head_dim] in the kv type, v likewise,
 * conv, ssm (F32); u64 n and n bytes of the caller's. */

static const char magic[8] = "NSSTATE2";
enum { KV_NAME = 8 };

/* Floats that go into the file: a layer that was dropped when the cache went over to a smaller size still has memory, but no part. */
static size_t conv_saved(const ns_state *s, int layer)
{
    return s->cut.layer[layer].keep ? s->layer[layer].conv_len : 0;
}

static size_t ssm_saved(const ns_state *s, int layer)
{
    return s->cut.layer[layer].keep ? s->layer[layer].ssm_len : 0;
}

static void header(const ns_state *s, ns_buf *b)
{
    uint32_t h[5] = { (uint32_t)s->arch->n_layers, (uint32_t)s->len, (uint32_t)s->arch->n_kv_heads, (uint32_t)s->arch->head_dim,
                      (uint32_t)s->arch->vocab_size };
    char kv[KV_NAME] = { 0 };
    snprintf(kv, sizeof kv, "%s", ns_dtype_name(s->kv));
    ns_buf_add(b, magic, sizeof magic);
    ns_buf_add(b, kv, sizeof kv);
    ns_buf_add(b, h, sizeof h);
    for (int i = 0; i < s->arch->n_layers; i++) {
        uint64_t n[2] = { conv_saved(s, i), ssm_saved(s, i) };
        ns_buf_addc(b, s->cut.layer[i].keep ? s->arch->layers[i].kind : '.');
        ns_buf_add(b, n, sizeof n);
    }
}

int ns_state_save(const ns_state *s, const int *ids, const char *path, ns_err *e)
{
    return ns_state_save_with(s, ids, NULL, 0, path, e);
}

int ns_state_save_with(const ns_state *s, const int *ids, const void *extra, size_t n, const char *path, ns_err *e)
{
    ns_outfile o = { 0 };
    ns_buf b = { 0 };
    size_t row = ns_state_row(s), len = (size_t)s->len;
    int rc = ns_outfile_open(&o, path, e);
    header(s, &b);
    if (rc == 0 && b.failed)
        rc = ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
    if (rc == 0)
        rc = ns_outfile_write(&o, b.data, b.len, e);
    if (rc == 0)
        rc = ns_outfile_write(&o, ids, len * sizeof *ids, e);
    for (int i = 0; rc == 0 && i < s->arch->n_layers; i++) {
        const ns_layer_state *l = &s->layer[i];
        for (int t = 0; has_kv(s, i) && t < 2; t++)
            for (int g = 0; rc == 0 && g < s->arch->n_kv_heads; g++)
                rc = ns_outfile_write(&o, (t ? l->v : l->k) + (size_t)g * (size_t)s->context * row, len * row, e);
        if (rc == 0)
            rc = ns_outfile_write(&o, l->conv, conv_saved(s, i) * sizeof(float), e);
        if (rc == 0)
            rc = ns_outfile_write(&o, l->ssm, ssm_saved(s, i) * sizeof(float), e);
    }
    uint64_t tail = n;
    if (rc == 0)
        rc = ns_outfile_write(&o, &tail, sizeof tail, e);
    if (rc == 0)
        rc = ns_outfile_write(&o, extra, n, e);
    if (rc == 0)
        rc = ns_outfile_commit(&o, e);
    ns_outfile_release(&o);
    ns_buf_release(&b);
    return rc;
}

/* The next n bytes of the file, or NULL past its end. */
static const uint8_t *take(const ns_map *m, size_t *at, size_t n)
{
    if (n > m->size - *at)
        return NULL;
    *at += n;
    return m->data + *at - n;
}

static bool take_into(const ns_map *m, size_t *at, void *to, size_t n)
{
    const uint8_t *p = take(m, at, n);
    if (p && n)
        memcpy(to, p, n);
    return p;
}

static int load_layers(ns_state *s, const ns_map *m, size_t *at, size_t len)
{
    size_t row = ns_state_row(s);
    for (int i = 0; i < s->arch->n_layers; i++) {
        const ns_layer_state *l = &s->layer[i];
        for (int t = 0; has_kv(s, i) && t < 2; t++)
            for (int g = 0; g < s->arch->n_kv_heads; g++)
                if (!take_into(m, at, (t ? l->v : l->k) + (size_t)g * (size_t)s->context * row, len * row))
                    return -1;
        if (!take_into(m, at, l->conv, conv_saved(s, i) * sizeof(float)) || !take_into(m, at, l->ssm, ssm_saved(s, i) * sizeof(float)))
            return -1;
    }
    return 0;
}

/* What the caller put at the end: all that is left of the file. */
static int load_extra(const ns_map *m, size_t *at, void **extra, size_t *n)
{
    uint64_t len;
    if (!take_into(m, at, &len, sizeof len) || len != m->size - *at || !(*extra = malloc(len ? (size_t)len : 1)))
        return -1;
    *n = (size_t)len;
    return take_into(m, at, *extra, *n) ? 0 : -1;
}

static bool ids_in_vocab(const ns_state *s, const int *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->arch->vocab_size)
            return false;
    return true;
}

int ns_state_load(ns_state *s, const char *path, int **ids, ns_err *e)
{
    void *extra;
    size_t n;
    int rc = ns_state_load_with(s, path, ids, &extra, &n, e);
    free(extra);
    return rc;
}

int ns_state_load_with(ns_state *s, const char *path, int **ids, void **extra, size_t *n, ns_err *e)
{
    ns_map m;
    ns_buf want = { 0 };
    int rc = -1;
    uint32_t len;
    size_t at = 0;
    *ids = NULL;
    *extra = NULL;
    *n = 0;
    if (ns_map_open(&m, path, e) != 0)
        return -1;
    header(s, &want);
    const size_t len_at = sizeof magic + KV_NAME + sizeof(uint32_t);
    const uint8_t *h = take(&m, &at, want.len);
    if (want.failed || !h || memcmp(h, magic, sizeof magic) != 0) {
        ns_fail(e, NS_EFORMAT, "%s: not a saved state", path);
        goto done;
    }
    if (memcmp(h + sizeof magic, want.data + sizeof magic, KV_NAME) != 0) {
        const char *name = (const char *)h + sizeof magic;
        int kv = ns_dtype_find(name, strnlen(name, KV_NAME));
        ns_fail(e, NS_EINVAL, "%s: keys and values are stored as %s, and this state keeps them as %s", path,
                kv < 0 ? "an unknown type" : ns_dtype_name((ns_dtype)kv), ns_dtype_name(s->kv));
        goto done;
    }
    memcpy(&len, h + len_at, sizeof len);
    memcpy(want.data + len_at, &len, sizeof len); /* everything but the length must agree */
    if (memcmp(h, want.data, want.len) != 0) {
        ns_fail(e, NS_EFORMAT, "%s: a state of another model or of a size with other head dims", path);
        goto done;
    }
    if (len > (uint32_t)s->context) {
        ns_fail(e, NS_EINVAL, "%s: %u tokens, and the context has room for %d", path, len, s->context);
        goto done;
    }
    *ids = malloc((len ? len : 1) * sizeof **ids);
    ns_state_reset(s);
    if (!*ids || !take_into(&m, &at, *ids, len * sizeof **ids) || !ids_in_vocab(s, *ids, len) || load_layers(s, &m, &at, len) != 0 ||
        load_extra(&m, &at, extra, n) != 0) {
        ns_fail(e, NS_EFORMAT, "%s: damaged: truncated, bytes left over, or ids outside the vocabulary", path);
        ns_state_reset(s);
        free(*ids);
        free(*extra);
        *ids = NULL;
        *extra = NULL;
        goto done;
    }
    s->len = (int)len;
    rc = 0;
done:
    ns_buf_release(&want);
    ns_map_close(&m);
    return rc;
}
