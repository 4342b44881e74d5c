/* Requests of the three APIs: what is taken, and how.
 * By hand: test_api_request chat|completions|responses < BODY prints the template's variables, or the error. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "api_bodies.h"
#include "base/json.h"

static json_t *json(const char *text)
{
    ns_err e = { 0 };
    const char *q = quoted(text);
    json_t *v = ns_json_parse(q, strlen(q), false, "expected", &e);
    if (!v)
        fail_msg("%s: %s", e.msg, text);
    return v;
}

/* Both texts again in one form, so that a failure shows them. */
static void same_json(const json_t *got, const char *want)
{
    json_t *w = json(want);
    char *a = json_dumps(got, JSON_SORT_KEYS | JSON_ENCODE_ANY), *b = json_dumps(w, JSON_SORT_KEYS | JSON_ENCODE_ANY);
    assert_string_equal(a, b);
    free(a);
    free(b);
    json_decref(w);
}

/* ---- what is taken ---- */

static void test_numbers(void **state)
{
    (void)state;
    ns_api_request r = parsed(CHAT, "{'model': 'medium', 'messages': [{'role': 'user', 'content': 'x'}]}");
    assert_string_equal(r.model, "medium");
    assert_int_equal(r.n, 1);
    assert_true(isnan(r.temperature) && isnan(r.top_p) && isnan(r.min_p) && isnan(r.repetition_penalty));
    assert_int_equal(r.top_k, -1);
    assert_false(r.stream || r.include_usage || r.has_seed || r.logprobs);
    assert_true(r.thinks && r.parallel_calls);
    assert_int_equal(r.max_tokens + r.n_stops + r.think_budget + r.deadline_ms + r.top_logprobs, 0);
    assert_int_equal(r.format, NS_API_TEXT);
    assert_int_equal(r.tool_choice, NS_API_TOOLS_NONE);
    ns_api_request_release(&r);

    r = parsed(CHAT, "{'model': 'auto', 'messages': [{'role': 'user', 'content': 'x'}], 'temperature': 0, 'top_p': 0.5, 'min_p': 1,"
                     " 'top_k': 20.0, 'repetition_penalty': 1.1, 'seed': -2, 'n': 16, 'max_tokens': 7, 'max_completion_tokens': 7, 'logprobs': true,"
                     " 'top_logprobs': 20, 'stop': ['a', 'bc'], 'stream': true, 'stream_options': {'include_usage': true, 'include_obfuscation':"
                     " false}, 'parallel_tool_calls': false, 'user': 'u', 'metadata': {'a': 'b'}, 'store': true, 'logit_bias': {},"
                     " 'presence_penalty': 0.0,"
                     " 'modalities': ['text'], 'verbosity': 'medium', 'prediction': {'type': 'content', 'content': 'x'}, 'audio': null}");
    assert_true(r.temperature <= 0 && r.min_p >= 1 && fabs(r.top_p - 0.5) < 1e-9 && fabs(r.repetition_penalty - 1.1) < 1e-9);
    assert_int_equal(r.top_k, 20);
    assert_true(r.has_seed && r.seed == (uint64_t)-2);
    assert_int_equal(r.n, 16);
    assert_int_equal(r.max_tokens, 7);
    assert_true(r.logprobs && r.stream && r.include_usage);
    assert_false(r.parallel_calls);
    assert_int_equal(r.top_logprobs, 20);
    assert_int_equal(r.n_stops, 2);
    assert_string_equal(r.stop[1], "bc");
    ns_api_request_release(&r);
    ns_api_request_release(&r); /* twice is fine */

    for (int k = -1; k <= 1; k++) { /* -1 and 0 are said by other servers' clients for "all" */
        char body[200];
        snprintf(body, sizeof body, "{'model': 'm', 'prompt': 'x', 'top_k': %d, 'top_p': 0, 'stop': 'z', 'temperature': null,"
                                    " 'max_tokens': null}", k);
        r = parsed(COMPLETIONS, body);
        assert_int_equal(r.top_k, k < 0 ? 0 : k);
        assert_true(r.top_p > 0 && r.top_p <= DBL_MIN); /* the sampler wants more than 0 */
        assert_true(isnan(r.temperature));
        assert_int_equal(r.max_tokens, 16);
        assert_string_equal(r.stop[0], "z");
        assert_false(r.thinks);
        ns_api_request_release(&r);
    }
}

