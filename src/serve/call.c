/* A request being answered. Its jobs' callbacks come on the scheduler's thread, the client's leaving on one of the HTTP layer's. The lock is
 * held while jobs are submitted, so that no token overtakes the reply's beginning. Leaving takes no lock of ours: it only cancels tickets,
 * which do not change once it can come. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "serve/server_impl.h"

struct choice {
    struct ns_call *call;
    int index;
    ns_grammar_walk *walk;
    bool lost;              /* the walk could not follow: too many readings of the schema at once */
};

struct ns_call {
    ns_server *s;
    struct ns_call *next, **link; /* among the server's */
    ns_api_request request;
    ns_call_job job;
    char id[48], request_id[80];
    ns_http_reply *reply;
    ns_api_reply *text;
    struct choice *choice;  /* [request.n] */
    uint64_t *ticket;       /* [n_tickets] */
    int n_tickets;
    pthread_mutex_t lock;
    int open;               /* jobs, and the submitting thread, that still hold it */
    bool streaming;         /* the reply has begun as a stream */
    ns_api_error error;     /* status 0: none */
    ns_buf out;
    /* for the log */
    ns_sched_result last;
    size_t tokens;
};

/* ---- constrained decoding ---- */

static bool mask(void *ctx, uint64_t *bits)
{
    struct choice *c = ctx;
    const ns_engine *en = c->call->s->en;
    ns_grammar_mask(c->walk, c->call->s->vocab, bits);
    for (int i = 0; ns_grammar_complete(c->walk) && i < en->n_stop; i++)
        bits[en->stop[i] / 64] |= (uint64_t)1 << en->stop[i] % 64;
    return true;
}

static void took(void *ctx, int id)
{
    struct choice *c = ctx;
    const char *bytes;
    size_t n;
    if (ns_engine_is_stop(c->call->s->en, id) || ns_engine_token_bytes(c->call->s->en, id, &bytes, &n) != 0)
        return;
    if (ns_grammar_take(c->walk, bytes, n) != 0) /* it was in the mask; see grammar.h for when that is not enough */
        c->lost = true;
}

/* ---- the end ---- */

static void unlist(struct ns_call *c)
{
    pthread_mutex_lock(&c->s->calls_lock);
    if (c->link) {
        *c->link = c->next;
        if (c->next)
            c->next->link = c->link;
    }
    pthread_mutex_unlock(&c->s->calls_lock);
}

