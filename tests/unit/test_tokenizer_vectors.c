/* Text -> ids against Hugging Face's tokenizers, for real vocabularies. Needs NS_TEST_DATA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"

enum { FILE_LIMIT = 64 << 20, LONG_TEXT = 100000 };

static const char *data_dir(void)
{
    const char *dir = getenv("NS_TEST_DATA");
    return dir && *dir && ns_dir_exists(dir) ? dir : NULL;
}

static ns_tokenizer *open_tokenizer(const char *name)
{
    ns_buf path = { 0 };
    ns_err e = { 0 };
    ns_path_join(&path, data_dir(), name);
    ns_tokenizer *t = ns_tokenizer_open(path.data, &e);
    if (!t)
        fail_msg("%s", e.msg);
    ns_buf_release(&path);
    return t;
}

static void check_line(const ns_tokenizer *t, const json_t *o)
{
    const json_t *text = json_object_get(o, "text"), *want = json_object_get(o, "ids");
    ns_ids ids = { 0 };
    ns_err e = { 0 };
    assert_int_equal(ns_tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &ids, &e), 0);
    bool same = ids.len == json_array_size(want);
    for (size_t i = 0; same && i < ids.len; i++)
        same = json_integer_value(json_array_get(want, i)) == ids.data[i];
    if (!same)
        fail_msg("other ids for \"%s\"", json_string_value(text));
    ns_ids_release(&ids);
}

static void check_vectors(const char *tokenizer, const char *vectors)
{
    ns_buf path = { 0 }, text = { 0 };
    ns_err e = { 0 };
    size_t n = 0;
    if (!data_dir())
        skip();
    ns_tokenizer *t = open_tokenizer(tokenizer);
    ns_path_join(&path, data_dir(), vectors);
    assert_int_equal(ns_file_read(path.data, FILE_LIMIT, &text, &e), 0);
    for (char *line = text.data, *end; (end = strchr(line, '\n')); line = end + 1, n++) {
        json_t *o = ns_json_parse(line, (size_t)(end - line), false, vectors, &e);
        assert_non_null(o);
        check_line(t, o);
        json_decref(o);
    }
    assert_true(n > 100);
    ns_tokenizer_free(t);
    ns_buf_release(&text);
    ns_buf_release(&path);
}

static void nemotron3(void **state)
{
    (void)state;
    check_vectors("nemotron3/tokenizer.json", "vectors/tokenizer/nemotron3.jsonl");
}

static void qwen3(void **state)
{
    (void)state;
    check_vectors("tokenizers/qwen3/tokenizer.json", "vectors/tokenizer/qwen3.jsonl");
}

static void gpt2(void **state)
{
    (void)state;
    check_vectors("tokenizers/gpt2/tokenizer.json", "vectors/tokenizer/gpt2.jsonl");
}

static void nemotron3_control_words_stay_text(void **state)
{
    static const char *const words[] = { "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<s>", "</s>", "<SPECIAL_999>" };
    (void)state;
    if (!data_dir())
        skip();
    ns_tokenizer *t = open_tokenizer("nemotron3/tokenizer.json");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        ns_ids ids = { 0 };
        ns_buf back = { 0 };
        ns_err e = { 0 };
        assert_int_equal(ns_tokenizer_encode(t, words[i], strlen(words[i]), false, &ids, &e), 0);
        for (size_t k = 0; k < ids.len; k++)
            assert_true(ids.data[k] >= 1000);
        assert_int_equal(ns_tokenizer_decode(t, ids.data, ids.len, true, &back, &e), 0);
        assert_string_equal(back.data, words[i]);
        ns_ids_clear(&ids);
        assert_int_equal(ns_tokenizer_encode(t, words[i], strlen(words[i]), true, &ids, &e), 0);
        assert_int_equal(ids.len, 1);
        assert_int_equal(ids.data[0], ns_tokenizer_find(t, words[i], strlen(words[i])));
        ns_ids_release(&ids);
        ns_buf_release(&back);
    }
    ns_tokenizer_free(t);
}

/* One piece of 100,000 bytes: quadratic merging would take minutes. */
static void long_pieces_take_no_time(void **state)
{
    (void)state;
    if (!data_dir())
        skip();
    ns_tokenizer *t = open_tokenizer("tokenizers/qwen3/tokenizer.json");
    for (const char *c = "a \n<"; *c; c++) {
        ns_ids ids = { 0 };
        ns_buf back = { 0 };
        ns_err e = { 0 };
        char *text = malloc(LONG_TEXT);
        assert_non_null(text);
        memset(text, *c, LONG_TEXT);
        assert_int_equal(ns_tokenizer_encode(t, text, LONG_TEXT, true, &ids, &e), 0);
        assert_int_equal(ns_tokenizer_decode(t, ids.data, ids.len, true, &back, &e), 0);
        assert_int_equal(back.len, LONG_TEXT);
        assert_memory_equal(back.data, text, LONG_TEXT);
        free(text);
        ns_ids_release(&ids);
        ns_buf_release(&back);
    }
    ns_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nemotron3),
        cmocka_unit_test(qwen3),
        cmocka_unit_test(gpt2),
        cmocka_unit_test(nemotron3_control_words_stay_text),
        cmocka_unit_test(long_pieces_take_no_time),
    };
    return cmocka_run_group_tests_name("tokenizer_vectors", tests, NULL, NULL);
}
