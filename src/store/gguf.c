/* Types, and the writer. The reader is gguf_read.c. */
#include "store/gguf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { ALIGN = 32 };

static const struct { ns_gguf_type type; const char *name; int block; size_t bytes; } types[] = {
#define X(id, code, name, block, bytes) { NS_GGUF_##id, name, block, bytes },
    NS_GGUF_TYPES(X)
#undef X
};
enum { N_TYPES = sizeof types / sizeof *types };

/* N_TYPES when unknown. */
static int find_type(ns_gguf_type t)
{
    int i = 0;
    while (i < N_TYPES && types[i].type != t)
        i++;
    return i;
}

const char *ns_gguf_type_name(ns_gguf_type t)
{
    int i = find_type(t);
    return i == N_TYPES ? NULL : types[i].name;
}

int ns_gguf_type_block(ns_gguf_type t)
{
    int i = find_type(t);
    assert(i < N_TYPES);
    return types[i].block;
}

size_t ns_gguf_row_bytes(ns_gguf_type t, size_t n)
{
    int i = find_type(t);
    assert(i < N_TYPES);
    return n / (size_t)types[i].block * types[i].bytes;
}

/* ---- the writer ---- */

struct ns_gguf_writer {
    ns_outfile out;
    ns_buf kv, info;     /* serialised keys; serialised tensor descriptions */
    uint64_t n_kv, n_tensors;
    size_t *bytes, cap;  /* of each tensor */
    size_t total, offset; /* bytes of all; next offset in the data section */
    bool started;
    size_t current, done; /* tensor being written, bytes of it */
};

ns_gguf_writer *ns_gguf_writer_new(const char *path, ns_err *e)
{
    ns_gguf_writer *w = calloc(1, sizeof *w);
    if (!w)
        ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
    else if (ns_outfile_open(&w->out, path, e) != 0) {
        free(w);
        w = NULL;
    }
    return w;
}

void ns_gguf_writer_free(ns_gguf_writer *w)
{
    if (!w)
        return;
    ns_outfile_release(&w->out);
    ns_buf_release(&w->kv);
    ns_buf_release(&w->info);
    free(w->bytes);
    free(w);
}

static void put(ns_buf *b, uint64_t v, size_t n)
{
    ns_buf_add(b, &v, n); /* little-endian */
}

static void put_text(ns_buf *b, const char *s, size_t n)
{
    put(b, n, 8);
    ns_buf_add(b, s, n);
}

static void key(ns_gguf_writer *w, const char *name, ns_gguf_value type)
{
    put_text(&w->kv, name, strlen(name));
    put(&w->kv, (uint64_t)type, 4);
    w->n_kv++;
}

void ns_gguf_put_u32(ns_gguf_writer *w, const char *k, uint32_t v)
{
    key(w, k, NS_GGUF_U32);
    put(&w->kv, v, 4);
}

void ns_gguf_put_f32(ns_gguf_writer *w, const char *k, float v)
{
    key(w, k, NS_GGUF_VF32);
    ns_buf_add(&w->kv, &v, 4);
}

void ns_gguf_put_bool(ns_gguf_writer *w, const char *k, bool v)
{
    key(w, k, NS_GGUF_BOOL);
    put(&w->kv, v, 1);
}

void ns_gguf_put_str(ns_gguf_writer *w, const char *k, const char *s, size_t n)
{
    key(w, k, NS_GGUF_STRING);
    put_text(&w->kv, s, n);
}

static void array(ns_gguf_writer *w, const char *k, ns_gguf_value item, size_t n)
{
    key(w, k, NS_GGUF_ARRAY);
    put(&w->kv, (uint64_t)item, 4);
    put(&w->kv, n, 8);
}

void ns_gguf_put_i32s(ns_gguf_writer *w, const char *k, const int32_t *v, size_t n)
{
    array(w, k, NS_GGUF_I32, n);
    ns_buf_add(&w->kv, v, n * sizeof *v);
}

