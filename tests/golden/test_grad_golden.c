/* Losses, gradients of every parameter and five AdamW steps, against autograd through Hugging Face's implementation in float64
 * (fixtures made by tools/export_grads.py, which says what they hold). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "block/net.h"
#include "store/safetensors.h"
#include "train/optim.h"

/* Bounds for our float32. PyTorch's own float32 misses its float64 by up to 2e-5 (gradients), 1e-6 (losses), 7e-5 (norms) and 6e-3
 * (parameters after the steps); manifest.json has it per fixture. */
#define GRAD_TOL 5e-5   /* max |difference| / max |expected| of a tensor */
#define GRAD_FLOOR 1e-7 /* of the largest gradient of all: k_proj's bias has gradient zero, and rounding there is not an error */
#define LOSS_TOL 1e-5   /* relative */
#define TOKEN_TOL 2e-5  /* of the largest token loss */
#define NORM_TOL 5e-4   /* relative, of gradients on the way: rounding of earlier steps has moved the parameters */
#define FINAL_TOL 1e-2  /* in steps of the learning rate */

enum { GRAD_CE, GRAD_KD, FINAL }; /* the rows of an expected tensor */

typedef struct fixture {
    const char *name;
    const json_t *want; /* scalars of the manifest */
    ns_arch *arch;
    ns_params p;
    ns_store *model, *expected;
    ns_seqs seqs;
    int *target;
    float *weight, *w; /* w: flat parameters */
    ns_blas *blas;
} fixture;

static json_t *manifest;
static char root[400];

static const ns_tensor *tensor(const ns_store *s, const char *name)
{
    ns_err e = { 0 };
    const ns_tensor *t = ns_store_get(s, name, &e);
    if (!t)
        fail_msg("%s", e.msg);
    return t;
}

/* The tensor's 4-byte elements as they are. */
static void *copy_of(const ns_store *s, const char *name)
{
    const ns_tensor *t = tensor(s, name);
    void *out = malloc(t->bytes);
    assert_non_null(out);
    memcpy(out, t->data, t->bytes);
    return out;
}

static double number(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    if (!json_is_number(v))
        fail_msg("manifest.json: no number %s", key);
    return json_number_value(v);
}

static size_t matrix_size(const ns_param *x)
{
    return (size_t)x->rows * (size_t)x->cols;
}

/* Calls fn for every tensor as published: name, place in a flat array, elements. */
typedef void each_fn(void *ctx, const ns_param *x, const char *name, size_t off, size_t n);
static void each_tensor(const ns_params *p, each_fn *fn, void *ctx)
{
    for (int i = 0; i < p->n; i++)
        for (int k = 0; k < (p->p[i].n_experts ? p->p[i].n_experts : 1); k++) {
            char name[256];
            ns_weight_name(p->p[i].layer, p->p[i].role, k, name, sizeof name);
            fn(ctx, &p->p[i], name, p->p[i].off + (size_t)k * matrix_size(&p->p[i]), matrix_size(&p->p[i]));
        }
}

static void load_tensor(void *ctx, const ns_param *x, const char *name, size_t off, size_t n)
{
    (void)x;
    fixture *f = ctx;
    const ns_tensor *t = tensor(f->model, name);
    assert_int_equal(t->bytes, n * sizeof(float));
    memcpy(f->w + off, t->data, t->bytes);
}

static void fixture_open(fixture *f, const char *name)
{
    ns_err e = { 0 };
    char path[500];
    *f = (fixture){ .name = name, .want = json_object_get(json_object_get(manifest, "fixtures"), name) };
    assert_non_null(f->want);
    snprintf(path, sizeof path, "%s/%s/config.json", root, name);
    f->arch = ns_arch_open(path, &e);
    if (!f->arch || ns_params_plan(f->arch, &f->p, &e) != 0)
        fail_msg("%s", e.msg);
    snprintf(path, sizeof path, "%s/%s/model.safetensors", root, name);
    f->model = ns_store_open(path, NS_LOAD_MMAP, &e);
    snprintf(path, sizeof path, "%s/%s/expected.safetensors", root, name);
    f->expected = ns_store_open(path, NS_LOAD_MMAP, &e);
    f->blas = ns_blas_open(&e);
    if (!f->model || !f->expected || !f->blas)
        fail_msg("%s", e.msg);
    f->seqs.n_tokens = (int)tensor(f->expected, "ids")->shape[0];
    f->seqs.n_seqs = (int)tensor(f->expected, "start")->shape[0] - 1;
    f->seqs.ids = copy_of(f->expected, "ids");
    f->seqs.start = copy_of(f->expected, "start");
    f->target = copy_of(f->expected, "target");
    f->weight = copy_of(f->expected, "weight");
    f->w = calloc(f->p.count, sizeof *f->w);
    assert_non_null(f->w);
    each_tensor(&f->p, load_tensor, f);
}

