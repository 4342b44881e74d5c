/* Grammars: what schemas allow and refuse, and masks against what is taken, token by token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../fuzz/byte_vocab.h"
#include "base/json.h"
#include "base/rng.h"
#include "text/grammar_impl.h" /* how much a walk keeps */

static const char *const words[] = { "{\"", "\": \"", "\":", "\", \"", "\"}", "\"]", "[[", "[[[[[[[[", "[{\"", "}}", "]}", ",\n  ", "\n\n", "        ",
    "true", "null", "123", "-1", "\\u", "\\uD83D\\u", "ab", "abc", "a\"", "\xc3\xa9", "\xe6\xbc", "\xa2\"", "<tool_call>", "</parameter>", "\n</",
    "\n<", "=ci", "function=", "{\"c\":[{\"c\":[{\"c\":[", "abcdefghijklmnopqrstuvwxyz", "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9" };
enum { N_WORDS = sizeof words / sizeof *words };

static json_t *parse(const char *text)
{
    ns_err e = { 0 };
    json_t *v = ns_json_parse(text, strlen(text), false, "test", &e);
    if (!v)
        fail_msg("%s", e.msg);
    return v;
}

static ns_grammar *compile(const char *schema)
{
    ns_err e = { 0 };
    json_t *v = parse(schema);
    ns_grammar *g = ns_grammar_schema(v, &e);
    if (!g)
        fail_msg("%s: %s", schema, e.msg);
    json_decref(v); /* the grammar does not need it */
    return g;
}

static ns_grammar_walk *start(const ns_grammar *g)
{
    ns_err e = { 0 };
    ns_grammar_walk *w = ns_grammar_walk_new(g, &e);
    if (!w)
        fail_msg("%s", e.msg);
    return w;
}

/* Whether the text is a whole answer; also byte by byte. */
static bool allowed(const ns_grammar *g, const char *text)
{
    ns_grammar_walk *w = start(g), *slow = start(g);
    bool ok = ns_grammar_take(w, text, strlen(text)) == 0, same = true;
    for (size_t i = 0; same && text[i]; i++)
        same = ns_grammar_take(slow, text + i, 1) == 0;
    assert_int_equal(ok, same);
    bool complete = ok && ns_grammar_complete(w);
    assert_int_equal(complete, same && ns_grammar_complete(slow));
    ns_grammar_walk_free(w);
    ns_grammar_walk_free(slow);
    return complete;
}

/* A list that ends with NULL. */
static void check(const char *schema, const char *const *good, const char *const *bad)
{
    ns_grammar *g = compile(schema);
    for (; *good; good++)
        if (!allowed(g, *good))
            fail_msg("%s does not allow %s", schema, *good);
    for (; *bad; bad++)
        if (allowed(g, *bad))
            fail_msg("%s allows %s", schema, *bad);
    ns_grammar_free(g);
}

#define LIST(...) (const char *const[]){ __VA_ARGS__, NULL }

static void scalars(void **state)
{
    (void)state;
    check("{\"type\": \"integer\"}", LIST("0", "-0", "17", "-123456789012345678", " 5", "\n 5"),
          LIST("", "-", "01", "1.0", "1e3", "+1", "1234567890123456789", "5 ", "\n\n5", "\"1\""));
    check("{\"type\": \"number\"}", LIST("0", "1.5", "-0.25E-7", "1e+22", "1e199", "6.346057714522935e-06", "0.00012345678901234567"),
          LIST(".5", "1.", "1e", "1e+", "1e200", "00.1", "NaN", "0.1234567890123456789012345"));
    check("{\"type\": \"boolean\"}", LIST("true", "false"), LIST("True", "truefalse", "null", "tru"));
    check("{\"type\": [\"null\", \"string\"]}", LIST("null", "\"\"", "\"null\""), LIST("0", "nul", "''"));
    check("{\"type\": [\"integer\", \"number\"]}", LIST("1", "1.5"), LIST("true"));
}

static void strings(void **state)
{
    (void)state;
    check("{\"type\": \"string\"}",
          LIST("\"\"", "\"a\\\"b\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u00e9\\uD7ff\\uE000\"", "\"\\ud83d\\ude00\\uDBFF\\uDFFF\"", "\"\xc3\xa9 \xe6\xbc\xa2 \xf0\x9f\x98\x80 \x7f\"",
               "\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\""),
          LIST("\"", "\"\n\"", "\"\t\"", "\"\x1f\"", "\"\\x\"", "\"\\u12\"", "\"\\u123g\"", "\"\\ud83d\"", "\"\\ud83dx\"", "\"\\ud83d\\n\"", "\"\\ud83d\\ud83d\"", "\"\\ude00\"",
               "\"\xc0\x80\"", "\"\xc3\"", "\"\xe0\x80\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xf8\"", "\"\x80\"", "\"a\"b", "\"a\" "));
    check("{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}",
          LIST("\"ab\"", "\"\xf0\x9f\x98\x80\xc3\xa9\xc3\xa9\"", "\"\\ud83d\\ude00\\u0041\\n\""), LIST("\"a\"", "\"abcd\"", "\"\\ud83d\\ude00\"", "\"\""));
    check("{\"minLength\": 2}", LIST("\"ab\"", "\"abcdefghij\""), LIST("\"a\"", "1"));
    check("{\"type\": \"string\", \"maxLength\": 0}", LIST("\"\""), LIST("\"a\""));
    check("{\"type\": \"string\", \"format\": \"date-time\"}", LIST("\"x\""), LIST("1"));
}

