/* Attention, MoE and the MLP by themselves: the gradients of <c, mixer(x)> by its input, parameters and masks. */
#include "fixture.h"

typedef struct run {
    fixture f;
    ns_net_mask mask;
    ns_seqs seqs;
    ns_block_ctx c;
    const ns_mixer *mixer;
    ns_real *x, *y, *dy, *dx, *saved;
    picks at_start, now;
} run;

static double value(void *ctx)
{
    run *r = ctx;
    const int h = r->f.arch->hidden_size;
    double sum = 0;
    int64_t load[MAX_EXPERTS] = { 0 };
    r->c.expert_load = load;
    r->mixer->forward(&r->c, r->x, r->y, r->saved);
    for (int t = 0; t < r->seqs.n_tokens; t++)
        for (int j = 0; j < r->c.hidden; j++)
            sum += (double)(r->dy[t * h + j] * r->y[t * h + j]);
    if (r->f.arch->layers[0].kind == NS_LAYER_MOE) {
        r->now = (picks){ 0 };
        hash_picks(&r->f, r->c.mask, 0, r->x, r->seqs.n_tokens, r->c.hidden, &r->now);
        assert_memory_equal(load, r->now.load, sizeof load); /* the mixer's choice is the rule's */
        if (r->at_start.hash)
            assert_true(r->now.hash == r->at_start.hash);
        r->at_start = r->now;
    }
    return sum;
}

static void run_open(run *r, const tiny_opts *o, const int *start, int n_seqs, bool masked)
{
    ns_err e = { 0 };
    fixture_open(&r->f, o);
    const ns_arch *a = r->f.arch;
    r->seqs = (ns_seqs){ .n_tokens = start[n_seqs], .n_seqs = n_seqs, .start = start };
    const size_t th = (size_t)start[n_seqs] * (size_t)a->hidden_size;
    assert_int_equal(ns_mask_init(a, &r->mask, &e), 0);
    random_layer_mask(a, 0, &r->mask.layer[0], &r->f.r);
    r->mixer = ns_mixer_of(a->layers[0].kind);
    r->x = normals(&r->f.r, th, 1);
    r->dy = normals(&r->f.r, th, 1);
    r->y = reals(th);
    r->dx = reals(th);
    r->saved = reals(r->mixer->saved(a, 0, start[n_seqs], n_seqs));
    r->c = (ns_block_ctx){ .arch = a, .params = &r->f.p, .blas = r->f.blas, .seqs = &r->seqs, .w = r->f.w, .g = r->f.g };
    r->c.hidden = a->hidden_size;
    r->c.scratch = reals(r->mixer->scratch(a, 0, start[n_seqs], n_seqs));
    if (masked) {
        r->c.mask = &r->mask.layer[0];
        r->c.hidden = a->hidden_size * 3 / 4;
    }
}

static void run_close(run *r)
{
    free(r->x);
    free(r->y);
    free(r->dy);
    free(r->dx);
    free(r->saved);
    free(r->c.scratch);
    ns_mask_release(&r->mask);
    fixture_close(&r->f);
}

/* Columns that are not live are neither read nor written. */
static void spoil_dead_columns(run *r, ns_real *x, ns_real value_there)
{
    const int h = r->f.arch->hidden_size;
    for (int t = 0; t < r->seqs.n_tokens; t++)
        for (int j = r->c.hidden; j < h; j++)
            x[t * h + j] = value_there;
}

static void check_dead_columns(const run *r, const ns_real *x)
{
    const int h = r->f.arch->hidden_size;
    for (int t = 0; t < r->seqs.n_tokens; t++)
        for (int j = r->c.hidden; j < h; j++)
            assert_true(x[t * h + j] == 77);
}

/* Directions over the live columns of x only. */
static double value_live(void *ctx)
{
    run *r = ctx;
    ns_real *x = r->x;
    const size_t h = (size_t)r->f.arch->hidden_size, n = (size_t)r->seqs.n_tokens;
    ns_real *full = reals(n * h);
    for (size_t t = 0; t < n; t++)
        memcpy(full + t * h, x + t * (size_t)r->c.hidden, (size_t)r->c.hidden * sizeof *x);
    r->x = full;
    double v = value(r);
    r->x = x;
    free(full);
    return v;
}

static void check_input(run *r)
{
    const size_t h = (size_t)r->f.arch->hidden_size, n = (size_t)r->seqs.n_tokens, live = (size_t)r->c.hidden;
    ns_real *packed = reals(n * live), *dx = reals(n * live), *x = r->x;
    for (size_t t = 0; t < n; t++) {
        memcpy(packed + t * live, x + t * h, live * sizeof *x);
        memcpy(dx + t * live, r->dx + t * h, live * sizeof *x);
    }
    r->x = packed;
    check_direction("input", packed, dx, n * live, 0, &r->f.r, value_live, r);
    r->x = x;
    free(packed);
    free(dx);
}

