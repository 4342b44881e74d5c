/* Kept prefixes: going on from one is reading everything, bit for bit; and the tree against a plain list that does the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "prop/prop.h"
#include "run/prefix.h"

enum { STEP = NS_SCAN_CHUNK, LONGEST = 320 };

/* A prompt as they come: the beginning of an earlier one, mostly at the same size, then something new. */
typedef struct prompt {
    int size, n, ids[LONGEST];
} prompt;

static void next_prompt(prompt *p, const prompt *earlier, int n_earlier, int sizes, int vocab, ns_rng *r)
{
    int from = 0;
    p->size = prop_pick(r, sizes);
    p->n = STEP + 2 + prop_pick(r, LONGEST - STEP - 2);
    if (n_earlier && prop_pick(r, 6)) {
        const prompt *e = &earlier[prop_pick(r, n_earlier)];
        if (prop_pick(r, 4))
            p->size = e->size;
        from = e->n / 2 + prop_pick(r, e->n / 2 + 1);
        from = prop_pick(r, 2) ? from / STEP * STEP : from;
        from = from < p->n ? from : p->n;
        memcpy(p->ids, e->ids, (size_t)from * sizeof *p->ids);
    }
    for (int i = from; i < p->n; i++)
        p->ids[i] = prop_pick(r, vocab);
}

static ns_state *state_for(const ns_arch *a, const ns_cut *c, ns_dtype kv)
{
    ns_err e = { 0 };
    ns_state *s = ns_state_new(a, c, kv, LONGEST + 30, &e);
    assert_non_null(s);
    return s;
}

static ns_prefix *prefix_new(int64_t bytes)
{
    ns_err e = { 0 };
    ns_prefix *p = ns_prefix_new(bytes, &e);
    assert_non_null(p);
    return p;
}

static void put(ns_prefix *p, const ns_state *s, const int *ids)
{
    ns_err e = { 0 };
    if (ns_prefix_put(p, s, ids, &e) != 0)
        fail_msg("%s", e.msg);
}

/* ---- with a model ---- */

enum { PROMPTS = 14, CUTS = 3 };

/* From what is kept to the prompt's end, in pieces, some of which are kept in turn. */
static int read_on(ns_prefix *p, const ns_plan *plan, ns_state *s, const prompt *q, float *logits, ns_rng *r)
{
    int got = ns_prefix_get(p, s, q->ids, q->n - 2), branch = ns_prefix_branch(p, s, q->ids, q->n - 2);
    assert_int_equal(got, s->len);
    while (s->len < q->n) {
        int left = q->n - s->len, n = STEP * (1 + prop_pick(r, 2));
        if (branch > s->len && n > branch - s->len)
            n = branch - s->len;
        if (n > left - 2) /* one token alone would be read another way */
            n = left;
        const prop_feed piece = prop_whole(n);
        float *out = n == left ? malloc((size_t)n * (size_t)plan->model->arch->vocab_size * sizeof *out) : NULL;
        prop_continue(plan, s, q->ids + s->len, &piece, out);
        if (out)
            memcpy(logits, out + (size_t)(n - 1) * (size_t)plan->model->arch->vocab_size,
                   (size_t)plan->model->arch->vocab_size * sizeof *out);
        free(out);
        if (s->len % STEP == 0 && (s->len == branch || prop_pick(r, 2)))
            put(p, s, q->ids);
    }
    return got;
}

