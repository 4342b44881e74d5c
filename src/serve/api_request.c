/* A request's body: the members at its top, what they have to do with each other, and the way through. */
#include <limits.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "serve/api_request.h"

static int take_seed(ns_take *t, const ns_field *f, json_t *v);
static int take_stop(ns_take *t, const ns_field *f, json_t *v);
static int take_metadata(ns_take *t, const ns_field *f, json_t *v);
static int take_modalities(ns_take *t, const ns_field *f, json_t *v);
static int take_include(ns_take *t, const ns_field *f, json_t *v);
static int take_logprobs(ns_take *t, const ns_field *f, json_t *v);

static const char *const words_medium[] = { "medium", NULL }, *const words_disabled[] = { "disabled", NULL },
                  *const words_format[] = { "text", "json_object", "json_schema", NULL };

static const ns_field stream_options_fields[] = {
    { "include_usage", NS_IN_CHAT | NS_IN_COMPLETIONS, .take = ns_take_bool, .to = NS_AT(r.include_usage) },
    { "include_obfuscation", NS_IN_ALL, .take = ns_take_bool }, /* padding against listeners, none of the answer */
    { 0 },
};

static const ns_field json_schema_fields[] = {
    { "name", NS_IN_CHAT, .take = ns_take_word },
    { "description", NS_IN_CHAT, .take = ns_take_string },
    { "schema", NS_IN_CHAT, .take = ns_take_object, .to = NS_AT(r.schema) },
    { "strict", NS_IN_CHAT, .take = ns_take_bool }, /* held strictly either way */
    { 0 },
};

static const ns_field format_fields[] = {
    { "type", NS_IN_TALK, .take = ns_take_word, .to = NS_AT(format_type), .words = words_format },
    { "json_schema", NS_IN_CHAT, .take = ns_take_sub, .sub = json_schema_fields },
    { "name", NS_IN_RESPONSES, .take = ns_take_word },
    { "description", NS_IN_RESPONSES, .take = ns_take_string },
    { "schema", NS_IN_RESPONSES, .take = ns_take_object, .to = NS_AT(r.schema) },
    { "strict", NS_IN_RESPONSES, .take = ns_take_bool },
    { 0 },
};

static const ns_field text_fields[] = {
    { "format", NS_IN_RESPONSES, .take = ns_take_sub, .to = NS_AT(format), .sub = format_fields },
    { "verbosity", NS_IN_RESPONSES, .take = ns_take_word, .words = words_medium },
    { 0 },
};

