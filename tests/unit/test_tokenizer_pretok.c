/* Pre-tokenization: where texts are cut, and which constructs are refused. Expected cuts are Hugging Face's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/pretok.h"
#include "text/pretok_regex.h"

#define GPT2 "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true}"
#define PLAIN "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
#define SEQUENCE(steps) "{\"type\": \"Sequence\", \"pretokenizers\": [" steps ", " PLAIN "]}"
#define SPLIT(pattern, more) "{\"type\": \"Split\", \"pattern\": {" pattern "}, " more "}"
#define ISOLATED "\"behavior\": \"Isolated\", \"invert\": false"
#define REMOVED "\"behavior\": \"Removed\", \"invert\": false"
#define KEPT "\"behavior\": \"Removed\", \"invert\": true"

static ns_pretok *parse(const char *spec, ns_err *e)
{
    json_t *j = ns_json_parse(spec, strlen(spec), false, "spec", e);
    ns_pretok *p = j ? ns_pretok_parse(j, e) : NULL;
    json_decref(j);
    return p;
}

static int add_piece(void *ctx, const char *p, size_t n)
{
    ns_buf *b = ctx;
    ns_buf_adds(b, b->len ? "|" : "");
    ns_buf_add(b, p, n);
    return 0;
}

static void check(const char *spec, const char *text, const char *expected)
{
    ns_err e = { 0 };
    ns_buf b = { 0 };
    ns_pretok_scratch s;
    ns_pretok *p = parse(spec, &e);
    if (!p)
        fail_msg("%s", e.msg);
    assert_int_equal(ns_pretok_scratch_init(&s, &e), 0);
    assert_int_equal(ns_pretok_run(p, &s, text, strlen(text), true, add_piece, &b, &e), 0);
    assert_string_equal(b.data ? b.data : "", expected);
    ns_pretok_scratch_release(&s);
    ns_pretok_free(p);
    ns_buf_release(&b);
}

static void byte_level(void **state)
{
    (void)state;
    check(GPT2, "", "");
    check(GPT2, "Hello, it's 12  x\n\n", "Hello|,| it|'s| 12| | x|\n\n");
    check(GPT2, "a\u180eb", "a|\u180e|b"); /* not a space */
    check(GPT2, "a\u3000\u3000b", "a|\u3000|\u3000|b");
    check("{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"use_regex\": false}", "a b", " a b");
    check("{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", "a b", " a| b");
}

static void splits(void **state)
{
    (void)state;
    check(SEQUENCE(SPLIT("\"Regex\": \"\\\\p{N}\"", ISOLATED)), "a12b", "a|1|2|b");
    check(SEQUENCE(SPLIT("\"Regex\": \"\\\\p{N}\"", REMOVED)), "a12b", "a|b");
    check(SEQUENCE(SPLIT("\"Regex\": \"\\\\p{N}\"", KEPT)), "a12b", "1|2");
    check(SEQUENCE(SPLIT("\"String\": \".*\"", ISOLATED)), "a.*b.*", "a|.*|b|.*");
    check(SEQUENCE(SPLIT("\"Regex\": \"(?=\\\\p{Lu})\"", ISOLATED)), "camelCaseÉa", "camel|Case|Éa");
    check(SEQUENCE(SPLIT("\"Regex\": \"\\\\d*\"", ISOLATED)), "é12a", "é|12|a");
    check(SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": true}"), "x²34", "x|²|3|4");
    check(SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": false}"), "x²34y", "x|²34|y");
    check(SEQUENCE(SPLIT("\"Regex\": \"[\\\\s-]+\"", ISOLATED) ", " SPLIT("\"String\": \"b\"", ISOLATED)), "a - bc", "a| - |b|c");
}

