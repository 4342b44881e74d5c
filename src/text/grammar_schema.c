/* JSON Schema to rules. A schema is the alternatives that it allows: those of anyOf, or the type of each entry of "type", or what it refers
 * to. What a keyword is for is decided here, by table: held, refused, or an annotation (all the rest). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

#define END_TAG "\n</parameter>"

/* Keywords that say what is allowed. Held ones first; which of them may stand together, the forms below say. */
static const char *const held[] = { "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "type", "properties", "required",
    "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", NULL };
static const char *const refused[] = { "pattern", "patternProperties", "propertyNames", "minProperties", "maxProperties", "multipleOf",
    "uniqueItems", "contains", "minContains", "maxContains", "not", "if",
    "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems",
    "additionalItems", "$dynamicRef", "$recursiveRef", "nullable", NULL };

static const char *const type_names[] = { [NS_GRAM_T_STRING] = "string", [NS_GRAM_T_NUMBER] = "number", [NS_GRAM_T_INTEGER] = "integer",
    [NS_GRAM_T_BOOLEAN] = "boolean", [NS_GRAM_T_NULL] = "null", [NS_GRAM_T_OBJECT] = "object", [NS_GRAM_T_ARRAY] = "array" };

/* Which type a keyword speaks of; an integer is a number. */
static const struct { const char *key; enum ns_gram_type type; } speaks_of[] = {
    { "properties", NS_GRAM_T_OBJECT }, { "required", NS_GRAM_T_OBJECT }, { "additionalProperties", NS_GRAM_T_OBJECT },
    { "items", NS_GRAM_T_ARRAY }, { "prefixItems", NS_GRAM_T_ARRAY }, { "minItems", NS_GRAM_T_ARRAY }, { "maxItems", NS_GRAM_T_ARRAY },
    { "minLength", NS_GRAM_T_STRING }, { "maxLength", NS_GRAM_T_STRING },
    { "minimum", NS_GRAM_T_NUMBER }, { "maximum", NS_GRAM_T_NUMBER }, { "exclusiveMinimum", NS_GRAM_T_NUMBER },
    { "exclusiveMaximum", NS_GRAM_T_NUMBER },
};

static bool among(const char *const *list, const char *key)
{
    for (; *list; list++)
        if (strcmp(*list, key) == 0)
            return true;
    return false;
}

bool ns_gram_held(const char *key)
{
    return among(held, key);
}

/* A value under which a refused keyword asks for nothing. */
static bool idle(const char *key, const json_t *v)
{
    return (json_is_false(v) && (strcmp(key, "uniqueItems") == 0 || strcmp(key, "nullable") == 0)) ||
           (json_is_true(v) && strncmp(key, "unevaluated", 11) == 0);
}

int ns_gram_check_keywords(ns_gram_make *m, const ns_gram_rule *r)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)r->schema, key, v)
        if (among(refused, key) && !idle(key, v))
            return ns_fail(m->e, NS_EUNSUPPORTED, "%s: keyword %s is not supported", r->path, key);
    return 0;
}

/* Only keywords of `may` may stand beside `form`. */
int ns_gram_check_beside(ns_gram_make *m, const ns_gram_rule *r, const char *form, const char *const *may)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)r->schema, key, v)
        if (among(held, key) && strcmp(key, form) != 0 && !among(may, key))
            return ns_fail(m->e, NS_EUNSUPPORTED, "%s: keyword %s beside %s is not supported", r->path, key, form);
    return 0;
}

int ns_gram_check_object(ns_gram_make *m, const ns_gram_rule *r)
{
    static const char *const may[] = { "properties", "required", "additionalProperties", NULL };
    return ns_gram_check_keywords(m, r) < 0 ? -1 : ns_gram_check_beside(m, r, "type", may);
}

