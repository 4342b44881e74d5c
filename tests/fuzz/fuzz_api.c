/* The body of a request; its first byte chooses the API. What is taken is in range and in the form that templates read, and is taken the
 * same from its own JSON written again; what is refused gives an error that is JSON. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "serve/api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static bool within(double x, double lo, double hi)
{
    return isnan(x) || (x >= lo && x <= hi);
}

static void check_messages(const json_t *chat)
{
    size_t i, k;
    json_t *m, *call, *messages = json_object_get(chat, "messages");
    must(json_array_size(messages) > 0);
    must(json_is_true(json_object_get(chat, "add_generation_prompt")));
    must(!json_object_get(chat, "bos_token"));
    json_array_foreach(messages, i, m) {
        const char *role = json_string_value(json_object_get(m, "role"));
        must(role && (!strcmp(role, "system") || !strcmp(role, "user") || !strcmp(role, "assistant") || !strcmp(role, "tool")));
        must(json_is_string(json_object_get(m, "content")));
        json_t *thought = json_object_get(m, "reasoning_content"), *calls = json_object_get(m, "tool_calls");
        must(!thought || json_is_string(thought));
        must(!calls || json_array_size(calls) > 0);
        json_array_foreach(calls, k, call) {
            json_t *f = json_object_get(call, "function");
            must(json_is_string(json_object_get(call, "id")) && json_is_string(json_object_get(f, "name")));
            must(json_is_object(json_object_get(f, "arguments")));
        }
    }
}

static void check_tools(const ns_api_request *r)
{
    must(r->tools == json_object_get(r->chat, "tools"));
    must((r->tools != NULL) == (r->tool_choice != NS_API_TOOLS_NONE));
    must((r->tool_choice == NS_API_TOOLS_NAMED) == (r->tool_name[0] != 0));
    must(strlen(r->tool_name) <= 64);
    size_t i;
    json_t *tool;
    json_array_foreach(r->tools, i, tool)
        must(json_is_string(json_object_get(json_object_get(tool, "function"), "name")));
}

static void check_request(const ns_api_request *r)
{
    must(r->n >= 1 && r->n <= 16 && r->top_k >= -1 && r->max_tokens >= 0 && r->deadline_ms >= 0);
    must(within(r->temperature, 0, 2) && within(r->min_p, 0, 1) && within(r->repetition_penalty, 0.01, 100));
    must(within(r->top_p, 0, 1) && (isnan(r->top_p) || r->top_p > 0));
    must(r->top_logprobs >= 0 && r->top_logprobs <= 20 && (r->logprobs || r->top_logprobs == 0));
    must(r->model[0] && r->n_stops <= NS_API_STOPS && (r->stream || !r->include_usage));
    for (int i = 0; i < r->n_stops; i++)
        must(r->stop[i][0] != 0);
    must((r->format == NS_API_JSON_SCHEMA) == (r->schema != NULL));
    must(r->think_budget >= 0 && (r->thinks || r->think_budget == 0));
    if (r->api == NS_API_COMPLETIONS) {
        must(!r->chat && !r->thinks && !r->tools && (r->prompt ? r->n_prompt > 0 && !r->ids : r->ids && r->n_ids > 0));
        return;
    }
    must(r->thinks || json_is_false(json_object_get(r->chat, "enable_thinking")));
    check_messages(r->chat);
    check_tools(r);
}

static void check_again(const ns_api_request *r)
{
    char *text = json_dumps(r->all, JSON_COMPACT);
    ns_api_request again;
    ns_api_error e;
    must(text && ns_api_parse(r->api, text, strlen(text), &again, &e) == 0);
    must(r->chat ? json_equal(r->chat, again.chat) : again.n_prompt == r->n_prompt && again.n_ids == r->n_ids);
    must(again.thinks == r->thinks && again.think_budget == r->think_budget && again.n_stops == r->n_stops && again.seed == r->seed);
    ns_api_request_release(&again);
    free(text);
}

static void check_error(const ns_api_error *e)
{
    ns_buf b = { 0 };
    ns_api_error_write(e, &b);
    json_t *j = ns_json_parse(b.data, b.len, false, "error", NULL), *error = json_object_get(j, "error");
    must(e->status == 400 && e->message[0]);
    must(j && strcmp(json_string_value(json_object_get(error, "message")), e->message) == 0);
    must(e->param[0] ? strcmp(json_string_value(json_object_get(error, "param")), e->param) == 0 : json_is_null(json_object_get(error, "param")));
    json_decref(j);
    ns_buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ns_api_request r;
    ns_api_error e = { 0 };
    if (size == 0)
        return 0;
    enum ns_api api = data[0] == 'c' ? NS_API_COMPLETIONS : data[0] == 'r' ? NS_API_RESPONSES : NS_API_CHAT;
    if (ns_api_parse(api, (const char *)data + 1, size - 1, &r, &e) != 0) {
        must(!r.all && !r.chat && !r.ids);
        check_error(&e);
        return 0;
    }
    check_request(&r);
    check_again(&r);
    ns_api_request_release(&r);
    return 0;
}
