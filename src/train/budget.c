#include "train/budget.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double DEAD_ZONE = 0.05; /* relative; as published */

/* coef x (keep of the layer) x the widths of its axes. */
struct ns_budget_term {
    int layer;     /* -1: model level */
    unsigned axes; /* bit per axis */
    double coef;
};

const char *ns_budget_target_name(ns_budget_target t)
{
    static const char *const names[] = { "active", "total", "memory" };
    return names[t];
}

int ns_budget_target_find(const char *name)
{
    for (int t = NS_BUDGET_ACTIVE; t <= NS_BUDGET_MEMORY; t++)
        if (strcmp(name, ns_budget_target_name((ns_budget_target)t)) == 0)
            return t;
    return -1;
}

ns_budget_opts ns_budget_defaults(void)
{
    return (ns_budget_opts){ .target = NS_BUDGET_ACTIVE, .profile = "bf16", .context = 131072, .batch = 1, .chunk = 16384 };
}

/* ---- expected widths ---- */

int ns_expect_init(const ns_arch *a, ns_expect *out, ns_err *e)
{
    *out = (ns_expect){ .n_layers = a->n_layers, .layer = calloc((size_t)a->n_layers, sizeof *out->layer) };
    return out->layer ? 0 : ns_fail(e, NS_ENOMEM, "out of memory");
}

void ns_expect_release(ns_expect *x)
{
    free(x->layer);
    *x = (ns_expect){ 0 };
}

void ns_expect_zero(ns_expect *x)
{
    x->hidden = 0;
    memset(x->layer, 0, (size_t)x->n_layers * sizeof *x->layer);
}

void ns_expect_set_cut(const ns_cut *c, ns_expect *x)
{
    x->hidden = ns_cut_hidden(c);
    for (int i = 0; i < x->n_layers; i++) {
        x->layer[i].keep = c->layer[i].keep;
        for (int k = 0; k < NS_AXIS_COUNT; k++)
            x->layer[i].width[k] = c->layer[i].width[k];
    }
}

/* ---- collecting terms ---- */

typedef struct profile {
    const char *name;
    double quantised, other, kv, state, buffer;
} profile;

static const profile profiles[] = {
#define X(name, quantised, other, kv, state, buffer) { name, quantised, other, kv, state, buffer },
    NS_BUDGET_PROFILES(X)
#undef X
};
static const char profile_names[] =
#define X(name, ...) " " name
    NS_BUDGET_PROFILES(X);
#undef X
enum { N_PROFILES = sizeof profiles / sizeof *profiles };

typedef struct builder {
    ns_budget *b;
    const profile *p;
    int cap;
    bool failed;
} builder;

static void add_term(builder *k, int layer, unsigned axes, double coef)
{
    ns_budget *b = k->b;
    for (int i = b->n_terms - 1; i >= 0 && b->term[i].layer == layer; i--)
        if (b->term[i].axes == axes) {
            b->term[i].coef += coef;
            return;
        }
    if (b->n_terms == k->cap) {
        int cap = 2 * k->cap + 64;
        ns_budget_term *grown = realloc(b->term, (size_t)cap * sizeof *grown);
        if (!grown) {
            k->failed = true;
            return;
        }
        b->term = grown;
        k->cap = cap;
    }
    b->term[b->n_terms++] = (ns_budget_term){ layer, axes, coef };
}

/* A product under construction: num / den is a whole number where the axes have their full widths' divisors. */
typedef struct product {
    double num, den;
    unsigned axes;
} product;

static product times_part(product x, const ns_part *p)
{
    for (int f = 0; f < p->n_factors; f++) {
        const ns_factor *fac = &p->factor[f];
        if (fac->axis == NS_AXIS_FIXED) {
            x.num *= fac->size;
            continue;
        }
        assert(!(x.axes & 1u << fac->axis)); /* an axis twice in one weight would make its square's expectation count */
        x.axes |= 1u << fac->axis;
        x.den *= fac->divide;
    }
    return x;
}

