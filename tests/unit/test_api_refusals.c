/* Requests that are refused, by which name and why, and texts that are no request at all. */
#include <stdio.h>

#include "api_bodies.h"
#include "base/json.h"

#define PROMPT(members) "{'model': 'm', 'prompt': 'x', " members "}"
#define INPUT(members) "{'model': 'm', 'input': 'x', " members "}"
#define ITEM(members) "{'model': 'm', 'input': [{" members "}]}"
#define CALL(function) M("{'role': 'assistant', 'tool_calls': [{'id': 'c', 'type': 'function', 'function': " function "}]}")
#define CALLED "messages[0].tool_calls[0].function"

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        enum ns_api api;
        const char *body, *param, *why;
    } c[] = {
        { CHAT, "{'messages': [" ASKED "]}", "model", "required" },
        { CHAT, "{'model': 7}", "model", "expected a string, found a number" },
        { CHAT, "{'model': ''}", "model", "empty" },
        { CHAT, "{'model': 'a\\u0000b'}", "model", "NUL" },
        { CHAT, "{'model': 'm'}", "messages", "required" },
        { CHAT, M(""), "messages", "empty" },
        { CHAT, "{'model': 'm', 'messages': {}}", "messages", "expected an array, found an object" },
        { CHAT, WITH("'temprature': 1"), "temprature", "unknown parameter" },
        { CHAT, WITH("'prompt': 'x'"), "prompt", "unknown parameter" },
        { CHAT, WITH("'temperature': 2.1"), "temperature", "2.1 is outside 0 .. 2" },
        { CHAT, WITH("'temperature': '1'"), "temperature", "expected a number, found a string" },
        { CHAT, WITH("'top_p': -0.1"), "top_p", "outside" },
        { CHAT, WITH("'top_k': -2"), "top_k", "outside" },
        { CHAT, WITH("'repetition_penalty': 0"), "repetition_penalty", "outside" },
        { CHAT, WITH("'n': 0"), "n", "0 is outside 1 .. 16" },
        { CHAT, WITH("'n': 17"), "n", "outside" },
        { CHAT, WITH("'n': 1.5"), "n", "expected an integer" },
        { CHAT, WITH("'n': 1e300"), "n", "outside" },
        { CHAT, WITH("'seed': 1.0"), "seed", "expected an integer" },
        { CHAT, WITH("'max_tokens': 0"), "max_tokens", "outside" },
        { CHAT, WITH("'max_tokens': 2147483648"), "max_tokens", "outside" },
        { CHAT, WITH("'max_tokens': 1, 'max_completion_tokens': 2"), "max_tokens", "differs" },
        { CHAT, WITH("'top_logprobs': 3"), "top_logprobs", "needs logprobs" },
        { CHAT, WITH("'logprobs': true, 'top_logprobs': 21"), "top_logprobs", "outside" },
        { CHAT, WITH("'logprobs': 1"), "logprobs", "expected true or false" },
        { CHAT, WITH("'logit_bias': {'5': 1}"), "logit_bias", "not supported" },
        { CHAT, WITH("'frequency_penalty': 0.1"), "frequency_penalty", "not supported by this server other than 0" },
        { CHAT, WITH("'presence_penalty': -1"), "presence_penalty", "not supported" },
        { CHAT, WITH("'stream_options': {'include_usage': true}"), "stream_options", "needs stream" },
        { CHAT, WITH("'stream': true, 'stream_options': {'usage': true}"), "stream_options.usage", "unknown" },
        { CHAT, WITH("'stop': ['a', 'b', 'c', 'd', 'e']"), "stop", "5 strings, at most 4" },
        { CHAT, WITH("'stop': ['a', '']"), "stop[1]", "empty" },
        { CHAT, WITH("'stop': ['a', 5]"), "stop[1]", "expected a string" },
        { CHAT, WITH("'stop': 5"), "stop", "expected a string or an array" },
        { CHAT, WITH("'modalities': ['text', 'audio']"), "modalities[1]", "\"audio\" is not supported" },
        { CHAT, WITH("'verbosity': 'low'"), "verbosity", "expected \"medium\"" },
        { CHAT, WITH("'functions': []"), "functions", "not supported" },
        { CHAT, WITH("'web_search_options': {}"), "web_search_options", "not supported" },
        { CHAT, WITH("'reasoning_effort': 'some'"), "reasoning_effort", "\"some\" is none of" },
        { CHAT, WITH("'nestar': {'budget': 1}"), "nestar.budget", "unknown parameter" },
        { CHAT, WITH("'nestar': {'handover': 'slow'}"), "nestar.handover", "expected \"auto\", \"cache\", \"prefill\" or \"late\"" },
        { CHAT, WITH("'nestar': {'think': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'}"),
          "nestar.think", "64 bytes, at most 63" },
        { CHAT, WITH("'nestar': {'think_budget': -1}"), "nestar.think_budget", "outside" },
        { CHAT, WITH("'nestar': 1"), "nestar", "expected an object" },
        { COMPLETIONS, PROMPT("'nestar': {'think_budget': 1}"), "nestar.think_budget", "unknown parameter" },
        { CHAT, WITH("'chat_template_kwargs': {'bos_token': '<|im_start|>'}"), "chat_template_kwargs.bos_token", "not the client's" },
        { CHAT, WITH("'chat_template_kwargs': {'messages': []}"), "chat_template_kwargs.messages", "not the client's" },
        { CHAT, WITH("'chat_template_kwargs': {'enable_thinking': 'no'}"), "chat_template_kwargs.enable_thinking", "expected true or false" },
        { CHAT, WITH("'response_format': {}"), "response_format.type", "required" },
        { CHAT, WITH("'response_format': {'type': 'xml'}"), "response_format.type", "\"xml\" is not supported" },
        { CHAT, WITH("'response_format': {'type': 'json_schema'}"), "response_format.json_schema.schema", "required" },
        { CHAT, WITH("'response_format': {'type': 'text', 'json_schema': {'schema': {}}}"), "response_format", "schema" },
        { CHAT, WITH("'response_format': {'type': 'json_object'}, 'tools': [" TOOL "]"), "response_format", "beside tools" },
        { RESPONSES, INPUT("'text': {'format': {'type': 'json_schema', 'name': 'n'}}"), "text.format.schema", "required" },
        /* tools */
        { CHAT, WITH("'tools': [{'type': 'custom', 'custom': {'name': 'f'}}]"), "tools[0].type", "\"custom\" is not supported" },
        { CHAT, WITH("'tools': [{'type': 'function', 'function': {'name': 'a b'}}]"), "tools[0].function.name", "letters" },
        { CHAT, WITH("'tools': [{'type': 'function', 'function': {'name': 'f', 'parameters': []}}]"),
          "tools[0].function.parameters", "expected an object" },
        { CHAT, WITH("'tools': [" TOOL ", {'type': 'function', 'function': {}}]"), "tools[1].function.name", "required" },
        { CHAT, WITH("'tools': [5]"), "tools[0]", "expected an object" },
        { CHAT, WITH("'tool_choice': 'required'"), "tool_choice", "needs tools" },
        { CHAT, WITH("'tools': [" TOOL "], 'tool_choice': {'type': 'function', 'function': {'name': 'g'}}"),
          "tool_choice", "no tool is named \"g\"" },
        { CHAT, WITH("'tools': [" TOOL "], 'tool_choice': {'type': 'allowed_tools', 'allowed_tools': {}}"), "tool_choice.type", "allowed_tools" },
        { RESPONSES, INPUT("'tools': [{'type': 'web_search_preview'}]"), "tools[0].type", "web_search_preview" },
        /* messages */
        { CHAT, M("5"), "messages[0]", "expected an object" },
        { CHAT, WITH("'user': 5"), "user", "expected a string" },
        { CHAT, WITH("'metadata': {'a': 'b', 'c': 1}"), "metadata.c", "expected a string" },
        { CHAT, M("{'role': 5}"), "messages[0].role", "expected a string" },
        { CHAT, M("{'role': null}"), "messages[0].role", "required" },
        { CHAT, M(ASKED ", {'content': 'x'}"), "messages[1].role", "required" },
        { CHAT, M("{'role': 'function', 'name': 'f', 'content': 'x'}"), "messages[0].role", "\"function\" is none of" },
        { CHAT, M("{'role': 'user', 'content': null}"), "messages[0].content", "required" },
        { CHAT, M("{'role': 'user', 'content': 5}"), "messages[0].content", "expected a string or an array" },
        { CHAT, M("{'role': 'user', 'content': 'x', 'contnt': 'y'}"), "messages[0].contnt", "unknown" },
        { CHAT, M("{'role': 'user', 'content': 'x', 'tool_calls': []}"), "messages[0].tool_calls", "unknown" },
        { CHAT, M("{'role': 'tool', 'content': 'x'}"), "messages[0].tool_call_id", "required" },
        { CHAT, M(ASKED ", {'role': 'user', 'content': [{'type': 'text', 'text': 'a'}, {'type': 'image_url', 'image_url':"
                "{'url': 'data:'}}]}"), "messages[1].content[1].type", "\"image_url\" is not supported here; expected \"text\"" },
        { CHAT, M("{'role': 'user', 'content': [{'type': 'input_audio'}]}"), "messages[0].content[0].type", "input_audio" },
        { CHAT, M("{'role': 'user', 'content': [{'type': 'refusal', 'refusal': 'x'}]}"), "messages[0].content[0].type", "refusal" },
        { CHAT, M("{'role': 'user', 'content': [{'type': 'text', 'refusal': 'x'}]}"), "messages[0].content[0].text", "required" },
        { CHAT, M("{'role': 'user', 'content': [{'type': 'text'}]}"), "messages[0].content[0].text", "required" },
        { CHAT, CALL("{'name': 'f', 'arguments': '{\\'a\\''}"), CALLED ".arguments", "JSON, line 1" },
        { CHAT, CALL("{'name': 'f', 'arguments': '[]'}"), CALLED ".arguments", "expected a JSON object" },
        { CHAT, CALL("{'name': 'f', 'arguments': {}}"), CALLED ".arguments", "expected a string of JSON" },
        { CHAT, M("{'role': 'assistant', 'tool_calls': [{'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}}]}"),
          "messages[0].tool_calls[0].id", "required" },
        { CHAT, M("{'role': 'assistant', 'function_call': {'name': 'f', 'arguments': '{}'}}"), "messages[0].function_call", "not supported" },
        /* completions */
        { COMPLETIONS, "{'model': 'm'}", "prompt", "required" },
        { COMPLETIONS, "{'model': 'm', 'prompt': ''}", "prompt", "empty" },
        { COMPLETIONS, "{'model': 'm', 'prompt': []}", "prompt", "empty" },
        { COMPLETIONS, "{'model': 'm', 'prompt': [[]]}", "prompt[0]", "empty" },
        { COMPLETIONS, "{'model': 'm', 'prompt': ['a', 'b']}", "prompt", "2 prompts in one request" },
        { COMPLETIONS, "{'model': 'm', 'prompt': [[1], [2]]}", "prompt", "2 prompts in one request" },
        { COMPLETIONS, "{'model': 'm', 'prompt': [1, 'a']}", "prompt[1]", "expected a token id" },
        { COMPLETIONS, "{'model': 'm', 'prompt': [-1]}", "prompt[0]", "no token id" },
        { COMPLETIONS, "{'model': 'm', 'prompt': 5}", "prompt", "expected a string or an array" },
        { COMPLETIONS, PROMPT("'echo': true"), "echo", "not supported" },
        { COMPLETIONS, PROMPT("'suffix': 'x'"), "suffix", "not supported" },
        { COMPLETIONS, PROMPT("'best_of': 2"), "best_of", "outside" },
        { COMPLETIONS, PROMPT("'logprobs': true"), "logprobs", "expected an integer" },
        /* responses */
        { RESPONSES, "{'model': 'm'}", "input", "required" },
        { RESPONSES, "{'model': 'm', 'input': []}", "input", "empty" },
        { RESPONSES, INPUT("'previous_response_id': 'resp_1'"), "previous_response_id", "not supported" },
        { RESPONSES, INPUT("'conversation': 'c'"), "conversation", "not supported" },
        { RESPONSES, INPUT("'background': true"), "background", "not supported" },
        { RESPONSES, INPUT("'truncation': 'auto'"), "truncation", "expected \"disabled\"" },
        { RESPONSES, INPUT("'include': ['x']"), "include[0]", "\"x\" is not supported" },
        { RESPONSES, INPUT("'reasoning': {'effort': 'lots'}"), "reasoning.effort", "\"lots\"" },
        { RESPONSES, ITEM("'type': 'item_reference', 'id': 'x'"), "input[0].type", "item_reference" },
        { RESPONSES, ITEM("'id': 'x'"), "input[0].type", "required" },
        { RESPONSES, ITEM("'role': 'tool', 'content': 'x'"), "input[0].role", "\"tool\" is not supported" },
        { RESPONSES, ITEM("'role': 'user', 'content': [{'type': 'input_image', 'image_url': 'x'}]"), "input[0].content[0].type", "input_image" },
        { RESPONSES, ITEM("'type': 'function_call', 'call_id': 'c', 'name': 'f', 'arguments': '{'"), "input[0].arguments", "JSON" },
        { RESPONSES, ITEM("'type': 'function_call_output', 'output': 'c'"), "input[0].call_id", "required" },
        { RESPONSES, ITEM("'type': 'reasoning', 'id': 'r', 'summary': [], 'encrypted_content': 'x'"), "input[0].encrypted_content", "not supported" },
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        ns_api_error e = refused(c[i].api, c[i].body);
        if (strcmp(e.param, c[i].param) != 0 || !strstr(e.message, c[i].why) || strncmp(e.message, e.param, strlen(e.param)) != 0)
            fail_msg("%s\ngave %s, %s", c[i].body, e.param, e.message);
        assert_int_equal(e.status, 400);
        assert_string_equal(e.type, "invalid_request_error");
        assert_non_null(e.code);
    }
}