static void check_mixer(const tiny_opts *o, const int *start, int n_seqs, bool masked, void (*change)(ns_arch *))
{
    run r = { 0 };
    run_open(&r, o, start, n_seqs, masked);
    if (change)
        change(r.f.arch);
    spoil_dead_columns(&r, r.x, NAN);
    spoil_dead_columns(&r, r.dy, NAN);
    spoil_dead_columns(&r, r.y, 77);
    spoil_dead_columns(&r, r.dx, 77);
    value(&r);
    check_dead_columns(&r, r.y);
    r.mixer->backward(&r.c, r.x, r.dy, r.saved, r.dx);
    check_dead_columns(&r, r.dx);
    check_input(&r);
    check_params(&r.f, true, value, &r);
    if (masked)
        check_layer_mask(r.c.mask, &r.f.r, value, &r);

    /* a second time: parameters' and masks' gradients double, the input's stand */
    ns_real *g = reals(r.f.p.count), *dx = reals((size_t)start[n_seqs] * (size_t)r.f.arch->hidden_size);
    memcpy(g, r.f.g, r.f.p.count * sizeof *g);
    memcpy(dx, r.dx, (size_t)start[n_seqs] * (size_t)r.f.arch->hidden_size * sizeof *g);
    value(&r);
    r.mixer->backward(&r.c, r.x, r.dy, r.saved, r.dx);
    for (size_t i = 0; i < r.f.p.count; i++)
        assert_true(fabs((double)(r.f.g[i] - 2 * g[i])) <= 1e-12 * (1 + fabs((double)g[i])));
    assert_memory_equal(dx, r.dx, (size_t)start[n_seqs] * (size_t)r.f.arch->hidden_size * sizeof *dx);

    /* without parameters' gradients the rest is the same */
    r.c.g = NULL;
    memset(dx, 0, (size_t)start[n_seqs] * (size_t)r.f.arch->hidden_size * sizeof *dx);
    spoil_dead_columns(&r, dx, 77);
    r.mixer->backward(&r.c, r.x, r.dy, r.saved, dx);
    assert_memory_equal(dx, r.dx, (size_t)start[n_seqs] * (size_t)r.f.arch->hidden_size * sizeof *dx);
    free(g);
    free(dx);
    run_close(&r);
}

static const int three[] = { 0, 1, 8, 21 }, one_long[] = { 0, 150 };

static tiny_opts opts_of(const char *pattern)
{
    tiny_opts o = tiny_defaults();
    o.pattern = pattern;
    o.hidden = 32;
    return o;
}

static void test_attention(void **state)
{
    (void)state;
    tiny_opts o = opts_of("*");
    check_mixer(&o, three, 3, false, NULL);
    check_mixer(&o, three, 3, true, NULL);
    check_mixer(&o, one_long, 1, true, NULL);
    o.biases = true;
    check_mixer(&o, three, 3, true, NULL);
    o.kv_heads = 1;
    o.head_dim = 6;
    check_mixer(&o, three, 3, true, NULL);
    o.kv_heads = 8;
    check_mixer(&o, three, 3, true, NULL);
}

static void test_mlp(void **state)
{
    (void)state;
    tiny_opts o = opts_of("-");
    check_mixer(&o, three, 3, false, NULL);
    o.biases = true;
    check_mixer(&o, three, 3, true, NULL);
}

static void plain_weights(ns_arch *a)
{
    a->norm_topk = false;
}

static void test_moe(void **state)
{
    (void)state;
    tiny_opts o = opts_of("E");
    check_mixer(&o, three, 3, false, NULL);
    check_mixer(&o, three, 3, true, NULL);
    check_mixer(&o, three, 3, true, plain_weights);
    o.latent = 24;
    check_mixer(&o, three, 3, true, NULL);
    o.biases = true;
    check_mixer(&o, three, 3, true, plain_weights);
}

static void test_moe_groups(void **state)
{
    (void)state;
    tiny_opts o = opts_of("E");
    o.experts = 12;
    o.n_group = 4;
    o.topk_group = 2;
    o.topk = 3;
    check_mixer(&o, three, 3, false, NULL);
    check_mixer(&o, three, 3, true, NULL);
    o.topk = 1;
    o.shared_ffn = 16;
    check_mixer(&o, three, 3, true, plain_weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_mlp),
        cmocka_unit_test(test_moe),
        cmocka_unit_test(test_moe_groups),
    };
    return cmocka_run_group_tests_name("grad_mixers", tests, tiny_setup, tiny_teardown);
}
