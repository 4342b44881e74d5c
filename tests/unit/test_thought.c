/* The end of a thought, token by token; plans of sizes; the arithmetic of deadlines. No model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "run/pace.h"
#include "run/segments.h"

enum { OPEN = 1, CLOSE = 2, DOT = 3, BREAK = 4, WORD = 10 };

/* ".\n</think>\n\n" as three tokens, the mark second */
static int closing[] = { DOT, CLOSE, BREAK };

static ns_thought_rule rule(int grace)
{
    return (ns_thought_rule){ .open = OPEN, .close = CLOSE, .text = { .data = closing, .len = 3 }, .marker = 1, .grace = grace };
}

static ns_thought thinking(int budget)
{
    return (ns_thought){ .phase = NS_PHASE_THINK, .ends = true, .budget = budget };
}

static enum ns_thought_step say(ns_thought *t, const ns_thought_rule *r, const char *text)
{
    return ns_thought_take(t, r, WORD, text, strlen(text));
}

/* Says the texts in turn until something happens; how many were said. */
static int until(ns_thought *t, const ns_thought_rule *r, const char *const *text, enum ns_thought_step *step)
{
    int n = 0;
    do
        *step = say(t, r, text[n++]);
    while (*step == NS_THOUGHT_ON && text[n]);
    return n;
}

static void closes(ns_thought *t, const ns_thought_rule *r, size_t want)
{
    const int *ids;
    size_t n;
    ns_thought_close(t, r, &ids, &n);
    assert_int_equal(n, want);
    assert_ptr_equal(ids, closing + 3 - want);
    assert_true(t->closed);
    assert_int_equal(t->phase, NS_PHASE_ANSWER);
    assert_int_equal(say(t, r, "<think>"), NS_THOUGHT_ON); /* nothing opens an answer again */
    assert_int_equal(ns_thought_take(t, r, OPEN, "<think>", 7), NS_THOUGHT_ON);
    assert_int_equal(t->phase, NS_PHASE_ANSWER);
}

static void test_hard(void **state)
{
    (void)state;
    static const char *const words[] = { "a", "b", "c", "d", "e", NULL };
    for (int budget = 1; budget <= 5; budget++) {
        ns_thought_rule r = rule(0);
        ns_thought t = thinking(budget);
        enum ns_thought_step step;
        assert_int_equal(until(&t, &r, words, &step), budget);
        assert_int_equal(step, NS_THOUGHT_CLOSE);
        assert_int_equal(t.n, budget);
        closes(&t, &r, 3);
        assert_int_equal(t.n, budget);
    }
}

static void test_grace(void **state)
{
    (void)state;
    static const struct {
        const char *text[9];
        int budget, grace, n;
        size_t put; /* tokens of closing: 3, or 2 where a line has ended */
    } c[] = {
        { { "a", "b", "c", "\n", "e" }, 2, 4, 4, 2 },      /* the next line break */
        { { "\n", "b", "c", "d", "e", "f" }, 2, 3, 5, 3 }, /* one before the budget does not count; then hard, exactly */
        { { "a", "b\n", "c" }, 2, 3, 2, 2 },               /* the budget's own token ends a line */
        { { "a", "b", "c\nd", "e" }, 2, 3, 3, 3 },         /* a break inside a token: it stays whole, and no line has ended */
        { { "a", "b", "c\n\n", "e" }, 2, 3, 3, 2 },
        { { "a", "b", "c", "d", "\n" }, 2, 3, 5, 2 },      /* the last token of the grace */
        { { "a", "\n" }, 2, 0, 2, 2 },                     /* hard, where a line happens to end */
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        ns_thought_rule r = rule(c[i].grace);
        ns_thought t = thinking(c[i].budget);
        enum ns_thought_step step;
        assert_int_equal(until(&t, &r, c[i].text, &step), c[i].n);
        assert_int_equal(step, NS_THOUGHT_CLOSE);
        closes(&t, &r, c[i].put);
    }
}

static void test_own_end(void **state)
{
    (void)state;
    ns_thought_rule r = rule(5);
    ns_thought t = thinking(3);
    assert_int_equal(say(&t, &r, "</think>"), NS_THOUGHT_ON); /* spelled: text, however many tokens */
    assert_int_equal(say(&t, &r, "</th"), NS_THOUGHT_ON);
    assert_int_equal(say(&t, &r, "ink>"), NS_THOUGHT_ON); /* the budget, in grace */
    assert_int_equal(ns_thought_take(&t, &r, CLOSE, "</think>", 8), NS_THOUGHT_OVER);
    assert_int_equal(t.n, 3);
    assert_false(t.closed);
    assert_int_equal(t.phase, NS_PHASE_ANSWER);
    assert_int_equal(ns_thought_take(&t, &r, CLOSE, "</think>", 8), NS_THOUGHT_ON);
    t = thinking(NS_THOUGHT_FREE);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(say(&t, &r, "x\n"), NS_THOUGHT_ON);
}

