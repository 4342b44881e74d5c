/* Grammars from outside: any object, a schema, a call of one of several functions; and the fields of an object. */
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

/* The names in "required" as the keys of an object. */
static json_t *required_set(ns_gram_make *m, const ns_gram_rule *r)
{
    const json_t *list = json_object_get(r->schema, "required");
    json_t *set = json_object();
    if (!set || json_array_append_new(m->owned, set) < 0) {
        ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
        return NULL;
    }
    if (list && !json_is_array(list)) {
        ns_fail(m->e, NS_EINVAL, "%s: required: expected a list of names", r->path);
        return NULL;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name || strlen(name) != json_string_length(json_array_get(list, i))) {
            ns_fail(m->e, NS_EINVAL, "%s: required: expected a list of names", r->path);
            return NULL;
        }
        m->failed |= json_object_set(set, name, json_true()) < 0;
    }
    return set;
}

int ns_gram_props_read(ns_gram_make *m, const ns_gram_rule *r, enum ns_gram_mode mode, ns_gram_props *out)
{
    json_t *props = json_object_get(r->schema, "properties"), *more = json_object_get(r->schema, "additionalProperties"), *v;
    json_t *required = required_set(m, r);
    const char *name;
    void *next;
    if (!required)
        return -1;
    if (props && !json_is_object(props))
        return ns_fail(m->e, NS_EINVAL, "%s: properties: expected an object", r->path);
    size_t cap = json_object_size(props) + json_object_size(required) + 1;
    out->name = ns_arena_array(&m->arena, cap, sizeof *out->name);
    out->rule = ns_arena_array(&m->arena, cap, sizeof *out->rule);
    out->required = ns_arena_array(&m->arena, cap, sizeof *out->required);
    if (!out->name || !out->rule || !out->required)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    out->more = !json_is_false(more);
    json_object_foreach(props, name, v) {
        out->name[out->n] = name;
        out->rule[out->n] = ns_gram_rule_of(m, r, v, mode, NS_GRAM_WHOLE, "properties.%s", name);
        out->required[out->n++] = json_object_del(required, name) == 0;
    }
    if (out->more)
        out->rest = ns_gram_rule_of(m, r, more ? more : json_true(), mode, NS_GRAM_WHOLE, "additionalProperties");
    json_object_foreach_safe(required, next, name, v) {
        if (!out->more)
            return ns_fail(m->e, NS_EINVAL, "%s: required: \"%s\" is not among the properties", r->path, name);
        out->name[out->n] = name;
        out->rule[out->n] = out->rest;
        out->required[out->n++] = true;
    }
    return 0;
}

static ns_grammar *make_json(const json_t *schema, enum ns_gram_type type, ns_err *e)
{
    ns_gram_make m;
    uint32_t start = 0;
    if (ns_gram_make_init(&m, e) == 0) {
        ns_gram_rule top = { .path = "schema", .root = schema };
        uint32_t rule = ns_gram_rule_of(&m, &top, schema, NS_GRAM_JSON, type, "%s", "");
        start = ns_gram_space(&m, ns_gram_call(&m, rule, ns_gram_node_add(&m, NS_GRAM_RET, 0)));
    }
    return ns_gram_make_end(&m, start, "schema");
}

ns_grammar *ns_grammar_object(ns_err *e)
{
    return make_json(json_true(), NS_GRAM_T_OBJECT, e);
}

ns_grammar *ns_grammar_schema(const json_t *schema, ns_err *e)
{
    return make_json(schema, NS_GRAM_WHOLE, e);
}
