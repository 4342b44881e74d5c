/* One cut, four realisations: the full model with a hard mask, a view into its weights, the sliced file, and (for the widest cut) the
 * plain full model. With the reference kernels they agree in every bit, residual stream after each layer included; vector rungs sum in
 * an order that depends on the widths, so there they agree up to rounding. And what a cut is said to cost is what its file holds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "forge/slice.h"
#include "prop/prop.h"

enum { PREFILL = 11, DECODE = 3, TOKENS = PREFILL + DECODE };

static ns_ckpt *reopen(const char *dir)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!c)
        fail_msg("%s: %s", dir, e.msg);
    return c;
}

/* ---- cost ---- */

/* The number in "..experts.N..", -1 without. */
static int expert_of(const char *name)
{
    const char *p = strstr(name, ".experts.");
    return p && p[9] >= '0' && p[9] <= '9' ? atoi(p + 9) : -1;
}

static int layer_of(const char *name)
{
    const char *p = strstr(name, "layers.");
    return p ? atoi(p + 7) : -1;
}

/* Counts what lies in the sliced file, by its names alone. */
static void check_cost(const ns_ckpt *parent, const ns_cut *cut, const ns_ckpt *slice, const char *what)
{
    ns_err e = { 0 };
    ns_cost cost;
    int64_t all = 0, active = 0, embed = 0;
    double experts = 0;
    assert_int_equal(ns_cut_cost(parent->arch, cut, ns_ckpt_dtype_of, (void *)(uintptr_t)parent, &cost, &e), 0);
    for (size_t i = 0; i < ns_store_count(slice->store); i++) {
        const ns_tensor *t = ns_store_at(slice->store, i);
        all += (int64_t)t->bytes;
        if (strstr(t->name, "embeddings.weight"))
            embed = (int64_t)t->bytes;
        else if (expert_of(t->name) < 0)
            active += (int64_t)t->bytes;
        else {
            const ns_layer *l = &slice->arch->layers[layer_of(t->name)];
            experts += (double)t->bytes * l->topk / l->width[NS_AXIS_EXPERTS];
        }
    }
    active += embed / slice->arch->vocab_size + (slice->arch->tie_embeddings ? embed : 0) + (int64_t)(experts + 0.5);
    if (cost.weight_bytes != all || cost.active_bytes != active)
        fail_msg("%s: cost says %lld bytes, %lld active; the file has %lld, %lld", what, (long long)cost.weight_bytes,
                 (long long)cost.active_bytes, (long long)all, (long long)active);
    for (int fp8 = 0; fp8 < 2; fp8++) {
        ns_state *s = ns_state_new(parent->arch, cut, fp8 ? NS_F8_E4M3 : NS_F32, 48, &e);
        int64_t state = 0;
        for (int i = 0; i < cut->n_layers; i++)
            state += (int64_t)((s->layer[i].conv_len + s->layer[i].ssm_len) * sizeof(float));
        ns_cost_set_kv(&cost, s->kv);
        assert_int_equal(cost.state_bytes, state);
        assert_true((int64_t)s->bytes >= state + 48 * cost.kv_bytes_per_token); /* the rest is alignment */
        assert_true((int64_t)s->bytes < state + 48 * cost.kv_bytes_per_token + 256 * cut->n_layers);
        ns_state_free(s);
    }
}

/* ---- one cut ---- */

struct worst {
    double mask, slice;
    int cuts;
};

static prop_trace run_cut(const prop_model *m, const ns_cut *cut, bool masked, const int *ids)
{
    ns_plan *p = masked ? prop_plan_masked(m, cut) : prop_plan(m, cut);
    prop_feed f = prop_prefill_decode(PREFILL, DECODE);
    prop_trace t = prop_run(p, ids, &f, ns_cut_hidden(cut));
    ns_plan_free(p);
    return t;
}

