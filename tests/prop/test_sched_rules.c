/* The scheduler: who may come in, who must wait, what is allowed, how it ends. */
#include <math.h>
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

/* ---- in and out ---- */

static void full_queue(void **state)
{
    (void)state;
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 100, .parallel = 1, .queue = 2 });
    static request r[4];
    for (int i = 0; i < 4; i++)
        r[i] = req_plain(5 + i, "small", 3);
    for (int i = 0; i < 3; i++)
        req_submit(s, &r[i]);
    ns_sched_job job = req_job(&r[3]);
    req_refuse(s, &job, NS_EBUSY, "the queue is full");
    ns_sched_stats t = ns_sched_about(s);
    assert_int_equal(t.waiting, 3);
    assert_int_equal(t.refused, 1);
    assert_true(t.wait > 0.0);
    ns_sched_stop(s, false);
    req_refuse(s, &job, NS_EBUSY, "stopping");
    req_run(s); /* all that was submitted is done */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(r[i].n_got, 3);
        assert_string_equal(r[i].result.end, "length");
    }
    assert_int_equal(r[3].done, 0);
    t = ns_sched_about(s);
    assert_true(t.wait == 0.0);
    assert_int_equal(t.prompt_tokens, 5 + 6 + 7);
    assert_int_equal(t.tokens, 3 * 3);
    assert_int_equal(t.steps, 3 * 3); /* one after the other: the prompt, and two tokens that others follow */
    assert_int_equal(t.finished, 3);
    assert_true(t.prefill_rate > 0.0 && t.decode_rate > 0.0 && t.first_token > 0.0);
    ns_sched_free(s);
}

static void full_context(void **state)
{
    (void)state;
    static request r[2];
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 50 });
    for (int i = 0; i < 2; i++) {
        r[i] = req_plain(i ? 50 : 40, NULL, 0);
        req_submit(s, &r[i]);
    }
    ns_sched_stop(s, false);
    req_run(s);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(r[i].result.end, "context");
        assert_int_equal(r[i].n_got, i ? 0 : 10);
    }
    ns_sched_free(s);
}

static void stop_at_once(void **state)
{
    (void)state;
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 100, .parallel = 1, .queue = 2 });
    static request r[2];
    for (int i = 0; i < 2; i++) {
        r[i] = req_plain(5, NULL, 50);
        req_submit(s, &r[i]);
    }
    ns_sched_stop(s, true);
    req_run(s);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(r[i].done, 1);
        assert_string_equal(r[i].result.end, "cancelled");
    }
    ns_sched_free(s);
    s = req_sched(&(ns_sched_opts){ .context = 100 }); /* without a loop */
    r[0] = req_plain(5, NULL, 50);
    req_submit(s, &r[0]);
    ns_sched_free(s);
    assert_int_equal(r[0].done, 1);
    assert_string_equal(r[0].result.end, "cancelled");
}

static void words_in_the_middle(void **state)
{
    (void)state;
    static within a, b;
    static request late;
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 200, .parallel = 3 });
    a = (within){ .r = req_plain(70, NULL, 60), .at = 4, .cancel = true };
    late = req_plain(9, "tight", 5);
    b = (within){ .r = req_plain(20, "small", 30), .at = 7, .other = &late };
    req_submit_within(s, &a);
    req_submit_within(s, &b);
    ns_sched_stop(s, false);
    b.other = NULL; /* stopping: nothing new is taken, also from a callback */
    req_run(s);
    assert_string_equal(a.r.result.end, "cancelled");
    assert_int_equal(a.r.n_got, 4);
    assert_int_equal(b.r.n_got, 30);
    ns_sched_free(s);
    s = req_sched(&(ns_sched_opts){ .context = 200, .parallel = 3 });
    a = (within){ .r = req_plain(70, NULL, 60), .at = 9, .stop = true };
    b = (within){ .r = req_plain(20, "small", 30), .at = 7, .other = &late };
    req_submit_within(s, &a);
    req_submit_within(s, &b);
    req_run(s);
    assert_string_equal(a.r.result.end, "cancelled");
    assert_string_equal(b.r.result.end, "cancelled");
    assert_int_equal(late.done, 1);
    ns_sched_free(s);
}

