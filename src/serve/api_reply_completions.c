/* text_completion, whole and in a stream: the same object */
#include "serve/api_reply_impl.h"

static json_t *object_of(const ns_api_reply *r, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", r->id, "object", "text_completion", "created", (json_int_t)r->created, "model", r->model,
                     "choices", choices);
}

/* Takes the entries. */
static json_t *choice_of(const ns_api_reply *r, const ns_api_choice *c, const char *text, size_t n, json_t *entries)
{
    json_t *logprobs = r->q->logprobs && entries ? ns_api_logprobs_columns(entries) : json_null();
    json_decref(entries);
    return json_pack("{s:i, s:o, s:o, s:s?}", "index", c->index, "text", ns_api_text(text, n), "logprobs", logprobs, "finish_reason", c->finish);
}

static void send_whole(ns_api_reply *r, json_t *choices)
{
    json_t *j = object_of(r, choices);
    json_object_set_new(j, "usage", ns_api_usage(r));
    json_object_set_new(j, "nestar", ns_api_nestar(r));
    ns_api_send(r, NULL, j);
}

static void begin(ns_api_reply *r)
{
    (void)r; /* there is nothing before the first text */
}

/* Takes the choice; size as in ns_api_choice. */
static void send_chunk(ns_api_reply *r, const ns_api_choice *c, json_t *choice, bool size)
{
    json_t *j = object_of(r, json_pack("[o]", choice));
    if (r->q->include_usage)
        json_object_set_new(j, "usage", json_null());
    if (size)
        json_object_set_new(j, "nestar", ns_api_size(c));
    else if (r->n_open == 0 && !r->q->include_usage)
        json_object_set_new(j, "nestar", ns_api_nestar(r));
    ns_api_send(r, NULL, j);
}

static void piece(ns_api_reply *r, ns_api_choice *c, const ns_piece *p)
{
    json_t *entries = r->q->logprobs ? ns_api_logprobs_take(c, p) : NULL;
    if (r->q->stream) {
        send_chunk(r, c, choice_of(r, c, p->text, p->n, entries), true);
        return;
    }
    ns_buf_add(&c->content, p->text, p->n);
    if (entries)
        json_array_extend(c->logprobs, entries);
    json_decref(entries);
}

static void end(ns_api_reply *r, ns_api_choice *c)
{
    if (r->q->stream)
        send_chunk(r, c, choice_of(r, c, NULL, 0, NULL), false);
    if (r->n_open > 0)
        return;
    if (r->q->stream) {
        if (r->q->include_usage)
            send_whole(r, json_array());
        ns_api_send_done(r);
        return;
    }
    json_t *choices = json_array();
    for (int i = 0; i < r->n; i++) {
        ns_api_choice *k = &r->choice[i];
        json_array_append_new(choices, choice_of(r, k, k->content.data, k->content.len, json_incref(k->logprobs)));
    }
    send_whole(r, choices);
}

const ns_api_form ns_api_form_completions = { .begin = begin, .piece = piece, .end = end, .error = ns_api_send_error };