/* ---- texts that are no request ---- */

static void test_json(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        size_t n;
        const char *why;
    } c[] = {
        { "", 0, "JSON, line 1" },
        { "[]", 2, "expected a JSON object" },
        { "{\"model\": \"m\"", 13, "JSON, line 1" },
        { "{\"model\": \"m\"} x", 16, "JSON, line 1" },
        { "{\"model\": \"a\", \"model\": \"b\"}", 28, "duplicate" },
        { "{\"model\": \"\xff\"}", 13, "byte 0xff" },
        { "{\"model\": \"\xed\xa0\x80\"}", 15, "byte 0xed" },
        { "{\"model\": \"\\ud800\"}", 19, "nicode" },
        { "{\"model\": \"a\0\"}", 15, "NUL" },
        { "{\"a\\u0000b\": 1}", 15, "NUL" },
        { "{\"seed\": 99999999999999999999}", 30, "too big" },
        { "{\"seed\": 1e999}", 15, "overflow" },
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        ns_api_request r;
        ns_api_error e;
        assert_int_equal(ns_api_parse(CHAT, c[i].body, c[i].n, &r, &e), -1);
        if (!strstr(e.message, c[i].why) || e.status != 400 || e.param[0])
            fail_msg("%zu: %s", i, e.message);
    }
}