/* Adds `x` times the dimensions from `d` on, part by part. */
static void add_dims(builder *k, int layer, const ns_weight_def *w, int d, product x)
{
    if (d == w->n_dims) {
        add_term(k, layer, x.axes, x.num / x.den);
        return;
    }
    ns_dim_id id = w->dim[d];
    bool shared = w == ns_weight_get(NS_W_SHARED_UP) || w == ns_weight_get(NS_W_SHARED_DOWN);
    if (k->b->o.published && shared && id == NS_DIM_HIDDEN)
        id = NS_DIM_EXPERT_FFN;
    ns_dim dim = ns_arch_dim(k->b->arch, layer, id);
    for (int p = 0; p < dim.n_parts; p++)
        add_dims(k, layer, w, d + 1, times_part(x, &dim.part[p]));
}

static void add_weight(builder *k, int layer, ns_role r)
{
    const ns_weight_def *w = ns_weight_get(r);
    const ns_budget_opts *o = &k->b->o;
    product x = { 1, 1, 0 };
    if (o->published && (r == NS_W_GATE || r == NS_W_GATE_CORRECTION))
        return;
    if (o->target == NS_BUDGET_MEMORY)
        x.num = w->quantisable ? k->p->quantised : k->p->other;
    if (w->per_expert && o->target == NS_BUDGET_ACTIVE)
        x.num = k->b->arch->layers[layer].topk;
    else if (w->per_expert)
        x.axes = 1u << NS_AXIS_EXPERTS;
    add_dims(k, layer, w, 0, x);
}

/* Caches of a layer: what ns_cut_cost calls state_bytes and kv_bytes_per_token, at the profile's bytes. */
static void add_caches(builder *k, int layer)
{
    const ns_arch *a = k->b->arch;
    const ns_budget_opts *o = &k->b->o;
    double batch = (double)o->batch;
    if (a->layers[layer].kind == NS_LAYER_ATTENTION) {
        ns_dim kv = ns_arch_dim(a, layer, NS_DIM_KV);
        add_term(k, layer, 0, 2.0 * ns_dim_size(&kv) * (double)o->context * batch * k->p->kv);
    } else if (a->layers[layer].kind == NS_LAYER_MAMBA) {
        ns_dim conv = ns_arch_dim(a, layer, NS_DIM_CONV);
        add_term(k, layer, 1u << NS_AXIS_MAMBA_HEADS | 1u << NS_AXIS_MAMBA_HEAD_DIM | 1u << NS_AXIS_SSM_STATE, batch * k->p->state);
        for (int p = 0; p < conv.n_parts; p++) {
            product x = times_part((product){ batch * k->p->state * (a->conv_kernel - 1), 1, 0 }, &conv.part[p]);
            add_term(k, layer, x.axes, x.num / x.den);
        }
    }
}

static int check_opts(const ns_budget_opts *o, const profile **p, ns_err *e)
{
    const char *name = o->profile ? o->profile : "bf16";
    for (int i = 0; i < N_PROFILES; i++)
        if (strcmp(profiles[i].name, name) == 0)
            *p = &profiles[i];
    if (!*p)
        return ns_fail(e, NS_EINVAL, "profile \"%.40s\": there are%s", name, profile_names);
    if (o->context < 0 || o->batch < 0 || o->chunk < 0 || o->context > 1LL << 40 || o->batch > 1LL << 30 || o->chunk > 1LL << 30)
        return ns_fail(e, NS_EINVAL, "context %lld, batch %lld, chunk %lld: out of range", (long long)o->context, (long long)o->batch,
                       (long long)o->chunk);
    return 0;
}

int ns_budget_plan(const ns_arch *a, const ns_budget_opts *o, ns_budget *out, ns_err *e)
{
    ns_cut full;
    const profile *p = NULL;
    *out = (ns_budget){ .arch = a, .o = o ? *o : ns_budget_defaults() };
    if (check_opts(&out->o, &p, e) < 0)
        return -1;
    builder k = { .b = out, .p = p };
    bool memory = out->o.target == NS_BUDGET_MEMORY;
    for (int i = -1; i < a->n_layers; i++) {
        for (int r = 0; r < NS_W_COUNT; r++)
            if (ns_weight_exists(a, i, (ns_role)r))
                add_weight(&k, i, (ns_role)r);
        if (memory && i >= 0)
            add_caches(&k, i);
    }
    out->buffer_unit = memory ? (double)out->o.chunk * p->buffer : 0;
    if (k.failed)
        ns_fail(e, NS_ENOMEM, "out of memory");
    if (k.failed || ns_cut_full(a, &full, e) < 0) {
        ns_budget_release(out);
        return -1;
    }
    int rc = ns_budget_of_cut(out, &full, &out->full, e);
    ns_cut_release(&full);
    return rc;
}

