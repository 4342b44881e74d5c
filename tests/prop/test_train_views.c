/* The network in training computes what the engine computes, at any cut; a hard mask has the slice's gradients; a soft mask at one
 * choice is the hard mask; a packed batch is its sequences. Float, so up to the rounding of products that are summed in other orders. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "block/net.h"
#include "forge/slice.h"
#include "prop/prop_logits.h"
#include "train/folder_io.h"

enum { TOKENS = 37, CUTS = 8 };

/* A checkpoint in training. */
typedef struct trainee {
    ns_ckpt *c;
    ns_params p;
    ns_blas *blas;
    ns_net *net;
    ns_real *w, *g;
    ns_net_mask mask;
} trainee;

static void must(int rc, const ns_err *e)
{
    if (rc != 0)
        fail_msg("%s", e->msg);
}

static ns_real *reals(size_t n)
{
    ns_real *x = calloc(n, sizeof *x);
    assert_non_null(x);
    return x;
}

static void trainee_open(trainee *t, const char *dir)
{
    ns_err e = { 0 };
    ns_net_opts o = { .max_tokens = TOKENS, .max_seqs = 8 };
    *t = (trainee){ .c = ns_ckpt_open(dir, NULL, &e), .blas = ns_blas_open(&e) };
    must(t->c && t->blas ? 0 : -1, &e);
    must(ns_params_plan(t->c->arch, &t->p, &e), &e);
    must(ns_mask_init(t->c->arch, &t->mask, &e), &e);
    t->w = reals(t->p.count);
    t->g = reals(t->p.count);
    must(ns_params_load(&t->p, t->c, t->w, &e), &e);
    t->net = ns_net_new(&t->p, t->blas, &o, &e);
    must(t->net ? 0 : -1, &e);
}

static void trainee_close(trainee *t)
{
    ns_net_free(t->net);
    ns_mask_release(&t->mask);
    ns_params_release(&t->p);
    ns_blas_close(t->blas);
    ns_ckpt_close(t->c);
    free(t->w);
    free(t->g);
}

/* max |a - b| / max |b|, or over `least` where that is larger */
static double far_over(const ns_real *a, const ns_real *b, size_t n, double least)
{
    double diff = 0, max = least;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i]))
            return INFINITY;
        diff = fmax(diff, fabs((double)a[i] - (double)b[i]));
        max = fmax(max, fabs((double)b[i]));
    }
    return diff / max;
}

static double far(const ns_real *a, const ns_real *b, size_t n)
{
    return far_over(a, b, n, 1e-30);
}

/* Gradients by nature 0, as that of k_proj's bias, are rounding noise: they are held against the largest of the model. */
static double noise_floor(const ns_real *g, size_t n)
{
    double max = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, fabs((double)g[i]));
    return 1e-3 * max;
}

/* ---- a batch ---- */

typedef struct batch {
    int ids[TOKENS], target[TOKENS];
    ns_real weight[TOKENS];
    int start[9];
    ns_seqs seqs;
} batch;

static void batch_init(batch *b, int vocab, const int *lengths, int n_seqs, uint64_t seed)
{
    ns_rng r;
    ns_rng_init(&r, seed);
    *b = (batch){ 0 };
    for (int i = 0; i < n_seqs; i++)
        b->start[i + 1] = b->start[i] + lengths[i];
    for (int t = 0; t < b->start[n_seqs]; t++) {
        b->ids[t] = (int)(ns_rng_u64(&r) % (uint64_t)vocab);
        b->target[t] = (int)(ns_rng_u64(&r) % (uint64_t)vocab);
        b->weight[t] = (ns_real)ns_rng_uniform(&r);
    }
    b->seqs = (ns_seqs){ .n_tokens = b->start[n_seqs], .n_seqs = n_seqs, .ids = b->ids, .start = b->start };
}

static void one_sequence(batch *b, int vocab, uint64_t seed)
{
    batch_init(b, vocab, (int[]){ TOKENS }, 1, seed);
}

