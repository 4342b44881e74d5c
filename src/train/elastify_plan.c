#include "train/elastify_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "train/elastify_impl.h"

static const double SLACK = 0.05; /* a budget is met when the cost is over it by no more than this: the loss does not see less */

ns_elastic_opts ns_elastic_defaults(void)
{
    return (ns_elastic_opts){ .round = 16, .inner = 256, .budget = ns_budget_defaults() };
}

/* ---- sizes ---- */

static int descending(const void *x, const void *y)
{
    const double *a = x, *b = y;
    return *a > *b ? -1 : *a < *b;
}

static int read_budgets(ns_elastic_planner *k)
{
    double b[NS_ELASTIC_MAX];
    int n;
    if (ns_parse_numbers(k->o->budgets, b, NS_ELASTIC_MAX, &n, k->e) < 0)
        return ns_err_wrap(k->e, "--budgets");
    qsort(b, (size_t)n, sizeof *b, descending);
    for (int i = 0; i < n; i++) {
        if (!(b[i] > 0 && b[i] <= 1))
            return ns_fail(k->e, NS_EINVAL, "--budgets: %g is not a share over 0 and up to 1", b[i]);
        if (i > 0 && b[i] == b[i - 1])
            return ns_fail(k->e, NS_EINVAL, "--budgets: %g stands there twice", b[i]);
        k->out->size[i].budget = b[i];
        snprintf(k->out->size[i].name, sizeof k->out->size[i].name, b[i] == 1 ? "full" : "%g", b[i]);
    }
    k->out->n = n;
    return 0;
}

