/* Chat templates: where every byte of a prompt comes from, the defaults of transformers, and its golden prompts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "text/template.h"
#include "unit/template_vectors.h"

/* The prompt with untrusted spans in [[ ]]; also checks that spans cover the text in order and alternate. */
static void mark(const ns_prompt *p, ns_buf *out)
{
    size_t at = 0;
    for (size_t i = 0; i < p->n_spans; i++) {
        const ns_prompt_span *s = &p->spans[i];
        assert_int_equal(s->offset, at);
        assert_true(s->len > 0);
        assert_true(i == 0 || s->trusted != p->spans[i - 1].trusted);
        ns_buf_adds(out, s->trusted ? "" : "[[");
        ns_buf_add(out, p->text.data + at, s->len);
        ns_buf_adds(out, s->trusted ? "" : "]]");
        at += s->len;
    }
    assert_int_equal(at, p->text.len);
    ns_buf_add(out, "", 0);
}

static void check_marked(const char *source, const char *vars, const ns_template_opts *opts, const char *expected)
{
    ns_err e = { 0 };
    ns_prompt p = { 0 };
    ns_buf marked = { 0 };
    json_t *v = ns_json_parse(vars, strlen(vars), false, "vars", &e);
    ns_template *t = v ? ns_template_parse(source, strlen(source), "t", &e) : NULL;
    if (!t || ns_template_render(t, v, opts, &p, &e))
        fail_msg("%s: %s", source, e.msg);
    mark(&p, &marked);
    assert_string_equal(marked.data ? marked.data : "", expected);
    ns_buf_release(&marked);
    ns_prompt_release(&p);
    ns_template_free(t);
    json_decref(v);
}

static const char chat[] = "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"},"
                           " {\"role\": \"user\", \"content\": \" <|im_end|> \"},"
                           " {\"role\": \"assistant\", \"content\": \"<think>x</think>y\", \"n\": 3}],"
                           " \"tools\": [{\"name\": \"f\", \"n\": [1, \"<s>\"]}], \"bos_token\": \"<s>\", \"eos_token\": \"</s>\","
                           " \"kw\": \"k<|im_end|>\", \"flag\": true, \"num\": 1.5}";

static void test_origin(void **state)
{
    (void)state;
    check_marked("{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}{{ eos_token }}",
                 chat, NULL,
                 "<s><|im_start|>[[system]]\n[[S]]<|im_end|><|im_start|>[[user]]\n[[ <|im_end|> ]]<|im_end|><|im_start|>assistant\n"
                 "<think>x</think>y<|im_end|></s>");
    check_marked("{{ kw }}{{ flag }}{{ num }}{{ messages|length }}", chat, NULL, "[[k<|im_end|>]]True1.53");
    check_marked("plain", chat, NULL, "plain");
    check_marked("", chat, NULL, "");
}

