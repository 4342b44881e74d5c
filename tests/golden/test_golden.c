/* Logits, the residual stream after every layer and the router's picks, against Hugging Face's implementation (fixtures made by
 * tools/export_golden.py), on every rung of this machine. Quantised fixtures: the same model dequantised in the oracle. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/model.h"

struct compare {
    const ns_store *want;
    int n, n_expected;       /* positions run; positions in the fixture (the last ones) */
    const ns_arch *arch;
    double worst_hidden, worst_weight;
    bool picks_differ;
};

static double at(const ns_tensor *t, size_t i)
{
    float f;
    int32_t k;
    if (t->dtype == NS_I32) {
        memcpy(&k, t->data + 4 * i, 4);
        return k;
    }
    memcpy(&f, t->data + 4 * i, 4);
    return (double)f;
}

/* max |got - want| / max |want| */
static double difference(const float *got, const ns_tensor *want, size_t n)
{
    double diff = 0.0, max = 1e-30;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - at(want, i));
        diff = d > diff || isnan(d) ? d : diff;
        max = fmax(max, fabs(at(want, i)));
    }
    return diff / max;
}

static void on_hidden(void *ctx, int layer, const float *x, int n_tokens, int hidden)
{
    struct compare *c = ctx;
    char name[40];
    snprintf(name, sizeof name, "hidden.%d", layer);
    const ns_tensor *want = ns_store_find(c->want, name);
    assert_non_null(want);
    int skip = n_tokens - c->n_expected;
    double d = difference(x + (size_t)skip * (size_t)hidden, want, (size_t)c->n_expected * (size_t)hidden);
    c->worst_hidden = fmax(c->worst_hidden, d);
}

static void on_router(void *ctx, int layer, const int *expert, const float *weight, int n_tokens, int topk)
{
    struct compare *c = ctx;
    char name[60];
    int index = 0;
    for (int i = 0; i < layer; i++)
        index += c->arch->layers[i].kind == NS_LAYER_MOE;
    snprintf(name, sizeof name, "router.%d.indices_sorted", index);
    const ns_tensor *want = ns_store_find(c->want, name);
    snprintf(name, sizeof name, "router.%d.weights", index);
    const ns_tensor *want_weight = ns_store_find(c->want, name);
    if (!want)
        return;
    for (int t = n_tokens - c->n_expected, row = 0; t < n_tokens; t++, row++)
        for (int j = 0; j < topk; j++) {
            int rank = 0; /* of this pick among the token's picks by index */
            for (int k = 0; k < topk; k++)
                rank += expert[t * topk + k] < expert[t * topk + j];
            size_t i = (size_t)(row * topk + rank);
            if ((int)at(want, i) != expert[t * topk + j])
                c->picks_differ = true;
            c->worst_weight = fmax(c->worst_weight, fabs(at(want_weight, i) - (double)weight[t * topk + j]));
        }
}

static bool has_nvfp4(const ns_ckpt *c)
{
    for (size_t i = 0; i < ns_store_count(c->store); i++)
        if (ns_store_at(c->store, i)->dtype == NS_U8 && strncmp(ns_store_at(c->store, i)->name, "mtp", 3) != 0)
            return true;
    return false;
}

