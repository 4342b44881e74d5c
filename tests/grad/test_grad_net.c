/* Whole tiny models: gradients of the loss by every parameter and every number of a mask; recompute policies; buckets. */
#include "fixture.h"

typedef struct setting {
    const char *pattern;
    bool tied, biases, groups, masked;
    int latent;
    double ce, kd, temperature;
} setting;

typedef struct whole {
    fixture f;
    ns_net *net;
    ns_net_mask mask_memory, *mask; /* NULL: none */
    ns_seqs seqs;
    ns_loss_spec spec;
    ns_real *teacher_w, *teacher;
    int *target;
    ns_real *weight;
    picks at_start, now;
} whole;

enum { TOKENS = 21 };
static const int start[] = { 0, 1, 8, TOKENS };

static void hash_tap(void *ctx, const ns_tap *t)
{
    whole *n = ctx;
    if (t->kind == NS_TAP_NORM && t->layer < n->f.arch->n_layers && n->f.arch->layers[t->layer].kind == NS_LAYER_MOE)
        hash_picks(&n->f, n->mask ? &n->mask->layer[t->layer] : NULL, t->layer, t->x, t->rows, t->cols, &n->now);
}

static double value(void *ctx)
{
    whole *n = ctx;
    ns_loss loss = { 0 };
    n->now = (picks){ 0 };
    ns_net_forward(n->net, n->f.w, n->mask, &n->seqs);
    ns_net_loss(n->net, n->f.w, n->mask, &n->spec, NULL, NULL, &loss);
    if (n->at_start.hash)
        assert_true(n->now.hash == n->at_start.hash);
    n->at_start = n->now;
    return n->spec.scale * loss.loss;
}

static ns_net *new_net(const whole *n, ns_net_opts o)
{
    ns_err e = { 0 };
    o.max_tokens = TOKENS + 3;
    o.max_seqs = 4;
    ns_net *net = ns_net_new(&n->f.p, n->f.blas, &o, &e);
    if (!net)
        fail_msg("%s", e.msg);
    return net;
}

/* The final hidden states of a teacher: the same model with other weights. */
static void run_teacher(whole *n)
{
    const size_t th = TOKENS * (size_t)n->f.arch->hidden_size;
    ns_net *net = new_net(n, (ns_net_opts){ .forward_only = true });
    n->teacher_w = reals(n->f.p.count);
    n->teacher = reals(th);
    for (size_t i = 0; i < n->f.p.count; i++)
        n->teacher_w[i] = n->f.w[i] * (ns_real)(1 + 0.1 * ns_rng_normal(&n->f.r));
    ns_net_forward(net, n->teacher_w, NULL, &n->seqs);
    memcpy(n->teacher, ns_net_hidden(net), th * sizeof *n->teacher);
    ns_net_free(net);
}

static void random_mask(whole *n)
{
    ns_err e = { 0 };
    const ns_arch *a = n->f.arch;
    assert_int_equal(ns_mask_init(a, &n->mask_memory, &e), 0);
    n->mask = &n->mask_memory;
    random_axis(&n->mask->hidden, &n->f.r, 0.8);
    n->mask->norm.eps_factor = 0.8;
    n->mask->norm.scale = 0.9;
    for (int i = 0; i < a->n_layers; i++) {
        random_layer_mask(a, i, &n->mask->layer[i], &n->f.r);
        n->mask->layer[i].want_keep = i % 3 != 0;
    }
}