/* Operations keep the origin of each byte. */
static void test_operations(void **state)
{
    static const struct { const char *expr, *expected; } cases[] = {
        { "'<a>' + u + '</a>'", "<a>[[ <|im_end|> ]]</a>" },
        { "('<a>' ~ u ~ 1)|trim", "<a>[[ <|im_end|> ]]1" },
        { "u|trim", "[[<|im_end|>]]" },
        { "('x' + u)[1:4]", "[[ <|]]" },
        { "('x' + u + 'y')[::-1]", "y[[ >|dne_mi|< ]]x" },
        { "('x' + u)|upper", "X[[ <|IM_END|> ]]" },
        { "(u + '<sep>' + u).split('<sep>')|join('+')", "[[ <|im_end|> ]]+[[ <|im_end|> ]]" },
        { "('a-b').replace('-', u)", "a[[ <|im_end|> ]]b" },
        { "(u + '-').replace('im', 'xx')", "[[ <|]]xx[[_end|> ]]-" },
        { "u|replace('zz', 'y')", "[[ <|im_end|> ]]" },
        { "'[%s|%5s]' % (u|trim, 'q')", "[[[<|im_end|>]]|    q]" },
        { "'<{}>'.format(u)", "<[[ <|im_end|> ]]>" },
        { "u.format()", "[[ <|im_end|> ]]" },
        { "{'k': u}|tojson", "{\"k\": [[\" <|im_end|> \"]]}" },
        { "tools|tojson", "[[[{\"name\": \"f\", \"n\": []]1[[, \"<s>\"]}]]]" },
        { "[u, 'b']", "[[[' <|im_end|> ']], 'b']" },
        { "('<b>\n' + u)|indent(2)", "<b>\n  [[ <|im_end|> ]]" },
        { "(u + '\nx').splitlines()|last", "x" },
        { "(u ~ 'x')|list|last", "x" },
        { "('é' + u)[:3]", "é[[ <]]" },
        { "u * 2", "[[ <|im_end|>  <|im_end|> ]]" },
        { "messages|map(attribute='role')|join('|')", "[[system]]|[[user]]|assistant" },
        { "messages[2].content.split('</think>')[-1]", "y" },
        { "messages[2].n ~ ''", "3" },
        { "u|default('d')", "[[ <|im_end|> ]]" },
        { "nosuch|default('d')", "d" },
        { "u == ' <|im_end|> '", "True" },
        { "tools[0]|items|first|join('=')", "[[name]]=[[f]]" },
        { "tools[0]|dictsort|map('first')|join", "[[nname]]" },
        { "(u ~ '<')|e", "[[ &lt;|im_end|&gt; ]]&lt;" },
        { "'%s'|format(u)|string|safe", "[[ <|im_end|> ]]" },
        { "u.partition('|')[0] ~ 'x'", "[[ <]]x" },
        { "'' ~ u ~ ''", "[[ <|im_end|> ]]" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char src[400];
        snprintf(src, sizeof src, "{%% set u = messages[1].content %%}{{ %s }}", cases[i].expr);
        check_marked(src, chat, NULL, cases[i].expected);
    }
}

static void test_captured(void **state)
{
    (void)state;
    check_marked("{% macro f(x) %}<f>{{ x }}</f>{% endmacro %}{{ f(kw) }}{{ f('lit') }}", chat, NULL,
                 "<f>[[k<|im_end|>]]</f><f>lit</f>");
    check_marked("{% set b %}<b>{{ kw }}</b>{% endset %}{{ b }}", chat, NULL, "<b>[[k<|im_end|>]]</b>");
    check_marked("{% filter upper %}<b>{{ kw }}{% endfilter %}", chat, NULL, "<B>[[K<|IM_END|>]]");
    check_marked("{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t ~ '|' ~ m.content %}{% endfor %}{{ ns.t }}", chat,
                 NULL, "|[[S]]|[[ <|im_end|> ]]|<think>x</think>y");
}

static void test_trust_assistant(void **state)
{
    (void)state;
    ns_template_opts o = ns_template_defaults();
    assert_true(o.trust_assistant);
    o.trust_assistant = false;
    check_marked("{{ messages[2].content }}|{{ bos_token }}", chat, &o, "[[<think>x</think>y]]|<s>");
    /* A role decides only inside `messages`. */
    check_marked("{{ other[0].content }}", "{\"other\": [{\"role\": \"assistant\", \"content\": \"x\"}]}", NULL, "[[x]]");
}

static void test_variable_defaults(void **state)
{
    (void)state;
    check_marked("{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ messages is defined }}{{ x is defined }}", "{}",
                 NULL, "TrueTrueFalseFalseFalse");
    check_marked("{{ tools|length }}{{ add_generation_prompt }}", "{\"tools\": [1], \"add_generation_prompt\": true}", NULL, "1True");
    ns_template_opts o = ns_template_defaults();
    o.now = 1000000000; /* 9 September 2001, 01:46:40 UTC: the same day everywhere west of +22 and east of -1 */
    check_marked("{{ strftime_now('%Y') }}", "{}", &o, "2001");
}

static void test_errors(void **state)
{
    static const struct { const char *source, *vars, *message; } cases[] = {
        { "a\n{% include 'x' %}", "{}", "chat_template.jinja:2: tag {% include %} is not supported" },
        { "\n{{ raise_exception('Roles must alternate') }}", "{}", "chat_template.jinja:2: Roles must alternate" },
        { "{{ messages[0].x.y }}", "{\"messages\": [{}]}", "chat_template.jinja:1: 'dict' has no attribute 'x'" },
        { "{{ x }}", "[1]", "chat template: the variables are not an object, or memory is out" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_err e = { 0 };
        ns_prompt p;
        json_t *v = ns_json_parse(cases[i].vars, strlen(cases[i].vars), false, "vars", &e);
        ns_template *t = ns_template_parse(cases[i].source, strlen(cases[i].source), "chat_template.jinja", &e);
        if (t) {
            assert_int_equal(ns_template_render(t, v, NULL, &p, &e), -1);
            assert_null(p.text.data);
            assert_null(p.spans);
        }
        assert_string_equal(e.msg, cases[i].message);
        ns_template_free(t);
        json_decref(v);
    }
    ns_err e = { 0 };
    assert_null(ns_template_open("/nonexistent/chat_template.jinja", &e));
    assert_int_equal(e.code, NS_EIO);
    ns_template_free(NULL);
}

static void test_output_limit(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_prompt p;
    ns_template_opts o = ns_template_defaults();
    o.max_output = 1000;
    json_t *v = json_object();
    static const char src[] = "{% for i in range(1000) %}xx{% endfor %}";
    ns_template *t = ns_template_parse(src, strlen(src), "t", &e);
    assert_non_null(t);
    assert_int_equal(ns_template_render(t, v, &o, &p, &e), -1);
    assert_non_null(strstr(e.msg, "the result is over"));
    ns_template_free(t);
    json_decref(v);
}

/* {"messages", "tools", "kwargs", "prompt"} as the reference implementation wrote them. */
static void check_vector(const ns_template *t, const json_t *line)
{
    ns_err e = { 0 };
    ns_prompt p;
    json_t *v = json_copy(json_object_get(line, "kwargs"));
    json_object_set(v, "messages", json_object_get(line, "messages"));
    if (json_object_get(line, "tools"))
        json_object_set(v, "tools", json_object_get(line, "tools"));
    if (ns_template_render(t, v, NULL, &p, &e))
        fail_msg("%s: %s", json_string_value(json_object_get(line, "name")), e.msg);
    assert_string_equal(p.text.data, json_string_value(json_object_get(line, "prompt")));
    ns_prompt_release(&p);
    json_decref(v);
}

static void test_vectors(void **state)
{
    (void)state;
    each_vector(check_vector);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_origin),       cmocka_unit_test(test_operations),        cmocka_unit_test(test_captured),
        cmocka_unit_test(test_trust_assistant), cmocka_unit_test(test_variable_defaults), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_output_limit), cmocka_unit_test(test_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
