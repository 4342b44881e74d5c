#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "base/json.h"
#include "base/log.h"
#include "run/answer.h"
#include "serve/page.h"
#include "serve/server_impl.h"

/* ---- small things ---- */

void ns_server_refuse(ns_http_reply *reply, const ns_api_error *e)
{
    ns_buf out = { 0 };
    ns_api_error_write(e, &out);
    ns_http_send(reply, e->status, "application/json", out.data ? out.data : "", out.len);
    ns_buf_release(&out);
}

void ns_server_log(ns_server *s, json_t *line)
{
    char stamp[40];
    time_t now = time(NULL);
    struct tm t;
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &t));
    json_object_set_new(line, "time", json_string(stamp));
    char *text = s->o.log ? json_dumps(line, JSON_COMPACT) : NULL;
    if (text) {
        pthread_mutex_lock(&s->log_lock);
        s->o.log(s->o.log_ctx, text);
        pthread_mutex_unlock(&s->log_lock);
    }
    free(text);
    json_decref(line);
}

int ns_server_render(const ns_server *s, const json_t *chat, ns_prompt *out, ns_err *e)
{
    ns_template_opts o = ns_template_defaults();
    o.trust_assistant = false;
    return ns_engine_render(s->en, chat, &o, out, e);
}

int ns_server_named(const ns_server *s, const char *name)
{
    for (int i = 0; i < s->en->ckpt->variants.n; i++)
        if (strcmp(s->en->ckpt->variants.v[i].name, name) == 0)
            return i;
    return -1;
}

/* ---- routes ---- */

static void send_buf(ns_http_reply *reply, const char *type, ns_buf *out)
{
    ns_api_error e;
    if (out->failed) {
        ns_api_fail(&e, 500, NULL, NULL, "out of memory");
        ns_server_refuse(reply, &e);
    } else {
        ns_http_send(reply, 200, type, out->data ? out->data : "", out->len);
    }
    ns_buf_release(out);
}

static void complete(ns_server *s, enum ns_api api, const ns_http_request *h, ns_http_reply *reply)
{
    ns_api_request r = { 0 };
    ns_api_error e;
    if (atomic_load(&s->draining))
        ns_api_fail(&e, 503, NULL, NULL, "the server is being stopped");
    else if (ns_api_parse(api, h->body, h->n_body, &r, &e) == 0) {
        ns_call_start(s, &r, h->request_id, reply);
        return;
    }
    ns_server_log(s, json_pack("{s:s, s:i, s:s}", "request", h->request_id, "status", e.status, "error", e.message));
    ns_server_refuse(reply, &e);
}

static void chat(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    complete(s, NS_API_CHAT, h, reply);
}

static void completions(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    complete(s, NS_API_COMPLETIONS, h, reply);
}

static void responses(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    complete(s, NS_API_RESPONSES, h, reply);
}

static void models(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    ns_buf out = { 0 };
    (void)h;
    ns_status_models(s, &out);
    send_buf(reply, "application/json", &out);
}

static void tokenize(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    ns_buf out = { 0 };
    ns_api_error e;
    if (ns_status_tokenize(s, h->body, h->n_body, &out, &e) == 0) {
        send_buf(reply, "application/json", &out);
        return;
    }
    ns_buf_release(&out);
    ns_server_refuse(reply, &e);
}

static void resize(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    ns_api_error e;
    if (ns_call_resize(s, h->body, h->n_body, &e) == 0)
        ns_http_send(reply, 200, "application/json", "{}", 2);
    else
        ns_server_refuse(reply, &e);
}

static void status(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    ns_buf out = { 0 };
    (void)h;
    ns_status_page(s, &out);
    send_buf(reply, "application/json", &out);
}

static void metrics(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    ns_buf out = { 0 };
    (void)h;
    ns_status_metrics(s, &out);
    send_buf(reply, "text/plain; version=0.0.4; charset=utf-8", &out);
}

static void health(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    static const char text[] = "{\"status\":\"ok\"}";
    (void)s;
    (void)h;
    ns_http_send(reply, 200, "application/json", text, strlen(text));
}

