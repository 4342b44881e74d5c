/* Functions that the model may call, in the chat API's shape whichever API they come by, and which of them it must. */
#include <string.h>

#include "serve/api_request.h"

#define TALK NS_IN_TALK
static int take_name(ns_take *t, const ns_field *f, json_t *v);
static int take_strict(ns_take *t, const ns_field *f, json_t *v);

/* "strict" asks for arguments after the schema, and is a word to the model here: templates show it. */
#define FUNCTION(apis) \
    { "name", apis, .take = take_name, .to = NS_AT(m.name) }, \
    { "description", apis, .take = ns_take_string, .to = NS_AT(m.description) }, \
    { "parameters", apis, .take = ns_take_object, .to = NS_AT(m.parameters) }, \
    { "strict", apis, .take = take_strict }

static const ns_field function_fields[] = { FUNCTION(NS_IN_CHAT), { 0 } };

static const ns_field tool_fields[] = {
    { "type", TALK, .take = ns_take_skip },
    { "function", NS_IN_CHAT, .take = ns_take_sub, .sub = function_fields },
    FUNCTION(NS_IN_RESPONSES),
    { "output_schema", NS_IN_RESPONSES, .take = ns_take_refuse },
    { "defer_loading", NS_IN_RESPONSES, .take = ns_take_false },
    { "allowed_callers", NS_IN_RESPONSES, .take = ns_take_refuse },
    { 0 },
};

static const ns_field named_fields[] = { { "name", NS_IN_CHAT, .take = take_name, .to = NS_AT(m.name) }, { 0 } };

static const ns_field choice_fields[] = {
    { "type", TALK, .take = ns_take_skip },
    { "function", NS_IN_CHAT, .take = ns_take_sub, .sub = named_fields },
    { "name", NS_IN_RESPONSES, .take = take_name, .to = NS_AT(m.name) },
    { 0 },
};

/* Names stand inside the markup of calls. */
static int take_name(ns_take *t, const ns_field *f, json_t *v)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    const char *s = json_string_value(v);
    if (ns_take_word(t, f, v) != 0)
        return -1;
    if (strlen(s) > NS_API_NAME || strspn(s, letters) != strlen(s))
        return ns_take_fail(t, "invalid_value", "must be of at most %d letters, digits, _ and -", NS_API_NAME);
    return 0;
}

static int take_strict(ns_take *t, const ns_field *f, json_t *v)
{
    t->m.strict = v;
    return ns_take_bool(t, f, v);
}

/* The members of a tool, or of a choice, into t->m. The kind first, for of other kinds the members are others. */
static int take_function(ns_take *t, json_t *v, const ns_field *fields)
{
    const bool chat = t->r.api == NS_API_CHAT;
    const char *kind = ns_take_kind(t, v, "type");
    memset(&t->m, 0, sizeof t->m);
    if (!kind)
        return -1;
    if (strcmp(kind, "function") != 0) {
        ns_take_enter(t, "type");
        return ns_take_fail(t, "unsupported_parameter", "\"%.60s\" is not supported; expected \"function\"", kind);
    }
    if (ns_take_members(t, v, fields) != 0)
        return -1;
    return t->m.name ? 0 : ns_take_missing(t, chat ? "function.name" : "name");
}

static int take_tool(ns_take *t, json_t *v)
{
    if (take_function(t, v, tool_fields) != 0)
        return -1;
    json_t *tool = json_pack("{s:s, s:{s:s, s:O*, s:O*, s:O*}}", "type", "function", "function", "name", t->m.name, "description", t->m.description,
                             "parameters", t->m.parameters, "strict", t->m.strict);
    return tool && json_array_append_new(t->r.tools, tool) == 0 ? 0 : ns_take_no_memory(t);
}

static bool is_there(const ns_take *t, const char *name)
{
    size_t i;
    json_t *tool;
    json_array_foreach(t->r.tools, i, tool)
        if (strcmp(json_string_value(json_object_get(json_object_get(tool, "function"), "name")), name) == 0)
            return true;
    return false;
}

static int take_choice(ns_take *t, json_t *v)
{
    static const char *const words[] = { "none", "auto", "required", NULL };
    static const enum ns_api_tools values[] = { NS_API_TOOLS_NONE, NS_API_TOOLS_AUTO, NS_API_TOOLS_REQUIRED };
    static const ns_field word = { .words = words };
    if (json_is_string(v)) {
        if (ns_take_word(t, &word, v) != 0)
            return -1;
        for (int i = 0; words[i]; i++)
            if (strcmp(words[i], json_string_value(v)) == 0)
                t->r.tool_choice = values[i];
    } else {
        if (take_function(t, v, choice_fields) != 0)
            return -1;
        t->r.tool_choice = NS_API_TOOLS_NAMED;
        memcpy(t->r.tool_name, t->m.name, strlen(t->m.name) + 1);
    }
    if (t->r.tool_choice >= NS_API_TOOLS_REQUIRED && !t->r.tools)
        return ns_take_fail(t, "invalid_value", "needs tools");
    if (t->r.tool_choice == NS_API_TOOLS_NAMED && !is_there(t, t->r.tool_name))
        return ns_take_fail(t, "invalid_value", "no tool is named \"%s\"", t->r.tool_name);
    return 0;
}

int ns_take_tools(ns_take *t)
{
    ns_api_request *r = &t->r;
    size_t was = ns_take_enter(t, "tools");
    if (json_array_size(t->tools)) {
        r->tools = json_array();
        if (json_object_set_new(r->chat, "tools", r->tools) != 0)
            return ns_take_no_memory(t);
        if (ns_take_each(t, t->tools, take_tool) != 0)
            return -1;
        r->tool_choice = NS_API_TOOLS_AUTO;
    }
    ns_take_leave(t, was);
    was = ns_take_enter(t, "tool_choice");
    if (t->tool_choice && take_choice(t, t->tool_choice) != 0)
        return -1;
    ns_take_leave(t, was);
    if (!r->tools || r->tool_choice == NS_API_TOOLS_NONE) { /* what must not be called is not shown */
        json_object_del(r->chat, "tools");
        r->tools = NULL;
        r->tool_choice = NS_API_TOOLS_NONE;
    }
    return 0;
}
