/* What gradient tests share: random parameters of a tiny architecture in double, and directional finite differences. */
#ifndef GRAD_FIXTURE_H
#define GRAD_FIXTURE_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "block/net.h"
#include "tiny/tiny.h"

typedef struct fixture {
    ns_arch *arch;
    ns_params p;
    ns_blas *blas;
    ns_real *w, *g; /* [p.count] */
    ns_rng r;
} fixture;

static inline ns_real *reals(size_t n)
{
    ns_real *x = calloc(n ? n : 1, sizeof *x);
    assert_non_null(x);
    return x;
}

static inline ns_real *normals(ns_rng *r, size_t n, double scale)
{
    ns_real *x = reals(n);
    for (size_t i = 0; i < n; i++)
        x[i] = (ns_real)(scale * ns_rng_normal(r));
    return x;
}

/* Values at which every part matters: nothing vanishes, nothing saturates. */
static inline void fill_param(const ns_param *p, ns_rng *r, ns_real *w)
{
    for (size_t i = 0; i < p->count; i++) {
        double z = ns_rng_normal(r);
        switch (p->role) {
        case NS_W_NORM:
        case NS_W_GATED_NORM:
        case NS_W_FINAL_NORM:
        case NS_W_D: w[i] = (ns_real)(1 + 0.1 * z); break;
        case NS_W_A_LOG: w[i] = (ns_real)(0.5 * z); break;
        case NS_W_DT_BIAS: w[i] = (ns_real)(-1 + 0.5 * z); break;
        case NS_W_CONV: w[i] = (ns_real)(0.5 * z); break;
        case NS_W_GATE_CORRECTION: w[i] = (ns_real)(0.05 * z); break;
        default: w[i] = (ns_real)(p->matrix ? z / sqrt(p->cols) : 0.1 * z); break;
        }
    }
}

/* Takes the architecture over. */
static inline void fixture_init(fixture *f, ns_arch *arch, uint64_t seed)
{
    ns_err e = { 0 };
    assert_non_null(arch);
    *f = (fixture){ .arch = arch, .blas = ns_blas_open(&e) };
    if (!f->blas || ns_params_plan(f->arch, &f->p, &e) != 0)
        fail_msg("%s", e.msg);
    ns_rng_init(&f->r, seed);
    f->w = reals(f->p.count);
    f->g = reals(f->p.count);
    for (int i = 0; i < f->p.n; i++)
        fill_param(&f->p.p[i], &f->r, f->w + f->p.p[i].off);
}

static inline void fixture_open(fixture *f, const tiny_opts *o)
{
    ns_err e = { 0 };
    char *path = tiny_path(tiny_base, "config.json");
    assert_int_equal(tiny_config(path, o), 0);
    fixture_init(f, ns_arch_open(path, &e), o->seed);
    free(path);
}

static inline void fixture_close(fixture *f)
{
    free(f->w);
    free(f->g);
    ns_params_release(&f->p);
    ns_blas_close(f->blas);
    ns_arch_free(f->arch);
}

/* A random mask in (0.4, 1) with the FFN axes and hidden cut to `part` of their width, and some experts out. */
static inline void random_axis(ns_axis_mask *m, ns_rng *r, double part)
{
    m->live = (int)(part * m->full);
    for (int i = 0; i < m->full; i++)
        m->m[i] = i < m->live ? (ns_real)(0.4 + 0.6 * ns_rng_uniform(r)) : 0;
}

static inline void random_layer_mask(const ns_arch *a, int layer, ns_layer_mask *m, ns_rng *r)
{
    for (int x = NS_AXIS_HIDDEN + 1; x < NS_AXIS_COUNT; x++)
        if (m->axis[x].m)
            random_axis(&m->axis[x], r, x == NS_AXIS_EXPERT_FFN || x == NS_AXIS_SHARED_FFN || x == NS_AXIS_DENSE_FFN ? 0.75 : 1);
    ns_axis_mask *experts = &m->axis[NS_AXIS_EXPERTS];
    for (int i = 0; experts->m && i < experts->full; i += experts->full / a->n_group)
        experts->m[i + experts->full / a->n_group - 1] = 0; /* the last of each group */
    m->gated.eps_factor = (ns_real)0.7;
    m->gated.scale = (ns_real)0.8;
    m->keep = layer % 2 ? (ns_real)0.6 : 1;
}

/* ---- finite differences ---- */

typedef double value_fn(void *ctx);

enum { ONLY_NONZERO = 1 };

