#include "block/mask.h"

#include <string.h>

/* Widths move inside groups: a prefix of every group stays. */
static int groups_of(const ns_arch *a, ns_axis x)
{
    return x == NS_AXIS_MAMBA_HEADS ? a->n_groups : x == NS_AXIS_ATTN_HEADS ? a->n_kv_heads : x == NS_AXIS_EXPERTS ? a->n_group : 1;
}

static int full_of(const ns_arch *a, int layer, ns_axis x)
{
    return x == NS_AXIS_HIDDEN ? a->hidden_size : a->layers[layer].width[x];
}

/* Axes whose products shrink with the width. */
static bool shrinks(ns_axis x)
{
    return x == NS_AXIS_HIDDEN || x == NS_AXIS_EXPERT_FFN || x == NS_AXIS_SHARED_FFN || x == NS_AXIS_DENSE_FFN;
}

static ns_axis_mask *axis_of(ns_net_mask *m, int layer, ns_axis x)
{
    return layer < 0 ? &m->hidden : &m->layer[layer].axis[x];
}

/* ---- arrays ---- */

static bool init_axis(ns_net_mask *out, ns_axis_mask *m, int full)
{
    if (full == 0)
        return true;
    m->m = ns_arena_array(&out->arena, (size_t)full, sizeof *m->m);
    m->dm = ns_arena_array(&out->arena, (size_t)full, sizeof *m->dm);
    m->live = m->full = full;
    for (int i = 0; m->m && i < full; i++)
        m->m[i] = 1;
    return m->m && m->dm;
}

int ns_mask_init(const ns_arch *a, ns_net_mask *out, ns_err *e)
{
    *out = (ns_net_mask){ .n_layers = a->n_layers, .norm = { .eps_factor = 1, .scale = 1 } };
    out->layer = ns_arena_array(&out->arena, (size_t)a->n_layers, sizeof *out->layer);
    bool ok = out->layer && init_axis(out, &out->hidden, a->hidden_size);
    for (int i = 0; ok && i < a->n_layers; i++) {
        out->layer[i].keep = out->layer[i].gated.eps_factor = out->layer[i].gated.scale = 1;
        for (int x = NS_AXIS_HIDDEN + 1; ok && x < NS_AXIS_COUNT; x++)
            ok = init_axis(out, &out->layer[i].axis[x], a->layers[i].width[x]);
    }
    if (ok)
        return 0;
    ns_mask_release(out);
    return ns_fail(e, NS_ENOMEM, "a mask: out of memory");
}

void ns_mask_release(ns_net_mask *m)
{
    if (!m)
        return;
    ns_arena_release(&m->arena);
    *m = (ns_net_mask){ 0 };
}

/* ---- values ---- */

/* Is entry i in the prefix of this width? */
static bool in_prefix(int i, int width, int full, int groups)
{
    return i % (full / groups) < width / groups;
}

static void set_axis(ns_axis_mask *m, ns_axis x, int full, int groups, int n, const int *width, const ns_real *p)
{
    /* up to the widest choice, even where its share is 0: the gradient of the share needs the entries */
    m->live = shrinks(x) ? 0 : full;
    for (int j = 0; j < n; j++)
        m->live = m->live < width[j] ? width[j] : m->live;
    for (int i = 0; m->m && i < full; i++) {
        m->m[i] = 0;
        for (int j = 0; j < n; j++)
            m->m[i] += in_prefix(i, width[j], full, groups) ? p[j] : 0;
    }
}

/* The corrections that the norm over a masked axis needs: the expectations of d/D and sqrt(d/D). The mask falls from 1 to 0 inside
 * each group, and m[k-1] - m[k] is the share of the width k; so they follow from the array, and for ones and zeros exactly. */
typedef struct correction {
    double eps, scale;
} correction;

static correction correction_of(const ns_axis_mask *m, int full, int groups)
{
    const int n = full / groups;
    correction c = { 0, 0 };
    if (!m->m)
        return (correction){ 1, 1 };
    for (int k = 1; k <= n; k++) {
        double share = (double)m->m[k - 1] - (k < n ? (double)m->m[k] : 0), part = (double)k / n;
        c.eps += share * part;
        c.scale += share * sqrt(part);
    }
    return c;
}

static void correct_hidden(const ns_arch *a, ns_net_mask *m)
{
    correction c = correction_of(&m->hidden, a->hidden_size, 1);
    m->norm.eps_factor = (ns_real)c.eps;
    m->norm.scale = (ns_real)c.scale;
}

static correction correction_in(const ns_arch *a, const ns_net_mask *m, int layer, ns_axis x)
{
    return correction_of(&m->layer[layer].axis[x], a->layers[layer].width[x], groups_of(a, x));
}

static void correct_gated(const ns_arch *a, ns_net_mask *m, int layer)
{
    correction heads = correction_in(a, m, layer, NS_AXIS_MAMBA_HEADS), dims = correction_in(a, m, layer, NS_AXIS_MAMBA_HEAD_DIM);
    m->layer[layer].gated.eps_factor = (ns_real)(heads.eps * dims.eps);
    m->layer[layer].gated.scale = (ns_real)(heads.scale * dims.scale);
}

