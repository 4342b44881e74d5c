/* chat.completion and chat.completion.chunk */
#include "serve/api_reply_impl.h"

static json_t *head(const ns_api_reply *r, const char *object)
{
    return json_pack("{s:s, s:s, s:I, s:s}", "id", r->id, "object", object, "created", (json_int_t)r->created, "model", r->model);
}

/* Takes delta and logprobs (NULL: null); `size`: says which size the text is from. */
static void send_chunk(ns_api_reply *r, const ns_api_choice *c, json_t *delta, json_t *logprobs, bool size)
{
    json_t *j = head(r, "chat.completion.chunk");
    json_t *choice = json_pack("{s:i, s:o, s:o, s:s?}", "index", c->index, "delta", delta, "logprobs", logprobs ? logprobs : json_null(),
                               "finish_reason", c->finish);
    json_object_set_new(j, "choices", json_pack("[o]", choice));
    if (r->q->include_usage)
        json_object_set_new(j, "usage", json_null());
    if (size)
        json_object_set_new(j, "nestar", ns_api_size(c));
    else if (c->finish && r->n_open == 0 && !r->q->include_usage)
        json_object_set_new(j, "nestar", ns_api_nestar(r));
    ns_api_send(r, NULL, j);
}

static void begin(ns_api_reply *r)
{
    for (int i = 0; i < r->n; i++)
        send_chunk(r, &r->choice[i], json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL, false);
}

static json_t *call_of(const ns_api_reply *r, const ns_api_choice *c, const ns_piece *p)
{
    return json_pack("{s:o, s:s, s:{s:s, s:o}}", "id", ns_api_call_id(r, c, c->text.n_calls), "type", "function", "function", "name", p->name,
                     "arguments", ns_api_text(p->text, p->n));
}

/* {"content": entries}; takes them. */
static json_t *logprobs_of(json_t *entries)
{
    json_t *e;
    size_t i;
    json_array_foreach(entries, i, e)
        json_object_del(e, "offset");
    return json_pack("{s:o, s:n}", "content", entries, "refusal");
}

static void stream_piece(ns_api_reply *r, ns_api_choice *c, const ns_piece *p)
{
    json_t *call, *logprobs = NULL, *delta;
    if (p->kind == NS_PIECE_CALL) {
        call = call_of(r, c, p);
        json_object_set_new(call, "index", json_integer((json_int_t)c->text.n_calls));
        delta = json_pack("{s:[o]}", "tool_calls", call);
    } else
        delta = json_pack("{s:o}", p->kind == NS_PIECE_THOUGHT ? "reasoning_content" : "content", ns_api_text(p->text, p->n));
    if (p->kind == NS_PIECE_CONTENT && r->q->logprobs)
        logprobs = logprobs_of(ns_api_logprobs_take(c, p));
    send_chunk(r, c, delta, logprobs, true);
}

static void piece(ns_api_reply *r, ns_api_choice *c, const ns_piece *p)
{
    if (r->q->stream) {
        stream_piece(r, c, p);
        return;
    }
    if (p->kind == NS_PIECE_CALL)
        json_array_append_new(c->calls, call_of(r, c, p));
    else
        ns_buf_add(p->kind == NS_PIECE_THOUGHT ? &c->thought : &c->content, p->text, p->n);
    if (p->kind == NS_PIECE_CONTENT && r->q->logprobs) {
        json_t *entries = ns_api_logprobs_take(c, p);
        json_array_extend(c->logprobs, entries);
        json_decref(entries);
    }
}

static json_t *message_of(const ns_api_choice *c)
{
    bool calls = json_array_size(c->calls) > 0;
    json_t *m = json_pack("{s:s, s:o, s:n}", "role", "assistant", "content",
                          ns_api_or_null(ns_api_text(c->content.data, c->content.len), c->content.len > 0 || !calls), "refusal");
    if (c->thought.len > 0)
        json_object_set_new(m, "reasoning_content", ns_api_text(c->thought.data, c->thought.len));
    if (calls)
        json_object_set(m, "tool_calls", c->calls);
    return m;
}

static void send_whole(ns_api_reply *r)
{
    json_t *j = head(r, "chat.completion"), *choices = json_array();
    for (int i = 0; i < r->n; i++) {
        ns_api_choice *c = &r->choice[i];
        json_array_append_new(choices, json_pack("{s:i, s:o, s:o, s:s}", "index", i, "message", message_of(c), "logprobs",
                                                 ns_api_or_null(logprobs_of(json_incref(c->logprobs)), r->q->logprobs), "finish_reason", c->finish));
    }
    json_object_set_new(j, "choices", choices);
    json_object_set_new(j, "usage", ns_api_usage(r));
    json_object_set_new(j, "nestar", ns_api_nestar(r));
    ns_api_send(r, NULL, j);
}

static void end(ns_api_reply *r, ns_api_choice *c)
{
    if (r->q->stream)
        send_chunk(r, c, json_object(), NULL, false);
    if (r->n_open > 0)
        return;
    if (!r->q->stream) {
        send_whole(r);
        return;
    }
    if (r->q->include_usage) {
        json_t *j = head(r, "chat.completion.chunk");
        json_object_set_new(j, "choices", json_array());
        json_object_set_new(j, "usage", ns_api_usage(r));
        json_object_set_new(j, "nestar", ns_api_nestar(r));
        ns_api_send(r, NULL, j);
    }
    ns_api_send_done(r);
}

const ns_api_form ns_api_form_chat = { .begin = begin, .piece = piece, .end = end, .error = ns_api_send_error };
