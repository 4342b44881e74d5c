#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store/gguf.h"

enum { MAX_KEYS = 4096, MAX_TENSORS = 1 << 17 };

/* What is read from: start, position and end. Every read is checked. */
typedef struct reader {
    const uint8_t *start, *at, *end;
    const char *what;
    ns_err *e;
} reader;

static int cut_short(reader *r, const char *part)
{
    return ns_fail(r->e, NS_EFORMAT, "%s: the file ends inside %s, at byte %zu", r->what, part, (size_t)(r->at - r->start));
}

static int get(reader *r, size_t n, void *out, const char *part)
{
    if ((size_t)(r->end - r->at) < n)
        return cut_short(r, part);
    memcpy(out, r->at, n);
    r->at += n;
    return 0;
}

/* A string of the file as a NUL-terminated copy. */
static int get_name(reader *r, ns_arena *mem, const char **out, const char *part)
{
    uint64_t n;
    if (get(r, 8, &n, part) != 0)
        return -1;
    if (n > (uint64_t)(r->end - r->at) || n > 65535)
        return ns_fail(r->e, NS_EFORMAT, "%s: %s of %llu bytes", r->what, part, (unsigned long long)n);
    if (memchr(r->at, 0, (size_t)n))
        return ns_fail(r->e, NS_EFORMAT, "%s: %s holds a NUL", r->what, part);
    char *s = ns_arena_strndup(mem, (const char *)r->at, (size_t)n);
    r->at += n;
    *out = s;
    return s ? 0 : ns_fail(r->e, NS_ENOMEM, "%s: out of memory", r->what);
}

/* Bytes of a number; 0 for strings and arrays. */
static size_t value_bytes(ns_gguf_value t)
{
    static const uint8_t bytes[NS_GGUF_VALUE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return bytes[t];
}

static int skip_strings(reader *r, uint64_t n, const char *key)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t len;
        if (get(r, 8, &len, key) != 0)
            return -1;
        if (len > (uint64_t)(r->end - r->at))
            return cut_short(r, key);
        r->at += len;
    }
    return 0;
}

static int get_type(reader *r, ns_gguf_value *t, const char *key)
{
    uint32_t v = 0;
    if (get(r, 4, &v, key) != 0)
        return -1;
    if (v >= NS_GGUF_VALUE_COUNT)
        return ns_fail(r->e, NS_EFORMAT, "%s: key \"%.200s\": value of unknown type %u", r->what, key, (unsigned)v);
    *t = (ns_gguf_value)v;
    return 0;
}

static int read_kv(reader *r, ns_arena *mem, ns_gguf_kv *kv)
{
    if (get_name(r, mem, &kv->key, "a key") != 0 || get_type(r, &kv->type, kv->key) != 0)
        return -1;
    kv->item = kv->type;
    kv->n = 1;
    if (kv->type == NS_GGUF_ARRAY && (get_type(r, &kv->item, kv->key) != 0 || get(r, 8, &kv->n, kv->key) != 0))
        return -1;
    if (kv->item == NS_GGUF_ARRAY)
        return ns_fail(r->e, NS_EUNSUPPORTED, "%s: key \"%.200s\": an array of arrays", r->what, kv->key);
    kv->data = r->at;
    if (kv->item == NS_GGUF_STRING)
        return skip_strings(r, kv->n, kv->key);
    if (kv->n > (uint64_t)(r->end - r->at) / value_bytes(kv->item))
        return cut_short(r, kv->key);
    r->at += kv->n * value_bytes(kv->item);
    return 0;
}