static void fixture_close(fixture *f)
{
    free((void *)f->seqs.ids);
    free((void *)f->seqs.start);
    free(f->target);
    free(f->weight);
    free(f->w);
    ns_blas_close(f->blas);
    ns_store_close(f->expected);
    ns_store_close(f->model);
    ns_params_release(&f->p);
    ns_arch_free(f->arch);
}

static ns_net *net_of(const fixture *f, ns_recompute recompute, bool forward_only)
{
    ns_err e = { 0 };
    ns_net_opts o = { .max_tokens = f->seqs.n_tokens + 3,
                      .max_seqs = f->seqs.n_seqs + 1,
                      .recompute = recompute,
                      .forward_only = forward_only };
    ns_net *n = ns_net_new(&f->p, f->blas, &o, &e);
    if (!n)
        fail_msg("%s", e.msg);
    return n;
}

/* ---- comparing ---- */

typedef struct compare {
    const fixture *f;
    const float *got; /* flat */
    int row;
    double scale, worst;
    char where[256];
} compare;

static double expected_at(const ns_tensor *t, int row, size_t n, size_t i)
{
    float v;
    memcpy(&v, t->data + ((size_t)row * n + i) * sizeof v, sizeof v);
    return (double)v;
}

static void note(compare *c, double d, const char *name)
{
    if (d > c->worst || isnan(d)) {
        c->worst = d;
        snprintf(c->where, sizeof c->where, "%s", name);
    }
}

static void largest(void *ctx, const ns_param *x, const char *name, size_t off, size_t n)
{
    (void)off;
    compare *c = ctx;
    if (x->buffer)
        return;
    const ns_tensor *t = tensor(c->f->expected, name);
    for (size_t i = 0; i < n; i++)
        c->scale = fmax(c->scale, fabs(expected_at(t, c->row, n, i)));
}

static void compare_gradient(void *ctx, const ns_param *x, const char *name, size_t off, size_t n)
{
    compare *c = ctx;
    if (x->buffer) {
        for (size_t i = 0; i < n; i++)
            assert_true(c->got[off + i] == 0.0f);
        return;
    }
    const ns_tensor *t = tensor(c->f->expected, name);
    assert_int_equal(t->bytes, 3 * n * sizeof(float));
    double diff = 0, max = 0;
    for (size_t i = 0; i < n; i++) {
        double want = expected_at(t, c->row, n, i), d = fabs((double)c->got[off + i] - want);
        diff = d > diff || isnan(d) ? d : diff;
        max = fmax(max, fabs(want));
    }
    note(c, diff / (max + GRAD_FLOOR / GRAD_TOL * c->scale), name);
}

static void compare_final(void *ctx, const ns_param *x, const char *name, size_t off, size_t n)
{
    compare *c = ctx;
    if (x->buffer || x->role == NS_W_K_BIAS) /* AdamW makes whole steps of the sign of its rounding */
        return;
    const ns_tensor *t = tensor(c->f->expected, name);
    for (size_t i = 0; i < n; i++)
        note(c, fabs((double)c->got[off + i] - expected_at(t, c->row, n, i)) / c->scale, name);
}

static void check_gradients(const fixture *f, const float *g, int row, const char *what)
{
    compare c = { .f = f, .got = g, .row = row };
    each_tensor(&f->p, largest, &c);
    each_tensor(&f->p, compare_gradient, &c);
    printf("%-15s %-28s worst gradient %.1e of %s\n", f->name, what, c.worst, c.where);
    if (!(c.worst < GRAD_TOL))
        fail_msg("%s, %s: gradient of %s misses by %.3g of its largest entry", f->name, what, c.where, c.worst);
}

static void check_number(const fixture *f, const char *what, double got, double want, double tol)
{
    if (!(fabs(got - want) <= tol * fabs(want)))
        fail_msg("%s: %s is %.9g, expected %.9g", f->name, what, got, want);
}

