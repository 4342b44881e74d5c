/* What the server says about itself: models, metrics, the page's figures, tokens of a text. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "serve/server_impl.h"

static void write_json(json_t *j, ns_buf *out)
{
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (text)
        ns_buf_adds(out, text);
    else
        out->failed = true;
    free(text);
    json_decref(j);
}

/* ---- models ---- */

static json_t *size_json(const ns_server *s, int i)
{
    ns_size_info z;
    ns_err e = { 0 };
    if (ns_engine_size(s->en, i, &z, &e) != 0)
        return NULL;
    return json_pack("{s:s, s:b, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "name", z.name, "assumed", z.assumed, "budget", z.budget, "params_total",
                     (json_int_t)z.params_total, "params_active", (json_int_t)z.params_active, "weight_bytes", (json_int_t)z.weight_bytes,
                     "active_bytes", (json_int_t)z.active_bytes, "state_bytes", (json_int_t)z.state_bytes, "kv_bytes_per_token",
                     (json_int_t)z.kv_bytes_per_token, "decode_rate", s->decode_rate[i]);
}

static json_t *model_json(const ns_server *s, const char *name, int size)
{
    json_t *m = json_pack("{s:s, s:s, s:I, s:s, s:i}", "id", name, "object", "model", "created", (json_int_t)s->started, "owned_by", "nestar",
                          "max_model_len", s->o.sched.context);
    if (size >= 0)
        json_object_set_new(m, "nestar", size_json(s, size));
    return m;
}

void ns_status_models(const ns_server *s, ns_buf *out)
{
    json_t *data = json_array();
    for (int i = 0; i < ns_engine_n_sizes(s->en); i++)
        json_array_append_new(data, model_json(s, s->en->ckpt->variants.v[i].name, i));
    json_array_append_new(data, model_json(s, "auto", -1));
    json_array_append_new(data, model_json(s, s->o.model, -1));
    write_json(json_pack("{s:s, s:o}", "object", "list", "data", data), out);
}

int ns_status_model(const ns_server *s, const char *name, ns_buf *out, ns_api_error *e)
{
    int i = ns_server_named(s, name);
    if (i < 0 && strcmp(name, "auto") != 0 && strcmp(name, s->o.model) != 0)
        return ns_api_fail(e, 404, "model_not_found", "model", "no size \"%.100s\" here: GET /v1/models lists them", name);
    write_json(model_json(s, name, i), out);
    return 0;
}

/* ---- figures ---- */