static void whole_open(whole *n, const setting *s)
{
    tiny_opts o = tiny_defaults();
    o.pattern = s->pattern;
    o.tied = s->tied;
    o.biases = s->biases;
    o.latent = s->latent;
    o.hidden = 40;
    o.vocab = 50;
    if (s->groups) {
        o.n_group = 2;
        o.topk_group = 1;
    }
    *n = (whole){ 0 };
    fixture_open(&n->f, &o);
    n->f.arch->norm_eps = n->f.arch->gated_norm_eps = 0.01; /* large enough for its factor's gradient to be seen */
    int *ids = malloc(TOKENS * sizeof *ids);
    n->target = malloc(TOKENS * sizeof *n->target);
    n->weight = reals(TOKENS);
    for (int t = 0; t < TOKENS; t++) {
        const bool counts = ns_rng_u64(&n->f.r) % 4 != 0;
        ids[t] = (int)(ns_rng_u64(&n->f.r) % 50);
        n->target[t] = counts ? (int)(ns_rng_u64(&n->f.r) % 50) : -1;
        n->weight[t] = counts ? (ns_real)(0.5 + ns_rng_uniform(&n->f.r)) : 0;
    }
    n->seqs = (ns_seqs){ .n_tokens = TOKENS, .n_seqs = 3, .ids = ids, .start = start };
    n->spec = (ns_loss_spec){ .target = n->target, .weight = n->weight, .ce = (ns_real)s->ce, .kd = (ns_real)s->kd, .scale = 0.7 };
    n->spec.temperature = (ns_real)(s->temperature ? s->temperature : 1);
    if (s->kd != 0) {
        run_teacher(n);
        n->spec.teacher = n->teacher;
        n->spec.teacher_w = n->teacher_w;
    }
    if (s->masked)
        random_mask(n);
    n->net = new_net(n, (ns_net_opts){ 0 });
}

static void whole_close(whole *n)
{
    ns_net_free(n->net);
    ns_mask_release(&n->mask_memory);
    free((int *)(uintptr_t)n->seqs.ids);
    free(n->target);
    free(n->weight);
    free(n->teacher);
    free(n->teacher_w);
    fixture_close(&n->f);
}

/* Forward, loss and backward into g (may be NULL) and the mask, from zero. */
static void gradients(whole *n, ns_net *net, ns_real *g, ns_bucket_fn *done, void *ctx)
{
    ns_loss loss = { 0 };
    if (g)
        memset(g, 0, n->f.p.count * sizeof *g);
    if (n->mask)
        ns_mask_zero_grad(n->mask);
    ns_net_forward(net, n->f.w, n->mask, &n->seqs);
    ns_net_loss(net, n->f.w, n->mask, &n->spec, g, NULL, &loss);
    ns_net_backward(net, n->f.w, n->mask, g, done, ctx);
}

static void check_mask(whole *n)
{
    ns_net_mask *m = n->mask;
    ns_rng *r = &n->f.r;
    check_direction("hidden", m->hidden.m, m->hidden.dm, (size_t)m->hidden.live, 0, r, value, n);
    check_direction("norm eps", &m->norm.eps_factor, &m->norm.d_eps_factor, 1, 0, r, value, n);
    check_direction("norm scale", &m->norm.scale, &m->norm.d_scale, 1, 0, r, value, n);
    for (int i = 0; i < n->f.arch->n_layers; i++) {
        ns_layer_mask *l = &m->layer[i];
        check_layer_mask(l, r, value, n);
        if (l->want_keep)
            check_direction("keep", &l->keep, &l->d_keep, 1, 0, r, value, n);
        else
            assert_true(l->d_keep == 0);
        if (n->f.arch->layers[i].kind == NS_LAYER_MAMBA) {
            check_direction("gated eps", &l->gated.eps_factor, &l->gated.d_eps_factor, 1, 0, r, value, n);
            check_direction("gated scale", &l->gated.scale, &l->gated.d_scale, 1, 0, r, value, n);
        }
    }
}

/* ---- buckets ---- */

typedef struct buckets {
    const whole *n;
    int next;
    ns_real *seen; /* [count] each bucket as it was when it was said to be done */
} buckets;

static void bucket_done(void *ctx, int bucket)
{
    buckets *b = ctx;
    const size_t *at = b->n->f.p.bucket;
    assert_int_equal(bucket, b->next--);
    memcpy(b->seen + at[bucket], b->n->f.g + at[bucket], (at[bucket + 1] - at[bucket]) * sizeof *b->seen);
}

