/* JSONTestSuite, the Python words, and the typed getters. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"

static json_t *parse(const char *text, bool python, ns_err *e)
{
    *e = (ns_err){ 0 };
    json_t *v = ns_json_parse(text, strlen(text), python, "text", e);
    assert_int_equal(v == NULL, e->code != NS_OK);
    return v;
}

/* Valid JSON that is refused all the same: duplicate keys on purpose, NUL in a key because C strings cannot hold it. */
static bool stricter(const char *name)
{
    static const char *const names[] = { "y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json",
                                         "y_object_escaped_null_in_key.json" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void test_suite(void **state)
{
    (void)state;
    const char *data = getenv("NS_TEST_DATA");
    char dir[600];
    int n = 0, wrong = 0;
    ns_buf path = { 0 };
    snprintf(dir, sizeof dir, "%s/vectors/json/test_parsing", data ? data : "");
    DIR *d = data && *data ? opendir(dir) : NULL;
    if (!d)
        skip();
    for (struct dirent *ent; (ent = readdir(d));) {
        if (ent->d_name[0] == '.')
            continue;
        ns_err e = { 0 }, e2 = { 0 };
        json_t *v = ns_json_open(ns_path_join(&path, dir, ent->d_name), false, &e);
        json_decref(ns_json_open(path.data, true, &e2)); /* the lenient reader must only not crash */
        if (ent->d_name[0] != 'i' && (v != NULL) != (ent->d_name[0] == 'y' && !stricter(ent->d_name))) {
            print_error("%s: %s\n", ent->d_name, v ? "accepted" : e.msg);
            wrong++;
        }
        if (!v)
            assert_non_null(strstr(e.msg, ent->d_name));
        json_decref(v);
        n++;
    }
    closedir(d);
    ns_buf_release(&path);
    assert_int_equal(wrong, 0);
    assert_true(n > 300);
}

static void strictness(void **state)
{
    static const char *const bad[] = { "", " ", "{\"a\":1,\"a\":2}", "{} x", "[1,]", "{\"a\":1}\n{}", "NaN", "[Infinity]",
                                       "\"\xff\"",
                                       "\"\xed\xa0\x80\"", "[1e999]", "\xef\xbb\xbf{}", "'a'", "{a:1}", "[1] // c" };
    (void)state;
    ns_err e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *v = parse(bad[i], false, &e);
        if (v)
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(e.code, NS_EFORMAT);
        assert_non_null(strstr(e.msg, "text: JSON, line"));
    }
    e = (ns_err){ 0 };
    assert_null(ns_json_parse(NULL, 0, false, "text", &e));
    assert_null(ns_json_parse("{}\0", 3, false, "text", NULL)); /* a trailing NUL is a trailing byte */
    assert_null(ns_json_parse("[1\0,2]", 6, false, "text", NULL));
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    enum { DEPTH = 1 << 20 };
    char *text = malloc(DEPTH);
    assert_non_null(text);
    ns_err e = { 0 };
    memset(text, '[', DEPTH);
    assert_null(ns_json_parse(text, DEPTH, false, "deep", &e));
    assert_non_null(strstr(e.msg, "deep"));
    for (int i = 0; i + 5 < DEPTH; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    e = (ns_err){ 0 };
    assert_null(ns_json_parse(text, DEPTH, true, "deep", &e));
    free(text);
}

static void python_words(void **state)
{
    (void)state;
    ns_err e;
    json_t *v = parse("{\"limit\": [0.0, Infinity], \"low\": -Infinity, \"x\": NaN, \"NaN\": \"Infinity \\\" NaN\"}", true, &e);
    assert_non_null(v);
    const json_t *limit = json_object_get(v, "limit");
    assert_true(json_number_value(json_array_get(limit, 1)) > 1e308);
    assert_true(json_number_value(json_object_get(v, "low")) < -1e308);
    assert_true(json_is_null(json_object_get(v, "x")));
    assert_string_equal(json_string_value(json_object_get(v, "NaN")), "Infinity \" NaN");
    json_decref(v);
    assert_null(parse("[infinity]", true, &e));
    assert_null(parse("{\"a\": \"Infinity}", true, &e));
    assert_null(parse("\"\\", true, &e));
}

static void integers(void **state)
{
    (void)state;
    ns_err e;
    int64_t x;
    json_t *v = parse("{\"a\": 7, \"neg\": -1, \"f\": 1.0, \"s\": \"1\", \"null\": null, "
                      "\"big\": 9223372036854775807, \"t\": true}", false, &e);
    assert_int_equal(ns_json_int(v, "a", 0, 10, 5, &x, &e), 0);
    assert_int_equal(x, 7);
    assert_int_equal(ns_json_int(v, "missing", 0, 10, -5, &x, &e), 0); /* a default may lie outside the range */
    assert_int_equal(x, -5);
    assert_int_equal(ns_json_int(v, "null", 0, 10, 5, &x, &e), 0);
    assert_int_equal(x, 5);
    assert_int_equal(ns_json_int(v, "big", 0, INT64_MAX, 0, &x, &e), 0);
    assert_true(x == INT64_MAX);
    static const char *const bad[] = { "neg", "f", "s", "t", "big" };
    for (size_t i = 0; i < 5; i++) {
        e = (ns_err){ 0 };
        assert_int_equal(ns_json_int(v, bad[i], 0, 10, 5, &x, &e), -1);
        assert_non_null(strstr(e.msg, bad[i]));
    }
    json_decref(v);
}

static void other_types(void **state)
{
    (void)state;
    ns_err e;
    double d;
    bool b;
    const char *s;
    json_t *v = parse("{\"i\": 3, \"f\": 1e-05, \"t\": true, \"s\": \"x\", \"null\": null}", false, &e);
    assert_int_equal(ns_json_real(v, "i", 0, &d, &e), 0);
    assert_true(d == 3);
    assert_int_equal(ns_json_real(v, "f", 0, &d, &e), 0);
    assert_true(d == 1e-05);
    assert_int_equal(ns_json_real(v, "null", 2.5, &d, &e), 0);
    assert_true(d == 2.5);
    assert_int_equal(ns_json_bool(v, "t", false, &b, &e), 0);
    assert_true(b);
    assert_int_equal(ns_json_bool(v, "null", true, &b, &e), 0);
    assert_true(b);
    assert_int_equal(ns_json_str(v, "s", NULL, &s, &e), 0);
    assert_string_equal(s, "x");
    assert_int_equal(ns_json_str(v, "none", "dflt", &s, &e), 0);
    assert_string_equal(s, "dflt");
    assert_int_equal(ns_json_real(v, "s", 0, &d, &e), -1);
    assert_string_equal(e.msg, "key \"s\": expected a number");
    assert_int_equal(ns_json_bool(v, "i", 0, &b, NULL), -1);
    assert_int_equal(ns_json_str(v, "i", NULL, &s, NULL), -1);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suite),   cmocka_unit_test(strictness), cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(python_words), cmocka_unit_test(integers),   cmocka_unit_test(other_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
