#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/api_reply_impl.h"

/* ---- writing ---- */

/* Enough for a temperature to come back as it was written. */
enum { DIGITS = 15 };

void ns_api_send(ns_api_reply *r, const char *event, json_t *j)
{
    char *text = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS)) : NULL;
    json_decref(j);
    if (!text) {
        r->out->failed = true;
        return;
    }
    if (r->q->stream && event)
        ns_buf_addf(r->out, "event: %s\n", event);
    ns_buf_adds(r->out, r->q->stream ? "data: " : "");
    ns_buf_adds(r->out, text);
    ns_buf_adds(r->out, r->q->stream ? "\n\n" : "");
    free(text);
}

void ns_api_send_done(ns_api_reply *r)
{
    ns_buf_adds(r->out, "data: [DONE]\n\n");
}

void ns_api_send_error(ns_api_reply *r, const ns_api_error *e)
{
    ns_buf_adds(r->out, r->q->stream ? "data: " : "");
    ns_api_error_write(e, r->out);
    if (r->q->stream) {
        ns_buf_adds(r->out, "\n\n");
        ns_api_send_done(r);
    }
}

json_t *ns_api_text(const char *p, size_t n)
{
    return json_stringn(n ? p : "", n);
}

json_t *ns_api_or_null(json_t *j, bool there)
{
    if (there)
        return j;
    json_decref(j);
    return json_null();
}

const char *ns_api_id_tail(const ns_api_reply *r)
{
    const char *tail = strpbrk(r->id, "-_");
    return tail ? tail + 1 : r->id;
}

json_t *ns_api_call_id(const ns_api_reply *r, const ns_api_choice *c, size_t i)
{
    return json_sprintf("call_%s_%d_%zu", ns_api_id_tail(r), c->index, i);
}

/* ---- figures ---- */

static int add_size(json_t *sizes, const ns_api_used *u)
{
    json_t *s;
    size_t i;
    json_array_foreach(sizes, i, s)
        if (strcmp(json_string_value(json_object_get(s, "size")), u->size) == 0) {
            json_t *n = json_object_get(s, "tokens");
            return json_integer_set(n, json_integer_value(n) + (json_int_t)u->tokens);
        }
    return json_array_append_new(sizes, json_pack("{s:s, s:I}", "size", u->size, "tokens", (json_int_t)u->tokens));
}

/* The prompt is the same for all choices: it counts once, and as cached what every choice found. */
static int add_end(ns_api_reply *r, const ns_api_end *end, bool first)
{
    ns_api_end *s = &r->sum.end;
    int rc = 0;
    const char *word = end->end ? end->end : end->finish;
    s->prompt_tokens = end->prompt_tokens;
    s->cached_tokens = first || end->cached_tokens < s->cached_tokens ? end->cached_tokens : s->cached_tokens;
    s->thought_tokens += end->thought_tokens;
    s->answer_tokens += end->answer_tokens;
    s->first_token = first || end->first_token < s->first_token ? end->first_token : s->first_token;
    s->total = end->total > s->total ? end->total : s->total;
    s->switches += end->switches;
    s->switch_seconds += end->switch_seconds;
    if (first || strcmp(r->sum.word, word) == 0)
        snprintf(r->sum.word, sizeof r->sum.word, "%s", word);
    else
        snprintf(r->sum.word, sizeof r->sum.word, "mixed");
    for (int i = 0; i < end->n_used; i++)
        rc |= add_size(r->sum.sizes, &end->used[i]);
    return rc;
}

json_t *ns_api_usage(const ns_api_reply *r)
{
    const ns_api_end *s = &r->sum.end;
    json_int_t prompt = (json_int_t)s->prompt_tokens, made = (json_int_t)(s->thought_tokens + s->answer_tokens);
    return json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:I}}", "prompt_tokens", prompt, "completion_tokens", made, "total_tokens", prompt + made,
                     "prompt_tokens_details", "cached_tokens", (json_int_t)s->cached_tokens, "completion_tokens_details", "reasoning_tokens",
                     (json_int_t)s->thought_tokens);
}

json_t *ns_api_nestar(const ns_api_reply *r)
{
    const ns_api_end *s = &r->sum.end;
    return json_pack("{s:O, s:s, s:f, s:f, s:i, s:f}", "sizes", r->sum.sizes, "end", r->sum.word, "seconds", s->total, "first_token_seconds",
                     s->first_token, "switches", s->switches, "switch_seconds", s->switch_seconds);
}

json_t *ns_api_size(const ns_api_choice *c)
{
    return json_pack("{s:s}", "size", c->size);
}

/* ---- a reply ---- */

static void take_piece(void *ctx, const ns_piece *p)
{
    ns_api_choice *c = ctx;
    c->reply->form->piece(c->reply, c, p);
}