void ns_mask_set_soft(const ns_arch *a, ns_net_mask *m, int layer, ns_axis x, int n, const int *width, const ns_real *p)
{
    set_axis(axis_of(m, layer, x), x, full_of(a, layer, x), groups_of(a, x), n, width, p);
    if (x == NS_AXIS_HIDDEN)
        correct_hidden(a, m);
    else if (x == NS_AXIS_MAMBA_HEADS || x == NS_AXIS_MAMBA_HEAD_DIM)
        correct_gated(a, m, layer);
}

void ns_mask_set_cut(const ns_arch *a, const ns_cut *c, ns_net_mask *m)
{
    const ns_real one = 1;
    ns_mask_set_soft(a, m, -1, NS_AXIS_HIDDEN, 1, &(int){ ns_cut_hidden(c) }, &one);
    for (int i = 0; i < a->n_layers; i++) {
        m->layer[i].keep = c->layer[i].keep;
        for (int x = NS_AXIS_HIDDEN + 1; x < NS_AXIS_COUNT; x++) {
            const int full = a->layers[i].width[x];
            if (full) /* the widths of a dropped layer mean nothing */
                ns_mask_set_soft(a, m, i, (ns_axis)x, 1, c->layer[i].keep ? &c->layer[i].width[x] : &full, &one);
        }
    }
}

/* ---- gradients ---- */

void ns_mask_soft_backward(const ns_arch *a, const ns_net_mask *m, int layer, ns_axis x, int n, const int *width, const ns_real *p,
                           ns_real *dp)
{
    const ns_axis_mask *am = layer < 0 ? &m->hidden : &m->layer[layer].axis[x];
    const int full = full_of(a, layer, x), groups = groups_of(a, x);
    const bool heads = x == NS_AXIS_MAMBA_HEADS, dims = x == NS_AXIS_MAMBA_HEAD_DIM;
    const ns_norm_mask none = { 0 }, *norm = x == NS_AXIS_HIDDEN ? &m->norm : heads || dims ? &m->layer[layer].gated : &none;
    correction other = { 1, 1 }; /* the gated norm's corrections are products of both axes' */
    (void)p; /* everything is linear in it */
    if (heads || dims)
        other = correction_in(a, m, layer, heads ? NS_AXIS_MAMBA_HEAD_DIM : NS_AXIS_MAMBA_HEADS);
    for (int j = 0; j < n; j++) {
        const double part = (double)(width[j] / groups) / (full / groups);
        double sum = (double)norm->d_eps_factor * part * other.eps + (double)norm->d_scale * sqrt(part) * other.scale;
        for (int i = 0; am->dm && i < full; i++)
            sum += in_prefix(i, width[j], full, groups) ? (double)am->dm[i] : 0;
        dp[j] += (ns_real)sum;
    }
}

/* The i-th array of a mask: HIDDEN, then the axes of every layer. */
static const ns_axis_mask *array_at(const ns_net_mask *m, int i)
{
    return i == 0 ? &m->hidden : &m->layer[(i - 1) / NS_AXIS_COUNT].axis[(i - 1) % NS_AXIS_COUNT];
}

static int n_arrays(const ns_net_mask *m)
{
    return 1 + m->n_layers * NS_AXIS_COUNT;
}

static void add_norm(ns_norm_mask *to, const ns_norm_mask *from)
{
    to->d_eps_factor += from->d_eps_factor;
    to->d_scale += from->d_scale;
}

void ns_mask_zero_grad(ns_net_mask *m)
{
    for (int i = 0; i < n_arrays(m); i++) {
        const ns_axis_mask *x = array_at(m, i);
        if (x->dm)
            memset(x->dm, 0, (size_t)x->full * sizeof *x->dm);
    }
    m->norm.d_eps_factor = m->norm.d_scale = 0;
    for (int i = 0; i < m->n_layers; i++)
        m->layer[i].d_keep = m->layer[i].gated.d_eps_factor = m->layer[i].gated.d_scale = 0;
}

void ns_mask_add_grad(ns_net_mask *to, const ns_net_mask *from)
{
    for (int i = 0; i < n_arrays(to); i++) {
        const ns_axis_mask *t = array_at(to, i), *f = array_at(from, i);
        for (int j = 0; t->dm && f->dm && j < t->full; j++)
            t->dm[j] += f->dm[j];
    }
    add_norm(&to->norm, &from->norm);
    for (int i = 0; i < to->n_layers; i++) {
        to->layer[i].d_keep += from->layer[i].d_keep;
        add_norm(&to->layer[i].gated, &from->layer[i].gated);
    }
}

static void copy_axis(ns_axis_mask *to, const ns_axis_mask *from)
{
    to->live = from->live;
    if (to->m && from->m)
        memcpy(to->m, from->m, (size_t)to->full * sizeof *to->m);
}

static void copy_norm(ns_norm_mask *to, const ns_norm_mask *from)
{
    to->eps_factor = from->eps_factor;
    to->scale = from->scale;
}

void ns_mask_copy(ns_net_mask *to, const ns_net_mask *from)
{
    copy_axis(&to->hidden, &from->hidden);
    copy_norm(&to->norm, &from->norm);
    for (int i = 0; i < to->n_layers; i++) {
        ns_layer_mask *t = &to->layer[i];
        t->keep = from->layer[i].keep;
        t->want_keep = from->layer[i].want_keep;
        copy_norm(&t->gated, &from->layer[i].gated);
        for (int x = 0; x < NS_AXIS_COUNT; x++)
            copy_axis(&t->axis[x], &from->layer[i].axis[x]);
    }
}