static void ready(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    const bool ok = !atomic_load(&s->draining);
    const char *text = ok ? "{\"status\":\"ready\"}" : "{\"status\":\"not ready\"}";
    (void)h;
    ns_http_send(reply, ok ? 200 : 503, "application/json", text, strlen(text));
}

/* The page, its files, and one model by its name: paths that are not in the table. */
static bool other_get(ns_server *s, const ns_http_request *h, ns_http_reply *reply)
{
    static const char models_path[] = "/v1/models/";
    const char *type;
    const unsigned char *data;
    size_t n;
    if (ns_page_find(h->path, &type, &data, &n)) {
        ns_http_header(reply, "Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'");
        ns_http_header(reply, "X-Content-Type-Options", "nosniff");
        ns_http_header(reply, "Referrer-Policy", "no-referrer");
        ns_http_header(reply, "Cache-Control", "no-cache");
        ns_http_send(reply, 200, type, (const char *)data, n);
        return true;
    }
    if (strncmp(h->path, models_path, strlen(models_path)) == 0) {
        ns_buf out = { 0 };
        ns_api_error e;
        if (ns_status_model(s, h->path + strlen(models_path), &out, &e) == 0)
            send_buf(reply, "application/json", &out);
        else
            ns_server_refuse(reply, &e);
        return true;
    }
    return false;
}

static const struct route {
    const char *method, *path;
    void (*run)(ns_server *s, const ns_http_request *h, ns_http_reply *reply);
} routes[] = {
    { "POST", "/v1/chat/completions", chat }, { "POST", "/v1/completions", completions }, { "POST", "/v1/responses", responses },
    { "GET", "/v1/models", models },          { "POST", "/tokenize", tokenize },          { "POST", "/nestar/size", resize },
    { "GET", "/nestar/status", status },      { "GET", "/metrics", metrics },             { "GET", "/health", health },
    { "GET", "/ready", ready },
};

/* Anything else a page of another site could make a browser send here without being asked. */
static bool is_json(const char *type)
{
    size_t n = strlen("application/json");
    return strncasecmp(type, "application/json", n) == 0 && (type[n] == '\0' || type[n] == ';' || type[n] == ' ');
}

static bool is_local(const char *host)
{
    size_t n = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    return n == 0 || (n == 9 && strncasecmp(host, "localhost", 9) == 0) || (n == 5 && strncmp(host, "[::1]", 5) == 0) ||
           (strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == n);
}

static void handle(void *ctx, const ns_http_request *h, ns_http_reply *reply)
{
    ns_server *s = ctx;
    ns_api_error e;
    if (s->o.local && !is_local(h->host)) {
        ns_api_fail(&e, 421, NULL, NULL, "this server answers to localhost only, and was asked as %.100s", h->host);
        ns_server_refuse(reply, &e);
        return;
    }
    const char *allowed = NULL;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(h->path, routes[i].path) != 0)
            continue;
        if (strcmp(h->method, routes[i].method) == 0 && strcmp(h->method, "POST") == 0 && !is_json(h->type)) {
            ns_api_fail(&e, 415, NULL, NULL, "expected Content-Type: application/json");
            ns_server_refuse(reply, &e);
            return;
        }
        if (strcmp(h->method, routes[i].method) == 0) {
            routes[i].run(s, h, reply);
            return;
        }
        allowed = routes[i].method;
    }
    if (!allowed && strcmp(h->method, "GET") == 0 && other_get(s, h, reply))
        return;
    if (allowed) {
        ns_http_header(reply, "Allow", allowed);
        ns_api_fail(&e, 405, NULL, NULL, "%s takes %s", h->path, allowed);
    } else {
        ns_api_fail(&e, 404, NULL, NULL, "no such path: %.200s", h->path);
    }
    ns_server_refuse(reply, &e);
}

static void http_error(void *ctx, int status_code, const char *message, ns_buf *body)
{
    ns_api_error e;
    (void)ctx;
    ns_api_fail(&e, status_code, status_code == 401 ? "invalid_api_key" : NULL, NULL, "%s", message);
    ns_api_error_write(&e, body);
}

/* ---- life ---- */