static void check_tokens(const fixture *f, const char *name, const float *got)
{
    const ns_tensor *t = tensor(f->expected, name);
    double max = 0;
    for (int i = 0; i < f->seqs.n_tokens; i++)
        max = fmax(max, fabs(expected_at(t, 0, 0, (size_t)i)));
    for (int i = 0; i < f->seqs.n_tokens; i++)
        if (f->weight[i] > 0 && !(fabs((double)got[i] - expected_at(t, 0, 0, (size_t)i)) < TOKEN_TOL * max))
            fail_msg("%s: %s of token %d is %.9g, expected %.9g", f->name, name, i, (double)got[i], expected_at(t, 0, 0, (size_t)i));
}

/* ---- the three checks ---- */

static ns_loss_spec cross_entropy(const fixture *f)
{
    return (ns_loss_spec){ .target = f->target, .weight = f->weight, .ce = 1, .temperature = 1, .scale = 1 / number(f->want, "weight") };
}

/* Forward, loss, backward; g is zeroed first. */
static ns_loss gradients(const fixture *f, ns_net *n, const float *w, const ns_loss_spec *spec, float *g, float *per_token)
{
    ns_loss loss = { 0 };
    memset(g, 0, f->p.count * sizeof *g);
    ns_net_forward(n, w, NULL, &f->seqs);
    ns_net_loss(n, w, NULL, spec, g, per_token, &loss);
    ns_net_backward(n, w, NULL, g, NULL, NULL);
    check_number(f, "the sum of weights", loss.weight, number(f->want, "weight"), 1e-12);
    return loss;
}

static void check_ce(const fixture *f)
{
    float *g = calloc(f->p.count, sizeof *g), *per_token = calloc((size_t)f->seqs.n_tokens, sizeof *per_token);
    assert_true(g && per_token);
    const ns_loss_spec spec = cross_entropy(f);
    for (int r = NS_RECOMPUTE_NONE; r <= NS_RECOMPUTE_LAYER; r++) {
        ns_net *n = net_of(f, (ns_recompute)r, false);
        for (int again = 0; again < 2; again++) { /* nothing of the first pass is left for the second */
            ns_loss loss = gradients(f, n, f->w, &spec, g, per_token);
            check_number(f, "cross-entropy", loss.loss * spec.scale, number(f->want, "ce"), LOSS_TOL);
            check_number(f, "top-1 hits", loss.top1, number(f->want, "top1"), 1e-12);
        }
        check_tokens(f, "ce", per_token);
        check_gradients(f, g, GRAD_CE, r ? "cross-entropy, recomputing" : "cross-entropy");
        ns_net_free(n);
    }
    free(g);
    free(per_token);
}

typedef struct reversal {
    const float *from;
    float *to;
} reversal;

static void reverse_tensor(void *ctx, const ns_param *x, const char *name, size_t off, size_t n)
{
    (void)x, (void)name;
    reversal *r = ctx;
    for (size_t i = 0; i < n; i++)
        r->to[off + i] = r->from[off + n - 1 - i];
}

static void check_kd(const fixture *f)
{
    const json_t *kd = json_object_get(f->want, "kd");
    float *g = calloc(f->p.count, sizeof *g), *teacher = calloc(f->p.count, sizeof *teacher);
    float *per_token = calloc((size_t)f->seqs.n_tokens, sizeof *per_token);
    assert_true(g && teacher && per_token);
    each_tensor(&f->p, reverse_tensor, &(reversal){ f->w, teacher });
    ns_net *n = net_of(f, NS_RECOMPUTE_NONE, false), *t = net_of(f, NS_RECOMPUTE_NONE, true);
    ns_net_forward(t, teacher, NULL, &f->seqs);
    ns_loss_spec spec = cross_entropy(f);
    spec.ce = (float)number(kd, "ce");
    spec.kd = (float)number(kd, "kd");
    spec.temperature = (float)number(kd, "temperature");
    spec.teacher = ns_net_hidden(t);
    spec.teacher_w = teacher;
    ns_loss loss = gradients(f, n, f->w, &spec, g, per_token);
    check_number(f, "the distillation loss", loss.loss * spec.scale, number(f->want, "kd_loss"), LOSS_TOL);
    check_number(f, "tokens that agree", loss.agree, number(f->want, "agree"), 1e-12);
    check_tokens(f, "kd", per_token);
    check_gradients(f, g, GRAD_KD, "distillation");
    ns_net_free(n);
    ns_net_free(t);
    free(g);
    free(teacher);
    free(per_token);
}