/* How many prompts went on from a kept prefix. */
static int reads_on(const tiny_opts *o, const char *name, enum ns_rung rung, ns_dtype kv)
{
    static prompt list[PROMPTS];
    char what[100];
    ns_rng r;
    ns_err e = { 0 };
    prop_model m = prop_open(tiny_open(tiny_base, name, o), ns_ops_find(rung), 2);
    const int vocab = m.ck->arch->vocab_size;
    ns_cut cut[CUTS];
    ns_plan *plan[CUTS];
    float *logits = malloc((size_t)vocab * sizeof *logits);
    m.m.kv = kv;
    ns_rng_init(&r, o->seed);
    for (int i = 0; i < CUTS; i++) {
        assert_int_equal(i ? tiny_random_cut(m.ck, (uint64_t)i, &cut[i]) : ns_cut_full(m.ck->arch, &cut[i], &e), 0);
        plan[i] = prop_plan(&m, &cut[i]);
    }
    ns_prefix *p = prefix_new((int64_t)1 << 40);
    int reused = 0;
    for (int i = 0; i < PROMPTS; i++) {
        next_prompt(&list[i], list, i, CUTS, vocab, &r);
        const int c = list[i].size;
        const prop_feed all = prop_whole(list[i].n);
        prop_trace want = prop_run(plan[c], list[i].ids, &all, 0);
        ns_state *s = state_for(m.ck->arch, &cut[c], kv);
        snprintf(what, sizeof what, "%s on %s%s: prompt %d", name, m.m.ops->name, kv == NS_F32 ? "" : ", FP8 cache", i);
        reused += read_on(p, plan[c], s, &list[i], logits, &r) > 0;
        prop_same_state(s, want.state, what);
        prop_same(logits, want.logits + (size_t)(list[i].n - 1) * (size_t)vocab, (size_t)vocab, what);
        ns_state_free(s);
        prop_trace_release(&want);
    }
    ns_prefix_free(p);
    free(logits);
    for (int i = 0; i < CUTS; i++) {
        ns_plan_free(plan[i]);
        ns_cut_release(&cut[i]);
    }
    prop_close(&m);
    char *dir = tiny_path(tiny_base, name);
    tiny_remove(dir);
    free(dir);
    return reused;
}

static void going_on_is_reading_all(void **state)
{
    (void)state;
    prop_variant v[PROP_VARIANTS];
    int cases = 0, reused = 0;
    prop_variants(v);
    for (int i = 0; i < PROP_VARIANTS; i++)
        for (int k = 0; k < 2 * NS_RUNG_COUNT; k++)
            if (ns_ops_find((enum ns_rung)(k / 2)) && (k % 2 == 0 || i % 3 == 0)) {
                cases++;
                reused += reads_on(&v[i].o, v[i].name, (enum ns_rung)(k / 2), k % 2 ? NS_F8_E4M3 : NS_F32);
            }
    assert_true(reused >= 4 * cases); /* else this tested little */
}

/* ---- against a plain list ----
 * A list of sequences that are kept; a sequence's piece is what its longest kept beginning lacks. States are of paper: what is in them is
 * a function of the tokens. */

enum { FAMILIES = 4, KEPT = 600, POOL = 40 };

typedef struct kept {
    const int *ids; /* a prompt of the pool */
    int family, n;  /* n 0: the family's root */
    uint64_t used;
} kept;

typedef struct plain {
    const ns_arch *arch;
    ns_cut cut[2];
    int64_t node, token[FAMILIES], recurrent[FAMILIES], root; /* bytes */
    kept list[KEPT];
    int n;
    int64_t max;
    uint64_t clock;
    int evicted, refused, split;
} plain;

static ns_dtype kv_of(int family)
{
    return family % 2 ? NS_F8_E4M3 : NS_F32;
}

static void write_part(void *to, size_t bytes, uint64_t seed)
{
    ns_rng r;
    ns_rng_init(&r, seed);
    uint8_t *p = to;
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)ns_rng_u64(&r);
}

/* A state of paper after ids[0..n). */
static ns_state *paper(const plain *l, int family, const int *ids, int n)
{
    ns_state *s = state_for(l->arch, &l->cut[family / 2], kv_of(family));
    const size_t row = ns_state_row(s);
    uint64_t seed = (uint64_t)family;
    for (int t = 0; t < n; t++) {
        seed = (seed ^ (uint64_t)ids[t]) * 0x9e3779b97f4a7c15u + 1;
        for (int i = 0; i < l->arch->n_layers; i++)
            for (int g = 0; s->cut.layer[i].keep && l->arch->layers[i].kind == NS_LAYER_ATTENTION && g < l->arch->n_kv_heads; g++) {
                const size_t at = ((size_t)g * (size_t)s->context + (size_t)t) * row;
                write_part(s->layer[i].k + at, row, seed + (uint64_t)(2 * (i * 100 + g)));
                write_part(s->layer[i].v + at, row, seed + (uint64_t)(2 * (i * 100 + g) + 1));
            }
    }
    for (int i = 0; n && i < l->arch->n_layers; i++) {
        write_part(s->layer[i].conv, s->layer[i].conv_len * sizeof(float), seed + (uint64_t)(100000 + i));
        write_part(s->layer[i].ssm, s->layer[i].ssm_len * sizeof(float), seed + (uint64_t)(200000 + i));
    }
    s->len = n;
    return s;
}

