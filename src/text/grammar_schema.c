/* JSON Schema to rules. A schema is the alternatives that it allows: those of anyOf, or the type of each entry of "type", or what it refers
 * to. What a keyword is for is decided here, by table: held, refused, or an annotation (all the rest). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

#define END_TAG "\n</parameter>"

/* Keywords that say what is allowed. Held ones first; which of them may stand together, the forms below say. */
static const char *const held[] = { "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "type", "properties", "required",
    "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength", NULL };
static const char *const refused[] = { "pattern", "patternProperties", "propertyNames", "minProperties", "maxProperties", "multipleOf",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "uniqueItems", "contains", "minContains", "maxContains", "not", "if",
    "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems",
    "additionalItems", "$dynamicRef", "$recursiveRef", "nullable", NULL };

static const char *const type_names[] = { [NS_GRAM_T_STRING] = "string", [NS_GRAM_T_NUMBER] = "number", [NS_GRAM_T_INTEGER] = "integer",
    [NS_GRAM_T_BOOLEAN] = "boolean", [NS_GRAM_T_NULL] = "null", [NS_GRAM_T_OBJECT] = "object", [NS_GRAM_T_ARRAY] = "array" };

/* Which types a keyword speaks of. */
static const struct { const char *key; enum ns_gram_type type; } speaks_of[] = {
    { "properties", NS_GRAM_T_OBJECT }, { "required", NS_GRAM_T_OBJECT }, { "additionalProperties", NS_GRAM_T_OBJECT },
    { "items", NS_GRAM_T_ARRAY }, { "prefixItems", NS_GRAM_T_ARRAY }, { "minItems", NS_GRAM_T_ARRAY }, { "maxItems", NS_GRAM_T_ARRAY },
    { "minLength", NS_GRAM_T_STRING }, { "maxLength", NS_GRAM_T_STRING },
};

static bool among(const char *const *list, const char *key)
{
    for (; *list; list++)
        if (strcmp(*list, key) == 0)
            return true;
    return false;
}

/* A value under which a refused keyword asks for nothing. */
static bool idle(const char *key, const json_t *v)
{
    return (json_is_false(v) && (strcmp(key, "uniqueItems") == 0 || strcmp(key, "nullable") == 0)) ||
           (json_is_true(v) && strncmp(key, "unevaluated", 11) == 0);
}

static int check_keywords(ns_gram_make *m, const ns_gram_rule *r)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)r->schema, key, v)
        if (among(refused, key) && !idle(key, v))
            return ns_fail(m->e, NS_EUNSUPPORTED, "%s: keyword %s is not supported", r->path, key);
    return 0;
}

/* Only keywords of `may` may stand beside `form`. */
static int check_beside(ns_gram_make *m, const ns_gram_rule *r, const char *form, const char *const *may)
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
    return check_keywords(m, r) < 0 ? -1 : check_beside(m, r, "type", may);
}

static int add_alt(ns_gram_make *m, uint32_t rule, uint32_t alt)
{
    ns_gram_rule *r = &m->rules[rule];
    if (m->failed)
        return 0;
    r->alts[r->n_alts++] = alt;
    return 0;
}

static int room_for_alts(ns_gram_make *m, uint32_t rule, size_t n)
{
    uint32_t *alts = ns_arena_array(&m->arena, n + 1, sizeof *alts);
    if (!alts)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    m->rules[rule].alts = alts;
    return 0;
}

/* One step of a JSON pointer: the part up to the next '/', with ~0 ~1 and %XX as they stand for. */
static const json_t *pointer_step(const json_t *v, const char *p, size_t n)
{
    char name[512];
    size_t len = 0;
    for (size_t i = 0; i < n && len + 1 < sizeof name; i++) {
        char two[3] = { 0 };
        if (p[i] == '~' && i + 1 < n && (p[i + 1] == '0' || p[i + 1] == '1')) {
            name[len++] = p[++i] == '0' ? '~' : '/';
        } else if (p[i] == '%' && i + 2 < n && strspn(memcpy(two, p + i + 1, 2), "0123456789abcdefABCDEF") == 2) {
            name[len++] = (char)strtol(two, NULL, 16);
            i += 2;
        } else {
            name[len++] = p[i];
        }
    }
    name[len] = '\0';
    if (!json_is_array(v))
        return json_object_get(v, name);
    char *end;
    unsigned long i = strtoul(name, &end, 10);
    return *end || end == name ? NULL : json_array_get(v, i);
}