static const ns_field fields[] = {
    { "model", NS_IN_ALL, .take = ns_take_copy, .to = NS_AT(r.model), .hi = sizeof ((ns_api_request *)0)->model },
    { "messages", NS_IN_CHAT, .take = ns_take_array, .to = NS_AT(messages) },
    { "input", NS_IN_RESPONSES, .take = ns_take_any, .to = NS_AT(input) },
    { "instructions", NS_IN_RESPONSES, .take = ns_take_string, .to = NS_AT(instructions) },
    { "prompt", NS_IN_COMPLETIONS, .take = ns_take_any, .to = NS_AT(prompt) },
    { "tools", NS_IN_TALK, .take = ns_take_array, .to = NS_AT(tools) },
    { "tool_choice", NS_IN_TALK, .take = ns_take_any, .to = NS_AT(tool_choice) },
    { "parallel_tool_calls", NS_IN_TALK, .take = ns_take_bool, .to = NS_AT(r.parallel_calls) },
    { "stream", NS_IN_ALL, .take = ns_take_bool, .to = NS_AT(r.stream) },
    { "stream_options", NS_IN_ALL, .take = ns_take_sub, .to = NS_AT(stream_options), .sub = stream_options_fields },
    { "n", NS_IN_CHAT | NS_IN_COMPLETIONS, .take = ns_take_int, .to = NS_AT(r.n), .lo = 1, .hi = 16 },
    { "stop", NS_IN_ALL, .take = take_stop },
    { "seed", NS_IN_ALL, .take = take_seed },
    { "temperature", NS_IN_ALL, .take = ns_take_real, .to = NS_AT(r.temperature), .lo = 0, .hi = 2 },
    { "top_p", NS_IN_ALL, .take = ns_take_real, .to = NS_AT(r.top_p), .lo = 0, .hi = 1 },
    { "min_p", NS_IN_ALL, .take = ns_take_real, .to = NS_AT(r.min_p), .lo = 0, .hi = 1 },
    { "top_k", NS_IN_ALL, .take = ns_take_int, .to = NS_AT(r.top_k), .lo = -1, .hi = INT_MAX },
    { "repetition_penalty", NS_IN_ALL, .take = ns_take_real, .to = NS_AT(r.repetition_penalty), .lo = 0.01, .hi = 100 },
    { "ignore_eos", NS_IN_CHAT | NS_IN_COMPLETIONS, .take = ns_take_bool, .to = NS_AT(r.ignore_eos) },
    { "max_tokens", NS_IN_CHAT | NS_IN_COMPLETIONS, .take = ns_take_int, .to = NS_AT(max_tokens), .lo = 1, .hi = INT_MAX },
    { "max_completion_tokens", NS_IN_CHAT, .take = ns_take_int, .to = NS_AT(max_completion_tokens), .lo = 1, .hi = INT_MAX },
    { "max_output_tokens", NS_IN_RESPONSES, .take = ns_take_int, .to = NS_AT(max_tokens), .lo = 1, .hi = INT_MAX },
    { "logprobs", NS_IN_CHAT, .take = ns_take_bool, .to = NS_AT(r.logprobs) },
    { "logprobs", NS_IN_COMPLETIONS, .take = take_logprobs },
    { "top_logprobs", NS_IN_TALK, .take = ns_take_int, .to = NS_AT(top_logprobs), .lo = 0, .hi = 20 },
    { "include", NS_IN_RESPONSES, .take = take_include },
    { "response_format", NS_IN_CHAT, .take = ns_take_sub, .to = NS_AT(format), .sub = format_fields },
    { "text", NS_IN_RESPONSES, .take = ns_take_sub, .sub = text_fields },
    { "reasoning_effort", NS_IN_CHAT, .take = ns_take_effort },
    { "reasoning", NS_IN_RESPONSES, .take = ns_take_sub, .sub = ns_reasoning_fields },
    { "chat_template_kwargs", NS_IN_TALK, .take = ns_take_object, .to = NS_AT(kwargs) },
    { "nestar", NS_IN_ALL, .take = ns_take_sub, .sub = ns_nestar_fields },

    /* the answer is the same with and without them */
    { "user", NS_IN_ALL, .take = ns_take_string },
    { "metadata", NS_IN_TALK, .take = take_metadata },
    { "store", NS_IN_TALK, .take = ns_take_bool },
    { "service_tier", NS_IN_TALK, .take = ns_take_string },
    { "safety_identifier", NS_IN_TALK, .take = ns_take_string },
    { "prompt_cache_key", NS_IN_TALK, .take = ns_take_string },
    { "prompt_cache_retention", NS_IN_TALK, .take = ns_take_string },
    { "prompt_cache_options", NS_IN_TALK, .take = ns_take_object },
    { "prediction", NS_IN_CHAT, .take = ns_take_object }, /* a guess at the answer, for speed */
    { "max_tool_calls", NS_IN_RESPONSES, .take = ns_take_int, .lo = 0, .hi = INT_MAX }, /* of tools built into the API; there are none */

    /* held at the value that changes nothing */
    { "frequency_penalty", NS_IN_ALL, .take = ns_take_zero },
    { "presence_penalty", NS_IN_ALL, .take = ns_take_zero },
    { "logit_bias", NS_IN_ALL, .take = ns_take_empty },
    { "modalities", NS_IN_CHAT, .take = take_modalities },
    { "verbosity", NS_IN_CHAT, .take = ns_take_word, .words = words_medium },
    { "echo", NS_IN_COMPLETIONS, .take = ns_take_false },
    { "suffix", NS_IN_COMPLETIONS, .take = ns_take_empty },
    { "best_of", NS_IN_COMPLETIONS, .take = ns_take_int, .lo = 0, .hi = 1 },
    { "background", NS_IN_RESPONSES, .take = ns_take_false },
    { "truncation", NS_IN_RESPONSES, .take = ns_take_word, .words = words_disabled },

    { "audio", NS_IN_CHAT, .take = ns_take_refuse },
    { "web_search_options", NS_IN_CHAT, .take = ns_take_refuse },
    { "moderation", NS_IN_TALK, .take = ns_take_refuse },
    { "functions", NS_IN_CHAT, .take = ns_take_refuse },
    { "function_call", NS_IN_CHAT, .take = ns_take_refuse },
    { "previous_response_id", NS_IN_RESPONSES, .take = ns_take_refuse },
    { "conversation", NS_IN_RESPONSES, .take = ns_take_refuse },
    { "prompt", NS_IN_RESPONSES, .take = ns_take_refuse },
    { "context_management", NS_IN_RESPONSES, .take = ns_take_refuse },
    { 0 },
};

