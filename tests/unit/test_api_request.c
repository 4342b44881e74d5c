/* Requests of the three APIs: what is taken and how, what is refused and by which name, and what chat templates make of the result.
 * Bodies are written with ' for ".
 * By hand: test_api_request chat|completions|responses < BODY prints the template's variables, or the error. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "serve/api.h"
#include "text/template.h"

/* ---- help ---- */

#define CHAT NS_API_CHAT
#define COMPLETIONS NS_API_COMPLETIONS
#define RESPONSES NS_API_RESPONSES

static const char *quoted(const char *s)
{
    static char text[2][8192];
    static int turn;
    char *out = text[turn ^= 1];
    size_t n = strlen(s);
    assert_true(n < sizeof text[0]);
    for (size_t i = 0; i <= n; i++)
        out[i] = s[i] == '\'' ? '"' : s[i];
    return out;
}

static ns_api_request parsed(enum ns_api api, const char *body)
{
    ns_api_request r;
    ns_api_error e;
    const char *text = quoted(body);
    if (ns_api_parse(api, text, strlen(text), &r, &e) != 0)
        fail_msg("%s\n%s: %s", body, e.param, e.message);
    return r;
}

static ns_api_error refused(enum ns_api api, const char *body)
{
    ns_api_request r;
    ns_api_error e = { 0 };
    const char *text = quoted(body);
    if (ns_api_parse(api, text, strlen(text), &r, &e) == 0)
        fail_msg("taken: %s", body);
    assert_null(r.all); /* nothing is left to release */
    assert_null(r.chat);
    return e;
}

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
                     " false}, 'parallel_tool_calls': false, 'user': 'u', 'metadata': {'a': 'b'}, 'store': true, 'logit_bias': {}, 'presence_penalty': 0.0,"
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
        snprintf(body, sizeof body, "{'model': 'm', 'prompt': 'x', 'top_k': %d, 'top_p': 0, 'stop': 'z', 'temperature': null, 'max_tokens': null}", k);
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
#define ASKED "{'role': 'user', 'content': 'x'}"
#define SAYS(messages) "{'add_generation_prompt': true, 'messages': [" messages "]}"
#define TOOL "{'type': 'function', 'function': {'name': 'f', 'description': ' d ', 'parameters': {'type': 'object'}, 'strict': true}}"
#define SHOWN "'tools': [{'type': 'function', 'function': {'name': 'f', 'description': ' d ', 'parameters': {'type': 'object'}, 'strict': true}}]"