/* ---- states within their budget ---- */

static int64_t bytes_of(const char *size, int tokens)
{
    ns_size_info i;
    char name[64];
    assert_int_equal(ns_engine_resolve(req_engine, size, tokens, name, sizeof name, &i, NULL), 0);
    return i.state_bytes + i.kv_bytes_per_token * tokens;
}

/* Never more than the budget holds, and all that it holds. */
static int most_running;

static bool look(void *ctx, const ns_sched_token *t)
{
    within *w = ctx;
    ns_sched_stats now = ns_sched_about(w->s);
    assert_true(now.state_bytes <= now.state_budget && now.state_bytes > 0);
    most_running = now.running > most_running ? now.running : most_running;
    return req_take(&w->r, t);
}

static void budget(void **state)
{
    (void)state;
    static within q[6];
    int64_t one = bytes_of("full", 60);
    ns_err e = { 0 };
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 1000, .parallel = 6, .state_bytes = 2 * one + one / 2 });
    most_running = 0;
    for (int i = 0; i < 6; i++) {
        q[i] = (within){ .r = req_plain(50, NULL, 10), .s = s }; /* 60 tokens, whatever the context */
        ns_sched_job job = req_job(&q[i].r);
        job.token = look;
        assert_int_equal(ns_sched_submit(s, &job, &q[i].r.ticket, &e), 0);
    }
    request *big = calloc(1, sizeof *big);
    *big = req_plain(900, NULL, 10);
    ns_sched_job job = req_job(big);
    req_refuse(s, &job, NS_EINVAL, "all requests together may have");
    ns_sched_stop(s, false);
    req_run(s);
    for (int i = 0; i < 6; i++)
        assert_int_equal(q[i].r.n_got, 10);
    assert_int_equal(most_running, 2);
    ns_sched_free(s);
    /* a slider may not take more than there is */
    static within w;
    s = req_sched(&(ns_sched_opts){ .context = 1000, .parallel = 6, .state_bytes = bytes_of("tight", 60) + 1000 });
    w = (within){ .r = req_plain(50, "tight", 10), .at = 2, .size = "full" };
    w.r.o.handover = NS_HANDOVER_AUTO;
    req_submit_within(s, &w);
    ns_sched_stop(s, false);
    req_run(s);
    assert_int_equal(w.resized, -1);
    assert_int_equal(w.e.code, NS_EBUSY);
    assert_int_equal(w.r.n_got, 10);
    ns_sched_free(s);
    free(big);
}

/* ---- logprobs and masks ---- */

typedef struct seen {
    request r;
    int n, n_top;
    float logprob[100];
    ns_sched_top top[100][20];
} seen;

static bool see(void *ctx, const ns_sched_token *t)
{
    seen *s = ctx;
    s->logprob[s->n] = t->logprob;
    assert_int_equal(t->n_top, s->n_top);
    assert_non_null(t->top);
    memcpy(s->top[s->n++], t->top, (size_t)t->n_top * sizeof *t->top);
    return req_take(&s->r, t);
}

static void logprobs(void **state)
{
    (void)state;
    static seen x;
    ns_err e = { 0 };
    for (int n_top = 0; n_top <= 20; n_top += 5) {
        x = (seen){ .r = req_plain(77, "small", 30), .n_top = n_top };
        x.r.top = n_top;
        x.r.sampling = (ns_sampling){ .temperature = 1.7, .top_p = 0.8, .repetition_penalty = 1.3, .seed = 5 };
        ns_sched *s = req_sched(&(ns_sched_opts){ .context = 200 });
        ns_sched_job job = req_job(&x.r);
        job.token = see;
        assert_int_equal(ns_sched_submit(s, &job, &x.r.ticket, &e), 0);
        ns_sched_stop(s, false);
        req_run(s);
        assert_int_equal(x.n, 30);
        ns_session *one = ns_session_new(req_engine, &(ns_session_opts){ .size = "small", .context = 200 }, &e);
        assert_int_equal(ns_session_feed(one, x.r.ids, (size_t)x.r.n, &e), 0);
        for (int k = 0; k < 30; k++) { /* a plain softmax over the raw logits */
            const float *l = ns_session_logits(one);
            double sum = 0.0, all = 0.0;
            for (int i = 0; i < VOCAB; i++)
                sum += exp((double)l[i]);
            assert_true(fabs((double)x.logprob[k] - ((double)l[x.r.got[k]] - log(sum))) < 1e-5);
            for (int t = 0; t < n_top; t++) {
                int better = 0;
                for (int i = 0; i < VOCAB; i++)
                    better += l[i] > l[x.top[k][t].id] || (l[i] == l[x.top[k][t].id] && i < x.top[k][t].id);
                assert_int_equal(better, t);
                assert_true(fabs((double)x.top[k][t].logprob - ((double)l[x.top[k][t].id] - log(sum))) < 1e-5);
                all += exp((double)x.top[k][t].logprob);
            }
            assert_true(all < 1.0 + 1e-5);
            assert_int_equal(ns_session_feed(one, &x.r.got[k], 1, &e), 0);
        }
        ns_session_free(one);
        ns_sched_free(s);
    }
}