/* Every integer of a stretch against every pair of bounds; numbers around the bounds. */
static void bounds(void **state)
{
    (void)state;
    static const int at[] = { -1000, -120, -19, -1, 0, 1, 7, 10, 99, 345, 1000 };
    enum { N = sizeof at / sizeof *at };
    for (int i = 0; i < N * N; i++) {
        int lo = at[i / N], hi = at[i % N];
        char schema[100], text[40];
        if (lo > hi)
            continue;
        snprintf(schema, sizeof schema, "{\"type\": \"integer\", \"minimum\": %d, \"exclusiveMaximum\": %d}", lo, hi + 1);
        ns_grammar *g = compile(schema);
        for (int x = -1100; x <= 1100; x++) {
            snprintf(text, sizeof text, "%d", x);
            if (allowed(g, text) != (x >= lo && x <= hi))
                fail_msg("%s and %d", schema, x);
        }
        ns_grammar_free(g);
        snprintf(schema, sizeof schema, "{\"exclusiveMinimum\": %d, \"maximum\": %d}", lo, hi);
        g = lo < hi ? compile(schema) : NULL; /* nothing lies above 5 and not above it */
        for (int x = -10010; g && x <= 10010; x += 7) {
            snprintf(text, sizeof text, "%.1f", x / 10.0);
            if (allowed(g, text) != (x > 10 * lo && x <= 10 * hi))
                fail_msg("%s and %s", schema, text);
        }
        ns_grammar_free(g);
    }
    check("{\"type\": \"number\", \"minimum\": 0, \"maximum\": 1}", LIST("0", "0.5", "1", "1.000", "0.000000000000000000000001"),
          LIST("1.1", "1.01", "2", "10", "-0.5", "00", "1e-1", "0."));
    check("{\"type\": \"number\", \"exclusiveMinimum\": 0}", LIST("0.01", "1", "10.0", "999999999999999999"), LIST("0", "0.0", "-1", "0.00"));
    check("{\"type\": \"integer\", \"maximum\": -5}", LIST("-5", "-6", "-10", "-999999999999999999"), LIST("-4", "0", "5", "-05", "-"));
}

static void given_values(void **state)
{
    (void)state;
    check("{\"enum\": [1, 12, 123, \"a\", \"ab\", \"a\", null, 0.1, -2.5, [1, {\"a\": \"x\\\"\"}], {}]}",
          LIST("1", "12", "123", "\"a\"", "\"ab\"", "null", "0.1", "-2.5", "[1,{\"a\":\"x\\\"\"}]", "[ 1, {\n \"a\": \"x\\\"\"\n} ]", "{ }"),
          LIST("2", "13", "1234", "\"abc\"", "\"\"", "[1]", "[1,{\"a\":\"x\"}]", "{\"a\":1}", "true"));
    check("{\"const\": \"a\\u0001\xc3\xa9\"}", LIST("\"a\\u0001\xc3\xa9\""), LIST("\"a\"", "\"\\u0061\\u0001\xc3\xa9\""));
    check("{\"enum\": [1, \"a\", 2.0, 2.5], \"type\": \"integer\"}", LIST("1", "2.0"), LIST("\"a\"", "2.5"));
    check("{\"const\": null}", LIST("null"), LIST("0"));
}

static void arrays(void **state)
{
    (void)state;
    check("{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"minItems\": 2, \"maxItems\": 3}",
          LIST("[1,2]", "[1, 2, 3]", "[\n  1,\n  2\n]"), LIST("[]", "[1]", "[1,2,3,4]", "[1,2,]", "[1 ,2]", "[1,\"2\"]", "[1,2", "[,1,2]"));
    check("{\"type\": \"array\"}", LIST("[]", "[ ]", "[[],{},\"a\",1.5,null]"), LIST("[", "{}", "[1}"));
    check("{\"type\": \"array\", \"maxItems\": 0}", LIST("[]", "[\n]"), LIST("[1]"));
    check("{\"items\": false}", LIST("[]"), LIST("[1]", "1"));
    check("{\"type\": \"array\", \"prefixItems\": [{\"type\": \"string\"}, {\"type\": \"integer\"}]}",
          LIST("[]", "[\"a\"]", "[\"a\",1]", "[\"a\",1,null,{}]"), LIST("[1]", "[\"a\",\"b\"]"));
    check("{\"type\": \"array\", \"prefixItems\": [{\"type\": \"string\"}, {\"type\": \"integer\"}], \"items\": false, \"minItems\": 2}", LIST("[\"a\",1]"),
          LIST("[]", "[\"a\"]", "[\"a\",1,1]"));
    check("{\"prefixItems\": [{\"type\": \"string\"}], \"items\": {\"type\": \"null\"}, \"minItems\": 3, \"maxItems\": 4}",
          LIST("[\"a\",null,null]", "[\"a\",null,null,null]"), LIST("[\"a\",null]", "[\"a\",null,null,null,null]", "[\"a\",1,1]"));
}