int ns_gram_alt_add(ns_gram_make *m, uint32_t rule, uint32_t alt)
{
    ns_gram_rule *r = &m->rules[rule];
    if (m->failed)
        return 0;
    r->alts[r->n_alts++] = alt;
    return 0;
}

int ns_gram_alts_room(ns_gram_make *m, uint32_t rule, size_t n)
{
    uint32_t *alts = ns_arena_array(&m->arena, n + 1, sizeof *alts);
    if (!alts)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    m->rules[rule].alts = alts;
    return 0;
}

static int compile_any_of(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r, const char *key)
{
    static const char *const may[] = { NULL };
    const json_t *list = json_object_get(r->schema, key);
    if (ns_gram_check_beside(m, r, key, may) < 0)
        return -1;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return ns_fail(m->e, NS_EINVAL, "%s: %s: expected a list that is not empty", r->path, key);
    if (ns_gram_alts_room(m, rule, json_array_size(list)) < 0)
        return -1;
    for (size_t i = 0; i < json_array_size(list) && !m->failed; i++)
        ns_gram_alt_add(m, rule, ns_gram_rule_of(m, r, json_array_get(list, i), r->mode, NS_GRAM_WHOLE, "%s[%zu]", key, i));
    return 0;
}

static enum ns_gram_type type_of_name(const char *name)
{
    for (size_t i = NS_GRAM_T_STRING; i <= NS_GRAM_T_ARRAY; i++)
        if (name && strcmp(name, type_names[i]) == 0)
            return (enum ns_gram_type)i;
    return NS_GRAM_WHOLE;
}

/* Types as bits. Without "type": those that the other keywords speak of, or all. */
static int read_types(ns_gram_make *m, const ns_gram_rule *r, unsigned *types)
{
    const json_t *t = json_object_get(r->schema, "type");
    *types = 0;
    for (size_t i = 0; t && i < (json_is_array(t) ? json_array_size(t) : 1); i++) {
        const char *name = json_string_value(json_is_array(t) ? json_array_get(t, i) : t);
        enum ns_gram_type type = type_of_name(name);
        if (type == NS_GRAM_WHOLE)
            return ns_fail(m->e, NS_EINVAL, "%s: type: \"%.40s\" is none of string, number, integer, boolean, null, object, array", r->path,
                           name ? name : "(no string)");
        *types |= 1u << type;
    }
    if (t && !*types)
        return ns_fail(m->e, NS_EINVAL, "%s: type: the list is empty", r->path);
    for (size_t i = 0; !t && i < sizeof speaks_of / sizeof *speaks_of; i++)
        if (json_object_get(r->schema, speaks_of[i].key))
            *types |= 1u << speaks_of[i].type;
    if (!*types)
        *types = (1u << (NS_GRAM_T_ARRAY + 1)) - 2;
    if (*types & 1u << NS_GRAM_T_NUMBER)
        *types &= ~(1u << NS_GRAM_T_INTEGER);
    return 0;
}

static bool says_something(const json_t *schema, enum ns_gram_type type)
{
    type = type == NS_GRAM_T_INTEGER ? NS_GRAM_T_NUMBER : type;
    for (size_t i = 0; i < sizeof speaks_of / sizeof *speaks_of; i++)
        if (speaks_of[i].type == type && json_object_get(schema, speaks_of[i].key))
            return true;
    return false;
}

static int compile_types(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r)
{
    unsigned types;
    if (read_types(m, r, &types) < 0 || ns_gram_alts_room(m, rule, NS_GRAM_T_ARRAY) < 0)
        return -1;
    for (unsigned t = NS_GRAM_T_STRING; t <= NS_GRAM_T_ARRAY && !m->failed; t++)
        if (types & 1u << t)
            ns_gram_alt_add(m, rule, ns_gram_rule_of(m, r, says_something(r->schema, t) ? r->schema : json_true(), r->mode, t, "%s", ""));
    return 0;
}