static void test_messages(void **state)
{
    (void)state;
    static const struct {
        enum ns_api api;
        const char *members, *chat;
    } c[] = {
        /* contents in parts, roles, several system messages */
        { CHAT, "'messages': [{'role': 'developer', 'content': 'a'}, {'role': 'system', 'content': [{'type': 'text', 'text': 'b'}]}, {'role': 'user',"
                "'name': 'eve', 'content': [{'type': 'text', 'text': 'c\\u0000'}, {'type': 'text', 'text': ''}, {'type': 'text', 'text': 'd'}]}]",
          SAYS("{'role': 'system', 'content': 'a'}, {'role': 'system', 'content': 'b'}, {'role': 'user', 'name': 'eve', 'content': 'c\\u0000\\n\\nd'}") },
        /* a reply as it was given, sent back */
        { CHAT, "'messages': [" ASKED ", {'role': 'assistant', 'content': null, 'refusal': null, 'annotations': [], 'audio': null, 'function_call': null,"
                "'reasoning_content': 'hm', 'tool_calls': [{'id': 'c1', 'type': 'function', 'function': {'name': 'f', 'arguments': '{\\'x\\': [1.5, {}]}'}},"
                "{'id': 'c2', 'type': 'function', 'function': {'name': 'g.h', 'arguments': ''}}]}, {'role': 'tool', 'tool_call_id': 'c1', 'content': '3'}]",
          SAYS(ASKED ", {'role': 'assistant', 'content': '', 'reasoning_content': 'hm', 'tool_calls': [{'id': 'c1', 'type': 'function', 'function':"
                     "{'name': 'f', 'arguments': {'x': [1.5, {}]}}}, {'id': 'c2', 'type': 'function', 'function': {'name': 'g.h', 'arguments': {}}}]},"
                     "{'role': 'tool', 'tool_call_id': 'c1', 'content': '3'}") },
        { CHAT, "'messages': [{'role': 'assistant', 'refusal': 'no', 'tool_calls': []}, {'role': 'assistant', 'content': [{'type': 'refusal', 'refusal': 'r'},"
                "{'type': 'text', 'text': 't'}]}]",
          SAYS("{'role': 'assistant', 'content': 'no'}, {'role': 'assistant', 'content': 'r\\nt'}") },
        { CHAT, "'messages': [" ASKED "], 'chat_template_kwargs': {'truncate_history_thinking': false, 'documents': [1]}, 'tools': []",
          "{'add_generation_prompt': true, 'messages': [" ASKED "], 'truncate_history_thinking': false, 'documents': [1]}" },
        /* tools are not shown where they must not be called */
        { CHAT, "'messages': [" ASKED "], 'tools': [" TOOL "]", "{'add_generation_prompt': true, 'messages': [" ASKED "], " SHOWN "}" },
        { CHAT, "'messages': [" ASKED "], 'tools': [" TOOL "], 'tool_choice': 'none'", SAYS(ASKED) },
        { RESPONSES, "'input': 'x', 'tools': [{'type': 'function', 'name': 'f', 'description': ' d ', 'parameters': {'type': 'object'}, 'strict': true}]",
          "{'add_generation_prompt': true, 'messages': [" ASKED "], " SHOWN "}" },
        /* items; a turn of an assistant is one message */
        { RESPONSES, "'instructions': 'be', 'input': 'x', 'store': false, 'truncation': 'disabled', 'background': false, 'previous_response_id': null",
          SAYS("{'role': 'system', 'content': 'be'}, " ASKED) },
        { RESPONSES, "'input': [{'role': 'developer', 'content': 'a'}, {'type': 'message', 'role': 'user', 'status': 'completed', 'content': [{'type':"
                     "'input_text', 'text': 'b'}, {'type': 'input_text', 'text': 'c'}]}, {'role': 'assistant', 'content': 'd', 'phase': 'final_answer'},"
                     "{'role': 'assistant', 'content': 'e'}]",
          SAYS("{'role': 'system', 'content': 'a'}, {'role': 'user', 'content': 'b\\nc'}, {'role': 'assistant', 'content': 'd'},"
               "{'role': 'assistant', 'content': 'e'}") },
        { RESPONSES, "'input': [" ASKED ", {'type': 'reasoning', 'id': 'r', 'summary': [], 'content': [{'type': 'reasoning_text', 'text': 'hm'}],"
                     "'encrypted_content': null}, {'type': 'message', 'id': 'm', 'status': 'completed', 'role': 'assistant', 'content': [{'type': 'output_text',"
                     "'text': 'so', 'annotations': [], 'logprobs': []}]}, {'type': 'function_call', 'id': 'i', 'call_id': 'c1', 'name': 'f', 'arguments':"
                     "'{\\'x\\': 1}', 'status': 'completed'}, {'type': 'function_call', 'call_id': 'c2', 'name': 'f', 'arguments': '{}'}, {'type':"
                     "'function_call_output', 'call_id': 'c1', 'output': '2'}, {'type': 'function_call_output', 'call_id': 'c2', 'output': [{'type':"
                     "'input_text', 'text': '3'}]}, {'type': 'reasoning', 'id': 'r', 'summary': [{'type': 'summary_text', 'text': 'aha'}]}, {'type':"
                     "'function_call', 'call_id': 'c3', 'name': 'g', 'arguments': '{}'}, {'role': 'assistant', 'content': 'end'}]",
          SAYS(ASKED ", {'role': 'assistant', 'reasoning_content': 'hm', 'content': 'so', 'tool_calls': [{'id': 'c1', 'type': 'function', 'function':"
                     "{'name': 'f', 'arguments': {'x': 1}}}, {'id': 'c2', 'type': 'function', 'function': {'name': 'f', 'arguments': {}}}]},"
                     "{'role': 'tool', 'tool_call_id': 'c1', 'content': '2'}, {'role': 'tool', 'tool_call_id': 'c2', 'content': '3'},"
                     "{'role': 'assistant', 'reasoning_content': 'aha', 'content': '', 'tool_calls': [{'id': 'c3', 'type': 'function', 'function':"
                     "{'name': 'g', 'arguments': {}}}]}, {'role': 'assistant', 'content': 'end'}") },
        { RESPONSES, "'input': [{'type': 'function_call', 'call_id': 'c', 'name': 'f', 'arguments': '{}'}, " ASKED ", {'type': 'reasoning', 'id': 'a',"
                     "'summary': []}, {'type': 'reasoning', 'id': 'b', 'summary': [{'type': 'summary_text', 'text': 'y'}]}]",
          SAYS("{'role': 'assistant', 'content': '', 'tool_calls': [{'id': 'c', 'type': 'function', 'function': {'name': 'f', 'arguments': {}}}]}, " ASKED
               ", {'role': 'assistant', 'content': '', 'reasoning_content': ''}, {'role': 'assistant', 'content': '', 'reasoning_content': 'y'}") },
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
        { CHAT, "'tools': [" TOOL "], 'tool_choice': {'type': 'function', 'function': {'name': 'f'}}", NS_API_TOOLS_NAMED, NS_API_TEXT, "f", NULL },
        { RESPONSES, "'tools': [{'type': 'function', 'name': 'f'}], 'tool_choice': {'type': 'function', 'name': 'f'}", NS_API_TOOLS_NAMED, NS_API_TEXT, "f", NULL },
        { CHAT, "'response_format': {'type': 'text'}, 'tools': [" TOOL "]", NS_API_TOOLS_AUTO, NS_API_TEXT, "", NULL },
        { CHAT, "'response_format': {'type': 'json_object'}", NS_API_TOOLS_NONE, NS_API_JSON_OBJECT, "", NULL },
        { CHAT, "'tools': [" TOOL "], 'tool_choice': 'none', 'response_format': {'type': 'json_schema', 'json_schema': {'name': 'n', 'strict': true, 'schema':"
                "{'type': 'array'}}}", NS_API_TOOLS_NONE, NS_API_JSON_SCHEMA, "", "{'type': 'array'}" },
        { RESPONSES, "'text': {'format': {'type': 'json_schema', 'name': 'n', 'schema': {}}, 'verbosity': 'medium'}", NS_API_TOOLS_NONE, NS_API_JSON_SCHEMA, "", "{}" },
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
    ns_api_request r = parsed(RESPONSES, "{'model': 'm', 'input': 'x', 'include': ['message.output_text.logprobs', 'reasoning.encrypted_content'], 'top_logprobs': 0,"
                                         "'max_output_tokens': 16}");
    assert_true(r.logprobs && r.top_logprobs == 0 && r.max_tokens == 16);
    ns_api_request_release(&r);
    r = parsed(RESPONSES, "{'model': 'm', 'input': 'x', 'top_logprobs': 3}");
    assert_true(r.logprobs && r.top_logprobs == 3);
    ns_api_request_release(&r);
}

/* ---- what is refused ---- */

#define M "'model': 'm', 'messages': [" ASKED "], "
#define P "'model': 'm', 'prompt': 'x', "
#define I "'model': 'm', 'input': 'x', "

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
        { CHAT, "{'model': 'm', 'messages': []}", "messages", "empty" },
        { CHAT, "{'model': 'm', 'messages': {}}", "messages", "expected an array, found an object" },
        { CHAT, "{" M "'temprature': 1}", "temprature", "unknown parameter" },
        { CHAT, "{" M "'prompt': 'x'}", "prompt", "unknown parameter" },
        { CHAT, "{" M "'temperature': 2.1}", "temperature", "2.1 is outside 0 .. 2" },
        { CHAT, "{" M "'temperature': '1'}", "temperature", "expected a number, found a string" },
        { CHAT, "{" M "'top_p': -0.1}", "top_p", "outside" },
        { CHAT, "{" M "'top_k': -2}", "top_k", "outside" },
        { CHAT, "{" M "'repetition_penalty': 0}", "repetition_penalty", "outside" },
        { CHAT, "{" M "'n': 0}", "n", "0 is outside 1 .. 16" },
        { CHAT, "{" M "'n': 17}", "n", "outside" },
        { CHAT, "{" M "'n': 1.5}", "n", "expected an integer" },
        { CHAT, "{" M "'n': 1e300}", "n", "outside" },
        { CHAT, "{" M "'seed': 1.0}", "seed", "expected an integer" },
        { CHAT, "{" M "'max_tokens': 0}", "max_tokens", "outside" },
        { CHAT, "{" M "'max_tokens': 2147483648}", "max_tokens", "outside" },
        { CHAT, "{" M "'max_tokens': 1, 'max_completion_tokens': 2}", "max_tokens", "differs" },
        { CHAT, "{" M "'top_logprobs': 3}", "top_logprobs", "needs logprobs" },
        { CHAT, "{" M "'logprobs': true, 'top_logprobs': 21}", "top_logprobs", "outside" },
        { CHAT, "{" M "'logprobs': 1}", "logprobs", "expected true or false" },
        { CHAT, "{" M "'logit_bias': {'5': 1}}", "logit_bias", "not supported" },
        { CHAT, "{" M "'frequency_penalty': 0.1}", "frequency_penalty", "not supported by this server other than 0" },
        { CHAT, "{" M "'presence_penalty': -1}", "presence_penalty", "not supported" },
        { CHAT, "{" M "'stream_options': {'include_usage': true}}", "stream_options", "needs stream" },
        { CHAT, "{" M "'stream': true, 'stream_options': {'usage': true}}", "stream_options.usage", "unknown" },
        { CHAT, "{" M "'stop': ['a', 'b', 'c', 'd', 'e']}", "stop", "5 strings, at most 4" },
        { CHAT, "{" M "'stop': ['a', '']}", "stop[1]", "empty" },
        { CHAT, "{" M "'stop': ['a', 5]}", "stop[1]", "expected a string" },
        { CHAT, "{" M "'stop': 5}", "stop", "expected a string or an array" },
        { CHAT, "{" M "'modalities': ['text', 'audio']}", "modalities[1]", "\"audio\" is not supported" },
        { CHAT, "{" M "'verbosity': 'low'}", "verbosity", "expected \"medium\"" },
        { CHAT, "{" M "'functions': []}", "functions", "not supported" },
        { CHAT, "{" M "'web_search_options': {}}", "web_search_options", "not supported" },
        { CHAT, "{" M "'reasoning_effort': 'some'}", "reasoning_effort", "\"some\" is none of" },
        { CHAT, "{" M "'nestar': {'budget': 1}}", "nestar.budget", "unknown parameter" },
        { CHAT, "{" M "'nestar': {'handover': 'slow'}}", "nestar.handover", "expected \"auto\", \"cache\", \"prefill\" or \"late\"" },
        { CHAT, "{" M "'nestar': {'think': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'}}", "nestar.think", "64 bytes, at most 63" },
        { CHAT, "{" M "'nestar': {'think_budget': -1}}", "nestar.think_budget", "outside" },
        { CHAT, "{" M "'nestar': 1}", "nestar", "expected an object" },
        { COMPLETIONS, "{" P "'nestar': {'think_budget': 1}}", "nestar.think_budget", "unknown parameter" },
        { CHAT, "{" M "'chat_template_kwargs': {'bos_token': '<|im_start|>'}}", "chat_template_kwargs.bos_token", "not the client's" },
        { CHAT, "{" M "'chat_template_kwargs': {'messages': []}}", "chat_template_kwargs.messages", "not the client's" },
        { CHAT, "{" M "'chat_template_kwargs': {'enable_thinking': 'no'}}", "chat_template_kwargs.enable_thinking", "expected true or false" },
        { CHAT, "{" M "'response_format': {}}", "response_format.type", "required" },
        { CHAT, "{" M "'response_format': {'type': 'xml'}}", "response_format.type", "\"xml\" is not supported" },
        { CHAT, "{" M "'response_format': {'type': 'json_schema'}}", "response_format.json_schema.schema", "required" },
        { CHAT, "{" M "'response_format': {'type': 'text', 'json_schema': {'schema': {}}}}", "response_format", "schema" },
        { CHAT, "{" M "'response_format': {'type': 'json_object'}, 'tools': [" TOOL "]}", "response_format", "beside tools" },
        { RESPONSES, "{" I "'text': {'format': {'type': 'json_schema', 'name': 'n'}}}", "text.format.schema", "required" },
        /* tools */
        { CHAT, "{" M "'tools': [{'type': 'custom', 'custom': {'name': 'f'}}]}", "tools[0].type", "\"custom\" is not supported; expected \"function\"" },
        { CHAT, "{" M "'tools': [{'type': 'function', 'function': {'name': 'a b'}}]}", "tools[0].function.name", "letters" },
        { CHAT, "{" M "'tools': [{'type': 'function', 'function': {'name': 'f', 'parameters': []}}]}", "tools[0].function.parameters", "expected an object" },
        { CHAT, "{" M "'tools': [" TOOL ", {'type': 'function', 'function': {}}]}", "tools[1].function.name", "required" },
        { CHAT, "{" M "'tools': [5]}", "tools[0]", "expected an object" },
        { CHAT, "{" M "'tool_choice': 'required'}", "tool_choice", "needs tools" },
        { CHAT, "{" M "'tools': [" TOOL "], 'tool_choice': {'type': 'function', 'function': {'name': 'g'}}}", "tool_choice", "no tool is named \"g\"" },
        { CHAT, "{" M "'tools': [" TOOL "], 'tool_choice': {'type': 'allowed_tools', 'allowed_tools': {}}}", "tool_choice.type", "allowed_tools" },
        { RESPONSES, "{" I "'tools': [{'type': 'web_search_preview'}]}", "tools[0].type", "web_search_preview" },
        /* messages */
        { CHAT, "{'model': 'm', 'messages': [5]}", "messages[0]", "expected an object" },
        { CHAT, "{'model': 'm', 'messages': [" ASKED ", {'content': 'x'}]}", "messages[1].role", "required" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'function', 'name': 'f', 'content': 'x'}]}", "messages[0].role", "\"function\" is none of" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'user', 'content': null}]}", "messages[0].content", "required" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'user', 'content': 5}]}", "messages[0].content", "expected a string or an array" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'user', 'content': 'x', 'contnt': 'y'}]}", "messages[0].contnt", "unknown" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'user', 'content': 'x', 'tool_calls': []}]}", "messages[0].tool_calls", "unknown" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'tool', 'content': 'x'}]}", "messages[0].tool_call_id", "required" },
        { CHAT, "{'model': 'm', 'messages': [" ASKED ", {'role': 'user', 'content': [{'type': 'text', 'text': 'a'}, {'type': 'image_url', 'image_url':"
                "{'url': 'data:'}}]}]}", "messages[1].content[1].type", "\"image_url\" is not supported here; expected \"text\"" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'user', 'content': [{'type': 'input_audio'}]}]}", "messages[0].content[0].type", "input_audio" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'user', 'content': [{'type': 'refusal', 'refusal': 'x'}]}]}", "messages[0].content[0].type", "refusal" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'user', 'content': [{'type': 'text'}]}]}", "messages[0].content[0].text", "required" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'assistant', 'tool_calls': [{'id': 'c', 'type': 'function', 'function': {'name': 'f', 'arguments': '{\\'a\\''}}]}]}",
          "messages[0].tool_calls[0].function.arguments", "JSON, line 1" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'assistant', 'tool_calls': [{'id': 'c', 'type': 'function', 'function': {'name': 'f', 'arguments': '[]'}}]}]}",
          "messages[0].tool_calls[0].function.arguments", "expected a JSON object" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'assistant', 'tool_calls': [{'id': 'c', 'type': 'function', 'function': {'name': 'f', 'arguments': {}}}]}]}",
          "messages[0].tool_calls[0].function.arguments", "expected a string of JSON" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'assistant', 'tool_calls': [{'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}}]}]}",
          "messages[0].tool_calls[0].id", "required" },
        { CHAT, "{'model': 'm', 'messages': [{'role': 'assistant', 'function_call': {'name': 'f', 'arguments': '{}'}}]}", "messages[0].function_call", "not supported" },
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
        { COMPLETIONS, "{" P "'echo': true}", "echo", "not supported" },
        { COMPLETIONS, "{" P "'suffix': 'x'}", "suffix", "not supported" },
        { COMPLETIONS, "{" P "'best_of': 2}", "best_of", "outside" },
        { COMPLETIONS, "{" P "'logprobs': true}", "logprobs", "expected an integer" },
        /* responses */
        { RESPONSES, "{'model': 'm'}", "input", "required" },
        { RESPONSES, "{'model': 'm', 'input': []}", "input", "empty" },
        { RESPONSES, "{" I "'previous_response_id': 'resp_1'}", "previous_response_id", "not supported" },
        { RESPONSES, "{" I "'conversation': 'c'}", "conversation", "not supported" },
        { RESPONSES, "{" I "'background': true}", "background", "not supported" },
        { RESPONSES, "{" I "'truncation': 'auto'}", "truncation", "expected \"disabled\"" },
        { RESPONSES, "{" I "'include': ['x']}", "include[0]", "\"x\" is not supported" },
        { RESPONSES, "{" I "'reasoning': {'effort': 'lots'}}", "reasoning.effort", "\"lots\"" },
        { RESPONSES, "{'model': 'm', 'input': [{'type': 'item_reference', 'id': 'x'}]}", "input[0].type", "item_reference" },
        { RESPONSES, "{'model': 'm', 'input': [{'id': 'x'}]}", "input[0].type", "required" },
        { RESPONSES, "{'model': 'm', 'input': [{'role': 'tool', 'content': 'x'}]}", "input[0].role", "\"tool\" is not supported" },
        { RESPONSES, "{'model': 'm', 'input': [{'role': 'user', 'content': [{'type': 'input_image', 'image_url': 'x'}]}]}", "input[0].content[0].type", "input_image" },
        { RESPONSES, "{'model': 'm', 'input': [{'type': 'function_call', 'call_id': 'c', 'name': 'f', 'arguments': '{'}]}", "input[0].arguments", "JSON" },
        { RESPONSES, "{'model': 'm', 'input': [{'type': 'function_call_output', 'output': 'c'}]}", "input[0].call_id", "required" },
        { RESPONSES, "{'model': 'm', 'input': [{'type': 'reasoning', 'id': 'r', 'summary': [], 'encrypted_content': 'x'}]}", "input[0].encrypted_content", "not supported" },
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
    ns_buf_adds(&b, "{'model': 'm', 'messages': [{'role': 'assistant', 'tool_calls': [{'id': 'c', 'type': 'function', 'function': {'name': 'f', 'arguments': '{\\'a\\': ");
    for (int i = 0; i < 64; i++)
        ns_buf_addc(&b, '[');
    ns_buf_adds(&b, "'}}]}]}");
    e = refused(CHAT, b.data);
    assert_string_equal(e.param, "messages[0].tool_calls[0].function.arguments");
    assert_non_null(strstr(e.message, "nested deeper than 64"));
    ns_buf_release(&b);
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

/* ---- the template's side ---- */

/* A published conversation as a client sends it: arguments as text, contents in parts, ids where the API wants them. */
static json_t *as_client(const json_t *line)
{
    json_t *body = json_pack("{s:s}", "model", "m"), *messages = json_deep_copy(json_object_get(line, "messages")), *tools = json_array();
    json_t *kwargs = json_deep_copy(json_object_get(line, "kwargs")), *m, *call, *tool;
    size_t i, k;
    json_array_foreach(messages, i, m) {
        json_t *content = json_object_get(m, "content");
        if (json_is_string(content))
            json_object_set_new(m, "content", json_pack("[{s:s, s:O}]", "type", "text", "text", content));
        if (strcmp(json_string_value(json_object_get(m, "role")), "tool") == 0)
            json_object_set_new(m, "tool_call_id", json_string("c"));
        json_array_foreach(json_object_get(m, "tool_calls"), k, call) {
            json_t *f = json_object_get(call, "function");
            char *text = json_dumps(json_object_get(f, "arguments"), 0);
            json_object_set_new(f, "arguments", json_string(text));
            json_object_set_new(call, "id", json_string("c"));
            free(text);
        }
    }
    json_array_foreach(json_object_get(kwargs, "tools"), i, tool)
        json_array_append_new(tools, json_object_get(tool, "function") ? json_incref(tool) : json_pack("{s:s, s:O}", "type", "function", "function", tool));
    json_object_del(kwargs, "add_generation_prompt");
    json_object_del(kwargs, "tools");
    json_object_set_new(body, "messages", messages);
    json_object_set_new(body, "tools", tools);
    json_object_set_new(body, "chat_template_kwargs", kwargs);
    return body;
}

static void check_vector(const ns_template *t, const json_t *line)
{
    json_t *body = as_client(line);
    char *text = json_dumps(body, 0);
    ns_api_request r;
    ns_api_error e;
    ns_err why = { 0 };
    ns_prompt p;
    if (ns_api_parse(CHAT, text, strlen(text), &r, &e) != 0)
        fail_msg("%s: %s", text, e.message);
    json_object_set(r.chat, "add_generation_prompt", json_object_get(json_object_get(line, "kwargs"), "add_generation_prompt"));
    if (ns_template_render(t, r.chat, NULL, &p, &why) != 0)
        fail_msg("%s", why.msg);
    assert_string_equal(p.text.data, json_string_value(json_object_get(line, "prompt")));
    ns_prompt_release(&p);
    ns_api_request_release(&r);
    free(text);
    json_decref(body);
}

/* Prompts that jinja2 made of the same conversations. */
static void test_vectors(void **state)
{
    (void)state;
    const char *data = getenv("NS_TEST_DATA");
    if (!data || !*data)
        skip();
    ns_err e = { 0 };
    ns_buf path = { 0 }, text = { 0 };
    ns_template *t = ns_template_open(ns_path_join(&path, data, "nemotron3/chat_template.jinja"), &e);
    if (!t || ns_file_read(ns_path_join(&path, data, "vectors/chat_template/nemotron3.jsonl"), 1 << 24, &text, &e))
        fail_msg("%s", e.msg);
    int n = 0;
    for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n"), n++) {
        json_t *j = ns_json_parse(line, strlen(line), false, "vector", &e);
        if (!j)
            fail_msg("%s", e.msg);
        check_vector(t, j);
        json_decref(j);
    }
    assert_true(n > 10);
    ns_buf_release(&path);
    ns_buf_release(&text);
    ns_template_free(t);
}

