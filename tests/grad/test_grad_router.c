/* The whole way of a router's weights to the loss: logits, Gumbel-softmax, masks, the network, the budget and its anchor; all axes. */
#include "fixture.h"

#include "train/router.h"

enum { TOKENS = 17, SEQS = 2 };
static const int start[] = { 0, 6, TOKENS };

typedef struct chain {
    fixture f;
    ns_net *net;
    ns_net_mask mask;
    ns_seqs seqs;
    ns_loss_spec spec;
    int target[TOKENS];
    ns_real weight[TOKENS];
    ns_router *r;
    ns_router_pass pass;
    ns_budget budget;
    ns_expect x, dx;
    double share, alpha, hard;
    bool noisy;
    picks at_start, now;
} chain;

static void hash_tap(void *ctx, const ns_tap *t)
{
    chain *n = ctx;
    if (t->kind == NS_TAP_NORM && t->layer < n->f.arch->n_layers && n->f.arch->layers[t->layer].kind == NS_LAYER_MOE)
        hash_picks(&n->f, &n->mask.layer[t->layer], t->layer, t->x, t->rows, t->cols, &n->now);
}

/* Router to mask to loss; the same noise every time. */
static double forward(chain *n)
{
    ns_rng noise;
    ns_loss loss = { 0 };
    ns_rng_init(&noise, 77);
    const ns_router_draw d = { .scale = 1.5, .tau = 0.8, .hard = n->hard, .rng = n->noisy ? &noise : NULL };
    ns_router_forward(n->r, n->share, &d, &n->pass);
    ns_router_mask(n->f.arch, n->r, n->pass.p, &n->mask);
    ns_router_expect(n->f.arch, n->r, n->pass.p, &n->x);
    n->now = (picks){ 0 };
    ns_net_forward(n->net, n->f.w, &n->mask, &n->seqs);
    ns_mask_zero_grad(&n->mask);
    ns_net_loss(n->net, n->f.w, &n->mask, &n->spec, NULL, NULL, &loss);
    if (n->at_start.hash)
        assert_true(n->now.hash == n->at_start.hash);
    n->at_start = n->now;
    return n->spec.scale * loss.loss + n->alpha * ns_budget_loss(&n->budget, &n->x, n->share, 0, NULL) +
           (n->share == 1 ? n->alpha * ns_router_anchor(n->r, n->pass.p, 0, NULL) : 0);
}

static double value(void *ctx)
{
    return forward(ctx);
}

static void gradient(chain *n, double *g)
{
    double *dp = calloc(n->r->n_out, sizeof *dp);
    assert_non_null(dp);
    forward(n);
    ns_net_backward(n->net, n->f.w, &n->mask, NULL, NULL, NULL);
    ns_router_mask_backward(n->f.arch, n->r, n->pass.p, &n->mask, dp);
    ns_expect_zero(&n->dx);
    ns_budget_loss(&n->budget, &n->x, n->share, n->alpha, &n->dx);
    ns_router_expect_backward(n->f.arch, n->r, &n->dx, dp);
    if (n->share == 1)
        ns_router_anchor(n->r, n->pass.p, n->alpha, dp);
    ns_router_backward(n->r, &n->pass, dp, g);
    free(dp);
}

static ns_router *all_axes(const ns_arch *a)
{
    static const int hidden[] = { 40, 30, 20 }, ffn[] = { 48, 36, 24 }, experts[] = { 8, 6, 4 }, shared[] = { 80, 40 },
                     dense[] = { 96, 48, 24 }, heads[] = { 8, 4 }, dims[] = { 16, 12, 8 }, state[] = { 16, 8 }, attn[] = { 8, 4, 2 }, depth[] = { 8, 7, 5 };
    static const int order[] = { 6, 1, 3 };
    static const double budgets[] = { 1, 0.7, 0.4 };
    const ns_router_axis_spec axes[] = {
        { NS_AXIS_MAMBA_HEAD_DIM, true, 3, dims }, { NS_AXIS_HIDDEN, false, 3, hidden }, { NS_AXIS_EXPERT_FFN, true, 3, ffn },
        { NS_AXIS_EXPERTS, false, 3, experts },    { NS_AXIS_SHARED_FFN, true, 2, shared }, { NS_AXIS_DENSE_FFN, false, 3, dense },
        { NS_AXIS_MAMBA_HEADS, true, 2, heads },   { NS_AXIS_SSM_STATE, true, 2, state }, { NS_AXIS_ATTN_HEADS, false, 3, attn },
        { -1, false, 3, depth } };
    const ns_router_spec spec = { .n_budgets = 3, .budget = budgets, .inner = 5, .n_axes = sizeof axes / sizeof *axes, .axis = axes,
                                  .n_order = 3, .order = order };
    ns_err e = { 0 };
    ns_router *r = ns_router_new(a, &spec, &e);
    if (!r)
        fail_msg("%s", e.msg);
    return r;
}