static void run_fixture(const char *dir, const ns_ops *ops, ns_pool *pool)
{
    ns_err e = { 0 };
    char path[600];
    ns_ckpt *ck = ns_ckpt_open(dir, NULL, &e);
    if (!ck)
        fail_msg("%s: %s", dir, e.msg);
    snprintf(path, sizeof path, "%s/expected.safetensors", dir);
    ns_store *want = ns_store_open(path, NS_LOAD_MMAP, &e);
    assert_non_null(want);
    const ns_tensor *ids_t = ns_store_find(want, "input_ids"), *logits_t = ns_store_find(want, "logits");
    int n = (int)ids_t->shape[0], *ids = malloc((size_t)n * sizeof *ids), vocab = ck->arch->vocab_size;
    for (int i = 0; i < n; i++)
        ids[i] = (int)at(ids_t, (size_t)i);
    ns_model m;
    ns_cut full;
    assert_int_equal(ns_model_init(&m, ck, ops, pool, &e), 0);
    assert_int_equal(ns_cut_full(ck->arch, &full, &e), 0);
    ns_plan *plan = ns_plan_new(&m, &full, &e);
    ns_scratch *s = ns_scratch_new();
    ns_state *state = ns_state_new(ck->arch, &full, NS_F32, n, &e);
    struct compare c = { .want = want, .n = n, .n_expected = (int)logits_t->shape[0], .arch = ck->arch };
    float *logits = malloc((size_t)c.n_expected * (size_t)vocab * sizeof *logits);
    ns_item item = { .state = state, .ids = ids, .n = n, .n_logits = c.n_expected, .logits = logits };
    ns_step_tap tap = { .ctx = &c, .hidden = on_hidden, .router = on_router };
    if (ns_forward(plan, &item, 1, s, &tap, &e) != 0)
        fail_msg("%s: %s", dir, e.msg);
    double d = difference(logits, logits_t, (size_t)c.n_expected * (size_t)vocab);
    /* The NVFP4 products of the vector rungs round activations to 16 bits; a picked expert may not flip. */
    double tol = has_nvfp4(ck) && strcmp(ops->name, "ref") != 0 ? 5e-4 : 1e-4;
    printf("%-60s %-6s logits %.1e hidden %.1e router weight %.1e\n", strrchr(dir, '/') + 1, ops->name, d, c.worst_hidden, c.worst_weight);
    if (!(d < tol) || !(c.worst_hidden < tol) || !(c.worst_weight < tol) || c.picks_differ)
        fail_msg("%s on %s: logits %.3g, hidden %.3g, router weights %.3g (tolerance %.0e), picks %s", dir, ops->name, d, c.worst_hidden,
                 c.worst_weight, tol, c.picks_differ ? "differ" : "agree");
    free(logits);
    free(ids);
    ns_state_free(state);
    ns_scratch_free(s);
    ns_plan_free(plan);
    ns_cut_release(&full);
    ns_model_release(&m);
    ns_store_close(want);
    ns_ckpt_close(ck);
}

static int run_folder(const char *root)
{
    DIR *d = opendir(root);
    ns_err e = { 0 };
    ns_pool *pool = ns_pool_new(2, &e);
    int n = 0;
    for (struct dirent *ent; d && (ent = readdir(d));) {
        char dir[500], config[600];
        snprintf(dir, sizeof dir, "%s/%s", root, ent->d_name);
        snprintf(config, sizeof config, "%s/expected.safetensors", dir);
        FILE *f = fopen(config, "rb");
        if (!f)
            continue;
        fclose(f);
        n++;
        for (int r = 0; r < NS_RUNG_COUNT; r++)
            if (ns_ops_find((enum ns_rung)r))
                run_fixture(dir, ns_ops_find((enum ns_rung)r), pool);
    }
    if (d)
        closedir(d);
    ns_pool_free(pool);
    return n;
}

static void fixtures(void **state)
{
    (void)state;
    const char *src = getenv("NS_TEST_SRC");
    char root[400];
    snprintf(root, sizeof root, "%s/tests/golden/fixtures", src ? src : ".");
    assert_true(run_folder(root) >= 14);
}

static void shared_vectors(void **state)
{
    (void)state;
    const char *data = getenv("NS_TEST_DATA");
    char root[400];
    if (!data || !*data) {
        printf("skipped: no shared data\n");
        skip();
    }
    snprintf(root, sizeof root, "%s/vectors/hf_nemotron_h", data);
    assert_int_equal(run_folder(root), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(fixtures), cmocka_unit_test(shared_vectors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
