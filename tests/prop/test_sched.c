/* The scheduler: what a request gives alone it gives in any company; and who may come in, who must wait, how it ends. */
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

#include "base/file.h"
#include "prop/prop.h"
#include "run/answer.h"
#include "run/sched_impl.h"

/* "small" shares the cache's shape with "full", "tight" does not, "short" leaves layers out. */
static const char nest[] = "{\"version\": 1, \"variants\": [{\"name\": \"whole\"},"
                           "{\"name\": \"small\", \"cut\": {\"hidden\": 48, \"expert_ffn\": 32}},"
                           "{\"name\": \"short\", \"cut\": {\"layers\": [0, 1, 2, 4, 5, 7]}},"
                           "{\"name\": \"tight\", \"cut\": {\"hidden\": 48, \"mamba_heads\": 4}}]}";

enum { VOCAB = 384, CONTEXT = 1400, MOST = 1500, CLOSING = 90 };

static ns_engine *engine;
static int open_mark, close_mark;

static ns_engine *make_engine(const char *name, const char *dtype, const char *rung, int threads)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja" };
    tiny_opts o = tiny_defaults();
    char from[600];
    ns_err e = { 0 };
    char *dir = tiny_path(tiny_base, name);
    o.vocab = VOCAB;
    o.nest = nest;
    o.dtype = dtype;
    char *config = tiny_path(dir, "config.json");
    int rc = ns_file_exists(config) ? 0 : tiny_make(dir, &o);
    free(config);
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++) {
        char *to = tiny_path(dir, names[i]);
        snprintf(from, sizeof from, "%s/examples/demo/text/%s", getenv("NS_TEST_SRC"), names[i]);
        rc = ns_file_copy(from, to, &e);
        free(to);
    }
    if (rung)
        setenv("NS_CPU", rung, 1);
    ns_engine *en = rc == 0 ? ns_engine_open(dir, &(ns_engine_opts){ .n_threads = threads }, &e) : NULL;
    if (rung)
        unsetenv("NS_CPU");
    if (!en)
        fprintf(stderr, "%s\n", e.msg);
    free(dir);
    return en;
}

static int setup(void **state)
{
    if (!getenv("NS_TEST_SRC") || tiny_setup(state) != 0)
        return -1;
    engine = make_engine("model", "f32", NULL, 2);
    if (!engine)
        return -1;
    open_mark = ns_tokenizer_find(engine->tokenizer, "<think>", 7);
    close_mark = ns_tokenizer_find(engine->tokenizer, "</think>", 8);
    return open_mark >= 0 && close_mark >= 0 ? 0 : -1;
}

static int teardown(void **state)
{
    ns_engine_close(engine);
    return tiny_teardown(state);
}

/* ---- requests ---- */

static const ns_sampling greedy = { .temperature = 0.0, .top_p = 1.0, .repetition_penalty = 1.0 };

typedef struct request {
    int ids[MOST], n;
    const char *size;
    ns_segment seg[4];
    ns_answer_opts o;
    ns_sampling sampling;
    char close[8 * CLOSING];
    int stop_after; /* tokens, by the callback; 0: never */
    bool cancel;
    int top;
    /* what a session alone makes of it */
    int want[MOST], n_want, drawn;
    uint64_t want_bits[MOST], got_bits[MOST]; /* of the likeliest tokens' logprobs: what rounding leaves in them */
    ns_answer_info info;
    /* what came */
    struct client *client;
    uint64_t ticket;
    int got[MOST], n_got, put, thought, answer;
    int done;
    ns_sched_result result;
} request;

/* Everything that the callbacks touch belongs to the loop's thread until `over` says otherwise. */
typedef struct client {
    pthread_mutex_t lock;
    pthread_cond_t change;
    int over;
    ns_sched *sched;
    request *r;
    int n;
    uint64_t seed;
} client;

static uint64_t bits_of(const ns_sched_top *top, int n)
{
    uint64_t h = 14695981039346656037u;
    for (int i = 0; i < n; i++) {
        uint32_t x;
        memcpy(&x, &top[i].logprob, sizeof x);
        h = ((h ^ x) * 1099511628211u ^ (uint64_t)top[i].id) * 1099511628211u;
    }
    return h;
}