/* ---- members with more than one shape ---- */

static int take_seed(ns_take *t, const ns_field *f, json_t *v)
{
    (void)f;
    if (!json_is_integer(v))
        return ns_take_expected(t, "an integer", v);
    t->r.has_seed = true;
    t->r.seed = (uint64_t)json_integer_value(v);
    return 0;
}

static int take_one_stop(ns_take *t, json_t *v)
{
    static const ns_field plain = { .name = "stop" };
    if (ns_take_word(t, &plain, v) != 0)
        return -1;
    char *s = t->r.stop[t->r.n_stops] = strdup(json_string_value(v));
    if (!s)
        return ns_take_no_memory(t);
    t->r.n_stops++;
    return 0;
}

static int take_stop(ns_take *t, const ns_field *f, json_t *v)
{
    (void)f;
    if (json_is_string(v))
        return take_one_stop(t, v);
    if (!json_is_array(v))
        return ns_take_expected(t, "a string or an array of strings", v);
    if (json_array_size(v) > NS_API_STOPS)
        return ns_take_fail(t, "invalid_value", "%zu strings, at most %d are allowed", json_array_size(v), NS_API_STOPS);
    return ns_take_each(t, v, take_one_stop);
}

static int take_metadata(ns_take *t, const ns_field *f, json_t *v)
{
    const char *key;
    json_t *item;
    if (ns_take_object(t, f, v) != 0)
        return -1;
    json_object_foreach(v, key, item) {
        size_t was = ns_take_enter(t, key);
        if (!json_is_string(item))
            return ns_take_expected(t, "a string", item);
        ns_take_leave(t, was);
    }
    return 0;
}

static int take_modality(ns_take *t, json_t *v)
{
    static const char *const text[] = { "text", NULL };
    static const ns_field f = { .words = text };
    return ns_take_word(t, &f, v);
}

static int take_modalities(ns_take *t, const ns_field *f, json_t *v)
{
    return ns_take_array(t, f, v) != 0 ? -1 : ns_take_each(t, v, take_modality);
}

/* Logprobs are held. Of the rest there is nothing to include: no built-in tools, and reasoning is sent in clear. */
static int take_included(ns_take *t, json_t *v)
{
    static const char *const logprobs = "message.output_text.logprobs";
    static const char *const known[] = { "message.output_text.logprobs", "reasoning.encrypted_content", "file_search_call.results",
                                         "web_search_call.results", "web_search_call.action.sources", "message.input_image.image_url",
                                         "computer_call_output.output.image_url", "code_interpreter_call.outputs", NULL };
    static const ns_field f = { .words = known };
    if (ns_take_word(t, &f, v) != 0)
        return -1;
    t->r.logprobs = t->r.logprobs || strcmp(json_string_value(v), logprobs) == 0;
    return 0;
}

static int take_include(ns_take *t, const ns_field *f, json_t *v)
{
    return ns_take_array(t, f, v) != 0 ? -1 : ns_take_each(t, v, take_included);
}

/* Completions say with one number that there are logprobs and how many others. */
static int take_logprobs(ns_take *t, const ns_field *f, json_t *v)
{
    ns_field count = *f;
    count.to = NS_AT(top_logprobs);
    count.hi = 20;
    t->r.logprobs = true;
    return ns_take_int(t, &count, v);
}

/* ---- members together ---- */

static int fail_at(ns_take *t, const char *member, const char *code, const char *why)
{
    ns_take_enter(t, member);
    return ns_take_fail(t, code, "%s", why);
}

static int join_limits(ns_take *t)
{
    if (t->max_tokens && t->max_completion_tokens && t->max_tokens != t->max_completion_tokens)
        return fail_at(t, "max_tokens", "invalid_value", "differs from max_completion_tokens");
    t->r.max_tokens = t->max_completion_tokens ? t->max_completion_tokens : t->max_tokens;
    if (t->r.api == NS_API_COMPLETIONS && !t->r.max_tokens)
        t->r.max_tokens = 16; /* the API's own default, of completions only */
    return 0;
}