static bool begins(const kept *k, int family, const int *ids, int n)
{
    return k->family == family && k->n <= n && memcmp(k->ids, ids, (size_t)k->n * sizeof *ids) == 0;
}

/* The longest kept beginning of ids[0..n), or -1. */
static int longest(const plain *l, int family, const int *ids, int n)
{
    int best = -1;
    for (int i = 0; i < l->n; i++)
        if (begins(&l->list[i], family, ids, n) && (best < 0 || l->list[i].n > l->list[best].n))
            best = i;
    return best;
}

static int64_t piece_bytes(const plain *l, int family, int n)
{
    return l->node + n * (int64_t)sizeof(int) + n * l->token[family] + l->recurrent[family];
}

static int64_t kept_bytes(const plain *l, int i)
{
    const kept *k = &l->list[i];
    return k->n ? piece_bytes(l, k->family, k->n - l->list[longest(l, k->family, k->ids, k->n - 1)].n) : l->root;
}

static int64_t sum_bytes(const plain *l)
{
    int64_t sum = 0;
    for (int i = 0; i < l->n; i++)
        sum += kept_bytes(l, i);
    return sum;
}

/* All kept beginnings become the most recent, the shortest of all last; their bytes. */
static int64_t use_chain(plain *l, int family, const int *ids, int n)
{
    int64_t bytes = 0;
    for (int at = longest(l, family, ids, n); at >= 0; at = l->list[at].n ? longest(l, family, ids, l->list[at].n - 1) : -1) {
        l->list[at].used = ++l->clock;
        bytes += kept_bytes(l, at);
    }
    return bytes;
}

static void plain_evict(plain *l)
{
    int oldest = 0;
    for (int i = 1; i < l->n; i++)
        if (l->list[i].used < l->list[oldest].used)
            oldest = i;
    for (int i = 0; i < l->n; i++) /* it is a leaf */
        assert_true(i == oldest || !begins(&l->list[oldest], l->list[i].family, l->list[i].ids, l->list[i].n));
    l->list[oldest] = l->list[--l->n];
    l->evicted++;
}

static void plain_put(plain *l, int family, const int *ids, int n)
{
    const int at = longest(l, family, ids, n), from = at < 0 ? 0 : l->list[at].n;
    const int64_t need = piece_bytes(l, family, n - from) + (at < 0 ? l->root : 0), chain = use_chain(l, family, ids, n);
    if (at >= 0 && from == n)
        return;
    if (chain + need > l->max) {
        l->refused++;
        return;
    }
    while (sum_bytes(l) + need > l->max)
        plain_evict(l);
    assert_true(l->n + 2 <= KEPT);
    if (at < 0)
        l->list[l->n++] = (kept){ .ids = ids, .family = family, .n = 0 };
    for (int i = 0; i < l->n; i++)
        l->split += l->list[i].family == family && l->list[i].n > n && memcmp(l->list[i].ids, ids, (size_t)n * sizeof *ids) == 0;
    l->list[l->n++] = (kept){ .ids = ids, .family = family, .n = n, .used = ++l->clock };
    use_chain(l, family, ids, from);
}

static int plain_get(plain *l, int family, const int *ids, int limit)
{
    const int at = longest(l, family, ids, limit), n = at < 0 ? 0 : l->list[at].n;
    if (n)
        use_chain(l, family, ids, n);
    return n;
}

static int plain_branch(const plain *l, int family, const int *ids, int limit)
{
    const int at = longest(l, family, ids, limit);
    int most = 0;
    for (int i = 0; i < l->n; i++) {
        const kept *k = &l->list[i];
        int same = 0;
        while (k->family == family && same < k->n && same < limit && k->ids[same] == ids[same])
            same++;
        most = same / STEP * STEP > most ? same / STEP * STEP : most;
    }
    return at >= 0 && most > l->list[at].n ? most : 0;
}