/* A body with `depth` levels: its own, chat_template_kwargs, and lists. */
static int deep(int depth, char open, char close, ns_api_error *e)
{
    ns_buf b = { 0 };
    ns_api_request r;
    ns_buf_adds(&b, "{\"model\":\"[[[[\\\"[[{{\",\"messages\":[{\"role\":\"user\",\"content\":\"}]]\"}],\"chat_template_kwargs\":{\"a\":");
    for (int i = 2; i < depth; i++)
        ns_buf_adds(&b, open == '[' ? "[" : "{\"a\":");
    ns_buf_adds(&b, "0");
    for (int i = 2; i < depth; i++)
        ns_buf_addc(&b, close);
    ns_buf_adds(&b, "}}");
    int rc = ns_api_parse(CHAT, b.data, b.len, &r, e);
    ns_api_request_release(&r);
    ns_buf_release(&b);
    return rc;
}

static void test_depth(void **state)
{
    (void)state;
    ns_api_error e = { 0 };
    for (int shape = 0; shape < 2; shape++) {
        if (deep(64, "[{"[shape], "]}"[shape], &e) != 0)
            fail_msg("%s", e.message);
        assert_int_equal(deep(65, "[{"[shape], "]}"[shape], &e), -1);
        assert_non_null(strstr(e.message, "nested deeper than 64"));
        assert_int_equal(deep(1000000, "[{"[shape], "]}"[shape], &e), -1);
    }
    ns_buf b = { 0 };
    for (int i = 0; i < 65; i++)
        ns_buf_addc(&b, '[');
    char body[400];
    snprintf(body, sizeof body, CALL("{'name': 'f', 'arguments': '%s'}"), b.data);
    e = refused(CHAT, body);
    assert_string_equal(e.param, CALLED ".arguments");
    assert_non_null(strstr(e.message, "nested deeper than 64"));
    ns_buf_release(&b);
}

