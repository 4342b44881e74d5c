/* From rules to a grammar: memory, the order of work, and what each node needs. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "text/grammar_impl.h"

/* Room for n more of *p. */
static bool room(ns_gram_make *m, void **p, uint32_t *cap, uint32_t used, uint32_t n, size_t size, uint32_t limit)
{
    if (m->failed || n > limit - used)
        m->failed = true;
    if (m->failed || used + n <= *cap)
        return !m->failed;
    uint32_t want = *cap ? *cap : 64;
    while (want < used + n)
        want *= 2;
    void *q = realloc(*p, want * size);
    if (!q) {
        m->failed = true;
        return false;
    }
    *p = q;
    *cap = want;
    return true;
}

uint32_t ns_gram_node_add(ns_gram_make *m, enum ns_gram_kind kind, uint32_t next)
{
    ns_grammar *g = m->g;
    if (!room(m, (void **)&g->nodes, &g->cap_nodes, g->n_nodes, 1, sizeof *g->nodes, NS_GRAM_NODES))
        return 0;
    g->nodes[g->n_nodes] = (ns_gram_node){ .kind = (uint8_t)kind, .next = next };
    return g->n_nodes++;
}

void ns_gram_edge_add(ns_gram_make *m, uint32_t from, unsigned lo, unsigned hi, uint32_t to)
{
    ns_grammar *g = m->g;
    if (!room(m, (void **)&g->edges, &g->cap_edges, g->n_edges, 1, sizeof *g->edges, 4 * NS_GRAM_NODES))
        return;
    g->edges[g->n_edges] =
        (ns_gram_edge){ .lo = (unsigned char)lo, .hi = (unsigned char)hi, .to = to, .next = g->nodes[from].edges };
    g->nodes[from].edges = g->n_edges++;
}

uint32_t ns_gram_words_add(ns_gram_make *m, const uint32_t *w, uint32_t n)
{
    ns_grammar *g = m->g;
    if (!room(m, (void **)&g->words, &g->cap_words, g->n_words, n, sizeof *g->words, 4 * NS_GRAM_NODES))
        return 0;
    if (n)
        memcpy(g->words + g->n_words, w, n * sizeof *w);
    g->n_words += n;
    return g->n_words - n;
}

uint32_t ns_gram_fields_add(ns_gram_make *m, const ns_gram_fields *f)
{
    ns_grammar *g = m->g;
    if (!room(m, (void **)&g->fields, &g->cap_fields, g->n_fields, 1, sizeof *g->fields, NS_GRAM_NODES))
        return 0;
    g->fields[g->n_fields] = *f;
    return g->n_fields++;
}

static bool same_rule(const ns_gram_rule *a, const json_t *schema, enum ns_gram_mode mode, enum ns_gram_type type)
{
    return a->schema == schema && a->mode == mode && a->type == type;
}

static uint32_t add_rule(ns_gram_make *m, const ns_gram_rule *rule)
{
    if (!room(m, (void **)&m->rules, &m->cap_rules, m->n_rules, 1, sizeof *m->rules, NS_GRAM_NODES / 16))
        return 0;
    m->rules[m->n_rules] = *rule;
    return m->n_rules++;
}

uint32_t ns_gram_rule_of(ns_gram_make *m, const ns_gram_rule *from, const json_t *schema, enum ns_gram_mode mode, enum ns_gram_type type,
                         const char *sub, ...)
{
    for (uint32_t i = m->n_rules; i-- > 0;)
        if (same_rule(&m->rules[i], schema, mode, type))
            return i;
    char tail[256];
    ns_buf path = { 0 };
    va_list ap;
    va_start(ap, sub);
    vsnprintf(tail, sizeof tail, sub, ap);
    va_end(ap);
    ns_buf_addf(&path, "%s%s%s", from->path, !*tail ? "" : from->deep ? "." : ": ", tail);
    const char *kept = path.failed ? NULL : ns_arena_strdup(&m->arena, path.data);
    ns_buf_release(&path);
    m->failed |= !kept;
    ns_gram_rule r = { .schema = schema, .root = from->root, .mode = mode, .type = type, .path = kept, .deep = from->deep || *tail };
    return add_rule(m, &r);
}

uint32_t ns_gram_rule_any(ns_gram_make *m, enum ns_gram_type type)
{
    ns_gram_rule none = { .path = "any", .root = json_true() };
    return ns_gram_rule_of(m, &none, json_true(), NS_GRAM_JSON, type, "%s", "");
}

int ns_gram_make_init(ns_gram_make *m, ns_err *e)
{
    *m = (ns_gram_make){ .g = calloc(1, sizeof *m->g), .owned = json_array(), .e = e };
    if (!m->g || !m->owned)
        return ns_fail(e, NS_ENOMEM, "grammar: out of memory");
    ns_gram_node_add(m, NS_GRAM_BYTES, 0); /* the end */
    uint32_t zero = 0;
    ns_gram_words_add(m, &zero, 1);
    ns_gram_fields_add(m, &(ns_gram_fields){ 0 });
    if (room(m, (void **)&m->g->edges, &m->g->cap_edges, 0, 1, sizeof *m->g->edges, 4 * NS_GRAM_NODES))
        m->g->edges[m->g->n_edges++] = (ns_gram_edge){ 0 };
    return m->failed ? ns_fail(e, NS_ENOMEM, "grammar: out of memory") : 0;
}