static void translations(void **state)
{
    (void)state;
    check(SEQUENCE(SPLIT("\"Regex\": \"\\\\p{Han}+\"", ISOLATED)), "你好、x", "你好|、x"); /* 、 has Han as an extension */
    check(SEQUENCE(SPLIT("\"Regex\": \"\\\\w+\"", ISOLATED)), "e\u0301_½-", "e\u0301_½|-");
    check(SEQUENCE(SPLIT("\"Regex\": \"[\\\\w]+\"", ISOLATED)), "a½b", "a|½|b");
    check(SEQUENCE(SPLIT("\"Regex\": \"^.\"", ISOLATED)), "ab\ncd\n", "a|b\n|c|d\n");
    check(SEQUENCE(SPLIT("\"Regex\": \".$\"", ISOLATED)), "ab\ncd", "a|b|\nc|d");
    check(SEQUENCE(SPLIT("\"Regex\": \"[\\\\S\\\\t]+\"", ISOLATED)), "a\tb c\u180e", "a\tb| |c\u180e");
    check(SEQUENCE(SPLIT("\"Regex\": \"[\\\\u4e00-\\\\u9fff]|\\\\x41\"", ISOLATED)), "xA好", "x|A|好");
}

static void constructs_are_refused(void **state)
{
    static const char *const patterns[][2] = {
        { "\\bx", "\\b" }, { "\\h", "\\h" }, { "(a)\\1", "\\1" }, { "(?<n>a)", "a group (?" }, { "(?i)a", "a group (?" },
        { "(*UTF)", "a group (?" }, { "[a[b]]", "a class inside a class" }, { "[a&&b]", "&&" }, { "a{1,3}+", "{n,m}+" },
        { "a{2}?", "{n}?" }, { "a{,3}", "{,n}" }, { "[abc", "a class without end" }, { "[]a]", "] first" },
        { "\\", "a backslash at the end" }, { "\\xff", "\\xHH above 7F" }, { "\\x{41", "this \\x" },
        { "\\u12", "this \\x or \\u" }, { "\\pL", "\\p without" }, { "[\\W]", "\\W in a class" }, { "\\p{L", "\\p without" },
        { "\\p{L&}", "this \\p{name}" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        ns_err e = { 0 };
        ns_buf b = { 0 };
        assert_int_equal(ns_regex_translate(patterns[i][0], strlen(patterns[i][0]), &b, &e), -1);
        if (!strstr(e.msg, patterns[i][1]))
            fail_msg("%s: expected \"%s\", got \"%s\"", patterns[i][0], patterns[i][1], e.msg);
        ns_buf_release(&b);
    }
}

static void steps_are_refused(void **state)
{
    static const char *const specs[][2] = {
        { "{\"type\": \"Whitespace\"}", "\"Whitespace\" where only ByteLevel" },
        { SEQUENCE("{\"type\": \"Punctuation\"}"), "\"Punctuation\" is not supported" },
        { SEQUENCE(PLAIN), "\"ByteLevel\" is not supported before other steps" },
        { SEQUENCE(SPLIT("\"Regex\": \"a\"", "\"behavior\": \"MergedWithNext\"")), "\"MergedWithNext\"" },
        { SEQUENCE(SPLIT("\"Regex\": \"(\"", ISOLATED)), "Split: regular expression" },
        { SEQUENCE(SPLIT("\"Regex\": \"\\\\p{Klingon}\"", ISOLATED)), "unknown property" },
        { SEQUENCE(SPLIT("\"Regex\": \"\"", ISOLATED)), "an empty pattern" },
        { SEQUENCE(SPLIT("\"Glob\": \"*\"", ISOLATED)), "expected a pattern" },
        { "{\"type\": \"Sequence\", \"pretokenizers\": []}", "an empty Sequence" },
        { "{\"type\": 3}", "type" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        ns_err e = { 0 };
        assert_null(parse(specs[i][0], &e));
        if (strncmp(e.msg, "pre_tokenizer: ", 15) != 0 || !strstr(e.msg, specs[i][1]))
            fail_msg("expected \"%s\", got \"%s\"", specs[i][1], e.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level),
        cmocka_unit_test(splits),
        cmocka_unit_test(translations),
        cmocka_unit_test(constructs_are_refused),
        cmocka_unit_test(steps_are_refused),
    };
    return cmocka_run_group_tests_name("tokenizer_pretok", tests, NULL, NULL);
}