static void test_prompt(void **state)
{
    (void)state;
    static const char *const texts[] = { "'a\\u0000b'", "['a\\u0000b']" }, *const ids[] = { "[5, 0, 2147483647]", "[[5, 0, 2147483647]]" };
    for (int i = 0; i < 2; i++) {
        char body[200];
        snprintf(body, sizeof body, "{'model': 'm', 'prompt': %s, 'logprobs': 0, 'echo': false, 'best_of': 1, 'suffix': ''}", texts[i]);
        ns_api_request r = parsed(COMPLETIONS, body);
        assert_int_equal(r.n_prompt, 3);
        assert_memory_equal(r.prompt, "a\0b", 3);
        assert_null(r.ids);
        assert_null(r.chat);
        assert_true(r.logprobs && r.top_logprobs == 0);
        ns_api_request_release(&r);
        snprintf(body, sizeof body, "{'model': 'm', 'prompt': %s, 'logprobs': 5, 'nestar': {'answer': 'small', 'deadline_ms': 1}}", ids[i]);
        r = parsed(COMPLETIONS, body);
        assert_null(r.prompt);
        assert_int_equal(r.n_ids, 3);
        assert_int_equal(r.ids[0], 5);
        assert_int_equal(r.ids[2], 2147483647);
        assert_int_equal(r.top_logprobs, 5);
        assert_string_equal(r.answer, "small");
        ns_api_request_release(&r);
    }
}

/* {api, members beside the model, the template's variables} */
#define SAYS(messages) "{'add_generation_prompt': true, 'messages': [" messages "]}"
#define SHOWS(tool) "{'add_generation_prompt': true, 'messages': [" ASKED "], 'tools': [" tool "]}"
#define CALL(id, name, arguments) "{'id': '" id "', 'type': 'function', 'function': {'name': '" name "', 'arguments': " arguments "}}"
#define ITEM_CALL(id, name, arguments) "{'type': 'function_call', 'call_id': '" id "', 'name': '" name "', 'arguments': '" arguments "'}"
#define RESULT(id, text) "{'role': 'tool', 'tool_call_id': '" id "', 'content': '" text "'}"

