/* A dimension of a weight, cut: which ranges of its indices stay. */
#include "nest/cut.h"

static int live_of(const ns_cut *c, int layer, const ns_factor *f)
{
    if (f->axis == NS_AXIS_FIXED)
        return f->size;
    if (layer < 0) /* model-level weights know no other axis */
        return f->axis == NS_AXIS_HIDDEN ? ns_cut_hidden(c) : f->size;
    return c->layer[layer].width[f->axis] / f->divide;
}

int ns_cut_dim(const ns_arch *a, const ns_cut *c, int layer, ns_dim_id id)
{
    ns_dim d = ns_arch_dim(a, layer, id);
    int total = 0;
    for (int p = 0; p < d.n_parts; p++) {
        int n = 1;
        for (int f = 0; f < d.part[p].n_factors; f++)
            n *= live_of(c, layer, &d.part[p].factor[f]);
        total += n;
    }
    return total;
}

/* Appends a run to `out`; with out->seg NULL it only counts. `end` is where the last run ended. */
static void add_run(ns_segs *out, int *end, int off, int len)
{
    if (len == 0)
        return;
    if (out->n > 0 && *end == off) {
        if (out->seg)
            out->seg[out->n - 1].len += len;
    } else {
        if (out->seg)
            out->seg[out->n] = (ns_seg){ off, len };
        out->n++;
    }
    *end = off + len;
    out->total += len;
}

/* The runs of one part that starts at `base`. Factors from `k` on that are whole make one run with the one before them. */
static void walk_part(const ns_part *p, const int *live, int base, ns_segs *out, int *end)
{
    int k = p->n_factors, inner = 1, outer = 1, index[3] = { 0 };
    while (k > 1 && live[k - 1] == p->factor[k - 1].size)
        inner *= p->factor[--k].size;
    for (int f = 0; f < k - 1; f++)
        outer *= live[f];
    for (int i = 0; i < outer; i++) {
        int at = 0;
        for (int f = 0; f < k - 1; f++)
            at = at * p->factor[f].size + index[f];
        add_run(out, end, base + at * p->factor[k - 1].size * inner, live[k - 1] * inner);
        for (int f = k - 2; f >= 0 && ++index[f] == live[f]; f--)
            index[f] = 0;
    }
}

static void walk(const ns_cut *c, int layer, const ns_dim *d, ns_segs *out)
{
    int base = 0, end = -1;
    out->n = out->total = 0;
    for (int p = 0; p < d->n_parts; p++) {
        int live[3] = { 0 }, size = 1;
        for (int f = 0; f < d->part[p].n_factors; f++) {
            live[f] = live_of(c, layer, &d->part[p].factor[f]);
            size *= d->part[p].factor[f].size;
        }
        walk_part(&d->part[p], live, base, out, &end);
        base += size;
    }
}

int ns_cut_segments(const ns_arch *a, const ns_cut *c, int layer, ns_dim_id id, ns_arena *arena, ns_segs *out)
{
    ns_dim d = ns_arch_dim(a, layer, id);
    *out = (ns_segs){ 0 };
    walk(c, layer, &d, out);
    if (out->n == 0)
        return 0;
    out->seg = ns_arena_array(arena, (size_t)out->n, sizeof *out->seg);
    if (!out->seg)
        return -1;
    walk(c, layer, &d, out);
    return 0;
}
