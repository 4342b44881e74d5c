/* Conversations to documents.
 *
 * What the model is to write at an assistant turn is what the text of the conversation up to that turn has beyond the prompt for it
 * (the conversation before, with the generation prompt). Templates may write a turn differently once it is history (reasoning is
 * dropped); then the conversation with all turns does not begin with the shorter one, and each turn becomes a document of its own,
 * written as the model will see it. Prefixes are compared as tokens: that is what the model gets. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "train/data_impl.h"

static int encode_prompt(const ns_chat_reader *chat, const ns_prompt *p, ns_ids *out, ns_err *e)
{
    ns_text_span *spans = malloc((p->n_spans ? p->n_spans : 1) * sizeof *spans);
    if (!spans)
        return ns_fail(e, NS_ENOMEM, "conversation: out of memory");
    for (size_t i = 0; i < p->n_spans; i++)
        spans[i] = (ns_text_span){ p->text.data + p->spans[i].offset, p->spans[i].len, p->spans[i].trusted };
    int rc = ns_tokenizer_encode_spans(chat->tok, spans, p->n_spans, out, e);
    free(spans);
    return rc;
}

/* The first n messages as tokens. Whatever else the line has (tools, enable_thinking) goes to the template. */
static int render(const ns_chat_reader *chat, const json_t *line, size_t n, bool generate, ns_ids *out, ns_err *e)
{
    ns_prompt p = { 0 };
    json_t *vars = json_copy(chat->special), *messages = json_array();
    int rc = vars && messages && json_object_update(vars, (json_t *)(uintptr_t)line) == 0 ? 0 : -1; /* update only reads the line */
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = json_array_append(messages, json_array_get(json_object_get(line, "messages"), i));
    if (rc == 0)
        rc = json_object_set(vars, "messages", messages);
    if (rc == 0)
        rc = json_object_set_new(vars, "add_generation_prompt", json_boolean(generate));
    if (rc != 0)
        rc = ns_fail(e, NS_ENOMEM, "conversation: out of memory");
    else if ((rc = ns_template_render(chat->t, vars, NULL, &p, e)) == 0) {
        rc = encode_prompt(chat, &p, out, e);
        ns_prompt_release(&p);
    }
    json_decref(messages);
    json_decref(vars);
    return rc;
}

static size_t common(const ns_ids *a, const ns_ids *b)
{
    const size_t n = a->len < b->len ? a->len : b->len;
    size_t i = 0;
    while (i < n && a->data[i] == b->data[i])
        i++;
    return i;
}

typedef struct turn {
    ns_ids ids;   /* the conversation up to and with the turn */
    size_t from;  /* where what the model writes begins */
} turn;

static int read_turn(const ns_chat_reader *chat, const json_t *line, size_t i, turn *t, ns_err *e)
{
    ns_ids prompt = { 0 };
    int rc = render(chat, line, i, true, &prompt, e);
    if (rc == 0)
        rc = render(chat, line, i + 1, false, &t->ids, e);
    if (rc == 0)
        t->from = common(&prompt, &t->ids);
    ns_ids_release(&prompt);
    return rc;
}

/* Adds one document: the tokens of the last turn, with turns first..last counting. */
static int add(ns_data *d, const turn *t, size_t first, size_t last, ns_doc *doc, ns_err *e)
{
    ns_doc_clear(doc);
    ns_ids_append(&doc->ids, t[last].ids.data, t[last].ids.len);
    if (ns_doc_weigh(doc, 0, 0, e) != 0)
        return -1;
    for (size_t k = first; k <= last; k++)
        for (size_t i = t[k].from; i < t[k].ids.len; i++)
            doc->weight[i] = 1;
    return ns_data_add(d, doc, false, e);
}

static int add_turns(ns_data *d, const turn *t, size_t n, ns_doc *doc, ns_err *e)
{
    bool nested = true;
    for (size_t i = 0; i + 1 < n && nested; i++)
        nested = common(&t[i].ids, &t[n - 1].ids) == t[i].ids.len;
    if (nested)
        return add(d, t, 0, n - 1, doc, e);
    const size_t ids = d->ids.len, weights = d->n_weights;
    const int64_t pieces = d->n_pieces, docs = d->n_docs;
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = add(d, t, i, i, doc, e);
    if (rc != 0) { /* all of a line or nothing */
        d->ids.len = ids;
        d->n_weights = weights;
        d->n_pieces = pieces;
        d->n_docs = docs;
    }
    return rc;
}

int ns_data_add_chat(ns_data *d, const json_t *line, ns_chat_reader *chat, ns_doc *doc, ns_err *e)
{
    const json_t *messages = json_object_get(line, "messages"), *m;
    const size_t n = json_array_size(messages);
    size_t i, n_turns = 0;
    int rc = 0;
    if (!chat->t || !chat->tok)
        return ns_fail(e, NS_EFORMAT, "\"messages\", but there is no %s", chat->tok ? "chat template" : "tokenizer");
    turn *t = calloc(n ? n : 1, sizeof *t);
    if (!t)
        return ns_fail(e, NS_ENOMEM, "conversation: out of memory");
    json_array_foreach(messages, i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        if (rc == 0 && !role)
            rc = ns_fail(e, NS_EFORMAT, "message %zu has no \"role\"", i);
        if (rc == 0 && strcmp(role, "assistant") == 0)
            rc = read_turn(chat, line, i, &t[n_turns++], e);
    }
    if (rc == 0 && n_turns == 0)
        rc = ns_fail(e, NS_EFORMAT, "\"messages\" holds no assistant turn");
    if (rc == 0)
        rc = add_turns(d, t, n_turns, doc, e);
    for (i = 0; i < n_turns; i++)
        ns_ids_release(&t[i].ids);
    free(t);
    return rc;
}