/* Forward, loss and backward; returns the loss and leaves gradients in t->g (from zero) and logits. */
static double run(trainee *t, const batch *b, ns_net_mask *mask, ns_real *logits)
{
    const ns_loss_spec spec = { .target = b->target, .weight = b->weight, .ce = 1, .temperature = 1, .scale = 1.0 / TOKENS };
    ns_loss loss = { 0 };
    memset(t->g, 0, t->p.count * sizeof *t->g);
    if (mask)
        ns_mask_zero_grad(mask);
    ns_net_forward(t->net, t->w, mask, &b->seqs);
    ns_net_logits(t->net, t->w, mask, 0, b->seqs.n_tokens, logits);
    ns_net_loss(t->net, t->w, mask, &spec, t->g, NULL, &loss);
    ns_net_backward(t->net, t->w, mask, t->g, NULL, NULL);
    return loss.loss;
}

/* ---- gradients of a cut: those of the slice, and nothing elsewhere ---- */

typedef struct segments {
    ns_arena arena;
    ns_segs rows, cols, experts;
} segments;

/* Of a weight as ns_param has it: a vector is one row, the taps of conv1d are whole. */
static segments segments_of(const ns_arch *a, const ns_cut *cut, const ns_param *p)
{
    static ns_seg one = { 0, 1 };
    const ns_weight_def *def = ns_weight_get(p->role);
    segments s = { .rows = { 1, 1, &one }, .experts = { 1, 1, &one } };
    const ns_dim_id col = p->role == NS_W_CONV ? NS_DIM_CONV_KERNEL : def->dim[def->n_dims - 1];
    assert_int_equal(ns_cut_segments(a, cut, p->layer, col, &s.arena, &s.cols), 0);
    if (def->n_dims > 1)
        assert_int_equal(ns_cut_segments(a, cut, p->layer, def->dim[0], &s.arena, &s.rows), 0);
    if (p->n_experts)
        assert_int_equal(ns_cut_segments(a, cut, p->layer, NS_DIM_EXPERTS, &s.arena, &s.experts), 0);
    return s;
}

/* Moves the live entries of `full` to `out` in the slice's order, leaving zeroes behind. Returns how many. */
static size_t extract(const segments *s, const ns_param *p, ns_real *full, ns_real *out)
{
    size_t n = 0;
    for (int ie = 0; ie < s->experts.n; ie++)
        for (int e = s->experts.seg[ie].off; e < s->experts.seg[ie].off + s->experts.seg[ie].len; e++)
            for (int ir = 0; ir < s->rows.n; ir++)
                for (int r = s->rows.seg[ir].off; r < s->rows.seg[ir].off + s->rows.seg[ir].len; r++)
                    for (int ic = 0; ic < s->cols.n; ic++)
                        for (int c = s->cols.seg[ic].off; c < s->cols.seg[ic].off + s->cols.seg[ic].len; c++, n++) {
                            ns_real *at = full + ((size_t)e * (size_t)p->rows + (size_t)r) * (size_t)p->cols + c;
                            out[n] = *at;
                            *at = 0;
                        }
    return n;
}

/* Layer of the slice that is layer i of the parent. */
static int layer_in_slice(const ns_cut *cut, int layer)
{
    int at = 0;
    for (int i = 0; i < layer; i++)
        at += cut->layer[i].keep;
    return layer < 0 ? -1 : at;
}

static double worst_logits, worst_gradient;

static void check_gradients(trainee *full, const trainee *slice, const ns_cut *cut, const char *what)
{
    ns_real *live = reals(full->p.count);
    const double least = noise_floor(slice->g, slice->p.count);
    for (int i = 0; i < full->p.n; i++) {
        const ns_param *p = &full->p.p[i], *q = NULL;
        ns_real *g = full->g + p->off;
        char label[400], name[200];
        ns_weight_name(p->layer, p->role, 0, name, sizeof name);
        snprintf(label, sizeof label, "%s: gradient of %s", what, name);
        if (p->layer < 0 || cut->layer[p->layer].keep) {
            segments s = segments_of(full->c->arch, cut, p);
            const size_t n = extract(&s, p, g, live);
            q = ns_params_find(&slice->p, layer_in_slice(cut, p->layer), p->role);
            assert_int_equal(n, q->count);
            const double d = far_over(live, slice->g + q->off, n, least);
            worst_gradient = fmax(worst_gradient, d);
            if (!(d < 1e-4))
                fail_msg("%s: differs from the slice's by %.2e", label, d);
            ns_arena_release(&s.arena);
        }
        for (size_t j = 0; j < p->count; j++)
            if (g[j] != 0)
                fail_msg("%s: %g at entry %zu, which the cut lacks", label, (double)g[j], j);
    }
    free(live);
}