static bool take(void *ctx, const ns_sched_token *t)
{
    request *r = ctx;
    r->got_bits[r->n_got] = t->top ? bits_of(t->top, t->n_top) : 0;
    assert_int_equal(r->done, 0);
    assert_true(r->n_got < MOST);
    assert_true(t->phase == NS_PHASE_THINK || t->phase == NS_PHASE_ANSWER);
    assert_true(strlen(t->size) > 0);
    r->got[r->n_got++] = t->id;
    r->put += t->put;
    r->thought += !t->put && !t->mark && t->phase == NS_PHASE_THINK;
    r->answer += !t->put && !t->mark && t->phase == NS_PHASE_ANSWER;
    return !r->stop_after || r->n_got < r->stop_after;
}

static void done(void *ctx, const ns_sched_result *result)
{
    request *r = ctx;
    r->done++;
    r->result = *result;
    if (!r->client)
        return;
    pthread_mutex_lock(&r->client->lock);
    r->client->over++;
    pthread_cond_signal(&r->client->change);
    pthread_mutex_unlock(&r->client->lock);
}

static ns_sched_job job_of(request *r)
{
    return (ns_sched_job){ .ids = r->ids, .n_ids = (size_t)r->n, .size = r->size, .answer = r->o, .sampling = r->sampling,
                           .top_logprobs = r->top, .ctx = r, .token = take, .done = done };
}

static request plain(int n, const char *size, int tokens)
{
    request r = { .n = n, .size = size, .sampling = greedy, .top = -1,
                  .o = { .max_tokens = tokens, .ignore_stop = true, .handover = NS_HANDOVER_CACHE } };
    for (int i = 0; i < n; i++)
        r.ids[i] = (i * 131 + n * 7) % 256;
    return r;
}

/* The oracle: a session and an answer, nothing else. */
static void alone(ns_engine *en, request *r)
{
    ns_err e = { 0 };
    const ns_segment whole = { NS_PHASE_ALL, 0, r->size ? r->size : "full" };
    ns_segment seg[5] = { whole };
    ns_answer_opts o = r->o;
    int id = 0;
    for (int i = 0; i < r->o.n_segments; i++)
        seg[i + 1] = r->o.segment[i];
    o.segment = seg;
    o.n_segments++;
    o.handover = o.handover == NS_HANDOVER_LATE ? NS_HANDOVER_PREFILL : o.handover;
    ns_session *s = ns_session_new(en, &(ns_session_opts){ .context = CONTEXT, .sampling = &r->sampling }, &e);
    ns_answer *a = s ? ns_answer_new(s, &o, &e) : NULL;
    if (!a || ns_session_feed(s, r->ids, (size_t)r->n, &e) != 0)
        fail_msg("%s", e.msg);
    while (id >= 0) {
        enum ns_answer_step step;
        ns_sched_top top[NS_SCHED_TOP];
        if (ns_answer_ready(a, &step, &e) != 0 || ns_answer_next(a, &id, &e) != 0)
            fail_msg("%s", e.msg);
        if (id < 0)
            break;
        if (step != NS_ANSWER_PUT && r->top >= 0) { /* the logits that it was drawn from are still there */
            ns_sched_likeliest(s->logits, VOCAB, r->top, top);
            r->want_bits[r->n_want] = bits_of(top, r->top);
        }
        assert_true(r->n_want < MOST);
        r->want[r->n_want++] = id;
        r->drawn += step != NS_ANSWER_PUT;
    }
    r->info = ns_answer_about(a);
    ns_answer_free(a);
    ns_session_free(s);
}

static int length(ns_rng *r)
{
    static const int odd[] = { 1, 2, 3, 63, 64, 65, 66, 127, 128, 129, 130, 191, 193, 448, 449, 511, 512, 513, 514, 575, 576, 577, 578, 640, 641, 1025 };
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
        q[i].ids[q[i].n - 1] = open_mark;
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
        q[i].sampling = greedy;
        if (prop_pick(r, 2))
            q[i].sampling = (ns_sampling){ .temperature = 1.3, .top_p = prop_pick(r, 2) ? 1.0 : 0.9, .repetition_penalty = prop_pick(r, 2) ? 1.0 : 1.2,
                                           .seed = ns_rng_u64(r) };
        q[i].top = prop_pick(r, 4) ? NS_SCHED_TOP : prop_pick(r, 3) - 1;
        q[i].stop_after = prop_pick(r, 6) ? 0 : 1 + prop_pick(r, 20);
        q[i].cancel = prop_pick(r, 6) == 0;
        alone(en, &q[i]);
    }
}

