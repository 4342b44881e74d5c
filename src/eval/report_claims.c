/* Mixed plans against ordinary budgets with the size that answers, and sizes against the largest, with intervals by a paired bootstrap:
 * a draw takes as many problems as there are, with replacement, the same for every plan. */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "eval/report.h"

enum { MAX_CURVE = 64 };

/* Accuracy and seconds of every plan, [n_plans], in one draw. */
struct draw {
    double *accuracy, *seconds;
};

/* ---- the curve of one size ---- */

/* A copy by latency, each point with the best accuracy until it. */
static int sorted(const double *seconds, const double *accuracy, int n, double *x, double *y)
{
    int m = 0;
    for (int i = 0; i < n && m < MAX_CURVE; i++, m++) {
        int at = m;
        for (; at > 0 && x[at - 1] > seconds[i]; at--) {
            x[at] = x[at - 1];
            y[at] = y[at - 1];
        }
        x[at] = seconds[i];
        y[at] = accuracy[i];
    }
    for (int i = 1; i < m; i++)
        y[i] = fmax(y[i], y[i - 1]);
    return m;
}

double ns_report_curve_at(const double *seconds, const double *accuracy, int n, double t)
{
    double x[MAX_CURVE], y[MAX_CURVE];
    n = sorted(seconds, accuracy, n, x, y);
    if (n == 0 || t < x[0])
        return NAN;
    for (int i = 1; i < n; i++)
        if (t < x[i])
            return y[i - 1] + (y[i] - y[i - 1]) * (t - x[i - 1]) / (x[i] - x[i - 1]);
    return y[n - 1];
}

double ns_report_curve_reach(const double *seconds, const double *accuracy, int n, double wanted)
{
    double x[MAX_CURVE], y[MAX_CURVE];
    n = sorted(seconds, accuracy, n, x, y);
    if (n && wanted <= y[0])
        return x[0];
    for (int i = 1; i < n; i++)
        if (wanted <= y[i])
            return x[i - 1] + (x[i] - x[i - 1]) * (wanted - y[i - 1]) / (y[i] - y[i - 1]);
    return n ? INFINITY : NAN;
}

/* ---- draws ---- */

static void take_draw(const ns_report_group *g, const double *weight, struct draw *d)
{
    for (int p = 0; p < g->n_plans; p++) {
        const ns_report_plan *plan = g->plan[p];
        double share = 0, problems = 0, n = 0, seconds = 0;
        for (int i = 0; i < g->n_problems; i++) {
            share += plan->graded_of[i] > 0 ? weight[i] * plan->right_of[i] / plan->graded_of[i] : 0;
            problems += plan->graded_of[i] > 0 ? weight[i] : 0;
            n += weight[i] * plan->n_of[i];
            seconds += weight[i] * plan->seconds_of[i];
        }
        d->accuracy[p] = share / problems;
        d->seconds[p] = seconds / n;
    }
}

/* draws[0] is the data itself; draws[1 .. n] are the bootstrap's. */
static int take_draws(const ns_report_group *g, const ns_report_opts *o, struct draw *draws, ns_err *e)
{
    const size_t np = (size_t)g->n_problems;
    double *weight = malloc((np + 1) * sizeof *weight);
    int *asked = malloc((np + 1) * sizeof *asked), n = 0;
    ns_rng rng;
    ns_rng_init(&rng, o->seed);
    int rc = weight && asked ? 0 : ns_fail(e, NS_ENOMEM, "report: out of memory");
    for (int i = 0; i < g->n_problems && rc == 0; i++) {
        weight[i] = g->problem[i].asked;
        if (g->problem[i].asked)
            asked[n++] = i;
    }
    for (int d = 0; d <= o->draws && rc == 0; d++) {
        if (d)
            memset(weight, 0, np * sizeof *weight);
        for (int i = 0; d && i < n; i++)
            weight[asked[(int)(ns_rng_uniform(&rng) * n)]]++;
        take_draw(g, weight, &draws[d]);
    }
    free(weight);
    free(asked);
    return rc;
}