/* Everything of a mask's gradients in one array, to be compared. */
static size_t flatten_mask(const ns_net_mask *m, ns_real *out)
{
    size_t n = 0;
    for (int i = -1; i < m->n_layers; i++) {
        for (int x = 0; x < (i < 0 ? 1 : NS_AXIS_COUNT); x++) {
            const ns_axis_mask *a = i < 0 ? &m->hidden : &m->layer[i].axis[x];
            for (int j = 0; a->dm && j < a->full; j++, n++)
                if (out)
                    out[n] = a->dm[j];
        }
        const ns_norm_mask *k = i < 0 ? &m->norm : &m->layer[i].gated;
        if (out) {
            out[n] = k->d_eps_factor;
            out[n + 1] = k->d_scale;
            out[n + 2] = i < 0 ? 0 : m->layer[i].d_keep;
        }
        n += 3;
    }
    return n;
}

/* The same numbers, bit for bit, whatever is recomputed; and of the masks without the parameters' gradients. */
static void check_policies(whole *n)
{
    const size_t masks = n->mask ? flatten_mask(n->mask, NULL) : 0;
    ns_real *want = reals(masks), *got = reals(masks), *g = reals(n->f.p.count);
    ns_net *net = new_net(n, (ns_net_opts){ .recompute = NS_RECOMPUTE_LAYER });
    buckets b = { .n = n, .next = n->f.arch->n_layers + 1, .seen = reals(n->f.p.count) };
    gradients(n, n->net, n->f.g, bucket_done, &b);
    assert_int_equal(b.next, -1);
    assert_memory_equal(b.seen, n->f.g, n->f.p.count * sizeof *g);
    if (n->mask)
        flatten_mask(n->mask, want);
    gradients(n, net, g, NULL, NULL);
    assert_memory_equal(g, n->f.g, n->f.p.count * sizeof *g);
    for (int i = 0; i < n->f.arch->n_layers; i++) {
        const int64_t *load = ns_net_expert_load(net, i);
        int64_t sum = 0;
        assert_int_equal(load != NULL, n->f.arch->layers[i].kind == NS_LAYER_MOE);
        for (int e = 0; load && e < n->f.arch->layers[i].width[NS_AXIS_EXPERTS]; e++)
            sum += load[e];
        assert_int_equal(sum, load ? TOKENS * n->f.arch->layers[i].topk : 0); /* the second forward is not counted */
    }
    for (int pass = 0; n->mask && pass < 2; pass++) {
        flatten_mask(n->mask, got);
        assert_memory_equal(got, want, masks * sizeof *got);
        gradients(n, n->net, NULL, NULL, NULL);
    }
    ns_net_free(net);
    free(b.seen);
    free(want);
    free(got);
    free(g);
}

static void check_net(const setting *s)
{
    whole n;
    whole_open(&n, s);
    check_policies(&n);
    ns_net_tap(n.net, hash_tap, &n);
    value(&n);
    gradients(&n, n.net, n.f.g, NULL, NULL);
    check_params(&n.f, false, value, &n);
    if (n.mask)
        check_mask(&n);
    whole_close(&n);
}

static const char all_kinds[] = "MEM*E-ME";

static void test_cross_entropy(void **state)
{
    (void)state;
    check_net(&(setting){ .pattern = all_kinds, .ce = 1 });
    check_net(&(setting){ .pattern = all_kinds, .ce = 1, .tied = true, .biases = true });
    check_net(&(setting){ .pattern = "E*-E", .ce = 1, .latent = 24, .groups = true });
}

static void test_distillation(void **state)
{
    (void)state;
    check_net(&(setting){ .pattern = all_kinds, .kd = 1 });
    check_net(&(setting){ .pattern = "*-", .kd = 0.8, .temperature = 2.5, .tied = true });
    check_net(&(setting){ .pattern = "*-", .kd = 0.8, .ce = 0.3, .temperature = 0.7 });
}

static void test_masked(void **state)
{
    (void)state;
    check_net(&(setting){ .pattern = all_kinds, .ce = 1, .masked = true, .biases = true });
    check_net(&(setting){ .pattern = all_kinds, .ce = 0.5, .kd = 1, .masked = true, .tied = true });
    check_net(&(setting){ .pattern = "E*-E", .kd = 1, .masked = true, .latent = 24, .groups = true });
}

