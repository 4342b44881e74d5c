#include "store/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

enum { HEADER_LIMIT = 100000000, MAX_SHARDS = 99999, NAME_BYTES = 48 };

static const ns_st_meta default_meta[] = { { "format", "pt" } };

struct ns_writer {
    char *dir;
    ns_writer_options o;
    ns_tensor *tensors; /* name, dtype, shape, bytes, shard; name is in the arena */
    size_t n, cap;
    size_t total, done;
    size_t next; /* the tensor that may begin now */
    size_t left; /* bytes missing in the tensor before it */
    int n_shards; /* 0 until planned */
    int opened;   /* shards opened so far; the last of them is `out` */
    ns_outfile out;
    ns_arena mem;
};

ns_writer_options ns_writer_defaults(void)
{
    return (ns_writer_options){ .max_shard_bytes = 5000000000, .meta = default_meta, .n_meta = 1 };
}

static int no_memory(const char *what, ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "%s: out of memory", what);
}

/* ---- the header ------------------------------------------------------------------------------------------------- */

/* -1 when s is not UTF-8 (or memory is out): then it has no JSON form. */
static int add_string(ns_buf *b, const char *s)
{
    json_t *v = json_string(s);
    char *text = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    if (text)
        ns_buf_adds(b, text);
    free(text);
    json_decref(v);
    return text ? 0 : -1;
}

static int add_meta(ns_buf *b, const ns_st_meta *meta, size_t n, const char *what, ns_err *e)
{
    ns_buf_adds(b, "\"__metadata__\":{");
    for (size_t i = 0; i < n; i++) {
        if (i)
            ns_buf_addc(b, ',');
        if (add_string(b, meta[i].key) != 0)
            return ns_fail(e, NS_EINVAL, "%s: __metadata__: a key is not UTF-8", what);
        ns_buf_addc(b, ':');
        if (add_string(b, meta[i].value) != 0)
            return ns_fail(e, NS_EINVAL, "%s: __metadata__: \"%.200s\" is not UTF-8", what, meta[i].key);
    }
    ns_buf_addc(b, '}');
    return 0;
}

static int add_tensor(ns_buf *b, const ns_tensor *t, size_t *at, const char *what, ns_err *e)
{
    if (add_string(b, t->name) != 0)
        return ns_fail(e, NS_EINVAL, "%s: a tensor's name is not UTF-8", what);
    ns_buf_addf(b, ":{\"dtype\":\"%s\",\"shape\":[", ns_dtype_name(t->dtype));
    for (int d = 0; d < t->n_dims; d++)
        ns_buf_addf(b, "%s%lld", d ? "," : "", (long long)t->shape[d]);
    ns_buf_addf(b, "],\"data_offsets\":[%zu,%zu]}", *at, *at + t->bytes);
    *at += t->bytes;
    return 0;
}

/* The length word and the JSON, padded with spaces so that the data starts at a multiple of 8. */
static int build_header(ns_buf *b, const ns_tensor *t, size_t n, const ns_st_meta *meta, size_t n_meta, const char *what, ns_err *e)
{
    size_t at = 0;
    ns_buf_add(b, "\0\0\0\0\0\0\0\0{", 9);
    if (n_meta && add_meta(b, meta, n_meta, what, e) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (i || n_meta)
            ns_buf_addc(b, ',');
        if (add_tensor(b, &t[i], &at, what, e) != 0)
            return -1;
    }
    ns_buf_addc(b, '}');
    while (!b->failed && b->len % 8)
        ns_buf_addc(b, ' ');
    if (b->failed)
        return no_memory(what, e);
    if (b->len - 8 > HEADER_LIMIT)
        return ns_fail(e, NS_EUNSUPPORTED, "%s: the header would exceed %d bytes", what, HEADER_LIMIT);
    for (int i = 0; i < 8; i++)
        b->data[i] = (char)((b->len - 8) >> 8 * i & 255);
    return 0;
}

