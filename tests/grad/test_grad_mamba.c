/* The Mamba mixer in double: gradients against finite differences, the chunked scan against the recurrence step by step and its
 * adjoint, packed sequences against each by itself. */
#include "base/json.h"
#include "fixture.h"
#include "scan_check.h"

enum { H = 12 };

typedef struct shape {
    int heads, groups, p, n, taps;
    bool bias, conv_bias, clamp, masked;
} shape;

typedef struct run {
    fixture f;
    ns_net_mask mask;
    ns_seqs seqs;
    ns_block_ctx c;
    ns_real *x, *y, *dy, *dx, *saved;
} run;

static const int lengths[] = { 1, 2, 63, 64, 65, 130 }, starts[] = { 0, 1, 3, 66, 130, 195, 325 };
enum { N_SEQS = 6, TOKENS = 325 };

static ns_arch *arch_of_shape(const shape *s)
{
    ns_err e = { 0 };
    char text[600];
    snprintf(text, sizeof text,
             "{\"model_type\":\"nemotron_h\",\"hidden_size\":%d,\"vocab_size\":8,\"hybrid_override_pattern\":\"M\",\"num_hidden_layers\":1,"
             "\"mamba_num_heads\":%d,\"n_groups\":%d,\"mamba_head_dim\":%d,\"ssm_state_size\":%d,\"conv_kernel\":%d,\"chunk_size\":16,"
             "\"use_bias\":%s,\"use_conv_bias\":%s,\"layer_norm_epsilon\":0.05%s}",
             H, s->heads, s->groups, s->p, s->n, s->taps, s->bias ? "true" : "false", s->conv_bias ? "true" : "false",
             s->clamp ? ",\"time_step_limit\":[0.2,0.6]" : "");
    json_t *v = ns_json_parse(text, strlen(text), true, "test", &e);
    ns_arch *a = v ? ns_arch_parse(v, "test", &e) : NULL;
    json_decref(v);
    if (!a)
        fail_msg("%s", e.msg);
    return a;
}

