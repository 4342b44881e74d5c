/* The report of an evaluation, counted from its answers: the same whether they came in one go or after interruptions. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/eval_impl.h"

/* {"n", "correct"} under a name, "ungraded" where there are. */
static void tally(json_t *groups, const char *name, size_t len, enum ns_grade g)
{
    json_t *o = json_object_getn(groups, name, len);
    if (!o)
        json_object_setn_new(groups, name, len, o = json_pack("{s:i, s:i}", "n", 0, "correct", 0));
    if (g == NS_GRADE_NONE) {
        json_object_set_new(o, "ungraded", json_integer(json_integer_value(json_object_get(o, "ungraded")) + 1));
        return;
    }
    json_t *n = json_object_get(o, "n"), *k = json_object_get(o, "correct");
    json_integer_set(n, json_integer_value(n) + 1);
    json_integer_set(k, json_integer_value(k) + (g == NS_GRADE_RIGHT));
}

/* Single instructions: "id=1 id=0 id=?". */
static void tally_marks(json_t *kinds, const char *marks)
{
    for (const char *p = marks; *p;) {
        size_t n = strcspn(p, " ");
        if (n > 2 && p[n - 2] == '=')
            tally(kinds, p, n - 2, p[n - 1] == '1' ? NS_GRADE_RIGHT : p[n - 1] == '0' ? NS_GRADE_WRONG : NS_GRADE_NONE);
        p += n + (p[n] == ' ');
    }
}

/* Sums over a row. */
struct sums {
    long there, n, correct, ungraded, closed, unfinished;
    double thought, tokens;
    long problems;             /* with a graded answer */
    double mean, square;       /* of the problems' shares */
    double pass_at[31];        /* k = 2^i, sums over problems with k graded answers .. */
    long pass_n[31];           /* .. and how many there are */
};

static void sum_problem(struct sums *s, const struct answer *a, int samples)
{
    int n = 0, c = 0;
    for (int i = 0; i < samples; i++) {
        n += a[i].there && a[i].grade != NS_GRADE_NONE;
        c += a[i].there && a[i].grade == NS_GRADE_RIGHT;
    }
    if (n == 0)
        return;
    double share = (double)c / n;
    s->problems++;
    s->mean += share;
    s->square += share * share;
    for (int i = 0; i < 31 && (1 << i) <= n; i++) {
        s->pass_at[i] += ns_pass_at(n, c, 1 << i);
        s->pass_n[i]++;
    }
}

static void sum_answer(struct sums *s, const struct answer *a)
{
    s->there++;
    s->n += a->grade != NS_GRADE_NONE;
    s->correct += a->grade == NS_GRADE_RIGHT;
    s->ungraded += a->grade == NS_GRADE_NONE;
    s->closed += a->closed;
    s->unfinished += !a->ended;
    s->thought += a->thought;
    s->tokens += a->tokens;
}

static void set_pass_at(json_t *row, const struct sums *s)
{
    json_t *o = json_object();
    char k[16];
    for (int i = 0; i < 31 && s->pass_n[i] > 0; i++) {
        snprintf(k, sizeof k, "%d", 1 << i);
        json_object_set_new(o, k, json_real(s->pass_at[i] / (double)s->pass_n[i]));
    }
    json_object_set_new(row, "pass_at", o);
}

static json_t *row_json(const struct eval *v, const struct pass *p, const struct plan *plan, const struct sums *s, json_t *kinds, json_t *levels)
{
    double lo, hi, there = (double)s->there, m = (double)s->problems, mean = s->problems ? s->mean / m : 0.0;
    double var = s->problems > 1 ? fmax((s->square - m * mean * mean) / (m - 1.0), 0.0) : 0.0;
    if (v->o->samples == 1)
        ns_wilson(s->correct, s->n, &lo, &hi);
    else
        ns_wilson_clustered(mean, var, s->problems, s->n, &lo, &hi);
    json_t *r = json_pack("{s:s, s:o, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:f, s:O, s:O}", "size", p->label, "budget",
                          ns_eval_budget(plan->budget), "n", (json_int_t)s->n, "correct", (json_int_t)s->correct, "accuracy", mean, "low", lo, "high",
                          hi, "thinking_tokens", s->thought / there, "answer_tokens", s->tokens / there, "closed", (json_int_t)s->closed, "unfinished",
                          (json_int_t)s->unfinished, "tokens_per_second",
                          plan->totals.seconds > 0 ? (double)plan->totals.tokens / plan->totals.seconds : 0.0, "kinds", kinds, "levels", levels);
    if (r && p->two)
        json_object_set_new(r, "handover", json_string(ns_handover_name(p->handover)));
    if (r && s->ungraded)
        json_object_set_new(r, "ungraded", json_integer(s->ungraded));
    if (r && v->o->samples > 1)
        set_pass_at(r, s);
    return r;
}

/* 0: nothing in the row yet. */
static int add_row(const struct eval *v, const struct pass *p, const struct plan *plan, json_t *rows)
{
    struct sums s = { 0 };
    json_t *kinds = json_object(), *levels = json_object();
    char level[16];
    int samples = v->o->samples;
    for (int i = 0; i < v->n_answers; i++) {
        const struct answer *a = &plan->answer[i];
        const ns_task_item *item = &v->t->item[i / samples];
        if (i % samples == 0)
            sum_problem(&s, a, samples);
        if (!a->there)
            continue;
        sum_answer(&s, a);
        if (a->marks)
            tally_marks(kinds, a->marks);
        else if (item->kind)
            tally(kinds, item->kind, strlen(item->kind), a->grade);
        if (item->level >= 0) {
            snprintf(level, sizeof level, "%d", item->level);
            tally(levels, level, strlen(level), a->grade);
        }
    }
    json_t *row = s.there ? row_json(v, p, plan, &s, kinds, levels) : NULL;
    json_decref(kinds);
    json_decref(levels);
    return s.there ? json_array_append_new(rows, row) : 0;
}

json_t *ns_eval_rows(const struct eval *v, ns_err *e)
{
    json_t *rows = json_array();
    int rc = 0;
    for (int i = 0; rc == 0 && i < v->n_passes; i++)
        for (int k = 0; rc == 0 && k < v->pass[i].n; k++)
            rc = add_row(v, &v->pass[i], &v->pass[i].plan[k], rows);
    if (rc == 0 && rows)
        return rows;
    ns_fail(e, NS_ENOMEM, "results: out of memory");
    json_decref(rows);
    return NULL;
}