static prop_trace run_full(const prop_model *m, const int *ids)
{
    ns_err e = { 0 };
    ns_cut full;
    assert_int_equal(ns_cut_full(m->ck->arch, &full, &e), 0);
    prop_trace t = run_cut(m, &full, false, ids);
    ns_cut_release(&full);
    return t;
}

static double far(const prop_trace *a, const prop_trace *b)
{
    assert_int_equal(a->n_x, b->n_x);
    assert_int_equal(a->n_logits, b->n_logits);
    return fmax(prop_diff(a->x, b->x, a->n_x), prop_diff(a->logits, b->logits, a->n_logits));
}

/* mask == view == slice for one cut on one rung. */
static void compare(const prop_model *parent, const prop_model *slice, const ns_cut *cut, const char *what, double tol, struct worst *w)
{
    ns_rng r;
    ns_rng_init(&r, 7);
    int *ids = prop_ids(parent, TOKENS, &r);
    prop_trace view = run_cut(parent, cut, false, ids), mask = run_cut(parent, cut, true, ids), file = run_full(slice, ids);
    char label[500];
    if (tol == 0.0) {
        snprintf(label, sizeof label, "%s: mask and view", what);
        prop_same_trace(&mask, &view, label);
        snprintf(label, sizeof label, "%s: slice and view", what);
        prop_same_trace(&file, &view, label);
    }
    double m = far(&mask, &view), s = far(&file, &view);
    w->mask = fmax(w->mask, m);
    w->slice = fmax(w->slice, s);
    w->cuts++;
    if (!(m <= tol) || !(s <= tol))
        fail_msg("%s: mask and view differ by %.2e, slice and view by %.2e (allowed %.0e)", what, m, s, tol);
    prop_trace_release(&view);
    prop_trace_release(&mask);
    prop_trace_release(&file);
    free(ids);
}

static struct worst worst[NS_RUNG_COUNT][2]; /* [rung][plain dtypes, NVFP4] */

static void try_cut(const prop_variant *v, const char *dir, const ns_cut *cut, const char *what)
{
    ns_err e = { 0 };
    char *out = tiny_path(tiny_base, "slice"), label[300];
    ns_ckpt *parent = reopen(dir);
    snprintf(label, sizeof label, "%s, %s", v->name, what);
    if (ns_slice(parent, cut, out, NULL, &e) != 0)
        fail_msg("%s: %s", label, e.msg);
    ns_ckpt *slice = reopen(out);
    check_cost(parent, cut, slice, label);
    ns_ckpt_close(slice);
    ns_ckpt_close(parent);
    for (int rung = 0; rung < NS_RUNG_COUNT; rung++) {
        const ns_ops *ops = ns_ops_find((enum ns_rung)rung);
        if (!ops)
            continue;
        prop_model a = prop_open(reopen(dir), ops, 1), b = prop_open(reopen(out), ops, 1);
        snprintf(label, sizeof label, "%s, %s on %s", v->name, what, ops->name);
        double tol = rung == NS_RUNG_REF ? 0.0 : prop_quantised(&v->o) ? 3e-4 : 1e-5;
        compare(&a, &b, cut, label, tol, &worst[rung][prop_quantised(&v->o)]);
        prop_close(&a);
        prop_close(&b);
    }
    tiny_remove(out);
    free(out);
}

static void describe(const ns_ckpt *c, const ns_cut *cut, char *out, size_t cap)
{
    size_t n = (size_t)snprintf(out, cap, "hidden %d", ns_cut_hidden(cut));
    for (int i = 0; i < cut->n_layers && n < cap; i++) {
        n += (size_t)snprintf(out + n, cap - n, " | %c%s", c->arch->layers[i].kind, cut->layer[i].keep ? "" : " dropped");
        for (int x = 1; x < NS_AXIS_COUNT && n < cap && cut->layer[i].keep; x++)
            if (cut->layer[i].width[x] != c->arch->layers[i].width[x])
                n += (size_t)snprintf(out + n, cap - n, " %s=%d", ns_axis_name((ns_axis)x), cut->layer[i].width[x]);
    }
}

/* ---- the tests ---- */

