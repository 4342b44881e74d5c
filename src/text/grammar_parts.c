/* The pieces of which grammars are put together: bytes, characters, strings, numbers, white space, text, trees of names. */
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

uint32_t ns_gram_byte(ns_gram_make *m, unsigned char c, uint32_t to)
{
    uint32_t x = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
    ns_gram_edge_add(m, x, c, c, to);
    return x;
}

uint32_t ns_gram_literal(ns_gram_make *m, const char *p, size_t n, uint32_t to)
{
    if (n == 0)
        return to;
    uint32_t first = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
    for (uint32_t x = first; n && !m->failed; n--, p++) {
        uint32_t y = n == 1 ? to : ns_gram_node_add(m, NS_GRAM_BYTES, 0);
        ns_gram_edge_add(m, x, (unsigned char)*p, (unsigned char)*p, y);
        x = y;
    }
    return first;
}

uint32_t ns_gram_split(ns_gram_make *m, uint32_t a, uint32_t b)
{
    uint32_t x = ns_gram_node_add(m, NS_GRAM_SPLIT, 0);
    ns_gram_edge_add(m, x, 0, 0, a);
    ns_gram_edge_add(m, x, 0, 0, b);
    return x;
}

uint32_t ns_gram_call(ns_gram_make *m, uint32_t rule, uint32_t next)
{
    uint32_t x = ns_gram_node_add(m, NS_GRAM_CALL, next);
    m->g->nodes[x].a = rule;
    return x;
}

uint32_t ns_gram_space(ns_gram_make *m, uint32_t next)
{
    return ns_gram_call(m, ns_gram_rule_any(m, NS_GRAM_T_SPACE), next);
}

uint32_t ns_gram_test(ns_gram_make *m, uint32_t lo, uint32_t hi, uint32_t must, uint32_t next)
{
    uint32_t x = ns_gram_node_add(m, NS_GRAM_TEST, next);
    m->g->nodes[x].a = lo;
    m->g->nodes[x].b = hi;
    m->g->nodes[x].c = must;
    return x;
}

uint32_t ns_gram_inc(ns_gram_make *m, uint32_t cap, uint32_t next)
{
    uint32_t x = ns_gram_node_add(m, NS_GRAM_INC, next);
    m->g->nodes[x].a = cap;
    return x;
}

uint32_t ns_gram_probe(ns_gram_make *m, uint32_t rule)
{
    return ns_gram_call(m, rule, 0);
}

static uint32_t range(ns_gram_make *m, unsigned lo, unsigned hi, uint32_t to)
{
    uint32_t x = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
    ns_gram_edge_add(m, x, lo, hi, to);
    return x;
}

/* Characters of more than one byte, as RFC 3629 has them: no overlong forms, no surrogates, nothing above U+10FFFF. */
static void wide(ns_gram_make *m, uint32_t from, uint32_t to)
{
    uint32_t last = range(m, 0x80, 0xbf, to), two = range(m, 0x80, 0xbf, last), three = range(m, 0x80, 0xbf, two);
    ns_gram_edge_add(m, from, 0xc2, 0xdf, last);
    ns_gram_edge_add(m, from, 0xe0, 0xe0, range(m, 0xa0, 0xbf, last));
    ns_gram_edge_add(m, from, 0xe1, 0xec, two);
    ns_gram_edge_add(m, from, 0xed, 0xed, range(m, 0x80, 0x9f, last));
    ns_gram_edge_add(m, from, 0xee, 0xef, two);
    ns_gram_edge_add(m, from, 0xf0, 0xf0, range(m, 0x90, 0xbf, two));
    ns_gram_edge_add(m, from, 0xf1, 0xf3, three);
    ns_gram_edge_add(m, from, 0xf4, 0xf4, range(m, 0x80, 0x8f, two));
}

static uint32_t hex(ns_gram_make *m, uint32_t to)
{
    uint32_t x = range(m, '0', '9', to);
    ns_gram_edge_add(m, x, 'a', 'f', to);
    ns_gram_edge_add(m, x, 'A', 'F', to);
    return x;
}