static void objects(void **state)
{
    (void)state;
    check("{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"ab\": {\"type\": \"null\"}, \"b\": {\"type\": \"boolean\"}}, "
          "\"required\": [\"ab\"], \"additionalProperties\": false}",
          LIST("{\"ab\":null}", "{\"a\":1,\"ab\":null}", "{\"a\": 1, \"ab\": null, \"b\": true}", "{\n  \"ab\": null,\n  \"b\": false\n}"),
          LIST("{}", "{\"a\":1}", "{\"ab\":null,\"a\":1}", "{\"ab\":null,\"ab\":null}", "{\"b\":true}", "{\"ab\":null,\"c\":1}", "{\"ab\":null,}", "{\"ab\" :null}",
               "{\"\\u0061b\":null}"));
    check("{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": true}, \"required\": [\"a\"], \"additionalProperties\": {\"type\": \"string\"}}",
          LIST("{\"a\":1,\"x\":\"y\"}", "{\"a\":1,\"b\":[],\"\":\"\",\"\xc3\xa9\":\"\"}", "{\"a\":1,\"aa\":\"\",\"ba\":\"\"}"),
          LIST("{\"x\":\"y\",\"a\":1}", "{\"a\":1,\"x\":1}", "{\"a\":1,\"x\":\"\",\"b\":1}", "{\"a\":1,\"a\":\"\"}", "{\"a\":1,\"\\u0062\":\"\"}", "{\"a\":1,\"\xc3\":\"\"}"));
    check("{\"type\": \"object\"}", LIST("{}", "{ }", "{\"a\":1,\"\\u0061\\n\":{\"b\":[]}}"), LIST("[]", "{\"a\"}", "{a:1}", "{\"a\":1"));
    check("{\"additionalProperties\": false}", LIST("{}"), LIST("{\"a\":1}", "1"));
    check("{\"properties\": {\"a\": {\"type\": \"integer\"}}, \"required\": [\"z\", \"a\"]}", LIST("{\"a\":1,\"z\":{}}"), LIST("{\"a\":1}", "{\"z\":1,\"a\":1}"));
    check("{\"properties\": {\"q\\\"\\\\\\n\": {\"type\": \"integer\"}, \"\xc3\xa9\": {\"type\": \"null\"}}}",
          LIST("{\"q\\\"\\\\\\n\":1}", "{\"\xc3\xa9\":null,\"\xc3\xa8\":1}", "{\"q\":\"\"}"), LIST("{\"q\\\"\\\\\\n\":\"\"}", "{\"\xc3\xa9\":1}", "{\"q\\\"\":1}"));
}

static void blanks(void **state)
{
    (void)state;
    char text[200];
    ns_grammar *g = compile("{\"type\": \"array\", \"items\": {\"type\": \"integer\"}}");
    for (int n = 20; n <= 21; n++) {
        snprintf(text, sizeof text, "[%*s1]", n, "");
        assert_int_equal(allowed(g, text), n == 20);
        snprintf(text, sizeof text, "[\n%*s1,\t2]", n, "");
        assert_int_equal(allowed(g, text), n == 20);
    }
    assert_false(allowed(g, "[\n\n1]"));
    assert_false(allowed(g, "[ \n1]"));
    assert_false(allowed(g, "[1]\n"));
    ns_grammar_free(g);
}

static void alternatives(void **state)
{
    (void)state;
    check("{\"anyOf\": [{\"type\": \"object\", \"properties\": {\"k\": {\"const\": \"a\"}, \"x\": {\"type\": \"integer\"}}, \"required\": [\"k\", \"x\"]}, "
          "{\"type\": \"object\", \"properties\": {\"k\": {\"const\": \"ab\"}, \"x\": {\"type\": \"null\"}}, \"required\": [\"k\", \"x\"]}, {\"type\": \"null\"}], \"default\": null}",
          LIST("null", "{\"k\":\"a\",\"x\":1}", "{\"k\":\"ab\",\"x\":null}"), LIST("{\"k\":\"a\",\"x\":null}", "{\"k\":\"ab\",\"x\":1}", "1"));
    check("{\"oneOf\": [{\"type\": \"integer\"}, {\"oneOf\": [{\"type\": \"boolean\"}, {\"anyOf\": [{\"type\": \"null\"}]}]}]}", LIST("1", "true", "null"), LIST("\"\""));
    check("{\"allOf\": [{\"$ref\": \"#/$defs/b\"}, {\"properties\": {\"k\": {\"type\": \"integer\"}}, \"required\": [\"k\"]}], \"properties\": {\"z\": {\"type\": \"null\"}}, "
          "\"$defs\": {\"b\": {\"type\": \"object\", \"properties\": {\"id\": {\"type\": \"integer\"}}, \"required\": [\"id\"]}}}",
          LIST("{\"id\":1,\"k\":2}", "{\"id\":1,\"k\":2,\"z\":null,\"y\":0}"), LIST("{\"k\":2}", "{\"id\":1}", "{\"k\":2,\"id\":1}", "{\"id\":1,\"k\":2,\"z\":0}"));
    check("{\"allOf\": [{\"type\": \"integer\"}], \"title\": \"x\"}", LIST("1"), LIST("\"\""));
}

