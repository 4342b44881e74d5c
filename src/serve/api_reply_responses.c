/* response objects and their events. The output is a row of items: reasoning, message, function_call. */
#include <math.h>

#include "serve/api_reply_impl.h"

/* ---- the response itself ---- */

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

/* Functions as responses name them: {"type", "name", "parameters", ..} without the inner object. */
static json_t *tools_of(const ns_api_request *q)
{
    json_t *out = json_array(), *t;
    size_t i;
    json_array_foreach(q->tools, i, t) {
        const json_t *f = json_object_get(t, "function") ? json_object_get(t, "function") : t;
        json_t *tool = json_pack("{s:s, s:O, s:n, s:n}", "type", "function", "name", json_object_get(f, "name"), "parameters", "strict");
        static const char *const keys[] = { "description", "parameters", "strict" };
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            if (json_object_get(f, keys[k]))
                json_object_set(tool, keys[k], json_object_get(f, keys[k]));
        json_array_append_new(out, tool);
    }
    return out;
}

/* What the client wrote and what only comes back; where it wrote nothing, `or` (taken). */
static json_t *echo(const json_t *body, const char *key, json_t *or)
{
    json_t *v = json_object_get(body, key);
    if (!v || json_is_null(v))
        return or;
    json_decref(or);
    return json_incref(v);
}

/* `output` is borrowed. */
static json_t *response(const ns_api_reply *r, const char *status, json_t *output)
{
    const ns_api_request *q = r->q;
    json_t *j = json_pack("{s:s, s:s, s:I, s:s, s:n, s:n, s:s, s:O}", "id", r->id, "object", "response", "created_at", (json_int_t)r->created, "status",
                          status, "error", "incomplete_details", "model", r->model, "output", output);
    json_t *format = echo(json_object_get(q->all, "text"), "format", json_pack("{s:s}", "type", "text"));
    json_t *asked = json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:o, s:o, s:n, s:{s:o}, s:s}",
                              "instructions", echo(q->all, "instructions", json_null()), "metadata", echo(q->all, "metadata", json_null()),
                              "reasoning", echo(q->all, "reasoning", json_null()), "tools", tools_of(q),
                              "tool_choice", echo(q->all, "tool_choice", json_string("auto")), "parallel_tool_calls", q->parallel_calls,
                              "temperature", number(q->temperature), "top_p", number(q->top_p),
                              "max_output_tokens", ns_api_or_null(json_integer(q->max_tokens), q->max_tokens > 0), "previous_response_id",
                              "text", "format", format, "truncation", "disabled");
    json_object_update(j, asked);
    json_decref(asked);
    return j;
}

static json_t *usage_of(const ns_api_reply *r)
{
    const ns_api_end *s = &r->sum.end;
    json_int_t prompt = (json_int_t)s->prompt_tokens, made = (json_int_t)(s->thought_tokens + s->answer_tokens);
    return json_pack("{s:I, s:{s:I, s:i}, s:I, s:{s:I}, s:I}", "input_tokens", prompt, "input_tokens_details", "cached_tokens",
                     (json_int_t)s->cached_tokens, "cache_write_tokens", 0, "output_tokens", made, "output_tokens_details", "reasoning_tokens",
                     (json_int_t)s->thought_tokens, "total_tokens", prompt + made);
}

/* ---- events ---- */

/* Takes the body; nothing where the reply is not streamed. */
static void event(ns_api_reply *r, const char *type, json_t *body)
{
    if (r->q->stream) {
        json_object_set_new(body, "type", json_string(type));
        json_object_set_new(body, "sequence_number", json_integer(r->items.sequence++));
        ns_api_send(r, type, body);
    } else
        json_decref(body);
}

static void begin(ns_api_reply *r)
{
    event(r, "response.created", json_pack("{s:o}", "response", response(r, "in_progress", r->items.done)));
    event(r, "response.in_progress", json_pack("{s:o}", "response", response(r, "in_progress", r->items.done)));
}

/* ---- items ---- */

static const char *const prefix[] = { [NS_PIECE_THOUGHT] = "rs", [NS_PIECE_CONTENT] = "msg", [NS_PIECE_CALL] = "fc" };

static json_t *item_id(const ns_api_reply *r)
{
    return json_sprintf("%s_%s_%zu", prefix[r->items.kind], ns_api_id_tail(r), r->items.n);
}

/* {"item_id", "output_index"}, and of a part of its text "content_index" */
static json_t *place(const ns_api_reply *r)
{
    json_t *j = json_pack("{s:o, s:I}", "item_id", item_id(r), "output_index", (json_int_t)r->items.n);
    if (r->items.kind != NS_PIECE_CALL)
        json_object_set_new(j, "content_index", json_integer(0));
    return j;
}

static json_t *place_with(const ns_api_reply *r, const char *key, json_t *v)
{
    json_t *j = place(r);
    json_object_set_new(j, key, v);
    return j;
}

/* The text of the open item, all of it or (at its beginning) none. */
static json_t *part(const ns_api_reply *r, const ns_api_choice *c, bool full)
{
    json_t *text = ns_api_text(c->content.data, full ? c->content.len : 0);
    if (r->items.kind == NS_PIECE_THOUGHT)
        return json_pack("{s:s, s:o}", "type", "reasoning_text", "text", text);
    return json_pack("{s:s, s:o, s:[], s:o}", "type", "output_text", "text", text, "annotations", "logprobs",
                     full ? json_copy(c->logprobs) : json_array());
}