/* ---- on this thread ---- */

static ns_sched *scheduler(const ns_sched_opts *o)
{
    ns_err e = { 0 };
    ns_sched *s = ns_sched_new(engine, o, &e);
    if (!s)
        fail_msg("%s", e.msg);
    return s;
}

static void submit(ns_sched *s, request *r)
{
    ns_err e = { 0 };
    ns_sched_job job = job_of(r);
    if (ns_sched_submit(s, &job, &r->ticket, &e) != 0)
        fail_msg("%s", e.msg);
    assert_true(r->ticket != 0);
}

static void refuse(ns_sched *s, const ns_sched_job *job, enum ns_code code, const char *why)
{
    ns_err e = { 0 };
    uint64_t ticket;
    assert_int_equal(ns_sched_submit(s, job, &ticket, &e), -1);
    if (e.code != (int)code || !strstr(e.msg, why))
        fail_msg("%d \"%s\" instead of %d \"%s\"", e.code, e.msg, code, why);
}

static void run(ns_sched *s)
{
    ns_err e = { 0 };
    assert_int_equal(ns_sched_run(s, &e), 0);
    assert_int_equal(e.code, 0);
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
        ns_sched_job job = job_of(&c->r[i]);
        c->r[i].client = c;
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

static void check_result(const request *r)
{
    const ns_sched_result *t = &r->result;
    size_t used = 0;
    assert_int_equal(r->done, 1);
    if (strcmp(t->end, "error") == 0)
        fail_msg("%s", t->err.msg);
    if (strcmp(t->end, "cancelled") == 0)
        assert_true(r->cancel && r->n_got <= r->n_want);
    else if (strcmp(t->end, "taken") == 0)
        assert_int_equal(r->n_got, r->stop_after);
    else
        assert_int_equal(r->n_got, r->n_want);
    for (int i = 0; i < r->n_got; i++)
        if (r->got[i] != r->want[i])
            fail_msg("token %d of %d is %d, alone %d: prompt of %d, size %s", i, r->n_got, r->got[i], r->want[i], r->n, r->size ? r->size : "NULL");
    for (int i = 0; i < r->n_got; i++)
        if (r->got_bits[i] != r->want_bits[i])
            fail_msg("token %d of %d: other logits than alone: prompt of %d, size %s", i, r->n_got, r->n, r->size ? r->size : "NULL");
    for (int i = 0; i < t->n_used; i++)
        used += t->used[i].tokens;
    assert_int_equal(used, r->n_got - r->put);
    assert_int_equal(t->prompt_tokens, r->n);
    assert_int_equal(t->thought_tokens, r->thought);
    assert_int_equal(t->answer_tokens, r->answer);
    assert_true((t->first_token > 0.0) == (r->n_got > 0) && t->total >= t->first_token && t->queued <= t->total);
    if (r->n_got == r->n_want && strcmp(t->end, "taken") != 0 && strcmp(t->end, "cancelled") != 0) {
        assert_string_equal(t->end, r->info.end);
        assert_int_equal(t->thought_tokens, r->info.thought);
        assert_int_equal(t->answer_tokens, r->info.answer);
        assert_int_equal(used, r->drawn);
    }
}

static void run_company(ns_engine *en, const ns_sched_opts *o, int n, uint64_t seed, ns_sched_stats *stats)
{
    ns_rng r;
    ns_err e = { 0 };
    pthread_t thread;
    request *q = calloc((size_t)n, sizeof *q);
    ns_rng_init(&r, seed);
    make_requests(en, q, n, &r);
    client c = { .lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER, .r = q, .n = n, .seed = seed + 1 };
    c.sched = ns_sched_new(en, o, &e);
    if (!c.sched)
        fail_msg("%s", e.msg);
    assert_int_equal(pthread_create(&thread, NULL, send_all, &c), 0);
    assert_int_equal(ns_sched_run(c.sched, &e), 0);
    pthread_join(thread, NULL);
    assert_int_equal(c.over, n);
    for (int i = 0; i < n; i++)
        check_result(&q[i]);
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
        run_company(engine, &(ns_sched_opts){ .context = CONTEXT, .parallel = i % 6 + 1, .queue = 100, .chunk = chunks[i % 3] }, 16,
                    (uint64_t)(100 + i), &t);
}

static void any_company_with_prefixes(void **state)
{
    (void)state;
    ns_sched_stats t;
    uint64_t cached = 0;
    for (int i = 0; i < 3 * rounds(); i++) {
        run_company(engine, &(ns_sched_opts){ .context = CONTEXT, .parallel = i + 2, .queue = 100, .prefix_bytes = i % 2 ? 1 << 20 : 64 << 20 }, 20,
                    (uint64_t)(200 + i), &t);
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
    const request text = plain(1200, NULL, 0);
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = CONTEXT, .parallel = 1, .prefix_bytes = 64 << 20 });
    for (int i = 0; i < N; i++) {
        q[i] = plain(c[i].n, i % 2 ? NULL : "full", 4);
        memcpy(q[i].ids, text.ids, sizeof q[i].ids);
        for (int k = c[i].same; k < c[i].n; k++)
            q[i].ids[k] = (k * 17 + i * 5) % 256;
        q[i].top = NS_SCHED_TOP;
        alone(engine, &q[i]);
        submit(s, &q[i]);
    }
    ns_sched_stop(s, false);
    run(s);
    for (int i = 0; i < N; i++) {
        check_result(&q[i]);
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
        ns_engine *en = make_engine(dtypes[i], dtypes[i], rungs[i], 1);
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
        assert_true(ns_stretch_last_cut(n) % NS_STRETCH_STEP == 0 && ns_stretch_last_cut(n) < n);
        for (int most = 64; most <= NS_STEP_TOKENS; most += 64) {
            int at = 0, last = 0;
            while (at < n) {
                last = ns_stretch_piece(at, n, most);
                assert_true(last > 0 && last <= most + (most == 64) && last <= NS_STEP_TOKENS);
                assert_true(at + last == n || (at + last) % NS_STRETCH_STEP == 0);
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

/* ---- in and out ---- */

static void full_queue(void **state)
{
    (void)state;
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 100, .parallel = 1, .queue = 2 });
    static request r[4];
    for (int i = 0; i < 4; i++)
        r[i] = plain(5 + i, "small", 3);
    for (int i = 0; i < 3; i++)
        submit(s, &r[i]);
    ns_sched_job job = job_of(&r[3]);
    refuse(s, &job, NS_EBUSY, "the queue is full");
    ns_sched_stats t = ns_sched_about(s);
    assert_int_equal(t.waiting, 3);
    assert_int_equal(t.refused, 1);
    assert_true(t.wait > 0.0);
    ns_sched_stop(s, false);
    refuse(s, &job, NS_EBUSY, "stopping");
    run(s); /* all that was submitted is done */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(r[i].n_got, 3);
        assert_string_equal(r[i].result.end, "length");
    }
    assert_int_equal(r[3].done, 0);
    assert_true(ns_sched_about(s).wait == 0.0);
    ns_sched_free(s);
}

static void stop_at_once(void **state)
{
    (void)state;
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 100, .parallel = 1, .queue = 2 });
    static request r[2];
    for (int i = 0; i < 2; i++) {
        r[i] = plain(5, NULL, 50);
        submit(s, &r[i]);
    }
    ns_sched_stop(s, true);
    run(s);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(r[i].done, 1);
        assert_string_equal(r[i].result.end, "cancelled");
    }
    ns_sched_free(s);
    s = scheduler(&(ns_sched_opts){ .context = 100 }); /* without a loop */
    r[0] = plain(5, NULL, 50);
    submit(s, &r[0]);
    ns_sched_free(s);
    assert_int_equal(r[0].done, 1);
    assert_string_equal(r[0].result.end, "cancelled");
}

