/* Bodies of rules for objects, arrays and given values. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

/* Reals with as few digits as give the same number back. */
char *ns_gram_dump(ns_gram_make *m, const json_t *v)
{
    char *text = NULL;
    for (size_t digits = 15; digits <= 17; digits++) {
        free(text);
        text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(digits));
        if (!json_is_real(v) || !text || strtod(text, NULL) == json_real_value(v))
            break;
    }
    char *kept = text ? ns_arena_strdup(&m->arena, text) : NULL;
    m->failed |= !kept;
    free(text);
    return kept;
}

/* A name as it stands in JSON, without the first quote. */
static const char *quoted(ns_gram_make *m, const char *name)
{
    json_t *s = json_string(name);
    char *text = s ? ns_gram_dump(m, s) : NULL;
    m->failed |= !text;
    json_decref(s);
    return text ? text + 1 : "\"";
}

int ns_gram_fields_make(ns_gram_make *m, const ns_gram_field *f, uint32_t n, uint32_t extra, uint32_t other, uint32_t *fields, uint32_t *root,
                        uint32_t *close_min, uint32_t *must)
{
    uint32_t *words = ns_arena_array(&m->arena, 3 * (size_t)n + 3, sizeof *words); /* next required, starts, leaves */
    ns_gram_name *names = ns_arena_array(&m->arena, (size_t)n + 1, sizeof *names);
    if (!words || !names)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    *fields = ns_gram_fields_add(m, &(ns_gram_fields){ .n = n, .extra = extra });
    *must = 0;
    *close_min = 0;
    words[n] = n;
    for (uint32_t i = n; i-- > 0;) {
        uint32_t at = ns_gram_node_add(m, NS_GRAM_FIELD, f[i].after);
        m->g->nodes[at].a = i;
        m->g->nodes[at].fields = *fields;
        words[n + 1 + i] = at;
        words[i] = f[i].required ? i : words[i + 1];
        names[i] = (ns_gram_name){ f[i].name, strlen(f[i].name), at };
        if (!f[i].required)
            continue;
        *close_min = *close_min ? *close_min : i + 1;
        *must = *must ? *must : ns_gram_node_add(m, NS_GRAM_ALL, 0);
        ns_gram_edge_add(m, *must, 0, 0, ns_gram_probe(m, f[i].rule));
    }
    *root = ns_gram_tree(m, names, n, *fields, other); /* sorts the names */
    for (uint32_t i = 0; i < n && !m->failed; i++)
        words[2 * n + 1 + i] = m->g->nodes[names[i].to].a;
    uint32_t at = ns_gram_words_add(m, words, 3 * n + 1);
    if (m->failed)
        return 0;
    ns_gram_fields *x = &m->g->fields[*fields];
    x->must = at;
    x->start = at + n + 1;
    x->leaves = at + 2 * n + 1;
    return 0;
}

/* ':' and the value, then next. */
static uint32_t colon(ns_gram_make *m, uint32_t rule, uint32_t next)
{
    return ns_gram_byte(m, ':', ns_gram_space(m, ns_gram_call(m, rule, next)));
}

static uint32_t open_node(ns_gram_make *m, uint32_t fields, uint32_t next)
{
    uint32_t x = ns_gram_node_add(m, NS_GRAM_OPEN, next);
    m->g->nodes[x].fields = fields;
    return x;
}

