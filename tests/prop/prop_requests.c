#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "prop/requests.h"

/* "small" shares the cache's shape with "full", "tight" does not, "short" leaves layers out. */
static const char nest[] = "{\"version\": 1, \"variants\": [{\"name\": \"whole\"},"
                           "{\"name\": \"small\", \"cut\": {\"hidden\": 48, \"expert_ffn\": 32}},"
                           "{\"name\": \"short\", \"cut\": {\"layers\": [0, 1, 2, 4, 5, 7]}},"
                           "{\"name\": \"tight\", \"cut\": {\"hidden\": 48, \"mamba_heads\": 4}}]}";

ns_engine *req_engine;
int req_open, req_close;

ns_engine *req_engine_make(const char *name, const char *dtype, const char *rung, int threads)
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

int req_setup(void **state)
{
    if (!getenv("NS_TEST_SRC") || tiny_setup(state) != 0)
        return -1;
    req_engine = req_engine_make("model", "f32", NULL, 2);
    if (!req_engine)
        return -1;
    req_open = ns_tokenizer_find(req_engine->tokenizer, "<think>", 7);
    req_close = ns_tokenizer_find(req_engine->tokenizer, "</think>", 8);
    return req_open >= 0 && req_close >= 0 ? 0 : -1;
}

int req_teardown(void **state)
{
    ns_engine_close(req_engine);
    return tiny_teardown(state);
}

const ns_sampling req_greedy = { .temperature = 0.0, .top_p = 1.0, .repetition_penalty = 1.0 };

/* ---- a request ---- */

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

bool req_take(void *ctx, const ns_sched_token *t)
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
}

ns_sched_job req_job(request *r)
{
    return (ns_sched_job){ .ids = r->ids, .n_ids = (size_t)r->n, .size = r->size, .answer = r->o, .sampling = r->sampling,
                           .top_logprobs = r->top, .ctx = r, .token = req_take, .done = done };
}

request req_plain(int n, const char *size, int tokens)
{
    request r = { .n = n, .size = size, .sampling = req_greedy, .top = -1,
                  .o = { .max_tokens = tokens, .ignore_stop = true, .handover = NS_HANDOVER_CACHE } };
    for (int i = 0; i < n; i++)
        r.ids[i] = (i * 131 + n * 7) % 256;
    return r;
}

/* The oracle: a session and an answer, nothing else. */
void req_alone(ns_engine *en, request *r)
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

void req_check(const request *r)
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

/* ---- a scheduler ---- */

ns_sched *req_sched(const ns_sched_opts *o)
{
    ns_err e = { 0 };
    ns_sched *s = ns_sched_new(req_engine, o, &e);
    if (!s)
        fail_msg("%s", e.msg);
    return s;
}

void req_submit(ns_sched *s, request *r)
{
    ns_err e = { 0 };
    ns_sched_job job = req_job(r);
    if (ns_sched_submit(s, &job, &r->ticket, &e) != 0)
        fail_msg("%s", e.msg);
    assert_true(r->ticket != 0);
}

void req_refuse(ns_sched *s, const ns_sched_job *job, enum ns_code code, const char *why)
{
    ns_err e = { 0 };
    uint64_t ticket;
    assert_int_equal(ns_sched_submit(s, job, &ticket, &e), -1);
    if (e.code != (int)code || !strstr(e.msg, why))
        fail_msg("%d \"%s\" instead of %d \"%s\"", e.code, e.msg, code, why);
}

void req_run(ns_sched *s)
{
    ns_err e = { 0 };
    ns_sched_run(s);
    assert_int_equal(e.code, 0);
}

static bool act(void *ctx, const ns_sched_token *t)
{
    within *w = ctx;
    bool more = req_take(&w->r, t);
    if (w->r.n_got != w->at)
        return more;
    if (w->cancel)
        ns_sched_cancel(w->s, w->r.ticket);
    if (w->stop)
        ns_sched_stop(w->s, true);
    if (w->size)
        w->resized = ns_sched_resize(w->s, w->r.ticket, w->size, &w->e);
    if (w->other)
        req_submit(w->s, w->other);
    return more;
}

void req_submit_within(ns_sched *s, within *w)
{
    ns_err e = { 0 };
    ns_sched_job job = req_job(&w->r);
    job.token = act;
    w->s = s;
    if (ns_sched_submit(s, &job, &w->r.ticket, &e) != 0)
        fail_msg("%s", e.msg);
}