static const json_t *find_ref(const json_t *root, const char *ref)
{
    const json_t *v = root;
    if (*ref++ != '#')
        return NULL;
    while (v && *ref) {
        if (*ref++ != '/')
            return NULL;
        size_t n = strcspn(ref, "/");
        v = pointer_step(v, ref, n);
        ref += n;
    }
    return v;
}

static int compile_ref(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r)
{
    static const char *const may[] = { NULL };
    const char *ref = json_string_value(json_object_get(r->schema, "$ref"));
    const json_t *to = ref ? find_ref(r->root, ref) : NULL;
    if (check_beside(m, r, "$ref", may) < 0)
        return -1;
    if (!ref)
        return ns_fail(m->e, NS_EINVAL, "%s: $ref: expected a string", r->path);
    if (!to)
        return ns_fail(m->e, *ref == '#' ? NS_EINVAL : NS_EUNSUPPORTED, "%s: $ref \"%.200s\": %s", r->path, ref,
                       *ref == '#' ? "there is nothing" : "only references within the schema (#/..) are supported");
    ns_gram_rule home = *r; /* errors name the place by its address from the root */
    home.path = ns_arena_strndup(&m->arena, r->path, strcspn(r->path, ":"));
    home.deep = false;
    m->failed |= !home.path;
    if (m->failed || room_for_alts(m, rule, 1) < 0)
        return m->failed ? 0 : -1;
    return add_alt(m, rule, ns_gram_rule_of(m, &home, to, r->mode, NS_GRAM_WHOLE, "%s", ref[1] ? ref + 2 : ""));
}

static int compile_any_of(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r, const char *key)
{
    static const char *const may[] = { NULL };
    const json_t *list = json_object_get(r->schema, key);
    if (check_beside(m, r, key, may) < 0)
        return -1;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return ns_fail(m->e, NS_EINVAL, "%s: %s: expected a list that is not empty", r->path, key);
    if (room_for_alts(m, rule, json_array_size(list)) < 0)
        return -1;
    for (size_t i = 0; i < json_array_size(list) && !m->failed; i++)
        add_alt(m, rule, ns_gram_rule_of(m, r, json_array_get(list, i), r->mode, NS_GRAM_WHOLE, "%s[%zu]", key, i));
    return 0;
}

/* Puts one part of an allOf into the object that is all of them. */
static int merge_part(ns_gram_make *m, const ns_gram_rule *r, const json_t *part, json_t *into, size_t *allowance)
{
    static const char *const may[] = { "type", "properties", "required", "additionalProperties", "allOf", NULL };
    json_t *props = json_object_get(into, "properties"), *required = json_object_get(into, "required"), *v;
    const char *key;
    if ((*allowance)-- == 0)
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: more than 64 parts, or parts without end", r->path);
    const char *ref = json_string_value(json_object_get(part, "$ref"));
    if (ref) {
        const json_t *to = find_ref(r->root, ref);
        if (!to)
            return ns_fail(m->e, NS_EINVAL, "%s: allOf: $ref \"%.200s\": there is nothing in this schema", r->path, ref);
        json_object_foreach((json_t *)(uintptr_t)part, key, v)
            if (among(held, key) && strcmp(key, "$ref") != 0)
                return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: keyword %s beside $ref is not supported", r->path, key);
        return merge_part(m, r, to, into, allowance);
    }
    ns_gram_rule sub = { .schema = part, .path = r->path };
    if (!json_is_object(part))
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: a part is no object", r->path);
    if (check_keywords(m, &sub) < 0 || check_beside(m, &sub, "allOf", may) < 0)
        return ns_err_wrap(m->e, "a part of allOf");
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *more = json_object_get(part, "additionalProperties");
    if ((json_object_get(part, "type") && (!type || strcmp(type, "object") != 0)) || (more && !json_is_true(more)))
        return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: only objects, with additionalProperties left open, can be put together", r->path);
    for (size_t i = 0; i < json_array_size(json_object_get(part, "allOf")); i++)
        if (merge_part(m, r, json_array_get(json_object_get(part, "allOf"), i), into, allowance) < 0)
            return -1;
    json_object_foreach(json_object_get(part, "properties"), key, v) {
        if (json_object_get(props, key) && !json_equal(json_object_get(props, key), v))
            return ns_fail(m->e, NS_EUNSUPPORTED, "%s: allOf: two parts describe \"%s\"", r->path, key);
        m->failed |= json_object_set(props, key, v) < 0;
    }
    return json_array_extend(required, json_object_get(part, "required")) < 0 && json_object_get(part, "required")
               ? ns_fail(m->e, NS_EINVAL, "%s: allOf: required: expected a list", r->path)
               : 0;
}

