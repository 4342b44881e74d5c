#include "eval/report.h"

#include <stdlib.h>
#include <string.h>

#include "eval/score.h"

ns_report_opts ns_report_defaults(void)
{
    return (ns_report_opts){ .draws = 2000, .seed = 1 };
}

/* ---- one plan ---- */

static const ns_report_speed *speed_of(const ns_report_run *run, const char *size)
{
    for (int i = 0; i < run->n_speeds; i++)
        if (strcmp(run->speed[i].size, size) == 0)
            return &run->speed[i];
    return NULL;
}

double ns_report_cell_seconds(const ns_report_run *run, const ns_report_plan *p, const ns_report_cell *c)
{
    const ns_report_speed *think = speed_of(run, p->think), *answer = speed_of(run, p->answer);
    if (!think || !answer)
        return NAN;
    double t = c->prompt / think->prefill + c->thought / think->decode + c->answer / answer->decode;
    if (strcmp(p->handover, "cache") == 0)
        t += c->n * answer->switch_s;
    else if (strcmp(p->handover, "prefill") == 0)
        t += (c->prompt + c->thought) / answer->prefill;
    else if (strcmp(p->handover, "late") == 0)
        t += c->tail / answer->prefill;
    else if (strcmp(p->handover, "none") != 0)
        return NAN;
    return t;
}

/* Bytes of weights read for a cell's answers: decoding reads the active weights once a token, the prompt once; a size that takes over by
 * reading tokens reads its own once more. */
static double cell_bytes(const ns_report_plan *p, const ns_report_cell *c)
{
    const bool reads = strcmp(p->handover, "prefill") == 0 || strcmp(p->handover, "late") == 0;
    return (double)p->think_bytes * (c->n + c->thought) + (double)p->answer_bytes * (c->answer + (reads ? c->n : 0));
}

static void add_cell(ns_report_plan *p, int at, const ns_report_cell *c)
{
    p->n += c->n;
    p->graded += c->graded;
    p->right += c->correct;
    p->closed += c->closed;
    p->unended += c->unended;
    p->prompt += c->prompt;
    p->thought += c->thought;
    p->reply += c->answer;
    p->bytes += cell_bytes(p, c);
    p->n_of[at] += c->n;
    p->graded_of[at] += c->graded;
    p->right_of[at] += c->correct;
}

/* Measured where every answer was timed alone; else from the speeds. */
static void find_seconds(const ns_report_group *g, ns_report_plan *p)
{
    long timed = 0;
    double sum = 0;
    for (int r = 0; r < g->n_runs; r++)
        for (int i = 0; p->cell[r] && i < g->n_problems; i++)
            timed += p->cell[r][i].timed;
    p->latency = timed == p->n ? NS_LATENCY_MEASURED : NS_LATENCY_COMPUTED;
    for (int r = 0; r < g->n_runs; r++)
        for (int i = 0; p->cell[r] && i < g->n_problems; i++) {
            const ns_report_cell *c = &p->cell[r][i];
            const double s = !c->n ? 0 : p->latency == NS_LATENCY_MEASURED ? c->seconds : ns_report_cell_seconds(g->run[r], p, c);
            p->seconds_of[i] += s;
            sum += s;
        }
    p->seconds = sum / (double)p->n;
    if (!isfinite(p->seconds))
        p->latency = NS_LATENCY_NONE;
}

/* The mean over problems of the share of right answers, with the interval that takes a problem's answers as one cluster. */
static ns_report_range clustered(const double *right, const double *graded, const bool *use, int n_problems)
{
    double sum = 0, squares = 0, answers = 0, n = 0;
    for (int i = 0; i < n_problems; i++)
        if (graded[i] > 0 && (!use || use[i])) {
            sum += right[i] / graded[i];
            squares += right[i] / graded[i] * (right[i] / graded[i]);
            answers += graded[i];
            n++;
        }
    ns_report_range out = { n > 0 ? sum / n : NAN, NAN, NAN };
    const double var = n > 1 ? fmax(0, squares - sum * sum / n) / (n - 1) : 0;
    if (n > 0)
        ns_wilson_clustered(out.value, var, (long)n, (long)answers, &out.lo, &out.hi);
    return out;
}