static int write_header(ns_outfile *o, const ns_tensor *t, size_t n, const ns_st_meta *meta, size_t n_meta, ns_err *e)
{
    ns_buf b = { 0 };
    int rc = build_header(&b, t, n, meta, n_meta, o->path, e);
    if (rc == 0)
        rc = ns_outfile_write(o, b.data, b.len, e);
    ns_buf_release(&b);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names(const ns_tensor *t, size_t n, const char *what, ns_err *e)
{
    const char **names = malloc((n ? n : 1) * sizeof *names);
    int rc = 0;
    if (!names)
        return no_memory(what, e);
    for (size_t i = 0; i < n; i++)
        names[i] = t[i].name;
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 1; rc == 0 && i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            rc = ns_fail(e, NS_EINVAL, "%s: tensor \"%.200s\" is declared twice", what, names[i]);
    free(names);
    return rc;
}

/* Fills t->bytes. */
static int check_tensor(ns_tensor *t, const char *what, ns_err *e)
{
    if (strcmp(t->name, "__metadata__") == 0)
        return ns_fail(e, NS_EINVAL, "%s: a tensor cannot be named __metadata__", what);
    if (t->n_dims < 0 || t->n_dims > NS_MAX_DIMS)
        return ns_fail(e, NS_EINVAL, "%s: tensor \"%.200s\": %d dimensions", what, t->name, t->n_dims);
    if (ns_tensor_size(t->dtype, t->n_dims, t->shape, &t->bytes) != 0)
        return ns_fail(e, NS_EINVAL, "%s: tensor \"%.200s\": %s of this shape cannot be stored", what, t->name,
                       ns_dtype_name(t->dtype));
    return 0;
}

/* ---- the folder ------------------------------------------------------------------------------------------------- */

ns_writer *ns_writer_new(const char *dir, const ns_writer_options *o, ns_err *e)
{
    ns_writer *w = calloc(1, sizeof *w);
    if (w) {
        w->o = o ? *o : ns_writer_defaults();
        w->dir = strdup(dir);
    }
    if (!w || !w->dir) {
        no_memory(dir, e);
        ns_writer_free(w);
        return NULL;
    }
    return w;
}

void ns_writer_free(ns_writer *w)
{
    if (!w)
        return;
    ns_outfile_release(&w->out);
    ns_arena_release(&w->mem);
    free(w->tensors);
    free(w->dir);
    free(w);
}

size_t ns_writer_total(const ns_writer *w)
{
    return w->total;
}

static int grow(ns_writer *w, ns_err *e)
{
    if (w->n < w->cap)
        return 0;
    size_t cap = w->cap ? 2 * w->cap : 256;
    ns_tensor *p = realloc(w->tensors, cap * sizeof *p);
    if (!p)
        return no_memory(w->dir, e);
    w->tensors = p;
    w->cap = cap;
    return 0;
}

int ns_writer_declare(ns_writer *w, const char *name, ns_dtype dtype, int n_dims, const int64_t *shape, ns_err *e)
{
    ns_tensor t = { .name = name, .dtype = dtype, .n_dims = n_dims };
    if (w->n_shards)
        return ns_fail(e, NS_EINVAL, "%s: tensor \"%.200s\" is declared after writing began", w->dir, name);
    if (n_dims > 0 && n_dims <= NS_MAX_DIMS)
        memcpy(t.shape, shape, (size_t)n_dims * sizeof *shape);
    if (check_tensor(&t, w->dir, e) != 0 || grow(w, e) != 0)
        return -1;
    if (t.bytes > INT64_MAX - w->total)
        return ns_fail(e, NS_EINVAL, "%s: tensor \"%.200s\": the total size overflows", w->dir, name);
    t.name = ns_arena_strdup(&w->mem, name);
    if (!t.name)
        return no_memory(w->dir, e);
    w->total += t.bytes;
    w->tensors[w->n++] = t;
    return 0;
}

/* Greedy in declared order, as huggingface_hub splits a state dict. */
static int plan(ns_writer *w, ns_err *e)
{
    size_t fill = 0;
    int shard = 0;
    if (check_names(w->tensors, w->n, w->dir, e) != 0)
        return -1;
    for (size_t i = 0; i < w->n; i++) {
        size_t bytes = w->tensors[i].bytes;
        if (fill && (bytes > w->o.max_shard_bytes || fill > w->o.max_shard_bytes - bytes)) {
            shard++;
            fill = 0;
        }
        fill += bytes;
        w->tensors[i].shard = shard;
    }
    if (shard >= MAX_SHARDS)
        return ns_fail(e, NS_EINVAL, "%s: more than %d shards", w->dir, MAX_SHARDS);
    w->n_shards = shard + 1;
    return 0;
}

static void shard_name(const ns_writer *w, int shard, char out[NAME_BYTES])
{
    if (w->n_shards == 1)
        snprintf(out, NAME_BYTES, "model.safetensors");
    else
        snprintf(out, NAME_BYTES, "model-%05d-of-%05d.safetensors", shard + 1, w->n_shards);
}

/* Completes the open shard, if any, and starts the next; tensor w->next is its first. */
static int next_shard(ns_writer *w, ns_err *e)
{
    char name[NAME_BYTES];
    ns_buf path = { 0 };
    size_t end = w->next;
    if (w->out.f && ns_outfile_commit(&w->out, e) != 0)
        return -1;
    while (end < w->n && w->tensors[end].shard == w->opened)
        end++;
    shard_name(w, w->opened, name);
    int rc = ns_outfile_open(&w->out, ns_path_join(&path, w->dir, name), e);
    if (rc == 0)
        rc = write_header(&w->out, w->tensors + w->next, end - w->next, w->o.meta, w->o.n_meta, e);
    if (rc == 0)
        w->opened++;
    else
        ns_outfile_release(&w->out);
    ns_buf_release(&path);
    return rc;
}

static int check_complete(const ns_writer *w, ns_err *e)
{
    if (w->left == 0)
        return 0;
    return ns_fail(e, NS_EINVAL, "%s: tensor \"%.200s\" still lacks %zu bytes", w->dir, w->tensors[w->next - 1].name, w->left);
}

int ns_writer_tensor_begin(ns_writer *w, size_t i, ns_err *e)
{
    if (check_complete(w, e) != 0)
        return -1;
    if (i != w->next || i >= w->n)
        return ns_fail(e, NS_EINVAL, "%s: tensor %zu of %zu begins out of turn, %zu is next", w->dir, i, w->n, w->next);
    if (!w->n_shards && plan(w, e) != 0)
        return -1;
    if (w->tensors[i].shard == w->opened && next_shard(w, e) != 0)
        return -1;
    w->left = w->tensors[i].bytes;
    w->next++;
    return 0;
}

int ns_writer_append(ns_writer *w, const void *p, size_t n, ns_err *e)
{
    if (n > w->left)
        return ns_fail(e, NS_EINVAL, "%s: tensor \"%.200s\" gets %zu bytes more than declared", w->dir,
                       w->next ? w->tensors[w->next - 1].name : "", n - w->left);
    if (n && ns_outfile_write(&w->out, p, n, e) != 0)
        return -1;
    w->left -= n;
    w->done += n;
    if (w->o.progress)
        w->o.progress(w->o.ctx, w->done, w->total);
    return 0;
}

/* The index as transformers writes it: two spaces, sorted keys, a final newline. */
static int write_index(const ns_writer *w, ns_err *e)
{
    char shard[NAME_BYTES];
    ns_buf path = { 0 };
    int rc = -1;
    json_t *map = json_object(), *index = json_pack("{s:{s:I}}", "metadata", "total_size", (json_int_t)w->total);
    char *text = NULL;
    if (!map || !index)
        goto out;
    for (size_t i = 0; i < w->n; i++) {
        shard_name(w, w->tensors[i].shard, shard);
        if (json_object_set_new(map, w->tensors[i].name, json_string(shard)) != 0)
            goto out;
    }
    if (json_object_set(index, "weight_map", map) != 0)
        goto out;
    text = json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS);
    size_t len = text ? strlen(text) : 0;
    if (!text)
        goto out;
    text[len] = '\n'; /* in the terminator's place: the text is written by length */
    rc = ns_file_write(ns_path_join(&path, w->dir, "model.safetensors.index.json"), text, len + 1, e);
out:
    if (rc != 0)
        ns_fail(e, NS_ENOMEM, "%s: index: out of memory", w->dir); /* unless an error is set already */
    free(text);
    json_decref(map);
    json_decref(index);
    ns_buf_release(&path);
    return rc;
}