static void each_variant(void (*fn)(const prop_variant *v, const char *dir, ns_ckpt *c))
{
    prop_variant v[PROP_VARIANTS];
    prop_variants(v);
    for (int i = 0; i < PROP_VARIANTS; i++) {
        char *dir = tiny_path(tiny_base, v[i].name);
        if (tiny_make(dir, &v[i].o) != 0)
            abort();
        ns_ckpt *c = reopen(dir);
        fn(&v[i], dir, c);
        ns_ckpt_close(c);
        tiny_remove(dir);
        free(dir);
    }
}

static bool valid(const ns_ckpt *c, const ns_cut *cut)
{
    ns_err e = { 0 };
    return ns_cut_validate(c->arch, cut, ns_ckpt_dtype_of, (void *)(uintptr_t)c, &e) == 0;
}

/* Every axis by itself at its smallest legal width and at one in between. */
static void single_axes_of(const prop_variant *v, const char *dir, ns_ckpt *c)
{
    for (int x = 0; x < NS_AXIS_COUNT; x++) {
        ns_err e = { 0 };
        ns_cut cut;
        char what[100];
        int full = 0, tried = 0;
        assert_int_equal(ns_cut_full(c->arch, &cut, &e), 0);
        for (int i = 0; i < cut.n_layers; i++)
            full = full ? full : c->arch->layers[i].width[x];
        for (int w = 1; w < full && tried < 2; w = tried == 1 && w < full * 2 / 3 ? full * 2 / 3 : w + 1) {
            ns_cut_set(c->arch, &cut, (ns_axis)x, w);
            if (!valid(c, &cut))
                continue;
            snprintf(what, sizeof what, "%s=%d", ns_axis_name((ns_axis)x), w);
            try_cut(v, dir, &cut, what);
            tried++;
        }
        if (full > 1 && !tried && !(prop_quantised(&v->o) && x == NS_AXIS_MAMBA_HEAD_DIM)) /* there a head is one block */
            fail_msg("%s: no legal width of %s below %d", v->name, ns_axis_name((ns_axis)x), full);
        ns_cut_release(&cut);
    }
}

static void single_axes(void **state)
{
    (void)state;
    each_variant(single_axes_of);
}

static void dropped_layers_of(const prop_variant *v, const char *dir, ns_ckpt *c)
{
    for (int layer = 0; layer < c->arch->n_layers; layer++) {
        ns_err e = { 0 };
        ns_cut cut;
        char what[100];
        assert_int_equal(ns_cut_full(c->arch, &cut, &e), 0);
        cut.layer[layer].keep = false;
        snprintf(what, sizeof what, "without layer %d", layer);
        assert_true(valid(c, &cut));
        try_cut(v, dir, &cut, what);
        ns_cut_release(&cut);
    }
}

static void dropped_layers(void **state)
{
    (void)state;
    prop_variant v = { "f32", tiny_defaults() };
    char *dir = tiny_path(tiny_base, "drop");
    if (tiny_make(dir, &v.o) != 0)
        abort();
    ns_ckpt *c = reopen(dir);
    dropped_layers_of(&v, dir, c);
    ns_ckpt_close(c);
    free(dir);
}

static uint64_t seeds(void) /* NS_TEST_SEEDS: a longer run by hand */
{
    const char *s = getenv("NS_TEST_SEEDS");
    return s ? (uint64_t)atoi(s) : 8;
}

static void random_cuts_of(const prop_variant *v, const char *dir, ns_ckpt *c)
{
    for (uint64_t seed = 0; seed < seeds(); seed++) {
        ns_cut cut;
        char what[900], text[800];
        if (tiny_random_cut(c, v->o.seed * 1000 + seed, &cut) != 0)
            abort();
        describe(c, &cut, text, sizeof text);
        snprintf(what, sizeof what, "cut %d (%s)", (int)seed, text);
        try_cut(v, dir, &cut, what);
        ns_cut_release(&cut);
    }
}

