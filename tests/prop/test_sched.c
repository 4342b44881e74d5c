/* The scheduler: what a request gives alone it gives in any company, bit for bit. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "prop/requests.h"

/* Who sends requests while the loop runs. */
typedef struct client {
    ns_sched *sched;
    request *r;
    int n;
    uint64_t seed;
} client;

static int length(ns_rng *r)
{
    static const int odd[] = { 1,   2,   3,   63,  64,  65,  66,  127, 128, 129, 130, 191, 193,
                               448, 449, 511, 512, 513, 514, 575, 576, 577, 578, 640, 641, 1025 };
    return prop_pick(r, 3) ? odd[prop_pick(r, (int)(sizeof odd / sizeof *odd))] : 1 + prop_pick(r, 300);
}

static void random_prompt(request *q, int i, ns_rng *r)
{
    q[i].n = length(r);
    for (int k = 0; k < q[i].n; k++)
        q[i].ids[k] = prop_pick(r, 256);
    if (i && prop_pick(r, 2)) { /* the beginning of another one */
        const request *other = &q[prop_pick(r, i)];
        int n = prop_pick(r, (other->n < q[i].n ? other->n : q[i].n) + 1);
        memcpy(q[i].ids, other->ids, (size_t)n * sizeof *q[i].ids);
    }
    if (prop_pick(r, 3))
        q[i].ids[q[i].n - 1] = req_open;
}

static void random_plan(request *q, ns_rng *r)
{
    static const ns_segment plans[][2] = { { { NS_PHASE_THINK, 0, "small" }, { NS_PHASE_ANSWER, 0, "full" } },
                                           { { NS_PHASE_THINK, 0, "full" }, { NS_PHASE_ANSWER, 0, "tight" } },
                                           { { NS_PHASE_ALL, 0, "small" }, { NS_PHASE_ALL, 7, "hidden=48" } },
                                           { { NS_PHASE_THINK, 0, "tight" }, { NS_PHASE_THINK, -3, "whole" } },
                                           { { NS_PHASE_THINK, 2, "short" }, { NS_PHASE_ANSWER, 3, "small" } } };
    static const char *const sizes[] = { NULL, "small", "tight", "short", "hidden=48", "fit:1GiB" };
    int p = prop_pick(r, 8), cached = p == 0 || p == 2;
    q->size = sizes[prop_pick(r, 6)];
    q->o.think_budget = p == 3 || prop_pick(r, 2) ? 1 + prop_pick(r, 14) : prop_pick(r, 3) ? NS_THINK_FREE : NS_THINK_NONE;
    if (p < 5 && !(cached && q->size && strcmp(q->size, "small") != 0)) {
        memcpy(q->seg, plans[p], sizeof plans[p]);
        q->o.n_segments = 2;
    }
    static const enum ns_handover how[] = { NS_HANDOVER_AUTO, NS_HANDOVER_PREFILL, NS_HANDOVER_LATE, NS_HANDOVER_CACHE };
    q->o.handover = how[prop_pick(r, cached && q->o.n_segments ? 4 : 3)];
    q->o.grace = prop_pick(r, 4);
    q->o.answer_tokens = prop_pick(r, 2) ? 1 + prop_pick(r, 12) : 0;
    q->o.max_tokens = 1 + prop_pick(r, q->o.answer_tokens ? 150 : 40);
    if (q->o.answer_tokens && q->o.think_budget != NS_THINK_FREE && prop_pick(r, 2))
        q->o.max_tokens = 0;
    q->o.ignore_stop = prop_pick(r, 2);
    if (prop_pick(r, 3) == 0) { /* a long text that closes: more than a chunk of tokens */
        int n = prop_pick(r, CLOSING);
        for (int i = 0; i < n; i++)
            strcat(q->close, i % 7 ? " a" : " 1");
        strcat(q->close, "\n</think>\n");
        q->o.close = q->close;
    }
}

