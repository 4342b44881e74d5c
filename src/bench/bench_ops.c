/* Kernels one by one: products of an expert-sized matrix against 1 to 64 vectors, weights out of memory (many matrices in turn),
 * and the other kernels at the 30B shape, from cache. All threads for the products, one for the rest. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "bench/bench.h"

enum { ROWS = 1856, COLS = 2688, BLOCK = 64 };
static const size_t pool_bytes = (size_t)600 << 20; /* of matrices: beyond any cache */

struct product {
    const ns_ops *ops;
    ns_mat *mats;
    const void *x;
    float *y;
    int m;
};

static void product_task(void *ctx, int t, int thread)
{
    (void)thread;
    const struct product *p = ctx;
    int blocks = ROWS / BLOCK, row = t % blocks * BLOCK;
    p->ops->matmul(&p->mats[t / blocks], row, BLOCK, p->x, NULL, p->m, p->y + row, ROWS, false);
}

static void add_row(json_t *list, const char *name, double seconds, double bytes, double flops)
{
    json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:f}", "name", name, "us", seconds * 1e6, "gb_per_second", bytes / seconds / 1e9,
                                          "gflops", flops / seconds / 1e9));
}

static int products(ns_pool *pool, const ns_ops *ops, ns_dtype t, json_t *list, ns_err *e)
{
    static const int batches[] = { 1, 2, 4, 8, 24, 64 };
    ns_mat one = { .dtype = t, .rows = ROWS, .cols = COLS, .stride = ns_dtype_row_bytes(t, COLS), .scale_stride = COLS / 16, .global_scale = 1.0f };
    size_t codes = one.stride * ROWS, scales = t == NS_NVFP4 ? one.scale_stride * ROWS : 0;
    int n = (int)(pool_bytes / (codes + scales)), rc = 0;
    uint8_t *data = ns_alloc_aligned((codes + scales) * (size_t)n);
    struct product p = { .ops = ops, .mats = calloc((size_t)n, sizeof *p.mats), .y = ns_alloc_aligned((size_t)64 * ROWS * sizeof(float)) };
    size_t act = ops->act_bytes(t, COLS);
    char *x = ns_alloc_aligned(64 * act);
    float v[COLS];
    if (!data || !p.mats || !p.y || !x) {
        rc = ns_fail(e, NS_ENOMEM, "bench: out of memory");
        goto done;
    }
    memset(data, 0x3c, (codes + scales) * (size_t)n); /* an ordinary number in every format */
    for (int i = 0; i < n; i++) {
        p.mats[i] = one;
        p.mats[i].data = data + (size_t)i * codes;
        p.mats[i].scale = scales ? data + (size_t)n * codes + (size_t)i * scales : NULL;
    }
    for (int i = 0; i < COLS; i++)
        v[i] = (float)(i % 17 - 8);
    for (int i = 0; i < 64; i++)
        ops->act_pack(t, v, COLS, x + (size_t)i * act);
    p.x = x;
    for (size_t k = 0; k < sizeof batches / sizeof *batches; k++) {
        int use = n / (k < 3 ? 1 : batches[k] / 4);
        double best = 1e9;
        char name[64];
        p.m = batches[k];
        for (int r = 0; r < 3; r++) {
            double start = ns_now();
            ns_pool_run(pool, use * (ROWS / BLOCK), product_task, &p);
            double s = (ns_now() - start) / use;
            best = s < best ? s : best;
        }
        snprintf(name, sizeof name, "matmul %s m=%d", ns_dtype_name(t), p.m);
        add_row(list, name, best, (double)(codes + scales), 2.0 * ROWS * COLS * p.m);
    }
done:
    free(data);
    free(p.mats);
    free(p.y);
    free(x);
    return rc;
}

/* Best time of one call among many. */
#define TIME(seconds, call)                                          \
    do {                                                             \
        (seconds) = 1e9;                                             \
        for (int rep_ = 0; rep_ < 20; rep_++) {                      \
            double start_ = ns_now();                                \
            for (int it_ = 0; it_ < 20; it_++)                       \
                call;                                                \
            double s_ = (ns_now() - start_) / 20;                    \
            (seconds) = s_ < (seconds) ? s_ : (seconds);             \
        }                                                            \
    } while (0)

static void small_kernels(const ns_ops *o, float *a, float *b, json_t *list)
{
    double s;
    TIME(s, o->rmsnorm(a, b, 2688, 1e-5f, b + 8192));
    add_row(list, "rmsnorm 2688", s, 3 * 4 * 2688, 4 * 2688);
    TIME(s, o->gated_norm(a, b, b, 4096, 512, 512, 1e-5f, b + 8192));
    add_row(list, "gated_norm 4096", s, 4 * 4 * 4096, 12 * 4096);
    TIME(s, o->ssm_step(a, 128, 64, 0.99f, 0.01f, b, b, b, 1.0f, b + 8192));
    add_row(list, "ssm_step 128x64", s, 2 * 4 * 128 * 64, 5 * 128 * 64);
    TIME(s, o->conv_silu(b, 6144, 1, 6144, 4, a, b, a + 32768, 6144, b + 8192, 6144));
    add_row(list, "conv_silu 6144 x4", s, 9 * 4 * 6144, 12 * 6144);
    TIME(s, o->gemm(64, 64, 128, a, 128, 1, b, 64, b + 16384, 64, false));
    add_row(list, "gemm 64x64x128", s, 4 * (64 * 128 * 2 + 64 * 64), 2.0 * 64 * 64 * 128);
    TIME(s, o->act_pack(NS_NVFP4, a, 2688, b));
    add_row(list, "act_pack NVFP4 2688", s, 6 * 2688, 2 * 2688);
}

json_t *ns_bench_ops(ns_pool *pool, const ns_ops *ops, ns_err *e)
{
    static const ns_dtype types[] = { NS_NVFP4, NS_F8_E4M3, NS_BF16, NS_F16, NS_F32 };
    json_t *list = json_array();
    float *a = ns_alloc_aligned(65536 * sizeof *a), *b = ns_alloc_aligned(65536 * sizeof *b);
    int rc = a && b ? 0 : ns_fail(e, NS_ENOMEM, "bench: out of memory");
    for (int i = 0; rc == 0 && i < 65536; i++)
        a[i] = b[i] = (float)(i % 13) * 0.01f;
    if (rc == 0)
        small_kernels(ops, a, b, list);
    for (size_t t = 0; rc == 0 && t < sizeof types / sizeof *types; t++)
        rc = products(pool, ops, types[t], list, e);
    free(a);
    free(b);
    if (rc != 0) {
        json_decref(list);
        return NULL;
    }
    return json_pack("{s:s, s:i, s:o}", "kernels", ops->name, "threads", ns_pool_threads(pool), "ops", list);
}
