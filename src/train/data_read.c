/* Data files to documents. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "train/data_impl.h"

enum { MAX_NAMED = 10 }; /* bad lines of a file that are named one by one */

/* ---- documents ---- */

void ns_doc_clear(ns_doc *d)
{
    ns_ids_clear(&d->ids);
    d->weighted = false;
}

void ns_doc_release(ns_doc *d)
{
    ns_ids_release(&d->ids);
    free(d->weight);
    *d = (ns_doc){ 0 };
}

/* Weights for all ids; those without one get 1. */
static int doc_reserve(ns_doc *d, ns_err *e)
{
    if (d->cap < d->ids.len) {
        float *p = realloc(d->weight, d->ids.cap * sizeof *p);
        if (!p)
            return ns_fail(e, NS_ENOMEM, "document: out of memory");
        d->weight = p;
        d->cap = d->ids.cap;
    }
    return 0;
}

int ns_doc_weigh(ns_doc *d, size_t from, float weight, ns_err *e)
{
    if (d->ids.failed || doc_reserve(d, e) != 0)
        return ns_fail(e, NS_ENOMEM, "document: out of memory");
    for (size_t i = d->weighted ? from : 0; i < d->ids.len; i++)
        d->weight[i] = i < from ? 1 : weight;
    d->weighted = true;
    return 0;
}

static int add_weights(ns_data *d, const float *w, size_t n, ns_err *e)
{
    if (d->n_weights + n > d->cap_weights) {
        size_t cap = 2 * (d->cap_weights + n);
        float *p = realloc(d->weights, cap * sizeof *p);
        if (!p)
            return ns_fail(e, NS_ENOMEM, "training data: out of memory");
        d->weights = p;
        d->cap_weights = cap;
    }
    memcpy(d->weights + d->n_weights, w, n * sizeof *w);
    d->n_weights += n;
    return 0;
}

static int add_piece(ns_data *d, ns_piece p, ns_err *e)
{
    if (d->n_pieces == d->cap_pieces) {
        int64_t cap = d->cap_pieces ? 2 * d->cap_pieces : 1024;
        ns_piece *q = realloc(d->pieces, (size_t)cap * sizeof *q);
        if (!q)
            return ns_fail(e, NS_ENOMEM, "training data: out of memory");
        d->pieces = q;
        d->cap_pieces = cap;
    }
    d->pieces[d->n_pieces++] = p;
    return 0;
}

static bool counts(const ns_doc *doc, size_t from, size_t to)
{
    for (size_t i = from; i < to && doc->weighted; i++)
        if (doc->weight[i] > 0)
            return true;
    return !doc->weighted && from < to;
}

static int check_ids(const ns_data *d, const ns_doc *doc, ns_err *e)
{
    for (size_t i = 0; i < doc->ids.len; i++)
        if (doc->ids.data[i] < 0 || doc->ids.data[i] >= d->vocab_size)
            return ns_fail(e, NS_EFORMAT, "token %zu is %d, outside the vocabulary of %d", i, doc->ids.data[i], d->vocab_size);
    return counts(doc, 1, doc->ids.len) ? 0 : ns_fail(e, NS_EFORMAT, "no token counts: there is nothing to learn");
}

int ns_data_add(ns_data *d, ns_doc *doc, bool eos, ns_err *e)
{
    const size_t n = doc->ids.len;
    if (eos && d->eos_id >= 0 && n > 0 && doc->ids.data[n - 1] != d->eos_id) {
        ns_ids_add(&doc->ids, d->eos_id);
        if (doc->weighted && ns_doc_weigh(doc, n, 1, e) != 0)
            return -1;
    }
    if (doc->ids.failed)
        return ns_fail(e, NS_ENOMEM, "document: out of memory");
    if (check_ids(d, doc, e) != 0)
        return -1;
    const size_t at = d->ids.len, weights = d->n_weights, len = doc->ids.len, room = (size_t)d->max_doc;
    ns_ids_append(&d->ids, doc->ids.data, len);
    if (d->ids.failed)
        return ns_fail(e, NS_ENOMEM, "training data: out of memory");
    if (doc->weighted && add_weights(d, doc->weight, len, e) != 0)
        return -1;
    for (size_t i = 0; i + 1 < len; i += room) {
        const size_t rows = len - 1 - i < room ? len - 1 - i : room;
        const ns_piece p = { at + i, doc->weighted ? weights + i : SIZE_MAX, (int)rows, d->n_docs };
        if (counts(doc, i + 1, i + 1 + rows) && add_piece(d, p, e) != 0)
            return -1;
    }
    d->n_docs++;
    return 0;
}

/* ---- lines ---- */

typedef struct reader {
    ns_data *d;
    ns_source *s;
    ns_chat_reader *chat;
    ns_doc doc;
    ns_err *e; /* what ends the reading: memory */
} reader;

static int encode(const reader *r, const char *text, size_t n, bool special, ns_ids *out, ns_err *e)
{
    if (!r->chat->tok)
        return ns_fail(e, NS_EFORMAT, "text, but there is no tokenizer");
    return ns_tokenizer_encode(r->chat->tok, text, n, special, out, e);
}