static unsigned type_bits(const json_t *v)
{
    if (json_is_integer(v) || (json_is_real(v) && json_real_value(v) == (double)(json_int_t)json_real_value(v)))
        return 1u << NS_GRAM_T_INTEGER | 1u << NS_GRAM_T_NUMBER;
    return 1u << (json_is_string(v)    ? NS_GRAM_T_STRING
                  : json_is_real(v)    ? NS_GRAM_T_NUMBER
                  : json_is_boolean(v) ? NS_GRAM_T_BOOLEAN
                  : json_is_null(v)    ? NS_GRAM_T_NULL
                  : json_is_object(v)  ? NS_GRAM_T_OBJECT
                                       : NS_GRAM_T_ARRAY);
}

/* The values of const or enum that the type admits: scalars as one tree of texts, objects and arrays as rules of their own. */
static int compile_values(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r)
{
    static const char *const may[] = { "type", NULL };
    const json_t *one = json_object_get(r->schema, "const"), *list = json_object_get(r->schema, "enum");
    const char *form = one ? "const" : "enum";
    size_t n = one ? 1 : json_array_size(list);
    unsigned types;
    if (ns_gram_check_beside(m, r, form, may) < 0 || read_types(m, r, &types) < 0)
        return -1;
    if (!one && (!json_is_array(list) || n == 0))
        return ns_fail(m->e, NS_EINVAL, "%s: enum: expected a list that is not empty", r->path);
    json_t *scalars = json_array();
    if (!scalars || json_array_append_new(m->owned, scalars) < 0)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    if (ns_gram_alts_room(m, rule, n + 1) < 0)
        return -1;
    for (size_t i = 0; i < n && !m->failed; i++) {
        const json_t *v = one ? one : json_array_get(list, i);
        if (!(types & type_bits(v)))
            continue;
        if (r->mode == NS_GRAM_RAW || !(json_is_object(v) || json_is_array(v)))
            m->failed |= json_array_append(scalars, (json_t *)(uintptr_t)v) < 0;
        else
            ns_gram_alt_add(m, rule, ns_gram_rule_of(m, r, v, NS_GRAM_CONST, NS_GRAM_T_ENUM, "%s[%zu]", form, i));
    }
    if (json_array_size(scalars))
        ns_gram_alt_add(m, rule, ns_gram_rule_of(m, r, scalars, r->mode, NS_GRAM_T_ENUM, "%s", form));
    else if (!m->rules[rule].n_alts && !m->failed)
        return ns_fail(m->e, NS_EINVAL, "%s: %s: no value is of the type asked for", r->path, form);
    return 0;
}

static int compile_whole(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r)
{
    const json_t *s = r->schema;
    if (json_is_false(s))
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: false allows no value", r->path);
    if (!json_is_true(s) && !json_is_object(s))
        return ns_fail(m->e, NS_EINVAL, "%s: expected an object or true", r->path);
    if (ns_gram_check_keywords(m, r) < 0)
        return -1;
    if (json_object_get(s, "$ref"))
        return ns_gram_ref(m, rule, r);
    if (json_object_get(s, "anyOf"))
        return compile_any_of(m, rule, r, "anyOf");
    if (json_object_get(s, "oneOf"))
        return compile_any_of(m, rule, r, "oneOf");
    if (json_object_get(s, "allOf"))
        return ns_gram_all_of(m, rule, r);
    if (json_object_get(s, "const") || json_object_get(s, "enum"))
        return compile_values(m, rule, r);
    return compile_types(m, rule, r);
}