/* Behind a backslash. A high surrogate wants a low one behind it; a low one alone is no character. */
static uint32_t escape(ns_gram_make *m, uint32_t to)
{
    uint32_t x = ns_gram_node_add(m, NS_GRAM_BYTES, 0), u = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
    uint32_t d = ns_gram_node_add(m, NS_GRAM_BYTES, 0), low = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
    uint32_t h1 = hex(m, to), h2 = hex(m, h1), h3 = hex(m, h2);
    for (const char *c = "\"\\/bfnrt"; *c; c++)
        ns_gram_edge_add(m, x, (unsigned char)*c, (unsigned char)*c, to);
    ns_gram_edge_add(m, x, 'u', 'u', u);
    ns_gram_edge_add(m, u, '0', '9', h3);
    for (unsigned i = 0; i < 2; i++) {
        unsigned big = i ? 32u : 0; /* letters of either case */
        ns_gram_edge_add(m, u, 'A' + big, 'C' + big, h3);
        ns_gram_edge_add(m, u, 'E' + big, 'F' + big, h3);
        ns_gram_edge_add(m, u, 'D' + big, 'D' + big, d);
        ns_gram_edge_add(m, low, 'C' + big, 'F' + big, h2);
    }
    uint32_t low_d = ns_gram_byte(m, 'd', low);
    ns_gram_edge_add(m, low_d, 'D', 'D', low);
    uint32_t high = hex(m, hex(m, ns_gram_literal(m, "\\u", 2, low_d)));
    ns_gram_edge_add(m, d, '0', '7', h2);
    ns_gram_edge_add(m, d, '8', '9', high);
    ns_gram_edge_add(m, d, 'a', 'b', high);
    ns_gram_edge_add(m, d, 'A', 'B', high);
    return x;
}

void ns_gram_char(ns_gram_make *m, uint32_t from, uint32_t to, bool escapes)
{
    ns_gram_edge_add(m, from, ' ', '!', to);
    ns_gram_edge_add(m, from, '#', '[', to);
    ns_gram_edge_add(m, from, ']', 0x7f, to);
    wide(m, from, to);
    if (escapes)
        ns_gram_edge_add(m, from, '\\', '\\', escape(m, to));
}

/* Without limits one node does; else characters are counted, as far as the limits ask. */
uint32_t ns_gram_string(ns_gram_make *m, uint32_t min, uint32_t max)
{
    uint32_t ret = ns_gram_node_add(m, NS_GRAM_RET, 0), at, content;
    if (min == 0 && max == NS_GRAM_ANY) {
        at = content = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
        ns_gram_edge_add(m, at, '"', '"', ret);
        ns_gram_char(m, at, at, true);
    } else {
        at = ns_gram_node_add(m, NS_GRAM_SPLIT, 0);
        content = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
        ns_gram_edge_add(m, at, 0, 0, ns_gram_test(m, min, NS_GRAM_ANY, 0, ns_gram_byte(m, '"', ret)));
        if (max > 0) {
            uint32_t one = ns_gram_inc(m, max == NS_GRAM_ANY ? min : max, content);
            ns_gram_edge_add(m, at, 0, 0, ns_gram_test(m, 0, max == NS_GRAM_ANY ? max : max - 1, 0, one));
        }
        ns_gram_char(m, content, at, true);
    }
    m->g->nodes[content].cls = NS_GRAM_STRING;
    m->g->nodes[content].a = max;
    return ns_gram_byte(m, '"', at);
}

/* One to `max` digits, then next. */
static uint32_t digits(ns_gram_make *m, int max, uint32_t next)
{
    uint32_t after = next;
    for (int i = 0; i < max; i++) {
        uint32_t x = range(m, '0', '9', after);
        if (i == max - 1)
            return x;
        after = ns_gram_split(m, next, x);
    }
    return after;
}

uint32_t ns_gram_number(ns_gram_make *m, bool integer)
{
    uint32_t end = ns_gram_node_add(m, NS_GRAM_RET, 0);
    if (!integer) { /* exponents to 199: the largest double has 308, and there may be 18 digits before the point */
        uint32_t two = digits(m, 2, end), e = ns_gram_split(m, two, ns_gram_byte(m, '1', range(m, '0', '9', range(m, '0', '9', end))));
        uint32_t sign = ns_gram_byte(m, '-', e), exponent = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
        ns_gram_edge_add(m, sign, '+', '+', e);
        ns_gram_edge_add(m, exponent, 'e', 'e', ns_gram_split(m, sign, e));
        ns_gram_edge_add(m, exponent, 'E', 'E', ns_gram_split(m, sign, e));
        end = ns_gram_split(m, end, exponent);
        end = ns_gram_split(m, end, ns_gram_byte(m, '.', digits(m, NS_GRAM_FRACTION, end)));
    }
    uint32_t unsigned_ = ns_gram_byte(m, '0', end), more = ns_gram_split(m, end, digits(m, NS_GRAM_DIGITS - 1, end));
    ns_gram_edge_add(m, unsigned_, '1', '9', more);
    return ns_gram_split(m, unsigned_, ns_gram_byte(m, '-', unsigned_));
}

