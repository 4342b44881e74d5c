/* Sequences that go on from beginnings another forward computed, in double: without a change of mask the continuation is what the whole
 * sequence computes there; its gradients, with what was handed over held constant, against finite differences. */
#include "block/carry.h"
#include "fixture.h"

/* Documents with nothing, less and more in front than the convolution reaches, and chunks of the scan on either side. */
enum { SEQS = 6, TOKENS = 1 + 2 + 5 + 9 + 70 + 140, HEADS = 0 + 1 + 2 + 6 + 66 + 3, TAILS = TOKENS - HEADS, VOCAB = 50 };
static const int length[SEQS] = { 1, 2, 5, 9, 70, 140 }, cut[SEQS] = { 0, 1, 2, 6, 66, 3 };

typedef struct part {
    int ids[TOKENS], start[SEQS + 1], row[TOKENS], target[TOKENS];
    ns_real weight[TOKENS];
    ns_seqs seqs;
} part;

typedef struct carried {
    fixture f;
    part whole, head, tail;
    ns_carry carry;
    ns_net *net;
    ns_net_mask mask, before;
    bool masked;
    ns_loss_spec spec;   /* of the tails */
    ns_real *teacher_w, *teacher;
} carried;

static void add(part *to, const part *from, int at, int n)
{
    for (int t = at; t < at + n; t++, to->seqs.n_tokens++) {
        const int i = to->seqs.n_tokens;
        to->ids[i] = from->ids[t];
        to->target[i] = from->target[t];
        to->weight[i] = from->weight[t];
        to->row[i] = t;
    }
    to->start[++to->seqs.n_seqs] = to->seqs.n_tokens;
}

static void make_parts(carried *c)
{
    ns_rng *r = &c->f.r;
    part *w = &c->whole;
    for (int t = 0; t < TOKENS; t++) {
        w->ids[t] = (int)(ns_rng_u64(r) % VOCAB);
        w->target[t] = (int)(ns_rng_u64(r) % VOCAB);
        w->weight[t] = ns_rng_u64(r) % 4 ? (ns_real)(0.5 + ns_rng_uniform(r)) : 0;
    }
    for (int i = 0, at = 0; i < SEQS; at += length[i++]) {
        w->start[i + 1] = at + length[i];
        add(&c->head, w, at, cut[i]);
        add(&c->tail, w, at + cut[i], length[i] - cut[i]);
    }
    w->seqs.n_tokens = TOKENS;
    w->seqs.n_seqs = SEQS;
    part *all[] = { w, &c->head, &c->tail };
    for (int i = 0; i < 3; i++) {
        all[i]->seqs.ids = all[i]->ids;
        all[i]->seqs.start = all[i]->start;
    }
    c->head.seqs.leave = &c->carry;
    c->tail.seqs.from = &c->carry;
    assert_true(c->head.seqs.n_tokens == HEADS && c->tail.seqs.n_tokens == TAILS);
}

static ns_net *new_net(const carried *c, ns_net_opts o)
{
    ns_err e = { 0 };
    o.max_tokens = TOKENS; /* no more than both parts need */
    o.max_seqs = SEQS;
    ns_net *n = ns_net_new(&c->f.p, c->f.blas, &o, &e);
    if (!n)
        fail_msg("%s", e.msg);
    return n;
}

static void random_mask(const carried *c, ns_net_mask *m, ns_rng *r, double share)
{
    random_axis(&m->hidden, r, share);
    m->norm.eps_factor = (ns_real)share;
    m->norm.scale = (ns_real)0.9;
    for (int i = 0; i < c->f.arch->n_layers; i++)
        random_layer_mask(c->f.arch, i, &m->layer[i], r);
}

/* What one size's forward of the beginnings leaves. The net's memory is not zero before it. */
static void begin(carried *c, ns_net_mask *mask)
{
    ns_net *net = new_net(c, (ns_net_opts){ .forward_only = true });
    ns_net_forward(net, c->f.w, mask, &c->whole.seqs);
    memset(c->carry.memory, 0xff, c->carry.room * sizeof *c->carry.memory);
    ns_net_forward(net, c->f.w, mask, &c->head.seqs);
    ns_net_free(net);
}

static void carried_open(carried *c, const char *pattern, bool masked, bool biases, int taps)
{
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    o.pattern = pattern;
    o.hidden = 24;
    o.vocab = VOCAB;
    o.biases = biases;
    o.conv_kernel = taps;
    *c = (carried){ .masked = masked };
    fixture_open(&c->f, &o);
    make_parts(c);
    c->net = new_net(c, (ns_net_opts){ 0 });
    assert_int_equal(ns_mask_init(c->f.arch, &c->mask, &e), 0);
    assert_int_equal(ns_mask_init(c->f.arch, &c->before, &e), 0);
    assert_int_equal(ns_carry_reserve(&c->carry, c->f.arch, HEADS, SEQS, &e), 0);
    random_mask(c, &c->mask, &c->f.r, 0.75);
    random_mask(c, &c->before, &c->f.r, 0.5);
    ns_net *net = new_net(c, (ns_net_opts){ .forward_only = true });
    c->teacher_w = reals(c->f.p.count);
    c->teacher = reals(TOKENS * (size_t)o.hidden);
    for (size_t i = 0; i < c->f.p.count; i++)
        c->teacher_w[i] = c->f.w[i] * (ns_real)(1 + 0.1 * ns_rng_normal(&c->f.r));
    ns_net_forward(net, c->teacher_w, NULL, &c->whole.seqs);
    memcpy(c->teacher, ns_net_hidden(net), TOKENS * (size_t)o.hidden * sizeof *c->teacher);
    ns_net_free(net);
    c->spec = (ns_loss_spec){ .target = c->tail.target, .weight = c->tail.weight, .ce = (ns_real)0.3, .kd = 1, .temperature = 1,
                              .teacher = c->teacher, .teacher_row = c->tail.row, .teacher_w = c->teacher_w, .scale = 0.1 };
}