/* The texts of an enum as a tree. In a call strings stand as they are, and all have the end behind them. */
static int compile_enum(ns_gram_make *m, const ns_gram_rule *r, uint32_t *entry)
{
    size_t n = json_array_size(r->schema);
    ns_gram_name *names = ns_arena_array(&m->arena, n, sizeof *names);
    uint32_t ret = ns_gram_node_add(m, NS_GRAM_RET, 0);
    uint32_t end = r->mode == NS_GRAM_RAW ? ns_gram_literal(m, END_TAG "\n", sizeof END_TAG, ret) : ret;
    if (!names)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    for (size_t i = 0; i < n && !m->failed; i++) {
        const json_t *v = json_array_get(r->schema, i);
        const char *text = r->mode == NS_GRAM_RAW && json_is_string(v) ? json_string_value(v) : ns_gram_dump(m, v);
        if (!text)
            return 0;
        if (r->mode == NS_GRAM_RAW && (strstr(text, "</parameter>") || (json_is_string(v) && strlen(text) != json_string_length(v))))
            return ns_fail(m->e, NS_EUNSUPPORTED, "%s: a value that a call cannot carry", r->path);
        names[i] = (ns_gram_name){ text, strlen(text), end };
    }
    *entry = ns_gram_tree(m, names, n, 0, 0);
    return 0;
}

static int compile_leaf(ns_gram_make *m, const ns_gram_rule *r, uint32_t *entry)
{
    uint32_t min, max, ret;
    if (r->type == NS_GRAM_T_ENUM && r->mode != NS_GRAM_CONST)
        return compile_enum(m, r, entry);
    if (r->mode == NS_GRAM_RAW && r->type == NS_GRAM_T_STRING) {
        if (says_something(r->schema, r->type))
            return ns_fail(m->e, NS_EUNSUPPORTED, "%s: keywords minLength and maxLength are not supported in a call", r->path);
        *entry = ns_gram_text(m, END_TAG);
        return 0;
    }
    if (r->mode == NS_GRAM_RAW) {
        ret = ns_gram_literal(m, END_TAG "\n", sizeof END_TAG, ns_gram_node_add(m, NS_GRAM_RET, 0));
        *entry = ns_gram_call(m, ns_gram_rule_of(m, r, r->schema, NS_GRAM_JSON, r->type, "%s", ""), ret);
        return 0;
    }
    if (r->mode == NS_GRAM_CONST) {
        *entry = ns_gram_const(m, r);
        return 0;
    }
    switch (r->type) {
    case NS_GRAM_T_STRING:
        if (ns_gram_counts(m, r, "minLength", "maxLength", &min, &max) < 0)
            return -1;
        *entry = ns_gram_string(m, min, max);
        return 0;
    case NS_GRAM_T_NUMBER: case NS_GRAM_T_INTEGER:
        if (says_something(r->schema, r->type))
            return ns_gram_range(m, r, r->type == NS_GRAM_T_INTEGER, entry);
        *entry = ns_gram_number(m, r->type == NS_GRAM_T_INTEGER);
        return 0;
    case NS_GRAM_T_BOOLEAN:
        ret = ns_gram_node_add(m, NS_GRAM_RET, 0);
        *entry = ns_gram_split(m, ns_gram_literal(m, "true", 4, ret), ns_gram_literal(m, "false", 5, ret));
        return 0;
    case NS_GRAM_T_NULL:
        *entry = ns_gram_literal(m, "null", 4, ns_gram_node_add(m, NS_GRAM_RET, 0));
        return 0;
    case NS_GRAM_T_OBJECT:
        return ns_gram_object(m, r, entry);
    case NS_GRAM_T_ARRAY:
        return ns_gram_array(m, r, entry);
    case NS_GRAM_T_SPACE:
        *entry = ns_gram_blanks(m);
        return 0;
    case NS_GRAM_WHOLE: case NS_GRAM_T_ENUM:
        break;
    }
    return 0;
}

int ns_gram_compile(ns_gram_make *m, uint32_t rule)
{
    ns_gram_rule r = m->rules[rule]; /* the table moves as rules are added */
    uint32_t entry = 0;
    if (r.type == NS_GRAM_WHOLE)
        return compile_whole(m, rule, &r);
    if (compile_leaf(m, &r, &entry) < 0)
        return -1;
    m->rules[rule].entry = entry;
    return 0;
}