/* Name, extents and type; `data` is set to the offset, to be checked when the data's place is known. */
static int read_tensor(reader *r, ns_arena *mem, ns_gguf_tensor *t, uint64_t *offset)
{
    uint32_t n_dims, type;
    if (get_name(r, mem, &t->name, "a tensor's name") != 0 || get(r, 4, &n_dims, t->name) != 0)
        return -1;
    if (n_dims == 0 || n_dims > NS_GGUF_MAX_DIMS)
        return ns_fail(r->e, NS_EFORMAT, "%s: tensor %.200s: %u dimensions", r->what, t->name, (unsigned)n_dims);
    t->n_dims = (int)n_dims;
    size_t rows = 1;
    for (int i = 0; i < NS_GGUF_MAX_DIMS; i++) {
        t->ne[i] = 1;
        if (i < t->n_dims && get(r, 8, &t->ne[i], t->name) != 0)
            return -1;
        if (t->ne[i] == 0 || t->ne[i] > INT32_MAX || (i && !ns_mul_size(rows, (size_t)t->ne[i], &rows)))
            return ns_fail(r->e, NS_EFORMAT, "%s: tensor %.200s: extent %llu", r->what, t->name, (unsigned long long)t->ne[i]);
    }
    if (get(r, 4, &type, t->name) != 0 || get(r, 8, offset, t->name) != 0)
        return -1;
    t->type = (ns_gguf_type)type;
    if (type > 1000 || !ns_gguf_type_name(t->type))
        return ns_fail(r->e, NS_EUNSUPPORTED, "%s: tensor %.200s: type %u is not supported", r->what, t->name, (unsigned)type);
    if (t->ne[0] % (uint64_t)ns_gguf_type_block(t->type) != 0 ||
        !ns_mul_size(rows, ns_gguf_row_bytes(t->type, (size_t)t->ne[0]), &t->bytes))
        return ns_fail(r->e, NS_EFORMAT, "%s: tensor %.200s: rows of %llu as %s", r->what, t->name, (unsigned long long)t->ne[0],
                       ns_gguf_type_name(t->type));
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const ns_gguf_tensor *x = *(const ns_gguf_tensor *const *)a, *y = *(const ns_gguf_tensor *const *)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static int by_name(const void *a, const void *b)
{
    const ns_gguf_tensor *x = *(const ns_gguf_tensor *const *)a, *y = *(const ns_gguf_tensor *const *)b;
    return strcmp(x->name, y->name);
}

static int check_apart(reader *r, ns_gguf *g)
{
    const ns_gguf_tensor **p = ns_arena_array(&g->mem, g->n_tensors + 1, sizeof *p);
    if (!p)
        return ns_fail(r->e, NS_ENOMEM, "%s: out of memory", r->what);
    for (size_t i = 0; i < g->n_tensors; i++)
        p[i] = &g->tensor[i];
    qsort(p, g->n_tensors, sizeof *p, by_place);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (p[i - 1]->data + p[i - 1]->bytes > p[i]->data)
            return ns_fail(r->e, NS_EFORMAT, "%s: tensors %.200s and %.200s overlap", r->what, p[i - 1]->name, p[i]->name);
    qsort(p, g->n_tensors, sizeof *p, by_name);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (strcmp(p[i - 1]->name, p[i]->name) == 0)
            return ns_fail(r->e, NS_EFORMAT, "%s: two tensors %.200s", r->what, p[i]->name);
    return 0;
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const ns_gguf_kv *const *)a)->key, (*(const ns_gguf_kv *const *)b)->key);
}

/* A key that is there twice would mean one thing here and another to the next reader. */
static int check_keys(reader *r, ns_gguf *g)
{
    const ns_gguf_kv **p = ns_arena_array(&g->mem, g->n_kv + 1, sizeof *p);
    if (!p)
        return ns_fail(r->e, NS_ENOMEM, "%s: out of memory", r->what);
    for (size_t i = 0; i < g->n_kv; i++)
        p[i] = &g->kv[i];
    qsort(p, g->n_kv, sizeof *p, by_key);
    for (size_t i = 1; i < g->n_kv; i++)
        if (strcmp(p[i - 1]->key, p[i]->key) == 0)
            return ns_fail(r->e, NS_EFORMAT, "%s: two keys \"%.200s\"", r->what, p[i]->key);
    return 0;
}