static int compute_plan(ns_arena *a, const ns_report_group *g, ns_report_plan *p, ns_err *e)
{
    const size_t np = (size_t)g->n_problems;
    p->n_of = ns_arena_array(a, np, sizeof *p->n_of);
    p->graded_of = ns_arena_array(a, np, sizeof *p->graded_of);
    p->right_of = ns_arena_array(a, np, sizeof *p->right_of);
    p->seconds_of = ns_arena_array(a, np, sizeof *p->seconds_of);
    if (!p->n_of || !p->graded_of || !p->right_of || !p->seconds_of)
        return ns_fail(e, NS_ENOMEM, "report: out of memory");
    for (int r = 0; r < g->n_runs; r++)
        for (int i = 0; p->cell[r] && i < g->n_problems; i++)
            add_cell(p, i, &p->cell[r][i]);
    const double n = (double)p->n;
    p->prompt /= n;
    p->thought /= n;
    p->reply /= n;
    p->bytes /= n;
    find_seconds(g, p);
    const ns_report_range acc = clustered(p->right_of, p->graded_of, NULL, g->n_problems);
    p->accuracy = acc.value;
    p->lo = acc.lo;
    p->hi = acc.hi;
    p->complete = true;
    for (int i = 0; i < g->n_problems; i++)
        p->complete = p->complete && (!g->problem[i].asked || p->graded_of[i] > 0);
    return 0;
}

/* ---- between plans ---- */

bool ns_report_comparable(const ns_report_plan *p)
{
    return p->complete && p->latency != NS_LATENCY_NONE;
}

int ns_report_best(const ns_report_group *g, double deadline)
{
    int best = -1;
    for (int i = 0; i < g->n_plans; i++) {
        const ns_report_plan *p = g->plan[i], *b = best < 0 ? NULL : g->plan[best];
        if (!ns_report_comparable(p) || p->seconds > deadline)
            continue;
        if (!b || p->accuracy > b->accuracy || (p->accuracy == b->accuracy && p->seconds < b->seconds))
            best = i;
    }
    return best;
}

bool ns_report_apart(const ns_report_plan *a, const ns_report_plan *b)
{
    return a->lo > b->hi || b->lo > a->hi;
}

/* On the front: no other plan is at least as good on both counts and better on one. */
static void mark_pareto(ns_report_group *g)
{
    for (int i = 0; i < g->n_plans; i++) {
        ns_report_plan *p = g->plan[i];
        p->pareto = ns_report_comparable(p);
        for (int k = 0; k < g->n_plans && p->pareto; k++) {
            const ns_report_plan *q = g->plan[k];
            if (ns_report_comparable(q) && q->accuracy >= p->accuracy && q->seconds <= p->seconds)
                p->pareto = q->accuracy == p->accuracy && q->seconds == p->seconds;
        }
    }
}

static int by_seconds(const void *x, const void *y)
{
    const double a = (*(ns_report_plan *const *)x)->seconds, b = (*(ns_report_plan *const *)y)->seconds;
    return (a > b) - (a < b);
}

/* The front by latency, malloc'ed. */
ns_report_plan **ns_report_front(const ns_report_group *g, int *n)
{
    ns_report_plan **list = malloc(((size_t)g->n_plans + 1) * sizeof *list);
    *n = 0;
    for (int i = 0; list && i < g->n_plans; i++)
        if (g->plan[i]->pareto)
            list[(*n)++] = g->plan[i];
    if (list)
        qsort(list, (size_t)*n, sizeof *list, by_seconds);
    return list;
}

static bool chosen(const ns_report_problem *q, const char *kind, int level)
{
    return (!kind || (q->kind && strcmp(q->kind, kind) == 0)) && (level < 0 || q->level == level);
}

ns_report_range ns_report_accuracy(const ns_report_group *g, const ns_report_plan *p, const char *kind, int level, long *n)
{
    bool *use = calloc((size_t)g->n_problems + 1, sizeof *use);
    *n = 0;
    if (!use)
        return (ns_report_range){ NAN, NAN, NAN };
    for (int i = 0; i < g->n_problems; i++)
        if ((use[i] = chosen(&g->problem[i], kind, level)))
            *n += (long)p->graded_of[i];
    const ns_report_range out = clustered(p->right_of, p->graded_of, use, g->n_problems);
    free(use);
    return out;
}

ns_report_tally ns_report_compare(const ns_report_group *g, const ns_report_plan *a, const ns_report_plan *b, const char *kind, int level)
{
    ns_report_tally t = { 0 };
    for (int r = 0; r < g->n_runs; r++)
        for (int i = 0; a->cell[r] && b->cell[r] && i < g->n_problems; i++) {
            const ns_report_cell *x = &a->cell[r][i], *y = &b->cell[r][i];
            if (!x->graded || !y->graded || !chosen(&g->problem[i], kind, level))
                continue;
            const bool first = 2 * x->correct >= x->graded, second = 2 * y->correct >= y->graded;
            t.both += first && second;
            t.lost += first && !second;
            t.won += !first && second;
            t.neither += !first && !second;
        }
    return t;
}