/* What callbacks do in the middle of an answer. */
typedef struct within {
    request r; /* first: it is the context */
    ns_sched *s;
    int at;
    const char *size;
    bool cancel, stop;
    int resized; /* what ns_sched_resize said */
    ns_err e;
    request *other;
} within;

static bool act(void *ctx, const ns_sched_token *t)
{
    within *w = ctx;
    bool more = take(&w->r, t);
    if (w->r.n_got != w->at)
        return more;
    if (w->cancel)
        ns_sched_cancel(w->s, w->r.ticket);
    if (w->stop)
        ns_sched_stop(w->s, true);
    if (w->size)
        w->resized = ns_sched_resize(w->s, w->r.ticket, w->size, &w->e);
    if (w->other)
        submit(w->s, w->other);
    return more;
}

static void submit_within(ns_sched *s, within *w)
{
    ns_err e = { 0 };
    ns_sched_job job = job_of(&w->r);
    job.token = act;
    w->s = s;
    if (ns_sched_submit(s, &job, &w->r.ticket, &e) != 0)
        fail_msg("%s", e.msg);
}

static void words_in_the_middle(void **state)
{
    (void)state;
    static within a, b;
    static request late;
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 200, .parallel = 3 });
    a = (within){ .r = plain(70, NULL, 60), .at = 4, .cancel = true };
    late = plain(9, "tight", 5);
    b = (within){ .r = plain(20, "small", 30), .at = 7, .other = &late };
    submit_within(s, &a);
    submit_within(s, &b);
    ns_sched_stop(s, false);
    b.other = NULL; /* stopping: nothing new is taken, also from a callback */
    run(s);
    assert_string_equal(a.r.result.end, "cancelled");
    assert_int_equal(a.r.n_got, 4);
    assert_int_equal(b.r.n_got, 30);
    ns_sched_free(s);
    s = scheduler(&(ns_sched_opts){ .context = 200, .parallel = 3 });
    a = (within){ .r = plain(70, NULL, 60), .at = 9, .stop = true };
    b = (within){ .r = plain(20, "small", 30), .at = 7, .other = &late };
    submit_within(s, &a);
    submit_within(s, &b);
    run(s);
    assert_string_equal(a.r.result.end, "cancelled");
    assert_string_equal(b.r.result.end, "cancelled");
    assert_int_equal(late.done, 1);
    ns_sched_free(s);
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
        ns_sched *s = scheduler(&(ns_sched_opts){ .context = 700, .parallel = 2, .prefix_bytes = i % 2 ? 1 << 20 : 0 });
        w = (within){ .r = plain(c[i].prompt, NULL, 40), .at = 11, .size = c[i].to };
        w.r.o.handover = c[i].how;
        other = plain(200, "small", 25);
        submit_within(s, &w);
        submit(s, &other);
        ns_sched_stop(s, false);
        run(s);
        assert_int_equal(w.resized, 0);
        assert_int_equal(w.r.n_got, 40);
        assert_int_equal(w.r.result.n_used, 2);
        assert_string_equal(w.r.result.used[0].size, "full");
        assert_string_equal(w.r.result.used[1].size, c[i].to);
        assert_int_equal(w.r.result.used[0].tokens, 11);
        assert_int_equal(w.r.result.switches, 1);
        ns_session *x = ns_session_new(engine, &(ns_session_opts){ .context = 700, .sampling = &greedy }, &e);
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
        ns_sched *s = scheduler(&(ns_sched_opts){ .context = 200 });
        w = (within){ .r = plain(30, NULL, 10), .at = 3, .size = to[i] };
        submit_within(s, &w);
        ns_sched_stop(s, false);
        run(s);
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
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 200 });
    r = plain(50, NULL, 20);
    want = plain(50, "tight", 20);
    want.o.handover = NS_HANDOVER_AUTO;
    submit(s, &r);
    assert_int_equal(ns_sched_resize(s, r.ticket, "small", &e), 0);
    assert_int_equal(ns_sched_resize(s, r.ticket, "tight", &e), 0);
    ns_sched_stop(s, false);
    run(s);
    alone(engine, &want);
    assert_int_equal(r.n_got, 20);
    assert_memory_equal(r.got, want.want, 20 * sizeof *r.got);
    ns_sched_free(s);
}