/* The leaves among a rule's alternatives, through alternatives of alternatives, become edges of a SPLIT. */
static int join(ns_gram_make *m, uint32_t top, uint32_t *stack)
{
    uint32_t depth = 0, found = 0, one = 0, split = 0;
    stack[depth++] = top;
    m->rules[top].seen = top + 1;
    while (depth) {
        const ns_gram_rule *r = &m->rules[stack[--depth]];
        if (r->type != NS_GRAM_WHOLE) {
            if (++found > NS_GRAM_BRANCHES)
                return ns_fail(m->e, NS_EUNSUPPORTED, "%s: more than %d alternatives", m->rules[top].path, NS_GRAM_BRANCHES);
            if (found == 2) {
                split = ns_gram_node_add(m, NS_GRAM_SPLIT, 0);
                ns_gram_edge_add(m, split, 0, 0, one);
            }
            if (found > 1)
                ns_gram_edge_add(m, split, 0, 0, r->entry);
            one = r->entry;
        }
        for (uint32_t i = 0; i < r->n_alts; i++)
            if (m->rules[r->alts[i]].seen != top + 1) {
                m->rules[r->alts[i]].seen = top + 1;
                stack[depth++] = r->alts[i];
            }
    }
    if (!found)
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: refers only to itself", m->rules[top].path);
    m->rules[top].entry = found > 1 ? split : one;
    return 0;
}

static int join_all(ns_gram_make *m)
{
    ns_grammar *g = m->g;
    uint32_t *stack = malloc((m->n_rules + 1) * sizeof *stack);
    int rc = stack ? 0 : ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    for (uint32_t i = 0; i < m->n_rules && rc == 0; i++)
        if (m->rules[i].type == NS_GRAM_WHOLE)
            rc = join(m, i, stack);
    free(stack);
    if (rc < 0 || !room(m, (void **)&g->entries, &g->cap_rules, 0, m->n_rules + 1, sizeof *g->entries, NS_GRAM_NODES))
        return rc;
    for (uint32_t i = 0; i < m->n_rules; i++)
        g->entries[i] = m->rules[i].entry;
    g->n_rules = m->n_rules;
    return 0;
}

static unsigned need_of(const ns_grammar *g, uint32_t at)
{
    const ns_gram_node *x = &g->nodes[at];
    unsigned need = NS_GRAM_NEVER, v;
    switch ((enum ns_gram_kind)x->kind) {
    case NS_GRAM_RET:
        return 0;
    case NS_GRAM_CALL:
        need = g->nodes[g->entries[x->a]].need;
        if (g->nodes[x->next].kind == NS_GRAM_RET || need >= NS_GRAM_NEVER - 1)
            return need;
        v = g->nodes[x->next].need;
        return need + 1 > v ? need + 1 : v;
    case NS_GRAM_TEST:
        need = g->nodes[x->next].need;
        v = x->c ? g->nodes[x->c].need : 0;
        return need > v ? need : v;
    case NS_GRAM_ALL:
        need = 0;
        for (uint32_t e = x->edges; e; e = g->edges[e].next)
            need = (v = g->nodes[g->edges[e].to].need) > need ? v : need;
        return need;
    case NS_GRAM_SET: case NS_GRAM_INC: case NS_GRAM_FIELD: case NS_GRAM_OPEN:
        return g->nodes[x->next].need;
    case NS_GRAM_BYTES: case NS_GRAM_KEY: case NS_GRAM_SPLIT:
        for (uint32_t e = x->edges; e; e = g->edges[e].next)
            need = (v = g->nodes[g->edges[e].to].need) < need ? v : need;
        return x->c && g->nodes[x->c].need < need ? g->nodes[x->c].need : need;
    }
    return need;
}

/* Needs fall from "never" until nothing changes. Children were mostly made after their parents, so from the back. A need above the
 * limit is as good as never, which bounds the rounds. */
static void work_out_needs(ns_grammar *g)
{
    for (uint32_t i = 1; i < g->n_nodes; i++)
        g->nodes[i].need = NS_GRAM_NEVER;
    for (bool again = true; again;) {
        again = false;
        for (uint32_t i = g->n_nodes; i-- > 1;) {
            unsigned need = need_of(g, i);
            if (need > NS_GRAM_DEPTH)
                need = NS_GRAM_NEVER;
            again |= need < g->nodes[i].need;
            g->nodes[i].need = (uint16_t)need;
        }
    }
}

static int finish(ns_gram_make *m, uint32_t start, const char *what)
{
    for (uint32_t i = 0; i < m->n_rules && !m->failed; i++) /* more come as they are compiled */
        if (ns_gram_compile(m, i) < 0)
            return -1;
    if (!m->failed && join_all(m) < 0)
        return -1;
    if (m->failed)
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: too large (over %d states), or out of memory", what, NS_GRAM_NODES);
    m->g->start = start;
    m->g->space = ns_gram_rule_any(m, NS_GRAM_T_SPACE);
    work_out_needs(m->g);
    if (m->g->nodes[start].need > NS_GRAM_DEPTH)
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: every value would nest more than %d deep, or without end", what, NS_GRAM_DEPTH);
    return 0;
}

ns_grammar *ns_gram_make_end(ns_gram_make *m, uint32_t start, const char *what)
{
    ns_grammar *g = m->g;
    int rc = start ? finish(m, start, what) : ns_fail(m->e, NS_EUNSUPPORTED, "%s: too large, or out of memory", what);
    free(m->rules);
    json_decref(m->owned);
    ns_arena_release(&m->arena);
    if (rc == 0)
        return g;
    ns_grammar_free(g);
    return NULL;
}

void ns_grammar_free(ns_grammar *g)
{
    if (!g)
        return;
    free(g->nodes);
    free(g->edges);
    free(g->entries);
    free(g->fields);
    free(g->words);
    free(g);
}