static void chain_open(chain *n, ns_budget_target target)
{
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    static int ids[TOKENS];
    o.hidden = 40;
    o.vocab = 50;
    *n = (chain){ .alpha = 2 };
    fixture_open(&n->f, &o);
    n->f.arch->norm_eps = n->f.arch->gated_norm_eps = 0.01;
    for (int t = 0; t < TOKENS; t++) {
        ids[t] = (int)(ns_rng_u64(&n->f.r) % 50);
        n->target[t] = (int)(ns_rng_u64(&n->f.r) % 50);
        n->weight[t] = 1;
    }
    n->seqs = (ns_seqs){ .n_tokens = TOKENS, .n_seqs = SEQS, .ids = ids, .start = start };
    n->spec = (ns_loss_spec){ .target = n->target, .weight = n->weight, .ce = 1, .temperature = 1, .scale = 1.0 / TOKENS };
    n->net = ns_net_new(&n->f.p, n->f.blas, &(ns_net_opts){ .max_tokens = TOKENS, .max_seqs = SEQS }, &e);
    if (!n->net || ns_mask_init(n->f.arch, &n->mask, &e) != 0)
        fail_msg("%s", e.msg);
    ns_net_tap(n->net, hash_tap, n);
    n->r = all_axes(n->f.arch);
    ns_router_init_weights(n->r, 0.7, 3);
    assert_int_equal(ns_router_pass_init(n->r, &n->pass, &e), 0);
    const ns_budget_opts bo = { .target = target, .context = 64, .batch = 2, .chunk = 32 };
    assert_int_equal(ns_budget_plan(n->f.arch, &bo, &n->budget, &e), 0);
    assert_int_equal(ns_expect_init(n->f.arch, &n->x, &e), 0);
    assert_int_equal(ns_expect_init(n->f.arch, &n->dx, &e), 0);
}

static void chain_close(chain *n)
{
    ns_net_free(n->net);
    ns_mask_release(&n->mask);
    ns_router_pass_release(&n->pass);
    ns_router_free(n->r);
    ns_budget_release(&n->budget);
    ns_expect_release(&n->x);
    ns_expect_release(&n->dx);
    fixture_close(&n->f);
}

static void check_chain(ns_budget_target target, double share, bool noisy)
{
    chain n;
    chain_open(&n, target);
    n.share = share;
    n.noisy = noisy;
    double *g = calloc(n.r->count, sizeof *g);
    gradient(&n, g);
    for (int k = 0; k < n.r->n_axes; k++) {
        const ns_router_axis *x = &n.r->axis[k];
        size_t end = k + 1 < n.r->n_axes ? n.r->axis[k + 1].fc1 : n.r->count;
        check_direction(ns_router_axis_name(x), n.r->w + x->fc1, g + x->fc1, x->fc2 - x->fc1, 0, &n.f.r, value, &n);
        check_direction(ns_router_axis_name(x), n.r->w + x->fc2, g + x->fc2, end - x->fc2, 0, &n.f.r, value, &n);
    }
    free(g);
    chain_close(&n);
}

static void trained_budget(void **state)
{
    (void)state;
    check_chain(NS_BUDGET_ACTIVE, 0.4, false);
}

static void with_noise(void **state)
{
    (void)state;
    check_chain(NS_BUDGET_MEMORY, 0.7, true);
}

static void anchored(void **state)
{
    (void)state;
    check_chain(NS_BUDGET_TOTAL, 1, true);
}

static void between_budgets(void **state)
{
    (void)state;
    check_chain(NS_BUDGET_ACTIVE, 0.5, true);
}

/* Hard: the mask is the arg max's, the gradient that of the probabilities at the hard mask. */
static void straight_through(void **state)
{
    (void)state;
    ns_err e = { 0 };
    chain n;
    chain_open(&n, NS_BUDGET_ACTIVE);
    n.share = 0.4;
    n.noisy = true;
    n.hard = 1;
    forward(&n);
    ns_cut c;
    int pick[64], at = 0;
    for (int k = 0; k < n.r->n_axes; k++)
        for (int s = 0; s < n.r->axis[k].n_slots; s++, at++) {
            const double *p = n.pass.p + n.r->axis[k].out + (size_t)(s * n.r->axis[k].n_choices);
            const double *soft = n.pass.soft + (p - n.pass.p);
            double sum = 0;
            pick[at] = -1;
            for (int i = 0; i < n.r->axis[k].n_choices; i++) {
                sum += soft[i];
                if (p[i] == 1)
                    pick[at] = i;
                else
                    assert_true(p[i] == 0);
            }
            assert_true(pick[at] >= 0 && fabs(sum - 1) < 1e-12);
            for (int i = 0; i < n.r->axis[k].n_choices; i++)
                assert_true(soft[i] <= soft[pick[at]]);
        }
    assert_int_equal(ns_router_pick_cut(n.f.arch, n.r, pick, &c, &e), 0);
    ns_net_mask hard;
    assert_int_equal(ns_mask_init(n.f.arch, &hard, &e), 0);
    ns_mask_set_cut(n.f.arch, &c, &hard);
    assert_true(fabs((double)(hard.norm.scale - n.mask.norm.scale)) < 1e-12);
    for (int i = 0; i < hard.hidden.full; i++)
        assert_true(hard.hidden.m[i] == n.mask.hidden.m[i]);
    for (int l = 0; l < n.f.arch->n_layers; l++) {
        assert_true(hard.layer[l].keep == n.mask.layer[l].keep);
        for (int x = 0; c.layer[l].keep && x < NS_AXIS_COUNT; x++)
            for (int i = 0; hard.layer[l].axis[x].m && i < hard.layer[l].axis[x].full; i++)
                assert_true(hard.layer[l].axis[x].m[i] == n.mask.layer[l].axis[x].m[i]);
    }
    double *g = calloc(n.r->count, sizeof *g), size = 0, cost;
    gradient(&n, g);
    for (size_t i = 0; i < n.r->count; i++)
        size += fabs(g[i]);
    assert_true(isfinite(size) && size > 0);
    assert_int_equal(ns_budget_of_cut(&n.budget, &c, &cost, &e), 0);
    assert_true(fabs(ns_budget_cost(&n.budget, &n.x, 0, NULL) - cost) < 1e-9 * cost);
    free(g);
    ns_mask_release(&hard);
    ns_cut_release(&c);
    chain_close(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trained_budget),  cmocka_unit_test(with_noise),       cmocka_unit_test(anchored),
        cmocka_unit_test(between_budgets), cmocka_unit_test(straight_through),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
