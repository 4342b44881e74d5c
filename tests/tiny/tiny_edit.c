/* Changing a checkpoint's tensors in memory. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/writer.h"
#include "tensor/format.h"
#include "tiny/tiny.h"

static void *need(void *p)
{
    if (!p) {
        fprintf(stderr, "tiny: out of memory\n");
        abort();
    }
    return p;
}

static void die(const char *what, const char *name)
{
    fprintf(stderr, "tiny: %s: %s\n", what, name);
    abort();
}

void tiny_add(tiny_file *f, const char *name, ns_dtype dtype, int n_dims, const int64_t *shape, const void *data)
{
    tiny_tensor t = { .name = need(strdup(name)), .dtype = dtype, .n_dims = n_dims };
    if (n_dims)
        memcpy(t.shape, shape, (size_t)n_dims * sizeof *shape);
    if (ns_tensor_size(dtype, n_dims, t.shape, &t.bytes) != 0)
        die("bad shape", name);
    t.data = need(malloc(t.bytes ? t.bytes : 1));
    memcpy(t.data, data, t.bytes);
    f->t = need(realloc(f->t, (f->n + 1) * sizeof *f->t));
    f->t[f->n++] = t;
}

void tiny_load(tiny_file *f, const char *dir)
{
    ns_err e = { 0 };
    ns_store *s = ns_store_open(dir, NS_LOAD_MMAP, &e);
    *f = (tiny_file){ 0 };
    if (!s)
        die(dir, e.msg);
    for (size_t i = 0; i < ns_store_count(s); i++) {
        const ns_tensor *t = ns_store_at(s, i);
        tiny_add(f, t->name, t->dtype, t->n_dims, t->shape, t->data);
    }
    ns_store_close(s);
}

static void remove_tensors(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *ent; d && (ent = readdir(d));)
        if (strstr(ent->d_name, ".safetensors")) {
            char *path = tiny_path(dir, ent->d_name);
            unlink(path);
            free(path);
        }
    if (d)
        closedir(d);
}

void tiny_save(const tiny_file *f, const char *dir)
{
    ns_err e = { 0 };
    size_t n = 0;
    ns_tensor *t = need(calloc(f->n + 1, sizeof *t));
    for (size_t i = 0; i < f->n; i++) {
        const tiny_tensor *x = &f->t[i];
        if (!x->name)
            continue;
        t[n] = (ns_tensor){ .name = x->name, .dtype = x->dtype, .n_dims = x->n_dims, .data = x->data, .bytes = x->bytes };
        memcpy(t[n++].shape, x->shape, sizeof x->shape);
    }
    char *path = tiny_path(dir, "model.safetensors");
    remove_tensors(dir);
    if (ns_st_write_file(path, t, n, NULL, 0, &e) != 0)
        die(path, e.msg);
    free(path);
    free(t);
}

void tiny_release(tiny_file *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->t[i].name);
        free(f->t[i].data);
    }
    free(f->t);
    *f = (tiny_file){ 0 };
}

tiny_tensor *tiny_find(tiny_file *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->t[i].name && strcmp(f->t[i].name, name) == 0)
            return &f->t[i];
    die("no tensor", name);
    return NULL;
}

void tiny_drop(tiny_file *f, const char *name)
{
    tiny_tensor *t = tiny_find(f, name);
    free(t->name);
    t->name = NULL;
}

static float get(const tiny_tensor *t, size_t i)
{
    uint16_t h;
    float x;
    if (t->dtype == NS_F32) {
        memcpy(&x, t->data + 4 * i, 4);
        return x;
    }
    memcpy(&h, t->data + 2 * i, 2);
    return t->dtype == NS_F16 ? ns_f16_to_f32(h) : ns_bf16_to_f32(h);
}

static void put(ns_dtype dtype, uint8_t *out, size_t i, float x)
{
    uint16_t h = dtype == NS_F16 ? ns_f32_to_f16(x) : ns_f32_to_bf16(x);
    if (dtype == NS_F32)
        memcpy(out + 4 * i, &x, 4);
    else
        memcpy(out + 2 * i, &h, 2);
}

void tiny_cast(tiny_file *f, const char *name, ns_dtype dtype)
{
    tiny_tensor *t = tiny_find(f, name);
    const size_t n = t->bytes * 8 / ns_dtype_bits(t->dtype), bytes = n * ns_dtype_bits(dtype) / 8;
    uint8_t *out = need(malloc(bytes ? bytes : 1));
    for (size_t i = 0; i < n; i++)
        put(dtype, out, i, get(t, i));
    free(t->data);
    t->data = out;
    t->bytes = bytes;
    t->dtype = dtype;
}

void tiny_rename_prefix(tiny_file *f, const char *from, const char *to)
{
    const size_t k = strlen(from);
    for (size_t i = 0; i < f->n; i++) {
        char *old = f->t[i].name;
        if (!old || strncmp(old, from, k) != 0)
            continue;
        size_t n = strlen(old) + strlen(to) + 1;
        f->t[i].name = need(malloc(n));
        snprintf(f->t[i].name, n, "%s%s", to, old + k);
        free(old);
    }
}

/* Tensor `first` is that of expert 0: gathers those of all experts behind it into a new one, and drops them. */
static void fuse_one(tiny_file *f, size_t first, const char *glue, bool suffix)
{
    char head[256], tail[256], name[600];
    const char *number = strstr(f->t[first].name, ".experts.0.");
    int64_t shape[NS_MAX_DIMS], n = 0;
    uint8_t *data = NULL;
    snprintf(head, sizeof head, "%.*s", (int)(number - f->t[first].name), f->t[first].name);
    snprintf(tail, sizeof tail, "%s", number + strlen(".experts.0."));
    const tiny_tensor like = f->t[first];
    for (;; n++) {
        size_t i = 0;
        snprintf(name, sizeof name, "%s.experts.%d.%s", head, (int)n, tail);
        while (i < f->n && !(f->t[i].name && strcmp(f->t[i].name, name) == 0))
            i++;
        if (i == f->n)
            break;
        data = need(realloc(data, (size_t)(n + 1) * like.bytes));
        memcpy(data + (size_t)n * like.bytes, f->t[i].data, like.bytes);
        tiny_drop(f, name);
    }
    shape[0] = n;
    memcpy(shape + 1, like.shape, (size_t)like.n_dims * sizeof *shape);
    char *dot = strrchr(tail, '.'); /* "up_proj.weight" */
    *dot = '\0';
    if (strcmp(dot + 1, "weight") == 0 && !suffix)
        snprintf(name, sizeof name, "%s.experts.%s", head, tail);
    else
        snprintf(name, sizeof name, "%s.experts.%s%s%s", head, tail, strcmp(dot + 1, "weight") == 0 ? "." : glue, dot + 1);
    tiny_add(f, name, like.dtype, like.n_dims + 1, shape, data);
    free(data);
}

void tiny_fuse(tiny_file *f, const char *glue, bool suffix)
{
    const size_t n = f->n;
    for (size_t i = 0; i < n; i++)
        if (f->t[i].name && strstr(f->t[i].name, ".experts.0."))
            fuse_one(f, i, glue, suffix);
}