typedef struct only {
    request r;
    int asked, took, from; /* allowed: from + how many were taken */
    int none_after;
} only;

static bool mask_one(void *ctx, uint64_t *bits)
{
    only *o = ctx;
    for (int i = 0; i < (VOCAB + 63) / 64; i++)
        assert_true(bits[i] == 0);
    o->asked++;
    int id = o->from + o->took;
    if (o->took < o->none_after)
        bits[id / 64] |= 1ull << id % 64;
    return o->took != 3; /* the fourth may be anything */
}

static void took_one(void *ctx, int id)
{
    only *o = ctx;
    assert_true(o->took == 3 || id == o->from + o->took);
    o->took++;
}

static void masks(void **state)
{
    (void)state;
    for (int hot = 0; hot < 2; hot++) {
        static only o;
        static request free_run;
        ns_err e = { 0 };
        ns_sched *s = req_sched(&(ns_sched_opts){ .context = 200 });
        o = (only){ .r = req_plain(40, NULL, 0), .from = 30, .none_after = 8 };
        o.r.ids[39] = req_open;
        o.r.o.think_budget = 6;
        o.r.o.answer_tokens = 20;
        if (hot)
            o.r.sampling = (ns_sampling){ .temperature = 1.5, .top_p = 0.9, .repetition_penalty = 1.2, .seed = 9 };
        free_run = o.r;
        free_run.o.segment = NULL;
        req_alone(req_engine, &free_run);
        ns_sched_job job = req_job(&o.r);
        job.ctx = &o;
        job.allow = (ns_sched_allow){ &o, mask_one, took_one };
        assert_int_equal(ns_sched_submit(s, &job, &o.r.ticket, &e), 0);
        ns_sched_stop(s, false);
        req_run(s);
        int behind = o.r.n_got - 8; /* the thought and what closed it are as without a mask */
        assert_true(behind >= 7);
        assert_memory_equal(o.r.got, free_run.want, (size_t)behind * sizeof *o.r.got);
        for (int i = 0; i < 8; i++)
            assert_true(i == 3 || o.r.got[behind + i] == 30 + i);
        assert_int_equal(o.asked, 9);
        assert_int_equal(o.took, 8);
        assert_string_equal(o.r.result.end, "stop"); /* nothing may come */
        assert_int_equal(o.r.result.answer_tokens, 8);
        ns_sched_free(s);
    }
}

/* ---- turns ---- */

typedef struct race {
    request a; /* first: it is the context */
    ns_sched *s;
    struct racer {
        request r; /* first */
        const request *beside;
        int others; /* tokens that the one beside had when the first came */
    } x[2];
} race;

static bool note_first(void *ctx, const ns_sched_token *t)
{
    struct racer *x = ctx;
    if (x->r.n_got == 0)
        x->others = x->beside->n_got;
    return req_take(&x->r, t);
}

static void *run_thread(void *s)
{
    req_run(s);
    return NULL;
}