int ns_writer_finish(ns_writer *w, ns_err *e)
{
    if (check_complete(w, e) != 0)
        return -1;
    if (w->next != w->n)
        return ns_fail(e, NS_EINVAL, "%s: tensor \"%.200s\" was declared but not written", w->dir, w->tensors[w->next].name);
    if (!w->n_shards && (plan(w, e) != 0 || next_shard(w, e) != 0))
        return -1; /* no tensors at all */
    if (!w->out.f)
        return ns_fail(e, NS_EINVAL, "%s: finished already", w->dir);
    if (ns_outfile_commit(&w->out, e) != 0)
        return -1;
    return w->n_shards > 1 ? write_index(w, e) : 0;
}

/* ---- one file --------------------------------------------------------------------------------------------------- */

static int write_tensors(ns_outfile *o, ns_tensor *t, size_t n, const ns_st_meta *meta, size_t n_meta, ns_err *e)
{
    for (size_t i = 0; i < n; i++)
        if (check_tensor(&t[i], o->path, e) != 0)
            return -1;
    if (check_names(t, n, o->path, e) != 0 || write_header(o, t, n, meta, n_meta, e) != 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (ns_outfile_write(o, t[i].data, t[i].bytes, e) != 0)
            return -1;
    return 0;
}

int ns_st_write_file(const char *path, const ns_tensor *tensors, size_t n, const ns_st_meta *meta, size_t n_meta, ns_err *e)
{
    ns_outfile o = { 0 };
    ns_tensor *t = malloc((n ? n : 1) * sizeof *t); /* a copy: the bytes are computed, not trusted */
    if (!t)
        return no_memory(path, e);
    if (n)
        memcpy(t, tensors, n * sizeof *t);
    int rc = ns_outfile_open(&o, path, e);
    if (rc == 0)
        rc = write_tensors(&o, t, n, meta, n_meta, e);
    if (rc == 0)
        rc = ns_outfile_commit(&o, e);
    ns_outfile_release(&o);
    free(t);
    return rc;
}
