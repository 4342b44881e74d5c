/* The Responses API's input as messages. Its items are smaller than messages: what an assistant did in one turn comes as reasoning, a text
 * and calls, one item each, and is one message of the template. */
#include <string.h>

#include "serve/api_request.h"

#define RESPONSES NS_IN_RESPONSES
#define COMMON \
    { "type", RESPONSES, .take = ns_take_word }, { "id", RESPONSES, .take = ns_take_skip }, { "status", RESPONSES, .take = ns_take_skip }

static const char *const words_role[] = { "user", "assistant", "system", "developer", NULL };

static const ns_field message_fields[] = {
    COMMON,
    { "role", RESPONSES, .take = ns_take_word, .to = NS_AT(m.role), .words = words_role },
    { "content", RESPONSES, .take = ns_take_any, .to = NS_AT(m.content) },
    { "phase", RESPONSES, .take = ns_take_skip },
    { 0 },
};

static const ns_field call_fields[] = {
    COMMON,
    { "call_id", RESPONSES, .take = ns_take_word, .to = NS_AT(m.id) },
    { "name", RESPONSES, .take = ns_take_word, .to = NS_AT(m.name) },
    { "arguments", RESPONSES, .take = ns_take_any, .to = NS_AT(m.arguments) },
    { "namespace", RESPONSES, .take = ns_take_refuse },
    { "caller", RESPONSES, .take = ns_take_refuse },
    { 0 },
};

static const ns_field output_fields[] = {
    COMMON,
    { "call_id", RESPONSES, .take = ns_take_word, .to = NS_AT(m.id) },
    { "output", RESPONSES, .take = ns_take_any, .to = NS_AT(m.content) },
    { "name", RESPONSES, .take = ns_take_skip },
    { "namespace", RESPONSES, .take = ns_take_refuse },
    { "caller", RESPONSES, .take = ns_take_refuse },
    { 0 },
};

static const ns_field reasoning_fields[] = {
    COMMON,
    { "content", RESPONSES, .take = ns_take_array, .to = NS_AT(m.content) },
    { "summary", RESPONSES, .take = ns_take_array, .to = NS_AT(m.summary) },
    { "encrypted_content", RESPONSES, .take = ns_take_refuse },
    { 0 },
};

/* The assistant's message that a text or a call goes into: the open one, or a new one with an empty text. */
static json_t *open_turn(ns_take *t)
{
    if (!t->turn) {
        json_t *empty = json_string("");
        t->turn = empty ? ns_take_message(t, "assistant", empty) : NULL;
        if (!empty)
            ns_take_no_memory(t);
    }
    return t->turn;
}

static int take_assistant(ns_take *t)
{
    json_t *text = ns_take_text(t, "content", t->m.content, NS_PART_INPUT | NS_PART_OUTPUT | NS_PART_REFUSAL);
    if (!text)
        return -1;
    if (t->turn && (json_object_get(t->turn, "tool_calls") || json_string_length(json_object_get(t->turn, "content"))))
        t->turn = NULL; /* it has said its text */
    if (!open_turn(t)) {
        json_decref(text);
        return -1;
    }
    return json_object_set_new(t->turn, "content", text) == 0 ? 0 : ns_take_no_memory(t);
}

static int take_said(ns_take *t)
{
    if (!t->m.role)
        return ns_take_missing(t, "role");
    if (strcmp(t->m.role, "assistant") == 0)
        return take_assistant(t);
    t->turn = NULL;
    json_t *text = ns_take_text(t, "content", t->m.content, NS_PART_INPUT);
    return ns_take_message(t, strcmp(t->m.role, "user") == 0 ? "user" : "system", text) ? 0 : -1;
}

static int take_call(ns_take *t)
{
    if (!t->m.id)
        return ns_take_missing(t, "call_id");
    json_t *turn = open_turn(t), *calls = json_object_get(turn, "tool_calls");
    if (turn && !calls && json_object_set_new(turn, "tool_calls", calls = json_array()) != 0)
        return ns_take_no_memory(t);
    return turn ? ns_take_call(t, calls) : -1;
}

static int take_output(ns_take *t)
{
    if (!t->m.id)
        return ns_take_missing(t, "call_id");
    t->turn = NULL;
    json_t *m = ns_take_message(t, "tool", ns_take_text(t, "output", t->m.content, NS_PART_INPUT));
    if (!m)
        return -1;
    return json_object_set_new(m, "tool_call_id", json_string(t->m.id)) == 0 ? 0 : ns_take_no_memory(t);
}

/* Reasoning begins a turn. Its summary stands in where there is no text. */
static int take_reasoning(ns_take *t)
{
    bool whole = json_array_size(t->m.content) > 0;
    json_t *text = whole ? ns_take_text(t, "content", t->m.content, NS_PART_REASONING)
                         : ns_take_text(t, "summary", t->m.summary, NS_PART_SUMMARY);
    if (!text)
        return -1;
    t->turn = NULL;
    if (!open_turn(t)) {
        json_decref(text);
        return -1;
    }
    return json_object_set_new(t->turn, "reasoning_content", text) == 0 ? 0 : ns_take_no_memory(t);
}

static const struct {
    const char *type;
    const ns_field *fields;
    int (*take)(ns_take *t);
} items[] = {
    { "message", message_fields, take_said },
    { "function_call", call_fields, take_call },
    { "function_call_output", output_fields, take_output },
    { "reasoning", reasoning_fields, take_reasoning },
};

static int take_item(ns_take *t, json_t *v)
{
    const json_t *named = json_object_get(v, "type");
    bool short_form = json_object_get(v, "role") && (!named || json_is_null(named));
    const char *type = short_form ? "message" : ns_take_kind(t, v, "type");
    if (!type)
        return -1;
    for (size_t i = 0; i < sizeof items / sizeof *items; i++)
        if (strcmp(items[i].type, type) == 0) {
            memset(&t->m, 0, sizeof t->m);
            return ns_take_members(t, v, items[i].fields) != 0 ? -1 : items[i].take(t);
        }
    ns_take_enter(t, "type");
    return ns_take_fail(t, "unsupported_parameter", "\"%.60s\" is none of message, function_call, function_call_output and reasoning", type);
}

int ns_take_items(ns_take *t)
{
    if (json_object_set_new(t->r.chat, "messages", json_array()) != 0)
        return ns_take_no_memory(t);
    if (t->instructions && !ns_take_message(t, "system", json_incref(t->instructions)))
        return -1;
    if (!t->input)
        return ns_take_missing(t, "input");
    ns_take_enter(t, "input");
    if (json_is_string(t->input))
        return ns_take_message(t, "user", json_incref(t->input)) ? 0 : -1;
    if (!json_is_array(t->input))
        return ns_take_expected(t, "a string or an array of items", t->input);
    if (json_array_size(t->input) == 0)
        return ns_take_fail(t, "invalid_value", "must not be empty");
    return ns_take_each(t, t->input, take_item);
}