static void make_requests(ns_engine *en, request *q, int n, ns_rng *r)
{
    for (int i = 0; i < n; i++) {
        memset(&q[i], 0, sizeof q[i]);
        random_prompt(q, i, r);
        random_plan(&q[i], r);
        q[i].o.segment = q[i].seg;
        q[i].sampling = req_greedy;
        if (prop_pick(r, 2))
            q[i].sampling = (ns_sampling){ .temperature = 1.3, .top_p = prop_pick(r, 2) ? 1.0 : 0.9,
                                           .repetition_penalty = prop_pick(r, 2) ? 1.0 : 1.2, .seed = ns_rng_u64(r) };
        q[i].top = prop_pick(r, 4) ? NS_SCHED_TOP : prop_pick(r, 3) - 1;
        q[i].stop_after = prop_pick(r, 6) ? 0 : 1 + prop_pick(r, 20);
        q[i].cancel = prop_pick(r, 6) == 0;
        req_alone(en, &q[i]);
    }
}

/* ---- any company ---- */

static void nap(ns_rng *r)
{
    struct timespec t = { 0, prop_pick(r, 3000) * 1000L };
    nanosleep(&t, NULL);
}

/* Sends requests at random times, cancels some, looks at the figures, and in the end says stop. */
static void *send_all(void *arg)
{
    client *c = arg;
    ns_rng r;
    ns_rng_init(&r, c->seed);
    for (int i = 0; i < c->n; i++) {
        ns_err e = { 0 };
        ns_sched_job job = req_job(&c->r[i]);
        if (ns_sched_submit(c->sched, &job, &c->r[i].ticket, &e) != 0)
            fail_msg("%s", e.msg);
        memset(&job, 0, sizeof job);
        if (prop_pick(&r, 2))
            nap(&r);
        if (i && c->r[i - 1].cancel)
            ns_sched_cancel(c->sched, c->r[i - 1].ticket);
        ns_sched_stats t = ns_sched_about(c->sched);
        assert_true(t.state_bytes <= t.state_budget && t.running + t.waiting <= i + 1);
    }
    ns_sched_stop(c->sched, false);
    return NULL;
}

static void run_company(ns_engine *en, const ns_sched_opts *o, int n, uint64_t seed, ns_sched_stats *stats)
{
    ns_rng r;
    ns_err e = { 0 };
    pthread_t thread;
    request *q = calloc((size_t)n, sizeof *q);
    ns_rng_init(&r, seed);
    make_requests(en, q, n, &r);
    client c = { .r = q, .n = n, .seed = seed + 1 };
    c.sched = ns_sched_new(en, o, &e);
    if (!c.sched)
        fail_msg("%s", e.msg);
    assert_int_equal(pthread_create(&thread, NULL, send_all, &c), 0);
    ns_sched_run(c.sched);
    pthread_join(thread, NULL);
    for (int i = 0; i < n; i++)
        req_check(&q[i]);
    *stats = ns_sched_about(c.sched);
    assert_int_equal(stats->requests, n);
    assert_int_equal(stats->finished + stats->cancelled, n);
    assert_int_equal(stats->running + stats->waiting, 0);
    assert_int_equal(stats->state_bytes, 0);
    ns_sched_free(c.sched);
    free(q);
}

static int rounds(void)
{
    const char *more = getenv("NS_TEST_SEEDS");
    return more && atoi(more) > 0 ? atoi(more) : 1;
}

static void any_company(void **state)
{
    (void)state;
    static const int chunks[] = { 64, 128, 512 };
    ns_sched_stats t;
    for (int i = 0; i < 6 * rounds(); i++)
        run_company(req_engine, &(ns_sched_opts){ .context = CONTEXT, .parallel = i % 6 + 1, .queue = 100, .chunk = chunks[i % 3] }, 16,
                    (uint64_t)(100 + i), &t);
}

static void any_company_with_prefixes(void **state)
{
    (void)state;
    ns_sched_stats t;
    uint64_t cached = 0;
    for (int i = 0; i < 3 * rounds(); i++) {
        run_company(req_engine, &(ns_sched_opts){ .context = CONTEXT, .parallel = i + 2, .queue = 100,
                                               .prefix_bytes = i % 2 ? 1 << 20 : 64 << 20 }, 20, (uint64_t)(200 + i), &t);
        cached += t.cached_tokens;
        assert_true(t.prefix_bytes <= t.prefix_budget);
    }
    assert_true(cached > 0);
}

