/* A call of one function in Nemotron's markup:
 *   <tool_call>\n<function=NAME>\n<parameter=P>\nVALUE\n</parameter>\n</function>\n</tool_call>
 * Parameters in the order of their declaration, required ones among them; strings as they are, all else as JSON. */
#include <string.h>

#include "text/grammar_impl.h"

/* In tags, names stand as they are. */
static bool tag_name(const char *s)
{
    return s && *s && !strpbrk(s, ">\n");
}

static char *tag(ns_gram_make *m, const char *name)
{
    size_t n = strlen(name);
    char *s = ns_arena_alloc(&m->arena, n + 2);
    m->failed |= !s;
    if (s)
        memcpy(s, name, n);
    if (s)
        s[n] = '>';
    return s;
}

/* What may stand at the top of a function's parameters. */
static int check_parameters(ns_gram_make *m, const ns_gram_rule *r)
{
    const json_t *type = json_object_get(r->schema, "type");
    if (!json_is_object(r->schema) || (type && (!json_is_string(type) || strcmp(json_string_value(type), "object") != 0)))
        return ns_fail(m->e, NS_EINVAL, "%s: parameters: expected the schema of an object", r->path);
    return ns_gram_check_object(m, r);
}

/* From behind "<function=NAME>": the parameters and the end of the call. */
static int parameters(ns_gram_make *m, const ns_gram_rule *r, uint32_t *entry)
{
    ns_gram_props p = { 0 };
    if (check_parameters(m, r) < 0 || ns_gram_props_read(m, r, NS_GRAM_RAW, &p) < 0)
        return -1;
    ns_gram_field *f = ns_arena_array(&m->arena, (size_t)p.n + 1, sizeof *f);
    if (!f)
        return ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
    uint32_t head = ns_gram_node_add(m, NS_GRAM_SPLIT, 0), fields, root, min, must;
    for (uint32_t i = 0; i < p.n; i++) {
        if (!tag_name(p.name[i]))
            return ns_fail(m->e, NS_EUNSUPPORTED, "%s: a parameter's name that a call cannot carry", r->path);
        f[i] = (ns_gram_field){ tag(m, p.name[i]), ns_gram_byte(m, '\n', ns_gram_call(m, p.rule[i], head)), p.rule[i], p.required[i] };
        if (m->failed)
            return 0;
    }
    if (ns_gram_fields_make(m, f, p.n, 0, 0, &fields, &root, &min, &must) < 0)
        return -1;
    static const char close[] = "</function>\n</tool_call>", open[] = "<parameter=";
    uint32_t end = ns_gram_literal(m, close, sizeof close - 1, ns_gram_node_add(m, NS_GRAM_RET, 0));
    ns_gram_edge_add(m, head, 0, 0, ns_gram_test(m, min, NS_GRAM_ANY, must, end));
    if (p.n) {
        uint32_t more = ns_gram_node_add(m, NS_GRAM_OPEN, ns_gram_literal(m, open, sizeof open - 1, root));
        m->g->nodes[more].fields = fields;
        ns_gram_edge_add(m, head, 0, 0, more);
    }
    *entry = ns_gram_byte(m, '\n', head);
    return 0;
}

/* Chat has a tool's function under "function", Responses in the tool itself. */
static const json_t *function_of(const json_t *tool)
{
    const json_t *f = json_object_get(tool, "function");
    return f ? f : tool;
}

static uint32_t functions(ns_gram_make *m, const json_t *tools, const char *only)
{
    size_t n = 0, all = json_array_size(tools);
    ns_gram_name *names = ns_arena_array(&m->arena, all + 1, sizeof *names);
    json_t *none = json_object();
    if (!names || !none || json_array_append_new(m->owned, none) < 0) {
        ns_fail(m->e, NS_ENOMEM, "grammar: out of memory");
        return 0;
    }
    for (size_t i = 0; i < all && !m->failed; i++) {
        const json_t *f = function_of(json_array_get(tools, i)), *schema = json_object_get(f, "parameters");
        const char *name = json_string_value(json_object_get(f, "name"));
        if (!tag_name(name)) {
            ns_fail(m->e, NS_EINVAL, "tools[%zu]: a function needs a name, without '>' and newline", i);
            return 0;
        }
        if (only && strcmp(name, only) != 0)
            continue;
        schema = schema && !json_is_null(schema) ? schema : none;
        ns_gram_rule r = { .schema = schema, .root = schema, .path = name, .mode = NS_GRAM_RAW };
        names[n].p = tag(m, name);
        names[n].n = strlen(name) + 1;
        if (parameters(m, &r, &names[n].to) < 0) {
            ns_err_wrap(m->e, "tools[%zu]", i);
            return 0;
        }
        n++;
    }
    if (n == 0) {
        ns_fail(m->e, NS_EINVAL, only ? "tools: no function is named \"%s\"" : "tools: there is none%s", only ? only : "");
        return 0;
    }
    return ns_gram_tree(m, names, n, 0, 0);
}

ns_grammar *ns_grammar_call(const json_t *tools, const char *only, ns_err *e)
{
    static const char open[] = "<tool_call>\n<function=";
    ns_gram_make m;
    uint32_t start = 0;
    if (ns_gram_make_init(&m, e) == 0 && (start = functions(&m, tools, only)) != 0)
        start = ns_gram_space(&m, ns_gram_literal(&m, open, sizeof open - 1, start));
    return ns_gram_make_end(&m, start, "tools");
}