/* ---- states within their budget ---- */

static int64_t bytes_of(const char *size, int tokens)
{
    ns_size_info i;
    char name[64];
    assert_int_equal(ns_engine_resolve(engine, size, tokens, name, sizeof name, &i, NULL), 0);
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
    return take(&w->r, t);
}

static void budget(void **state)
{
    (void)state;
    static within q[6];
    int64_t one = bytes_of("full", 60);
    ns_err e = { 0 };
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 1000, .parallel = 6, .state_bytes = 2 * one + one / 2 });
    most_running = 0;
    for (int i = 0; i < 6; i++) {
        q[i] = (within){ .r = plain(50, NULL, 10), .s = s }; /* 60 tokens, whatever the context */
        ns_sched_job job = job_of(&q[i].r);
        job.token = look;
        assert_int_equal(ns_sched_submit(s, &job, &q[i].r.ticket, &e), 0);
    }
    request *big = calloc(1, sizeof *big);
    *big = plain(900, NULL, 10);
    ns_sched_job job = job_of(big);
    refuse(s, &job, NS_EINVAL, "all requests together may have");
    ns_sched_stop(s, false);
    run(s);
    for (int i = 0; i < 6; i++)
        assert_int_equal(q[i].r.n_got, 10);
    assert_int_equal(most_running, 2);
    ns_sched_free(s);
    /* a slider may not take more than there is */
    static within w;
    s = scheduler(&(ns_sched_opts){ .context = 1000, .parallel = 6, .state_bytes = bytes_of("tight", 60) + 1000 });
    w = (within){ .r = plain(50, "tight", 10), .at = 2, .size = "full" };
    w.r.o.handover = NS_HANDOVER_AUTO;
    submit_within(s, &w);
    ns_sched_stop(s, false);
    run(s);
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
    return take(&s->r, t);
}

