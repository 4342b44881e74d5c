/* Reasoning problems: every answer worked out again from the question's text by code of its own, every step of every thought
 * checked, seeds, splits, and the lines of training data. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tiny/tiny.h"
#include "train/problems.h"

/* ---- the questions, read and worked out ---- */

static int arithmetic(int a, char op, int b)
{
    assert_non_null(strchr("+-*", op));
    return op == '+' ? a + b : op == '-' ? a - b : a * b;
}

static int solve_chain(const char *q)
{
    int v, by, n;
    char word[20];
    assert_int_equal(sscanf(q, "Start with %d.%n", &v, &n), 1);
    for (q += n; *q; q += n) {
        if (sscanf(q, " Multiply by %d.%n", &by, &n) == 1) {
            v *= by;
            continue;
        }
        assert_int_equal(sscanf(q, " %19s %d.%n", word, &by, &n), 2);
        assert_true(strcmp(word, "Add") == 0 || strcmp(word, "Subtract") == 0);
        v = arithmetic(v, *word == 'A' ? '+' : '-', by);
    }
    return v;
}

/* The value of a variable, by looking up its statement. */
static int value_of(const char *q, char name, int depth)
{
    char head[4] = { ' ', name, '=', 0 }, from, op;
    int by, v;
    const char *at = strstr(q, head);
    assert_non_null(at);
    assert_true(depth < 20);
    assert_null(strstr(at + 1, head));
    if (sscanf(at + 3, "%d", &v) == 1)
        return v;
    assert_int_equal(sscanf(at + 3, "%c%c%d", &from, &op, &by), 3);
    return arithmetic(value_of(q, from, depth + 1), op, by);
}

static int solve_vars(const char *q)
{
    const char *find = strstr(q, " Find ");
    assert_non_null(find);
    return value_of(q, find[6], 0);
}

static void solve_list(const char *q, char *d)
{
    char word[20];
    int used;
    assert_int_equal(sscanf(q, "Take %9[0-9].%n", d, &used), 1);
    for (q += used; *q; q += used) {
        size_t n = strlen(d);
        char first = d[0], last = d[n - 1];
        assert_int_equal(sscanf(q, " %19[A-Za-z].%n", word, &used), 1);
        if (strcmp(word, "Reverse") == 0) {
            for (size_t i = 0; i < n / 2; i++) {
                char c = d[i];
                d[i] = d[n - 1 - i];
                d[n - 1 - i] = c;
            }
        } else if (strcmp(word, "Sort") == 0) {
            int count[10] = { 0 };
            for (size_t i = 0; i < n; i++)
                count[d[i] - '0']++;
            for (int c = 0, at = 0; c < 10; c++)
                while (count[c]--)
                    d[at++] = (char)('0' + c);
        } else if (strcmp(word, "Rotate") == 0) {
            memmove(d, d + 1, n);
            d[n - 1] = first;
            d[n] = 0;
        } else if (strcmp(word, "Swap") == 0) {
            d[0] = last;
            d[n - 1] = first;
        } else if (strcmp(word, "Raise") == 0) {
            for (size_t i = 0; i < n; i++)
                d[i] = d[i] == '9' ? '0' : (char)(d[i] + 1);
        } else {
            assert_string_equal(word, "Drop");
            memmove(d, d + 1, n);
        }
    }
}

/* An operand or a bracket; then pairs of operator and operand, products first. Moves *q. */
static long evaluate(const char **q);

static long atom(const char **q)
{
    if (**q == '(') {
        ++*q;
        long v = evaluate(q);
        assert_int_equal(**q, ')');
        ++*q;
        return v;
    }
    char *end;
    long v = strtol(*q, &end, 10);
    assert_true(end > *q);
    *q = end;
    return v;
}

static long product(const char **q)
{
    long v = atom(q);
    while (**q == '*') {
        ++*q;
        v *= atom(q);
    }
    return v;
}

static long evaluate(const char **q)
{
    long v = product(q);
    while (**q == '+' || **q == '-') {
        char op = *(*q)++;
        long w = product(q);
        v = op == '+' ? v + w : v - w;
    }
    return v;
}

static void solve(const ns_problem *p, char *out)
{
    const char *q = p->question.data;
    if (p->kind == NS_PROBLEM_LIST) {
        solve_list(q, out);
    } else if (p->kind == NS_PROBLEM_EXPR || p->kind == NS_PROBLEM_SUM) {
        assert_int_equal(strncmp(q, "Compute ", 8), 0);
        q += 8;
        sprintf(out, "%ld", evaluate(&q));
        assert_string_equal(q, ".");
    } else {
        sprintf(out, "%d", p->kind == NS_PROBLEM_CHAIN ? solve_chain(q) : solve_vars(q));
    }
}

/* ---- the thoughts ---- */

