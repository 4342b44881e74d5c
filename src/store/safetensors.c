#include "store/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { HEADER_LIMIT = 100000000 }; /* the reference implementation's */

typedef struct parser {
    const char *what;    /* the file, for messages */
    const uint8_t *base; /* first byte after the header */
    size_t size;         /* bytes from there to the end of the file */
    ns_st *out;
    ns_err *e;
} parser;

int ns_tensor_size(ns_dtype dtype, int n_dims, const int64_t *shape, size_t *bytes)
{
    size_t n = ns_dtype_bits(dtype) / 8;
    if (dtype == NS_NVFP4)
        return -1;
    for (int d = 0; d < n_dims; d++)
        if (shape[d] < 0 || !ns_mul_size(n, (size_t)shape[d], &n))
            return -1;
    *bytes = n;
    return 0;
}

void ns_tensor_print(const ns_tensor *t, ns_buf *out)
{
    ns_buf_addf(out, "%s [", ns_dtype_name(t->dtype));
    for (int d = 0; d < t->n_dims; d++)
        ns_buf_addf(out, "%s%lld", d ? ", " : "", (long long)t->shape[d]);
    ns_buf_addc(out, ']');
}

/* A tensor's error, named; always -1. */
static int refuse(const parser *p, const char *name, const char *why)
{
    return ns_fail(p->e, NS_EFORMAT, "%s: tensor \"%.200s\": %s", p->what, name, why);
}

static int read_dtype(const parser *p, const json_t *info, ns_tensor *t)
{
    const json_t *v = json_object_get(info, "dtype");
    if (!json_is_string(v))
        return refuse(p, t->name, "no \"dtype\" string");
    int found = ns_dtype_find(json_string_value(v), json_string_length(v));
    if (found < 0)
        return ns_fail(p->e, NS_EUNSUPPORTED, "%s: tensor \"%.200s\": unknown dtype \"%.40s\"", p->what, t->name,
                       json_string_value(v));
    t->dtype = (ns_dtype)found;
    return 0;
}

static int read_shape(const parser *p, const json_t *info, ns_tensor *t)
{
    const json_t *v = json_object_get(info, "shape");
    if (!json_is_array(v))
        return refuse(p, t->name, "no \"shape\" array");
    if (json_array_size(v) > NS_MAX_DIMS)
        return ns_fail(p->e, NS_EUNSUPPORTED, "%s: tensor \"%.200s\": %zu dimensions, at most %d are supported", p->what, t->name,
                       json_array_size(v), NS_MAX_DIMS);
    t->n_dims = (int)json_array_size(v);
    for (int d = 0; d < t->n_dims; d++) {
        const json_t *x = json_array_get(v, (size_t)d);
        if (!json_is_integer(x) || json_integer_value(x) < 0)
            return refuse(p, t->name, "shape is not made of non-negative integers");
        t->shape[d] = json_integer_value(x);
    }
    if (ns_tensor_size(t->dtype, t->n_dims, t->shape, &t->bytes) != 0)
        return refuse(p, t->name, "shape overflows");
    return 0;
}

