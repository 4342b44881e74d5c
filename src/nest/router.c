#include "nest/router.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_COUNT = 1 << 22 }; /* weights; a hundred times the published router's */
static const double SLOPE = 0.1; /* of the leaky ReLU */

static int oom(ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "out of memory");
}

const char *ns_router_axis_name(const ns_router_axis *x)
{
    return x->depth ? "depth" : ns_axis_name(x->axis);
}

void ns_router_free(ns_router *r)
{
    if (!r)
        return;
    ns_arena_release(&r->arena);
    free(r);
}

/* ---- building ---- */

/* The one full width of an axis. Models whose layers differ have none: a list of choices could not begin with it. */
static int full_width(const ns_arch *a, const ns_router_axis *x, ns_err *e)
{
    int full = 0;
    if (x->depth)
        return a->n_layers;
    for (int i = 0; i < a->n_layers; i++) {
        int w = a->layers[i].width[x->axis];
        if (w > 0 && full > 0 && w != full)
            return ns_fail(e, NS_EUNSUPPORTED, "layers of this model have different widths (%d and %d)", full, w);
        full = w > 0 ? w : full;
    }
    return full > 0 ? full : ns_fail(e, NS_EINVAL, "no layer of this model has that axis");
}

static int check_choice(const ns_arch *a, const ns_router_axis *x, int width, ns_err *e)
{
    ns_cut c;
    if (x->depth)
        return width >= 1 ? 0 : ns_fail(e, NS_EINVAL, "%d layers are no model", width);
    if (ns_cut_full(a, &c, e) < 0)
        return -1;
    ns_cut_set(a, &c, x->axis, width);
    int rc = ns_cut_validate(a, &c, NULL, NULL, e);
    ns_cut_release(&c);
    return rc;
}

static int set_choices(const ns_arch *a, const ns_router_axis_spec *s, ns_router_axis *x, ns_err *e)
{
    int full = full_width(a, x, e);
    if (full < 0)
        return -1;
    if (s->n_choices < 1 || s->n_choices > NS_ROUTER_MAX_CHOICES)
        return ns_fail(e, NS_EINVAL, "%d choices; 1 to %d are possible", s->n_choices, NS_ROUTER_MAX_CHOICES);
    if (s->choice[0] != full)
        return ns_fail(e, NS_EINVAL, "the first choice is %d, but must be the full width, %d", s->choice[0], full);
    for (int k = 0; k < s->n_choices; k++) {
        if (k > 0 && s->choice[k] >= s->choice[k - 1])
            return ns_fail(e, NS_EINVAL, "choices must descend, but %d follows %d", s->choice[k], s->choice[k - 1]);
        if (check_choice(a, x, s->choice[k], e) < 0)
            return -1;
        x->choice[k] = s->choice[k];
    }
    x->n_choices = s->n_choices;
    return 0;
}

static int set_axis(const ns_arch *a, const ns_router_axis_spec *s, ns_router *r, ns_router_axis *x, ns_err *e)
{
    x->depth = s->axis < 0;
    x->axis = x->depth ? NS_AXIS_FIXED : (ns_axis)s->axis;
    x->per_layer = s->per_layer;
    x->choice = ns_arena_array(&r->arena, NS_ROUTER_MAX_CHOICES, sizeof *x->choice);
    x->slot = ns_arena_array(&r->arena, (size_t)a->n_layers, sizeof *x->slot);
    if (!x->choice || !x->slot)
        return oom(e);
    for (const ns_router_axis *y = r->axis; y < x; y++)
        if (y->depth == x->depth && y->axis == x->axis)
            return ns_fail(e, NS_EINVAL, "the axis stands there twice");
    if (x->per_layer && (x->depth || x->axis == NS_AXIS_HIDDEN))
        return ns_fail(e, NS_EINVAL, "it is one choice for the whole model, not one per layer");
    if (set_choices(a, s, x, e) < 0)
        return -1;
    x->n_slots = x->per_layer ? 0 : 1;
    for (int i = 0; i < a->n_layers; i++) {
        bool has = x->depth || a->layers[i].width[x->axis] > 0;
        x->slot[i] = !has ? -1 : x->per_layer ? x->n_slots++ : 0;
    }
    x->fc1 = r->count;
    x->fc2 = x->fc1 + (size_t)r->inner * (size_t)r->n_budgets;
    x->out = r->n_out;
    r->n_out += (size_t)x->n_slots * (size_t)x->n_choices;
    r->count = x->fc2 + (size_t)x->n_slots * (size_t)x->n_choices * (size_t)r->inner;
    return 0;
}