/* One part is that part; several objects become one, their properties in the order of the parts, the schema's own last. */
static int compile_all_of(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r)
{
    static const char *const may[] = { "type", "properties", "required", "additionalProperties", NULL };
    const json_t *list = json_object_get(r->schema, "allOf");
    bool alone = json_array_size(list) == 1 && !json_object_get(r->schema, "type") && !json_object_get(r->schema, "properties") &&
                 !json_object_get(r->schema, "required") && !json_object_get(r->schema, "additionalProperties");
    if (check_beside(m, r, "allOf", may) < 0)
        return -1;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return ns_fail(m->e, NS_EINVAL, "%s: allOf: expected a list that is not empty", r->path);
    if (room_for_alts(m, rule, 1) < 0)
        return -1;
    if (alone)
        return add_alt(m, rule, ns_gram_rule_of(m, r, json_array_get(list, 0), r->mode, NS_GRAM_WHOLE, "allOf[0]"));
    size_t allowance = 64;
    json_t *all = json_pack("{s:s, s:{}, s:[]}", "type", "object", "properties", "required");
    if (!all || json_array_append_new(m->owned, all) < 0)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    if (merge_part(m, r, r->schema, all, &allowance) < 0)
        return -1;
    return add_alt(m, rule, ns_gram_rule_of(m, r, all, r->mode, NS_GRAM_WHOLE, "%s", ""));
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
    for (size_t i = 0; i < sizeof speaks_of / sizeof *speaks_of; i++)
        if (speaks_of[i].type == type && json_object_get(schema, speaks_of[i].key))
            return true;
    return false;
}

static int compile_types(ns_gram_make *m, uint32_t rule, const ns_gram_rule *r)
{
    unsigned types;
    if (read_types(m, r, &types) < 0 || room_for_alts(m, rule, NS_GRAM_T_ARRAY) < 0)
        return -1;
    for (unsigned t = NS_GRAM_T_STRING; t <= NS_GRAM_T_ARRAY && !m->failed; t++)
        if (types & 1u << t)
            add_alt(m, rule, ns_gram_rule_of(m, r, says_something(r->schema, t) ? r->schema : json_true(), r->mode, t, "%s", ""));
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
    if (check_beside(m, r, form, may) < 0 || read_types(m, r, &types) < 0)
        return -1;
    if (!one && (!json_is_array(list) || n == 0))
        return ns_fail(m->e, NS_EINVAL, "%s: enum: expected a list that is not empty", r->path);
    json_t *scalars = json_array();
    if (!scalars || json_array_append_new(m->owned, scalars) < 0)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    if (room_for_alts(m, rule, n + 1) < 0)
        return -1;
    for (size_t i = 0; i < n && !m->failed; i++) {
        const json_t *v = one ? one : json_array_get(list, i);
        if (!(types & type_bits(v)))
            continue;
        if (r->mode == NS_GRAM_RAW || !(json_is_object(v) || json_is_array(v)))
            m->failed |= json_array_append(scalars, (json_t *)(uintptr_t)v) < 0;
        else
            add_alt(m, rule, ns_gram_rule_of(m, r, v, NS_GRAM_CONST, NS_GRAM_T_ENUM, "%s[%zu]", form, i));
    }
    if (json_array_size(scalars))
        add_alt(m, rule, ns_gram_rule_of(m, r, scalars, r->mode, NS_GRAM_T_ENUM, "%s", form));
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
    if (check_keywords(m, r) < 0)
        return -1;
    if (json_object_get(s, "$ref"))
        return compile_ref(m, rule, r);
    if (json_object_get(s, "anyOf"))
        return compile_any_of(m, rule, r, "anyOf");
    if (json_object_get(s, "oneOf"))
        return compile_any_of(m, rule, r, "oneOf");
    if (json_object_get(s, "allOf"))
        return compile_all_of(m, rule, r);
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
