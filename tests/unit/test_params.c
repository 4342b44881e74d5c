/* The plan of flat parameters against the cost model and the manifest; their initialisation. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/params.h"
#include "nest/cut.h"
#include "tiny/tiny.h"

static ns_arch *arch_of(const tiny_opts *o, const char *key, json_t *value)
{
    ns_err e = { 0 };
    char *path = tiny_path(tiny_base, "config.json");
    assert_int_equal(tiny_config(path, o), 0);
    json_t *c = json_load_file(path, 0, NULL);
    if (key)
        json_object_set_new(c, key, value);
    ns_arch *a = ns_arch_parse(c, "config.json", &e);
    json_decref(c);
    free(path);
    assert_non_null(a);
    return a;
}

static ns_params plan_of(const ns_arch *a)
{
    ns_err e = { 0 };
    ns_params p;
    assert_int_equal(ns_params_plan(a, &p, &e), 0);
    return p;
}

typedef struct walk {
    const ns_params *p;
    ns_real *flat;
    size_t elements;
} walk;

/* Each weight of the manifest is in one place: inside its parameter, and inside its bucket. */
static int visit(void *ctx, int layer, ns_role r, int expert)
{
    walk *w = ctx;
    const ns_weight_def *d = ns_weight_get(r);
    const ns_param *x = ns_params_find(w->p, layer, r);
    const int b = layer >= 0 ? 1 + layer : r == NS_W_EMBED ? 0 : w->p->n_buckets - 1;
    size_t size = 1;
    assert_non_null(x);
    for (int i = 0; i < d->n_dims; i++) {
        ns_dim dim = ns_arch_dim(w->p->arch, layer, d->dim[i]);
        size *= (size_t)ns_dim_size(&dim);
    }
    assert_int_equal((size_t)x->rows * (size_t)x->cols, size);
    assert_int_equal(x->matrix, d->n_dims == 2);
    assert_int_equal(x->buffer, r == NS_W_GATE_CORRECTION);
    const size_t at = (size_t)(ns_params_at(w->p, w->flat, layer, r, expert) - w->flat);
    assert_int_equal(at, x->off + (size_t)expert * size);
    assert_true(at + size <= x->off + x->count);
    assert_true(w->p->bucket[b] <= x->off && x->off + x->count <= w->p->bucket[b + 1]);
    w->elements += size;
    return 0;
}

static void check_plan(const tiny_opts *o)
{
    ns_err e = { 0 };
    ns_arch *a = arch_of(o, NULL, NULL);
    ns_params p = plan_of(a);
    walk w = { .p = &p, .flat = malloc(p.count * sizeof(ns_real)) };
    ns_cut full;
    ns_cost cost;
    assert_int_equal(ns_manifest_each(a, visit, &w), 0);
    assert_int_equal(ns_cut_full(a, &full, &e), 0);
    assert_int_equal(ns_cut_cost(a, &full, NULL, NULL, &cost, &e), 0);
    free(w.flat);
    assert_int_equal(w.elements, p.count);
    assert_int_equal(cost.params_total, p.count);
    assert_int_equal(p.bucket[p.n_buckets], p.count);
    size_t at = 0;
    for (int i = 0; i < p.n; i++) {
        assert_int_equal(p.p[i].off, at);
        at += p.p[i].count;
    }
    assert_int_equal(at, p.count);
    const ns_param *head = ns_params_find(&p, -1, NS_W_LM_HEAD);
    assert_int_equal(head->role, o->tied ? NS_W_EMBED : NS_W_LM_HEAD);
    assert_null(ns_params_find(&p, 0, NS_W_Q)); /* layer 0 is Mamba */
    assert_null(ns_params_cat(&p, NULL, 0, NS_W_UP_BIAS, 0));
    ns_cut_release(&full);
    ns_params_release(&p);
    ns_arch_free(a);
}

static void test_plan(void **state)
{
    (void)state;
    tiny_opts o = tiny_defaults();
    check_plan(&o);
    o.tied = o.biases = true;
    o.latent = 32;
    check_plan(&o);
}

static double deviation(const ns_params *p, const ns_real *w, int layer, ns_role r)
{
    const ns_param *x = ns_params_find(p, layer, r);
    double sum = 0;
    for (size_t i = 0; i < x->count; i++)
        sum += (double)w[x->off + i] * (double)w[x->off + i];
    return sqrt(sum / (double)x->count);
}