static void run_open(run *r, const shape *s, int n_seqs, const int *start)
{
    ns_err e = { 0 };
    *r = (run){ 0 };
    fixture_init(&r->f, arch_of_shape(s), 5);
    const ns_arch *a = r->f.arch;
    const int n = start[n_seqs];
    r->seqs = (ns_seqs){ .n_tokens = n, .n_seqs = n_seqs, .start = start };
    r->c = (ns_block_ctx){ .arch = a, .params = &r->f.p, .blas = r->f.blas, .seqs = &r->seqs, .w = r->f.w, .g = r->f.g, .hidden = H };
    r->c.scratch = normals(&r->f.r, ns_mixer_mamba.scratch(a, 0, n, n_seqs), 1e30); /* its contents must not matter */
    r->saved = normals(&r->f.r, ns_mixer_mamba.saved(a, 0, n, n_seqs), 1e30);
    r->x = normals(&r->f.r, (size_t)(n * H), 1);
    r->dy = normals(&r->f.r, (size_t)(n * H), 1);
    r->y = reals((size_t)(n * H));
    r->dx = reals((size_t)(n * H));
    assert_int_equal(ns_mask_init(a, &r->mask, &e), 0);
    random_layer_mask(a, 0, &r->mask.layer[0], &r->f.r);
    if (s->masked) {
        r->c.mask = &r->mask.layer[0];
        r->c.hidden = H * 3 / 4;
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

static double value(void *ctx)
{
    run *r = ctx;
    double sum = 0;
    ns_mixer_mamba.forward(&r->c, r->x, r->y, r->saved);
    for (int t = 0; t < r->seqs.n_tokens; t++)
        for (int j = 0; j < r->c.hidden; j++)
            sum += r->dy[t * H + j] * r->y[t * H + j];
    return sum;
}

/* ---- finite differences ---- */

/* Along a random direction, by the five-point formula; stricter than the fixture's check, for its error is of fourth order. The
 * clamp of dt has corners, which a short step is less likely to cross. */
static void check_along(const char *what, run *r, ns_real *x, const ns_real *grad, size_t n)
{
    const double h = r->f.arch->dt_min > 0 ? 1e-6 : 1e-4, tolerance = r->f.arch->dt_min > 0 ? 1e-7 : 1e-9;
    ns_real *x0 = reals(n), *d = normals(&r->f.r, n, 1);
    double want = 0, norm = 0, f[4];
    memcpy(x0, x, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        if (x[i] == 77) /* a dead column */
            d[i] = 0;
        want += d[i] * grad[i];
        norm += d[i] * grad[i] * d[i] * grad[i];
    }
    for (int k = 0; k < 4; k++) {
        for (size_t i = 0; i < n; i++)
            x[i] = x0[i] + (double[]){ -2, -1, 1, 2 }[k] * h * d[i];
        f[k] = value(r);
    }
    memcpy(x, x0, n * sizeof *x);
    free(x0);
    free(d);
    const double got = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
    if (!(norm > 0))
        fail_msg("%s: no gradient at all", what);
    if (!(fabs(got - want) <= tolerance * sqrt(norm) + 1e-14 / h * (1 + fabs(f[0]))))
        fail_msg("%s: the difference quotient is %.12g, the gradient says %.12g (norm %.3g)", what, got, want, sqrt(norm));
}

static void check_mask(run *r)
{
    static const ns_axis axes[] = { NS_AXIS_MAMBA_HEADS, NS_AXIS_MAMBA_HEAD_DIM, NS_AXIS_SSM_STATE };
    ns_layer_mask *m = &r->mask.layer[0];
    for (int i = 0; i < 3; i++)
        check_along(ns_axis_name(axes[i]), r, m->axis[axes[i]].m, m->axis[axes[i]].dm, (size_t)m->axis[axes[i]].full);
    check_along("eps_factor", r, &m->gated.eps_factor, &m->gated.d_eps_factor, 1);
    check_along("scale", r, &m->gated.scale, &m->gated.d_scale, 1);
}

static void fill_dead(const run *r, ns_real *x)
{
    for (int t = 0; t < r->seqs.n_tokens; t++)
        for (int j = r->c.hidden; j < H; j++)
            x[t * H + j] = 77;
}

static void expect_dead(const run *r, const ns_real *x)
{
    for (int t = 0; t < r->seqs.n_tokens; t++)
        for (int j = r->c.hidden; j < H; j++)
            assert_true(x[t * H + j] == 77);
}

static void check_gradients(const shape *s, int n_seqs, const int *start)
{
    run r;
    run_open(&r, s, n_seqs, start);
    const size_t n = (size_t)(start[n_seqs] * H), count = r.f.p.count;
    fill_dead(&r, r.x);
    fill_dead(&r, r.dy);
    fill_dead(&r, r.y);
    fill_dead(&r, r.dx);
    value(&r);
    ns_mixer_mamba.backward(&r.c, r.x, r.dy, r.saved, r.dx);
    expect_dead(&r, r.y);
    expect_dead(&r, r.dx);
    check_along("input", &r, r.x, r.dx, n);
    for (int i = 0; i < r.f.p.n; i++) {
        const ns_param *p = &r.f.p.p[i];
        char what[256];
        ns_weight_name(p->layer, p->role, 0, what, sizeof what);
        if (p->layer == 0 && p->role != NS_W_NORM)
            check_along(what, &r, r.f.w + p->off, r.f.g + p->off, p->count);
    }
    if (s->masked)
        check_mask(&r);

    /* again: parameters' gradients add up, the input's do not; without parameters' gradients the input's are the same */
    ns_real *g = reals(count), *dx = reals(n);
    memcpy(g, r.f.g, count * sizeof *g);
    memcpy(dx, r.dx, n * sizeof *dx);
    value(&r);
    ns_mixer_mamba.backward(&r.c, r.x, r.dy, r.saved, r.dx);
    assert_memory_equal(dx, r.dx, n * sizeof *dx);
    for (size_t i = 0; i < count; i++)
        assert_true(fabs(r.f.g[i] - 2 * g[i]) <= 1e-13 * (1 + fabs(g[i])));
    r.c.g = NULL;
    memset(dx, 0, n * sizeof *dx);
    fill_dead(&r, dx);
    ns_mixer_mamba.backward(&r.c, r.x, r.dy, r.saved, dx);
    assert_memory_equal(dx, r.dx, n * sizeof *dx);
    free(g);
    free(dx);
    run_close(&r);
}

static const shape shapes[] = {
    { 4, 2, 5, 7, 4, false, true, false, false },   { 4, 2, 5, 7, 4, true, true, false, true },
    { 3, 1, 8, 16, 4, false, false, false, true },  { 6, 3, 3, 4, 2, true, false, false, false },
    { 2, 2, 16, 3, 6, false, true, false, true },   { 1, 1, 1, 1, 3, false, true, false, false },
    { 4, 2, 5, 7, 4, false, true, true, true },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void test_gradients(void **state)
{
    static const int three[] = { 0, 5, 72, 73 };
    (void)state;
    for (int i = 0; i < N_SHAPES; i++)
        check_gradients(&shapes[i], 3, three);
    check_gradients(&shapes[0], N_SEQS, starts);
    check_gradients(&shapes[1], N_SEQS, starts);
}

/* ---- the definition, step by step ---- */

static double softplus(double x)
{
    return x > 20 ? x : log1p(exp(x));
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double mask_at(const run *r, ns_axis x, int i)
{
    return r->c.mask ? r->mask.layer[0].axis[x].m[i] : 1;
}

static const ns_real *weight(const run *r, ns_role role)
{
    return ns_params_cat(&r->f.p, r->f.w, 0, role, 0);
}

static double bias_at(const run *r, ns_role role, int i)
{
    return ns_params_find(&r->f.p, 0, role) ? weight(r, role)[i] : 0;
}

typedef struct sizes {
    int heads, groups, p, n, inner, conv, total, taps;
} sizes;

static sizes sizes_of(const run *r)
{
    const ns_arch *a = r->f.arch;
    const int *w = a->layers[0].width;
    sizes z = { w[NS_AXIS_MAMBA_HEADS], a->n_groups, w[NS_AXIS_MAMBA_HEAD_DIM], w[NS_AXIS_SSM_STATE], 0, 0, 0, a->conv_kernel };
    z.inner = z.heads * z.p;
    z.conv = z.inner + 2 * z.groups * z.n;
    z.total = z.inner + z.conv + z.heads;
    return z;
}

/* in_proj of all tokens */
static void plain_in(const run *r, const sizes *z, double *proj)
{
    for (int t = 0; t < r->seqs.n_tokens; t++)
        for (int i = 0; i < z->total; i++) {
            double sum = bias_at(r, NS_W_IN_PROJ_BIAS, i);
            for (int j = 0; j < r->c.hidden; j++)
                sum += weight(r, NS_W_IN_PROJ)[i * H + j] * r->x[t * H + j];
            proj[t * z->total + i] = sum;
        }
}

/* Channel i of x|B|C of token t, which is number `at` of its sequence, before the masks. */
static double plain_conv(const run *r, const sizes *z, const double *proj, int t, int at, int i)
{
    double sum = bias_at(r, NS_W_CONV_BIAS, i);
    for (int k = 0; k < z->taps; k++)
        if (at - z->taps + 1 + k >= 0)
            sum += weight(r, NS_W_CONV)[i * z->taps + k] * proj[(t - z->taps + 1 + k) * z->total + z->inner + i];
    return silu(sum);
}

static double plain_dt(const run *r, const sizes *z, const double *proj, int t, int h, int *clamped)
{
    double dt = softplus(proj[t * z->total + z->inner + z->conv + h] + weight(r, NS_W_DT_BIAS)[h]);
    *clamped += dt < r->f.arch->dt_min || dt > r->f.arch->dt_max;
    return dt < r->f.arch->dt_min ? r->f.arch->dt_min : dt > r->f.arch->dt_max ? r->f.arch->dt_max : dt;
}

/* One token: the states [heads, p, n] advance, y [inner]. */
static void plain_step(const run *r, const sizes *z, const double *proj, int t, int at, double *s, double *y, int *clamped)
{
    for (int h = 0; h < z->heads; h++) {
        const int g = h / (z->heads / z->groups);
        const double dt = plain_dt(r, z, proj, t, h, clamped), keep = exp(-dt * exp(weight(r, NS_W_A_LOG)[h]));
        for (int p = 0; p < z->p; p++) {
            const double x = plain_conv(r, z, proj, t, at, h * z->p + p) * mask_at(r, NS_AXIS_MAMBA_HEADS, h) *
                             mask_at(r, NS_AXIS_MAMBA_HEAD_DIM, p);
            double sum = weight(r, NS_W_D)[h] * x;
            for (int n = 0; n < z->n; n++) {
                double *cell = &s[(h * z->p + p) * z->n + n];
                const double b = plain_conv(r, z, proj, t, at, z->inner + g * z->n + n) * mask_at(r, NS_AXIS_SSM_STATE, n);
                *cell = keep * *cell + dt * b * x;
                sum += plain_conv(r, z, proj, t, at, z->inner + (z->groups + g) * z->n + n) * *cell;
            }
            y[h * z->p + p] = sum;
        }
    }
}

/* Gated norm and out_proj of one token; y is changed. */
static void plain_out(const run *r, const sizes *z, const double *gate, double *y, double *out)
{
    const int width = z->inner / z->groups;
    const double eps = r->f.arch->gated_norm_eps * (r->c.mask ? r->mask.layer[0].gated.eps_factor : 1);
    const double scale = r->c.mask ? r->mask.layer[0].gated.scale : 1;
    for (int g = 0; g < z->groups; g++) {
        double sum = 0;
        for (int i = g * width; i < (g + 1) * width; i++) {
            y[i] *= silu(gate[i]);
            sum += y[i] * y[i];
        }
        for (int i = g * width; i < (g + 1) * width; i++)
            y[i] *= weight(r, NS_W_GATED_NORM)[i] * scale / sqrt(sum / width + eps);
    }
    for (int j = 0; j < r->c.hidden; j++) {
        out[j] = bias_at(r, NS_W_OUT_PROJ_BIAS, j);
        for (int i = 0; i < z->inner; i++)
            out[j] += weight(r, NS_W_OUT_PROJ)[j * z->inner + i] * y[i];
    }
}

static void check_definition(const shape *want)
{
    run r;
    run_open(&r, want, N_SEQS, starts);
    const sizes z = sizes_of(&r);
    double *proj = reals((size_t)(TOKENS * z.total)), *s = reals((size_t)(z.inner * z.n)), *y = reals((size_t)z.inner), out[H];
    int clamped = 0;
    value(&r);
    plain_in(&r, &z, proj);
    for (int q = 0; q < N_SEQS; q++) {
        memset(s, 0, (size_t)(z.inner * z.n) * sizeof *s);
        for (int t = starts[q]; t < starts[q + 1]; t++) {
            plain_step(&r, &z, proj, t, t - starts[q], s, y, &clamped);
            plain_out(&r, &z, proj + t * z.total, y, out);
            for (int j = 0; j < r.c.hidden; j++)
                if (!(fabs(out[j] - r.y[t * H + j]) <= 1e-11 * (1 + fabs(out[j]))))
                    fail_msg("sequence of %d, token %d: %.15g, expected %.15g", lengths[q], t - starts[q], r.y[t * H + j], out[j]);
        }
    }
    if (want->clamp) /* some, and not all */
        assert_true(clamped > TOKENS / 4 && clamped < TOKENS * z.heads * 3 / 4);
    free(proj);
    free(s);
    free(y);
    run_close(&r);
}

static void test_definition(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++)
        check_definition(&shapes[i]);
}

static void test_scan(void **state)
{
    (void)state;
    check_scan(1e-12);
}

/* ---- packing, masks of zeros, the tap ---- */

static void test_packed(void **state)
{
    (void)state;
    run all, one;
    run_open(&all, &shapes[1], N_SEQS, starts);
    value(&all);
    ns_mixer_mamba.backward(&all.c, all.x, all.dy, all.saved, all.dx);
    ns_real *g = reals(all.f.p.count);
    for (int q = 0; q < N_SEQS; q++) {
        const int alone[] = { 0, lengths[q] }, n = lengths[q] * H;
        run_open(&one, &shapes[1], 1, alone);
        memcpy(one.f.w, all.f.w, all.f.p.count * sizeof *g);
        ns_mask_copy(&one.mask, &all.mask);
        memcpy(one.x, all.x + starts[q] * H, (size_t)n * sizeof *g);
        memcpy(one.dy, all.dy + starts[q] * H, (size_t)n * sizeof *g);
        value(&one);
        ns_mixer_mamba.backward(&one.c, one.x, one.dy, one.saved, one.dx);
        for (int i = 0; i < n; i++) {
            expect_near("y", i, all.y[starts[q] * H + i], one.y[i], 1e-12 * 1);
            expect_near("dx", i, all.dx[starts[q] * H + i], one.dx[i], 1e-12 * 1);
        }
        for (size_t i = 0; i < all.f.p.count; i++)
            g[i] += one.f.g[i];
        run_close(&one);
    }
    for (size_t i = 0; i < all.f.p.count; i++)
        expect_near("parameters' gradient", (int)i, all.f.g[i], g[i], 1e-12 * 10);
    free(g);
    run_close(&all);
}

/* Without the heads' own gradient, heads that a mask sets to zero are left out; nothing else may change. */
static void check_left_out(const ns_real *heads, int n)
{
    run with, without;
    run_open(&with, &shapes[1], N_SEQS, starts);
    run_open(&without, &shapes[1], N_SEQS, starts);
    ns_layer_mask *m0 = &with.mask.layer[0], *m1 = &without.mask.layer[0];
    for (int h = 0; h < n; h++)
        m0->axis[NS_AXIS_MAMBA_HEADS].m[h] = m1->axis[NS_AXIS_MAMBA_HEADS].m[h] = heads[h];
    m1->axis[NS_AXIS_MAMBA_HEADS].dm = NULL;
    assert_true(value(&with) == value(&without));
    ns_mixer_mamba.backward(&with.c, with.x, with.dy, with.saved, with.dx);
    ns_mixer_mamba.backward(&without.c, without.x, without.dy, without.saved, without.dx);
    for (int i = 0; i < TOKENS * H; i++)
        expect_near("dx", i, without.dx[i], with.dx[i], 1e-12 * 1);
    for (size_t i = 0; i < with.f.p.count; i++)
        expect_near("parameters' gradient", (int)i, without.f.g[i], with.f.g[i], 1e-12 * 10);
    for (int i = 0; i < m0->axis[NS_AXIS_MAMBA_HEAD_DIM].full; i++)
        expect_near("head_dim's gradient", i, m1->axis[NS_AXIS_MAMBA_HEAD_DIM].dm[i], m0->axis[NS_AXIS_MAMBA_HEAD_DIM].dm[i], 1e-12 * 10);
    for (int i = 0; i < m0->axis[NS_AXIS_SSM_STATE].full; i++)
        expect_near("state's gradient", i, m1->axis[NS_AXIS_SSM_STATE].dm[i], m0->axis[NS_AXIS_SSM_STATE].dm[i], 1e-12 * 10);
    run_close(&with);
    run_close(&without);
}

static void test_left_out(void **state)
{
    (void)state;
    check_left_out((ns_real[]){ 1, 0, 0.5, 0 }, 4);
    check_left_out((ns_real[]){ 0, 1, 0, 0 }, 4); /* a group without heads */
}

typedef struct seen {
    const run *r;
    const double *proj; /* in_proj's output, by the definition */
    int x_calls, bc_rows;
} seen;

/* Place in its sequence of token t. */
static int place_of(int t)
{
    int q = 0;
    while (t >= starts[q + 1])
        q++;
    return t - starts[q];
}

static void watch(void *ctx, const ns_tap *t)
{
    seen *s = ctx;
    const sizes z = sizes_of(s->r);
    const bool x = t->kind == NS_TAP_MAMBA_X;
    assert_true(x || t->kind == NS_TAP_MAMBA_BC);
    assert_int_equal(t->layer, 0);
    assert_int_equal(t->cols, x ? z.inner : 2 * z.groups * z.n);
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < t->cols; j++) {
            const double got = t->x[(size_t)i * t->ld + (size_t)j];
            const int tok = s->bc_rows + i; /* chunks come in the tokens' order */
            if (x)
                expect_near("tap of x", i, got, s->proj[i * z.total + z.inner + j], 1e-12);
            else
                expect_near("tap of B and C", tok, got, plain_conv(s->r, &z, s->proj, tok, place_of(tok), z.inner + j), 1e-12);
        }
    if (x)
        assert_int_equal(t->rows, TOKENS);
    s->x_calls += x;
    s->bc_rows += x ? 0 : t->rows;
}

static void test_tap(void **state)
{
    (void)state;
    run r;
    run_open(&r, &shapes[0], N_SEQS, starts);
    const sizes z = sizes_of(&r);
    double *proj = reals((size_t)(TOKENS * z.total));
    plain_in(&r, &z, proj);
    seen s = { .r = &r, .proj = proj };
    r.c.tap = watch;
    r.c.tap_ctx = &s;
    value(&r);
    assert_int_equal(s.x_calls, 1);
    assert_int_equal(s.bc_rows, TOKENS);
    free(proj);
    run_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition), cmocka_unit_test(test_scan),     cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_packed),     cmocka_unit_test(test_left_out), cmocka_unit_test(test_tap),
    };
    return cmocka_run_group_tests_name("grad_mamba", tests, NULL, NULL);
}
