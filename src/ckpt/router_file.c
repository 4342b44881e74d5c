#include "ckpt/router_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "store/writer.h"

/* One of the router's matrices. */
typedef struct part {
    char name[64];
    int64_t shape[2];
    size_t off, count;
} part;

static part part_of(const ns_router *r, int axis, int which)
{
    const ns_router_axis *x = &r->axis[axis];
    part p = { .off = which == 1 ? x->fc1 : x->fc2 };
    p.shape[0] = which == 1 ? r->inner : (int64_t)x->n_slots * x->n_choices;
    p.shape[1] = which == 1 ? r->n_budgets : r->inner;
    p.count = (size_t)(p.shape[0] * p.shape[1]);
    snprintf(p.name, sizeof p.name, "%s.fc%d.weight", ns_router_axis_name(x), which);
    return p;
}

static int read_part(ns_router *r, const ns_store *st, const part *p, ns_err *e)
{
    const ns_tensor *t = ns_store_find(st, p->name);
    if (!t)
        return ns_fail(e, NS_EFORMAT, "tensor %s is missing", p->name);
    if (t->dtype != NS_F32 || t->n_dims != 2 || t->shape[0] != p->shape[0] || t->shape[1] != p->shape[1]) {
        ns_buf is = { 0 };
        ns_tensor_print(t, &is);
        ns_fail(e, NS_EFORMAT, "tensor %s: %s, expected F32 [%lld, %lld]", p->name, is.data ? is.data : "?", (long long)p->shape[0],
                (long long)p->shape[1]);
        ns_buf_release(&is);
        return -1;
    }
    for (size_t i = 0; i < p->count; i++) {
        float v;
        memcpy(&v, t->data + i * sizeof v, sizeof v);
        if (!isfinite(v))
            return ns_fail(e, NS_EFORMAT, "tensor %s: element %zu is %s", p->name, i, isnan(v) ? "NaN" : "infinite");
        r->w[p->off + i] = (double)v;
    }
    return 0;
}

static bool is_known(const ns_router *r, const char *name)
{
    for (int k = 0; k < 2 * r->n_axes; k++) {
        part p = part_of(r, k / 2, 1 + k % 2);
        if (strcmp(p.name, name) == 0)
            return true;
    }
    return false;
}

int ns_router_read(ns_router *r, const char *path, ns_err *e)
{
    ns_store *st = ns_store_open(path, NS_LOAD_MMAP, e);
    int rc = st ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < ns_store_count(st); i++)
        if (!is_known(r, ns_store_at(st, i)->name))
            rc = ns_fail(e, NS_EFORMAT, "%s: tensor %s: the router of nest.json has no such part", path, ns_store_at(st, i)->name);
    for (int k = 0; rc == 0 && k < 2 * r->n_axes; k++) {
        part p = part_of(r, k / 2, 1 + k % 2);
        rc = read_part(r, st, &p, e) == 0 ? 0 : ns_err_wrap(e, "%s", path);
    }
    r->has_weights = rc == 0;
    ns_store_close(st);
    return rc;
}

void ns_router_round(ns_router *r)
{
    for (size_t i = 0; i < r->count; i++)
        r->w[i] = (double)(float)r->w[i];
}

int ns_router_write(const ns_router *r, const char *path, ns_err *e)
{
    size_t n = 2 * (size_t)r->n_axes;
    float *w = malloc(r->count * sizeof *w);
    ns_tensor *t = calloc(n, sizeof *t);
    part *p = calloc(n, sizeof *p);
    int rc = -1;
    if (!w || !t || !p) {
        ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
        goto out;
    }
    for (size_t i = 0; i < r->count; i++)
        w[i] = (float)r->w[i];
    for (size_t k = 0; k < n; k++) {
        p[k] = part_of(r, (int)(k / 2), 1 + (int)(k % 2));
        t[k] = (ns_tensor){ .name = p[k].name, .dtype = NS_F32, .n_dims = 2, .shape = { p[k].shape[0], p[k].shape[1] },
                            .data = (const uint8_t *)(w + p[k].off), .bytes = p[k].count * sizeof *w };
    }
    rc = ns_st_write_file(path, t, n, NULL, 0, e);
out:
    free(w);
    free(t);
    free(p);
    return rc;
}