static void test_none(void **state)
{
    (void)state;
    ns_thought_rule r = rule(50);
    const int open_prompt[] = { WORD, OPEN }, closed[] = { WORD, OPEN, CLOSE }, old[] = { OPEN, CLOSE, WORD };
    ns_thought t;
    assert_int_equal(ns_thought_begin(&t, &r, NULL, 0, open_prompt, 2), NS_THOUGHT_CLOSE); /* no grace for nothing */
    closes(&t, &r, 2);
    assert_int_equal(ns_thought_begin(&t, &r, NULL, 9, open_prompt, 2), NS_THOUGHT_ON);
    assert_int_equal(t.phase, NS_PHASE_THINK);
    assert_int_equal(ns_thought_begin(&t, &r, NULL, 9, closed, 3), NS_THOUGHT_ON);
    assert_int_equal(t.phase, NS_PHASE_ANSWER);
    assert_false(t.may_open);
    assert_int_equal(ns_thought_begin(&t, &r, NULL, 0, closed, 0), NS_THOUGHT_ON); /* the model opens it */
    assert_true(t.may_open);
    assert_int_equal(say(&t, &r, " \n"), NS_THOUGHT_ON);
    assert_int_equal(ns_thought_take(&t, &r, OPEN, "<think>", 7), NS_THOUGHT_CLOSE);
    closes(&t, &r, 2);
    assert_int_equal(ns_thought_begin(&t, &r, NULL, 9, closed, 0), NS_THOUGHT_ON);
    assert_int_equal(say(&t, &r, "word"), NS_THOUGHT_ON);
    assert_int_equal(ns_thought_take(&t, &r, OPEN, "<think>", 7), NS_THOUGHT_ON); /* too late */
    assert_int_equal(t.phase, NS_PHASE_ANSWER);
    ns_thought_rule no_marks = { .open = -1, .close = -1 };
    assert_int_equal(ns_thought_begin(&t, &no_marks, NULL, 0, old, 3), NS_THOUGHT_ON);
    assert_int_equal(t.phase, NS_PHASE_ANSWER);
    assert_false(t.may_open);
}

/* Of several budgets, those that one line break ends. */
static void test_due(void **state)
{
    (void)state;
    ns_thought_rule r = rule(4);
    ns_thought t = thinking(2);
    static const char *const text[] = { "a", "b", "c", "d\n", NULL };
    enum ns_thought_step step;
    assert_int_equal(until(&t, &r, text, &step), 4);
    assert_true(ns_thought_due(&t, &r, 2) && ns_thought_due(&t, &r, 3) && ns_thought_due(&t, &r, 4));
    assert_false(ns_thought_due(&t, &r, 5) || ns_thought_due(&t, &r, NS_THOUGHT_FREE));
}

/* ---- plans ---- */

static ns_segments plan(const char *text)
{
    ns_segments p = { 0 };
    ns_err e = { 0 };
    if (ns_segments_parse(&p, text, &e) != 0)
        fail_msg("%s: %s", text, e.msg);
    return p;
}

static const char *size_at(const ns_segments *p, enum ns_phase phase, int all, int n, int budget)
{
    ns_place at = { .phase = phase, .all = all, .thought = phase == NS_PHASE_THINK ? n : 0, .answer = phase == NS_PHASE_ANSWER ? n : 0,
                    .budget = budget };
    int i = ns_segments_at(p->seg, p->n, &at);
    return i < 0 ? "none" : p->seg[i].size;
}

static void test_plans(void **state)
{
    (void)state;
    ns_segments p = plan("think:12B,last-think:256:full,answer:hidden=32,expert_ffn=8");
    assert_int_equal(p.n, 3);
    assert_string_equal(size_at(&p, NS_PHASE_THINK, 0, 0, 1000), "12B");
    assert_string_equal(size_at(&p, NS_PHASE_THINK, 743, 743, 1000), "12B");
    assert_string_equal(size_at(&p, NS_PHASE_THINK, 744, 744, 1000), "full");
    assert_string_equal(size_at(&p, NS_PHASE_THINK, 1100, 1100, 1000), "full"); /* grace */
    assert_string_equal(size_at(&p, NS_PHASE_THINK, 0, 0, 100), "full");        /* a budget below */
    assert_string_equal(size_at(&p, NS_PHASE_ANSWER, 1003, 0, 1000), "hidden=32,expert_ffn=8");
    ns_place at = { .phase = NS_PHASE_THINK, .budget = 1000 };
    assert_int_equal(ns_segments_next(p.seg, p.n, &at, 0), 1);
    at.thought = at.all = 800;
    assert_int_equal(ns_segments_next(p.seg, p.n, &at, 1), 2);
    at.phase = NS_PHASE_ANSWER;
    assert_int_equal(ns_segments_next(p.seg, p.n, &at, 2), -1);
    ns_segments_release(&p);

    p = plan("all:a,from-think:10:fit:16GiB");
    assert_string_equal(size_at(&p, NS_PHASE_THINK, 9, 9, NS_THOUGHT_FREE), "a");
    assert_string_equal(size_at(&p, NS_PHASE_THINK, 10, 10, NS_THOUGHT_FREE), "fit:16GiB");
    assert_string_equal(size_at(&p, NS_PHASE_ANSWER, 50, 0, NS_THOUGHT_FREE), "a");
    at = (ns_place){ .phase = NS_PHASE_THINK, .budget = NS_THOUGHT_FREE };
    assert_int_equal(ns_segments_next(p.seg, p.n, &at, 0), 1);
    at.thought = at.all = 12;
    assert_int_equal(ns_segments_next(p.seg, p.n, &at, 1), 0);
    ns_segments_release(&p);

    ns_err e = { 0 };
    assert_int_equal(ns_segments_parse_sizes(&p, "mid:2,hidden=32,expert_ffn=8:3,full", &e), 0);
    assert_int_equal(p.n, 3);
    assert_string_equal(size_at(&p, NS_PHASE_ANSWER, 1, 1, NS_THOUGHT_FREE), "mid");
    assert_string_equal(size_at(&p, NS_PHASE_THINK, 4, 4, NS_THOUGHT_FREE), "hidden=32,expert_ffn=8");
    assert_string_equal(size_at(&p, NS_PHASE_THINK, 5, 5, NS_THOUGHT_FREE), "full");
    at = (ns_place){ .phase = NS_PHASE_ANSWER, .budget = NS_THOUGHT_FREE };
    assert_int_equal(ns_segments_next(p.seg, p.n, &at, 0), 1);
    ns_segments_release(&p);
    assert_true(ns_segments_is_plan("answer:full"));
    assert_false(ns_segments_is_plan("12B:200,full"));
}

