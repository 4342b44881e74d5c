/* The optimisers against numbers from torch 2.13, and the learning rate's curve. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "train/optim.h"

/* torch.optim.AdamW(lr=3e-3, betas=(.9, .98), eps=1e-8, weight_decay=.1, foreach=False), float32, gradients of very different sizes:
 * the parameters before, and after each of five steps; the last line without weight decay. */
enum { N = 7, STEPS = 5 };
static const float start[N] = { 0x1.9b47p-1f, 0x1.660f0cp-3f, 0x1.6c744cp-4f, -0x1.3a394p-1f, 0x1.7a539ep-5f,
                                  -0x1.5e463cp+0f, 0x1.59985p-2f };
static const float grad[STEPS][N] = {
    { 0x1.02d87ep+0f, -0x1.2cfa9ap-13f, 0x1.99f6fp-14f, 0x1.4e1caap+2f, 0x1.95a3fap-7f, -0x1.221fa2p-17f, 0x1.397bb2p-12f },
    { 0x1.174f8ep-22f, 0x1.57a928p-8f, 0x1.31f736p-7f, 0x1.f608b2p-2f, -0x1.247c24p-19f, 0x1.0b5c2ep-6f, 0x1.e25cdcp+3f },
    { 0x1.7c0396p-22f, -0x1.cf7336p-22f, -0x1.29b2dap+4f, 0x1.23ce42p-7f, 0x0p+0f, 0x1.bcdd2ep-2f, 0x1.9b609ap-19f },
    { -0x1.68be46p-14f, 0x1.0a3296p-13f, -0x1.62ee3ap-11f, -0x1.2caf52p+1f, -0x1.2e01p-20f, -0x1.4facap-1f, -0x1.546d6ep-5f },
    { -0x1.90618cp-15f, -0x1.dd7ed8p-22f, -0x1.37958p-7f, -0x1.e2b196p-25f, -0x1.795eeep-10f, -0x1.fce39ep-14f,
      0x1.183c86p+0f }
};
static const float after[STEPS][N] = {
    { 0x1.999e32p-1f, 0x1.6c184ep-3f, 0x1.600ee6p-4f, -0x1.3baa56p-1f, 0x1.61a31cp-5f, -0x1.5d66f4p+0f, 0x1.566b5ep-2f },
    { 0x1.9875fcp-1f, 0x1.678c9cp-3f, 0x1.56c456p-4f, -0x1.3cb52ap-1f, 0x1.50fccp-5f, -0x1.5ddda8p+0f, 0x1.540aa2p-2f },
    { 0x1.9788f8p-1f, 0x1.63fee4p-3f, 0x1.5e6f94p-4f, -0x1.3d7f5ep-1f, 0x1.440926p-5f, -0x1.5e434ep+0f, 0x1.522c1ap-2f },
    { 0x1.96c06ap-1f, 0x1.60f772p-3f, 0x1.64ba66p-4f, -0x1.3db1d4p-1f, 0x1.395cbep-5f, -0x1.5e044cp+0f, 0x1.509f02p-2f },
    { 0x1.96116ep-1f, 0x1.5e60fep-3f, 0x1.6a0ee6p-4f, -0x1.3dd9p-1f, 0x1.31ee76p-5f, -0x1.5dcabap+0f, 0x1.4f2b66p-2f }
};
static const float after_no_decay[N] = { 0x1.96ae6p-1f, 0x1.5eea82p-3f, 0x1.6a969p-4f, -0x1.3e527ap-1f, 0x1.32718p-5f,
                                           -0x1.5e511cp+0f, 0x1.4fae2cp-2f };

/* Muon in double from the formula, with Newton-Schulz as published (torch.optim.Muon, which rounds to bf16 inside, stays within 3 % of
 * the step): lr .02, momentum .95, weight decay .1, two steps. Wide and tall. */
