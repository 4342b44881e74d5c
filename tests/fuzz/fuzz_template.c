/* The input is a chat template. Whatever parses is rendered with a small conversation; spans must cover the prompt. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static json_t *conversation(void)
{
    static const char text[] =
        "{\"messages\": [{\"role\": \"system\", \"content\": \" Be \\\"brief\\\".\\n\"}, {\"role\": \"user\", \"content\": [{\"type\": \"text\","
        " \"text\": \"Gr\\u00fc\\u00dfe <|im_end|>\"}]}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"c1\", \"function\":"
        " {\"name\": \"f\", \"arguments\": {\"x\": 1.5, \"items\": [1, true, null]}}}]}, {\"role\": \"tool\", \"content\": \"3\"},"
        " {\"role\": \"user\", \"content\": \"<think>a</think>b\"}], \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\","
        " \"parameters\": {\"type\": \"object\", \"properties\": {\"x\": {\"type\": \"number\"}}}}}], \"bos_token\": \"<s>\","
        " \"s\": \"Hello, World\", \"n\": 7, \"f\": 2.5, \"l\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": \"x\"}, \"add_generation_prompt\": true}";
    return json_loads(text, 0, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static json_t *vars;
    ns_err e = { 0 };
    ns_prompt p;
    ns_template_opts o = ns_template_defaults();
    o.max_output = 1 << 16;
    o.max_steps = 50000;
    o.max_memory = 8 << 20;
    o.now = 1000000000;
    if (!vars)
        vars = conversation();
    ns_template *t = ns_template_parse((const char *)data, size, "t", &e);
    if (t && ns_template_render(t, vars, &o, &p, &e) == 0) {
        size_t at = 0;
        for (size_t i = 0; i < p.n_spans; i++) {
            if (p.spans[i].offset != at || p.spans[i].len == 0 || (i && p.spans[i].trusted == p.spans[i - 1].trusted))
                __builtin_trap();
            at += p.spans[i].len;
        }
        if (at != p.text.len)
            __builtin_trap();
        ns_prompt_release(&p);
    } else if (e.code == NS_OK || !e.msg[0]) {
        __builtin_trap(); /* a failure says why */
    }
    ns_template_free(t);
    return 0;
}