static void free_call(struct ns_call *c)
{
    unlist(c);
    for (int i = 0; c->choice && i < c->request.n; i++)
        ns_grammar_walk_free(c->choice[i].walk);
    free(c->choice);
    free(c->ticket);
    ns_api_reply_free(c->text);
    ns_call_job_release(&c->job);
    ns_api_request_release(&c->request);
    ns_buf_release(&c->out);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void log_call(struct ns_call *c)
{
    static const char *const apis[] = { "chat", "completions", "responses" };
    const ns_sched_result *r = &c->last;
    json_t *sizes = json_array(), *line;
    for (int i = 0; i < r->n_used; i++)
        json_array_append_new(sizes, json_string(r->used[i].size));
    line = json_pack("{s:s, s:s, s:s, s:s, s:b, s:i, s:I, s:I, s:I, s:f, s:f, s:f, s:s?, s:o}", "id", c->id, "request", c->request_id, "api",
                     apis[c->request.api], "model", c->request.model, "stream", c->request.stream, "status", c->error.status ? c->error.status : 200,
                     "prompt_tokens", (json_int_t)c->job.prompt.len, "cached_tokens", (json_int_t)r->cached_tokens, "tokens",
                     (json_int_t)c->tokens, "queued", r->queued, "first_token", r->first_token, "seconds", r->total, "end", r->end, "sizes", sizes);
    if (c->error.status)
        json_object_set_new(line, "error", json_string(c->error.message));
    if (c->s->o.log_prompts && c->request.chat)
        json_object_set(line, "messages", json_object_get(c->request.chat, "messages"));
    if (c->s->o.log_prompts && !c->request.stream && c->out.data)
        json_object_set_new(line, "reply", json_stringn(c->out.data, c->out.len));
    ns_server_log(c->s, line);
}

/* The last one to let go ends the reply; then nobody else knows the call. */
static void let_go(struct ns_call *c)
{
    pthread_mutex_lock(&c->lock);
    int open = --c->open;
    pthread_mutex_unlock(&c->lock);
    if (open > 0)
        return;
    if (c->out.failed && !c->error.status)
        ns_api_fail(&c->error, 500, NULL, NULL, "out of memory");
    if (c->streaming) {
        ns_buf_clear(&c->out);
        if (c->error.status)
            ns_api_reply_error(c->text, &c->error, &c->out);
        if (c->out.len)
            ns_http_write(c->reply, c->out.data, c->out.len);
        ns_http_end(c->reply);
    } else if (c->error.status) {
        ns_server_refuse(c->reply, &c->error);
    } else {
        ns_http_send(c->reply, 200, "application/json", c->out.data, c->out.len);
    }
    log_call(c);
    free_call(c);
}

/* ---- tokens ---- */

/* Sends what there is; false when the client is gone. */
static bool pass_on(struct ns_call *c)
{
    bool ok = !c->out.failed;
    if (c->streaming && c->out.len) {
        ok = ns_http_write(c->reply, c->out.data, c->out.len) == 0;
        ns_buf_clear(&c->out);
    }
    return ok;
}

/* The token's text. Of the marks around a thought nothing is shown but in plain completions; the reply wants to know where they stood. */
static bool text_of(const struct ns_call *c, const ns_sched_token *t, ns_api_token *out)
{
    out->thought = t->phase == NS_PHASE_THINK;
    if ((t->mark && ns_engine_is_stop(c->s->en, t->id)) || (t->put && !t->mark && !out->thought)) /* put in behind "</think>" */
        return false;
    if (t->mark && c->request.api != NS_API_COMPLETIONS) {
        out->bytes = "";
        out->thought = true;
        return true;
    }
    return ns_engine_token_bytes(c->s->en, t->id, &out->bytes, &out->n) == 0;
}

static int tops_of(const struct ns_call *c, const ns_sched_token *t, ns_api_top *top, int cap)
{
    int n = t->n_top < cap ? t->n_top : cap;
    for (int i = 0; i < n; i++) {
        top[i].logprob = t->top[i].logprob;
        if (ns_engine_token_bytes(c->s->en, t->top[i].id, &top[i].bytes, &top[i].n) != 0)
            top[i].n = 0;
    }
    return n;
}

static bool on_token(void *ctx, const ns_sched_token *t)
{
    struct choice *ch = ctx;
    struct ns_call *c = ch->call;
    ns_api_top top[20];
    ns_api_token out = { .logprob = t->logprob, .top = t->top ? top : NULL, .size = t->size };
    bool go_on = true;
    pthread_mutex_lock(&c->lock);
    c->tokens++;
    if (ch->lost && !c->error.status)
        ns_api_fail(&c->error, 500, NULL, "response_format", "the schema has too many readings of this answer at once");
    if (ch->lost) {
        go_on = false;
    } else if (text_of(c, t, &out)) {
        out.n_top = tops_of(c, t, top, 20);
        go_on = ns_api_reply_token(c->text, ch->index, &out, &c->out);
        go_on = pass_on(c) && go_on;
    }
    pthread_mutex_unlock(&c->lock);
    return go_on;
}

static const char *finish_of(const char *end)
{
    return strcmp(end, "stop") == 0 || strcmp(end, "taken") == 0 ? "stop" : "length";
}

static void on_done(void *ctx, const ns_sched_result *r)
{
    struct choice *ch = ctx;
    struct ns_call *c = ch->call;
    ns_api_used used[NS_SCHED_SIZES];
    pthread_mutex_lock(&c->lock);
    c->last = *r;
    if (strcmp(r->end, "error") == 0 && !c->error.status) {
        ns_api_fail(&c->error, r->err.code == NS_EINVAL ? 400 : 500, NULL, NULL, "%s", r->err.msg);
    } else if (!c->error.status && strcmp(r->end, "cancelled") == 0 && atomic_load(&c->s->draining)) {
        ns_api_fail(&c->error, 503, NULL, NULL, "the server is being stopped");
    } else if (!c->error.status) {
        for (int i = 0; i < r->n_used; i++)
            used[i] = (ns_api_used){ r->used[i].size, r->used[i].tokens };
        ns_api_reply_end(c->text, ch->index,
                         &(ns_api_end){ .finish = finish_of(r->end), .prompt_tokens = r->prompt_tokens, .cached_tokens = r->cached_tokens,
                                        .thought_tokens = r->thought_tokens, .answer_tokens = r->answer_tokens, .used = used,
                                        .n_used = r->n_used, .end = strcmp(r->end, "taken") == 0 ? "stop" : r->end,
                                        .first_token = r->first_token, .total = r->total, .switch_seconds = r->switch_seconds,
                                        .switches = r->switches },
                         &c->out);
        pass_on(c);
    }
    pthread_mutex_unlock(&c->lock);
    let_go(c);
}

static void on_gone(void *ctx)
{
    struct ns_call *c = ctx;
    for (int i = 0; i < c->n_tickets; i++)
        ns_sched_cancel(c->s->sched, c->ticket[i]);
}

/* ---- the beginning ---- */

static void name_call(struct ns_call *c)
{
    static const char *const prefix[] = { "chatcmpl-", "cmpl-", "resp_" };
    unsigned long n = atomic_fetch_add(&c->s->next_id, 1);
    snprintf(c->id, sizeof c->id, "%s%016llx%08lx", prefix[c->request.api], (unsigned long long)c->s->id_base, n);
}

static int prepare(struct ns_call *c)
{
    size_t n = (size_t)c->request.n;
    ns_err e = { 0 };
    if (ns_call_job_init(&c->job, c->s, &c->request, &c->error) != 0)
        return -1;
    c->choice = calloc(n, sizeof *c->choice);
    c->ticket = calloc(n, sizeof *c->ticket);
    if (!c->request.model[0])
        snprintf(c->request.model, sizeof c->request.model, "%s", c->s->o.model);
    c->text = ns_api_reply_new(&(ns_api_reply_opts){ &c->request, c->id, (long)time(NULL), c->request.model }, &e);
    if (!c->choice || !c->ticket || !c->text)
        return ns_api_fail(&c->error, 500, NULL, NULL, "out of memory");
    for (int i = 0; i < c->request.n; i++) {
        c->choice[i] = (struct choice){ .call = c, .index = i };
        if (c->job.grammar && !(c->choice[i].walk = ns_grammar_walk_new(c->job.grammar, &e)))
            return ns_api_fail(&c->error, 500, NULL, NULL, "%s", e.msg);
    }
    return 0;
}

/* One choice is one job; they differ in their seeds. */
static int submit(struct ns_call *c)
{
    for (int i = 0; i < c->request.n; i++) {
        ns_err e = { 0 };
        ns_sched_job job = c->job.job;
        job.sampling.seed += (uint64_t)i;
        job.ctx = &c->choice[i];
        job.token = on_token;
        job.done = on_done;
        if (c->choice[i].walk)
            job.allow = (ns_sched_allow){ &c->choice[i], mask, took };
        if (ns_sched_submit(c->s->sched, &job, &c->ticket[i], &e) == 0) {
            c->n_tickets++;
            c->open++;
            continue;
        }
        ns_api_fail(&c->error, e.code == NS_EBUSY ? 429 : e.code == NS_EINVAL ? 400 : 500, NULL, NULL, "%s", e.msg);
        if (e.code == NS_EBUSY) {
            char wait[32];
            snprintf(wait, sizeof wait, "%d", (int)(ns_sched_about(c->s->sched).wait + 1.0));
            ns_http_header(c->reply, "Retry-After", wait);
        }
        on_gone(c); /* what was submitted of it */
        return -1;
    }
    return 0;
}

static void list(struct ns_call *c)
{
    ns_server *s = c->s;
    pthread_mutex_lock(&s->calls_lock);
    c->next = s->calls;
    c->link = &s->calls;
    if (c->next)
        c->next->link = &c->next;
    s->calls = c;
    pthread_mutex_unlock(&s->calls_lock);
}

static void begin_stream(struct ns_call *c)
{
    ns_http_header(c->reply, "Cache-Control", "no-cache");
    ns_http_header(c->reply, "X-Accel-Buffering", "no"); /* a proxy is to pass events on as they come */
    ns_http_stream(c->reply, 200, "text/event-stream");
    c->streaming = true;
    ns_api_reply_begin(c->text, &c->out);
    pass_on(c);
}

void ns_call_start(ns_server *s, ns_api_request *r, const char *request_id, ns_http_reply *reply)
{
    struct ns_call *c = calloc(1, sizeof *c);
    if (!c) {
        ns_api_error e;
        ns_api_fail(&e, 500, NULL, NULL, "out of memory");
        ns_api_request_release(r);
        ns_server_refuse(reply, &e);
        return;
    }
    *c = (struct ns_call){ .s = s, .request = *r, .reply = reply, .open = 1 };
    *r = (ns_api_request){ 0 };
    snprintf(c->request_id, sizeof c->request_id, "%s", request_id);
    pthread_mutex_init(&c->lock, NULL);
    name_call(c);
    pthread_mutex_lock(&c->lock);
    if (prepare(c) == 0 && submit(c) == 0) {
        list(c);
        if (c->request.stream)
            begin_stream(c);
        ns_http_on_gone(reply, on_gone, c);
    }
    pthread_mutex_unlock(&c->lock);
    let_go(c);
}

/* ---- another size ---- */

int ns_call_resize(ns_server *s, const char *body, size_t n, ns_api_error *e)
{
    ns_err why = { 0 };
    json_t *j = ns_json_parse(body, n, false, "request", &why);
    const char *id = json_string_value(json_object_get(j, "id")), *size = json_string_value(json_object_get(j, "size"));
    ns_sched_stats now = ns_sched_about(s->sched); /* "auto": what it means now */
    int rc = 0, found = 0;
    if (!id || !size) {
        json_decref(j);
        return ns_api_fail(e, 400, NULL, id ? "size" : "id", "expected {\"id\": \"chatcmpl-..\", \"size\": \"..\"}");
    }
    pthread_mutex_lock(&s->calls_lock);
    for (struct ns_call *c = s->calls; c; c = c->next)
        if (strcmp(c->id, id) == 0)
            for (int i = 0; i < c->n_tickets; i++, found++)
                rc = ns_sched_resize(s->sched, c->ticket[i], strcmp(size, "auto") == 0 ? now.auto_answer : size, &why) != 0 ? -1 : rc;
    pthread_mutex_unlock(&s->calls_lock);
    if (!found)
        ns_api_fail(e, 404, NULL, "id", "no answer \"%s\" is being made", id);
    else if (rc != 0)
        ns_api_fail(e, 400, NULL, "size", "%s", why.msg);
    json_decref(j);
    return found && rc == 0 ? 0 : -1;
}
