/* Weights that were loaded are laid out in panels; mapped ones are as the file has them. Every row decodes to the same numbers, and every
 * size computes the same: in bits with the reference kernels, up to rounding with those that fold their lanes at the end of each panel. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "prop/prop.h"
#include "tensor/format.h"

static const char nest[] = "{\"version\": 1, \"variants\": [{\"name\": \"full\"}, "
                           "{\"name\": \"mid\", \"cut\": {\"hidden\": 48, \"expert_ffn\": 32, \"dense_ffn\": 80}}, "
                           "{\"name\": \"small\", \"cut\": {\"hidden\": 32, \"expert_ffn\": 16, \"shared_ffn\": 48, \"dense_ffn\": 48}}]}";

static ns_ckpt *open_at(const char *dir, bool loaded)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, &(ns_ckpt_opts){ .huge_pages = loaded }, &e);
    if (!c)
        fail_msg("%s: %s", dir, e.msg);
    return c;
}

static void each_variant(void (*fn)(const prop_variant *v, const char *dir))
{
    prop_variant v[PROP_VARIANTS];
    prop_variants(v);
    for (int i = 0; i < PROP_VARIANTS; i++) {
        char *dir = tiny_path(tiny_base, v[i].name);
        v[i].o.nest = nest;
        if (tiny_make(dir, &v[i].o) != 0)
            abort();
        fn(&v[i], dir);
        tiny_remove(dir);
        free(dir);
    }
}

/* ---- what is stored ---- */

struct both {
    const ns_ckpt *mapped, *loaded;
    int panels, whole;
};

static int same_weight(void *ctx, int layer, ns_role r, int expert)
{
    struct both *b = ctx;
    const ns_mat *x = &ns_ckpt_weight(b->mapped, layer, r, expert)->mat, *y = &ns_ckpt_weight(b->loaded, layer, r, expert)->mat;
    int cols = x->cols, step = x->dtype == NS_NVFP4 ? 2 : 1;
    float *want = malloc((size_t)cols * sizeof *want), *got = malloc((size_t)cols * sizeof *got);
    assert_null(x->panels);
    *(y->panels ? &b->panels : &b->whole) += 1;
    for (int i = 0; i < x->rows; i++)
        for (int from = 0, to; from < cols; from += step * (1 + i % 9)) {
            to = cols - from < 40 ? cols : from + 2 * (1 + (i + from) % 20);
            ns_row_decode(x, i, from, to - from, want);
            ns_row_decode(y, i, from, to - from, got);
            prop_same(got, want, (size_t)(to - from), ns_weight_get(r)->id);
        }
    free(want);
    free(got);
    return 0;
}

static void same_weights_of(const prop_variant *v, const char *dir)
{
    struct both b = { open_at(dir, false), open_at(dir, true), 0, 0 };
    assert_int_equal(ns_manifest_each(b.mapped->arch, same_weight, &b), 0);
    assert_true(b.panels > 10 && b.whole > 10);
    const ns_mat *up = &ns_ckpt_weight(b.loaded, (int)(strchr(v->o.pattern, 'E') - v->o.pattern), NS_W_SHARED_UP, 0)->mat;
    assert_int_equal(up->panels->n, 3);
    assert_int_equal(ns_mat_run(up, 0), 32);
    assert_int_equal(ns_mat_run(up, 40), 8);
    assert_null(ns_ckpt_weight(b.loaded, -1, NS_W_EMBED, 0)->mat.panels); /* a tied head meets whole rows, too */
    ns_ckpt_close((ns_ckpt *)(uintptr_t)b.mapped);
    ns_ckpt_close((ns_ckpt *)(uintptr_t)b.loaded);
}

static void same_weights(void **state)
{
    (void)state;
    each_variant(same_weights_of);
}

