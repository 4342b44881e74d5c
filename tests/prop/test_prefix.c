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

enum { STEP = NS_PREFIX_STEP, LONGEST = 448 };

/* A prompt as they come: the beginning of an earlier one, then something new. */
typedef struct prompt {
    int n, ids[LONGEST];
} prompt;

static void next_prompt(prompt *p, const prompt *earlier, int n_earlier, int vocab, ns_rng *r)
{
    int from = 0;
    p->n = STEP + 2 + prop_pick(r, LONGEST - STEP - 2);
    if (n_earlier && prop_pick(r, 5)) {
        const prompt *e = &earlier[prop_pick(r, n_earlier)];
        from = prop_pick(r, 3) ? STEP * prop_pick(r, e->n / STEP + 1) : prop_pick(r, e->n + 1);
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

enum { PROMPTS = 20, CUTS = 3 };

/* From what is kept to the prompt's end, in pieces, some of which are kept in turn. */
static int read_on(ns_prefix *p, const ns_plan *plan, ns_state *s, const prompt *q, float *logits, ns_rng *r)
{
    int got = ns_prefix_get(p, s, q->ids, q->n - 2), branch = ns_prefix_branch(p, s, q->ids, q->n - 2);
    assert_int_equal(got, s->len);
    while (s->len < q->n) {
        int left = q->n - s->len, n = STEP * (1 + prop_pick(r, 4));
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

static void reads_on(const tiny_opts *o, const char *name, enum ns_rung rung, ns_dtype kv)
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
        const int c = prop_pick(&r, CUTS);
        next_prompt(&list[i], list, i, vocab, &r);
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
    print_message("%s reused %d\n", what, reused); /* else this tested nothing */
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
}

static void going_on_is_reading_all(void **state)
{
    (void)state;
    prop_variant v[PROP_VARIANTS];
    prop_variants(v);
    for (int i = 0; i < PROP_VARIANTS; i++)
        for (int k = 0; k < 2 * NS_RUNG_COUNT; k++)
            if (ns_ops_find((enum ns_rung)(k / 2)))
                reads_on(&v[i].o, v[i].name, (enum ns_rung)(k / 2), k % 2 ? NS_F8_E4M3 : NS_F32);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(going_on_is_reading_all) };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