/* Soft masks whose one share is this cut's width, among others. */
static void set_one_hot(const ns_arch *a, const ns_cut *cut, ns_net_mask *m)
{
    for (int i = -1; i < a->n_layers; i++)
        for (int x = i < 0 ? 0 : 1; x < (i < 0 ? 1 : NS_AXIS_COUNT); x++) {
            const int full = i < 0 ? a->hidden_size : a->layers[i].width[x];
            const int width[3] = { full, i < 0 ? ns_cut_hidden(cut) : cut->layer[i].keep ? cut->layer[i].width[x] : full, full };
            if (full > 0)
                ns_mask_set_soft(a, m, i, (ns_axis)x, 3, width, (const ns_real[]){ 0, 1, 0 });
        }
    for (int i = 0; i < a->n_layers; i++)
        m->layer[i].keep = cut->layer[i].keep;
}

static void check_masks_equal(const ns_net_mask *soft, const ns_net_mask *hard)
{
    assert_memory_equal(soft->hidden.m, hard->hidden.m, (size_t)hard->hidden.full * sizeof(ns_real));
    assert_true(soft->norm.eps_factor == hard->norm.eps_factor && soft->norm.scale == hard->norm.scale);
    for (int i = 0; i < hard->n_layers; i++) {
        const ns_layer_mask *s = &soft->layer[i], *h = &hard->layer[i];
        assert_true(s->keep == h->keep && s->gated.eps_factor == h->gated.eps_factor && s->gated.scale == h->gated.scale);
        for (int x = 0; x < NS_AXIS_COUNT; x++)
            if (h->axis[x].m)
                assert_memory_equal(s->axis[x].m, h->axis[x].m, (size_t)h->axis[x].full * sizeof(ns_real));
    }
}

/* A norm over a few channels magnifies their rounding where they are all near 0. */
static double allowed(const ns_cut *cut)
{
    return ns_cut_hidden(cut) < 8 ? 1e-4 : 1e-5;
}

/* One cut: engine, hard mask, soft mask at one choice, slice. */
static void try_cut(trainee *t, const char *dir, const ns_cut *cut, const char *what)
{
    ns_err e = { 0 };
    const size_t n = TOKENS * (size_t)t->c->arch->vocab_size;
    char *out = tiny_path(tiny_base, "slice");
    ns_real *logits = reals(n), *other = reals(n);
    trainee slice;
    batch b;
    one_sequence(&b, t->c->arch->vocab_size, 5);
    must(ns_slice(t->c, cut, out, NULL, &e), &e);
    trainee_open(&slice, out);
    const double loss_slice = run(&slice, &b, NULL, other);
    float *engine = prop_logits(dir, cut, b.ids, TOKENS);
    double d = far(other, engine, n);
    worst_logits = fmax(worst_logits, d);
    if (!(d < allowed(cut)))
        fail_msg("%s: the slice's net and the engine differ by %.2e", what, d);

    set_one_hot(t->c->arch, cut, &t->mask);
    const double loss_soft = run(t, &b, &t->mask, other);
    assert_true(fabs(loss_soft - loss_slice) < allowed(cut) * fabs(loss_slice));
    ns_net_mask hard;
    must(ns_mask_init(t->c->arch, &hard, &e), &e);
    ns_mask_set_cut(t->c->arch, cut, &hard);
    check_masks_equal(&t->mask, &hard);
    const double loss_hard = run(t, &b, &hard, logits);
    assert_true(fabs(loss_hard - loss_slice) < allowed(cut) * fabs(loss_slice));
    d = fmax(far(logits, engine, n), far(other, logits, n));
    worst_logits = fmax(worst_logits, d);
    if (!(d < allowed(cut)))
        fail_msg("%s: hard mask and engine, or soft and hard mask, differ by %.2e", what, d);
    check_gradients(t, &slice, cut, what);
    ns_mask_release(&hard);
    trainee_close(&slice);
    tiny_remove(out);
    free(out);
    free(engine);
    free(logits);
    free(other);
}