static bool start_race(void *ctx, const ns_sched_token *t)
{
    race *c = ctx;
    ns_err e = { 0 };
    for (int i = 0; c->a.n_got == 3 && i < 2; i++) {
        ns_sched_job job = req_job(&c->x[i].r);
        job.token = note_first;
        assert_int_equal(ns_sched_submit(c->s, &job, &c->x[i].r.ticket, &e), 0);
    }
    return req_take(&c->a, t);
}

/* A sequence that decodes makes a token in every step beside texts that are read, and these take turns. */
static void turns(void **state)
{
    (void)state;
    static race c;
    ns_err e = { 0 };
    ns_sched *s = c.s = req_sched(&(ns_sched_opts){ .context = CONTEXT, .parallel = 3, .chunk = 64 });
    c.a = req_plain(10, NULL, 60);
    for (int i = 0; i < 2; i++)
        c.x[i] = (struct racer){ .r = req_plain(i ? 700 : 1000, i ? "small" : NULL, 3), .beside = &c.a };
    ns_sched_job job = req_job(&c.a);
    job.token = start_race;
    assert_int_equal(ns_sched_submit(s, &job, &c.a.ticket, &e), 0);
    pthread_t loop;
    assert_int_equal(pthread_create(&loop, NULL, run_thread, s), 0);
    while (ns_sched_about(s).requests < 3) {
        struct timespec t = { 0, 1000000 };
        nanosleep(&t, NULL);
    }
    ns_sched_stop(s, false);
    pthread_join(loop, NULL);
    assert_int_equal(c.x[1].others, 4 + 2 * 11); /* 700 tokens are 11 pieces of 64, in every other step from the fourth token on */
    assert_int_equal(c.x[0].others, 4 + 16 + 11);     /* 1000 are 16 */
    ns_sched_free(s);
}

/* ---- a broken weight ---- */

/* It ends the requests that meet it; those of a size without it, and the scheduler, go on. */
static void broken_weight(void **state)
{
    (void)state;
    static request r[3];
    tiny_file f;
    ns_engine *good = req_engine;
    ns_engine_close(req_engine_make("broken", "f32", NULL, 1));
    char *dir = tiny_path(tiny_base, "broken");
    tiny_load(&f, dir);
    tiny_tensor *norm = tiny_find(&f, "backbone.norm_f.weight");
    ((float *)(void *)norm->data)[60] = NAN; /* "small" has 48 channels */
    tiny_save(&f, dir);
    tiny_release(&f);
    free(dir);
    req_engine = req_engine_make("broken", "f32", NULL, 1);
    assert_non_null(req_engine);
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 200, .parallel = 1 });
    static const char *const sizes[] = { "small", "full", "small" };
    for (int i = 0; i < 3; i++) {
        r[i] = req_plain(70, sizes[i], 10);
        req_submit(s, &r[i]);
    }
    ns_sched_stop(s, false);
    req_run(s);
    for (int i = 0; i < 3; i++)
        assert_string_equal(r[i].result.end, i == 1 ? "error" : "length");
    assert_int_equal(r[1].result.err.code, NS_EFORMAT);
    assert_non_null(strstr(r[1].result.err.msg, "norm_f.weight: not a finite number"));
    assert_memory_equal(r[0].got, r[2].got, 10 * sizeof *r[0].got);
    assert_int_equal(ns_sched_about(s).failed, 1);
    assert_true(ns_sched_about(s).state_bytes == 0);
    ns_sched_free(s);
    ns_engine_close(req_engine);
    req_engine = good;
}

/* ---- the rest ---- */

static void deadlines(void **state)
{
    (void)state;
    static request r[3];
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 1400, .parallel = 1 });
    r[0] = req_plain(600, "small", 0); /* as long as it may */
    r[0].o.deadline = 0.05;
    r[1] = req_plain(600, "small", 0); /* over before it begins */
    r[1].o.deadline = 0.01;
    r[2] = req_plain(20, "auto", 10); /* chooses its sizes, and has time */
    r[2].o.deadline = 100.0;
    for (int i = 0; i < 3; i++)
        req_submit(s, &r[i]);
    ns_sched_stop(s, false);
    req_run(s);
    assert_string_equal(r[0].result.end, "deadline");
    assert_string_equal(r[1].result.end, "deadline");
    assert_int_equal(r[1].n_got, 0);
    assert_true(r[0].n_got < 800); /* that there was room for */
    assert_string_equal(r[2].result.end, "length");
    assert_string_equal(r[2].result.used[0].size, "full");
    ns_sched_free(s);
}