static void plain_open(plain *l, const prop_model *m)
{
    ns_err e = { 0 };
    *l = (plain){ .arch = m->ck->arch };
    assert_int_equal(ns_cut_full(l->arch, &l->cut[0], &e), 0);
    assert_int_equal(tiny_random_cut(m->ck, 5, &l->cut[1]), 0);
    assert_false(ns_cut_equal(&l->cut[0], &l->cut[1]));
    for (int f = 0; f < FAMILIES; f++) {
        ns_state *s = paper(l, f, NULL, 0);
        for (int i = 0; i < l->arch->n_layers; i++) {
            if (s->cut.layer[i].keep && l->arch->layers[i].kind == NS_LAYER_ATTENTION)
                l->token[f] += 2 * l->arch->n_kv_heads * (int64_t)ns_state_row(s);
            l->recurrent[f] += (int64_t)((s->layer[i].conv_len + s->layer[i].ssm_len) * sizeof(float));
        }
        ns_state_free(s);
    }
    /* what a node costs beside its contents, from a tree of a root and one piece */
    int ids[STEP] = { 0 };
    ns_prefix *p = prefix_new((int64_t)1 << 40);
    ns_state *s = paper(l, 0, ids, STEP);
    put(p, s, ids);
    const int64_t cut = l->arch->n_layers * (int64_t)sizeof *l->cut[0].layer;
    l->node = (ns_prefix_bytes(p) - cut - piece_bytes(l, 0, STEP)) / 2;
    l->root = l->node + cut;
    assert_true(l->node > 0 && l->node < 1000);
    assert_int_equal(l->root + piece_bytes(l, 0, STEP), ns_prefix_bytes(p));
    ns_state_free(s);
    ns_prefix_free(p);
}

static void plain_release(plain *l)
{
    ns_cut_release(&l->cut[0]);
    ns_cut_release(&l->cut[1]);
}

static void one_operation(plain *l, ns_prefix *p, const prompt *q, ns_rng *r)
{
    const int f = q->size, limit = prop_pick(r, 3) ? q->n : prop_pick(r, q->n + 1);
    if (prop_pick(r, 2)) {
        const int n = STEP * (1 + prop_pick(r, q->n / STEP));
        ns_state *s = paper(l, f, q->ids, n);
        put(p, s, q->ids);
        plain_put(l, f, q->ids, n);
        ns_state_free(s);
    } else {
        ns_state *s = state_for(l->arch, &l->cut[f / 2], kv_of(f));
        assert_int_equal(ns_prefix_branch(p, s, q->ids, limit), plain_branch(l, f, q->ids, limit));
        const int want = plain_get(l, f, q->ids, limit);
        assert_int_equal(ns_prefix_get(p, s, q->ids, limit), want);
        ns_state *same = paper(l, f, q->ids, want);
        prop_same_state(s, same, "a kept state");
        ns_state_free(same);
        ns_state_free(s);
    }
    assert_int_equal(ns_prefix_bytes(p), sum_bytes(l));
    assert_true(ns_prefix_bytes(p) <= l->max);
}

static void tree_is_the_list(void **state)
{
    (void)state;
    static prompt pool[POOL];
    static plain l;
    const tiny_opts o = tiny_defaults();
    prop_model m = prop_open(tiny_open(tiny_base, "list", &o), ns_ops_find(NS_RUNG_REF), 1);
    plain_open(&l, &m);
    const int64_t small = l.root + piece_bytes(&l, 0, STEP);
    const int64_t budget[] = { (int64_t)1 << 40, 12 * small, 8 * small, 5 * small, 3 * small, small, small - 1, 0 };
    for (size_t b = 0; b < sizeof budget / sizeof *budget; b++) {
        ns_rng r;
        ns_rng_init(&r, b);
        for (int i = 0; i < POOL; i++)
            next_prompt(&pool[i], pool, i, FAMILIES, o.vocab, &r);
        ns_prefix *p = prefix_new(budget[b]);
        l.n = 0;
        l.max = budget[b];
        for (int i = 0; i < 400; i++)
            one_operation(&l, p, &pool[prop_pick(&r, POOL)], &r);
        assert_true(b > 0 || (l.evicted == 0 && l.refused == 0));
        ns_prefix_free(p);
    }
    assert_true(l.evicted > 300 && l.refused > 300 && l.split > 30); /* it all happened */
    plain_release(&l);
    prop_close(&m);
}

/* ---- by hand ---- */