static int set_budgets(const ns_router_spec *s, ns_router *r, ns_err *e)
{
    if (s->n_budgets < 1 || s->n_budgets > NS_ROUTER_MAX_BUDGETS)
        return ns_fail(e, NS_EINVAL, "budgets: %d; 1 to %d are possible", s->n_budgets, NS_ROUTER_MAX_BUDGETS);
    if (!(r->budget = ns_arena_array(&r->arena, (size_t)s->n_budgets, sizeof *r->budget)))
        return oom(e);
    for (int i = 0; i < s->n_budgets; i++) {
        if (!(s->budget[i] > 0 && s->budget[i] <= 1))
            return ns_fail(e, NS_EINVAL, "budgets: %g is not a share over 0 and up to 1", s->budget[i]);
        if (i > 0 && !(s->budget[i] < s->budget[i - 1]))
            return ns_fail(e, NS_EINVAL, "budgets: they must descend, but %g follows %g", s->budget[i], s->budget[i - 1]);
        r->budget[i] = s->budget[i];
    }
    r->n_budgets = s->n_budgets;
    return 0;
}

static int set_order(const ns_router_spec *s, ns_router *r, ns_err *e)
{
    int fewest = r->n_layers;
    if (!(r->drop_rank = ns_arena_array(&r->arena, (size_t)r->n_layers, sizeof *r->drop_rank)))
        return oom(e);
    for (int i = 0; i < r->n_layers; i++)
        r->drop_rank[i] = r->n_layers;
    for (int i = 0; i < s->n_order; i++) {
        int l = s->order[i];
        if (l < 0 || l >= r->n_layers)
            return ns_fail(e, NS_EINVAL, "order: %d is not a layer in 0..%d", l, r->n_layers - 1);
        if (r->drop_rank[l] != r->n_layers)
            return ns_fail(e, NS_EINVAL, "order: layer %d stands there twice", l);
        r->drop_rank[l] = i;
    }
    for (int k = 0; k < r->n_axes; k++)
        if (r->axis[k].depth)
            fewest = r->axis[k].choice[r->axis[k].n_choices - 1];
    if (s->n_order < r->n_layers - fewest)
        return ns_fail(e, NS_EINVAL, "order: it names %d layers, but depth leaves out up to %d", s->n_order, r->n_layers - fewest);
    return 0;
}

static int build(const ns_arch *a, const ns_router_spec *s, ns_router *r, ns_err *e)
{
    if (s->inner < 1 || s->inner > NS_ROUTER_MAX_INNER)
        return ns_fail(e, NS_EINVAL, "inner: %d is outside 1..%d", s->inner, NS_ROUTER_MAX_INNER);
    if (s->n_axes < 1 || s->n_axes > NS_AXIS_COUNT + 1)
        return ns_fail(e, NS_EINVAL, "axes: there are %d; 1 to %d are possible", s->n_axes, NS_AXIS_COUNT + 1);
    r->n_layers = a->n_layers;
    r->inner = s->inner;
    snprintf(r->target, sizeof r->target, "%s", s->target ? s->target : "active");
    if (strcmp(r->target, "active") != 0 && strcmp(r->target, "total") != 0 && strcmp(r->target, "memory") != 0)
        return ns_fail(e, NS_EINVAL, "target: \"%s\" is none of active, total and memory", r->target);
    if (!(r->axis = ns_arena_array(&r->arena, (size_t)s->n_axes, sizeof *r->axis)))
        return oom(e);
    if (set_budgets(s, r, e) < 0)
        return -1;
    for (int k = 0; k < s->n_axes; k++, r->n_axes++)
        if (set_axis(a, &s->axis[k], r, &r->axis[k], e) < 0)
            return ns_err_wrap(e, "axis \"%s\"", s->axis[k].axis < 0 ? "depth" : ns_axis_name((ns_axis)s->axis[k].axis));
    if (set_order(s, r, e) < 0)
        return -1;
    if (r->count > MAX_COUNT)
        return ns_fail(e, NS_EINVAL, "axes: %zu weights; at most %d are possible", r->count, MAX_COUNT);
    return (r->w = ns_arena_array(&r->arena, r->count, sizeof *r->w)) ? 0 : oom(e);
}

