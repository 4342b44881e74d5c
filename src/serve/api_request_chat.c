/* Chat messages as the chat templates of checkpoints expect them: contents as text, arguments as objects. */
#include <string.h>

#include "serve/api_request.h"

#define CHAT NS_IN_CHAT
static const char *const words_function[] = { "function", NULL };

static const ns_field said_fields[] = {
    { "role", CHAT, .take = ns_take_word },
    { "content", CHAT, .take = ns_take_any, .to = NS_AT(m.content) },
    { "name", CHAT, .take = ns_take_string, .to = NS_AT(m.speaker) },
    { 0 },
};

static const ns_field assistant_fields[] = {
    { "role", CHAT, .take = ns_take_word },
    { "content", CHAT, .take = ns_take_any, .to = NS_AT(m.content) },
    { "name", CHAT, .take = ns_take_string, .to = NS_AT(m.speaker) },
    { "reasoning_content", CHAT, .take = ns_take_string, .to = NS_AT(m.thought) },
    { "refusal", CHAT, .take = ns_take_string, .to = NS_AT(m.refusal) },
    { "tool_calls", CHAT, .take = ns_take_array, .to = NS_AT(m.calls) },
    { "annotations", CHAT, .take = ns_take_empty }, /* replies have them, and clients send replies back */
    { "audio", CHAT, .take = ns_take_refuse },
    { "function_call", CHAT, .take = ns_take_refuse },
    { 0 },
};

static const ns_field tool_fields[] = {
    { "role", CHAT, .take = ns_take_word },
    { "content", CHAT, .take = ns_take_any, .to = NS_AT(m.content) },
    { "name", CHAT, .take = ns_take_string, .to = NS_AT(m.speaker) },
    { "tool_call_id", CHAT, .take = ns_take_word, .to = NS_AT(m.id) },
    { 0 },
};

static const ns_field call_function_fields[] = {
    { "name", CHAT, .take = ns_take_word, .to = NS_AT(m.name) },
    { "arguments", CHAT, .take = ns_take_any, .to = NS_AT(m.arguments) },
    { 0 },
};

static const ns_field call_fields[] = {
    { "id", CHAT, .take = ns_take_word, .to = NS_AT(m.id) },
    { "type", CHAT, .take = ns_take_word, .words = words_function },
    { "index", CHAT, .take = ns_take_skip }, /* of streamed replies */
    { "function", CHAT, .take = ns_take_sub, .to = NS_AT(m.function), .sub = call_function_fields },
    { 0 },
};

static const struct role {
    const char *name, *as; /* the client's; the template's */
    const ns_field *fields;
    unsigned parts;
} roles[] = {
    { "system", "system", said_fields, NS_PART_CHAT },
    { "developer", "system", said_fields, NS_PART_CHAT },
    { "user", "user", said_fields, NS_PART_CHAT },
    { "assistant", "assistant", assistant_fields, NS_PART_CHAT | NS_PART_REFUSAL },
    { "tool", "tool", tool_fields, NS_PART_CHAT },
};

json_t *ns_take_message(ns_take *t, const char *role, json_t *content)
{
    json_t *messages = json_object_get(t->r.chat, "messages");
    if (!content)
        return NULL;
    json_t *m = json_pack("{s:s, s:o}", "role", role, "content", content);
    if (!m || json_array_append_new(messages, m) != 0) {
        ns_take_no_memory(t);
        return NULL;
    }
    return m;
}

int ns_take_call(ns_take *t, json_t *calls)
{
    if (!t->m.name)
        return ns_take_missing(t, "name");
    if (!t->m.arguments)
        return ns_take_missing(t, "arguments");
    size_t was = ns_take_enter(t, "arguments");
    json_t *arguments = ns_take_arguments(t, t->m.arguments);
    if (!arguments)
        return -1;
    ns_take_leave(t, was);
    json_t *call = json_pack("{s:s, s:s, s:{s:s, s:o}}", "id", t->m.id, "type", "function", "function", "name", t->m.name, "arguments", arguments);
    return call && json_array_append_new(calls, call) == 0 ? 0 : ns_take_no_memory(t);
}

static int take_chat_call(ns_take *t, json_t *v, json_t *calls)
{
    memset(&t->m, 0, sizeof t->m);
    if (ns_take_members(t, v, call_fields) != 0)
        return -1;
    if (!t->m.id)
        return ns_take_missing(t, "id");
    if (!t->m.function)
        return ns_take_missing(t, "function");
    size_t was = ns_take_enter(t, "function");
    if (ns_take_call(t, calls) != 0)
        return -1;
    ns_take_leave(t, was);
    return 0;
}

static int take_calls(ns_take *t, json_t *m, json_t *from)
{
    json_t *calls = json_array(), *v;
    size_t i, was = ns_take_enter(t, "tool_calls");
    if (json_object_set_new(m, "tool_calls", calls) != 0)
        return ns_take_no_memory(t);
    json_array_foreach(from, i, v) {
        size_t here = ns_take_enter_at(t, i);
        if (take_chat_call(t, v, calls) != 0)
            return -1;
        ns_take_leave(t, here);
    }
    ns_take_leave(t, was);
    return 0;
}

static int pass_on(ns_take *t, json_t *m, const char *name, json_t *v)
{
    return !v || json_object_set(m, name, v) == 0 ? 0 : ns_take_no_memory(t);
}

/* Of an answer that was a refusal or a call the content may be missing; templates get a text all the same. */
static json_t *content(ns_take *t, const struct role *role)
{
    if (!t->m.content && t->m.refusal)
        return ns_take_text(t, "refusal", t->m.refusal, 0);
    if (t->m.content || !(t->m.calls || t->m.thought))
        return ns_take_text(t, "content", t->m.content, role->parts);
    json_t *empty = json_string("");
    if (!empty)
        ns_take_no_memory(t);
    return empty;
}

static int take_message(ns_take *t, json_t *v)
{
    const struct role *role = roles, *end = roles + sizeof roles / sizeof *roles;
    const char *name = ns_take_kind(t, v, "role");
    if (!name)
        return -1;
    while (role < end && strcmp(role->name, name) != 0)
        role++;
    if (role == end) {
        ns_take_enter(t, "role");
        return ns_take_fail(t, "invalid_value", "\"%.60s\" is none of system, developer, user, assistant and tool", name);
    }
    memset(&t->m, 0, sizeof t->m);
    if (ns_take_members(t, v, role->fields) != 0)
        return -1;
    if (role->fields == tool_fields && !t->m.id)
        return ns_take_missing(t, "tool_call_id");
    json_t *m = ns_take_message(t, role->as, content(t, role));
    if (!m || pass_on(t, m, "name", t->m.speaker) != 0 || pass_on(t, m, "reasoning_content", t->m.thought) != 0)
        return -1;
    if (t->m.id && json_object_set_new(m, "tool_call_id", json_string(t->m.id)) != 0)
        return ns_take_no_memory(t);
    return json_array_size(t->m.calls) ? take_calls(t, m, t->m.calls) : 0;
}

int ns_take_messages(ns_take *t)
{
    if (!t->messages)
        return ns_take_missing(t, "messages");
    ns_take_enter(t, "messages");
    if (json_array_size(t->messages) == 0)
        return ns_take_fail(t, "invalid_value", "must not be empty");
    if (json_object_set_new(t->r.chat, "messages", json_array()) != 0)
        return ns_take_no_memory(t);
    return ns_take_each(t, t->messages, take_message);
}