/* Compares sum_i d_i grad_i with the central difference of f along a random d over x's n entries. */
static inline void check_direction(const char *what, ns_real *x, const ns_real *grad, size_t n, int flags, ns_rng *r, value_fn *f,
                                   void *ctx)
{
    const double h = 1e-6;
    double want = 0, size = 0;
    ns_real *x0 = reals(n), *d = normals(r, n, 1);
    memcpy(x0, x, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        if ((flags & ONLY_NONZERO) && x[i] == 0)
            d[i] = 0;
        want += (double)(d[i] * grad[i]);
        size += fabs((double)(d[i] * grad[i]));
        x[i] = x0[i] + (ns_real)h * d[i];
    }
    const double up = f(ctx);
    for (size_t i = 0; i < n; i++)
        x[i] = x0[i] - (ns_real)h * d[i];
    const double down = f(ctx), got = (up - down) / (2 * h);
    memcpy(x, x0, n * sizeof *x);
    free(x0);
    free(d);
    /* the second term is what rounding leaves of a quotient where the gradient is zero (a bias of all keys moves no softmax) */
    if (!(fabs(got - want) <= 1e-6 * size + 1e-9 * fmax(1, fabs(up))))
        fail_msg("%s: the difference quotient is %.12g, the gradient says %.12g (terms %.3g)", what, got, want, size);
    if (!(size > 0))
        fail_msg("%s: no gradient at all", what);
}

/* Every parameter; `mixer`: but for the norms, which are not the mixers' own. */
static inline void check_params(fixture *f, bool mixer, value_fn *fn, void *ctx)
{
    for (int i = 0; i < f->p.n; i++) {
        const ns_param *p = &f->p.p[i];
        char what[256];
        if (mixer && (p->layer < 0 || p->role == NS_W_NORM))
            continue;
        ns_weight_name(p->layer, p->role, 0, what, sizeof what);
        if (p->buffer) {
            for (size_t j = 0; j < p->count; j++)
                assert_true(f->g[p->off + j] == 0);
            continue;
        }
        check_direction(what, f->w + p->off, f->g + p->off, p->count, 0, &f->r, fn, ctx);
    }
}

static inline void check_layer_mask(ns_layer_mask *m, ns_rng *r, value_fn *fn, void *ctx)
{
    for (int x = 0; x < NS_AXIS_COUNT; x++)
        if (m->axis[x].m)
            check_direction(ns_axis_name((ns_axis)x), m->axis[x].m, m->axis[x].dm, (size_t)m->axis[x].live, ONLY_NONZERO, r, fn, ctx);
}

/* ---- picks: the router's choice is not continuous, so a quotient across a change of it means nothing ---- */

enum { MAX_EXPERTS = 64 };

typedef struct picks {
    uint64_t hash;
    int64_t load[MAX_EXPERTS]; /* of all calls */
} picks;

/* Adds the choice of layer `layer` for normed rows x to the hash. An own implementation of the rule, by sorting ranks. */
static inline void hash_picks(const fixture *f, const ns_layer_mask *lm, int layer, const ns_real *x, int rows, int live, picks *out)
{
    const ns_arch *a = f->arch;
    const int n = a->layers[layer].width[NS_AXIS_EXPERTS], size = n / a->n_group;
    const ns_real *gate = ns_params_cat(&f->p, f->w, layer, NS_W_GATE, 0);
    const ns_real *bias = ns_params_cat(&f->p, f->w, layer, NS_W_GATE_CORRECTION, 0);
    double choice[MAX_EXPERTS], worth[MAX_EXPERTS];
    assert_true(n <= MAX_EXPERTS);
    for (int t = 0; t < rows; t++) {
        for (int e = 0; e < n; e++) {
            double l = 0, m = lm && lm->axis[NS_AXIS_EXPERTS].m ? (double)lm->axis[NS_AXIS_EXPERTS].m[e] : 1;
            for (int j = 0; j < live; j++)
                l += (double)(gate[e * a->hidden_size + j] * x[t * a->hidden_size + j]);
            choice[e] = m == 0 ? -1e30 : m / (1 + exp(-l)) + m * (double)bias[e];
        }
        for (int g = 0; g < a->n_group; g++) { /* the sum of the two best */
            worth[g] = -1e300;
            for (int i = g * size; i < (g + 1) * size; i++)
                for (int j = g * size; j < i; j++)
                    worth[g] = choice[i] + choice[j] > worth[g] ? choice[i] + choice[j] : worth[g];
        }
        for (int e = 0; e < n; e++) {
            int better_groups = 0, better = 0;
            for (int g = 0; g < a->n_group; g++)
                better_groups += worth[g] > worth[e / size];
            for (int i = 0; i < n; i++) {
                int above = 0;
                for (int g = 0; g < a->n_group; g++)
                    above += worth[g] > worth[i / size];
                better += above < a->topk_group && choice[i] > choice[e];
            }
            const bool in = better_groups < a->topk_group && better < a->layers[layer].topk;
            out->load[e] += in;
            out->hash = (out->hash ^ (uint64_t)in) * 0x100000001b3u + 1;
        }
    }
}
#endif