static void test_bad_plans(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } bad[] = { { "", "expected think:SIZE" },          { "12B", "expected think:SIZE" },        { "think:", "the size is missing" },
                { "think:a,", "expected think:SIZE" },  { "last-think:full", "with a number" },  { "last-think:0:full", "from 1 on" },
                { "last-think:x:full", "from 1 on" },   { "from-think:-3:full", "from 1 on" },   { "answer:,think:a", "the size is missing" },
                { "think:a,last-think:5:", "missing" }, { "reason:a", "expected think:SIZE" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ns_segments p = { 0 };
        ns_err e = { 0 };
        assert_int_equal(ns_segments_parse(&p, bad[i].text, &e), -1);
        if (!strstr(e.msg, bad[i].why))
            fail_msg("\"%s\": %s", bad[i].text, e.msg);
        ns_segments_release(&p);
    }
    char many[NS_SEGMENTS * 9 + 20] = "think:a";
    for (int i = 0; i < NS_SEGMENTS; i++)
        strcat(many, ",think:a");
    ns_segments p = { 0 };
    ns_err e = { 0 };
    assert_int_equal(ns_segments_parse(&p, many, &e), -1);
    assert_non_null(strstr(e.msg, "more than 16"));
    ns_segments_release(&p);
}

/* ---- deadlines ---- */

static void test_pace(void **state)
{
    (void)state;
    /* a step of the wide size takes 100 ms, of the narrow one 40; reading costs a tenth of that */
    ns_pace p = { .end = 20.0, .load = 1.0, .answer_tokens = 50, .n = 2, .size = { { "wide", 0.1, 0.01 }, { "narrow", 0.04, 0.004 } } };
    int think, answer;
    /* 400 tokens to read, 3 + 50 to write: 4 s + 5.3 s, and a twentieth */
    assert_true(ns_pace_reserve(&p, 0, 400, 3) > 9.76 && ns_pace_reserve(&p, 0, 400, 3) < 9.77);
    assert_false(ns_pace_must_close(&p, 10.19, 1, 0, 400, 3));
    assert_true(ns_pace_must_close(&p, 10.21, 1, 0, 400, 3));
    assert_false(ns_pace_must_close(&p, 14.0, 1, 0, 0, 3)); /* a kept cache leaves more */
    assert_false(ns_pace_over(&p, 19.89, 0, 0));
    assert_true(ns_pace_over(&p, 19.91, 0, 0));
    assert_true(ns_pace_over(&p, 15.91, 0, 400));
    for (int i = 0; i < 200; i++)
        ns_pace_took(&p, 1, 0.08); /* the machine is half as fast as it was */
    assert_true(p.load > 1.99 && p.load < 2.01);
    assert_true(ns_pace_must_close(&p, 2.0, 1, 0, 400, 3));
    p.load = 1.0;
    ns_pace_choose(&p, 0.0, 100, true, &think, &answer); /* 50 + 50 tokens at the widest fit */
    assert_true(answer == 0 && think == 0);
    p.end = 10.9;
    ns_pace_choose(&p, 0.0, 100, true, &think, &answer);
    assert_true(answer == 0 && think == 1);
    p.end = 6.0;
    ns_pace_choose(&p, 0.0, 100, true, &think, &answer);
    assert_true(answer == 1 && think == 1);
    p.end = 0.1; /* nothing fits: the narrowest */
    ns_pace_choose(&p, 0.0, 100, false, &think, &answer);
    assert_true(answer == 1 && think == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hard), cmocka_unit_test(test_grace), cmocka_unit_test(test_own_end),  cmocka_unit_test(test_none),
        cmocka_unit_test(test_due),  cmocka_unit_test(test_plans), cmocka_unit_test(test_bad_plans), cmocka_unit_test(test_pace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