static int find_alignment(reader *r, const ns_gguf *g, uint64_t *out)
{
    int64_t v = 32;
    if (ns_gguf_find(g, "general.alignment") && ns_gguf_int(g, "general.alignment", 0, &v, r->e) != 0)
        return -1;
    if (v < 8 || v > 1 << 20 || (v & (v - 1)))
        return ns_fail(r->e, NS_EFORMAT, "%s: general.alignment is %lld", r->what, (long long)v);
    *out = (uint64_t)v;
    return 0;
}

static int read_all(reader *r, ns_gguf *g)
{
    uint8_t magic[4];
    uint32_t version;
    uint64_t n_tensors, n_kv, align = 0;
    if (get(r, 4, magic, "the magic") != 0)
        return -1;
    if (memcmp(magic, "GGUF", 4) != 0)
        return ns_fail(r->e, NS_EFORMAT, "%s: not a GGUF file", r->what);
    if (get(r, 4, &version, "the version") != 0 || get(r, 8, &n_tensors, "the counts") != 0 || get(r, 8, &n_kv, "the counts") != 0)
        return -1;
    if (version != 3)
        return ns_fail(r->e, NS_EUNSUPPORTED, "%s: GGUF version %u, only 3 is read", r->what, (unsigned)version);
    /* the smallest key takes 13 bytes, the smallest tensor 32: counts beyond that are lies, and not to be allocated for; nor is a count that
     * no model has, which would make every look-up slow */
    if (n_kv > MAX_KEYS || n_tensors > MAX_TENSORS || n_kv > (uint64_t)(r->end - r->at) / 13 || n_tensors > (uint64_t)(r->end - r->at) / 32)
        return ns_fail(r->e, NS_EFORMAT, "%s: %llu keys and %llu tensors in %zu bytes", r->what, (unsigned long long)n_kv,
                       (unsigned long long)n_tensors, (size_t)(r->end - r->start));
    g->kv = ns_arena_array(&g->mem, (size_t)n_kv + 1, sizeof *g->kv);
    g->tensor = ns_arena_array(&g->mem, (size_t)n_tensors + 1, sizeof *g->tensor);
    uint64_t *offset = ns_arena_array(&g->mem, (size_t)n_tensors + 1, sizeof *offset);
    if (!g->kv || !g->tensor || !offset)
        return ns_fail(r->e, NS_ENOMEM, "%s: out of memory", r->what);
    for (; g->n_kv < n_kv; g->n_kv++)
        if (read_kv(r, &g->mem, &g->kv[g->n_kv]) != 0)
            return -1;
    if (check_keys(r, g) != 0)
        return -1;
    for (size_t i = 0; i < n_tensors; i++)
        if (read_tensor(r, &g->mem, &g->tensor[i], &offset[i]) != 0)
            return -1;
    if (find_alignment(r, g, &align) != 0)
        return -1;
    const size_t at = (size_t)(r->at - r->start), size = (size_t)(r->end - r->start), base = (at + align - 1) / align * align;
    for (size_t i = 0; i < n_tensors; i++) {
        ns_gguf_tensor *t = &g->tensor[i];
        if (offset[i] % align != 0 || base > size || offset[i] > size - base || t->bytes > size - base - offset[i])
            return ns_fail(r->e, NS_EFORMAT, "%s: tensor %.200s: %zu bytes at %llu are not in the file", r->what, t->name, t->bytes,
                           (unsigned long long)offset[i]);
        t->data = r->start + base + offset[i];
    }
    g->n_tensors = (size_t)n_tensors;
    return check_apart(r, g);
}

int ns_gguf_parse(const uint8_t *p, size_t n, const char *what, ns_gguf *out, ns_err *e)
{
    reader r = { p, p, p + n, what, e };
    *out = (ns_gguf){ 0 };
    if (read_all(&r, out) == 0)
        return 0;
    ns_gguf_release(out);
    return -1;
}

void ns_gguf_release(ns_gguf *g)
{
    ns_arena_release(&g->mem);
    *g = (ns_gguf){ 0 };
}