/* Layers of "MEM*E-ME": 0 Mamba, 1 MoE, 3 attention, 5 dense. */
static void check_init(bool rescale)
{
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    o.biases = true;
    ns_arch *a = arch_of(&o, "rescale_prenorm_residual", json_boolean(rescale));
    ns_params p = plan_of(a);
    ns_real *w = malloc(p.count * sizeof *w);
    assert_int_equal(ns_params_init(&p, 3, w, &e), 0);
    const double range = 0.02, out = rescale ? range / sqrt(8) : range;
    const struct { int layer; ns_role r; double want; } linear[] = {
        { -1, NS_W_EMBED, range }, { 0, NS_W_IN_PROJ, range },  { 0, NS_W_OUT_PROJ, out },   { 1, NS_W_EXPERT_UP, range },
        { 1, NS_W_EXPERT_DOWN, out }, { 1, NS_W_GATE, range },  { 1, NS_W_SHARED_DOWN, out }, { 3, NS_W_Q, range },
        { 3, NS_W_O, out },        { 5, NS_W_DOWN, out },       { -1, NS_W_LM_HEAD, range },  { 0, NS_W_CONV, 0.5 / sqrt(3) } };
    for (size_t i = 0; i < sizeof linear / sizeof *linear; i++) {
        const double got = deviation(&p, w, linear[i].layer, linear[i].r);
        if (!(fabs(got / linear[i].want - 1) < 0.1))
            fail_msg("%s: deviation %g, expected %g", ns_weight_get(linear[i].r)->id, got, linear[i].want);
    }
    const ns_real *a_log = ns_params_cat(&p, w, 0, NS_W_A_LOG, 0), *dt = ns_params_cat(&p, w, 0, NS_W_DT_BIAS, 0);
    for (int h = 0; h < 8; h++) {
        assert_true(fabs((double)a_log[h] - log(h + 1)) < 1e-6);
        const double step = log1p(exp((double)dt[h]));
        assert_true(step > 0.999e-3 && step < 0.1001);
    }
    assert_true(fabs(deviation(&p, w, 0, NS_W_NORM) - 1) < 1e-6 && fabs(deviation(&p, w, 0, NS_W_D) - 1) < 1e-6);
    assert_true(deviation(&p, w, 3, NS_W_Q_BIAS) == 0 && deviation(&p, w, 1, NS_W_GATE_CORRECTION) == 0);
    free(w);
    ns_params_release(&p);
    ns_arch_free(a);
}

static void test_init(void **state)
{
    (void)state;
    check_init(true);
    check_init(false);
}

/* A tensor's numbers depend on the seed and its name: not on what else the model has. */
static void test_streams(void **state)
{
    (void)state;
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    ns_arch *a = arch_of(&o, NULL, NULL);
    ns_params p = plan_of(a);
    o.tied = true;
    o.experts = 4;
    ns_arch *b = arch_of(&o, NULL, NULL);
    ns_params q = plan_of(b);
    ns_real *x = malloc(p.count * sizeof *x), *y = malloc(p.count * sizeof *y), *z = malloc(q.count * sizeof *z);
    assert_int_equal(ns_params_init(&p, 3, x, &e), 0);
    assert_int_equal(ns_params_init(&p, 4, y, &e), 0);
    assert_int_equal(ns_params_init(&q, 3, z, &e), 0);
    const size_t expert = 48 * 64 * sizeof *x;
    assert_memory_equal(ns_params_at(&p, x, 1, NS_W_EXPERT_UP, 3), ns_params_at(&q, z, 1, NS_W_EXPERT_UP, 3), expert);
    assert_memory_not_equal(ns_params_at(&p, x, 1, NS_W_EXPERT_UP, 3), ns_params_at(&p, x, 1, NS_W_EXPERT_UP, 2), expert);
    assert_memory_not_equal(ns_params_at(&p, x, 1, NS_W_EXPERT_UP, 3), ns_params_at(&p, y, 1, NS_W_EXPERT_UP, 3), expert);
    free(x);
    free(y);
    free(z);
    ns_params_release(&p);
    ns_params_release(&q);
    ns_arch_free(a);
    ns_arch_free(b);
}

static void test_refusals(void **state)
{
    (void)state;
    tiny_opts o = tiny_defaults();
    const struct { const char *key; double value; const char *says; } bad[] = {
        { "initializer_range", -1, "initializer_range" }, { "time_step_min", 0.5, "time_step_min 0.5 is over time_step_max 0.1" } };
    for (size_t i = 0; i < 2; i++) {
        ns_err e = { 0 };
        ns_arch *a = arch_of(&o, bad[i].key, json_real(bad[i].value));
        ns_params p = plan_of(a);
        ns_real *w = malloc(p.count * sizeof *w);
        assert_int_equal(ns_params_init(&p, 3, w, &e), -1);
        assert_non_null(strstr(e.msg, bad[i].says));
        free(w);
        ns_params_release(&p);
        ns_arch_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_plan), cmocka_unit_test(test_init), cmocka_unit_test(test_streams),
                                        cmocka_unit_test(test_refusals) };
    return cmocka_run_group_tests_name("params", tests, tiny_setup, tiny_teardown);
}