static const float muon[2][4][15] = { { /* [3, 5]: before, gradient 1, gradient 2, after */
    { 0x1.daae1ep-10f, -0x1.970f36p-2f, 0x1.17638ap-1f, 0x1.00803cp-2f, 0x1.45010ap-1f, -0x1.9aceccp-2f, 0x1.0a9088p-2f,
      0x1.2aa12p-4f, 0x1.701c36p-3f, -0x1.bd3f48p-1f, -0x1.3efb2ep-2f, 0x1.e189b2p-5f, -0x1.5361dap-2f, 0x1.f6e43ap-1f,
      0x1.6a425ep+0f },
    { 0x1.6c7ab2p+0f, 0x1.053d82p+1f, -0x1.77e472p+0f, -0x1.eea0acp-2f, -0x1.f9b658p-3f, -0x1.dfd6c6p-1f, -0x1.2d999ep-2f,
      0x1.0ce68ap-1f, 0x1.3984a6p-5f, 0x1.9b23a4p-1f, 0x1.36fd3ap+1f, -0x1.36273ap-1f, -0x1.ebe50ep-1f, 0x1.421c06p+0f,
      -0x1.cdc374p+0f },
    { 0x1.336764p+0f, -0x1.1188f4p-4f, -0x1.e5123cp-1f, -0x1.16942cp+0f, -0x1.a3bf1p-3f, -0x1.837c54p-4f, 0x1.df98cap-2f,
      0x1.dbfa2cp-1f, 0x1.6d7ffap+0f, 0x1.ed3b6p+0f, 0x1.535d86p-2f, -0x1.509c96p+0f, -0x1.7e3c72p+0f, 0x1.f9afc6p-5f,
      0x1.15de1ep+0f },
    { -0x1.01a6e4p-7f, -0x1.9f7d36p-2f, 0x1.1a4f38p-1f, 0x1.032f46p-2f, 0x1.429a44p-1f, -0x1.97c708p-2f, 0x1.06c71p-2f,
      0x1.1f7f72p-4f, 0x1.5cf656p-3f, -0x1.c307e6p-1f, -0x1.470ee6p-2f, 0x1.08a82ep-4f, -0x1.4a732p-2f, 0x1.f1a962p-1f,
      0x1.6998dap+0f }
}, { /* [5, 3] */
    { 0x1.355eeap-1f, -0x1.59ca3cp-3f, 0x1.38b1b8p-1f, 0x1.163142p-1f, -0x1.5dbbaep-9f, -0x1.e705a8p-1f, -0x1.abe6a6p-4f,
      -0x1.317e14p+0f, -0x1.0935a6p+1f, -0x1.9c70bp-3f, 0x1.4166dcp+0f, 0x1.8aeddep+0f, 0x1.e792f6p-3f, 0x1.9954p+0f,
      -0x1.0b6b4ep-1f },
    { 0x1.1e4518p-4f, -0x1.48682cp+0f, -0x1.2dfb0ap+0f, -0x1.0ca94ep-1f, -0x1.426822p+0f, -0x1.7a4ef4p-1f, -0x1.38b35ep-1f,
      -0x1.129a34p+0f, -0x1.7582c4p-1f, -0x1.c1e784p-4f, -0x1.ec5dfep-1f, -0x1.fe9048p-3f, -0x1.0be3b2p-3f, 0x1.6cb7d8p-1f,
      -0x1.3a964ep-1f },
    { 0x1.006e96p-4f, 0x1.e5fdacp+0f, -0x1.3e8a46p+0f, 0x1.865138p-2f, -0x1.a09876p-1f, 0x1.89df32p+0f, -0x1.2158e8p-1f,
      -0x1.0737b6p-3f, 0x1.0b4834p-1f, 0x1.034186p-1f, 0x1.87d322p-3f, 0x1.a56b62p+0f, -0x1.32aedep+0f, -0x1.53da8cp-2f,
      0x1.7bb2f6p-1f },
    { 0x1.31f54ep-1f, -0x1.5a676ap-3f, 0x1.3c46a4p-1f, 0x1.1621d8p-1f, 0x1.4f797cp-8f, -0x1.e56156p-1f, -0x1.828164p-4f,
      -0x1.2f158ep+0f, -0x1.07dd78p+1f, -0x1.a1ce52p-3f, 0x1.408cdep+0f, 0x1.8798b6p+0f, 0x1.f9a48ep-3f, 0x1.95f5f8p+0f,
      -0x1.079d8p-1f }
} };

static void assert_near(const float *got, const float *want, int n, float bound)
{
    for (int i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= bound * fmaxf(fabsf(want[i]), 1e-3f)))
            fail_msg("entry %d is %.9g, expected %.9g", i, (double)got[i], (double)want[i]);
}

static void test_adamw_is_torchs(void **state)
{
    (void)state;
    ns_adamw_opts o = ns_adamw_defaults();
    o.lr = 3e-3;
    o.weight_decay = 0.1;
    float w[N], m[N] = { 0 }, v[N] = { 0 };
    memcpy(w, start, sizeof w);
    for (int t = 0; t < STEPS; t++) {
        ns_adamw_step(&o, t + 1, N, w, grad[t], m, v, true);
        assert_near(w, after[t], N, 1.2e-7f);
    }
    memcpy(w, start, sizeof w);
    memset(m, 0, sizeof m);
    memset(v, 0, sizeof v);
    for (int t = 0; t < STEPS; t++)
        ns_adamw_step(&o, t + 1, N, w, grad[t], m, v, false);
    assert_near(w, after_no_decay, N, 1.2e-7f);
}