static int add_ids(reader *r, const json_t *ids, const json_t *weights, ns_err *e)
{
    ns_doc *doc = &r->doc;
    const size_t n = json_array_size(ids);
    if (!json_is_array(ids))
        return ns_fail(e, NS_EFORMAT, "\"ids\" is not an array");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(ids, i);
        const json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id >= r->d->vocab_size)
            return ns_fail(e, NS_EFORMAT, "entry %zu of \"ids\" is not a token id below %d", i, r->d->vocab_size);
        ns_ids_add(&doc->ids, (int)id);
    }
    if (!weights || json_is_null(weights))
        return ns_data_add(r->d, doc, true, e);
    if (json_array_size(weights) != n)
        return ns_fail(e, NS_EFORMAT, "\"weights\" is not an array of %zu numbers, one for each id", n);
    if (ns_doc_weigh(doc, 0, 0, e) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(weights, i);
        const double w = json_is_number(v) ? json_number_value(v) : -1;
        if (!(w >= 0 && w <= 1e6))
            return ns_fail(e, NS_EFORMAT, "entry %zu of \"weights\" is not a number in 0..1e6", i);
        doc->weight[i] = (float)w;
    }
    return ns_data_add(r->d, doc, true, e);
}

static int add_pair(reader *r, const json_t *prompt, const json_t *completion, ns_err *e)
{
    ns_doc *doc = &r->doc;
    if (!json_is_string(prompt) || !json_is_string(completion))
        return ns_fail(e, NS_EFORMAT, "\"prompt\" and \"completion\" must both be strings");
    if (encode(r, json_string_value(prompt), json_string_length(prompt), true, &doc->ids, e) != 0)
        return -1;
    const size_t n = doc->ids.len;
    if (ns_doc_weigh(doc, 0, 0, e) != 0 ||
        encode(r, json_string_value(completion), json_string_length(completion), true, &doc->ids, e) != 0 ||
        ns_doc_weigh(doc, n, 1, e) != 0)
        return -1;
    return ns_data_add(r->d, doc, true, e);
}

static int add_text(reader *r, const char *text, size_t n, ns_err *e)
{
    return encode(r, text, n, false, &r->doc.ids, e) == 0 ? ns_data_add(r->d, &r->doc, true, e) : -1;
}

static int add_line(reader *r, const json_t *v, ns_err *e)
{
    const json_t *text = json_object_get(v, "text"), *prompt = json_object_get(v, "prompt"), *ids = json_object_get(v, "ids");
    if (!json_is_object(v))
        return ns_fail(e, NS_EFORMAT, "not a JSON object");
    if (ids)
        return add_ids(r, ids, json_object_get(v, "weights"), e);
    if (json_object_get(v, "messages"))
        return ns_data_add_chat(r->d, v, r->chat, &r->doc, e);
    if (prompt)
        return add_pair(r, prompt, json_object_get(v, "completion"), e);
    if (json_is_string(text))
        return add_text(r, json_string_value(text), json_string_length(text), e);
    return ns_fail(e, NS_EFORMAT, "none of \"text\" (a string), \"prompt\" with \"completion\", \"messages\", \"ids\"");
}

/* Counts and names what is left out; -1 only when memory is out. */
static int judge(reader *r, size_t number, int rc, const ns_err *why)
{
    ns_doc_clear(&r->doc);
    if (rc == 0)
        return 0;
    if (why->code == NS_ENOMEM)
        return ns_fail(r->e, NS_ENOMEM, "%s:%zu: %s", r->s->path, number, why->msg);
    if (r->s->bad++ < MAX_NAMED)
        ns_log("%s:%zu: left out: %s", r->s->path, number, why->msg);
    return 0;
}

static size_t line_end(const char *p, size_t n)
{
    const char *q = memchr(p, '\n', n);
    return q ? (size_t)(q - p) : n;
}

static bool blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r')
            return false;
    return true;
}

static int read_jsonl(reader *r, const char *p, size_t n)
{
    size_t number = 0;
    for (size_t i = 0, len; i < n; i += len + 1) {
        ns_err e = { 0 };
        number++;
        len = line_end(p + i, n - i);
        if (blank(p + i, len))
            continue;
        json_t *v = ns_json_parse(p + i, len, false, "JSON", &e);
        int rc = v ? add_line(r, v, &e) : -1;
        json_decref(v);
        if (judge(r, number, rc, &e) != 0)
            return -1;
    }
    return 0;
}

static int read_paragraphs(reader *r, const char *p, size_t n)
{
    size_t number = 0, first = 0, from = 0, to = 0; /* of the paragraph: its first line, its bytes */
    for (size_t i = 0, len; i <= n || to > from; i += len + 1) { /* the end counts as a blank line */
        ns_err e = { 0 };
        number++;
        len = i < n ? line_end(p + i, n - i) : 0;
        if (i < n && !blank(p + i, len)) {
            if (to == from) {
                from = i;
                first = number;
            }
            to = i + len;
        } else if (to > from) {
            int rc = add_text(r, p + from, to - from, &e);
            from = to = 0;
            if (judge(r, first, rc, &e) != 0)
                return -1;
        }
    }
    return 0;
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

int ns_data_read(ns_data *d, ns_source *s, ns_chat_reader *chat, ns_err *e)
{
    reader r = { .d = d, .s = s, .chat = chat, .e = e };
    ns_map m = { 0 };
    s->first = d->n_pieces;
    if (ns_map_open(&m, s->path, e) != 0)
        return -1;
    const char *p = m.data ? (const char *)m.data : "";
    int rc = ends_with(s->path, ".txt") ? read_paragraphs(&r, p, m.size) : read_jsonl(&r, p, m.size);
    ns_doc_release(&r.doc);
    ns_map_close(&m);
    s->n = d->n_pieces - s->first;
    if (rc == 0 && s->bad > MAX_NAMED)
        ns_log("%s: %lld bad lines left out in all", s->path, (long long)s->bad);
    if (rc == 0 && s->n == 0)
        rc = ns_fail(e, NS_EFORMAT, "%s: no document in it%s", s->path, s->bad ? ": every line was left out" : "");
    return rc;
}
