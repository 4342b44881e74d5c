#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/rng.h"
#include "bench/bench.h"

/* ---- read bandwidth ---- */

enum { MAX_BYTES = 2000000000 };

struct read {
    const ns_mat **mats;
    uint64_t sink; /* keeps the loads alive */
};

/* Sums a matrix's codes: what a matrix product reads, without its arithmetic. */
static void read_task(void *ctx, int t, int thread)
{
    (void)thread;
    struct read *r = ctx;
    const uint8_t *p = r->mats[t]->data;
    size_t n = r->mats[t]->stride * (size_t)r->mats[t]->rows / 64 * 64;
    uint64_t a[8] = { 0 };
    for (size_t i = 0; i < n; i += 64) {
        uint64_t v[8];
        memcpy(v, p + i, 64);
        for (int k = 0; k < 8; k++)
            a[k] += v[k];
        __builtin_prefetch(p + i + 4096);
    }
    for (int k = 1; k < 8; k++)
        a[0] += a[k];
    __atomic_fetch_add(&r->sink, a[0], __ATOMIC_RELAXED);
}

/* Expert matrices in random order, or the widest matrices of every layer where there are no experts. */
static size_t pick_mats(const ns_engine *en, const ns_mat ***out, size_t *bytes)
{
    const ns_arch *a = en->model.arch;
    static const ns_role roles[] = { NS_W_EXPERT_UP, NS_W_EXPERT_DOWN, NS_W_IN_PROJ, NS_W_OUT_PROJ, NS_W_UP, NS_W_DOWN, NS_W_Q, NS_W_O };
    size_t n = 0, cap = 0;
    for (int l = 0; l < a->n_layers; l++)
        cap += (size_t)(8 + 2 * a->layers[l].width[NS_AXIS_EXPERTS]);
    const ns_mat **m = malloc(cap * sizeof *m);
    for (int l = 0; m && l < a->n_layers; l++)
        for (size_t r = 0; r < sizeof roles / sizeof *roles; r++)
            for (int e = 0; ns_weight_exists(a, l, roles[r]) && e < (r < 2 ? a->layers[l].width[NS_AXIS_EXPERTS] : 1); e++)
                m[n++] = &ns_ckpt_weight(en->ckpt, l, roles[r], e)->mat;
    ns_rng rng;
    ns_rng_init(&rng, 1);
    *bytes = 0;
    size_t take = 0;
    for (; take < n && *bytes < MAX_BYTES; take++) {
        size_t j = take + (size_t)(ns_rng_u64(&rng) % (n - take));
        const ns_mat *t = m[take];
        m[take] = m[j];
        m[j] = t;
        *bytes += m[take]->stride * (size_t)m[take]->rows / 64 * 64;
    }
    *out = m;
    return take;
}

double ns_bench_bandwidth(const ns_engine *en, ns_err *e)
{
    struct read r = { 0 };
    size_t bytes, n = pick_mats(en, &r.mats, &bytes);
    double best = 0.0;
    if (!r.mats) {
        ns_fail(e, NS_ENOMEM, "bench: out of memory");
        return -1.0;
    }
    for (int k = 0; k < 4; k++) { /* the first pass brings the pages in */
        double start = ns_now();
        ns_pool_run(en->pool, (int)n, read_task, &r);
        double rate = (double)bytes / (ns_now() - start) / 1e9;
        if (k > 0 && rate > best)
            best = rate;
    }
    free(r.mats);
    return best;
}

/* ---- F32 multiply-adds ---- */

enum { M = 48, N = 64, K = 64, LOOPS = 4000 };

struct flops {
    const ns_ops *ops;
};

static void flops_task(void *ctx, int t, int thread)
{
    (void)t;
    (void)thread;
    const struct flops *f = ctx;
    static _Thread_local float a[M * K], b[K * N], c[M * N];
    for (int i = 0; i < M * K; i++)
        a[i] = 0.5f;
    for (int i = 0; i < K * N; i++)
        b[i] = 0.25f;
    for (int i = 0; i < LOOPS; i++)
        f->ops->gemm(M, N, K, a, K, 1, b, N, c, N, false);
}

double ns_bench_flops(ns_pool *pool, const ns_ops *ops)
{
    struct flops f = { ops };
    double best = 0.0;
    int tasks = 2 * ns_pool_threads(pool);
    for (int k = 0; k < 3; k++) {
        double start = ns_now();
        ns_pool_run(pool, tasks, flops_task, &f);
        double rate = 2.0 * M * N * K * LOOPS * tasks / (ns_now() - start) / 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}