static void references(void **state)
{
    (void)state;
    check("{\"$ref\": \"#/definitions/x~1y\", \"definitions\": {\"x/y\": {\"type\": \"array\", \"items\": {\"$ref\": \"#/definitions/x~1y\"}}}}",
          LIST("[]", "[[],[[]]]"), LIST("[1]", "[[]"));
    check("{\"$ref\": \"#/$defs/N\", \"$defs\": {\"N\": {\"type\": \"object\", \"properties\": {\"v\": {\"type\": \"integer\"}, \"next\": {\"anyOf\": [{\"$ref\": \"#/$defs/N\"}, "
          "{\"type\": \"null\"}]}}, \"required\": [\"v\", \"next\"], \"additionalProperties\": false}}}",
          LIST("{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}"), LIST("{\"v\":1}", "{\"v\":1,\"next\":{}}"));
    check("{\"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"$ref\": \"#/properties/a\", \"description\": \"as a\"}}}", LIST("{\"a\":1,\"b\":2}"), LIST("{\"b\":\"\"}"));
    check("{\"anyOf\": [{\"$ref\": \"#\"}, {\"type\": \"integer\"}, {\"type\": \"array\", \"items\": {\"$ref\": \"#\"}}]}", LIST("1", "[[1],2]"), LIST("[null]"));
}