static void each_variant(void (*fn)(trainee *t, const char *dir, const char *name))
{
    prop_float v[PROP_FLOAT_VARIANTS];
    prop_float_variants(v);
    for (int i = 0; i < PROP_FLOAT_VARIANTS; i++) {
        char *dir = tiny_path(tiny_base, v[i].name);
        trainee t;
        if (tiny_make(dir, &v[i].o) != 0)
            abort();
        trainee_open(&t, dir);
        fn(&t, dir, v[i].name);
        trainee_close(&t);
        tiny_remove(dir);
        free(dir);
    }
}

/* ---- the tests ---- */

static void full_model(trainee *t, const char *dir, const char *name)
{
    ns_err e = { 0 };
    const size_t n = TOKENS * (size_t)t->c->arch->vocab_size;
    ns_real *logits = reals(n);
    ns_cut cut;
    batch b;
    one_sequence(&b, t->c->arch->vocab_size, 6);
    must(ns_cut_full(t->c->arch, &cut, &e), &e);
    run(t, &b, NULL, logits);
    float *engine = prop_logits(dir, &cut, b.ids, TOKENS);
    const double d = far(logits, engine, n);
    if (!(d < 1e-5))
        fail_msg("%s: net and engine differ by %.2e", name, d);
    free(engine);
    free(logits);
    ns_cut_release(&cut);
}

static void test_engine(void **state)
{
    (void)state;
    each_variant(full_model);
}

static void random_cuts(trainee *t, const char *dir, const char *name)
{
    const char *more = getenv("NS_TEST_SEEDS");
    const int cuts = more && atoi(more) > 0 ? atoi(more) : CUTS;
    for (int i = 0; i < cuts; i++) {
        ns_cut cut;
        char label[100];
        snprintf(label, sizeof label, "%s, cut %d", name, i);
        assert_int_equal(tiny_random_cut(t->c, (uint64_t)(1000 + i), &cut), 0);
        try_cut(t, dir, &cut, label);
        ns_cut_release(&cut);
    }
}

static void test_cuts(void **state)
{
    (void)state;
    each_variant(random_cuts);
    print_message("largest differences: logits %.1e, gradients %.1e\n", worst_logits, worst_gradient);
}

static void packed(trainee *t, const char *dir, const char *name)
{
    static const int lengths[] = { 5, 1, 17, 2, 9, 3 };
    const size_t v = (size_t)t->c->arch->vocab_size;
    ns_real *logits = reals(TOKENS * v), *one = reals(TOKENS * v), *g = reals(t->p.count);
    batch b;
    (void)dir;
    batch_init(&b, (int)v, lengths, 6, 8);
    double loss = 0;
    for (int i = 0; i < 6; i++) {
        batch s = { 0 };
        const size_t at = (size_t)b.start[i], n = (size_t)lengths[i];
        memcpy(s.ids, b.ids + at, n * sizeof *s.ids);
        memcpy(s.target, b.target + at, n * sizeof *s.target);
        memcpy(s.weight, b.weight + at, n * sizeof *s.weight);
        s.start[1] = lengths[i];
        s.seqs = (ns_seqs){ .n_tokens = lengths[i], .n_seqs = 1, .ids = s.ids, .start = s.start };
        loss += run(t, &s, NULL, one + at * v);
        for (size_t j = 0; j < t->p.count; j++)
            g[j] += t->g[j];
    }
    const double all = run(t, &b, NULL, logits), d = far(logits, one, TOKENS * v);
    if (!(d < 1e-5) || !(fabs(all - loss) < 1e-5 * loss))
        fail_msg("%s: packed and single sequences differ by %.2e; loss %.9g and %.9g", name, d, all, loss);
    for (int i = 0; i < t->p.n; i++) {
        const ns_param *p = &t->p.p[i];
        const double dg = far_over(t->g + p->off, g + p->off, p->count, noise_floor(g, t->p.count));
        if (!(dg < 1e-4))
            fail_msg("%s: layer %d %s: packed and single gradients differ by %.2e", name, p->layer, ns_weight_get(p->role)->id, dg);
    }
    free(logits);
    free(one);
    free(g);
}

static void test_packed(void **state)
{
    (void)state;
    each_variant(packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_engine), cmocka_unit_test(test_cuts), cmocka_unit_test(test_packed) };
    return cmocka_run_group_tests_name("train_views", tests, tiny_setup, tiny_teardown);
}