const ns_gguf_kv *ns_gguf_find(const ns_gguf *g, const char *key)
{
    for (size_t i = 0; i < g->n_kv; i++)
        if (strcmp(g->kv[i].key, key) == 0)
            return &g->kv[i];
    return NULL;
}

const ns_gguf_tensor *ns_gguf_find_tensor(const ns_gguf *g, const char *name)
{
    for (size_t i = 0; i < g->n_tensors; i++)
        if (strcmp(g->tensor[i].name, name) == 0)
            return &g->tensor[i];
    return NULL;
}

static const ns_gguf_kv *need(const ns_gguf *g, const char *key, uint64_t i, ns_err *e)
{
    const ns_gguf_kv *kv = ns_gguf_find(g, key);
    if (!kv)
        ns_fail(e, NS_EFORMAT, "key \"%s\" is missing", key);
    else if (i >= kv->n) {
        ns_fail(e, NS_EFORMAT, "key \"%s\": no entry %llu, there are %llu", key, (unsigned long long)i, (unsigned long long)kv->n);
        kv = NULL;
    }
    return kv;
}

/* Any integer or boolean as i64; u64 above that are refused. */
static int as_int(const ns_gguf_kv *kv, uint64_t i, int64_t *out)
{
    const uint8_t *p = kv->data + i * value_bytes(kv->item);
    uint64_t u = 0;
    memcpy(&u, p, value_bytes(kv->item));
    switch (kv->item) {
    case NS_GGUF_U8: case NS_GGUF_U16: case NS_GGUF_U32: case NS_GGUF_BOOL: *out = (int64_t)u; return 0;
    case NS_GGUF_I8: *out = (int8_t)u; return 0;
    case NS_GGUF_I16: *out = (int16_t)u; return 0;
    case NS_GGUF_I32: *out = (int32_t)u; return 0;
    case NS_GGUF_I64: *out = (int64_t)u; return 0;
    case NS_GGUF_U64: *out = (int64_t)u; return u > INT64_MAX ? -1 : 0;
    default: return -1;
    }
}

int ns_gguf_int(const ns_gguf *g, const char *key, uint64_t i, int64_t *out, ns_err *e)
{
    const ns_gguf_kv *kv = need(g, key, i, e);
    if (!kv)
        return -1;
    return as_int(kv, i, out) == 0 ? 0 : ns_fail(e, NS_EFORMAT, "key \"%s\" is not an integer", key);
}

int ns_gguf_real(const ns_gguf *g, const char *key, double *out, ns_err *e)
{
    const ns_gguf_kv *kv = need(g, key, 0, e);
    float f;
    int64_t v;
    if (!kv)
        return -1;
    if (kv->item == NS_GGUF_VF32) {
        memcpy(&f, kv->data, 4);
        *out = (double)f;
    } else if (kv->item == NS_GGUF_F64) {
        memcpy(out, kv->data, 8);
    } else if (as_int(kv, 0, &v) == 0) {
        *out = (double)v;
    } else {
        return ns_fail(e, NS_EFORMAT, "key \"%s\" is not a number", key);
    }
    return isfinite(*out) ? 0 : ns_fail(e, NS_EFORMAT, "key \"%s\" is not finite", key);
}

int ns_gguf_string(const ns_gguf *g, const char *key, uint64_t i, ns_gguf_cursor *c, const char **s, size_t *len, ns_err *e)
{
    const ns_gguf_kv *kv = need(g, key, i, e);
    ns_gguf_cursor own = { 0 };
    uint64_t n;
    if (!kv)
        return -1;
    if (kv->item != NS_GGUF_STRING)
        return ns_fail(e, NS_EFORMAT, "key \"%s\" is not a string", key);
    c = c ? c : &own;
    if (!c->at || c->i > i)
        *c = (ns_gguf_cursor){ 0, kv->data };
    for (;; c->i++) { /* lengths were checked by the parser */
        memcpy(&n, c->at, 8);
        if (c->i == i)
            break;
        c->at += 8 + n;
    }
    *s = (const char *)c->at + 8;
    *len = (size_t)n;
    return 0;
}