static int set_name(void *ctx, const char *part, int i)
{
    ns_elastic_planner *k = ctx;
    if (i >= k->out->n)
        return ns_fail(k->e, NS_EINVAL, "more names than the %d sizes", k->out->n);
    ns_elastic_size *s = &k->out->size[i];
    if (!*part || strlen(part) >= sizeof s->name ||
        part[strspn(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")])
        return ns_fail(k->e, NS_EINVAL, "\"%.80s\": names are letters, digits and . _ -", part);
    snprintf(s->name, sizeof s->name, "%s", part);
    return 0;
}

static int check_names(ns_elastic_planner *k)
{
    const ns_elastic_plan *p = k->out;
    for (int i = 0; i < p->n; i++)
        for (int j = 0; j < i; j++)
            if (strcasecmp(p->size[i].name, p->size[j].name) == 0)
                return ns_fail(k->e, NS_EINVAL, "two sizes are called \"%s\"", p->size[i].name);
    return 0;
}

/* What a cut costs, as a share of the parent. */
static int share_of(const ns_elastic_planner *k, const ns_cut *c, double *out)
{
    double cost;
    if (ns_budget_of_cut(&k->out->budget, c, &cost, k->e) < 0)
        return -1;
    *out = cost / k->out->budget.full;
    return 0;
}

/* ---- fixed sizes ---- */

static int add_fixed(ns_elastic_planner *k, const char *text)
{
    ns_elastic_size *s = &k->out->size[k->out->n];
    const char *eq = strchr(text, '=');
    char ignored[64];
    size_t n = eq ? (size_t)(eq - text) : strlen(text);
    if (k->out->n == NS_ELASTIC_MAX)
        return ns_fail(k->e, NS_EINVAL, "more than %d sizes", NS_ELASTIC_MAX);
    if (n == 0 || n >= sizeof s->name || (!eq && strcasecmp(text, "full") != 0))
        return ns_fail(k->e, NS_EINVAL, "\"%.60s\" is neither NAME=SIZE nor full", text);
    *s = (ns_elastic_size){ 0 };
    if (ns_ckpt_size(k->c, eq ? eq + 1 : text, &s->cut, ignored, sizeof ignored, k->e) < 0)
        return -1;
    k->out->n++;
    snprintf(s->name, sizeof s->name, "%.*s", (int)n, text);
    if (s->name[strspn(s->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")])
        return ns_fail(k->e, NS_EINVAL, "\"%s\": names are letters, digits and . _ -", s->name);
    return share_of(k, &s->cut, &s->budget);
}

static int largest_first(const void *x, const void *y)
{
    const ns_elastic_size *a = x, *b = y;
    return a->budget > b->budget ? -1 : a->budget < b->budget;
}

static int fixed_sizes(ns_elastic_planner *k)
{
    for (int i = 0; i < k->o->n_fixed; i++)
        if (add_fixed(k, k->o->fixed[i]) < 0)
            return ns_err_wrap(k->e, "--fixed %.100s", k->o->fixed[i]);
    qsort(k->out->size, (size_t)k->out->n, sizeof *k->out->size, largest_first);
    return 0;
}

/* ---- the checkpoint's own sizes ---- */

static int own_sizes(ns_elastic_planner *k)
{
    const ns_variants *v = &k->c->variants;
    if (v->n > NS_ELASTIC_MAX)
        return ns_fail(k->e, NS_EINVAL, "%s: more than %d sizes", k->c->dir, NS_ELASTIC_MAX);
    for (; k->out->n < v->n; k->out->n++) {
        ns_elastic_size *s = &k->out->size[k->out->n];
        snprintf(s->name, sizeof s->name, "%s", v->v[k->out->n].name);
        if (ns_cut_copy(&v->v[k->out->n].cut, &s->cut, k->e) < 0 || share_of(k, &s->cut, &s->budget) < 0)
            return -1;
    }
    qsort(k->out->size, (size_t)k->out->n, sizeof *k->out->size, largest_first);
    return 0;
}

/* ---- uniform sizes ---- */

static bool keeps(const ns_elastic_planner *k, int layer, int kept)
{
    for (int i = 0; i < k->n_order && i < k->a->n_layers - kept; i++)
        if (k->order[i] == layer)
            return false;
    return true;
}

static void set_ratio(const ns_elastic_planner *k, double ratio, ns_cut *c)
{
    for (int i = 0; i < k->n_axes; i++) {
        int axis = k->axis[i], w = ns_elastic_width(k, axis, ratio, true);
        if (axis != NS_ELASTIC_DEPTH)
            ns_cut_set(k->a, c, (ns_axis)axis, w);
        for (int l = 0; axis == NS_ELASTIC_DEPTH && l < k->a->n_layers; l++)
            c->layer[l].keep = keeps(k, l, w < k->a->n_layers - k->n_order ? k->a->n_layers - k->n_order : w);
    }
}

/* Cost grows with the ratio: bisection finds the widest that fits. */
static int uniform_size(ns_elastic_planner *k, ns_elastic_size *s)
{
    double low = 0, high = 1, share;
    if (ns_cut_full(k->a, &s->cut, k->e) < 0)
        return -1;
    for (int step = 0; step < 40; step++) {
        double ratio = step == 0 ? 1 : (low + high) / 2;
        set_ratio(k, ratio, &s->cut);
        if (share_of(k, &s->cut, &share) < 0)
            return -1;
        if (share > s->budget)
            high = ratio;
        else if ((low = ratio) == 1)
            break;
    }
    set_ratio(k, low, &s->cut);
    if (share_of(k, &s->cut, &share) < 0)
        return -1;
    if (share > s->budget)
        return ns_fail(k->e, NS_EINVAL, "--uniform: budget %g: the smallest widths on these axes still cost %.3f", s->budget, share);
    return 0;
}

static int uniform_sizes(ns_elastic_planner *k)
{
    if (read_budgets(k) < 0)
        return -1;
    for (int i = 0; i < k->out->n; i++)
        if (uniform_size(k, &k->out->size[i]) < 0)
            return -1;
    return 0;
}

/* ---- a router ---- */

static int make_router(ns_elastic_planner *k)
{
    ns_router_axis_spec axes[NS_ELASTIC_AXES];
    double budget[NS_ELASTIC_MAX];
    for (int i = 0; i < k->n_axes; i++) {
        int x = k->axis[i];
        axes[i] = (ns_router_axis_spec){ .axis = x == NS_ELASTIC_DEPTH ? -1 : x, .per_layer = k->hetero[x], .n_choices = k->n_choice[x],
                                         .choice = k->choice[x] };
    }
    for (int i = 0; i < k->out->n; i++)
        budget[i] = k->out->size[i].budget;
    const ns_router_spec spec = { .n_budgets = k->out->n, .budget = budget, .target = ns_budget_target_name(k->o->budget.target),
                                  .inner = k->o->inner ? k->o->inner : 256, .n_axes = k->n_axes, .axis = axes, .n_order = k->n_order,
                                  .order = k->order };
    return (k->out->router = ns_router_new(k->a, &spec, k->e)) ? 0 : -1;
}

/* The narrowest choices together must be a model, and small enough for the smallest budget. */
static int check_reach(ns_elastic_planner *k)
{
    ns_router *r = k->out->router;
    int n = 0, *pick = NULL, rc = -1;
    double share, least = k->out->size[k->out->n - 1].budget;
    ns_cut c = { 0 };
    for (int i = 0; i < r->n_axes; i++)
        n += r->axis[i].n_slots;
    if (!(pick = calloc((size_t)n, sizeof *pick)))
        return ns_fail(k->e, NS_ENOMEM, "out of memory");
    for (int i = 0, at = 0; i < r->n_axes; i++)
        for (int s = 0; s < r->axis[i].n_slots; s++)
            pick[at++] = r->axis[i].n_choices - 1;
    if (ns_router_pick_cut(k->a, r, pick, &c, k->e) < 0 || share_of(k, &c, &share) < 0)
        goto out;
    if (ns_cut_validate(k->a, &c, ns_ckpt_dtype_of, (void *)(uintptr_t)k->c, k->e) < 0) {
        ns_err_wrap(k->e, "the smallest choices together");
        goto out;
    }
    if (share > least * (1 + SLACK))
        ns_fail(k->e, NS_EINVAL, "budget %g: the smallest choices together still cost %.3f; give smaller --choices, or more --axes", least,
                share);
    else
        rc = 0;
out:
    ns_cut_release(&c);
    free(pick);
    return rc;
}

static int routed_sizes(ns_elastic_planner *k)
{
    return read_budgets(k) < 0 || ns_elastic_read_choices(k) < 0 || make_router(k) < 0 || check_reach(k) < 0 ? -1 : 0;
}

int ns_elastic_plan_decide(const ns_ckpt *c, ns_elastic_plan *p, ns_err *e)
{
    for (int i = 0; i < p->n; i++) {
        ns_elastic_size *s = &p->size[i];
        ns_cut_release(&s->cut);
        if (ns_router_cut(c->arch, p->router, s->budget, &s->cut, e) < 0 ||
            ns_cut_validate(c->arch, &s->cut, ns_ckpt_dtype_of, (void *)(uintptr_t)c, e) < 0)
            return ns_err_wrap(e, "the router's choice for the budget %g", s->budget);
    }
    return 0;
}

/* ---- how often each size is drawn ---- */

/* Stage two's published weights, .5 .3 .2, for any number of sizes: the broken line through them at 0, 1/2 and 1. */
static double falling(int i, int n)
{
    double x = n > 1 ? (double)i / (n - 1) : 0;
    return x < 0.5 ? 0.5 - 0.4 * x : 0.3 - 0.2 * (x - 0.5);
}

static int read_weights(ns_elastic_planner *k)
{
    ns_elastic_plan *p = k->out;
    double sum = 0;
    int n = p->n;
    if (k->o->weights && ns_parse_numbers(k->o->weights, p->weight[1], NS_ELASTIC_MAX, &n, k->e) < 0)
        return ns_err_wrap(k->e, "--weights");
    if (n != p->n)
        return ns_fail(k->e, NS_EINVAL, "--weights: %d for %d sizes", n, p->n);
    for (int i = 0; i < p->n; i++) {
        p->weight[0][i] = 1.0 / p->n;
        if (!k->o->weights)
            p->weight[1][i] = falling(i, p->n);
        if (!(p->weight[1][i] >= 0))
            return ns_fail(k->e, NS_EINVAL, "--weights: %g is negative", p->weight[1][i]);
        sum += p->weight[1][i];
    }
    if (!(sum > 0))
        return ns_fail(k->e, NS_EINVAL, "--weights: all are 0");
    for (int i = 0; i < p->n; i++)
        p->weight[1][i] /= sum;
    return 0;
}

static int keep_only(ns_elastic_planner *k)
{
    ns_elastic_plan *p = k->out;
    if (p->router)
        return ns_fail(k->e, NS_EINVAL, "--only: a router has no sizes yet; give them with --fixed or --uniform");
    for (int i = 0; i < p->n; i++)
        if (strcasecmp(p->size[i].name, k->o->only) == 0) {
            for (int j = 0; j < p->n; j++)
                p->weight[0][j] = p->weight[1][j] = j == i;
            return 0;
        }
    return ns_fail(k->e, NS_EINVAL, "--only: there is no size \"%.60s\"", k->o->only);
}

/* ---- */

static int check_modes(const ns_elastic_planner *k)
{
    const ns_elastic_opts *o = k->o;
    if (o->uniform && !o->budgets)
        return ns_fail(k->e, NS_EINVAL, "--uniform needs --budgets");
    if (ns_elastic_own_sizes(o) && strcmp(k->c->variants.source, "nest.json") != 0)
        return ns_fail(k->e, NS_EINVAL, "%s has no sizes of its own (nest.json): give --budgets or --fixed", k->c->dir);
    if (ns_elastic_own_sizes(o) && (o->axes || o->n_choices || o->hetero || o->names || o->depth_order))
        return ns_fail(k->e, NS_EINVAL, "without --budgets and --fixed the sizes are those of nest.json: there is no choice of axes, widths "
                       "or names");
    if (o->n_fixed && (o->uniform || o->budgets))
        return ns_fail(k->e, NS_EINVAL, "--fixed gives the sizes; --budgets and --uniform look for them");
    if ((o->n_fixed || o->uniform) && (o->n_choices || o->hetero))
        return ns_fail(k->e, NS_EINVAL, "--choices and --hetero are the router's; there is none with --fixed and --uniform");
    if (o->n_fixed && o->axes)
        return ns_fail(k->e, NS_EINVAL, "--axes has no meaning with --fixed");
    return 0;
}

static int make(ns_elastic_planner *k)
{
    const ns_elastic_opts *o = k->o;
    int rc = check_modes(k);
    if (rc == 0)
        rc = ns_budget_plan(k->a, &o->budget, &k->out->budget, k->e);
    if (rc == 0 && o->budgets)
        rc = ns_elastic_read_axes(k);
    if (rc == 0 && o->depth_order)
        rc = ns_elastic_read_order(k);
    if (rc == 0 && ns_elastic_has_axis(k, NS_ELASTIC_DEPTH) && !o->depth_order)
        rc = ns_fail(k->e, NS_EINVAL, "the axis depth needs --depth-order");
    if (rc == 0)
        rc = o->n_fixed ? fixed_sizes(k) : ns_elastic_own_sizes(o) ? own_sizes(k) : o->uniform ? uniform_sizes(k) : routed_sizes(k);
    if (rc == 0 && o->names && ns_each_part(o->names, set_name, k, k->e) < 0)
        rc = ns_err_wrap(k->e, "--names");
    if (rc == 0)
        rc = check_names(k);
    if (rc == 0)
        rc = read_weights(k);
    if (rc == 0 && o->only)
        rc = keep_only(k);
    for (int i = 0; rc == 0 && o->uniform && i < k->out->n; i++)
        rc = ns_cut_validate(k->a, &k->out->size[i].cut, ns_ckpt_dtype_of, (void *)(uintptr_t)k->c, k->e);
    return rc;
}

int ns_elastic_plan_make(const ns_ckpt *c, const ns_elastic_opts *o, ns_elastic_plan *out, ns_err *e)
{
    ns_elastic_planner *k = calloc(1, sizeof *k);
    *out = (ns_elastic_plan){ 0 };
    if (!k)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    *k = (ns_elastic_planner){ .c = c, .a = c->arch, .o = o, .out = out, .e = e };
    int rc = make(k);
    free(k->order);
    free(k);
    if (rc < 0)
        ns_elastic_plan_release(out);
    return rc;
}

void ns_elastic_plan_release(ns_elastic_plan *p)
{
    for (int i = 0; i < NS_ELASTIC_MAX; i++)
        ns_cut_release(&p->size[i].cut);
    ns_router_free(p->router);
    ns_budget_release(&p->budget);
    *p = (ns_elastic_plan){ 0 };
}