static void refusals(void **state)
{
    (void)state;
    static const struct { const char *schema, *says; } cases[] = {
        { "{\"properties\": {\"a\": {\"type\": \"string\", \"pattern\": \"x\"}}}", "schema: properties.a: keyword pattern is not supported" },
        { "{\"pattern\": \"x\"}", "schema: keyword pattern is not supported" },
        { "{\"type\": \"number\", \"multipleOf\": 2}", "schema: keyword multipleOf is not supported" },
        { "{\"type\": \"number\", \"minimum\": 0.5}", "schema: minimum: only whole numbers of at most 17 digits are supported" },
        { "{\"type\": \"integer\", \"exclusiveMinimum\": 1, \"exclusiveMaximum\": 2}", "schema: no number lies between the bounds" },
        { "{\"type\": \"array\", \"uniqueItems\": true}", "schema: keyword uniqueItems is not supported" },
        { "{\"type\": \"array\", \"items\": {\"not\": {}}}", "schema: items: keyword not is not supported" },
        { "{\"anyOf\": [{\"type\": \"null\"}, {\"propertyNames\": {}}]}", "schema: anyOf[1]: keyword propertyNames is not supported" },
        { "{\"$ref\": \"#/$defs/a\", \"$defs\": {\"a\": {\"properties\": {\"x\": {\"if\": {}}}}}}", "schema: $defs/a.properties.x: keyword if is not supported" },
        { "{\"$ref\": \"#/$defs/a\"}", "schema: $ref \"#/$defs/a\": there is nothing" },
        { "{\"$ref\": \"http://x/y\"}", "schema: $ref \"http://x/y\": only references within the schema (#/..) are supported" },
        { "{\"$ref\": \"#/$defs/a\", \"type\": \"object\", \"$defs\": {\"a\": {}}}", "schema: keyword type beside $ref is not supported" },
        { "{\"anyOf\": [{}], \"properties\": {}}", "schema: keyword properties beside anyOf is not supported" },
        { "{\"enum\": [1], \"minLength\": 1}", "schema: keyword minLength beside enum is not supported" },
        { "{\"enum\": []}", "schema: enum: expected a list that is not empty" },
        { "{\"enum\": [1], \"type\": \"string\"}", "schema: enum: no value is of the type asked for" },
        { "{\"type\": \"float\"}", "schema: type: \"float\" is none of string, number, integer, boolean, null, object, array" },
        { "{\"type\": []}", "schema: type: the list is empty" },
        { "{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 2}", "schema: minLength is larger than maxLength" },
        { "{\"type\": \"array\", \"minItems\": -1}", "schema: minItems: expected a whole number from 0 to 1000000000" },
        { "{\"type\": \"array\", \"minItems\": 1, \"items\": false}", "schema: minItems is larger than the number of prefixItems" },
        { "{\"required\": [\"a\"], \"additionalProperties\": false}", "schema: required: \"a\" is not among the properties" },
        { "{\"required\": \"a\"}", "schema: required: expected a list of names" },
        { "{\"properties\": {\"a\": false}}", "schema: properties.a: false allows no value" },
        { "{\"properties\": {\"a\": 1}}", "schema: properties.a: expected an object or true" },
        { "[]", "schema: expected an object or true" },
        { "{\"allOf\": [{\"type\": \"object\"}, {\"type\": \"string\"}]}", "schema: allOf: only objects, with additionalProperties left open, can be put together" },
        { "{\"allOf\": [{\"properties\": {\"a\": true}}, {\"properties\": {\"a\": {}}}]}", "schema: allOf: two parts describe \"a\"" },
        { "{\"allOf\": [{\"$ref\": \"#\"}, {}]}", "schema: allOf: more than 64 parts, or parts without end" },
        { "{\"anyOf\": [{\"$ref\": \"#\"}]}", "schema: refers only to itself" },
        { "{\"properties\": {\"a\": {\"$ref\": \"#\"}}, \"required\": [\"a\"]}", "schema: every value would nest more than 128 deep, or without end" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_err e = { 0 };
        json_t *v = parse(cases[i].schema);
        assert_null(ns_grammar_schema(v, &e));
        assert_string_equal(e.msg, cases[i].says);
        json_decref(v);
    }
}

#define TOOLS                                                                                                                      \
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"parameters\": {\"type\": \"object\", \"properties\": {"          \
    "\"city\": {\"type\": \"string\"}, \"days\": {\"type\": [\"integer\", \"null\"]}, \"unit\": {\"enum\": [\"C\", \"F\", 3]}, "              \
    "\"at\": {\"$ref\": \"#/$defs/p\"}}, \"required\": [\"city\"], \"$defs\": {\"p\": {\"type\": \"object\", \"properties\": {"           \
    "\"x\": {\"type\": \"number\"}}, \"required\": [\"x\"]}}}}}, {\"type\": \"function\", \"name\": \"get\", \"parameters\": null}]"
#define CALL(name, rest) "<tool_call>\n<function=" name ">\n" rest "</function>\n</tool_call>"
#define ARG(name, value) "<parameter=" name ">\n" value "\n</parameter>\n"

static void calls(void **state)
{
    (void)state;
    static const char *const good[] = { CALL("get", ""), CALL("get_weather", ARG("city", "Rome")), CALL("get_weather", ARG("city", "")),
        "\n" CALL("get_weather", ARG("city", "\n<b>\n</b> a\n</param") ARG("days", "12")), CALL("get_weather", ARG("city", "null") ARG("days", "null")),
        CALL("get_weather", ARG("city", "x") ARG("unit", "C") ARG("at", "{\"x\": 1.5}")), CALL("get_weather", ARG("city", "\xc3\xa9") ARG("unit", "3")),
        CALL("get_weather", ARG("city", "\n\n<</<\n") ARG("at", "{\"x\":1,\"</parameter>\":\"</parameter>\"}")) };
    static const char *const bad[] = { CALL("get", ARG("city", "")), CALL("get_weather", ""), CALL("get_weather", ARG("days", "1")),
        CALL("get_weather", ARG("city", "a") ARG("city", "a")), CALL("get_weather", ARG("days", "1") ARG("city", "a")),
        CALL("get_weather", ARG("city", "a</parameter>")), CALL("get_weather", ARG("city", "\xc3")), CALL("get_weather", ARG("city", "a") ARG("days", "1.5")),
        CALL("get_weather", ARG("city", "a") ARG("unit", "\"C\"")), CALL("get_weather", ARG("city", "a") ARG("at", "{}")),
        CALL("get_weather", ARG("city", "a") ARG("x", "1")), CALL("nothing", ""), CALL("get", "") "\n", "{}", "<tool_call>\n<function=get>\n</function>" };
    ns_err e = { 0 };
    json_t *tools = parse(TOOLS);
    ns_grammar *g = ns_grammar_call(tools, NULL, &e), *one = ns_grammar_call(tools, "get", &e);
    assert_true(g && one);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!allowed(g, good[i]))
            fail_msg("not allowed: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (allowed(g, bad[i]))
            fail_msg("allowed: %s", bad[i]);
    assert_true(allowed(one, good[0]));
    assert_false(allowed(one, good[1]));
    ns_grammar_free(g);
    ns_grammar_free(one);
    json_decref(tools);
}

static void call_refusals(void **state)
{
    (void)state;
    static const struct { const char *tools, *only, *says; } cases[] = {
        { "[]", NULL, "tools: there is none" },
        { TOOLS, "put", "tools: no function is named \"put\"" },
        { "[{\"function\": {}}]", NULL, "tools[0]: a function needs a name, without '>' and newline" },
        { "[{\"name\": \"f\", \"parameters\": {\"type\": \"string\"}}]", NULL, "tools[0]: f: parameters: expected the schema of an object" },
        { "[{\"name\": \"f\", \"parameters\": {\"anyOf\": []}}]", NULL, "tools[0]: f: keyword anyOf beside type is not supported" },
        { "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a>\": {}}}}]", NULL, "tools[0]: f: a parameter's name that a call cannot carry" },
        { "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": {\"type\": \"array\", \"items\": {\"not\": {}}}}}}]", NULL,
          "f: properties.a.items: keyword not is not supported" },
        { "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": {\"minLength\": 1}}}}]", NULL,
          "f: properties.a: keywords minLength and maxLength are not supported in a call" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_err e = { 0 };
        json_t *v = parse(cases[i].tools);
        assert_null(ns_grammar_call(v, cases[i].only, &e));
        assert_string_equal(e.msg, cases[i].says);
        json_decref(v);
    }
}

/* ---- masks ---- */

typedef struct world {
    ns_tokenizer *t;
    ns_grammar_vocab *v;
    int size;
    uint64_t *bits;
} world;

static world make_world(ns_tokenizer *t)
{
    ns_err e = { 0 };
    world x = { .t = t, .v = t ? ns_grammar_vocab_new(t, &e) : NULL };
    if (!x.v)
        fail_msg("%s", e.msg);
    x.size = ns_tokenizer_vocab_size(t);
    x.bits = malloc(((size_t)x.size + 63) / 64 * sizeof *x.bits);
    assert_non_null(x.bits);
    return x;
}

static void free_world(world *x)
{
    free(x->bits);
    ns_grammar_vocab_free(x->v);
    ns_tokenizer_free(x->t);
}

static bool has(const world *x, int id)
{
    return x->bits[id / 64] >> id % 64 & 1;
}

static ns_grammar_walk *at(const ns_grammar *g, const ns_buf *text)
{
    ns_grammar_walk *w = start(g);
    assert_int_equal(ns_grammar_take(w, text->data ? text->data : "", text->len), 0);
    return w;
}

/* Every step-th token: what the mask says, and whether it is taken. */
static void check_mask(const world *x, const ns_grammar *g, const ns_buf *text, int from, int step)
{
    ns_grammar_walk *w = at(g, text);
    int any = 0;
    ns_grammar_mask(w, x->v, x->bits);
    for (int id = 0; id < x->size; id++)
        any += has(x, id);
    if (!any && !ns_grammar_complete(w))
        fail_msg("a dead end: %.*s", (int)text->len, text->data ? text->data : "");
    for (int id = from; id < x->size; id += step) {
        const char *p;
        size_t n;
        if (ns_tokenizer_bytes(x->t, id, &p, &n) < 0 || ns_tokenizer_is_special(x->t, id)) {
            assert_false(has(x, id));
            continue;
        }
        bool taken = ns_grammar_take(w, p, n) == 0;
        if (taken != has(x, id))
            fail_msg("after %.*s: token \"%.*s\" is %s by the mask", (int)text->len, text->data ? text->data : "", (int)n, p,
                     taken ? "refused" : "allowed");
        if (taken) {
            ns_grammar_walk_free(w);
            w = at(g, text);
        }
    }
    ns_grammar_walk_free(w);
}

/* An allowed token: one of those that end things when in a hurry and there is one, else any; -1: none. */
static int pick(const world *x, ns_rng *r, const char *hurry)
{
    int n = 0, id = -1;
    for (; *hurry; hurry++)
        for (int i = 0; i < x->size; i++) {
            const char *p;
            size_t len;
            if (has(x, i) && ns_tokenizer_bytes(x->t, i, &p, &len) == 0 && len == 1 && *p == *hurry)
                return i;
        }
    for (int i = 0; i < x->size; i++)
        if (has(x, i) && ns_rng_u64(r) % (uint64_t)++n == 0)
            id = i;
    return id;
}

static void take_token(const world *x, ns_grammar_walk *w, int id, ns_buf *text)
{
    const char *p;
    size_t n;
    assert_int_equal(ns_tokenizer_bytes(x->t, id, &p, &n), 0);
    assert_int_equal(ns_grammar_take(w, p, n), 0);
    ns_buf_add(text, p, n);
}

/* A random answer along the masks; `open`: bytes to prefer for the first `n_open` tokens, which are not checked one by one. */
static void wander(const world *x, const ns_grammar *g, uint64_t seed, const char *open, int n_open, int n_checked, int step)
{
    ns_rng r;
    ns_buf text = { 0 };
    ns_grammar_walk *w = start(g);
    ns_rng_init(&r, seed);
    for (int i = 0; i < 5000; i++) {
        ns_grammar_mask(w, x->v, x->bits);
        const char *hurry = ns_rng_u64(&r) % 2 ? "}]\":,0n" : "\"}]:,0n"; /* out of a string, or of all else */
        int id = pick(x, &r, i < n_open ? open : i < n_open + n_checked && ns_rng_u64(&r) % 4 ? "" : hurry);
        if (id < 0 || (i > n_open + n_checked && ns_grammar_complete(w)))
            break;
        if (i >= n_open && i < n_open + n_checked)
            check_mask(x, g, &text, (int)(ns_rng_u64(&r) % (uint64_t)step), step);
        take_token(x, w, id, &text);
    }
    if (!strstr(text.data, "<function=")) { /* the text of a call does not end by chance */
        assert_true(ns_grammar_complete(w));
        json_t *v = json_loadb(text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (!v && !strstr(text.data, "\\u0000")) /* jansson has no names with NUL */
            fail_msg("no JSON: %s", text.data);
        json_decref(v);
    }
    ns_buf_release(&text);
    ns_grammar_walk_free(w);
}

/* Two branches that stay alike: the threads double with every level. */
#define CROWDED                                                                                                                    \
    "{\"$ref\": \"#/$defs/n\", \"$defs\": {\"n\": {\"anyOf\": [{\"type\": \"object\", \"properties\": {\"c\": {\"type\": \"array\", "          \
    "\"items\": {\"$ref\": \"#/$defs/n\"}}}, \"required\": [\"c\"]}, {\"type\": \"object\", \"properties\": {\"c\": {\"type\": \"array\", "    \
    "\"items\": {\"$ref\": \"#/$defs/n\"}}, \"d\": {\"type\": \"string\"}}, \"required\": [\"c\"]}]}}}"
/* The last levels have room for a null, a list, but not for the others. */
#define DEEP                                                                                                                       \
    "{\"$ref\": \"#/$defs/n\", \"$defs\": {\"n\": {\"anyOf\": [{\"type\": \"null\"}, {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/n\"}}, "  \
    "{\"type\": \"object\", \"properties\": {\"l\": {\"$ref\": \"#/$defs/n\"}, \"lo\": {\"type\": \"array\", \"minItems\": 1, \"items\": "         \
    "{\"type\": \"array\", \"minItems\": 2, \"items\": {\"$ref\": \"#/$defs/n\"}}}}, \"required\": [\"lo\"]}]}}}"

/* After its null the list must go on, and two lists deeper. */
#define DEEP_LIST                                                                                                                  \
    "{\"$ref\": \"#/$defs/n\", \"$defs\": {\"n\": {\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/n\"}, " \
    "\"maxItems\": 1}, {\"type\": \"array\", \"prefixItems\": [{\"type\": \"null\"}], \"minItems\": 2, \"maxItems\": 2, \"items\": "           \
    "{\"type\": \"array\", \"minItems\": 1, \"items\": {\"type\": \"array\", \"minItems\": 1, \"items\": {\"$ref\": \"#/$defs/n\"}}}}]}}}"

/* An object in which a second name needs two lists more than the first. */
#define DEEP_NAME                                                                                                                  \
    "{\"$ref\": \"#/$defs/n\", \"$defs\": {\"n\": {\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/n\"}}, " \
    "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"ab\": {\"type\": \"array\", \"minItems\": 1, \"items\": "    \
    "{\"type\": \"array\", \"minItems\": 1, \"items\": {\"$ref\": \"#/$defs/n\"}}}}, \"additionalProperties\": false}]}}}"

static const char *const schemas[] = { "true", "{\"type\": \"string\"}", "{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 9}",
    "{\"type\": \"string\", \"maxLength\": 40}", "{\"type\": \"number\"}", "{\"enum\": [\"a\", \"ab\", \"abc\", 1, 12, [\"ab\"]]}",
    "{\"type\": \"array\", \"items\": {\"type\": \"string\", \"minLength\": 1}, \"minItems\": 2}",
    "{\"properties\": {\"a\": {\"type\": \"string\"}, \"abc\": {\"type\": \"integer\"}, \"\xc3\xa9\": true}, \"required\": [\"abc\"]}",
    "{\"properties\": {\"a\": {\"type\": \"string\"}, \"b\": {\"type\": \"string\", \"maxLength\": 3}}, \"additionalProperties\": false}",
    "{\"anyOf\": [{\"type\": \"string\"}, {\"type\": \"string\", \"maxLength\": 4}, {\"type\": \"object\", \"additionalProperties\": {\"type\": \"string\"}}]}",
    CROWDED, DEEP, DEEP_LIST, DEEP_NAME };

static void masks(void **state)
{
    const char *env = getenv("NS_TEST_SEEDS");
    int seeds = env ? atoi(env) : 6;
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        ns_grammar *g = compile(schemas[i]);
        for (int s = 0; s < seeds; s++)
            wander(*state, g, (uint64_t)s, "", 0, 20, 1);
        ns_grammar_free(g);
    }
    ns_err e = { 0 };
    json_t *tools = parse(TOOLS);
    ns_grammar *g = ns_grammar_call(tools, "get_weather", &e);
    assert_non_null(g);
    for (int s = 0; s < seeds; s++)
        wander(*state, g, (uint64_t)s, "", 0, 25, 1);
    static const char call[] = CALL("get_weather", ARG("city", "a</parameter\n</\n\n<b") ARG("at", "{\"x\": 1}"));
    for (size_t n = 0; n < sizeof call; n++) { /* at every byte of a call that nearly ends too early */
        ns_buf text = { 0 };
        ns_buf_add(&text, call, n);
        check_mask(*state, g, &text, 0, 1);
        ns_buf_release(&text);
    }
    ns_grammar_free(g);
    json_decref(tools);
}

/* At depth n, what begins with `first` can be gone on with as `rest` says; at some depths it must begin, at others not. */
static void begins_where_it_fits(const char *schema, const char *first, const char *rest)
{
    ns_grammar *g = compile(schema);
    int yes = 0, no = 0;
    for (int n = 100; n < 128; n++) {
        ns_grammar_walk *w = start(g);
        for (int i = 0; i < n; i++)
            assert_int_equal(ns_grammar_take(w, "[", 1), 0);
        bool begun = ns_grammar_take(w, first, strlen(first)) == 0;
        if (begun && ns_grammar_take(w, rest, strlen(rest)) < 0)
            fail_msg("stuck at depth %d after %s", n, first);
        yes += begun;
        no += !begun;
        ns_grammar_walk_free(w);
    }
    assert_true(yes && no);
    ns_grammar_free(g);
}

/* As deep as it goes, every token checked near the end of the room; then out again. */
static void depth(void **state)
{
    const world *x = *state;
    static const struct { const char *schema, *open; } cases[] = {
        { "true", "[{" }, { "true", "{[\":c" }, { DEEP, "[{" }, { DEEP, "{[\"o:l" }, { CROWDED, "{[\"c:" }, { DEEP_LIST, "[" }, { "{\"items\": {\"$ref\": \"#\"}}", "[" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_grammar *g = compile(cases[i].schema);
        for (int n = 100; n < 1000; n += 97)
            wander(x, g, (uint64_t)n, cases[i].open, n, 6, 1);
        ns_grammar_free(g);
    }
    begins_where_it_fits(DEEP_LIST, "n", "ull,[[");
    begins_where_it_fits(DEEP_NAME, "{\"a\":1,", "\"ab\":[[");
    begins_where_it_fits(DEEP_NAME, "{\"ab", "\":[[");
    ns_err e = { 0 };
    ns_grammar *g = ns_grammar_object(&e);
    char text[600] = "{\"a\":";
    for (int n = 100; n < 140; n++) { /* lists, and where they stop */
        memset(text + 5, '[', (size_t)n);
        memset(text + 5 + n, ']', (size_t)n);
        strcpy(text + 5 + 2 * n, "}");
        assert_int_equal(allowed(g, text), n <= 127);
    }
    ns_grammar_free(g);
}

static void object_answers(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_grammar *g = ns_grammar_object(&e);
    assert_non_null(g);
    assert_true(allowed(g, "{\"a\": [1, {\"b\": null}]}"));
    assert_false(allowed(g, "[1]"));
    assert_false(allowed(g, "{}{}"));
    ns_grammar_free(g);
}

/* What is refused changes nothing; where nothing may follow, the mask is empty. */
static void refused_bytes(void **state)
{
    const world *x = *state;
    ns_grammar *g = compile("{\"type\": \"array\", \"items\": {\"type\": \"integer\"}}");
    ns_grammar_walk *w = start(g);
    assert_int_equal(ns_grammar_take(w, "[1,", 3), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ns_grammar_take(w, "2,3,x", 5), -1);
    assert_int_equal(ns_grammar_take(w, "", 0), 0);
    assert_false(ns_grammar_complete(w));
    assert_int_equal(ns_grammar_take(w, "2]", 2), 0);
    assert_true(ns_grammar_complete(w));
    ns_grammar_mask(w, x->v, x->bits);
    for (int id = 0; id < x->size; id++)
        assert_false(has(x, id));
    assert_int_equal(ns_grammar_take(w, " ", 1), -1);
    ns_grammar_walk_free(w);
    ns_grammar_free(g);
}

/* Memory stays small over a long answer. */
static void long_answer(void **state)
{
    (void)state;
    ns_grammar *g = compile("{\"type\": \"array\", \"items\": {\"type\": \"array\", \"items\": {\"type\": \"string\", \"maxLength\": 5}}}");
    ns_grammar_walk *w = start(g);
    assert_int_equal(ns_grammar_take(w, "[[]", 3), 0);
    for (int i = 0; i < 200000; i++)
        assert_int_equal(ns_grammar_take(w, ", [\"abc\", \"\"]", 13), 0);
    assert_int_equal(ns_grammar_take(w, "]", 1), 0);
    assert_true(ns_grammar_complete(w));
    assert_true(w->run->cap_frames <= 4096 && w->run->cap_links <= 4096 && w->run->cap <= 4096);
    ns_grammar_walk_free(w);
    ns_grammar_free(g);
}

/* The published vocabulary: some tokens of each mask. */
static void real_vocabulary(void **state)
{
    (void)state;
    const char *data = getenv("NS_TEST_DATA");
    char path[1000];
    ns_err e = { 0 };
    if (!data || !*data)
        skip();
    snprintf(path, sizeof path, "%s/nemotron3/tokenizer.json", data);
    world x = make_world(ns_tokenizer_open(path, &e));
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        ns_grammar *g = compile(schemas[i]);
        wander(&x, g, i, "", 0, 5, 97);
        ns_grammar_free(g);
    }
    free_world(&x);
}

static int setup(void **state)
{
    static world x;
    ns_err e = { 0 };
    x = make_world(byte_vocab_new(words, N_WORDS, &e));
    *state = &x;
    return 0;
}

static int teardown(void **state)
{
    free_world(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars), cmocka_unit_test(strings), cmocka_unit_test(bounds), cmocka_unit_test(given_values), cmocka_unit_test(arrays),
        cmocka_unit_test(objects), cmocka_unit_test(blanks), cmocka_unit_test(alternatives), cmocka_unit_test(references),
        cmocka_unit_test(refusals), cmocka_unit_test(calls), cmocka_unit_test(call_refusals), cmocka_unit_test(object_answers),
        cmocka_unit_test(masks), cmocka_unit_test(depth), cmocka_unit_test(refused_bytes), cmocka_unit_test(long_answer),
        cmocka_unit_test(real_vocabulary),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
