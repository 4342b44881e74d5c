#include "prop/prop.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/format.h"

static void die(const ns_err *e)
{
    fprintf(stderr, "prop: %s\n", e->msg);
    abort();
}

static void *need(void *p)
{
    if (!p)
        die(&(ns_err){ .msg = "out of memory" });
    return p;
}

prop_model prop_open(ns_ckpt *ck, const ns_ops *ops, int n_threads)
{
    ns_err e = { 0 };
    prop_model p = { .ck = ck, .pool = ns_pool_new(n_threads, &e) };
    if (!p.pool || ns_model_init(&p.m, ck, ops, p.pool, &e) != 0)
        die(&e);
    return p;
}

void prop_close(prop_model *p)
{
    ns_model_release(&p->m);
    ns_pool_free(p->pool);
    ns_ckpt_close(p->ck);
}

int prop_pick(ns_rng *r, int n)
{
    return (int)(ns_rng_u64(r) % (uint64_t)n);
}

/* ---- feeds ---- */

prop_feed prop_whole(int n)
{
    return (prop_feed){ .n = 1, .step = { n } };
}

prop_feed prop_prefill_decode(int prefill, int decode)
{
    prop_feed f = prop_whole(prefill);
    for (int i = 0; i < decode; i++)
        f.step[f.n++] = 1;
    return f;
}

prop_feed prop_steps(int n)
{
    return prop_prefill_decode(1, n - 1);
}

prop_feed prop_random_feed(int n, ns_rng *r)
{
    prop_feed f = { 0 };
    while (n > 0) {
        int most = prop_pick(r, 3) ? 7 : 100, k = 1 + prop_pick(r, most < n ? most : n);
        f.step[f.n++] = k;
        n -= k;
    }
    return f;
}

static int total(const prop_feed *f)
{
    int n = 0;
    for (int i = 0; i < f->n; i++)
        n += f->step[i];
    return n;
}

/* ---- runs ---- */

struct recorder {
    prop_trace *t;
    size_t cap;
    int hidden;
};

static void on_hidden(void *ctx, int layer, const float *x, int n_tokens, int hidden)
{
    struct recorder *r = ctx;
    size_t live = (size_t)(r->hidden ? r->hidden : hidden), n = (size_t)n_tokens * live;
    (void)layer;
    if (r->t->n_x + n > r->cap) {
        r->cap = 2 * r->cap + n;
        r->t->x = need(realloc(r->t->x, r->cap * sizeof(float)));
    }
    for (int i = 0; i < n_tokens; i++)
        memcpy(r->t->x + r->t->n_x + (size_t)i * live, x + (size_t)i * (size_t)hidden, live * sizeof(float));
    r->t->n_x += n;
}

static void run(const ns_plan *p, ns_state *s, const int *ids, const prop_feed *f, float *logits, const ns_step_tap *tap)
{
    ns_err e = { 0 };
    ns_scratch *scratch = need(ns_scratch_new());
    for (int i = 0; i < f->n; ids += f->step[i++]) {
        ns_item item = { .state = s, .ids = ids, .n = f->step[i], .n_logits = logits ? f->step[i] : 0, .logits = logits };
        if (ns_forward(p, &item, 1, scratch, tap, &e) != 0)
            die(&e);
        if (logits)
            logits += (size_t)f->step[i] * (size_t)p->model->arch->vocab_size;
    }
    ns_scratch_free(scratch);
}

void prop_continue(const ns_plan *p, ns_state *s, const int *ids, const prop_feed *f, float *logits)
{
    run(p, s, ids, f, logits, NULL);
}

prop_trace prop_run(const ns_plan *p, const int *ids, const prop_feed *f, int hidden)
{
    ns_err e = { 0 };
    int n = total(f);
    prop_trace t = { .n_logits = (size_t)n * (size_t)p->model->arch->vocab_size };
    struct recorder r = { &t, 0, hidden };
    ns_step_tap tap = { .ctx = &r, .hidden = on_hidden };
    t.logits = need(malloc(t.n_logits * sizeof(float)));
    t.state = ns_model_state(p->model, &p->cut, n, &e);
    if (!t.state)
        die(&e);
    run(p, t.state, ids, f, t.logits, &tap);
    return t;
}

void prop_trace_release(prop_trace *t)
{
    free(t->x);
    free(t->logits);
    ns_state_free(t->state);
    *t = (prop_trace){ 0 };
}

ns_plan *prop_plan(const prop_model *m, const ns_cut *c)
{
    ns_err e = { 0 };
    ns_plan *p = ns_plan_new(&m->m, c, &e);
    if (!p)
        die(&e);
    return p;
}

ns_plan *prop_plan_masked(const prop_model *m, const ns_cut *c)
{
    ns_err e = { 0 };
    ns_plan *p = ns_plan_new_masked(&m->m, c, &e);
    if (!p)
        die(&e);
    return p;
}

int *prop_ids(const prop_model *m, int n, ns_rng *r)
{
    int *ids = need(malloc((size_t)n * sizeof *ids));
    for (int i = 0; i < n; i++)
        ids[i] = prop_pick(r, m->ck->arch->vocab_size);
    return ids;
}

/* ---- comparisons ---- */