static int choice_init(ns_api_reply *r, int i, ns_err *e)
{
    ns_api_choice *c = &r->choice[i];
    bool chat = r->q->api != NS_API_COMPLETIONS;
    const ns_answer_text_opts o = { .tools = chat && r->q->tool_choice != NS_API_TOOLS_NONE ? r->q->tools : NULL,
                                    .one_call = r->q->tool_choice == NS_API_TOOLS_NAMED || !r->q->parallel_calls,
                                    .stop = r->q->stop, .n_stops = r->q->n_stops, .ctx = c, .piece = take_piece };
    c->reply = r;
    c->index = i;
    c->calls = json_array();
    c->logprobs = json_array();
    if (!c->calls || !c->logprobs)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    return ns_answer_text_init(&c->text, &o, e);
}

ns_api_reply *ns_api_reply_new(const ns_api_reply_opts *o, ns_err *e)
{
    static const ns_api_form *const forms[] = { [NS_API_CHAT] = &ns_api_form_chat, [NS_API_COMPLETIONS] = &ns_api_form_completions,
                                                [NS_API_RESPONSES] = &ns_api_form_responses };
    const ns_api_request *q = o->request;
    ns_api_reply *r = calloc(1, sizeof *r);
    if (!r)
        goto failed;
    r->q = q;
    r->form = forms[q->api];
    r->id = strdup(o->id);
    r->model = strdup(o->model);
    r->created = o->created;
    r->sum.sizes = json_array();
    r->items = (ns_api_items){ .done = json_array(), .kind = -1 };
    r->n = q->n > 1 && q->api != NS_API_RESPONSES ? q->n : 1;
    r->choice = calloc((size_t)r->n, sizeof *r->choice);
    if (!r->id || !r->model || !r->sum.sizes || !r->items.done || !r->choice)
        goto failed;
    for (; r->n_open < r->n; r->n_open++)
        if (choice_init(r, r->n_open, e) != 0)
            goto failed;
    return r;
failed:
    ns_api_reply_free(r);
    ns_fail(e, NS_ENOMEM, "out of memory");
    return NULL;
}

static void choice_release(ns_api_choice *c)
{
    for (size_t i = 0; i < c->n_pending; i++)
        json_decref(c->pending[i].entry);
    free(c->pending);
    ns_answer_text_release(&c->text);
    ns_buf_release(&c->thought);
    ns_buf_release(&c->content);
    json_decref(c->calls);
    json_decref(c->logprobs);
}

void ns_api_reply_free(ns_api_reply *r)
{
    if (!r)
        return;
    for (int i = 0; r->choice && i < r->n; i++)
        choice_release(&r->choice[i]);
    free(r->choice);
    free(r->id);
    free(r->model);
    json_decref(r->sum.sizes);
    json_decref(r->items.done);
    free(r);
}

void ns_api_reply_begin(ns_api_reply *r, ns_buf *out)
{
    r->out = out;
    if (r->q->stream)
        r->form->begin(r);
}

bool ns_api_reply_token(ns_api_reply *r, int choice, const ns_api_token *t, ns_buf *out)
{
    ns_api_choice *c = &r->choice[choice];
    /* text that is completed is all there is to it: what the prompt left open as a thought goes on in it */
    bool thought = t->thought && r->q->api != NS_API_COMPLETIONS, on;
    r->out = out;
    if (r->over || c->finish)
        return false;
    snprintf(c->size, sizeof c->size, "%s", t->size ? t->size : "");
    if (r->q->logprobs && !thought && ns_api_logprobs_push(c, t) != 0)
        out->failed = true;
    on = ns_answer_text_add(&c->text, t->bytes, t->n, thought);
    if (r->q->logprobs && !thought)
        ns_api_logprobs_close(c);
    out->failed |= c->text.failed || c->thought.failed || c->content.failed;
    return on;
}

void ns_api_reply_end(ns_api_reply *r, int choice, const ns_api_end *end, ns_buf *out)
{
    ns_api_choice *c = &r->choice[choice];
    bool ended = c->text.over; /* by its own text: whatever else ended it came later */
    r->out = out;
    if (r->over || c->finish)
        return;
    ns_answer_text_end(&c->text);
    ended |= c->text.stopped;
    c->finish = strcmp(end->finish, "length") == 0 && !ended ? "length" : c->text.n_calls > 0 ? "tool_calls" : "stop";
    if (add_end(r, end, r->n_open == r->n) != 0)
        out->failed = true;
    r->n_open--;
    r->form->end(r, c);
    r->over = r->n_open == 0;
    out->failed |= c->text.failed || c->thought.failed || c->content.failed;
}

void ns_api_reply_error(ns_api_reply *r, const ns_api_error *e, ns_buf *out)
{
    r->out = out;
    if (r->over)
        return;
    r->over = true;
    if (r->q->stream)
        r->form->error(r, e);
    else
        ns_api_send_error(r, e);
}