static void test_messages(void **state)
{
    (void)state;
    static const struct {
        enum ns_api api;
        const char *members, *chat;
    } c[] = {
        /* contents in parts, roles, several system messages */
        { CHAT,
          "'messages': [{'role': 'developer', 'content': 'a'}, {'role': 'system', 'content': [{'type': 'text', 'text': 'b'}]},"
          " {'role': 'user', 'name': 'eve', 'content': [{'type': 'text', 'text': 'c\\u0000'}, {'type': 'text', 'text': ''}, {'type': 'text', 'text': 'd'}]}]",
          SAYS("{'role': 'system', 'content': 'a'}, {'role': 'system', 'content': 'b'},"
               " {'role': 'user', 'name': 'eve', 'content': 'c\\u0000\\n\\nd'}") },
        /* a reply as it was given, sent back */
        { CHAT,
          "'messages': [" ASKED ", {'role': 'assistant', 'content': null, 'refusal': null, 'annotations': [], 'audio': null, 'function_call': null,"
          " 'reasoning_content': 'hm', 'tool_calls': [" CALL("c1", "f", "'{\\'x\\': [1.5, {}]}'") ", " CALL("c2", "g.h", "''") "]}, " RESULT("c1", "3") "]",
          SAYS(ASKED ", {'role': 'assistant', 'content': '', 'reasoning_content': 'hm', 'tool_calls': ["
               CALL("c1", "f", "{'x': [1.5, {}]}") ", " CALL("c2", "g.h", "{}") "]}, " RESULT("c1", "3")) },
        { CHAT,
          "'messages': [{'role': 'assistant', 'refusal': 'no', 'tool_calls': []},"
          " {'role': 'assistant', 'content': [{'type': 'refusal', 'refusal': 'r'}, {'type': 'text', 'text': 't'}]}]",
          SAYS("{'role': 'assistant', 'content': 'no'}, {'role': 'assistant', 'content': 'r\\nt'}") },
        { CHAT, "'messages': [" ASKED "], 'chat_template_kwargs': {'truncate_history_thinking': false, 'documents': [1]}, 'tools': []",
          "{'add_generation_prompt': true, 'messages': [" ASKED "], 'truncate_history_thinking': false, 'documents': [1]}" },
        /* tools are not shown where they must not be called */
        { CHAT, "'messages': [" ASKED "], 'tools': [" TOOL "]", SHOWS(TOOL) },
        { CHAT, "'messages': [" ASKED "], 'tools': [" TOOL "], 'tool_choice': 'none'", SAYS(ASKED) },
        { RESPONSES,
          "'input': 'x', 'tools': [{'type': 'function', 'name': 'f', 'description': ' d ', 'parameters': {'type': 'object'}, 'strict': true}]",
          SHOWS(TOOL) },
        { RESPONSES, "'input': 'x', 'tools': [{'type': 'function', 'name': 'f', 'description': null, 'parameters': null, 'strict': null}]",
          SHOWS("{'type': 'function', 'function': {'name': 'f'}}") },
        /* items; a turn of an assistant is one message */
        { RESPONSES, "'instructions': 'be', 'input': 'x', 'store': false, 'truncation': 'disabled', 'background': false, 'conversation': null",
          SAYS("{'role': 'system', 'content': 'be'}, " ASKED) },
        { RESPONSES,
          "'input': [{'role': 'developer', 'content': 'a'}, {'type': 'message', 'role': 'user', 'status': 'completed', 'content':"
          " [{'type': 'input_text', 'text': 'b'}, {'type': 'input_text', 'text': 'c'}]},"
          " {'role': 'assistant', 'content': 'd', 'phase': 'final_answer'}, {'role': 'assistant', 'content': 'e'}]",
          SAYS("{'role': 'system', 'content': 'a'}, {'role': 'user', 'content': 'b\\nc'}, {'role': 'assistant', 'content': 'd'},"
               " {'role': 'assistant', 'content': 'e'}") },
        { RESPONSES,
          "'input': [" ASKED ", {'type': 'reasoning', 'id': 'r', 'summary': [], 'content': [{'type': 'reasoning_text', 'text': 'hm'}],"
          " 'encrypted_content': null}, {'type': 'message', 'id': 'm', 'status': 'completed', 'role': 'assistant', 'content':"
          " [{'type': 'output_text', 'text': 'so', 'annotations': [], 'logprobs': []}]}, "
          ITEM_CALL("c1", "f", "{\\'x\\': 1}") ", " ITEM_CALL("c2", "f", "{}") ", {'type': 'function_call_output', 'call_id': 'c1', 'output': '2'},"
          " {'type': 'function_call_output', 'call_id': 'c2', 'output': [{'type': 'input_text', 'text': '3'}]},"
          " {'type': 'reasoning', 'id': 'r', 'summary': [{'type': 'summary_text', 'text': 'aha'}]}, " ITEM_CALL("c3", "g", "{}") ","
          " {'role': 'assistant', 'content': 'end'}]",
          SAYS(ASKED ", {'role': 'assistant', 'reasoning_content': 'hm', 'content': 'so', 'tool_calls': ["
               CALL("c1", "f", "{'x': 1}") ", " CALL("c2", "f", "{}") "]}, " RESULT("c1", "2") ", " RESULT("c2", "3") ","
               " {'role': 'assistant', 'reasoning_content': 'aha', 'content': '', 'tool_calls': [" CALL("c3", "g", "{}") "]},"
               " {'role': 'assistant', 'content': 'end'}") },
        { RESPONSES,
          "'input': [" ITEM_CALL("c", "f", "{}") ", " ASKED ", {'type': 'reasoning', 'id': 'a', 'summary': []},"
          " {'type': 'reasoning', 'id': 'b', 'summary': [{'type': 'summary_text', 'text': 'y'}]}]",
          SAYS("{'role': 'assistant', 'content': '', 'tool_calls': [" CALL("c", "f", "{}") "]}, " ASKED ","
               " {'role': 'assistant', 'content': '', 'reasoning_content': ''}, {'role': 'assistant', 'content': '', 'reasoning_content': 'y'}") },
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        char body[4000];
        snprintf(body, sizeof body, "{'model': 'm', %s}", c[i].members);
        ns_api_request r = parsed(c[i].api, body);
        same_json(r.chat, c[i].chat);
        assert_ptr_equal(r.tools, json_object_get(r.chat, "tools"));
        ns_api_request_release(&r);
    }
}