/* Without targets "auto" is the full size, also in segments. */
static void auto_is_full(void **state)
{
    (void)state;
    static request r, want;
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 200 });
    assert_string_equal(ns_sched_about(s).auto_think, "full");
    r = req_plain(30, "auto", 20);
    r.ids[29] = req_open;
    r.o.think_budget = 5;
    want = r;
    want.size = NULL;
    r.seg[0] = (ns_segment){ NS_PHASE_ANSWER, 0, "auto" };
    r.o.segment = r.seg;
    r.o.n_segments = 1;
    req_submit(s, &r);
    ns_sched_stop(s, false);
    req_run(s);
    req_alone(req_engine, &want);
    assert_int_equal(r.n_got, want.n_want);
    assert_memory_equal(r.got, want.want, (size_t)r.n_got * sizeof *r.got);
    assert_int_equal(r.result.n_used, 1);
    ns_sched_free(s);
}

/* Targets that nothing reaches: new requests go to smaller sizes, and say so. */
static void auto_gives_way(void **state)
{
    (void)state;
    enum { N = 4 };
    request *r = calloc(N, sizeof *r);
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 1000, .parallel = 1, .token_rate = 1e9 });
    for (int i = 0; i < N; i++) {
        r[i] = req_plain(700, "auto", 40);
        req_submit(s, &r[i]);
    }
    ns_sched_stop(s, false);
    req_run(s);
    ns_sched_stats t = ns_sched_about(s);
    assert_string_not_equal(t.auto_think, "full");
    assert_string_equal(r[0].result.used[0].size, "full");
    assert_string_not_equal(r[N - 1].result.used[0].size, "full");
    ns_sched_free(s);
    free(r);
}

static void refusals(void **state)
{
    (void)state;
    static request r;
    ns_err e = { 0 };
    static const ns_segment nowhere[] = { { NS_PHASE_ALL, 0, "galactic" } };
    ns_sched *s = req_sched(&(ns_sched_opts){ .context = 100 });
    r = req_plain(10, NULL, 10);
    ns_sched_job job = req_job(&r);
#define REFUSE(field, value, why)                   \
    do {                                            \
        ns_sched_job bad = job;                     \
        bad.field = value;                          \
        req_refuse(s, &bad, NS_EINVAL, why);            \
    } while (0)
    REFUSE(n_ids, 0, "empty");
    REFUSE(n_ids, 101, "room for 100");
    REFUSE(size, "galactic", "galactic");
    REFUSE(top_logprobs, 21, "-1 to 20");
    REFUSE(sampling.temperature, -1.0, "temperature");
    REFUSE(answer.grace, -1, "below 0");
    job.answer.segment = nowhere;
    REFUSE(answer.n_segments, 1, "galactic");
    REFUSE(answer.n_segments, 17, "at most 16");
    r.ids[3] = VOCAB;
    REFUSE(n_ids, 10, "vocabulary");
    ns_sched_cancel(s, 12345);
    assert_int_equal(ns_sched_resize(s, 12345, "small", &e), -1);
    ns_sched_free(s);
    static const ns_sched_opts bad[] = { { .parallel = -1 }, { .chunk = 100 }, { .chunk = 1024 }, { .parallel = 1000 }, { .state_bytes = -5 },
                                         { .first_token = -1.0 } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ns_err why = { 0 };
        assert_null(ns_sched_new(req_engine, &bad[i], &why));
        assert_int_equal(why.code, NS_EINVAL);
    }
    ns_sched_free(NULL);
    assert_int_equal(r.done, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_queue),
        cmocka_unit_test(full_context),
        cmocka_unit_test(stop_at_once),
        cmocka_unit_test(words_in_the_middle),
        cmocka_unit_test(budget),
        cmocka_unit_test(logprobs),
        cmocka_unit_test(masks),
        cmocka_unit_test(turns),
        cmocka_unit_test(broken_weight),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(auto_is_full),
        cmocka_unit_test(auto_gives_way),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, req_setup, req_teardown);
}