static int ascending(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* value[0] and the 2.5 and 97.5 percentiles of the rest; no interval where more than one draw in twenty has no value, or all
 * have the same. */
static ns_report_range range(double *value, int n)
{
    ns_report_range out = { value[0], NAN, NAN };
    int m = 1;
    for (int i = 1; i <= n; i++)
        if (!isnan(value[i]))
            value[m++] = value[i];
    if (isnan(out.value) || m - 1 < n - n / 20 || m < 2)
        return out;
    qsort(value + 1, (size_t)(m - 1), sizeof *value, ascending);
    if (!(value[m - 1] - value[1] > 1e-9))
        return out; /* no draw differs: the bootstrap knows nothing of how far off this may be */
    out.lo = value[1 + (int)(0.025 * (m - 2) + 0.5)];
    out.hi = value[1 + (int)(0.975 * (m - 2) + 0.5)];
    return out;
}

/* ---- claims ---- */

/* Where the values of a pair's draws are put together: [n + 1] each. */
struct work {
    const struct draw *draw;
    int n; /* draws of the bootstrap */
    double *gain, *ratio, *mean_gain, *mean_ratio; /* the means' are sums at first */
};

static int curve_of(const ns_report_group *g, const char *size, int *index)
{
    int n = 0;
    for (int i = 0; i < g->n_plans && n < MAX_CURVE; i++) {
        const ns_report_plan *p = g->plan[i];
        if (ns_report_comparable(p) && strcmp(p->think, size) == 0 && strcmp(p->answer, size) == 0 && strcmp(p->handover, "none") == 0)
            index[n++] = i;
    }
    return n;
}

static void claim(const struct work *w, const int *curve, int n_curve, ns_report_claim *c)
{
    double x[MAX_CURVE], y[MAX_CURVE];
    for (int d = 0; d <= w->n; d++) {
        const struct draw *v = &w->draw[d];
        for (int i = 0; i < n_curve; i++) {
            x[i] = v->seconds[curve[i]];
            y[i] = v->accuracy[curve[i]];
        }
        w->gain[d] = v->accuracy[c->plan] - ns_report_curve_at(x, y, n_curve, v->seconds[c->plan]);
        w->ratio[d] = ns_report_curve_reach(x, y, n_curve, v->accuracy[c->plan]) / v->seconds[c->plan];
    }
    /* The mean is over the plans that have a value in the data itself. */
    const bool has_gain = !isnan(w->gain[0]), has_ratio = isfinite(w->ratio[0]);
    for (int d = 0; d <= w->n; d++) {
        w->mean_gain[d] += has_gain ? w->gain[d] : 0;
        w->mean_ratio[d] += has_ratio ? log(w->ratio[d]) : 0;
    }
    c->n_gain = has_gain;
    c->n_ratio = has_ratio;
    c->gain = range(w->gain, w->n);
    c->ratio = range(w->ratio, w->n);
}

static void claim_pair(const ns_report_group *g, const struct work *w, ns_report_pair *p)
{
    int curve[MAX_CURVE];
    const int n_curve = curve_of(g, p->answer, curve);
    for (int d = 0; d <= w->n; d++)
        w->mean_gain[d] = w->mean_ratio[d] = 0;
    p->mean = (ns_report_claim){ .plan = -1 };
    for (int i = 0; i < p->n; i++) {
        claim(w, curve, n_curve, &p->claim[i]);
        p->mean.n_gain += p->claim[i].n_gain;
        p->mean.n_ratio += p->claim[i].n_ratio;
    }
    for (int d = 0; d <= w->n; d++) {
        w->mean_gain[d] /= p->mean.n_gain; /* 0 / 0 where there is none */
        w->mean_ratio[d] = exp(w->mean_ratio[d] / p->mean.n_ratio);
    }
    p->mean.gain = range(w->mean_gain, w->n);
    p->mean.ratio = range(w->mean_ratio, w->n);
}

/* Plans of a pair follow one another, see ns_report_group. */
static int list_pairs(ns_arena *a, ns_report_group *g, ns_err *e)
{
    g->pair = ns_arena_array(a, (size_t)g->n_plans, sizeof *g->pair);
    ns_report_claim *claims = ns_arena_array(a, (size_t)g->n_plans, sizeof *claims);
    if (!g->pair || !claims)
        return ns_fail(e, NS_ENOMEM, "report: out of memory");
    for (int i = 0; i < g->n_plans; i++) {
        const ns_report_plan *p = g->plan[i];
        ns_report_pair *last = g->n_pairs ? &g->pair[g->n_pairs - 1] : NULL;
        if (!ns_report_comparable(p) || strcmp(p->think, p->answer) == 0)
            continue;
        if (!last || strcmp(last->think, p->think) != 0 || strcmp(last->answer, p->answer) != 0 || strcmp(last->handover, p->handover) != 0) {
            last = &g->pair[g->n_pairs++];
            *last = (ns_report_pair){ .think = p->think, .answer = p->answer, .handover = p->handover, .claim = claims };
        }
        claims->plan = i;
        claims++;
        last->n++;
    }
    return 0;
}

static void against_full(const ns_report_group *g, const struct work *w)
{
    const int full = g->n_sizes ? g->size[0].plan : -1;
    for (int i = 1; i < g->n_sizes && full >= 0; i++) {
        const int plan = g->size[i].plan;
        for (int d = 0; d <= w->n && plan >= 0; d++)
            w->gain[d] = w->draw[d].accuracy[plan] - w->draw[d].accuracy[full];
        if (plan >= 0)
            g->size[i].against_full = range(w->gain, w->n);
    }
}

int ns_report_claims(ns_arena *a, ns_report_group *g, const ns_report_opts *o, ns_err *e)
{
    const size_t n = (size_t)o->draws + 1, np = (size_t)g->n_plans;
    struct draw *draws = malloc(n * sizeof *draws);
    double *values = malloc(2 * n * np * sizeof *values), *series = malloc(4 * n * sizeof *series);
    int rc = draws && values && series ? list_pairs(a, g, e) : ns_fail(e, NS_ENOMEM, "report: out of memory");
    for (size_t d = 0; d < n && rc == 0; d++)
        draws[d] = (struct draw){ values + 2 * d * np, values + (2 * d + 1) * np };
    if (rc == 0)
        rc = take_draws(g, o, draws, e);
    if (rc == 0) {
        const struct work w = { draws, o->draws, series, series + n, series + 2 * n, series + 3 * n };
        for (int i = 0; i < g->n_pairs; i++)
            claim_pair(g, &w, &g->pair[i]);
        against_full(g, &w);
        g->n_draws = o->draws;
    }
    free(draws);
    free(values);
    free(series);
    return rc;
}