static void test_thinking(void **state)
{
    (void)state;
    static const struct {
        enum ns_api api;
        const char *members;
        bool thinks;
        int budget;
        int told; /* enable_thinking: -1 absent */
    } c[] = {
        { CHAT, "'user': null", true, 0, -1 },
        { CHAT, "'reasoning_effort': null", true, 0, -1 },
        { CHAT, "'reasoning_effort': 'none'", false, 0, 0 },
        { CHAT, "'reasoning_effort': 'minimal'", true, 256, -1 },
        { CHAT, "'reasoning_effort': 'low'", true, 1024, -1 },
        { CHAT, "'reasoning_effort': 'medium'", true, 4096, -1 },
        { CHAT, "'reasoning_effort': 'high'", true, 16384, -1 },
        { CHAT, "'reasoning_effort': 'xhigh'", true, 0, -1 },
        { CHAT, "'reasoning_effort': 'max'", true, 0, -1 },
        { RESPONSES, "'reasoning': {'effort': 'low', 'summary': 'auto'}", true, 1024, -1 },
        { RESPONSES, "'reasoning': null", true, 0, -1 },
        { CHAT, "'chat_template_kwargs': {'enable_thinking': false}", false, 0, 0 },
        { CHAT, "'chat_template_kwargs': {'enable_thinking': true}", true, 0, 1 },
        { CHAT, "'chat_template_kwargs': {'enable_thinking': false}, 'reasoning_effort': 'low'", false, 0, 0 },
        { CHAT, "'reasoning_effort': 'none', 'chat_template_kwargs': {'enable_thinking': true}", true, 0, 1 },
        { CHAT, "'nestar': {'think_budget': 5}, 'reasoning_effort': 'high'", true, 5, -1 },
        { CHAT, "'reasoning_effort': 'none', 'nestar': {'think_budget': 5}", true, 5, -1 },
        { CHAT, "'nestar': {'think_budget': 5}, 'chat_template_kwargs': {'enable_thinking': false}", true, 5, 1 },
        { RESPONSES, "'nestar': {'think_budget': 0}, 'reasoning': {'effort': 'high'}", false, 0, 0 },
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        char body[400];
        snprintf(body, sizeof body, "{'model': 'm', %s, %s}", c[i].api == CHAT ? "'messages': [" ASKED "]" : "'input': 'x'", c[i].members);
        ns_api_request r = parsed(c[i].api, body);
        const json_t *told = json_object_get(r.chat, "enable_thinking");
        if (r.thinks != c[i].thinks || r.think_budget != c[i].budget || (told ? json_is_true(told) : -1) != c[i].told)
            fail_msg("%s: thinks %d, budget %d", c[i].members, r.thinks, r.think_budget);
        ns_api_request_release(&r);
    }
    ns_api_request r = parsed(CHAT, "{'model': 'm', 'messages': [" ASKED "], 'nestar': {'think': 'small', 'answer': 'hidden=96,expert_ffn=32',"
                                    "'handover': 'late', 'deadline_ms': 1500}}");
    assert_string_equal(r.think, "small");
    assert_string_equal(r.answer, "hidden=96,expert_ffn=32");
    assert_string_equal(r.handover, "late");
    assert_int_equal(r.deadline_ms, 1500);
    ns_api_request_release(&r);
}

