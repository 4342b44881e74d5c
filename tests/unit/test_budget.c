/* The budget: exact at every cut, differentiable in between, and what the published training code would say. */
#include "arch_configs.h"

#include <math.h>

#include "nest/cut.h"
#include "train/budget.h"

enum { CONTEXT = 777, BATCH = 3 };

static ns_budget plan(const ns_arch *a, ns_budget_opts o)
{
    ns_err e = { 0 };
    ns_budget b;
    if (ns_budget_plan(a, &o, &b, &e) < 0)
        fail_msg("%s", e.msg);
    return b;
}

static double cost_of(const ns_budget *b, const ns_cut *c)
{
    ns_err e = { 0 };
    double v;
    assert_int_equal(ns_budget_of_cut(b, c, &v, &e), 0);
    return v;
}

/* Widths that are legal or not: counting does not mind. Groups stay whole, as every cut's do. */
static void random_cut(const ns_arch *a, int unit, ns_rng *r, ns_cut *c)
{
    for (int i = 0; i < a->n_layers; i++) {
        c->layer[i].keep = pick(r, 0, 3) > 0;
        for (int x = 0; x < NS_AXIS_COUNT; x++) {
            int full = a->layers[i].width[x];
            int step = x == NS_AXIS_MAMBA_HEADS ? a->n_groups : x == NS_AXIS_ATTN_HEADS ? a->n_kv_heads
                     : x == NS_AXIS_EXPERTS ? a->n_group : x == NS_AXIS_SSM_STATE ? 1 : unit;
            if (full > 0)
                c->layer[i].width[x] = step * pick(r, 1, full / step);
        }
    }
    ns_cut_set(a, c, NS_AXIS_HIDDEN, unit * pick(r, 1, a->hidden_size / unit));
}

static ns_stored stored(void *ctx, int layer, ns_role r, int expert)
{
    const ns_dtype *t = ctx; /* quantisable, other */
    (void)layer, (void)expert;
    return (ns_stored){ ns_weight_get(r)->quantisable ? t[0] : t[1], 0 };
}

/* Every target and profile against the integers of ns_cut_cost. */
static void exact_at_cuts(void **state)
{
    static const struct { const char *name; ns_dtype t[2]; } profiles[] = {
        { "bf16", { NS_BF16, NS_BF16 } },
        { "f32", { NS_F32, NS_F32 } },
        { "fp8", { NS_F8_E4M3, NS_BF16 } },
        { "nvfp4", { NS_NVFP4, NS_BF16 } } };
    static const double kv[] = { 2, 4, 1, 1 };
    (void)state;
    ns_rng r;
    ns_rng_init(&r, 5);
    for (int round = 0; round < 60; round++) {
        json_t *cfg = random_config(&r, 16);
        ns_arch *a = arch_of_json(cfg);
        ns_err e = { 0 };
        ns_cut c;
        ns_cost want;
        assert_int_equal(ns_cut_full(a, &c, &e), 0);
        ns_budget active = plan(a, (ns_budget_opts){ .target = NS_BUDGET_ACTIVE });
        ns_budget total = plan(a, (ns_budget_opts){ .target = NS_BUDGET_TOTAL });
        assert_int_equal(ns_cut_cost(a, &c, NULL, NULL, &want, &e), 0);
        assert_true(active.full == (double)want.params_active && total.full == (double)want.params_total);
        for (int k = 0; k < 5; k++) {
            random_cut(a, 16, &r, &c);
            assert_int_equal(ns_cut_cost(a, &c, NULL, NULL, &want, &e), 0);
            assert_true(cost_of(&active, &c) == (double)want.params_active);
            assert_true(cost_of(&total, &c) == (double)want.params_total);
            for (int p = 0; p < 4; p++) {
                ns_dtype t[2] = { profiles[p].t[0], profiles[p].t[1] };
                ns_budget b = plan(a, (ns_budget_opts){ NS_BUDGET_MEMORY, profiles[p].name, .context = CONTEXT, .batch = BATCH });
                assert_int_equal(ns_cut_cost(a, &c, stored, t, &want, &e), 0);
                double cache = (double)want.state_bytes + CONTEXT * (double)want.kv_bytes_per_token * kv[p] / 4;
                double bytes = (double)want.weight_bytes + BATCH * cache;
                assert_true(fabs(cost_of(&b, &c) - bytes) <= 1e-12 * bytes);
                ns_budget_release(&b);
            }
        }
        ns_budget_release(&active);
        ns_budget_release(&total);
        ns_cut_release(&c);
        ns_arch_free(a);
        json_decref(cfg);
    }
}