static void *run_loop(void *ctx)
{
    ns_server *s = ctx;
    ns_sched_run(s->sched);
    return NULL;
}

static int measure(ns_server *s, ns_err *e)
{
    const ns_answer_clock clock = { .now = ns_answer_now };
    ns_session *session = ns_session_new(s->en, &(ns_session_opts){ .context = 16 }, e);
    int rc = session ? 0 : -1;
    for (int i = 0; rc == 0 && i < ns_engine_n_sizes(s->en); i++) {
        double step = 0.0;
        rc = ns_session_time(session, s->en->ckpt->variants.v[i].name, &clock, &step, NULL, e);
        s->decode_rate[i] = step > 0.0 ? 1.0 / step : 0.0;
    }
    ns_session_free(session);
    return rc;
}

static int start(ns_server *s, ns_err *e)
{
    static const char *const open[] = { "/health", "/ready", "/", "/page.css", "/page.js", "/machine.js", "/icon.svg", NULL };
    ns_http_opts http = s->o.http;
    s->decode_rate = calloc((size_t)ns_engine_n_sizes(s->en), sizeof *s->decode_rate);
    if (!s->decode_rate)
        return ns_fail(e, NS_ENOMEM, "server: out of memory");
    /* a mask has a bit for every token of the model */
    bool fits = s->en->tokenizer && ns_tokenizer_vocab_size(s->en->tokenizer) <= ns_engine_vocab_size(s->en);
    if (fits && !(s->vocab = ns_grammar_vocab_new(s->en->tokenizer, e)))
        return -1;
    if ((s->o.measure && measure(s, e) != 0) || !(s->sched = ns_sched_new(s->en, &s->o.sched, e)))
        return -1;
    s->o.sched = *ns_sched_options(s->sched); /* what was left to it is said to clients */
    if (pthread_create(&s->loop, NULL, run_loop, s) != 0)
        return ns_fail(e, NS_ENOMEM, "server: no thread for the scheduler");
    s->looping = true;
    http.ctx = s;
    http.handle = handle;
    http.error = http_error;
    http.open = open;
    return (s->http = ns_http_start(&http, e)) ? 0 : -1;
}

ns_server *ns_server_start(ns_engine *en, const ns_server_opts *o, ns_err *e)
{
    ns_server *s = calloc(1, sizeof *s);
    if (!s) {
        ns_fail(e, NS_ENOMEM, "server: out of memory");
        return NULL;
    }
    s->en = en;
    s->o = *o;
    s->started = (long)time(NULL);
    pthread_mutex_init(&s->log_lock, NULL);
    pthread_mutex_init(&s->calls_lock, NULL);
    if (getrandom(&s->id_base, sizeof s->id_base, 0) != (ssize_t)sizeof s->id_base)
        s->id_base = (uint64_t)s->started;
    if (start(s, e) == 0)
        return s;
    ns_server_free(s);
    return NULL;
}

int ns_server_port(const ns_server *s)
{
    return ns_http_port(s->http);
}

void ns_server_drain(ns_server *s)
{
    atomic_store(&s->draining, true);
    ns_http_quiesce(s->http);
    ns_sched_stop(s->sched, false);
}

int ns_server_busy(ns_server *s)
{
    ns_sched_stats a = ns_sched_about(s->sched);
    return a.running + a.waiting;
}

/* Replies that were just finished have a second to go out. */
static void flush(ns_server *s)
{
    for (double end = ns_now() + 1.0; ns_http_about(s->http).answering > 0 && ns_now() < end;)
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

void ns_server_free(ns_server *s)
{
    if (!s)
        return;
    atomic_store(&s->draining, true);
    if (s->looping) {
        ns_sched_stop(s->sched, true);
        pthread_join(s->loop, NULL);
    }
    if (s->http) {
        flush(s);
        ns_http_stop(s->http);
    }
    ns_http_free(s->http);
    ns_sched_free(s->sched);
    ns_grammar_vocab_free(s->vocab);
    free(s->decode_rate);
    pthread_mutex_destroy(&s->log_lock);
    pthread_mutex_destroy(&s->calls_lock);
    free(s);
}