/* A layer that is switched off leaves no gradient in its parameters, but knows what switching it on would do. */
static void test_layer_off(void **state)
{
    (void)state;
    whole n;
    whole_open(&n, &(setting){ .pattern = "-*E-", .ce = 1, .masked = true });
    for (int i = 0; i < 3; i++) {
        n.mask->layer[i].keep = 0;
        n.mask->layer[i].want_keep = i > 0;
    }
    gradients(&n, n.net, n.f.g, NULL, NULL);
    for (int i = 0; i < n.f.p.n; i++) {
        const ns_param *p = &n.f.p.p[i];
        double sum = 0;
        for (size_t j = 0; j < p->count; j++)
            sum += fabs((double)n.f.g[p->off + j]);
        assert_int_equal(sum == 0, p->layer >= 0 && p->layer < 3);
    }
    assert_true(n.mask->layer[0].d_keep == 0 && ns_net_expert_load(n.net, 2)[0] == 0);
    for (int i = 1; i < 3; i++)
        check_direction("keep", &n.mask->layer[i].keep, &n.mask->layer[i].d_keep, 1, 0, &n.f.r, value, &n);
    whole_close(&n);
}

/* ---- soft masks ---- */

enum { SHARES = 3 };

typedef struct soft {
    whole n;
    int slots;
    struct {
        int layer, width[SHARES];
        ns_axis axis;
        ns_real p[SHARES], dp[SHARES];
    } slot[64];
} soft;

static double value_soft(void *ctx)
{
    soft *s = ctx;
    for (int i = 0; i < s->slots; i++)
        ns_mask_set_soft(s->n.f.arch, s->n.mask, s->slot[i].layer, s->slot[i].axis, SHARES, s->slot[i].width, s->slot[i].p);
    return value(&s->n);
}

/* Full, three quarters and half the width; every third slot has a share that is 0, whose gradient is wanted all the same. */
static void add_slot(soft *s, int layer, ns_axis x, int full)
{
    ns_rng *r = &s->n.f.r;
    const double a = 0.2 + 0.3 * ns_rng_uniform(r), b = s->slots % 3 ? 0.4 * ns_rng_uniform(r) : 0;
    const int i = s->slots++;
    assert_true(i < 64 && full % 4 == 0);
    s->slot[i].layer = layer;
    s->slot[i].axis = x;
    for (int j = 0; j < SHARES; j++)
        s->slot[i].width[j] = full / 4 * (4 - j);
    s->slot[i].p[0] = (ns_real)a;
    s->slot[i].p[1] = (ns_real)b;
    s->slot[i].p[2] = (ns_real)(1 - a - b);
}

/* The gradient of the loss by the shares of every axis' widths, through masks and norm corrections. */
static void test_soft_shares(void **state)
{
    (void)state;
    soft s = { 0 };
    whole_open(&s.n, &(setting){ .pattern = "ME*-", .ce = 1, .masked = true });
    const ns_arch *a = s.n.f.arch;
    add_slot(&s, -1, NS_AXIS_HIDDEN, a->hidden_size);
    for (int i = 0; i < a->n_layers; i++)
        for (int x = 1; x < NS_AXIS_COUNT; x++)
            if (a->layers[i].width[x])
                add_slot(&s, i, (ns_axis)x, a->layers[i].width[x]);
    ns_net_tap(s.n.net, hash_tap, &s.n);
    value_soft(&s);
    gradients(&s.n, s.n.net, s.n.f.g, NULL, NULL);
    for (int i = 0; i < s.slots; i++) {
        ns_mask_soft_backward(a, s.n.mask, s.slot[i].layer, s.slot[i].axis, SHARES, s.slot[i].width, s.slot[i].p, s.slot[i].dp);
        for (int j = 0; j < SHARES; j++)
            check_direction(ns_axis_name(s.slot[i].axis), &s.slot[i].p[j], &s.slot[i].dp[j], 1, 0, &s.n.f.r, value_soft, &s);
    }
    whole_close(&s.n);
}

