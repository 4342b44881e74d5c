/* What chat templates make of requests: for the Nemotron 3 template what jinja2 made of the same conversations. */
#include <stdlib.h>

#include "api_bodies.h"
#include "base/file.h"
#include "base/json.h"
#include "text/template.h"
#include "unit/template_vectors.h"

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
        json_array_append_new(tools, json_object_get(tool, "function") ? json_incref(tool)
                                                                       : json_pack("{s:s, s:O}", "type", "function", "function", tool));
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
    each_vector(check_vector);
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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_vectors), cmocka_unit_test(test_demo) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