ns_router *ns_router_new(const ns_arch *a, const ns_router_spec *spec, ns_err *e)
{
    ns_router *r = calloc(1, sizeof *r);
    if (!r) {
        oom(e);
        return NULL;
    }
    if (build(a, spec, r, e) == 0)
        return r;
    ns_router_free(r);
    return NULL;
}

/* ---- using it ---- */

bool ns_router_keeps(const ns_router *r, int layer, int kept)
{
    return r->drop_rank[layer] >= r->n_layers - kept;
}

void ns_router_input(const ns_router *r, double budget, double *x)
{
    const double *b = r->budget;
    int n = r->n_budgets, i = 0;
    memset(x, 0, (size_t)n * sizeof *x);
    while (i < n - 1 && budget < b[i])
        i++;
    if (i == 0 || budget <= b[i]) { /* at or above the largest, at a trained one, or at or below the smallest */
        x[i] = 1;
        return;
    }
    double t = (b[i - 1] - budget) / (b[i - 1] - b[i]);
    x[i - 1] = 1 - t;
    x[i] = t;
}

double ns_router_leaky_slope(double h)
{
    return h > 0 ? 1 : SLOPE;
}

double ns_router_leaky(double h)
{
    return h * ns_router_leaky_slope(h);
}

void ns_router_axis_forward(const ns_router *r, const ns_router_axis *x, const double *input, double *h, double *logits)
{
    const double *fc1 = r->w + x->fc1, *fc2 = r->w + x->fc2;
    for (int j = 0; j < r->inner; j++) {
        h[j] = 0;
        for (int i = 0; i < r->n_budgets; i++)
            h[j] += fc1[j * r->n_budgets + i] * input[i];
    }
    for (int k = 0; k < x->n_slots * x->n_choices; k++) {
        logits[k] = 0;
        for (int j = 0; j < r->inner; j++)
            logits[k] += fc2[(size_t)k * (size_t)r->inner + (size_t)j] * ns_router_leaky(h[j]);
    }
}

int ns_router_pick_cut(const ns_arch *a, const ns_router *r, const int *pick, ns_cut *out, ns_err *e)
{
    if (ns_cut_full(a, out, e) < 0)
        return -1;
    for (const ns_router_axis *x = r->axis; x < r->axis + r->n_axes; pick += x++->n_slots)
        for (int i = 0; i < a->n_layers; i++) {
            if (x->slot[i] < 0)
                continue;
            int choice = x->choice[pick[x->slot[i]]];
            if (x->depth)
                out->layer[i].keep = ns_router_keeps(r, i, choice);
            else
                out->layer[i].width[x->axis] = choice;
        }
    return 0;
}

int ns_router_cut(const ns_arch *a, const ns_router *r, double budget, ns_cut *out, ns_err *e)
{
    int n_slots = 0, *pick, at = 0;
    double *x = malloc(((size_t)r->n_budgets + (size_t)r->inner + r->n_out) * sizeof *x);
    for (int k = 0; k < r->n_axes; k++)
        n_slots += r->axis[k].n_slots;
    pick = calloc((size_t)n_slots, sizeof *pick);
    *out = (ns_cut){ 0 };
    int rc = x && pick ? 0 : oom(e);
    if (rc == 0) {
        ns_router_input(r, budget, x);
        for (const ns_router_axis *ax = r->axis; ax < r->axis + r->n_axes; ax++) {
            double *h = x + r->n_budgets, *logits = h + r->inner + ax->out;
            ns_router_axis_forward(r, ax, x, h, logits);
            for (int s = 0; s < ax->n_slots; s++, at++, logits += ax->n_choices)
                for (int c = 1; c < ax->n_choices; c++)
                    if (logits[c] > logits[pick[at]])
                        pick[at] = c;
        }
        rc = ns_router_pick_cut(a, r, pick, out, e);
    }
    free(x);
    free(pick);
    return rc;
}