void ns_gguf_put_strs(ns_gguf_writer *w, const char *k, size_t n)
{
    array(w, k, NS_GGUF_STRING, n);
}

void ns_gguf_add_str(ns_gguf_writer *w, const char *s, size_t n)
{
    put_text(&w->kv, s, n);
}

int ns_gguf_declare(ns_gguf_writer *w, const char *name, ns_gguf_type t, int n_dims, const uint64_t *ne, ns_err *e)
{
    size_t rows = 1;
    if (ne[0] % (uint64_t)ns_gguf_type_block(t) != 0)
        return ns_fail(e, NS_EINVAL, "%s: rows of %llu cannot be stored as %s, which takes multiples of %d", name, (unsigned long long)ne[0],
                       ns_gguf_type_name(t), ns_gguf_type_block(t));
    if (w->n_tensors == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 512, *p = realloc(w->bytes, cap * sizeof *p);
        if (!p)
            return ns_fail(e, NS_ENOMEM, "%s: out of memory", w->out.path);
        w->bytes = p;
        w->cap = cap;
    }
    put_text(&w->info, name, strlen(name));
    put(&w->info, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++) {
        put(&w->info, ne[i], 8);
        if (i && !ns_mul_size(rows, (size_t)ne[i], &rows))
            return ns_fail(e, NS_EINVAL, "%s: too large", name);
    }
    size_t bytes;
    if (!ns_mul_size(rows, ns_gguf_row_bytes(t, (size_t)ne[0]), &bytes))
        return ns_fail(e, NS_EINVAL, "%s: too large", name);
    put(&w->info, (uint64_t)t, 4);
    put(&w->info, w->offset, 8);
    w->bytes[w->n_tensors++] = bytes;
    w->offset += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    w->total += bytes;
    return 0;
}

size_t ns_gguf_total(const ns_gguf_writer *w)
{
    return w->total;
}

static int pad(ns_gguf_writer *w, size_t at, ns_err *e)
{
    static const uint8_t zero[ALIGN];
    return at % ALIGN ? ns_outfile_write(&w->out, zero, ALIGN - at % ALIGN, e) : 0;
}

static int write_head(ns_gguf_writer *w, ns_err *e)
{
    ns_buf head = { 0 };
    ns_buf_add(&head, "GGUF", 4);
    put(&head, 3, 4);
    put(&head, w->n_tensors, 8);
    put(&head, w->n_kv, 8);
    w->started = true;
    int rc = head.failed || w->kv.failed || w->info.failed ? ns_fail(e, NS_ENOMEM, "%s: out of memory", w->out.path)
                                                           : ns_outfile_write(&w->out, head.data, head.len, e);
    rc = rc || !w->kv.len ? rc : ns_outfile_write(&w->out, w->kv.data, w->kv.len, e);
    rc = rc || !w->info.len ? rc : ns_outfile_write(&w->out, w->info.data, w->info.len, e);
    rc = rc ? rc : pad(w, head.len + w->kv.len + w->info.len, e);
    ns_buf_release(&head);
    return rc;
}

int ns_gguf_append(ns_gguf_writer *w, const void *p, size_t n, ns_err *e)
{
    if (!w->started && write_head(w, e) != 0)
        return -1;
    if (w->current >= w->n_tensors || n > w->bytes[w->current] - w->done)
        return ns_fail(e, NS_EINVAL, "%s: more bytes than were declared", w->out.path);
    if (ns_outfile_write(&w->out, p, n, e) != 0)
        return -1;
    w->done += n;
    if (w->done < w->bytes[w->current])
        return 0;
    w->done = 0;
    return pad(w, w->bytes[w->current++], e);
}

int ns_gguf_finish(ns_gguf_writer *w, ns_err *e)
{
    if (!w->started && write_head(w, e) != 0)
        return -1;
    if (w->current != w->n_tensors)
        return ns_fail(e, NS_EINVAL, "%s: tensor %zu is incomplete", w->out.path, w->current);
    return ns_outfile_commit(&w->out, e);
}