static void random_cuts(void **state)
{
    (void)state;
    each_variant(random_cuts_of);
}

/* The widest cut as mask, view and slice is the plain model, on every rung in every bit. */
static void widest_of(const prop_variant *v, const char *dir, ns_ckpt *c)
{
    ns_err e = { 0 };
    ns_cut full;
    char *out = tiny_path(tiny_base, "whole"), label[100];
    assert_int_equal(ns_cut_full(c->arch, &full, &e), 0);
    if (ns_slice(c, &full, out, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    for (int rung = 0; rung < NS_RUNG_COUNT; rung++) {
        const ns_ops *ops = ns_ops_find((enum ns_rung)rung);
        if (!ops)
            continue;
        prop_model a = prop_open(reopen(dir), ops, 1), b = prop_open(reopen(out), ops, 1);
        struct worst w = { 0 };
        snprintf(label, sizeof label, "%s whole on %s", v->name, ops->name);
        compare(&a, &b, &full, label, 0.0, &w);
        prop_close(&a);
        prop_close(&b);
    }
    ns_cut_release(&full);
    tiny_remove(out);
    free(out);
}

static void widest_is_plain(void **state)
{
    (void)state;
    each_variant(widest_of);
}

/* A cut of a slice is the cut of its parent. */
static void slice_of_slice(void **state)
{
    (void)state;
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    char *dir = tiny_path(tiny_base, "nested"), *mid_dir = tiny_path(tiny_base, "nested-mid"), *out = tiny_path(tiny_base, "nested-small");
    o.dtype = "bf16";
    ns_ckpt *c = tiny_open(tiny_base, "nested", &o);
    ns_cut mid, small, inner;
    char name[64];
    const char *mid_text = "hidden=48,expert_ffn=32,experts=6,mamba_heads=6,attn_heads=6,ssm_state=12";
    const char *small_text = "hidden=32,expert_ffn=16,experts=4,mamba_heads=4,attn_heads=4,ssm_state=8,mamba_head_dim=8";
    assert_int_equal(ns_ckpt_size(c, mid_text, &mid, name, sizeof name, &e), 0);
    assert_int_equal(ns_ckpt_size(c, small_text, &small, name, sizeof name, &e), 0);
    assert_int_equal(ns_slice(c, &mid, mid_dir, NULL, &e), 0);
    ns_ckpt *half = reopen(mid_dir);
    assert_int_equal(ns_ckpt_size(half, small_text, &inner, name, sizeof name, &e), 0);
    assert_int_equal(ns_slice(half, &inner, out, NULL, &e), 0);
    struct worst w = { 0 };
    prop_model a = prop_open(c, ns_ops_find(NS_RUNG_REF), 1), b = prop_open(reopen(out), ns_ops_find(NS_RUNG_REF), 1);
    compare(&a, &b, &small, "a slice of a slice", 0.0, &w);
    prop_model h = prop_open(half, ns_ops_find(NS_RUNG_REF), 1);
    compare(&h, &b, &inner, "a view of a slice", 0.0, &w);
    ns_cut_release(&mid);
    ns_cut_release(&small);
    ns_cut_release(&inner);
    prop_close(&a);
    prop_close(&b);
    prop_close(&h);
    free(dir);
    free(mid_dir);
    free(out);
}

static void print_worst(void **state)
{
    (void)state;
    for (int r = 0; r < NS_RUNG_COUNT; r++)
        for (int q = 0; q < 2 && ns_ops_find((enum ns_rung)r); q++)
            printf("%-6s %-5s %4d cuts: mask and view within %.1e, slice and view within %.1e\n", ns_ops_find((enum ns_rung)r)->name,
                   q ? "nvfp4" : "plain", worst[r][q].cuts, worst[r][q].mask, worst[r][q].slice);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(single_axes),     cmocka_unit_test(dropped_layers), cmocka_unit_test(random_cuts),
                                        cmocka_unit_test(widest_is_plain), cmocka_unit_test(slice_of_slice), cmocka_unit_test(print_worst) };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