static void branch_makes_a_shared_beginning(void **state)
{
    (void)state;
    static plain l;
    static prompt a, b;
    const tiny_opts o = tiny_defaults();
    prop_model m = prop_open(tiny_open(tiny_base, "branch", &o), ns_ops_find(NS_RUNG_REF), 1);
    plain_open(&l, &m);
    ns_rng r;
    ns_rng_init(&r, 3);
    for (int i = 0; i < 4 * STEP; i++)
        a.ids[i] = b.ids[i] = prop_pick(&r, o.vocab);
    b.ids[2 * STEP + 10] = (a.ids[2 * STEP + 10] + 1) % o.vocab;
    ns_prefix *p = prefix_new((int64_t)1 << 40);
    ns_state *long_a = paper(&l, 0, a.ids, 4 * STEP), *long_b = paper(&l, 0, b.ids, 4 * STEP), *both = paper(&l, 0, b.ids, 2 * STEP);
    ns_state *empty = paper(&l, 0, NULL, 0), *other = paper(&l, 1, NULL, 0);
    put(p, long_a, a.ids);
    assert_int_equal(ns_prefix_get(p, empty, b.ids, 4 * STEP), 0); /* parts in the middle */
    assert_int_equal(ns_prefix_branch(p, empty, b.ids, 4 * STEP), 2 * STEP);
    assert_int_equal(ns_prefix_branch(p, empty, b.ids, 2 * STEP - 1), STEP);
    assert_int_equal(ns_prefix_branch(p, empty, b.ids, STEP - 1), 0);
    assert_int_equal(ns_prefix_branch(p, other, b.ids, 4 * STEP), 0);
    const int64_t before = ns_prefix_bytes(p);
    put(p, both, b.ids); /* only a recurrent state is new: the rest is there once */
    assert_int_equal(ns_prefix_bytes(p) - before, l.node + l.recurrent[0]);
    put(p, long_b, b.ids);
    assert_int_equal(ns_prefix_bytes(p) - before, l.node + l.recurrent[0] + piece_bytes(&l, 0, 2 * STEP));
    assert_int_equal(ns_prefix_branch(p, empty, b.ids, 4 * STEP), 0);
    for (int i = 0; i < 2; i++) { /* both are whole */
        ns_state_reset(empty);
        assert_int_equal(ns_prefix_get(p, empty, i ? b.ids : a.ids, 4 * STEP), 4 * STEP);
        prop_same_state(empty, i ? long_b : long_a, "a branch");
    }
    ns_state_reset(empty);
    assert_int_equal(ns_prefix_get(p, empty, a.ids, 4 * STEP - 1), 2 * STEP); /* never more than the limit */
    prop_same_state(empty, both, "the shared beginning");
    ns_state *tight = ns_state_new(m.ck->arch, &l.cut[0], NS_F32, 3 * STEP, &(ns_err){ 0 });
    assert_int_equal(ns_prefix_get(p, tight, a.ids, 4 * STEP), 2 * STEP); /* nor than there is room for */
    ns_state *const states[] = { long_a, long_b, both, empty, other, tight };
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        ns_state_free(states[i]);
    ns_prefix_free(p);
    plain_release(&l);
    prop_close(&m);
}

/* A state that went over to a size with fewer layers still has the memory of the others: it is no state of that size made new. */
static void states_of_other_shapes_stay_apart(void **state)
{
    (void)state;
    const tiny_opts o = tiny_defaults();
    ns_err e = { 0 };
    char name[64];
    int ids[STEP] = { 0 };
    ns_cut fewer, full;
    prop_model m = prop_open(tiny_open(tiny_base, "shapes", &o), ns_ops_find(NS_RUNG_REF), 1);
    assert_int_equal(ns_ckpt_size(m.ck, "layers=0-5", &fewer, name, sizeof name, &e), 0);
    assert_int_equal(ns_cut_full(m.ck->arch, &full, &e), 0);
    ns_state *went = state_for(m.ck->arch, &full, NS_F32), *made = state_for(m.ck->arch, &fewer, NS_F32);
    assert_int_equal(ns_state_adopt(went, &fewer, &e), 0);
    ns_prefix *p = prefix_new((int64_t)1 << 40);
    went->len = STEP;
    put(p, went, ids);
    assert_int_equal(ns_prefix_get(p, made, ids, STEP), 0);
    went->len = 0;
    assert_int_equal(ns_prefix_get(p, went, ids, STEP), STEP);
    ns_prefix_free(p);
    ns_state_free(went);
    ns_state_free(made);
    ns_cut_release(&fewer);
    ns_cut_release(&full);
    prop_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(going_on_is_reading_all), cmocka_unit_test(tree_is_the_list),
                                        cmocka_unit_test(branch_makes_a_shared_beginning),
                                        cmocka_unit_test(states_of_other_shapes_stay_apart) };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