/* Prompts that go on from each other, one after the other: also where a kept prefix would leave a single token over. */
static void kept_prefixes(void **state)
{
    (void)state;
    static const struct {
        int n, same, cached; /* tokens; of them as in the text of all; expected from a kept prefix */
    } c[] = { { 66, 66, 0 },     { 65, 65, 0 },     { 66, 66, 64 },      { 700, 700, 64 },  { 700, 690, 640 }, { 129, 129, 64 },
              { 400, 200, 64 },  { 300, 250, 192 }, { 513, 513, 512 },   { 577, 577, 512 }, { 578, 578, 512 }, { 1200, 0, 0 } };
    enum { N = sizeof c / sizeof *c };
    request *q = calloc(N, sizeof *q);
    const request text = req_plain(1200, NULL, 0);
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = CONTEXT, .parallel = 1, .prefix_bytes = 64 << 20 });
    for (int i = 0; i < N; i++) {
        q[i] = req_plain(c[i].n, i % 2 ? NULL : "full", 4);
        memcpy(q[i].ids, text.ids, sizeof q[i].ids);
        for (int k = c[i].same; k < c[i].n; k++)
            q[i].ids[k] = (k * 17 + i * 5) % 256;
        q[i].top = NS_SCHED_TOP;
        req_alone(req_engine, &q[i]);
        req_submit(s, &q[i]);
    }
    ns_sched_stop(s, false);
    req_run(s);
    for (int i = 0; i < N; i++) {
        req_check(&q[i]);
        if ((int)q[i].result.cached_tokens != c[i].cached)
            fail_msg("%d: %zu of %d tokens were kept, expected %d", i, q[i].result.cached_tokens, c[i].n, c[i].cached);
    }
    ns_sched_free(s);
    free(q);
}

/* Other kernels, other stored types. */
static void any_kernels(void **state)
{
    (void)state;
    static const char *const rungs[NS_RUNG_COUNT] = { "ref", "avx2", "avx512" };
    static const char *const dtypes[] = { "f32", "nvfp4", "bf16" };
    for (int i = 0; i < NS_RUNG_COUNT; i++) {
        ns_sched_stats t;
        if (!ns_ops_find((enum ns_rung)i))
            continue;
        ns_engine *en = req_engine_make(dtypes[i], dtypes[i], rungs[i], 1);
        assert_non_null(en);
        run_company(en, &(ns_sched_opts){ .context = CONTEXT, .parallel = 4, .queue = 100, .prefix_bytes = 64 << 20 }, 12, (uint64_t)(300 + i), &t);
        ns_engine_close(en);
    }
}

/* ---- stretches ---- */

/* What a session alone does: steps of NS_STEP_TOKENS. A piece may end where the scan has a boundary there, and the last token is alone where it
 * is alone. */
static void pieces(void **state)
{
    (void)state;
    for (int n = 1; n < 1200; n++) {
        assert_true(ns_stretch_last_cut(n) % NS_SCAN_CHUNK == 0 && ns_stretch_last_cut(n) < n);
        assert_true(ns_stretch_last_cut(n) <= ns_stretch_last_cut(n + 1));
        for (int most = 64; most <= NS_STEP_TOKENS; most += 64) {
            int at = 0, last = 0;
            while (at < n) {
                last = ns_stretch_piece(at, n, most);
                assert_true(last > 0 && last <= most + (most == 64) && last <= NS_STEP_TOKENS);
                assert_true(at + last == n || (at + last) % NS_SCAN_CHUNK == 0);
                at += last;
            }
            assert_int_equal(last == 1, n % NS_STEP_TOKENS == 1);
            for (int little = 1; little < 64; little++) { /* with less room: all that is left, or nothing */
                int piece = ns_stretch_piece(at - last, n, little);
                assert_true(piece == 0 || piece == last);
            }
        }
    }
}