/* Copies carry values, sums carry gradients. */
static void test_mask_copies(void **state)
{
    (void)state;
    ns_err e = { 0 };
    whole n;
    ns_net_mask b;
    whole_open(&n, &(setting){ .pattern = "ME*-", .ce = 1, .masked = true });
    assert_int_equal(ns_mask_init(n.f.arch, &b, &e), 0);
    const size_t size = flatten_mask(n.mask, NULL);
    ns_real *ga = reals(size), *gb = reals(size);
    gradients(&n, n.net, NULL, NULL, NULL);
    flatten_mask(n.mask, ga);
    ns_mask_copy(&b, n.mask);
    ns_net_mask *first = n.mask;
    n.mask = &b;
    gradients(&n, n.net, NULL, NULL, NULL);
    flatten_mask(&b, gb);
    assert_memory_equal(ga, gb, size * sizeof *ga);
    ns_mask_add_grad(&b, first);
    flatten_mask(&b, gb);
    for (size_t i = 0; i < size; i++)
        assert_true(gb[i] == 2 * ga[i]);
    ns_mask_release(&b);
    n.mask = first;
    free(ga);
    free(gb);
    whole_close(&n);
}

/* The loss by its definition, from ns_net_logits. */
static void test_loss_values(void **state)
{
    (void)state;
    whole n;
    ns_loss loss = { 0 };
    whole_open(&n, &(setting){ .pattern = "*E", .ce = 0.25, .kd = 0.5, .temperature = 1.5 });
    const int v = n.f.arch->vocab_size;
    ns_real *z = reals(TOKENS * (size_t)v), *u = reals(TOKENS * (size_t)v), *per_token = reals(TOKENS);
    double ce = 0, kl = 0, weight = 0, top1 = 0, agree = 0;
    ns_net_forward(n.net, n.teacher_w, NULL, &n.seqs);
    ns_net_logits(n.net, n.teacher_w, NULL, 0, TOKENS, u);
    ns_net_forward(n.net, n.f.w, NULL, &n.seqs);
    ns_net_logits(n.net, n.f.w, NULL, 0, 5, z);
    ns_net_logits(n.net, n.f.w, NULL, 5, TOKENS - 5, z + 5 * v);
    ns_net_loss(n.net, n.f.w, NULL, &n.spec, NULL, per_token, &loss);
    for (int t = 0; t < TOKENS; t++) {
        const ns_real *zt = z + t * v, *ut = u + t * v;
        double p1 = 0, p = 0, q = 0, w = (double)n.weight[t], d = 0, tau = 1.5;
        int best = 0, best_u = 0;
        for (int j = 0; j < v; j++) {
            p1 += exp((double)zt[j]);
            p += exp((double)zt[j] / tau);
            q += exp((double)ut[j] / tau);
            best = zt[j] > zt[best] ? j : best;
            best_u = ut[j] > ut[best_u] ? j : best_u;
        }
        for (int j = 0; j < v; j++)
            d += tau * tau * exp((double)ut[j] / tau) / q * ((double)(ut[j] - zt[j]) / tau - log(q) + log(p));
        if (w == 0) {
            assert_true(per_token[t] == 0);
            continue;
        }
        const double c = log(p1) - (double)zt[n.target[t]];
        assert_true(fabs((double)per_token[t] - 0.25 * c - 0.5 * d) < 1e-10);
        ce += w * c;
        kl += w * d;
        weight += w;
        top1 += best == n.target[t] ? w : 0;
        agree += best == best_u ? w : 0;
    }
    assert_true(fabs(loss.ce - ce) < 1e-9 && fabs(loss.kl - kl) < 1e-9 && fabs(loss.weight - weight) < 1e-12);
    assert_true(fabs(loss.loss - 0.25 * ce - 0.5 * kl) < 1e-9 && fabs(loss.top1 - top1) < 1e-12 && fabs(loss.agree - agree) < 1e-12);
    assert_true(kl > 0.01 && agree > 0 && agree < weight);
    free(z);
    free(u);
    free(per_token);
    whole_close(&n);
}

/* ---- taps ---- */

typedef struct seen {
    const fixture *f;
    int norms, rows[3], attention; /* rows of FFN (dense or shared, experts) and of expert outputs */
    double gates;
} seen;

