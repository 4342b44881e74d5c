/* Tokens with their log-probabilities, each with the piece of text that has its first character. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/api_reply_impl.h"
#include "text/utf8.h"

/* JSON knows no infinity; -9999 is what the format has for "very unlikely". */
static double within_json(double logprob)
{
    return isfinite(logprob) ? logprob : -9999.0;
}

static json_t *lossy(const char *p, size_t n)
{
    ns_detok d;
    ns_buf text = { 0 };
    ns_detok_init(&d);
    ns_detok_push_bytes(&d, p, n, &text);
    ns_detok_finish(&d, &text);
    json_t *j = text.failed ? NULL : ns_api_text(text.data, text.len);
    ns_buf_release(&text);
    return j;
}

static json_t *bytes_of(const char *p, size_t n)
{
    json_t *j = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(j, json_integer((unsigned char)p[i]));
    return j;
}

static json_t *entry(const char *p, size_t n, double logprob)
{
    return json_pack("{s:o, s:f, s:o}", "token", lossy(p, n), "logprob", within_json(logprob), "bytes", bytes_of(p, n));
}

static json_t *entry_of(const ns_api_token *t, int n_top)
{
    json_t *j = entry(t->bytes, t->n, t->logprob), *top = json_array();
    for (int i = 0; i < t->n_top && i < n_top; i++)
        json_array_append_new(top, entry(t->top[i].bytes, t->top[i].n, t->top[i].logprob));
    if (json_object_set_new(j, "top_logprobs", top) == 0)
        return j;
    json_decref(j);
    return NULL;
}

int ns_api_logprobs_push(ns_api_choice *c, const ns_api_token *t)
{
    if (c->n_pending == c->cap_pending) {
        size_t cap = c->cap_pending ? 2 * c->cap_pending : 16;
        ns_pending *p = realloc(c->pending, cap * sizeof *p);
        if (!p)
            return -1;
        c->pending = p;
        c->cap_pending = cap;
    }
    json_t *j = entry_of(t, c->reply->q->top_logprobs);
    if (!j)
        return -1;
    c->pending[c->n_pending++] = (ns_pending){ .from = c->text.len, .to = SIZE_MAX, .entry = j };
    return 0;
}

/* A token that only begins or continues a character counts as having that character. */
void ns_api_logprobs_close(ns_api_choice *c)
{
    ns_pending *p = c->n_pending ? &c->pending[c->n_pending - 1] : NULL;
    if (p && p->to == SIZE_MAX)
        p->to = c->text.len > p->from ? c->text.len : p->from + 1;
}

static size_t chars(const char *p, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        k += ((unsigned char)p[i] & 0xc0) != 0x80;
    return k;
}

json_t *ns_api_logprobs_take(ns_api_choice *c, const ns_piece *p)
{
    json_t *out = json_array();
    size_t k = 0, seen = 0, offset = c->chars; /* the offset of text[seen] */
    for (; k < c->n_pending && c->pending[k].from < p->at + p->n; k++) {
        ns_pending *t = &c->pending[k];
        size_t begin = t->from > p->at ? t->from - p->at : 0;
        offset += chars(p->text + seen, begin - seen);
        seen = begin;
        if (t->to > p->at) { /* else its text was left out */
            json_object_set_new(t->entry, "offset", json_integer((json_int_t)offset));
            json_array_append(out, t->entry);
        }
        json_decref(t->entry);
    }
    for (size_t i = k; i < c->n_pending; i++)
        c->pending[i - k] = c->pending[i];
    c->n_pending -= k;
    c->chars = offset + chars(p->text + seen, p->n - seen);
    return out;
}

/* The first that has its text counts. A text with NUL has no place here: parsers refuse it as a key. */
static void add_by_text(json_t *map, const json_t *e)
{
    const json_t *token = json_object_get(e, "token");
    const char *text = json_string_value(token);
    size_t n = json_string_length(token);
    if (text && !memchr(text, 0, n) && !json_object_getn(map, text, n))
        json_object_setn(map, text, n, json_object_get(e, "logprob"));
}

/* Alternatives by their text, the likeliest of those that look alike; the token itself is among them. */
static json_t *by_text(const json_t *e)
{
    json_t *map = json_object(), *a;
    size_t i;
    json_array_foreach(json_object_get(e, "top_logprobs"), i, a)
        add_by_text(map, a);
    add_by_text(map, e);
    return map;
}

json_t *ns_api_logprobs_columns(const json_t *entries)
{
    json_t *tokens = json_array(), *logprobs = json_array(), *top = json_array(), *offsets = json_array(), *e;
    size_t i;
    json_array_foreach(entries, i, e) {
        json_array_append(tokens, json_object_get(e, "token"));
        json_array_append(logprobs, json_object_get(e, "logprob"));
        json_array_append(offsets, json_object_get(e, "offset"));
        json_array_append_new(top, by_text(e));
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", logprobs, "top_logprobs", top, "text_offset", offsets);
}
