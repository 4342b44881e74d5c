/* The plans of an evaluation, in passes. */
#include <stdlib.h>
#include <string.h>

#include "eval/eval_impl.h"

static int compare(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static int check(const ns_eval_opts *o, ns_err *e)
{
    if (o->n_budgets < 1 || o->n_sizes + o->n_pairs < 1 || o->max_thought < 1)
        return ns_fail(e, NS_EINVAL, "eval: a size, a budget and some tokens of thought are needed");
    if (o->samples < 1)
        return ns_fail(e, NS_EINVAL, "%d samples of each problem: expected 1 or more", o->samples);
    if (o->samples > 1 && !(o->sampling && o->sampling->temperature > 0.0))
        return ns_fail(e, NS_EINVAL, "%d samples of each problem would all be the same without a temperature", o->samples);
    if (o->n_pairs && o->n_handovers < 1)
        return ns_fail(e, NS_EINVAL, "two sizes need a handover");
    return 0;
}

/* The budgets in ascending order. */
static int sort_budgets(const ns_eval_opts *o, int *budget, ns_err *e)
{
    memcpy(budget, o->budgets, (size_t)o->n_budgets * sizeof *budget);
    qsort(budget, (size_t)o->n_budgets, sizeof *budget, compare);
    for (int i = 0; i < o->n_budgets; i++) {
        int b = budget[i];
        if (b < 0 || (i && b == budget[i - 1]))
            return ns_fail(e, NS_EINVAL, b < 0 ? "a budget of %d tokens" : "the budget %d is given twice", b);
        if (b != NS_EVAL_INF && b >= o->max_thought)
            return ns_fail(e, NS_EINVAL, "a budget of %d tokens where thoughts end at %d", b, o->max_thought);
    }
    return 0;
}

static int set_sizes(const struct eval *v, struct pass *p, const char *think, const char *answer, ns_err *e)
{
    int context = v->o->max_thought + v->o->max_answer;
    if (ns_engine_cut(v->en, think, context, &p->think_cut, p->think, sizeof p->think, e) != 0 ||
        ns_engine_cut(v->en, answer, context, &p->answer_cut, p->answer, sizeof p->answer, e) != 0)
        return -1;
    p->two = !ns_cut_equal(&p->think_cut, &p->answer_cut);
    if (p->two)
        snprintf(p->label, sizeof p->label, "%s:%s", p->think, p->answer);
    else
        snprintf(p->label, sizeof p->label, "%s", p->answer);
    if (p->two && ns_engine_handover(v->en, &p->think_cut, &p->answer_cut, p->handover, &p->handover, e) != 0)
        return ns_err_wrap(e, "%s", p->label);
    return 0;
}

/* One pass over budget[0 .. n). */
static int add_pass(struct eval *v, const char *think, const char *answer, enum ns_handover h, const int *budget, int n, ns_err *e)
{
    struct pass *more = realloc(v->pass, (size_t)(v->n_passes + 1) * sizeof *more);
    if (!more)
        return ns_fail(e, NS_ENOMEM, "eval: out of memory");
    v->pass = more;
    struct pass *p = &more[v->n_passes++];
    *p = (struct pass){ .off = budget[0] == NS_EVAL_OFF, .handover = h, .n = n };
    p->plan = calloc((size_t)n, sizeof *p->plan);
    p->limit = calloc((size_t)n, sizeof *p->limit);
    if (!p->plan || !p->limit)
        return ns_fail(e, NS_ENOMEM, "eval: out of memory");
    for (int i = 0; i < n; i++) {
        p->plan[i].budget = budget[i];
        p->plan[i].answer = calloc((size_t)v->n_answers, sizeof *p->plan[i].answer);
        p->limit[i] = budget[i] == NS_EVAL_INF ? v->o->max_thought : budget[i];
        if (!p->plan[i].answer)
            return ns_fail(e, NS_ENOMEM, "eval: out of memory");
    }
    return set_sizes(v, p, think, answer, e);
}

/* A size: without thinking where asked for, then all budgets of thought. */
static int add_size(struct eval *v, const char *think, const char *answer, enum ns_handover h, bool two, const int *budget, ns_err *e)
{
    int off = budget[0] == NS_EVAL_OFF, n = v->o->n_budgets - off;
    if (off && !two && add_pass(v, think, answer, h, budget, 1, e) != 0)
        return -1;
    return n > 0 ? add_pass(v, think, answer, h, budget + off, n, e) : 0;
}

int ns_eval_make_passes(struct eval *v, ns_err *e)
{
    const ns_eval_opts *o = v->o;
    int rc = check(o, e), *budget = rc == 0 ? malloc((size_t)o->n_budgets * sizeof *budget) : NULL;
    if (rc == 0)
        rc = budget ? sort_budgets(o, budget, e) : ns_fail(e, NS_ENOMEM, "eval: out of memory");
    for (int i = 0; rc == 0 && i < o->n_sizes; i++)
        rc = add_size(v, o->sizes[i], o->sizes[i], NS_HANDOVER_AUTO, false, budget, e);
    for (int i = 0; rc == 0 && i < o->n_pairs; i++) {
        bool two = strcmp(o->pairs[i].think, o->pairs[i].answer) != 0;
        for (int h = 0; rc == 0 && h < (two ? o->n_handovers : 1); h++)
            rc = add_size(v, o->pairs[i].think, o->pairs[i].answer, two ? o->handovers[h] : NS_HANDOVER_AUTO, two, budget, e);
    }
    if (rc == 0 && v->n_passes == 0)
        rc = ns_fail(e, NS_EINVAL, "two sizes and no budget of thought: nothing to do");
    free(budget);
    return rc;
}

void ns_eval_free_passes(struct eval *v)
{
    for (int i = 0; i < v->n_passes; i++) {
        struct pass *p = &v->pass[i];
        for (int k = 0; p->plan && k < p->n; k++) {
            for (int a = 0; p->plan[k].answer && a < v->n_answers; a++)
                free(p->plan[k].answer[a].marks);
            free(p->plan[k].answer);
        }
        free(p->plan);
        free(p->limit);
        ns_cut_release(&p->think_cut);
        ns_cut_release(&p->answer_cut);
    }
    free(v->pass);
}