static void test_choice_and_format(void **state)
{
    (void)state;
    static const struct {
        enum ns_api api;
        const char *members;
        enum ns_api_tools choice;
        enum ns_api_format format;
        const char *name, *schema;
    } c[] = {
        { CHAT, "'tools': [" TOOL "]", NS_API_TOOLS_AUTO, NS_API_TEXT, "", NULL },
        { CHAT, "'tool_choice': 'auto', 'tools': [" TOOL "]", NS_API_TOOLS_AUTO, NS_API_TEXT, "", NULL },
        { CHAT, "'tool_choice': 'auto'", NS_API_TOOLS_NONE, NS_API_TEXT, "", NULL },
        { CHAT, "'tools': [" TOOL "], 'tool_choice': 'required'", NS_API_TOOLS_REQUIRED, NS_API_TEXT, "", NULL },
        { CHAT, "'tools': [" TOOL "], 'tool_choice': {'type': 'function', 'function': {'name': 'f'}}",
          NS_API_TOOLS_NAMED, NS_API_TEXT, "f", NULL },
        { RESPONSES, "'tools': [{'type': 'function', 'name': 'f'}], 'tool_choice': {'type': 'function', 'name': 'f'}",
          NS_API_TOOLS_NAMED, NS_API_TEXT, "f", NULL },
        { CHAT, "'response_format': {'type': 'text'}, 'tools': [" TOOL "]", NS_API_TOOLS_AUTO, NS_API_TEXT, "", NULL },
        { CHAT, "'response_format': {'type': 'json_object'}", NS_API_TOOLS_NONE, NS_API_JSON_OBJECT, "", NULL },
        { CHAT, "'tools': [" TOOL "], 'tool_choice': 'none',"
                " 'response_format': {'type': 'json_schema', 'json_schema': {'name': 'n', 'strict': true, 'schema': {'type': 'array'}}}",
          NS_API_TOOLS_NONE, NS_API_JSON_SCHEMA, "", "{'type': 'array'}" },
        { RESPONSES, "'text': {'format': {'type': 'json_schema', 'name': 'n', 'schema': {}}, 'verbosity': 'medium'}",
          NS_API_TOOLS_NONE, NS_API_JSON_SCHEMA, "", "{}" },
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        char body[800];
        snprintf(body, sizeof body, "{'model': 'm', %s, %s}", c[i].members, c[i].api == CHAT ? "'messages': [" ASKED "]" : "'input': 'x'");
        ns_api_request r = parsed(c[i].api, body);
        assert_int_equal(r.tool_choice, c[i].choice);
        assert_int_equal(r.format, c[i].format);
        assert_string_equal(r.tool_name, c[i].name);
        assert_int_equal(r.schema != NULL, c[i].schema != NULL);
        if (r.schema)
            same_json(r.schema, c[i].schema);
        ns_api_request_release(&r);
    }
    ns_api_request r = parsed(RESPONSES, "{'model': 'm', 'input': 'x', 'top_logprobs': 0, 'max_output_tokens': 16, 'include':"
                                         " ['message.output_text.logprobs', 'reasoning.encrypted_content']}");
    assert_true(r.logprobs && r.top_logprobs == 0 && r.max_tokens == 16);
    ns_api_request_release(&r);
    r = parsed(RESPONSES, "{'model': 'm', 'input': 'x', 'top_logprobs': 3}");
    assert_true(r.logprobs && r.top_logprobs == 3);
    ns_api_request_release(&r);
}

/* ---- by hand ---- */

static int by_hand(const char *name)
{
    static char body[8 << 20];
    enum ns_api api = strcmp(name, "chat") == 0 ? CHAT : strcmp(name, "completions") == 0 ? COMPLETIONS : RESPONSES;
    size_t n = fread(body, 1, sizeof body, stdin);
    ns_api_request r;
    ns_api_error e;
    ns_buf b = { 0 };
    int rc = ns_api_parse(api, body, n, &r, &e);
    if (rc != 0)
        ns_api_error_write(&e, &b);
    char *chat = json_dumps(r.chat, JSON_INDENT(2));
    puts(rc != 0 ? b.data : chat ? chat : "{}");
    free(chat);
    ns_buf_release(&b);
    ns_api_request_release(&r);
    return rc != 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),  cmocka_unit_test(test_prompt),           cmocka_unit_test(test_messages),
        cmocka_unit_test(test_thinking), cmocka_unit_test(test_choice_and_format),
    };
    return argc > 1 ? by_hand(argv[1]) : cmocka_run_group_tests(tests, NULL, NULL);
}