/* A width close below another has no panel of its own, nor has one that is no multiple of 16. */
static void close_widths(void **state)
{
    (void)state;
    tiny_opts o = tiny_defaults();
    char *dir = tiny_path(tiny_base, "close");
    o.hidden = 192;
    o.nest = "{\"version\": 1, \"variants\": [{\"name\": \"full\"}, {\"name\": \"a\", \"cut\": {\"hidden\": 176}}, "
             "{\"name\": \"b\", \"cut\": {\"hidden\": 120}}, {\"name\": \"c\", \"cut\": {\"hidden\": 112}}, "
             "{\"name\": \"d\", \"cut\": {\"hidden\": 96}}]}";
    assert_int_equal(tiny_make(dir, &o), 0);
    ns_ckpt *c = open_at(dir, true);
    const ns_panels *p = ns_ckpt_weight(c, -1, NS_W_LM_HEAD, 0)->mat.panels;
    assert_non_null(p);
    assert_int_equal(p->n, 3);
    assert_int_equal(p->end[0], 96);
    assert_int_equal(p->end[1], 112);
    assert_int_equal(p->end[2], 192);
    ns_ckpt_close(c);
    free(dir);
}

/* A number that is none is found in both, and its place is given where the tensor still tells it. */
static void broken_weight(void **state)
{
    (void)state;
    tiny_opts o = tiny_defaults();
    char *dir = tiny_path(tiny_base, "broken");
    tiny_file f;
    o.nest = nest;
    assert_int_equal(tiny_make(dir, &o), 0);
    tiny_load(&f, dir);
    const float nan = NAN;
    memcpy(tiny_find(&f, "backbone.layers.1.mixer.shared_experts.up_proj.weight")->data + (3 * 64 + 50) * sizeof nan, &nan, sizeof nan);
    tiny_save(&f, dir);
    tiny_release(&f);
    for (int loaded = 0; loaded < 2; loaded++) {
        ns_err e = { 0 };
        ns_ckpt *c = open_at(dir, loaded);
        assert_int_equal(ns_ckpt_verify(c, NULL, NULL, &e), -1);
        assert_non_null(strstr(e.msg, "layers.1.mixer.shared_experts.up_proj.weight: not a finite number"));
        assert_int_equal(strstr(e.msg, " at [3, 50]") != NULL, !loaded);
        ns_ckpt_close(c);
    }
    free(dir);
}

/* ---- what is computed ---- */

static void same_results_of(const prop_variant *v, const char *dir)
{
    static const char *const sizes[] = { "full", "mid", "small", "hidden=48,expert_ffn=16,attn_heads=4" };
    for (int rung = 0; rung < NS_RUNG_COUNT; rung++) {
        const ns_ops *ops = ns_ops_find((enum ns_rung)rung);
        if (!ops)
            continue;
        double tol = prop_quantised(&v->o) ? 3e-4 : 1e-5;
        prop_model a = prop_open(open_at(dir, false), ops, 2), b = prop_open(open_at(dir, true), ops, 2);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            ns_err e = { 0 };
            ns_cut cut;
            char name[64], what[200];
            ns_rng r;
            ns_rng_init(&r, 3);
            int *ids = prop_ids(&a, 14, &r);
            assert_int_equal(ns_ckpt_size(a.ck, sizes[i], &cut, name, sizeof name, &e), 0);
            ns_plan *p[3] = { prop_plan(&a, &cut), prop_plan(&b, &cut), prop_plan_masked(&b, &cut) };
            prop_feed f = prop_prefill_decode(11, 3);
            prop_trace t[3];
            for (int k = 0; k < 3; k++)
                t[k] = prop_run(p[k], ids, &f, ns_cut_hidden(&cut));
            for (int k = 1; k < 3; k++) {
                snprintf(what, sizeof what, "%s, %s on %s, %s", v->name, sizes[i], ops->name, k == 1 ? "a view" : "masked");
                double d = prop_diff(t[k].logits, t[0].logits, t[0].n_logits);
                if (rung == NS_RUNG_REF)
                    prop_same_trace(&t[k], &t[0], what);
                else if (!(d <= tol))
                    fail_msg("%s: %.2e (allowed %.0e)", what, d, tol);
            }
            for (int k = 0; k < 3; k++) {
                prop_trace_release(&t[k]);
                ns_plan_free(p[k]);
            }
            ns_cut_release(&cut);
            free(ids);
        }
        prop_close(&a);
        prop_close(&b);
    }
}

static void same_results(void **state)
{
    (void)state;
    each_variant(same_results_of);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(same_weights), cmocka_unit_test(close_widths), cmocka_unit_test(broken_weight),
                                        cmocka_unit_test(same_results) };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