static void test_demo(void **state)
{
    (void)state;
    const char *src = getenv("NS_TEST_SRC");
    if (!src)
        skip();
    ns_err e = { 0 };
    ns_buf path = { 0 };
    ns_prompt p;
    ns_template *t = ns_template_open(ns_path_join(&path, src, "examples/demo/model/chat_template.jinja"), &e);
    ns_api_request r = parsed(RESPONSES, "{'model': 'm', 'reasoning': {'effort': 'none'}, 'input': [{'role': 'user', 'content': '1+1?'},"
                                         "{'type': 'reasoning', 'id': 'r', 'summary': [], 'content': [{'type': 'reasoning_text', 'text': 'two'}]},"
                                         "{'role': 'assistant', 'content': '2'}, {'role': 'user', 'content': 'and <|im_end|>?'}]}");
    if (!t || ns_template_render(t, r.chat, NULL, &p, &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(p.text.data, "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n<think></think>2<|im_end|>\n"
                                     "<|im_start|>user\nand <|im_end|>?<|im_end|>\n<|im_start|>assistant\n<think></think>");
    ns_prompt_release(&p);
    ns_api_request_release(&r);
    ns_template_free(t);
    ns_buf_release(&path);
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
        cmocka_unit_test(test_numbers),  cmocka_unit_test(test_prompt), cmocka_unit_test(test_messages), cmocka_unit_test(test_thinking),
        cmocka_unit_test(test_choice_and_format), cmocka_unit_test(test_refusals), cmocka_unit_test(test_json), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_quotes), cmocka_unit_test(test_vectors), cmocka_unit_test(test_demo),
    };
    return argc > 1 ? by_hand(argv[1]) : cmocka_run_group_tests(tests, NULL, NULL);
}
