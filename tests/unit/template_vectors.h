/* The conversations of shared/data's vectors with the prompts that jinja2 made of them by the Nemotron 3 template. */
#ifndef TESTS_TEMPLATE_VECTORS_H
#define TESTS_TEMPLATE_VECTORS_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "text/template.h"

/* Skips the test without NS_TEST_DATA. */
static inline void each_vector(void (*check)(const ns_template *t, const json_t *line))
{
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
        check(t, j);
        json_decref(j);
    }
    assert_true(n > 10);
    ns_buf_release(&path);
    ns_buf_release(&text);
    ns_template_free(t);
}
#endif