int ns_gram_object(ns_gram_make *m, const ns_gram_rule *r, uint32_t *entry)
{
    ns_gram_props p = { 0 };
    if (ns_gram_props_read(m, r, NS_GRAM_JSON, &p) < 0)
        return -1;
    ns_gram_field *f = ns_arena_array(&m->arena, (size_t)p.n + 1, sizeof *f);
    if (!f)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    uint32_t after = ns_gram_node_add(m, NS_GRAM_SPLIT, 0), extra = 0, other = 0, fields, root, min, must;
    for (uint32_t i = 0; i < p.n; i++)
        f[i] = (ns_gram_field){ quoted(m, p.name[i]), colon(m, p.rule[i], after), p.rule[i], p.required[i] };
    if (p.more) {
        extra = ns_gram_node_add(m, NS_GRAM_SET, colon(m, p.rest, after));
        m->g->nodes[extra].a = p.n;
    }
    if (p.more && p.n) { /* a name that is none of the others; without escapes, which could spell one of them */
        other = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
        m->g->nodes[other].cls = NS_GRAM_STRING;
        m->g->nodes[other].a = NS_GRAM_ANY;
        ns_gram_edge_add(m, other, '"', '"', extra);
        ns_gram_char(m, other, other, false);
    }
    if (ns_gram_fields_make(m, f, p.n, extra, other, &fields, &root, &min, &must) < 0)
        return -1;
    uint32_t ret = ns_gram_node_add(m, NS_GRAM_RET, 0), close = ns_gram_byte(m, '}', ret);
    uint32_t name = p.n ? ns_gram_byte(m, '"', root) : ns_gram_call(m, ns_gram_rule_any(m, NS_GRAM_T_STRING), extra);
    uint32_t first = ns_gram_test(m, min, NS_GRAM_ANY, must, close);
    if (p.n || p.more) {
        ns_gram_edge_add(m, after, 0, 0, open_node(m, fields, ns_gram_byte(m, ',', ns_gram_space(m, name))));
        first = ns_gram_split(m, open_node(m, fields, name), first);
    }
    ns_gram_edge_add(m, after, 0, 0, ns_gram_test(m, min, NS_GRAM_ANY, must, ns_gram_space(m, close)));
    *entry = ns_gram_byte(m, '{', ns_gram_space(m, first));
    return 0;
}

/* A count that a keyword gives. */
static int count_of(ns_gram_make *m, const ns_gram_rule *r, const char *key, uint32_t dflt, uint32_t *out)
{
    const json_t *v = json_object_get(r->schema, key);
    *out = dflt;
    if (!v)
        return 0;
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d >= 0) || d != (double)(json_int_t)d || d > 1e9)
        return ns_fail(m->e, NS_EINVAL, "%s: %s: expected a whole number from 0 to 1000000000", r->path, key);
    *out = (uint32_t)d;
    return 0;
}

int ns_gram_counts(ns_gram_make *m, const ns_gram_rule *r, const char *min_key, const char *max_key, uint32_t *min, uint32_t *max)
{
    if (count_of(m, r, min_key, 0, min) < 0 || count_of(m, r, max_key, NS_GRAM_ANY, max) < 0)
        return -1;
    if (*min > *max)
        return ns_fail(m->e, NS_EINVAL, "%s: %s is larger than %s", r->path, min_key, max_key);
    return 0;
}

/* Items from the first that "items" describes on; `n` came before. The count is that of all. `first`: where no comma is needed yet. */
static uint32_t items(ns_gram_make *m, uint32_t rule, uint32_t n, uint32_t min, uint32_t max, uint32_t close, bool first)
{
    uint32_t after = ns_gram_node_add(m, NS_GRAM_SPLIT, 0), call = ns_gram_call(m, rule, after);
    uint32_t one = ns_gram_inc(m, max == NS_GRAM_ANY ? min : max, call);
    uint32_t comma = ns_gram_byte(m, ',', ns_gram_space(m, one));
    if (n < max)
        ns_gram_edge_add(m, after, 0, 0, ns_gram_test(m, 0, max == NS_GRAM_ANY ? max : max - 1, 0, comma));
    ns_gram_edge_add(m, after, 0, 0, ns_gram_test(m, min, NS_GRAM_ANY, min > n ? ns_gram_probe(m, rule) : 0, ns_gram_space(m, close)));
    if (first)
        return min > 0 ? one : max > 0 ? ns_gram_split(m, one, close) : close;
    uint32_t set = ns_gram_node_add(m, NS_GRAM_SET, after);
    m->g->nodes[set].a = n;
    return set;
}