static int join_logprobs(ns_take *t)
{
    if (t->top_logprobs >= 0 && !t->r.logprobs && t->r.api == NS_API_CHAT)
        return fail_at(t, "top_logprobs", "invalid_value", "needs logprobs to be true");
    t->r.top_logprobs = t->top_logprobs > 0 ? t->top_logprobs : 0;
    t->r.logprobs = t->r.logprobs || t->r.top_logprobs > 0;
    return 0;
}

static int join_format(ns_take *t)
{
    const bool chat = t->r.api == NS_API_CHAT;
    if (!t->format)
        return 0;
    ns_take_enter(t, chat ? "response_format" : "text.format");
    if (!t->format_type)
        return ns_take_missing(t, "type");
    if (strcmp(t->format_type, "json_schema") == 0)
        t->r.format = NS_API_JSON_SCHEMA;
    else if (strcmp(t->format_type, "json_object") == 0)
        t->r.format = NS_API_JSON_OBJECT;
    if (t->r.format == NS_API_JSON_SCHEMA && !t->r.schema)
        return ns_take_missing(t, chat ? "json_schema.schema" : "schema");
    if (t->r.format != NS_API_JSON_SCHEMA && t->r.schema)
        return ns_take_fail(t, "invalid_value", "a schema goes with the type \"json_schema\" only");
    if (t->r.format != NS_API_TEXT && t->r.tools) /* a constrained answer has no room for a call */
        return ns_take_fail(t, "unsupported_parameter", "not supported beside tools (unless tool_choice is \"none\")");
    ns_take_leave(t, 0);
    return 0;
}

static int join(ns_take *t)
{
    ns_api_request *r = &t->r;
    if (!r->model[0])
        return ns_take_missing(t, "model");
    if (t->stream_options && !r->stream)
        return fail_at(t, "stream_options", "invalid_value", "needs stream to be true");
    if (r->top_k < 0 && json_is_number(json_object_get(r->all, "top_k")))
        r->top_k = 0; /* -1 and 0 both keep all in other servers; here -1 is "not given" */
    if (r->top_p <= 0)
        r->top_p = DBL_MIN; /* keeps the likeliest alone */
    if (join_limits(t) != 0 || join_logprobs(t) != 0)
        return -1;
    if (r->api == NS_API_COMPLETIONS)
        return ns_take_prompt(t);
    r->chat = json_object();
    if (!r->chat)
        return ns_take_no_memory(t);
    if (ns_take_thinking(t) != 0 || ns_take_tools(t) != 0 || join_format(t) != 0)
        return -1;
    return r->api == NS_API_CHAT ? ns_take_messages(t) : ns_take_items(t);
}

/* ---- the whole ---- */

static int read_body(ns_take *t, const char *body, size_t n)
{
    ns_err e = { 0 };
    if (ns_take_scan(t, body, n) != 0)
        return -1;
    t->r.all = ns_json_parse(body, n, false, "request body", &e);
    if (!t->r.all)
        return ns_take_fail(t, NULL, "%s", e.msg);
    if (!json_is_object(t->r.all))
        return ns_take_fail(t, NULL, "request body: expected a JSON object");
    return ns_take_members(t, t->r.all, fields) != 0 ? -1 : join(t);
}

int ns_api_parse(enum ns_api api, const char *body, size_t n, ns_api_request *out, ns_api_error *err)
{
    ns_take t = { .r = { .api = api, .n = 1, .temperature = NAN, .top_p = NAN, .min_p = NAN, .repetition_penalty = NAN, .top_k = -1,
                         .thinks = api != NS_API_COMPLETIONS, .parallel_calls = true },
                  .err = err, .top_logprobs = -1, .effort = -1, .think_budget = -1 };
    int rc = read_body(&t, body, n);
    if (rc != 0)
        ns_api_request_release(&t.r);
    *out = t.r;
    return rc;
}

void ns_api_request_release(ns_api_request *r)
{
    if (!r)
        return;
    json_decref(r->chat);
    json_decref(r->all);
    free(r->ids);
    for (int i = 0; i < r->n_stops; i++)
        free(r->stop[i]);
    *r = (ns_api_request){ 0 };
}