static ns_cut nano_cut(const ns_arch *a, int hidden, int ffn)
{
    ns_err e = { 0 };
    ns_cut c;
    assert_int_equal(ns_cut_full(a, &c, &e), 0);
    ns_cut_set(a, &c, NS_AXIS_HIDDEN, hidden);
    ns_cut_set(a, &c, NS_AXIS_EXPERT_FFN, ffn);
    return c;
}

/* The family's published counts, in thousands. */
static void published_counts(void **state)
{
    static const struct { int hidden, ffn; double total, active; } sizes[] = {
        { 2688, 1856, 31.578e9, 3.580e9 }, { 2016, 1856, 23.684e9, 2.685e9 }, { 1920, 960, 12.427e9, 2.083e9 } };
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_budget total = plan(a, (ns_budget_opts){ .target = NS_BUDGET_TOTAL });
    ns_budget active = plan(a, (ns_budget_opts){ .target = NS_BUDGET_ACTIVE });
    assert_true(total.full == 31577940288.0 && active.full == 3580076352.0);
    for (int i = 0; i < 3; i++) {
        ns_cut c = nano_cut(a, sizes[i].hidden, sizes[i].ffn);
        assert_true(fabs(cost_of(&total, &c) - sizes[i].total) < 0.5e6);
        assert_true(fabs(cost_of(&active, &c) - sizes[i].active) < 0.5e6);
        ns_cut_release(&c);
    }
    ns_budget_release(&total);
    ns_budget_release(&active);
    ns_arch_free(a);
}

/* The published code's count differs by the shared experts' hidden side and the routers, and by nothing else. */
static void published_quirks(void **state)
{
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_budget exact = plan(a, (ns_budget_opts){ .target = NS_BUDGET_TOTAL });
    ns_budget quirk = plan(a, (ns_budget_opts){ .target = NS_BUDGET_TOTAL, .published = true });
    ns_cut c = nano_cut(a, 1920, 960);
    double gate = 128.0 * 1920 + 128, shared = 2.0 * 3712 * (1920 - 960);
    assert_true(cost_of(&exact, &c) - cost_of(&quirk, &c) == 23 * (gate + shared));
    ns_cut_release(&c);
    ns_budget_release(&exact);
    ns_budget_release(&quirk);
    ns_arch_free(a);
}

/* 1 sequence of 262144 tokens: the caches and weights of the architecture's page; a step's buffer on top. */
static void memory(void **state)
{
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_budget_opts o = { .target = NS_BUDGET_MEMORY, .profile = "bf16", .context = 262144, .batch = 1 };
    ns_budget b = plan(a, o);
    assert_true(b.full == 2 * 31577940288.0 + 262144 * 6144.0 + 48234496.0 + 2 * 847872.0);
    ns_budget_release(&b);
    o.chunk = 1000;
    b = plan(a, o);
    assert_true(b.full == 2 * 31577940288.0 + 262144 * 6144.0 + 48234496.0 + 2 * 847872.0 + 1000.0 * 6 * 2 * (2688 + 1856));
    ns_budget_release(&b);
    ns_arch_free(a);
}

static void random_expect(const ns_arch *a, ns_rng *r, ns_expect *x)
{
    x->hidden = a->hidden_size * (0.3 + 0.7 * ns_rng_uniform(r));
    for (int i = 0; i < a->n_layers; i++) {
        x->layer[i].keep = 0.2 + 0.8 * ns_rng_uniform(r);
        for (int k = 0; k < NS_AXIS_COUNT; k++)
            x->layer[i].width[k] = a->layers[i].width[k] * (0.3 + 0.7 * ns_rng_uniform(r));
    }
}