double prop_diff(const float *a, const float *b, size_t n)
{
    double diff = 0.0, max = 1e-30;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i]))
            return INFINITY;
        diff = fmax(diff, fabs((double)a[i] - (double)b[i]));
        max = fmax(max, fabs((double)b[i]));
    }
    return diff / max;
}

void prop_same(const float *a, const float *b, size_t n, const char *what)
{
    size_t differ = 0, first = 0;
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0 && differ++ == 0)
            first = i;
    if (differ)
        fail_msg("%s: %zu of %zu values differ, the first at %zu: %.9g and %.9g; relative %.2e", what, differ, n, first, (double)a[first],
                 (double)b[first], prop_diff(a, b, n));
}

void prop_same_trace(const prop_trace *a, const prop_trace *b, const char *what)
{
    char label[600];
    assert_int_equal(a->n_x, b->n_x);
    assert_int_equal(a->n_logits, b->n_logits);
    snprintf(label, sizeof label, "%s: residual stream", what);
    prop_same(a->x, b->x, a->n_x, label);
    snprintf(label, sizeof label, "%s: logits", what);
    prop_same(a->logits, b->logits, a->n_logits, label);
}

typedef void part_fn(void *ctx, const float *a, const float *b, size_t n, const char *what);

/* Keys or values of one kv head as floats, in units of the layer's scale; to be freed. */
static float *cache_of(const ns_state *s, const uint8_t *cache, int head)
{
    size_t n = (size_t)s->len * (size_t)s->arch->head_dim;
    const ns_mat m = { .dtype = s->kv, .rows = 1, .cols = (int)n, .data = cache + (size_t)head * (size_t)s->context * ns_state_row(s),
                       .global_scale = 1 };
    float *x = need(malloc((n + 1) * sizeof *x));
    ns_row_decode(&m, 0, 0, (int)n, x);
    return x;
}

static void each_part(const ns_state *a, const ns_state *b, const char *what, part_fn *fn, void *ctx)
{
    char label[600];
    assert_int_equal(a->len, b->len);
    assert_int_equal(a->kv, b->kv);
    for (int i = 0; i < a->arch->n_layers; i++) {
        const ns_layer_state *la = &a->layer[i], *lb = &b->layer[i];
        size_t hd = (size_t)a->arch->head_dim;
        assert_int_equal(la->conv_len, lb->conv_len);
        assert_int_equal(la->ssm_len, lb->ssm_len);
        snprintf(label, sizeof label, "%s: conv state of layer %d", what, i);
        fn(ctx, la->conv, lb->conv, la->conv_len, label);
        snprintf(label, sizeof label, "%s: SSM state of layer %d", what, i);
        fn(ctx, la->ssm, lb->ssm, la->ssm_len, label);
        bool kv = a->arch->layers[i].kind == NS_LAYER_ATTENTION && a->cut.layer[i].keep && b->cut.layer[i].keep;
        snprintf(label, sizeof label, "%s: keys and values of layer %d", what, i);
        for (int g = 0; kv && g < 2 * a->arch->n_kv_heads; g++) {
            float *x = cache_of(a, g % 2 ? la->v : la->k, g / 2), *y = cache_of(b, g % 2 ? lb->v : lb->k, g / 2);
            fn(ctx, x, y, (size_t)a->len * hd, label);
            free(x);
            free(y);
        }
    }
}

static void same_part(void *ctx, const float *a, const float *b, size_t n, const char *what)
{
    (void)ctx;
    prop_same(a, b, n, what);
}

static void diff_part(void *ctx, const float *a, const float *b, size_t n, const char *what)
{
    double *worst = ctx;
    (void)what;
    *worst = fmax(*worst, prop_diff(a, b, n));
}

void prop_same_state(const ns_state *a, const ns_state *b, const char *what)
{
    each_part(a, b, what, same_part, NULL);
}

double prop_state_diff(const ns_state *a, const ns_state *b)
{
    double worst = 0.0;
    each_part(a, b, "state", diff_part, &worst);
    return worst;
}

/* ---- variants ---- */

void prop_variants(prop_variant v[PROP_VARIANTS])
{
    static const struct {
        const char *name, *dtype;
    } list[PROP_VARIANTS] = { { "f32", "f32" },       { "f16", "f16" },       { "bf16", "bf16" },     { "fp8", "fp8" },
                              { "nvfp4", "nvfp4" },   { "fp8-all", "fp8-all" }, { "nvfp4-all", "nvfp4-all" },
                              { "groups", "f32" },    { "latent", "bf16" },   { "tied", "f32" },      { "biases", "f32" } };
    for (int i = 0; i < PROP_VARIANTS; i++) {
        v[i] = (prop_variant){ list[i].name, tiny_defaults() };
        v[i].o.dtype = list[i].dtype;
        v[i].o.seed = (uint64_t)(100 + i);
    }
    v[7].o.n_group = 2;
    v[7].o.topk_group = 1;
    v[7].o.mamba_groups = 4;
    v[8].o.latent = 32;
    v[8].o.pattern = "EMM*E-*M";
    v[9].o.tied = true;
    v[9].o.pattern = "*-EMME";
    v[10].o.biases = true;
}

bool prop_quantised(const tiny_opts *o)
{
    return strncmp(o->dtype, "nvfp4", 5) == 0;
}