/* Resident memory of this process, the touched pages of the checkpoint's files included; 0 where the system does not say. */
static int64_t resident(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*d %ld", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

/* Prometheus text: https://prometheus.io/docs/instrumenting/exposition_formats/ */
static void metric(ns_buf *out, const char *name, const char *type, const char *help, double value)
{
    ns_buf_addf(out, "# HELP nestar_%s %s\n# TYPE nestar_%s %s\nnestar_%s %.17g\n", name, help, name, type, name, value);
}

void ns_status_metrics(ns_server *s, ns_buf *out)
{
    ns_sched_stats a = ns_sched_about(s->sched);
    ns_http_stats h = ns_http_about(s->http);
    metric(out, "requests_running", "gauge", "Requests being computed.", a.running);
    metric(out, "requests_waiting", "gauge", "Requests in the queue.", a.waiting);
    metric(out, "requests_total", "counter", "Requests that the scheduler took.", (double)a.requests);
    metric(out, "requests_finished_total", "counter", "Requests that came to their end.", (double)a.finished);
    metric(out, "requests_cancelled_total", "counter", "Requests whose client left, or that were stopped.", (double)a.cancelled);
    metric(out, "requests_refused_total", "counter", "Requests for which there was no room in the queue.", (double)a.refused);
    metric(out, "requests_failed_total", "counter", "Requests that ended with an error.", (double)a.failed);
    metric(out, "steps_total", "counter", "Forward passes.", (double)a.steps);
    metric(out, "prompt_tokens_total", "counter", "Tokens of prompts that were read.", (double)a.prompt_tokens);
    metric(out, "cached_tokens_total", "counter", "Tokens of prompts that a kept prefix spared.", (double)a.cached_tokens);
    metric(out, "tokens_total", "counter", "Tokens made.", (double)a.tokens);
    metric(out, "prefill_tokens_per_second", "gauge", "Of late, all requests together.", a.prefill_rate);
    metric(out, "decode_tokens_per_second", "gauge", "Of late, all requests together.", a.decode_rate);
    metric(out, "first_token_seconds", "gauge", "Of late, from request to first token.", a.first_token);
    metric(out, "sequence_tokens_per_second", "gauge", "Of late, of one request.", a.token_rate);
    metric(out, "state_bytes", "gauge", "Caches of running requests.", (double)a.state_bytes);
    metric(out, "state_budget_bytes", "gauge", "What they may take.", (double)a.state_budget);
    metric(out, "prefix_bytes", "gauge", "Prefixes kept between requests.", (double)a.prefix_bytes);
    metric(out, "prefix_budget_bytes", "gauge", "What they may take.", (double)a.prefix_budget);
    metric(out, "resident_bytes", "gauge", "Resident memory of the process.", (double)resident());
    metric(out, "connections", "gauge", "Open connections.", h.connections);
    metric(out, "http_requests_total", "counter", "HTTP requests.", (double)h.requests);
    metric(out, "http_refused_total", "counter", "HTTP requests refused before anybody looked at them.", (double)h.refused);
    ns_buf_adds(out, "# HELP nestar_auto The sizes that auto stands for now.\n# TYPE nestar_auto gauge\n");
    ns_buf_addf(out, "nestar_auto{think=\"%s\",answer=\"%s\"} 1\n", a.auto_think, a.auto_answer);
}

void ns_status_page(ns_server *s, ns_buf *out)
{
    ns_sched_stats a = ns_sched_about(s->sched);
    json_t *sizes = json_array();
    for (int i = 0; i < ns_engine_n_sizes(s->en); i++)
        json_array_append_new(sizes, size_json(s, i));
    bool thinking = s->en->tokenizer && ns_tokenizer_find(s->en->tokenizer, "</think>", strlen("</think>")) >= 0;
    json_t *j = json_pack("{s:s, s:s, s:i, s:i, s:o, s:{s:s, s:s}, s:i, s:i, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:b, s:b}", "model", s->o.model,
                          "version", ns_version(), "context", s->o.sched.context, "parallel", s->o.sched.parallel, "sizes", sizes, "auto", "think",
                          a.auto_think, "answer", a.auto_answer, "running", a.running, "waiting", a.waiting, "decode_rate", a.decode_rate,
                          "prefill_rate", a.prefill_rate, "state_bytes", (json_int_t)a.state_bytes, "state_budget", (json_int_t)a.state_budget,
                          "prefix_bytes", (json_int_t)a.prefix_bytes, "prefix_budget", (json_int_t)a.prefix_budget, "rss_bytes",
                          (json_int_t)resident(), "thinking", thinking, "draining", atomic_load(&s->draining));
    write_json(j, out);
}

/* ---- tokens ---- */

static int ids_of(const ns_server *s, const json_t *j, ns_ids *out, ns_err *e)
{
    const json_t *text = json_object_get(j, "prompt");
    text = text ? text : json_object_get(j, "text");
    if (json_is_array(json_object_get(j, "messages"))) {
        ns_prompt p;
        if (ns_server_render(s, j, &p, e) != 0)
            return -1;
        int rc = ns_engine_prompt_ids(s->en, &p, out, e);
        ns_prompt_release(&p);
        return rc;
    }
    if (!json_is_string(text))
        return ns_fail(e, NS_EINVAL, "expected {\"prompt\": \"..\"} or {\"messages\": [..]}");
    if (!s->en->tokenizer)
        return ns_fail(e, NS_EINVAL, "this checkpoint has no tokenizer");
    return ns_tokenizer_encode(s->en->tokenizer, json_string_value(text), json_string_length(text),
                               json_is_true(json_object_get(j, "parse_special")), out, e);
}

int ns_status_tokenize(const ns_server *s, const char *body, size_t n, ns_buf *out, ns_api_error *e)
{
    ns_err why = { 0 };
    ns_ids ids = { 0 };
    json_t *j = ns_json_parse(body, n, false, "request", &why), *tokens = json_array();
    int rc = j && json_is_object(j) ? ids_of(s, j, &ids, &why) : -1;
    if (rc != 0)
        ns_api_fail(e, 400, NULL, NULL, "%s", why.msg[0] ? why.msg : "expected a JSON object");
    for (size_t i = 0; rc == 0 && i < ids.len; i++)
        json_array_append_new(tokens, json_integer(ids.data[i]));
    if (rc == 0)
        write_json(json_pack("{s:O, s:I, s:i}", "tokens", tokens, "count", (json_int_t)ids.len, "max_model_len", s->o.sched.context), out);
    json_decref(tokens);
    json_decref(j);
    ns_ids_release(&ids);
    return rc;
}