uint32_t ns_gram_blanks(ns_gram_make *m)
{
    uint32_t ret = ns_gram_node_add(m, NS_GRAM_RET, 0), left = ret, one = 0;
    for (int i = 0; i < NS_GRAM_BLANKS; i++) {
        one = ns_gram_byte(m, ' ', left);
        ns_gram_edge_add(m, one, '\t', '\t', left);
        left = ns_gram_split(m, ret, one);
    }
    uint32_t first = ns_gram_byte(m, '\n', left); /* then what `one` has, too */
    for (uint32_t e = m->g->nodes[one].edges; e; e = m->g->edges[e].next)
        ns_gram_edge_add(m, first, m->g->edges[e].lo, m->g->edges[e].hi, m->g->edges[e].to);
    return ns_gram_split(m, ret, first);
}

/* The part of `end` that was read, and otherwise as in the text. Without its newline it must not stand in the text either: readers of
 * the call look for it with and without. */
uint32_t ns_gram_text(ns_gram_make *m, const char *end)
{
    size_t n = strlen(end);
    uint32_t text = ns_gram_node_add(m, NS_GRAM_BYTES, 0), dead = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
    m->g->nodes[text].cls = NS_GRAM_TEXT;
    m->g->nodes[text].a = NS_GRAM_ANY;
    ns_gram_edge_add(m, text, 0, '\n' - 1, text);
    ns_gram_edge_add(m, text, '\n' + 1, '<' - 1, text);
    ns_gram_edge_add(m, text, '<' + 1, 0x7f, text);
    wide(m, text, text);
    uint32_t rest = ns_gram_byte(m, '\n', ns_gram_node_add(m, NS_GRAM_RET, 0)), bad = dead;
    for (size_t i = n; i-- > 1;) {
        rest = ns_gram_byte(m, (unsigned char)end[i], rest);
        m->g->nodes[rest].c = text;
        if (i > 1) {
            bad = ns_gram_byte(m, (unsigned char)end[i], bad);
            m->g->nodes[bad].c = text;
        }
    }
    ns_gram_edge_add(m, text, '\n', '\n', rest);
    ns_gram_edge_add(m, text, '<', '<', bad);
    return text;
}

static int by_bytes(const void *a, const void *b)
{
    const ns_gram_name *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

static size_t common(const ns_gram_name *a, const ns_gram_name *b)
{
    size_t i = 0;
    while (i < a->n && i < b->n && a->p[i] == b->p[i])
        i++;
    return i;
}

static uint32_t follow(const ns_grammar *g, uint32_t node, unsigned char c)
{
    for (uint32_t e = node ? g->nodes[node].edges : 0; e; e = g->edges[e].next)
        if (c >= g->edges[e].lo && c <= g->edges[e].hi)
            return g->edges[e].to;
    return 0;
}

static uint32_t tree_node(ns_gram_make *m, uint32_t fields, size_t leaf, uint32_t other)
{
    uint32_t x = ns_gram_node_add(m, fields ? NS_GRAM_KEY : NS_GRAM_BYTES, 0);
    m->g->nodes[x].fields = fields;
    m->g->nodes[x].a = (uint32_t)leaf;
    m->g->nodes[x].c = other;
    return x;
}

uint32_t ns_gram_tree(ns_gram_make *m, ns_gram_name *names, size_t n, uint32_t fields, uint32_t other)
{
    size_t longest = 0, same = 0;
    qsort(names, n, sizeof *names, by_bytes);
    for (size_t i = 0; i < n; i++)
        longest = names[i].n > longest ? names[i].n : longest;
    uint32_t *path = longest < NS_GRAM_NODES ? ns_arena_array(&m->arena, longest + 1, sizeof *path) : NULL;
    m->failed |= !path;
    if (m->failed)
        return 0;
    path[0] = tree_node(m, fields, 0, other);
    for (size_t i = 0; i < n && !m->failed; i++) {
        const ns_gram_name *s = &names[i];
        size_t shared = i + 1 < n ? common(s, s + 1) : 0;
        if (shared == s->n && i + 1 < n && s[1].n == s->n) /* twice the same: once is enough */
            continue;
        for (size_t d = same; d < s->n && !m->failed; d++) {
            unsigned char c = (unsigned char)s->p[d];
            uint32_t to = s->to;
            if (d + 1 < s->n)
                to = path[d + 1] = tree_node(m, fields, i, follow(m->g, m->g->nodes[path[d]].c, c));
            else if (shared == s->n) /* the next one goes on here */
                to = ns_gram_split(m, s->to, path[d + 1] = tree_node(m, fields, i, 0));
            ns_gram_edge_add(m, path[d], c, c, to);
        }
        for (size_t d = 0; fields && d < s->n; d++)
            m->g->nodes[path[d]].b = (uint32_t)i + 1;
        same = shared;
    }
    return path[0];
}