static void check_step(const ns_problem *p, const char *line, const char *before)
{
    int a, b, c, carry;
    char op, name;
    const char *q;
    char digits[40];
    switch (p->kind) {
    case NS_PROBLEM_CHAIN:
        assert_int_equal(sscanf(line, "%d%c%d=%d", &a, &op, &b, &c), 4);
        assert_int_equal(arithmetic(a, op, b), c);
        assert_true(c >= 0 && c < 100);
        break;
    case NS_PROBLEM_VARS:
        if (before) {
            assert_int_equal(sscanf(line, "%c=%d%c%d=%d", &name, &a, &op, &b, &c), 5);
            assert_int_equal(arithmetic(a, op, b), c);
        } else {
            assert_int_equal(sscanf(line, "%c=%d", &name, &c), 2);
        }
        assert_int_equal(value_of(p->question.data, name, 0), c);
        break;
    case NS_PROBLEM_LIST: /* the step before, with this operation, gives this */
        if (!before)
            before = p->question.data;
        snprintf(digits, sizeof digits, "Take %.*s. %.*s.", (int)strspn(strpbrk(before, "0123456789"), "0123456789"),
                 strpbrk(before, "0123456789"), (int)strcspn(line, " "), line);
        char want[16];
        solve_list(digits, want);
        assert_int_equal(strncmp(strchr(line, ' ') + 1, want, strlen(want)), 0);
        break;
    case NS_PROBLEM_EXPR: /* the value stays, an operation goes */
        q = line;
        assert_int_equal(evaluate(&q), atol(p->answer.data));
        assert_true(*q == '\n' || *q == 0);
        break;
    default:
        assert_int_equal(sscanf(line, "%d+%d+%d=%d", &a, &b, &carry, &c), 4);
        assert_int_equal(a + b + carry, c);
        break;
    }
}

static void check_thought(const ns_problem *p)
{
    const char *before = NULL;
    int lines = 0;
    for (const char *line = p->thought.data; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        check_step(p, line, before);
        before = line;
        lines++;
    }
    assert_int_equal(lines, p->level + (p->kind == NS_PROBLEM_VARS));
    size_t n = p->answer.len;
    if (p->kind != NS_PROBLEM_SUM) /* it ends in the answer */
        assert_string_equal(p->thought.data + p->thought.len - n, p->answer.data);
}

/* ---- the tests ---- */

static void test_answers(void **state)
{
    (void)state;
    int of_kind[NS_PROBLEM_KINDS] = { 0 }, of_level[NS_PROBLEM_LEVEL_MAX + 1] = { 0 };
    ns_problem p = { 0 };
    ns_err e = { 0 };
    for (int split = 0; split < 3; split++) {
        ns_problem_opts o = ns_problem_defaults((ns_problem_split)split);
        o.seed = 11 + (uint64_t)split;
        o.level_lo = split == NS_PROBLEM_BOTH ? 1 : 2;
        o.level_hi = split == NS_PROBLEM_BOTH ? NS_PROBLEM_LEVEL_MAX : 6;
        for (uint64_t i = 0; i < 4000; i++) {
            char want[40];
            assert_int_equal(ns_problem_make(&o, i, &p, &e), 0);
            solve(&p, want);
            assert_string_equal(p.answer.data, want);
            check_thought(&p);
            of_kind[p.kind]++;
            of_level[p.level]++;
            if (split != NS_PROBLEM_BOTH)
                assert_int_equal(ns_problem_split_of(p.question.data), split);
        }
    }
    for (int k = 0; k < NS_PROBLEM_KINDS; k++)
        assert_in_range(of_kind[k], 2100, 2700);
    for (int l = 1; l <= NS_PROBLEM_LEVEL_MAX; l++)
        assert_true(of_level[l] > 200);
    ns_problem_release(&p);
}

static void test_seeds(void **state)
{
    (void)state;
    ns_problem_opts o = ns_problem_defaults(NS_PROBLEM_TRAIN), other = o;
    ns_problem a = { 0 }, b = { 0 };
    int same = 0;
    other.seed = 1;
    for (uint64_t i = 0; i < 300; i++) {
        assert_int_equal(ns_problem_make(&o, i, &a, NULL), 0);
        assert_int_equal(ns_problem_make(&o, 299 - i, &b, NULL), 0); /* nothing carries over from one to the next */
        assert_int_equal(ns_problem_make(&o, i, &b, NULL), 0);
        assert_string_equal(a.question.data, b.question.data);
        assert_string_equal(a.thought.data, b.thought.data);
        assert_int_equal(ns_problem_make(&other, i, &b, NULL), 0);
        same += strcmp(a.question.data, b.question.data) == 0;
        assert_int_equal(ns_problem_make(&o, i + 1, &b, NULL), 0);
        same += strcmp(a.question.data, b.question.data) == 0;
    }
    assert_true(same < 3);
    ns_problem_release(&a);
    ns_problem_release(&b);
}