static void carried_close(carried *c)
{
    ns_net_free(c->net);
    ns_mask_release(&c->mask);
    ns_mask_release(&c->before);
    ns_carry_release(&c->carry);
    free(c->teacher_w);
    free(c->teacher);
    fixture_close(&c->f);
}

static double value(void *ctx)
{
    carried *c = ctx;
    ns_loss loss = { 0 };
    ns_net_forward(c->net, c->f.w, c->masked ? &c->mask : NULL, &c->tail.seqs);
    ns_net_loss(c->net, c->f.w, c->masked ? &c->mask : NULL, &c->spec, NULL, NULL, &loss);
    return c->spec.scale * loss.loss;
}

static void gradients(carried *c, ns_net *net, ns_real *g)
{
    ns_net_mask *mask = c->masked ? &c->mask : NULL;
    ns_loss loss = { 0 };
    memset(g, 0, c->f.p.count * sizeof *g);
    ns_mask_zero_grad(&c->mask);
    ns_net_forward(net, c->f.w, mask, &c->tail.seqs);
    ns_net_loss(net, c->f.w, mask, &c->spec, g, NULL, &loss);
    ns_net_backward(net, c->f.w, mask, g, NULL, NULL);
}

static const char *const patterns[] = { "M", "*", "MEM*-M*" };

/* The same mask before and after: the losses of the whole sequences, token by token. */
static void same_as_whole(void **state)
{
    (void)state;
    for (int k = 0; k < 3 * 2 * 2; k++) {
        carried c;
        ns_loss loss = { 0 };
        ns_real one[TOKENS], two[TOKENS];
        carried_open(&c, patterns[k % 3], k / 3 % 2, k / 3 % 2, k / 6 ? 2 : 4);
        ns_net_mask *mask = c.masked ? &c.mask : NULL;
        begin(&c, mask);
        ns_loss_spec spec = c.spec;
        spec.target = c.whole.target;
        spec.weight = c.whole.weight;
        spec.teacher_row = NULL;
        ns_net_forward(c.net, c.f.w, mask, &c.whole.seqs);
        ns_net_loss(c.net, c.f.w, mask, &spec, NULL, one, &loss);
        ns_net_forward(c.net, c.f.w, mask, &c.tail.seqs);
        ns_net_loss(c.net, c.f.w, mask, &c.spec, NULL, two, &loss);
        for (int t = 0; t < TAILS; t++)
            if (!(fabs((double)(two[t] - one[c.tail.row[t]])) < 1e-10))
                fail_msg("%s: token %d: %.12g, in the whole sequence %.12g", patterns[k % 3], t, (double)two[t], (double)one[c.tail.row[t]]);
        carried_close(&c);
    }
}

/* Another mask before: every parameter and every number of the mask; recomputing changes no bit. */
static void gradients_with_a_constant_past(void **state)
{
    static const char *const kinds[] = { "M", "*", "M*-M*" }; /* no experts: their choice is not continuous */
    (void)state;
    for (int k = 0; k < 6; k++) {
        carried c;
        carried_open(&c, kinds[k % 3], k / 3, k / 3, 4);
        begin(&c, &c.before);
        ns_net *again = new_net(&c, (ns_net_opts){ .recompute = NS_RECOMPUTE_LAYER });
        ns_real *g = reals(c.f.p.count);
        gradients(&c, again, g);
        gradients(&c, c.net, c.f.g);
        assert_memory_equal(g, c.f.g, c.f.p.count * sizeof *g);
        check_params(&c.f, false, value, &c);
        for (int i = 0; c.masked && i < c.f.arch->n_layers; i++)
            check_layer_mask(&c.mask.layer[i], &c.f.r, value, &c);
        free(g);
        ns_net_free(again);
        carried_close(&c);
    }
}

/* What the beginnings leave matters: other beginnings, another loss. */
static void the_past_is_seen(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        carried c;
        carried_open(&c, patterns[k], false, false, 4);
        begin(&c, NULL);
        const double same = value(&c);
        begin(&c, &c.before);
        assert_true(fabs(value(&c) - same) > 1e-3 * fabs(same));
        carried_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(same_as_whole), cmocka_unit_test(gradients_with_a_constant_past),
                                        cmocka_unit_test(the_past_is_seen) };
    return cmocka_run_group_tests_name("grad_carry", tests, tiny_setup, tiny_teardown);
}