/* Many values: {head, what is repeated, tail}, and how often it is still taken. */
static void test_weight(void **state)
{
    (void)state;
    static const struct {
        enum ns_api api;
        const char *head, *item, *tail;
        int most;
    } c[] = {
        { COMPLETIONS, "{\"model\":\"m\",\"prompt\":[7", ",7", "]}", 1000000 },
        { CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"chat_template_kwargs\":{\"a\":[0", ",{}", "]}}", 116000 },
        { CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"[[,,::[[", "[,:[", "\"}]}", 2000000 },
        { CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"},{\"role\":\"assistant\",\"tool_calls\":[", /* all texts count together */
          "{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":[[],[],[],[],[],[],[],[],[],[]]}\"}},",
          "{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}]}", 6900 },
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        for (int over = 0; over < 2; over++) {
            ns_buf b = { 0 };
            ns_api_request r;
            ns_api_error e = { 0 };
            ns_buf_adds(&b, c[i].head);
            for (int k = 0; k < c[i].most + over * c[i].most / 10; k++)
                ns_buf_adds(&b, c[i].item);
            ns_buf_adds(&b, c[i].tail);
            int rc = ns_api_parse(c[i].api, b.data, b.len, &r, &e), want = over && i != 2 ? -1 : 0; /* in strings nothing counts */
            if (rc != want || (rc && !strstr(e.message, "too many values")))
                fail_msg("%zu, %d times: %s", i, c[i].most, e.message);
            ns_api_request_release(&r);
            ns_buf_release(&b);
        }
}

/* Whatever a client names, the error is JSON in UTF-8. */
static void test_quotes(void **state)
{
    (void)state;
    for (int pad = 0; pad < 4; pad++) {
        char name[700], body[800];
        size_t at = 0;
        for (int i = 0; i < pad; i++)
            name[at++] = 'x';
        for (int i = 0; i < 200; i++, at += 3)
            memcpy(name + at, "\xe2\x82\xac", 3);
        name[at] = 0;
        snprintf(body, sizeof body, "{'%s': 1}", name);
        ns_api_error e = refused(CHAT, body);
        ns_buf b = { 0 };
        ns_err why = { 0 };
        ns_api_error_write(&e, &b);
        json_t *j = ns_json_parse(b.data, b.len, false, "error", &why);
        if (!j)
            fail_msg("%s", why.msg);
        const char *param = json_string_value(json_object_get(json_object_get(j, "error"), "param"));
        assert_true(strlen(param) > 120 && strncmp(param, name, strlen(param)) == 0);
        json_decref(j);
        ns_buf_release(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_weight),
        cmocka_unit_test(test_quotes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