/* Along a random direction, by central differences: exact up to rounding, as the cost is a polynomial. */
static void gradients(void **state)
{
    (void)state;
    ns_rng r;
    ns_rng_init(&r, 11);
    for (int round = 0; round < 40; round++) {
        json_t *cfg = random_config(&r, 16);
        ns_arch *a = arch_of_json(cfg);
        ns_err e = { 0 };
        ns_expect x, d, g, up, down;
        ns_budget b = plan(a, (ns_budget_opts){ .target = (ns_budget_target)(round % 3), .context = 100, .batch = 1, .chunk = 50 });
        ns_expect *all[] = { &x, &d, &g, &up, &down };
        for (int i = 0; i < 5; i++)
            assert_int_equal(ns_expect_init(a, all[i], &e), 0);
        random_expect(a, &r, &x);
        random_expect(a, &r, &d);
        const double h = 1e-5;
        up.hidden = x.hidden + h * d.hidden;
        down.hidden = x.hidden - h * d.hidden;
        for (int i = 0; i < a->n_layers; i++) {
            up.layer[i].keep = x.layer[i].keep + h * d.layer[i].keep;
            down.layer[i].keep = x.layer[i].keep - h * d.layer[i].keep;
            for (int k = 0; k < NS_AXIS_COUNT; k++) {
                up.layer[i].width[k] = x.layer[i].width[k] + h * d.layer[i].width[k];
                down.layer[i].width[k] = x.layer[i].width[k] - h * d.layer[i].width[k];
            }
        }
        for (int loss = 0; loss < 2; loss++) {
            double share = 0.05, slope, along = 0;
            ns_expect_zero(&g);
            if (loss) {
                slope = (ns_budget_loss(&b, &up, share, 0, NULL) - ns_budget_loss(&b, &down, share, 0, NULL)) / (2 * h);
                ns_budget_loss(&b, &x, share, 1, &g);
            } else {
                slope = (ns_budget_cost(&b, &up, 0, NULL) - ns_budget_cost(&b, &down, 0, NULL)) / (2 * h);
                ns_budget_cost(&b, &x, 1, &g);
            }
            along = g.hidden * d.hidden;
            for (int i = 0; i < a->n_layers; i++) {
                along += g.layer[i].keep * d.layer[i].keep;
                for (int k = 0; k < NS_AXIS_COUNT; k++)
                    along += g.layer[i].width[k] * d.layer[i].width[k];
            }
            if (fabs(along - slope) > 1e-6 * fabs(slope))
                fail_msg("round %d: %.12g by differences, %.12g computed", round, slope, along);
        }
        for (int i = 0; i < 5; i++)
            ns_expect_release(all[i]);
        ns_budget_release(&b);
        ns_arch_free(a);
        json_decref(cfg);
    }
}

static void dead_zone(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_arch *a = arch_of(nano_30b);
    ns_budget b = plan(a, (ns_budget_opts){ .target = NS_BUDGET_ACTIVE });
    ns_cut c = nano_cut(a, 1920, 960); /* 0.5818 of the whole model's */
    ns_expect x, g;
    assert_int_equal(ns_expect_init(a, &x, &e), 0);
    assert_int_equal(ns_expect_init(a, &g, &e), 0);
    ns_expect_set_cut(&c, &x);
    double is = cost_of(&b, &c) / b.full;
    assert_true(fabs(is - 0.5818) < 1e-4);
    assert_true(ns_budget_loss(&b, &x, is / 1.04, 1, &g) == 0 && g.hidden == 0);
    assert_true(ns_budget_loss(&b, &x, is / 0.96, 1, &g) == 0 && g.hidden == 0);
    assert_true(fabs(ns_budget_loss(&b, &x, is / 1.06, 1, &g) - 0.06) < 1e-12 && g.hidden > 0);
    ns_expect_zero(&g);
    assert_true(fabs(ns_budget_loss(&b, &x, is / 0.94, 1, &g) - 0.06) < 1e-12 && g.hidden < 0);
    ns_cut_release(&c);
    c = nano_cut(a, 2640, 1856); /* within 5 % of the whole model, which has no dead zone */
    ns_expect_set_cut(&c, &x);
    ns_expect_zero(&g);
    double off = 1 - cost_of(&b, &c) / b.full;
    assert_true(off > 0.01 && off < 0.05);
    assert_true(fabs(ns_budget_loss(&b, &x, 1, 1, &g) - off) < 1e-12 && g.hidden < 0);
    ns_expect_release(&x);
    ns_expect_release(&g);
    ns_cut_release(&c);
    ns_budget_release(&b);
    ns_arch_free(a);
}

static void refusals(void **state)
{
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_err e = { 0 };
    ns_budget b;
    assert_int_equal(ns_budget_plan(a, &(ns_budget_opts){ .target = NS_BUDGET_MEMORY, .profile = "int3" }, &b, &e), -1);
    assert_string_equal(e.msg, "profile \"int3\": there are bf16 f32 bf16-fp8kv fp8 nvfp4");
    e = (ns_err){ 0 };
    assert_int_equal(ns_budget_plan(a, &(ns_budget_opts){ .context = -1 }, &b, &e), -1);
    assert_non_null(strstr(e.msg, "context -1"));
    assert_int_equal(ns_budget_target_find("memory"), NS_BUDGET_MEMORY);
    assert_int_equal(ns_budget_target_find("speed"), -1);
    ns_arch_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_at_cuts), cmocka_unit_test(published_counts), cmocka_unit_test(published_quirks), cmocka_unit_test(memory),
        cmocka_unit_test(gradients),     cmocka_unit_test(dead_zone),        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