/* About one question in 16 is a test question. */
static void test_share(void **state)
{
    (void)state;
    ns_problem_opts o = ns_problem_defaults(NS_PROBLEM_BOTH);
    ns_problem p = { 0 };
    int tests = 0;
    for (uint64_t i = 0; i < 16000; i++) {
        assert_int_equal(ns_problem_make(&o, i, &p, NULL), 0);
        tests += ns_problem_split_of(p.question.data) == NS_PROBLEM_TEST;
    }
    assert_in_range(tests, 880, 1120);
    ns_problem_release(&p);
}

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

/* What kind of line it is: 0 with a thought, 1 without, 2 cut. */
static int check_line(const json_t *o, const ns_problem *p)
{
    char want[2000];
    json_t *m = json_object_get(o, "messages");
    assert_string_equal(text(o, "answer"), p->answer.data);
    assert_string_equal(text(o, "kind"), ns_problem_kind_name(p->kind));
    assert_int_equal(json_integer_value(json_object_get(o, "level")), p->level);
    if (m) {
        const json_t *said = json_array_get(m, 1);
        assert_int_equal(json_array_size(m), 2);
        assert_string_equal(text(json_array_get(m, 0), "content"), p->question.data);
        assert_string_equal(text(said, "role"), "assistant");
        assert_string_equal(text(said, "content"), p->answer.data);
        if (!json_object_get(said, "reasoning_content")) {
            assert_true(json_is_false(json_object_get(o, "enable_thinking")));
            return 1;
        }
        assert_null(json_object_get(o, "enable_thinking"));
        assert_string_equal(text(said, "reasoning_content"), p->thought.data);
        return 0;
    }
    int head = sprintf(want, "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n<think>\n", p->question.data);
    const char *prompt = text(o, "prompt");
    assert_int_equal(strncmp(prompt, want, (size_t)head), 0);
    size_t n = strlen(prompt) - (size_t)head, tail = strlen("\n</think>\n");
    assert_true(n > tail && n - tail <= p->thought.len);
    assert_int_equal(strncmp(prompt + head, p->thought.data, n - tail), 0);
    assert_string_equal(prompt + strlen(prompt) - tail, "\n</think>\n");
    sprintf(want, "%s<|im_end|>\n", p->answer.data);
    assert_string_equal(text(o, "completion"), want);
    return 2;
}

static void test_lines(void **state)
{
    (void)state;
    ns_problem_opts o = ns_problem_defaults(NS_PROBLEM_TRAIN);
    char *path = tiny_path(tiny_base, "lines.jsonl");
    ns_problem p = { 0 };
    int n = 4000, sort[3] = { 0 };
    char line[4000];
    o.seed = 5;
    assert_int_equal(ns_problems_write(&o, (uint64_t)n, path, NULL), 0);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    for (int i = 0; i < n; i++) {
        assert_non_null(fgets(line, sizeof line, f));
        json_t *j = json_loads(line, 0, NULL);
        assert_non_null(j);
        assert_int_equal(ns_problem_make(&o, (uint64_t)i, &p, NULL), 0);
        sort[check_line(j, &p)]++;
        json_decref(j);
    }
    assert_null(fgets(line, sizeof line, f));
    fclose(f);
    assert_in_range(sort[1], n * 13 / 100, n * 17 / 100);
    assert_in_range(sort[2], n * 8 / 100, n * 12 / 100);
    ns_problem_release(&p);
    free(path);
}

static void test_refusals(void **state)
{
    (void)state;
    ns_problem_opts o = ns_problem_defaults(NS_PROBLEM_TRAIN);
    ns_problem p = { 0 };
    ns_err e = { 0 };
    o.level_hi = NS_PROBLEM_LEVEL_MAX + 1;
    assert_int_equal(ns_problem_make(&o, 0, &p, &e), -1);
    assert_non_null(strstr(e.msg, "levels 2-13"));
    e = (ns_err){ 0 };
    o = ns_problem_defaults(NS_PROBLEM_TRAIN);
    o.kinds = 0;
    assert_int_equal(ns_problem_make(&o, 0, &p, &e), -1);
    assert_non_null(strstr(e.msg, "no kind"));
    e = (ns_err){ 0 };
    o = ns_problem_defaults(NS_PROBLEM_TRAIN);
    assert_int_equal(ns_problems_write(&o, 3, "/nowhere/at/all.jsonl", &e), -1);
    assert_non_null(strstr(e.msg, "/nowhere/at/all.jsonl"));
    assert_int_equal(ns_problem_kind_find("expr"), NS_PROBLEM_EXPR);
    assert_int_equal(ns_problem_kind_find("exp"), -1);
    ns_problem_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers), cmocka_unit_test(test_seeds), cmocka_unit_test(test_share),
        cmocka_unit_test(test_lines), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