static void logprobs(void **state)
{
    (void)state;
    static seen x;
    ns_err e = { 0 };
    for (int n_top = 0; n_top <= 20; n_top += 5) {
        x = (seen){ .r = plain(77, "small", 30), .n_top = n_top };
        x.r.top = n_top;
        x.r.sampling = (ns_sampling){ .temperature = 1.7, .top_p = 0.8, .repetition_penalty = 1.3, .seed = 5 };
        ns_sched *s = scheduler(&(ns_sched_opts){ .context = 200 });
        ns_sched_job job = job_of(&x.r);
        job.token = see;
        assert_int_equal(ns_sched_submit(s, &job, &x.r.ticket, &e), 0);
        ns_sched_stop(s, false);
        run(s);
        assert_int_equal(x.n, 30);
        ns_session *one = ns_session_new(engine, &(ns_session_opts){ .size = "small", .context = 200 }, &e);
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
        ns_sched *s = scheduler(&(ns_sched_opts){ .context = 200 });
        o = (only){ .r = plain(40, NULL, 0), .from = 30, .none_after = 8 };
        o.r.ids[39] = open_mark;
        o.r.o.think_budget = 6;
        o.r.o.answer_tokens = 20;
        if (hot)
            o.r.sampling = (ns_sampling){ .temperature = 1.5, .top_p = 0.9, .repetition_penalty = 1.2, .seed = 9 };
        free_run = o.r;
        free_run.o.segment = NULL;
        alone(engine, &free_run);
        ns_sched_job job = job_of(&o.r);
        job.ctx = &o;
        job.allow = (ns_sched_allow){ &o, mask_one, took_one };
        assert_int_equal(ns_sched_submit(s, &job, &o.r.ticket, &e), 0);
        ns_sched_stop(s, false);
        run(s);
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
    return take(&x->r, t);
}

static void *run_thread(void *s)
{
    run(s);
    return NULL;
}

static bool start_race(void *ctx, const ns_sched_token *t)
{
    race *c = ctx;
    ns_err e = { 0 };
    for (int i = 0; c->a.n_got == 3 && i < 2; i++) {
        ns_sched_job job = job_of(&c->x[i].r);
        job.token = note_first;
        assert_int_equal(ns_sched_submit(c->s, &job, &c->x[i].r.ticket, &e), 0);
    }
    return take(&c->a, t);
}

/* A sequence that decodes makes a token in every step beside texts that are read, and these take turns. */
static void turns(void **state)
{
    (void)state;
    static race c;
    ns_err e = { 0 };
    ns_sched *s = c.s = scheduler(&(ns_sched_opts){ .context = CONTEXT, .parallel = 3, .chunk = 64 });
    c.a = plain(10, NULL, 60);
    for (int i = 0; i < 2; i++)
        c.x[i] = (struct racer){ .r = plain(i ? 700 : 1000, i ? "small" : NULL, 3), .beside = &c.a };
    ns_sched_job job = job_of(&c.a);
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
    ns_engine *good = engine;
    ns_engine_close(make_engine("broken", "f32", NULL, 1));
    char *dir = tiny_path(tiny_base, "broken");
    tiny_load(&f, dir);
    tiny_tensor *norm = tiny_find(&f, "backbone.norm_f.weight");
    ((float *)(void *)norm->data)[60] = NAN; /* "small" has 48 channels */
    tiny_save(&f, dir);
    tiny_release(&f);
    free(dir);
    engine = make_engine("broken", "f32", NULL, 1);
    assert_non_null(engine);
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 200, .parallel = 1 });
    static const char *const sizes[] = { "small", "full", "small" };
    for (int i = 0; i < 3; i++) {
        r[i] = plain(70, sizes[i], 10);
        submit(s, &r[i]);
    }
    ns_sched_stop(s, false);
    run(s);
    for (int i = 0; i < 3; i++)
        assert_string_equal(r[i].result.end, i == 1 ? "error" : "length");
    assert_int_equal(r[1].result.err.code, NS_EFORMAT);
    assert_non_null(strstr(r[1].result.err.msg, "not finite"));
    assert_memory_equal(r[0].got, r[2].got, 10 * sizeof *r[0].got);
    assert_int_equal(ns_sched_about(s).failed, 1);
    assert_true(ns_sched_about(s).state_bytes == 0);
    ns_sched_free(s);
    ns_engine_close(engine);
    engine = good;
}