/* The share that a rank or thread takes changes no bit. */
static void test_adamw_in_parts(void **state)
{
    (void)state;
    enum { LEN = 1003 };
    static float w[2][LEN], g[LEN], m[2][LEN], v[2][LEN];
    ns_adamw_opts o = ns_adamw_defaults();
    ns_rng r;
    ns_rng_init(&r, 1);
    for (int t = 1; t <= 3; t++) {
        for (int i = 0; i < LEN; i++)
            g[i] = (float)ns_rng_normal(&r);
        ns_adamw_step(&o, t, LEN, w[0], g, m[0], v[0], true);
        for (int at = 0, n; at < LEN; at += n) {
            n = at + 37 < LEN ? 37 : LEN - at;
            ns_adamw_step(&o, t, (size_t)n, w[1] + at, g + at, m[1] + at, v[1] + at, true);
        }
    }
    assert_memory_equal(w[0], w[1], sizeof w[0]);
}

static ns_blas *open_blas(void)
{
    ns_err e = { 0 };
    ns_blas *b = ns_blas_open(&e);
    if (!b)
        fail_msg("%s", e.msg);
    return b;
}

static void test_muon(void **state)
{
    (void)state;
    ns_blas *b = open_blas();
    const ns_muon_opts o = { .lr = 0.02, .momentum = 0.95, .weight_decay = 0.1 };
    for (int k = 0; k < 2; k++) {
        const int rows = k ? 5 : 3, cols = 15 / rows;
        float w[15], m[15] = { 0 }, step[15], want[15], *scratch = malloc(ns_muon_scratch(rows, cols) * sizeof *scratch);
        memcpy(w, muon[k][0], sizeof w);
        for (int t = 1; t <= 2; t++)
            ns_muon_step(&o, b, rows, cols, w, muon[k][t], m, scratch);
        for (int i = 0; i < 15; i++) { /* what moved, not what it moved from */
            step[i] = w[i] - muon[k][0][i];
            want[i] = muon[k][3][i] - muon[k][0][i];
            assert_float_equal(step[i], want[i], 2e-6f);
        }
        free(scratch);
    }
    ns_blas_close(b);
}

/* A step without momentum is near orthogonal: X X^T is about the identity, whatever the gradient's size. */
static void test_muon_is_orthogonal(void **state)
{
    (void)state;
    enum { R = 16, C = 48 };
    static float w[R * C], g[R * C], m[R * C], xx[R * R];
    ns_blas *b = open_blas();
    float *scratch = malloc(ns_muon_scratch(R, C) * sizeof *scratch);
    ns_rng r;
    ns_rng_init(&r, 4);
    for (int i = 0; i < R * C; i++)
        g[i] = (float)ns_rng_normal(&r) * 1e-4f;
    ns_muon_step(&(ns_muon_opts){ .lr = 1 / (0.2 * sqrt(C)) }, b, R, C, w, g, m, scratch);
    ns_gemm(b, false, true, R, R, C, w, C, w, C, false, xx, R);
    for (int i = 0; i < R * R; i++)
        assert_float_equal(xx[i], (i % (R + 1) ? 0 : 0.9f), 0.4f); /* the iteration stops at singular values in 0.7..1.2 */
    memset(g, 0, sizeof g); /* no gradient at all: nothing moves, nothing is NaN */
    memset(m, 0, sizeof m);
    memset(w, 0, sizeof w);
    ns_muon_step(&(ns_muon_opts){ .lr = 1 }, b, R, C, w, g, m, scratch);
    for (int i = 0; i < R * C; i++)
        assert_float_equal(w[i], 0, 0);
    free(scratch);
    ns_blas_close(b);
}

static void assert_rate(double got, double want)
{
    assert_true(fabs(got - want) <= 1e-12);
}

static void test_schedule(void **state)
{
    (void)state;
    const ns_schedule s = { .lr = 1, .lr_min = 0.1, .warmup = 10, .steps = 110 };
    assert_rate(ns_schedule_at(&s, 0), 0.1);
    assert_rate(ns_schedule_at(&s, 4), 0.5);
    assert_rate(ns_schedule_at(&s, 9), 1);
    assert_rate(ns_schedule_at(&s, 10), 1);
    assert_rate(ns_schedule_at(&s, 60), 0.55);
    assert_rate(ns_schedule_at(&s, 110), 0.1);
    assert_rate(ns_schedule_at(&s, 1000), 0.1);
    for (int64_t k = 10; k < 110; k++)
        assert_true(ns_schedule_at(&s, k) > ns_schedule_at(&s, k + 1));
    assert_rate(ns_schedule_at(&(ns_schedule){ .lr = 2, .lr_min = 2, .steps = 5 }, 0), 2);
    assert_rate(ns_schedule_at(&(ns_schedule){ .lr = 2, .warmup = 5, .steps = 5 }, 5), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw_is_torchs),    cmocka_unit_test(test_adamw_in_parts), cmocka_unit_test(test_muon),
        cmocka_unit_test(test_muon_is_orthogonal), cmocka_unit_test(test_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