static int read_offsets(const parser *p, const json_t *info, ns_tensor *t)
{
    const json_t *v = json_object_get(info, "data_offsets"), *begin = json_array_get(v, 0), *end = json_array_get(v, 1);
    if (json_array_size(v) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return refuse(p, t->name, "\"data_offsets\" is not a pair of integers");
    int64_t b = json_integer_value(begin), x = json_integer_value(end);
    if (b < 0 || x < b || (uint64_t)x > p->size)
        return ns_fail(p->e, NS_EFORMAT, "%s: tensor \"%.200s\": data_offsets [%lld, %lld] outside the %zu bytes of data", p->what,
                       t->name, (long long)b, (long long)x, p->size);
    if ((uint64_t)(x - b) != t->bytes)
        return ns_fail(p->e, NS_EFORMAT, "%s: tensor \"%.200s\": data_offsets span %lld bytes, dtype and shape need %zu", p->what,
                       t->name, (long long)(x - b), t->bytes);
    t->data = p->base + b;
    return 0;
}

static int read_tensor(const parser *p, const char *name, const json_t *info)
{
    ns_tensor *t = &p->out->tensors[p->out->n_tensors];
    t->name = ns_arena_strdup(&p->out->mem, name);
    if (!t->name)
        return ns_fail(p->e, NS_ENOMEM, "%s: out of memory", p->what);
    if (!json_is_object(info))
        return refuse(p, name, "its entry is not an object");
    if (read_dtype(p, info, t) != 0 || read_shape(p, info, t) != 0 || read_offsets(p, info, t) != 0)
        return -1;
    p->out->n_tensors++;
    return 0;
}

static int read_meta(const parser *p, json_t *meta)
{
    ns_st *st = p->out;
    const char *key;
    json_t *v;
    if (json_is_null(meta))
        return 0;
    if (!json_is_object(meta))
        return ns_fail(p->e, NS_EFORMAT, "%s: __metadata__ is not an object", p->what);
    st->meta = ns_arena_array(&st->mem, json_object_size(meta), sizeof *st->meta);
    if (!st->meta)
        return ns_fail(p->e, NS_ENOMEM, "%s: out of memory", p->what);
    json_object_foreach(meta, key, v) {
        if (!json_is_string(v))
            return ns_fail(p->e, NS_EFORMAT, "%s: __metadata__: \"%.200s\" is not a string", p->what, key);
        ns_st_meta *m = &st->meta[st->n_meta++];
        m->key = ns_arena_strdup(&st->mem, key);
        m->value = ns_arena_strndup(&st->mem, json_string_value(v), json_string_length(v));
        if (!m->key || !m->value)
            return ns_fail(p->e, NS_ENOMEM, "%s: out of memory", p->what);
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const ns_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Puts the tensors in file order and checks that they tile the data exactly. */
static int check_tiling(const parser *p)
{
    const ns_tensor *t = p->out->tensors;
    size_t at = 0;
    qsort(p->out->tensors, p->out->n_tensors, sizeof *t, by_place);
    for (size_t i = 0; i < p->out->n_tensors; i++) {
        size_t begin = (size_t)(t[i].data - p->base);
        if (begin < at)
            return ns_fail(p->e, NS_EFORMAT, "%s: tensor \"%.200s\" overlaps \"%.200s\"", p->what, t[i].name, t[i - 1].name);
        if (begin > at)
            return ns_fail(p->e, NS_EFORMAT, "%s: %zu bytes before tensor \"%.200s\" belong to none", p->what, begin - at,
                           t[i].name);
        at += t[i].bytes;
    }
    if (at != p->size)
        return ns_fail(p->e, NS_EFORMAT, "%s: %zu bytes after the last tensor belong to none", p->what, p->size - at);
    return 0;
}

static int read_header(const parser *p, json_t *header)
{
    const char *key;
    json_t *v;
    if (!json_is_object(header))
        return ns_fail(p->e, NS_EFORMAT, "%s: the header is not a JSON object", p->what);
    p->out->tensors = ns_arena_array(&p->out->mem, json_object_size(header), sizeof *p->out->tensors);
    if (!p->out->tensors)
        return ns_fail(p->e, NS_ENOMEM, "%s: out of memory", p->what);
    json_object_foreach(header, key, v)
        if ((strcmp(key, "__metadata__") == 0 ? read_meta(p, v) : read_tensor(p, key, v)) != 0)
            return -1;
    return check_tiling(p);
}

static int header_length(const uint8_t *p, size_t n, const char *what, size_t *len, ns_err *e)
{
    uint64_t h = 0;
    if (n < 8)
        return ns_fail(e, NS_EFORMAT, "%s: %zu bytes are too short for a safetensors file", what, n);
    for (int i = 7; i >= 0; i--)
        h = h << 8 | p[i];
    if (h > HEADER_LIMIT)
        return ns_fail(e, NS_EFORMAT, "%s: not a safetensors file: header of %llu bytes, limit %d", what, (unsigned long long)h,
                       HEADER_LIMIT);
    if (h > n - 8)
        return ns_fail(e, NS_EFORMAT, "%s: truncated: header of %llu bytes in a file of %zu", what, (unsigned long long)h, n);
    *len = (size_t)h;
    return 0;
}

int ns_st_parse(const uint8_t *p, size_t n, const char *what, ns_st *out, ns_err *e)
{
    size_t len = 0;
    *out = (ns_st){ 0 };
    if (header_length(p, n, what, &len, e) != 0)
        return -1;
    json_t *header = ns_json_parse((const char *)p + 8, len, false, what, e);
    if (!header)
        return -1;
    parser ps = { .what = what, .base = p + 8 + len, .size = n - 8 - len, .out = out, .e = e };
    int rc = read_header(&ps, header);
    json_decref(header);
    if (rc != 0)
        ns_st_release(out);
    return rc;
}

void ns_st_release(ns_st *st)
{
    ns_arena_release(&st->mem);
    *st = (ns_st){ 0 };
}