int ns_gram_array(ns_gram_make *m, const ns_gram_rule *r, uint32_t *entry)
{
    const json_t *prefix = json_object_get(r->schema, "prefixItems"), *more = json_object_get(r->schema, "items");
    uint32_t min, max, n = (uint32_t)json_array_size(prefix);
    if (ns_gram_counts(m, r, "minItems", "maxItems", &min, &max) < 0)
        return -1;
    if (prefix && (!json_is_array(prefix) || n == 0))
        return ns_fail(m->e, NS_EINVAL, "%s: prefixItems: expected a list that is not empty", r->path);
    if (json_is_false(more) && max > n)
        max = n;
    if (min > max)
        return ns_fail(m->e, NS_EINVAL, "%s: minItems is larger than the number of prefixItems", r->path);
    n = n < max ? n : max;
    uint32_t close = ns_gram_byte(m, ']', ns_gram_node_add(m, NS_GRAM_RET, 0)), at = ns_gram_space(m, close);
    if (max > n || n == 0) {
        uint32_t rule = max == 0 ? 0 : ns_gram_rule_of(m, r, more ? more : json_true(), NS_GRAM_JSON, NS_GRAM_WHOLE, "items");
        at = max == 0 ? close : items(m, rule, n, min, max, close, n == 0);
    }
    for (uint32_t i = n; i-- > 0;) { /* `at`: what comes after item i */
        uint32_t rule = ns_gram_rule_of(m, r, json_array_get(prefix, i), NS_GRAM_JSON, NS_GRAM_WHOLE, "prefixItems[%u]", i);
        at = ns_gram_call(m, rule, at);
        if (i > 0)
            at = ns_gram_byte(m, ',', ns_gram_space(m, at));
        if (min <= i)
            at = ns_gram_split(m, at, i > 0 ? ns_gram_space(m, close) : close);
    }
    *entry = ns_gram_byte(m, '[', ns_gram_space(m, at));
    return 0;
}

static uint32_t const_rule(ns_gram_make *m, const ns_gram_rule *r, const json_t *v)
{
    return ns_gram_rule_of(m, r, v, NS_GRAM_CONST, NS_GRAM_T_ENUM, "%s", "");
}

/* This very value; white space as anywhere. Objects and arrays from their end. */
uint32_t ns_gram_const(ns_gram_make *m, const ns_gram_rule *r)
{
    json_t *v = (json_t *)(uintptr_t)r->schema, *item;
    bool object = json_is_object(v);
    size_t n = object ? json_object_size(v) : json_array_size(v), i = 0;
    const char **names = ns_arena_array(&m->arena, n + 1, sizeof *names), *key;
    json_t **items_ = ns_arena_array(&m->arena, n + 1, sizeof *items_);
    uint32_t ret = ns_gram_node_add(m, NS_GRAM_RET, 0);
    m->failed |= !names || !items_;
    if (m->failed || (!object && !json_is_array(v))) {
        const char *text = m->failed ? NULL : ns_gram_dump(m, v);
        return text ? ns_gram_literal(m, text, strlen(text), ret) : 0;
    }
    json_object_foreach(v, key, item) {
        names[i] = key;
        items_[i++] = item;
    }
    for (; !object && i < n; i++)
        items_[i] = json_array_get(v, i);
    uint32_t at = ns_gram_space(m, ns_gram_byte(m, object ? '}' : ']', ret));
    while (i-- > 0) {
        const char *name = object ? quoted(m, names[i]) : NULL;
        uint32_t rule = const_rule(m, r, items_[i]);
        at = object ? ns_gram_byte(m, '"', ns_gram_literal(m, name, strlen(name), colon(m, rule, at))) : ns_gram_call(m, rule, at);
        at = i > 0 ? ns_gram_byte(m, ',', ns_gram_space(m, at)) : ns_gram_space(m, at);
    }
    return ns_gram_byte(m, object ? '{' : '[', at);
}