/* ---- the rest ---- */

static void deadlines(void **state)
{
    (void)state;
    static request r[3];
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 1400, .parallel = 1 });
    r[0] = plain(600, "small", 0); /* as long as it may */
    r[0].o.deadline = 0.05;
    r[1] = plain(600, "small", 0); /* over before it begins */
    r[1].o.deadline = 0.01;
    r[2] = plain(20, "auto", 10); /* chooses its sizes, and has time */
    r[2].o.deadline = 100.0;
    for (int i = 0; i < 3; i++)
        submit(s, &r[i]);
    ns_sched_stop(s, false);
    run(s);
    assert_string_equal(r[0].result.end, "deadline");
    assert_string_equal(r[1].result.end, "deadline");
    assert_int_equal(r[1].n_got, 0);
    assert_true(r[0].result.total < 1.0);
    assert_string_equal(r[2].result.end, "length");
    assert_string_equal(r[2].result.used[0].size, "full");
    ns_sched_free(s);
}

/* Without targets "auto" is the full size, also in segments. */
static void auto_is_full(void **state)
{
    (void)state;
    static request r, want;
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 200 });
    assert_string_equal(ns_sched_about(s).auto_think, "full");
    r = plain(30, "auto", 20);
    r.ids[29] = open_mark;
    r.o.think_budget = 5;
    want = r;
    want.size = NULL;
    r.seg[0] = (ns_segment){ NS_PHASE_ANSWER, 0, "auto" };
    r.o.segment = r.seg;
    r.o.n_segments = 1;
    submit(s, &r);
    ns_sched_stop(s, false);
    run(s);
    alone(engine, &want);
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
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 1000, .parallel = 1, .token_rate = 1e9 });
    for (int i = 0; i < N; i++) {
        r[i] = plain(700, "auto", 40);
        submit(s, &r[i]);
    }
    ns_sched_stop(s, false);
    run(s);
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
    ns_sched *s = scheduler(&(ns_sched_opts){ .context = 100 });
    r = plain(10, NULL, 10);
    ns_sched_job job = job_of(&r);
#define REFUSE(field, value, why)                   \
    do {                                            \
        ns_sched_job bad = job;                     \
        bad.field = value;                          \
        refuse(s, &bad, NS_EINVAL, why);            \
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
        assert_null(ns_sched_new(engine, &bad[i], &why));
        assert_int_equal(why.code, NS_EINVAL);
    }
    ns_sched_free(NULL);
    assert_int_equal(r.done, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces),              cmocka_unit_test(any_company),         cmocka_unit_test(any_company_with_prefixes),
        cmocka_unit_test(kept_prefixes), cmocka_unit_test(any_kernels),         cmocka_unit_test(full_queue),          cmocka_unit_test(stop_at_once),
        cmocka_unit_test(words_in_the_middle), cmocka_unit_test(resize_in_the_middle), cmocka_unit_test(resize_in_the_queue),
        cmocka_unit_test(budget),              cmocka_unit_test(logprobs),            cmocka_unit_test(masks),
        cmocka_unit_test(deadlines),           cmocka_unit_test(auto_is_full),        cmocka_unit_test(auto_gives_way),
        cmocka_unit_test(turns),               cmocka_unit_test(broken_weight),       cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