double ns_report_sign_test(long lost, long won)
{
    const long n = lost + won, k = lost < won ? lost : won;
    double tail = 0;
    for (long i = 0; i <= k; i++)
        tail += exp(lgamma((double)n + 1) - lgamma((double)i + 1) - lgamma((double)(n - i) + 1) - (double)n * log(2));
    return fmin(1, 2 * tail);
}

/* ---- the group ---- */

static int64_t rank(int64_t budget)
{
    return budget == NS_REPORT_TO_END ? INT64_MAX : budget;
}

/* Large sizes first, then by name, handover and budget. */
static int by_plan(const void *x, const void *y)
{
    const ns_report_plan *a = *(ns_report_plan *const *)x, *b = *(ns_report_plan *const *)y;
    int c = (a->answer_active < b->answer_active) - (a->answer_active > b->answer_active);
    c = c ? c : strcmp(a->answer, b->answer);
    c = c ? c : (a->think_active < b->think_active) - (a->think_active > b->think_active);
    c = c ? c : strcmp(a->think, b->think);
    c = c ? c : strcmp(a->handover, b->handover);
    return c ? c : (rank(a->budget) > rank(b->budget)) - (rank(a->budget) < rank(b->budget));
}

static int by_level(const void *x, const void *y)
{
    const int a = *(const int *)x, b = *(const int *)y;
    return (a > b) - (a < b);
}

static void add_kind(ns_report_group *g, const char *kind)
{
    for (int i = 0; i < g->n_kinds; i++)
        if (strcmp(g->kind[i], kind) == 0)
            return;
    g->kind[g->n_kinds++] = kind;
}

static void add_level(ns_report_group *g, int level)
{
    for (int i = 0; i < g->n_levels; i++)
        if (g->level[i] == level)
            return;
    g->level[g->n_levels++] = level;
}

/* Sizes that answer alone, judged by the plan that thinks longest; plans come with their budgets ascending. */
static void add_size(ns_report_group *g, int plan)
{
    const ns_report_plan *p = g->plan[plan];
    if (strcmp(p->think, p->answer) != 0 || strcmp(p->handover, "none") != 0)
        return;
    ns_report_size *s = g->n_sizes ? &g->size[g->n_sizes - 1] : NULL;
    if (!s || strcmp(s->name, p->answer) != 0) {
        s = &g->size[g->n_sizes++];
        *s = (ns_report_size){ .name = p->answer, .active = p->answer_active, .bytes = p->answer_bytes, .plan = -1,
                               .against_full = { NAN, NAN, NAN } };
    }
    if (p->complete)
        s->plan = plan;
}

static int list_parts(ns_arena *a, ns_report_group *g, ns_err *e)
{
    g->kind = ns_arena_array(a, (size_t)g->n_problems + 1, sizeof *g->kind);
    g->level = ns_arena_array(a, (size_t)g->n_problems + 1, sizeof *g->level);
    g->size = ns_arena_array(a, (size_t)g->n_plans + 1, sizeof *g->size);
    if (!g->kind || !g->level || !g->size)
        return ns_fail(e, NS_ENOMEM, "report: out of memory");
    for (int i = 0; i < g->n_problems; i++) {
        if (g->problem[i].kind)
            add_kind(g, g->problem[i].kind);
        if (g->problem[i].level >= 0)
            add_level(g, g->problem[i].level);
    }
    qsort(g->level, (size_t)g->n_levels, sizeof *g->level, by_level);
    for (int i = 0; i < g->n_plans; i++)
        add_size(g, i);
    return 0;
}

/* Plans that were begun and have no answer yet say nothing. */
static void drop_empty(ns_report_group *g)
{
    int kept = 0;
    for (int i = 0; i < g->n_plans; i++) {
        long n = 0;
        for (int r = 0; r < g->n_runs; r++)
            for (int k = 0; g->plan[i]->cell[r] && k < g->n_problems; k++)
                n += g->plan[i]->cell[r][k].n;
        if (n)
            g->plan[kept++] = g->plan[i];
    }
    g->n_plans = kept;
}

int ns_report_compute(ns_report *r, const ns_report_opts *o, ns_err *e)
{
    for (int i = 0; i < r->n_groups; i++) {
        ns_report_group *g = r->group[i];
        drop_empty(g);
        if (g->n_plans == 0)
            return ns_fail(e, NS_EFORMAT, "%s: task %s: no answer in it", g->run[0]->file, g->task);
        qsort(g->plan, (size_t)g->n_plans, sizeof *g->plan, by_plan);
        for (int k = 0; k < g->n_plans; k++)
            if (compute_plan(&r->arena, g, g->plan[k], e) != 0)
                return -1;
        mark_pareto(g);
        if (list_parts(&r->arena, g, e) != 0 || ns_report_claims(&r->arena, g, o, e) != 0)
            return -1;
    }
    return 0;
}
