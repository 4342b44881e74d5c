/* The published lists: every gold answer passes its own grader, written as a model would; changed ones fail. With NS_TEST_DATA only. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "eval/task_kind.h"

static const char *data(void)
{
    const char *d = getenv("NS_TEST_DATA");
    return d && *d ? d : NULL;
}

static void open_task(const char *name, const char *path, ns_task *t)
{
    char spec[600];
    ns_err e = { 0 };
    snprintf(spec, sizeof spec, "%s:%s/bench/%s", name, data(), path);
    if (ns_task_open(spec, 0, t, &e) != 0)
        fail_msg("%s", e.msg);
}

static enum ns_grade grade(const ns_task *t, int i, const char *said)
{
    ns_buf extracted = { 0 };
    enum ns_grade g = t->kind->grade(&t->item[i], ns_answer_extract(said, strlen(said)), &extracted);
    ns_buf_release(&extracted);
    return g;
}

static void say(ns_buf *out, const char *form, const char *answer)
{
    ns_buf_clear(out);
    const char *at = strchr(form, '@');
    ns_buf_add(out, form, (size_t)(at - form));
    ns_buf_adds(out, answer);
    ns_buf_adds(out, at + 1);
}

/* Another answer: the first digit changed (a later one may be a unit's), else the last letter. False where there is neither. */
static bool change(const char *answer, ns_buf *out)
{
    size_t n = strlen(answer), at = strcspn(answer, "0123456789") + 1;
    if (at > n)
        for (at = n; at > 0 && !isalpha((unsigned char)answer[at - 1]);)
            at--;
    if (!at)
        return false;
    ns_buf_clear(out);
    ns_buf_adds(out, answer);
    char *c = &out->data[at - 1];
    *c = isdigit((unsigned char)*c) ? (char)('0' + (*c - '0' + 1) % 10) : toupper((unsigned char)*c) == 'A' ? (char)(*c + 1) : (char)(*c - 1);
    return true;
}

/* All answers in every form, and changed. */
static void check(const char *name, const char *path, int n, const char *const *forms, int n_forms)
{
    ns_task t;
    ns_buf said = { 0 }, other = { 0 };
    int changed = 0, bad = 0;
    open_task(name, path, &t);
    assert_int_equal(t.n, n);
    for (int i = 0; i < t.n; i++) {
        for (int f = 0; f < n_forms; f++) {
            say(&said, forms[f], t.item[i].answer);
            if (grade(&t, i, said.data) != NS_GRADE_RIGHT)
                print_message("%s %d: \"%s\" is refused for \"%s\"\n", path, (bad++, i), said.data, t.item[i].answer);
        }
        if (!change(t.item[i].answer, &other))
            continue;
        changed++;
        say(&said, forms[0], other.data);
        if (grade(&t, i, said.data) != NS_GRADE_WRONG)
            print_message("%s %d: \"%s\" is taken for \"%s\"\n", path, (bad++, i), said.data, t.item[i].answer);
    }
    print_message("%s: %d problems, all answers pass in %d forms, %d changed ones fail\n", path, t.n, n_forms, changed);
    assert_int_equal(bad, 0);
    ns_buf_release(&said);
    ns_buf_release(&other);
    ns_task_release(&t);
}

static void test_gsm8k(void **state)
{
    (void)state;
    static const char *const forms[] = { "So it is\n#### @", "Of 1000, it is @.", "It costs $@ in all.", "thinking</think>\n\\boxed{@}" };
    if (!data())
        skip();
    check("gsm8k", "gsm8k/test.jsonl", 1319, forms, 4);
}

static void test_aime(void **state)
{
    (void)state;
    static const char *const forms[] = { "So \\boxed{@}.", "It is @." };
    if (!data())
        skip();
    check("aime", "aime/aime24_nemoskills.jsonl", 30, forms, 2);
    check("aime", "aime/aime24_qwenmath.jsonl", 30, forms, 2);
    check("aime", "aime/aime25_nemoskills.jsonl", 30, forms, 2);
    check("aime", "aime/aime25_areal.jsonl", 30, forms, 2);
    check("aime", "aime/aime2025-I_gair.jsonl", 15, forms, 2);
    check("aime", "aime/aime2025-II_gair.jsonl", 15, forms, 2);
}

static void test_math(void **state)
{
    (void)state;
    static const char *const forms[] = { "So $\\boxed{@}$.", "\\[\\boxed{ @ }\\] where \\frac{1}{2}", "The answer is $@$." };
    if (!data())
        skip();
    check("math", "math500/test_areal.jsonl", 500, forms, 3);
    check("math", "math500/test_birm.jsonl", 500, forms, 3);
}

