#include "run/thought.h"

#include <string.h>

static const char open_mark[] = "<think>", close_mark[] = "</think>";

int ns_thought_rule_init(ns_thought_rule *r, const ns_tokenizer *t, const char *text, int grace, ns_err *e)
{
    *r = (ns_thought_rule){ .open = -1, .close = -1, .grace = grace };
    if (!strstr(text, close_mark))
        return ns_fail(e, NS_EINVAL, "the text that closes a thought, \"%.40s\", has no %s in it", text, close_mark);
    if (!t)
        return 0;
    r->close = ns_tokenizer_find(t, close_mark, strlen(close_mark));
    if (r->close < 0)
        return 0;
    r->open = ns_tokenizer_find(t, open_mark, strlen(open_mark));
    if (ns_tokenizer_encode(t, text, strlen(text), true, &r->text, e) != 0)
        return -1;
    while (r->marker < r->text.len && r->text.data[r->marker] != r->close)
        r->marker++;
    if (r->marker < r->text.len)
        return 0;
    ns_thought_rule_release(r);
    return ns_fail(e, NS_EINVAL, "the text that closes a thought: the tokenizer does not read its %s as a mark", close_mark);
}

void ns_thought_rule_release(ns_thought_rule *r)
{
    ns_ids_release(&r->text);
}

static bool is_blank(const char *p, size_t n)
{
    while (n && strchr(" \t\r\n", p[n - 1]) && p[n - 1])
        n--;
    return n == 0;
}

static enum ns_thought_step open_thought(ns_thought *t)
{
    t->phase = NS_PHASE_THINK;
    t->may_open = false;
    return t->budget == 0 ? NS_THOUGHT_CLOSE : NS_THOUGHT_ON;
}

enum ns_thought_step ns_thought_begin(ns_thought *t, const ns_thought_rule *r, const ns_tokenizer *tok, int budget, const int *prompt, size_t n)
{
    const char *bytes;
    size_t len;
    bool blank = true; /* behind the token at hand */
    *t = (ns_thought){ .phase = NS_PHASE_ANSWER, .ends = true, .budget = budget };
    if (n && tok && ns_tokenizer_bytes(tok, prompt[n - 1], &bytes, &len) == 0)
        t->ends = len > 0 && bytes[len - 1] == '\n';
    for (; r->close >= 0 && n > 0; n--) {
        int id = prompt[n - 1];
        if (id == r->open) {
            t->ends = t->ends || blank;
            return open_thought(t);
        }
        if (id == r->close)
            break;
        blank = blank && ns_tokenizer_bytes(tok, id, &bytes, &len) == 0 && is_blank(bytes, len);
    }
    t->may_open = r->open >= 0 && (n == 0 || !blank);
    return NS_THOUGHT_ON;
}

bool ns_thought_due(const ns_thought *t, const ns_thought_rule *r, int budget)
{
    return budget == 0 || (t->n >= budget && (t->line || t->n - budget >= r->grace));
}

enum ns_thought_step ns_thought_take(ns_thought *t, const ns_thought_rule *r, int id, const char *bytes, size_t n)
{
    if (t->phase == NS_PHASE_ANSWER) {
        if (t->may_open && id == r->open) {
            t->ends = true;
            return open_thought(t);
        }
        t->may_open = t->may_open && is_blank(bytes, n);
        return NS_THOUGHT_ON;
    }
    if (id == r->close) {
        t->phase = NS_PHASE_ANSWER;
        return NS_THOUGHT_OVER;
    }
    t->n++;
    t->line = memchr(bytes, '\n', n) != NULL;
    t->ends = n > 0 && bytes[n - 1] == '\n';
    return ns_thought_due(t, r, t->budget) ? NS_THOUGHT_CLOSE : NS_THOUGHT_ON;
}

void ns_thought_close(ns_thought *t, const ns_thought_rule *r, const int **ids, size_t *n)
{
    size_t from = t->ends ? r->marker : 0;
    *ids = r->text.data + from;
    *n = r->text.len - from;
    t->phase = NS_PHASE_ANSWER;
    t->closed = true;
}