static void look(void *ctx, const ns_tap *t)
{
    seen *s = ctx;
    const ns_arch *a = s->f->arch;
    const int *width = t->layer < a->n_layers ? a->layers[t->layer].width : NULL;
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < t->cols; j++)
            assert_true(isfinite(t->x[(size_t)i * t->ld + (size_t)j]));
    switch (t->kind) {
    case NS_TAP_NORM:
        assert_int_equal(t->layer, s->norms++);
        assert_int_equal(t->rows * 1000 + t->cols, TOKENS * 1000 + a->hidden_size);
        break;
    case NS_TAP_FFN:
        s->rows[t->expert >= 0] += t->rows;
        assert_int_equal(t->cols, width[t->expert >= 0 ? NS_AXIS_EXPERT_FFN : t->layer == 2 ? NS_AXIS_DENSE_FFN : NS_AXIS_SHARED_FFN]);
        break;
    case NS_TAP_EXPERT_OUT:
        s->rows[2] += t->rows;
        for (int i = 0; i < t->rows; i++)
            s->gates += (double)t->gate[i];
        break;
    default:
        s->attention += t->rows;
        assert_int_equal(t->cols, width[NS_AXIS_ATTN_HEADS] * a->head_dim);
    }
}

/* Every watcher's point is passed once in a forward, and never in a backward that recomputes. */
static void test_taps(void **state)
{
    (void)state;
    whole n;
    whole_open(&n, &(setting){ .pattern = "*E-", .ce = 1 });
    seen s = { .f = &n.f };
    ns_net *net = new_net(&n, (ns_net_opts){ .recompute = NS_RECOMPUTE_LAYER });
    ns_net_tap(net, look, &s);
    gradients(&n, net, n.f.g, NULL, NULL);
    assert_int_equal(s.norms, 4);
    assert_int_equal(s.attention, TOKENS);
    assert_int_equal(s.rows[0], 2 * TOKENS); /* shared and dense */
    assert_int_equal(s.rows[1], 2 * TOKENS); /* two experts a token */
    assert_int_equal(s.rows[2], 2 * TOKENS);
    assert_true(fabs(s.gates - 2.5 * TOKENS) < 1e-9); /* normed, times the scaling of tiny configs */
    ns_net_tap(net, NULL, NULL);
    gradients(&n, net, n.f.g, NULL, NULL);
    assert_int_equal(s.norms, 4);
    ns_net_free(net);
    whole_close(&n);
}

/* A NaN in any weight that is used comes out as a NaN loss. */
static void test_nan_shows(void **state)
{
    (void)state;
    whole n;
    whole_open(&n, &(setting){ .pattern = all_kinds, .ce = 1, .kd = 1, .biases = true });
    for (int i = 0; i < n.f.p.n; i++) {
        const ns_param *p = &n.f.p.p[i];
        ns_loss loss = { 0 };
        for (size_t k = 0; k < (p->role == NS_W_EMBED ? p->count : 1); k++) {
            const ns_real was = n.f.w[p->off + k];
            n.f.w[p->off + k] = NAN;
            ns_net_forward(n.net, n.f.w, NULL, &n.seqs);
            ns_net_loss(n.net, n.f.w, NULL, &n.spec, NULL, NULL, &loss);
            n.f.w[p->off + k] = was;
            if (isnan(loss.loss))
                break;
        }
        if (!isnan(loss.loss) && p->n_experts == 0 && !p->buffer) /* expert 0 may have no token; the correction only selects */
            fail_msg("layer %d role %s: the NaN is lost", p->layer, ns_weight_get(p->role)->id);
    }
    whole_close(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cross_entropy), cmocka_unit_test(test_distillation), cmocka_unit_test(test_masked),
        cmocka_unit_test(test_layer_off),     cmocka_unit_test(test_soft_shares),  cmocka_unit_test(test_mask_copies),
        cmocka_unit_test(test_loss_values),   cmocka_unit_test(test_taps),         cmocka_unit_test(test_nan_shows),
    };
    return cmocka_run_group_tests_name("grad_net", tests, tiny_setup, tiny_teardown);
}
