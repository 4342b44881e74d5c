/* Texts: contents that come as a string or in parts, and arguments that come as JSON inside a string. */
#include <string.h>

#include "base/json.h"
#include "serve/api_request.h"

#define TALK NS_IN_TALK
static const ns_field part_fields[] = {
    { "type", TALK, .take = ns_take_word },
    { "text", TALK, .take = ns_take_string, .to = NS_AT(m.text) },
    { "refusal", TALK, .take = ns_take_string, .to = NS_AT(m.text) },
    { "annotations", NS_IN_RESPONSES, .take = ns_take_skip },
    { "logprobs", NS_IN_RESPONSES, .take = ns_take_skip },
    { "prompt_cache_breakpoint", TALK, .take = ns_take_skip },
    { 0 },
};

static const struct {
    const char *type, *member;
    unsigned part;
} kinds[] = {
    { "text", "text", NS_PART_CHAT },          { "refusal", "refusal", NS_PART_REFUSAL },
    { "input_text", "text", NS_PART_INPUT },   { "reasoning_text", "text", NS_PART_REASONING },
    { "output_text", "text", NS_PART_OUTPUT }, { "summary_text", "text", NS_PART_SUMMARY },
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

/* The kind first: of an image its other members are not what is wrong with it. */
static int kind_of(ns_take *t, json_t *part, unsigned parts)
{
    const char *expected = NULL, *type = ns_take_kind(t, part, "type");
    for (int i = 0; type && i < N_KINDS; i++) {
        if (strcmp(kinds[i].type, type) == 0 && kinds[i].part & parts)
            return i;
        if (!expected && kinds[i].part & parts)
            expected = kinds[i].type;
    }
    if (!type)
        return -1;
    ns_take_enter(t, "type");
    return ns_take_fail(t, "invalid_value", "\"%.60s\" is not supported here; expected \"%s\"", type, expected);
}

static int add_part(ns_take *t, json_t *part, unsigned parts, ns_buf *out)
{
    int kind = kind_of(t, part, parts);
    t->m.text = NULL;
    if (kind < 0 || ns_take_members(t, part, part_fields) != 0)
        return -1;
    if (!t->m.text || t->m.text != json_object_get(part, kinds[kind].member))
        return ns_take_missing(t, kinds[kind].member);
    ns_buf_add(out, json_string_value(t->m.text), json_string_length(t->m.text));
    return 0;
}

static json_t *join_parts(ns_take *t, json_t *v, unsigned parts)
{
    ns_buf b = { 0 };
    json_t *text = NULL;
    for (size_t i = 0; i < json_array_size(v); i++) {
        size_t was = ns_take_enter_at(t, i);
        if (i)
            ns_buf_addc(&b, '\n');
        if (add_part(t, json_array_get(v, i), parts, &b) != 0)
            goto out;
        ns_take_leave(t, was);
    }
    text = b.failed ? NULL : json_stringn(b.data ? b.data : "", b.len);
    if (!text)
        ns_take_no_memory(t);
out:
    ns_buf_release(&b);
    return text;
}

json_t *ns_take_text(ns_take *t, const char *member, json_t *v, unsigned parts)
{
    json_t *text = NULL;
    if (!v) {
        ns_take_missing(t, member);
        return NULL;
    }
    size_t was = ns_take_enter(t, member);
    if (json_is_string(v))
        text = json_incref(v);
    else if (json_is_array(v))
        text = join_parts(t, v, parts);
    else
        ns_take_expected(t, "a string or an array of parts", v);
    ns_take_leave(t, was);
    return text;
}

json_t *ns_take_arguments(ns_take *t, const json_t *v)
{
    ns_err e = { 0 };
    const char *text = json_string_value(v);
    size_t n = json_string_length(v);
    if (!text) {
        ns_take_expected(t, "a string of JSON", v);
        return NULL;
    }
    if (ns_take_scan(t, text, n) != 0)
        return NULL;
    json_t *arguments = n ? ns_json_parse(text, n, false, "arguments", &e) : json_object();
    if (arguments && json_is_object(arguments))
        return arguments;
    ns_take_fail(t, "invalid_value", "%s", arguments ? "expected a JSON object" : e.msg);
    json_decref(arguments);
    return NULL;
}