static json_t *item(const ns_api_reply *r, const ns_api_choice *c, const char *status, bool full)
{
    json_t *content = full ? json_pack("[o]", part(r, c, true)) : json_array();
    if (r->items.kind == NS_PIECE_THOUGHT)
        return json_pack("{s:o, s:s, s:[], s:o, s:s}", "id", item_id(r), "type", "reasoning", "summary", "content", content, "status", status);
    return json_pack("{s:o, s:s, s:s, s:s, s:o}", "id", item_id(r), "type", "message", "status", status, "role", "assistant", "content", content);
}

static json_t *added(const ns_api_reply *r, json_t *item_)
{
    return json_pack("{s:I, s:o}", "output_index", (json_int_t)r->items.n, "item", item_);
}

static void open_item(ns_api_reply *r, ns_api_choice *c, enum ns_piece_kind kind)
{
    r->items.kind = (int)kind;
    ns_buf_clear(&c->content);
    json_array_clear(c->logprobs);
    event(r, "response.output_item.added", added(r, item(r, c, "in_progress", false)));
    event(r, "response.content_part.added", place_with(r, "part", part(r, c, false)));
}

static void close_item(ns_api_reply *r, ns_api_choice *c, const char *status)
{
    if (r->items.kind < 0)
        return;
    bool thought = r->items.kind == NS_PIECE_THOUGHT;
    json_t *text = place_with(r, "text", ns_api_text(c->content.data, c->content.len)), *whole = item(r, c, status, true);
    if (!thought)
        json_object_set_new(text, "logprobs", json_copy(c->logprobs));
    event(r, thought ? "response.reasoning_text.done" : "response.output_text.done", text);
    event(r, "response.content_part.done", place_with(r, "part", part(r, c, true)));
    event(r, "response.output_item.done", added(r, json_incref(whole)));
    json_array_append_new(r->items.done, whole);
    r->items.kind = -1;
    r->items.n++;
}

static json_t *call_of(ns_api_reply *r, const ns_api_choice *c, const ns_piece *p, bool full)
{
    return json_pack("{s:o, s:s, s:o, s:s, s:o, s:s}", "id", item_id(r), "type", "function_call", "call_id", ns_api_call_id(r, c, c->text.n_calls),
                     "name", p->name, "arguments", ns_api_text(p->text, full ? p->n : 0), "status", full ? "completed" : "in_progress");
}

static void take_call(ns_api_reply *r, ns_api_choice *c, const ns_piece *p)
{
    close_item(r, c, "completed");
    r->items.kind = NS_PIECE_CALL;
    json_t *whole = call_of(r, c, p, true), *last = place_with(r, "arguments", ns_api_text(p->text, p->n)),
           *delta = place_with(r, "delta", ns_api_text(p->text, p->n));
    event(r, "response.output_item.added", added(r, call_of(r, c, p, false)));
    json_object_set_new(delta, "nestar", ns_api_size(c));
    event(r, "response.function_call_arguments.delta", delta);
    json_object_set_new(last, "name", json_string(p->name));
    event(r, "response.function_call_arguments.done", last);
    event(r, "response.output_item.done", added(r, json_incref(whole)));
    json_array_append_new(r->items.done, whole);
    r->items.kind = -1;
    r->items.n++;
}

static json_t *take_logprobs(ns_api_reply *r, ns_api_choice *c, const ns_piece *p)
{
    json_t *entries = r->q->logprobs ? ns_api_logprobs_take(c, p) : json_array(), *e;
    size_t i;
    json_array_foreach(entries, i, e)
        json_object_del(e, "offset");
    json_array_extend(c->logprobs, entries);
    return entries;
}

static void piece(ns_api_reply *r, ns_api_choice *c, const ns_piece *p)
{
    if (p->kind == NS_PIECE_CALL) {
        take_call(r, c, p);
        return;
    }
    if (r->items.kind != (int)p->kind) {
        close_item(r, c, "completed");
        open_item(r, c, p->kind);
    }
    ns_buf_add(&c->content, p->text, p->n);
    json_t *delta = place_with(r, "delta", ns_api_text(p->text, p->n));
    if (p->kind == NS_PIECE_CONTENT)
        json_object_set_new(delta, "logprobs", take_logprobs(r, c, p));
    json_object_set_new(delta, "nestar", ns_api_size(c));
    event(r, p->kind == NS_PIECE_THOUGHT ? "response.reasoning_text.delta" : "response.output_text.delta", delta);
}

/* ---- the end ---- */

static void end(ns_api_reply *r, ns_api_choice *c)
{
    bool cut = c->finish[0] == 'l'; /* "length" */
    const char *status = cut ? "incomplete" : "completed";
    close_item(r, c, status);
    json_t *j = response(r, status, r->items.done);
    json_object_set_new(j, "usage", usage_of(r));
    json_object_set_new(j, "nestar", ns_api_nestar(r));
    if (cut)
        json_object_set_new(j, "incomplete_details", json_pack("{s:s}", "reason", "max_output_tokens"));
    else
        json_object_set_new(j, "completed_at", json_integer((json_int_t)((double)r->created + r->sum.end.total)));
    if (r->q->stream)
        event(r, cut ? "response.incomplete" : "response.completed", json_pack("{s:o}", "response", j));
    else
        ns_api_send(r, NULL, j);
}

static void error(ns_api_reply *r, const ns_api_error *e)
{
    const char *code = e->status == 429 ? "rate_limit_exceeded" : e->status >= 500 ? "server_error" : "invalid_prompt";
    json_t *j = response(r, "failed", r->items.done);
    event(r, "error", json_pack("{s:s, s:s, s:s?}", "code", e->code ? e->code : code, "message", e->message, "param", e->param[0] ? e->param : NULL));
    json_object_set_new(j, "error", json_pack("{s:s, s:s}", "code", code, "message", e->message));
    event(r, "response.failed", json_pack("{s:o}", "response", j));
}

const ns_api_form ns_api_form_responses = { .begin = begin, .piece = piece, .end = end, .error = error };