/* Scales to a global norm of at most `clip`; returns the norm before. */
static double clip_norm(const fixture *f, float *g, double clip)
{
    double sum = 0;
    for (size_t i = 0; i < f->p.count; i++)
        sum += (double)g[i] * (double)g[i];
    const double norm = sqrt(sum);
    if (norm > clip)
        for (size_t i = 0; i < f->p.count; i++)
            g[i] = (float)((double)g[i] * clip / norm);
    return norm;
}

static void check_steps(const fixture *f)
{
    const json_t *adamw = json_object_get(manifest, "adamw"), *losses = json_object_get(f->want, "losses");
    const json_t *norms = json_object_get(f->want, "grad_norms");
    const int steps = (int)number(adamw, "steps");
    const size_t count = f->p.count;
    ns_adamw_opts o = ns_adamw_defaults();
    o.lr = number(adamw, "lr"), o.beta1 = number(adamw, "beta1"), o.beta2 = number(adamw, "beta2"), o.eps = number(adamw, "eps");
    o.weight_decay = number(adamw, "weight_decay");
    float *mem = calloc(4 * count, sizeof *mem), *w = mem, *g = mem + count, *m = mem + 2 * count, *v = mem + 3 * count;
    assert_non_null(mem);
    memcpy(w, f->w, count * sizeof *w);
    ns_net *n = net_of(f, NS_RECOMPUTE_NONE, false);
    const ns_loss_spec spec = cross_entropy(f);
    double worst = 0;
    for (int t = 1; t <= steps + 1; t++) {
        ns_loss loss = gradients(f, n, w, &spec, g, NULL);
        const double want = json_number_value(json_array_get(losses, (size_t)t - 1));
        worst = fmax(worst, fabs(loss.loss * spec.scale / want - 1));
        check_number(f, "a loss on the way", loss.loss * spec.scale, want, LOSS_TOL);
        if (t > steps)
            break;
        check_number(f, "a gradient norm", clip_norm(f, g, number(adamw, "clip")), json_number_value(json_array_get(norms, (size_t)t - 1)),
                     NORM_TOL);
        for (int i = 0; i < f->p.n; i++) {
            const ns_param *x = &f->p.p[i];
            if (!x->buffer)
                ns_adamw_step(&o, t, x->count, w + x->off, g + x->off, m + x->off, v + x->off, x->matrix);
        }
    }
    compare c = { .f = f, .got = w, .row = FINAL, .scale = o.lr };
    each_tensor(&f->p, compare_final, &c);
    printf("%-15s %-28s worst loss %.1e, parameter %.1e steps of %s\n", f->name, "five AdamW steps", worst, c.worst, c.where);
    if (!(c.worst < FINAL_TOL))
        fail_msg("%s: after %d steps %s is off by %.3g times the learning rate", f->name, steps, c.where, c.worst);
    ns_net_free(n);
    free(mem);
}

static void each_fixture(void (*check)(const fixture *f))
{
    const char *name;
    json_t *want;
    assert_true(json_object_size(json_object_get(manifest, "fixtures")) >= 8);
    json_object_foreach(json_object_get(manifest, "fixtures"), name, want) {
        fixture f;
        fixture_open(&f, name);
        check(&f);
        fixture_close(&f);
    }
}

static void gradients_of_cross_entropy(void **state)
{
    (void)state;
    each_fixture(check_ce);
}

static void gradients_of_distillation(void **state)
{
    (void)state;
    each_fixture(check_kd);
}

static void adamw_steps(void **state)
{
    (void)state;
    each_fixture(check_steps);
}

static int open_manifest(void **state)
{
    (void)state;
    ns_err e = { 0 };
    const char *src = getenv("NS_TEST_SRC");
    char path[500];
    snprintf(root, sizeof root, "%s/tests/golden/grads", src ? src : ".");
    snprintf(path, sizeof path, "%s/manifest.json", root);
    manifest = ns_json_open(path, false, &e);
    if (!manifest)
        fprintf(stderr, "%s\n", e.msg);
    return manifest ? 0 : -1;
}

static int close_manifest(void **state)
{
    (void)state;
    json_decref(manifest);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(gradients_of_cross_entropy), cmocka_unit_test(gradients_of_distillation),
                                        cmocka_unit_test(adamw_steps) };
    return cmocka_run_group_tests(tests, open_manifest, close_manifest);
}
