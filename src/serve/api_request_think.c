/* How long to think, at which sizes, and what the chat template is told besides the messages. */
#include <limits.h>
#include <string.h>

#include "serve/api_request.h"

/* What an effort is here, in tokens of thought. */
static const struct {
    const char *name;
    bool thinks;
    int budget; /* 0: no limit */
} efforts[] = {
    { "none", false, 0 },    { "minimal", true, 256 }, { "low", true, 1024 }, { "medium", true, 4096 },
    { "high", true, 16384 }, { "xhigh", true, 0 },     { "max", true, 0 },
};

int ns_take_effort(ns_take *t, const ns_field *f, json_t *v)
{
    ns_field plain = *f;
    plain.to = 0;
    if (ns_take_word(t, &plain, v) != 0)
        return -1;
    for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++)
        if (strcmp(efforts[i].name, json_string_value(v)) == 0) {
            t->effort = (int)i;
            return 0;
        }
    return ns_take_fail(t, "invalid_value", "\"%.60s\" is none of none, minimal, low, medium, high, xhigh and max", json_string_value(v));
}

static const char *const words_auto[] = { "auto", NULL }, *const words_standard[] = { "standard", NULL },
                  *const words_context[] = { "auto", "current_turn", NULL },
                  *const words_handover[] = { "auto", "cache", "prefill", "late", NULL };

const ns_field ns_reasoning_fields[] = {
    { "effort", NS_IN_RESPONSES, .take = ns_take_effort },
    { "summary", NS_IN_RESPONSES, .take = ns_take_word, .words = words_auto }, /* none is made: the thought itself is sent */
    { "generate_summary", NS_IN_RESPONSES, .take = ns_take_word, .words = words_auto },
    { "context", NS_IN_RESPONSES, .take = ns_take_word, .words = words_context }, /* templates repeat the thoughts of the current turn only */
    { "mode", NS_IN_RESPONSES, .take = ns_take_word, .words = words_standard },
    { 0 },
};

#define ROOM(member) sizeof ((ns_api_request *)0)->member
const ns_field ns_nestar_fields[] = {
    { "think", NS_IN_TALK, .take = ns_take_copy, .to = NS_AT(r.think), .hi = ROOM(think) },
    { "answer", NS_IN_ALL, .take = ns_take_copy, .to = NS_AT(r.answer), .hi = ROOM(answer) },
    { "think_budget", NS_IN_TALK, .take = ns_take_int, .to = NS_AT(think_budget), .lo = 0, INT_MAX - 1 },
    { "handover", NS_IN_ALL, .take = ns_take_copy, .to = NS_AT(r.handover), .hi = ROOM(handover), .words = words_handover },
    { "deadline_ms", NS_IN_ALL, .take = ns_take_int, .to = NS_AT(r.deadline_ms), .lo = 1, .hi = 24 * 3600 * 1000 },
    { 0 },
};

/* Names that are not the client's: what stands elsewhere in the request, and what the template writes as special tokens. */
static bool reserved(const char *name)
{
    static const char *const names[] = { "messages", "tools", "add_generation_prompt", NULL };
    size_t n = strlen(name), suffix = strlen("_token");
    for (size_t i = 0; names[i]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return n >= suffix && strcmp(name + n - suffix, "_token") == 0;
}

/* Into r.chat, beside what comes later. */
static int take_kwargs(ns_take *t)
{
    const char *key;
    json_t *v;
    size_t was = ns_take_enter(t, "chat_template_kwargs");
    json_object_foreach(t->kwargs, key, v) {
        size_t here = ns_take_enter(t, key);
        if (reserved(key))
            return ns_take_fail(t, "invalid_value", "is not the client's to set");
        if (strcmp(key, "enable_thinking") == 0 && !json_is_boolean(v))
            return ns_take_expected(t, "true or false", v);
        if (json_object_set(t->r.chat, key, v) != 0)
            return ns_take_no_memory(t);
        ns_take_leave(t, here);
    }
    ns_take_leave(t, was);
    return 0;
}

/* The effort, then the template's own switch, then nestar.think_budget: who is more exact has the last word. */
int ns_take_thinking(ns_take *t)
{
    ns_api_request *r = &t->r;
    if (t->kwargs && take_kwargs(t) != 0)
        return -1;
    const json_t *told = json_object_get(r->chat, "enable_thinking");
    if (t->effort >= 0) {
        r->thinks = efforts[t->effort].thinks;
        r->think_budget = efforts[t->effort].budget;
    }
    if (told)
        r->thinks = json_is_true(told);
    if (t->think_budget >= 0) {
        r->thinks = t->think_budget > 0;
        r->think_budget = t->think_budget;
    }
    if (!r->thinks)
        r->think_budget = 0;
    if ((told || !r->thinks) && json_object_set_new(r->chat, "enable_thinking", json_boolean(r->thinks)) != 0)
        return ns_take_no_memory(t);
    return json_object_set_new(r->chat, "add_generation_prompt", json_true()) == 0 ? 0 : ns_take_no_memory(t);
}
