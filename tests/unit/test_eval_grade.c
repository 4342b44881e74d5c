/* Graders on what models say: the forms that are accepted, and near misses that are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "eval/grade.h"
#include "eval/regex.h"

static void grade(ns_grade_fn *fn, const char *said, const char *answer, bool right)
{
    ns_task_item item = { .answer = (char *)(uintptr_t)answer, .level = -1 };
    ns_buf extracted = { 0 };
    enum ns_grade g = fn(&item, ns_answer_extract(said, strlen(said)), &extracted);
    if (g != (right ? NS_GRADE_RIGHT : NS_GRADE_WRONG))
        fail_msg("\"%s\" for \"%s\": grade %d, extracted \"%s\"", said, answer, g, extracted.data ? extracted.data : "");
    ns_buf_release(&extracted);
}

struct pair {
    const char *said, *answer;
    bool right;
};

static void all(ns_grade_fn *fn, const struct pair *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        grade(fn, p[i].said, p[i].answer, p[i].right);
}
#define ALL(fn, pairs) all(fn, pairs, sizeof pairs / sizeof *pairs)

static void test_number(void **state)
{
    (void)state;
    static const struct pair p[] = {
        { "so 9 * 2 = 18.\n#### 18", "18", true },
        { "#### $1,234.50", "1234.5", true },
        { "#### 18.00 dollars", "18", true },
        { "#### -3", "-3", true },
        { "#### 18\n#### 19", "18", false },
        { "She makes 18 dollars.", "18", true },
        { "It is 10-5.", "5", true },
        { "It is 10 - 5 = 5", "-5", false },
        { "The answer is \\boxed{42} of 50.", "42", true },
        { "it costs $1,000,000 in all", "1000000", true },
        { "3.14", "3", false },
        { "0018", "18", true },
        { ".5", "0.5", true },
        { "18%", "18", true },
        { "181", "18", false },
        { "no number", "18", false },
        { "", "18", false },
        { "12 apples, then 7", "12", false },
    };
    ALL(ns_grade_number, p);
}

static void test_aime(void **state)
{
    (void)state;
    static const struct pair p[] = {
        { "\\boxed{073}", "73", true }, { "\\boxed{73}", "073", true },  { "\\boxed{ 73 }", "73", true },  { "\\boxed{\\text{73}}", "73", true },
        { "so it is 73.", "73", true }, { "\\boxed{1073}", "73", false }, { "\\boxed{-73}", "73", false },  { "\\boxed{72}, not 73", "73", false },
        { "\\boxed{x}", "73", false },   { "\\boxed{7} \\boxed{73}", "73", true }, { "\\boxed{73.5}", "73", false },
    };
    ALL(ns_grade_aime, p);
}

static void test_math(void **state)
{
    (void)state;
    static const struct pair p[] = {
        { "\\boxed{\\frac12}", "\\frac{1}{2}", true },
        { "\\boxed{\\dfrac{1}{2}}", "\\frac{1}{2}", true },
        { "\\boxed{0.5}", "\\frac{1}{2}", true },
        { "\\boxed{1/2}", "\\frac{1}{2}", true },
        { "\\boxed{\\tfrac{2}{4}}", "0.50", true },
        { "\\boxed{-\\frac{3}{4}}", "\\frac{-3}{4}", true },
        { "\\boxed{2\\frac{1}{2}}", "2.5", true },
        { "\\boxed{\\frac{1}{3}}", "\\frac{1}{2}", false },
        { "$\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}$", "(3,\\frac{\\pi}{2})", true },
        { "\\boxed{(3, \\frac{\\pi}{3})}", "(3,\\frac{\\pi}{2})", false },
        { "\\boxed{[1,2)}", "[1,2)", true },
        { "\\boxed{[1,2]}", "[1,2)", false },
        { "\\boxed{(2,1)}", "(1,2)", false },
        { "\\boxed{2, 1}", "1,2", true },
        { "\\boxed{1,2,2}", "1,1,2", false },
        { "\\boxed{\\{2, 1\\}}", "\\{1,2\\}", true },
        { "\\boxed{10\\text{ cm}}", "10", true },
        { "\\boxed{10 \\text{ cm}^2}", "10", true },
        { "\\boxed{10 inches}", "10", true },
        { "\\boxed{\\text{Evelyn}}", "\\text{Evelyn}", true },
        { "\\boxed{Evelyn}", "\\text{Evelyn}", true },
        { "\\boxed{90^\\circ}", "90", true },
        { "\\boxed{90^{\\circ}}", "90", true },
        { "\\boxed{25\\%}", "25", true },
        { "\\boxed{\\$1,250}", "1250", true },
        { "\\boxed{11,\\! 111,\\! 111,\\! 100}", "11,111,111,100", true },
        { "\\boxed{\\sqrt2}", "\\sqrt{2}", true },
        { "\\boxed{3\\sqrt{13}}", "3\\sqrt{13}", true },
        { "\\boxed{3 \\sqrt {13}}", "3\\sqrt{13}", true },
        { "\\boxed{x=5}", "5", true },
        { "\\boxed{x \\in [-2,7]}", "[-2,7]", true },
        { "\\boxed{y = 2x + 3}", "2x+3", true },
        { "\\boxed{2x+2}", "2(x+1)", false },
        { "\\boxed{x^{2}}", "x^2", true },
        { "\\boxed{2516_{8}}", "2516_8", true },
        { "\\boxed{5.}", "5", true },
        { "\\boxed{.5}", "0.5", true },
        { "\\boxed{-5}", "5", false },
        { "\\boxed{51}", "5", false },
        { "\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", true },
        { "\\boxed{5} and then \\boxed{6}", "5", false },
        { "\\boxed 5", "5", true },
        { "The answer is 5.", "5", true },
        { "\\boxed{", "5", false },
        { "\\boxed{}", "5", false },
        { "\\boxed{12345678901234567890}", "12345678901234567891", false },
        { "\\boxed{(-\\infty, 2) \\cup (3, +\\infty)}", "(-\\infty,2)\\cup(3,\\infty)", true },
        { "\\boxed{6 \\text{ and } -2}", "-2,6", true },
    };
    ALL(ns_grade_math, p);
}

static void test_letters(void **state)
{
    (void)state;
    static const struct pair four[] = {
        { "The answer is (B).", "B", true },  { "The answer is B", "B", true },         { "the answer is: **B**", "B", true },
        { "Answer: C", "C", true },           { "B", "B", true },                       { "(B)", "B", true },
        { "B) because of A", "A", true },     { "The answer is (A). No, the answer is (B).", "B", true },
        { "The answer is (B).", "A", false }, { "The answer is Berlin.", "B", false },  { "\\boxed{\\text{D}}", "D", true },
        { "b", "B", false },                  { "The answer is (E).", "D", false },     { "", "A", false },
    };
    static const struct pair ten[] = { { "The answer is (J).", "J", true }, { "The answer is (I)", "J", false }, { "**Answer:** G", "G", true } };
    ALL(ns_grade_letter4, four);
    ALL(ns_grade_letter10, ten);
}

static void test_bbh(void **state)
{
    (void)state;
    static const struct pair p[] = {
        { "So the answer is (A).", "(A)", true },
        { "So the answer is A.", "(A)", true },
        { "So the answer is (A) the red one.", "(A)", true },
        { "So the answer is a dog.", "(A)", false },
        { "So the answer is (B).", "(A)", false },
        { "So the answer is False.", "False", true },
        { "false", "False", true },
        { "True", "False", false },
        { "So the answer is **yes**.", "Yes", true },
        { "So the answer is invalid.", "valid", false },
        { "So the answer is -50.", "-50", true },
        { "So the answer is 1,150.", "1150", true },
        { "So the answer is 50.", "-50", false },
        { "So the answer is barn, damp, drum.", "barn damp drum", true },
        { "So the answer is damp barn drum.", "barn damp drum", false },
        { "So the answer is ]>.", "] >", true },
        { "So the answer is ] >", "] >", true },
        { "So the answer is ] }", "] >", false },
        { "I think\n(C)\n", "(C)", true },
        { "", "(C)", false },
    };
    ALL(ns_grade_bbh, p);
}

static void test_regex(void **state)
{
    (void)state;
    ns_text text = { "aXbX\xFFX", 6 }; /* not UTF-8: matched around */
    assert_int_equal(ns_re_count("X", 0, text), 3);
    assert_int_equal(ns_re_count("x", NS_RE_NOCASE, text), 3);
    assert_int_equal(ns_re_count("(", 0, text), 0);
    assert_int_equal(ns_re_count("", 0, (ns_text){ "ab", 2 }), 3);
    assert_int_equal(ns_re_count("^b$", NS_RE_LINES, (ns_text){ "a\nb\nb", 5 }), 2);
    ns_buf b = { 0 };
    ns_re_quote(&b, (ns_text){ "a.b", 3 });
    assert_string_equal(b.data, "a\\.b");
    ns_buf_clear(&b);
    for (int i = 0; i < 300; i++) /* grows beyond the first guess */
        ns_buf_addc(&b, 'x');
    ns_re_replace(&b, "x", 0, "long");
    assert_int_equal(b.len, 1200);
    ns_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_number), cmocka_unit_test(test_aime), cmocka_unit_test(test_math),
        cmocka_unit_test(test_letters), cmocka_unit_test(test_bbh), cmocka_unit_test(test_regex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