void ns_budget_release(ns_budget *b)
{
    free(b->term);
    *b = (ns_budget){ 0 };
}

/* ---- cost and loss ---- */

/* The place of a factor of a term: keep, hidden, or a width. */
static double *factor_at(ns_expect *x, int layer, int axis)
{
    return axis == NS_AXIS_HIDDEN ? &x->hidden : axis == NS_AXIS_COUNT ? &x->layer[layer].keep : &x->layer[layer].width[axis];
}

static double term_cost(const ns_budget_term *t, ns_expect *x, double g, ns_expect *dx)
{
    int n = 0, axis[NS_AXIS_COUNT + 1];
    double v[NS_AXIS_COUNT + 1], value = t->coef;
    if (t->layer >= 0)
        axis[n++] = NS_AXIS_COUNT;
    for (int k = 0; k < NS_AXIS_COUNT; k++)
        if (t->axes & 1u << k)
            axis[n++] = k;
    for (int i = 0; i < n; i++)
        value *= v[i] = *factor_at(x, t->layer, axis[i]);
    for (int i = 0; dx && i < n; i++) {
        double others = t->coef;
        for (int j = 0; j < n; j++)
            others *= j == i ? 1 : v[j];
        *factor_at(dx, t->layer, axis[i]) += g * others;
    }
    return value;
}

/* The widest layer's buffer; its gradient is that layer's. */
static double buffer_cost(const ns_budget *b, const ns_expect *x, double g, ns_expect *dx)
{
    const ns_arch *a = b->arch;
    double worst = 0;
    int at = -1;
    for (int i = 0; i < a->n_layers; i++) {
        if (a->layers[i].kind != NS_LAYER_MOE)
            continue;
        double io = a->latent_size ? a->latent_size : x->hidden;
        double v = b->buffer_unit * a->layers[i].topk * x->layer[i].keep * (io + x->layer[i].width[NS_AXIS_EXPERT_FFN]);
        if (v > worst) {
            worst = v;
            at = i;
        }
    }
    if (dx && at >= 0) {
        double unit = g * b->buffer_unit * a->layers[at].topk;
        dx->layer[at].keep += g * worst / x->layer[at].keep;
        dx->layer[at].width[NS_AXIS_EXPERT_FFN] += unit * x->layer[at].keep;
        if (!a->latent_size)
            dx->hidden += unit * x->layer[at].keep;
    }
    return worst;
}

double ns_budget_cost(const ns_budget *b, const ns_expect *x, double g, ns_expect *dx)
{
    ns_expect at = *x; /* factor_at serves both reading and writing */
    double cost = 0;
    for (int i = 0; i < b->n_terms; i++)
        cost += term_cost(&b->term[i], &at, g, dx);
    return b->buffer_unit > 0 ? cost + buffer_cost(b, x, g, dx) : cost;
}

double ns_budget_loss(const ns_budget *b, const ns_expect *x, double share, double g, ns_expect *dx)
{
    double want = share * b->full, off = ns_budget_cost(b, x, 0, NULL) / want - 1;
    if (fabs(off) < DEAD_ZONE && share != 1)
        return 0;
    if (dx && off != 0)
        ns_budget_cost(b, x, (off > 0 ? g : -g) / want, dx);
    return fabs(off);
}

int ns_budget_of_cut(const ns_budget *b, const ns_cut *c, double *out, ns_err *e)
{
    ns_expect x;
    if (ns_expect_init(b->arch, &x, e) < 0)
        return -1;
    ns_expect_set_cut(c, &x);
    *out = ns_budget_cost(b, &x, 0, NULL);
    ns_expect_release(&x);
    return 0;
}