/* A size from a slider, from the next token on: as a session alone that is resized there. */
static void resize_in_the_middle(void **state)
{
    (void)state;
    static const struct {
        const char *to;
        enum ns_handover how;
        int prompt;
    } c[] = { { "small", NS_HANDOVER_CACHE, 30 }, { "small", NS_HANDOVER_PREFILL, 100 }, { "tight", NS_HANDOVER_AUTO, 65 },
              { "tight", NS_HANDOVER_PREFILL, 560 }, { "short", NS_HANDOVER_CACHE, 513 } };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        static within w;
        static request other;
        ns_err e = { 0 };
        ns_sched *s = req_sched(&(ns_sched_opts){ .context = 700, .parallel = 2, .prefix_bytes = i % 2 ? 1 << 20 : 0 });
        w = (within){ .r = req_plain(c[i].prompt, NULL, 40), .at = 11, .size = c[i].to };
        w.r.o.handover = c[i].how;
        other = req_plain(200, "small", 25);
        req_submit_within(s, &w);
        req_submit(s, &other);
        ns_sched_stop(s, false);
        req_run(s);
        assert_int_equal(w.resized, 0);
        assert_int_equal(w.r.n_got, 40);
        assert_int_equal(w.r.result.n_used, 2);
        assert_string_equal(w.r.result.used[0].size, "full");
        assert_string_equal(w.r.result.used[1].size, c[i].to);
        assert_int_equal(w.r.result.used[0].tokens, 11);
        assert_int_equal(w.r.result.switches, 1);
        ns_session *x = ns_session_new(req_engine, &(ns_session_opts){ .context = 700, .sampling = &req_greedy }, &e);
        assert_int_equal(ns_session_feed(x, w.r.ids, (size_t)w.r.n, &e), 0);
        for (int k = 0; k < 40; k++) {
            int id;
            if (k == 11)
                assert_int_equal(ns_session_resize(x, c[i].to, c[i].how, &e), 0);
            assert_int_equal(ns_session_next(x, &id, &e), 0);
            assert_int_equal(id, w.r.got[k]);
        }
        ns_session_free(x);
        ns_sched_free(s);
    }
    static within w; /* words that cannot be followed */
    static const char *const to[] = { "tight", "enormous", "auto" };
    for (int i = 0; i < 3; i++) {
        ns_sched *s = req_sched(&(ns_sched_opts){ .context = 200 });
        w = (within){ .r = req_plain(30, NULL, 10), .at = 3, .size = to[i] };
        req_submit_within(s, &w);
        ns_sched_stop(s, false);
        req_run(s);
        assert_int_equal(w.resized, -1);
        assert_int_equal(w.e.code, NS_EINVAL);
        assert_int_equal(w.r.n_got, 10);
        assert_int_equal(ns_sched_resize(s, w.r.ticket, "small", &(ns_err){ 0 }), -1); /* it is over */
        ns_sched_free(s);
    }
}

/* While it waits: the whole answer is at that size. */
static void resize_in_the_queue(void **state)
{
    (void)state;
    static request r, want;
    ns_err e = { 0 };
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 200 });
    r = req_plain(50, NULL, 20);
    want = req_plain(50, "tight", 20);
    want.o.handover = NS_HANDOVER_AUTO;
    req_submit(s, &r);
    assert_int_equal(ns_sched_resize(s, r.ticket, "small", &e), 0);
    assert_int_equal(ns_sched_resize(s, r.ticket, "tight", &e), 0);
    ns_sched_stop(s, false);
    req_run(s);
    req_alone(req_engine, &want);
    assert_int_equal(r.n_got, 20);
    assert_memory_equal(r.got, want.want, 20 * sizeof *r.got);
    ns_sched_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces),
        cmocka_unit_test(any_company),
        cmocka_unit_test(any_company_with_prefixes),
        cmocka_unit_test(kept_prefixes),
        cmocka_unit_test(any_kernels),
        cmocka_unit_test(resize_in_the_middle),
        cmocka_unit_test(resize_in_the_queue),
    };
    return cmocka_run_group_tests(tests, req_setup, req_teardown);
}