/* The worked solutions that come with the problems are answers too, written by others than the list of answers. */
static void check_solutions(const char *name, const char *path, const char *key, int n)
{
    ns_task t;
    char file[600];
    char *text = NULL;
    size_t cap = 0;
    int bad = 0, i = 0;
    open_task(name, path, &t);
    snprintf(file, sizeof file, "%s/bench/%s", data(), path);
    FILE *f = fopen(file, "r");
    assert_non_null(f);
    for (; i < t.n && getline(&text, &cap, f) > 0; i++) {
        json_t *line = json_loads(text, 0, NULL);
        const char *solution = json_string_value(json_object_get(line, key));
        assert_non_null(solution);
        if (grade(&t, i, solution) != NS_GRADE_RIGHT)
            print_message("%s %d: the solution is refused for \"%s\": ..%s\n", path, (bad++, i), t.item[i].answer,
                          strlen(solution) > 120 ? solution + strlen(solution) - 120 : solution);
        json_decref(line);
    }
    assert_int_equal(i, n);
    assert_int_equal(bad, 0);
    free(text);
    fclose(f);
    ns_task_release(&t);
}

static void test_solutions(void **state)
{
    (void)state;
    if (!data())
        skip();
    check_solutions("math", "math500/test_areal.jsonl", "solution", 500);
    check_solutions("gsm8k", "gsm8k/test.jsonl", "answer", 1319);
    check_solutions("aime", "aime/aime24_nemoskills.jsonl", "reference_solution", 30);
}

static void test_choices(void **state)
{
    (void)state;
    static const char *const forms[] = { "The answer is (@).", "**Answer: @**", "I am sure that\n@", "\\boxed{@}" };
    if (!data())
        skip();
    check("mmlu", "mmlu/test", 14042, forms, 4);
}

/* It comes packed. */
static void test_mmlu_pro(void **state)
{
    (void)state;
    static const char *const forms[] = { "The answer is (@).", "Answer: @", "I am sure that\n@" };
    char command[700], spec[600];
    ns_task t;
    ns_err e = { 0 };
    if (!data())
        skip();
    snprintf(spec, sizeof spec, "mmlu-pro:%s/bench/mmlu_pro/mmlu_pro_test.jsonl.xz", data());
    assert_int_equal(ns_task_open(spec, 0, &t, &e), -1);
    assert_non_null(strstr(e.msg, "is packed"));
    snprintf(command, sizeof command, "mkdir -p eval_bench/bench && xz -dc '%s/bench/mmlu_pro/mmlu_pro_test.jsonl.xz' >eval_bench/bench/pro.jsonl", data());
    if (system(command) != 0)
        skip();
    char *before = strdup(data());
    assert_int_equal(setenv("NS_TEST_DATA", "eval_bench", 1), 0);
    check("mmlu-pro", "pro.jsonl", 12032, forms, 3);
    assert_int_equal(setenv("NS_TEST_DATA", before, 1), 0);
    free(before);
    assert_int_equal(system("rm -r eval_bench"), 0);
}

static void test_bbh(void **state)
{
    (void)state;
    static const char *const forms[] = { "So the answer is @.", "So the answer is **@**", "I think\n@" };
    if (!data())
        skip();
    check("bbh", "bbh/bbh", 6511, forms, 3);
}

/* Which instructions there are, and which of them have a rule. */
static void count_rules(const char *name, const char *path, int n, int with, int without)
{
    ns_task t;
    int graded = 0, none = 0;
    open_task(name, path, &t);
    assert_int_equal(t.n, n);
    for (int i = 0; i < t.n; i++) {
        const json_t *ids = json_object_get(t.item[i].check, "ids");
        for (size_t k = 0; k < json_array_size(ids); k++) {
            const char *id = json_string_value(json_array_get(ids, k));
            bool rule = false;
            for (const ns_instruction_kind *const *table = (const ns_instruction_kind *const[]){ ns_ifeval_kinds, ns_ifbench_kinds, ns_ifbench_word_kinds,
                                                                                                  ns_ifbench_form_kinds, ns_ifbench_custom_kinds, NULL };
                 *table; table++)
                for (const ns_instruction_kind *x = *table; x->id; x++)
                    rule = rule || strcmp(x->id, id) == 0;
            graded += rule;
            none += !rule;
        }
    }
    print_message("%s: %d problems, %d instructions with a rule, %d without\n", path, t.n, graded, none);
    assert_int_equal(graded, with);
    assert_int_equal(none, without);
    ns_task_release(&t);
}

static void test_instructions(void **state)
{
    (void)state;
    if (!data())
        skip();
    count_rules("ifeval", "ifeval/input_data.jsonl", 541, 834, 0);
    count_rules("ifbench", "ifbench/IFBench_test.jsonl", 300, 329, 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gsm8k),   cmocka_unit_test(test_aime),     cmocka_unit_test(test_math), cmocka_unit_test(test_solutions),
        cmocka_unit_test(test_choices), cmocka_unit_test(test_mmlu_pro), cmocka_unit_test(test_bbh),  cmocka_unit_test(test_instructions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
