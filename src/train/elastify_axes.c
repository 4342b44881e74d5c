/* The axes on which sizes differ, and the widths to choose from: text of options to numbers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/elastify_impl.h"

/* The published choices: shares of the parent's width. */
static const double ffn_shares[] = { 1, 0.71429, 0.51725 }, other_shares[] = { 1, 0.75, 0.5 }, depth_shares[] = { 1, 0.9, 0.8 };

static int full_width(const ns_arch *a, int axis)
{
    int full = 0;
    if (axis == NS_ELASTIC_DEPTH)
        return a->n_layers;
    for (int i = 0; i < a->n_layers; i++)
        full = a->layers[i].width[axis] > full ? a->layers[i].width[axis] : full;
    return full;
}

/* ---- lists ---- */

int ns_each_part(const char *text, ns_part_fn *fn, void *ctx, ns_err *e)
{
    char *copy = strdup(text), *rest = copy, *part;
    int rc = copy ? 0 : ns_fail(e, NS_ENOMEM, "out of memory");
    for (int i = 0; rc == 0 && (part = strsep(&rest, ",")); i++)
        rc = fn(ctx, part, i);
    free(copy);
    return rc;
}

typedef struct numbers {
    double *out;
    int n, cap;
    ns_err *e;
} numbers;

static int add_number(void *ctx, const char *part, int i)
{
    numbers *k = ctx;
    char *end;
    double v = strtod(part, &end);
    if (end == part || *end || !isfinite(v))
        return ns_fail(k->e, NS_EINVAL, "\"%.40s\" is not a number", part);
    if (i == k->cap)
        return ns_fail(k->e, NS_EINVAL, "more than %d entries", k->cap);
    k->out[i] = v;
    k->n = i + 1;
    return 0;
}

int ns_parse_numbers(const char *text, double *out, int cap, int *n, ns_err *e)
{
    numbers k = { out, 0, cap, e };
    int rc = ns_each_part(text, add_number, &k, e);
    *n = k.n;
    return rc;
}

/* ---- axes ---- */

static int find_axis(ns_elastic_planner *k, const char *name, int *axis)
{
    *axis = strcmp(name, "depth") == 0 ? NS_ELASTIC_DEPTH : ns_axis_find(name);
    if (*axis < 0)
        return ns_fail(k->e, NS_EINVAL, "unknown axis \"%.40s\"", name);
    if (full_width(k->a, *axis) == 0)
        return ns_fail(k->e, NS_EINVAL, "no layer of this model has %s", name);
    return 0;
}

static int add_axis(void *ctx, const char *part, int i)
{
    ns_elastic_planner *k = ctx;
    int axis;
    if (find_axis(k, part, &axis) < 0)
        return -1;
    for (int j = 0; j < i; j++)
        if (k->axis[j] == axis)
            return ns_fail(k->e, NS_EINVAL, "%s stands there twice", part);
    k->axis[i] = axis;
    k->n_axes = i + 1;
    return 0;
}

bool ns_elastic_has_axis(const ns_elastic_planner *k, int axis)
{
    for (int i = 0; i < k->n_axes; i++)
        if (k->axis[i] == axis)
            return true;
    return false;
}

static int add_hetero(void *ctx, const char *part, int i)
{
    ns_elastic_planner *k = ctx;
    int axis;
    (void)i;
    if (find_axis(k, part, &axis) < 0)
        return -1;
    if (!ns_elastic_has_axis(k, axis))
        return ns_fail(k->e, NS_EINVAL, "%s is not among the axes", part);
    k->hetero[axis] = true;
    return 0;
}

int ns_elastic_read_axes(ns_elastic_planner *k)
{
    static const int usual[] = { NS_AXIS_HIDDEN, NS_AXIS_EXPERT_FFN, NS_AXIS_DENSE_FFN };
    if (k->o->axes && ns_each_part(k->o->axes, add_axis, k, k->e) < 0)
        return ns_err_wrap(k->e, "--axes");
    for (int i = 0; !k->o->axes && i < 3; i++)
        if (full_width(k->a, usual[i]) > 0)
            k->axis[k->n_axes++] = usual[i];
    if (k->o->hetero && ns_each_part(k->o->hetero, add_hetero, k, k->e) < 0)
        return ns_err_wrap(k->e, "--hetero");
    return 0;
}

/* ---- the order in which layers go ---- */

/* Layer numbers as F32. */
static int order_from_file(ns_elastic_planner *k, double *out, int *n)
{
    ns_store *st = ns_store_open(k->o->depth_order, NS_LOAD_MMAP, k->e);
    const ns_tensor *t = st ? ns_store_get(st, "depth.order", k->e) : NULL;
    int rc = t ? 0 : -1;
    if (t && (t->dtype != NS_F32 || t->n_dims != 1 || t->shape[0] > k->a->n_layers))
        rc = ns_fail(k->e, NS_EFORMAT, "%s: tensor depth.order: expected F32 [%d]", k->o->depth_order, k->a->n_layers);
    for (int64_t i = 0; rc == 0 && i < t->shape[0]; i++) {
        float v;
        memcpy(&v, t->data + (size_t)i * sizeof v, sizeof v);
        out[i] = (double)v;
        *n = (int)i + 1;
    }
    ns_store_close(st);
    return rc;
}

int ns_elastic_read_order(ns_elastic_planner *k)
{
    const char *text = k->o->depth_order;
    double *v = calloc((size_t)k->a->n_layers, sizeof *v);
    k->order = calloc((size_t)k->a->n_layers, sizeof *k->order);
    int rc = v && k->order ? 0 : ns_fail(k->e, NS_ENOMEM, "out of memory");
    if (rc == 0 && strspn(text, "0123456789,") == strlen(text))
        rc = ns_parse_numbers(text, v, k->a->n_layers, &k->n_order, k->e);
    else if (rc == 0)
        rc = order_from_file(k, v, &k->n_order);
    for (int i = 0; rc == 0 && i < k->n_order; i++) {
        if (!(v[i] >= 0 && v[i] < k->a->n_layers && v[i] == floor(v[i])))
            rc = ns_fail(k->e, NS_EINVAL, "%g is not a layer in 0..%d", v[i], k->a->n_layers - 1);
        else
            k->order[i] = (int)v[i];
        for (int j = 0; rc == 0 && j < i; j++)
            if (k->order[j] == k->order[i])
                rc = ns_fail(k->e, NS_EINVAL, "layer %d stands there twice", k->order[i]);
    }
    free(v);
    return rc == 0 ? 0 : ns_err_wrap(k->e, "--depth-order");
}

/* ---- widths ---- */

/* Multiples in which widths from shares come: groups, and --round where every stored block then stays whole. */
static int step_of(const ns_elastic_planner *k, int axis)
{
    int full = full_width(k->a, axis), round = k->o->round ? k->o->round : 16;
    bool plain = axis == NS_AXIS_HIDDEN || axis == NS_AXIS_EXPERT_FFN || axis == NS_AXIS_SHARED_FFN || axis == NS_AXIS_DENSE_FFN ||
                 axis == NS_AXIS_MAMBA_HEAD_DIM;
    return plain && full % round == 0 ? round : axis == NS_ELASTIC_DEPTH ? 1 : ns_cut_step(k->a, (ns_axis)axis);
}

/* The fewest experts that the router can pick from; one step elsewhere. */
static int least_width(const ns_elastic_planner *k, int axis)
{
    int step = step_of(k, axis), least = step;
    for (int i = 0; axis == NS_AXIS_EXPERTS && i < k->a->n_layers; i++) {
        int topk = k->a->layers[i].topk, groups = k->a->n_group, each = (topk + k->a->topk_group - 1) / k->a->topk_group;
        each = groups > 1 && each < 2 ? 2 : each;
        least = each * groups > least ? each * groups : least;
    }
    return least;
}

/* A legal width near share x full: `down` never over it. */
int ns_elastic_width(const ns_elastic_planner *k, int axis, double share, bool down)
{
    int full = full_width(k->a, axis), step = step_of(k, axis), least = least_width(k, axis);
    double steps = share * full / step + 1e-9;
    int w = step * (int)(down ? floor(steps) : floor(steps + 0.5));
    return w < least ? least : w > full ? full : w;
}

static int set_choices(ns_elastic_planner *k, int axis, const double *v, int n)
{
    int *out = k->choice[axis];
    for (int i = 0; i < n; i++) {
        if (!(v[i] > 0 && v[i] <= full_width(k->a, axis)) || (v[i] > 1 && v[i] != floor(v[i])))
            return ns_fail(k->e, NS_EINVAL, "%g is neither a share up to 1 nor a width in 2..%d", v[i], full_width(k->a, axis));
        out[i] = v[i] > 1 ? (int)v[i] : ns_elastic_width(k, axis, v[i], false);
        if (i > 0 && out[i] >= out[i - 1])
            return ns_fail(k->e, NS_EINVAL, "choices must descend, but %g gives the width %d behind %d", v[i], out[i], out[i - 1]);
    }
    k->n_choice[axis] = n;
    return 0;
}

static int read_choice(ns_elastic_planner *k, const char *text)
{
    double v[NS_ROUTER_MAX_CHOICES];
    char name[32];
    int axis, n;
    const char *list = strchr(text, '=');
    if (!list || (size_t)(list - text) >= sizeof name)
        return ns_fail(k->e, NS_EINVAL, "\"%.60s\" is not AXIS=SHARE,..", text);
    snprintf(name, sizeof name, "%.*s", (int)(list - text), text);
    if (find_axis(k, name, &axis) < 0 || ns_parse_numbers(list + 1, v, NS_ROUTER_MAX_CHOICES, &n, k->e) < 0)
        return -1;
    if (!ns_elastic_has_axis(k, axis))
        return ns_fail(k->e, NS_EINVAL, "%s is not among the axes", name);
    return set_choices(k, axis, v, n);
}

/* The usual shares where none are given; of those that round to the same width the first. */
static void usual_choices(ns_elastic_planner *k, int axis)
{
    bool ffn = axis == NS_AXIS_HIDDEN || axis == NS_AXIS_EXPERT_FFN || axis == NS_AXIS_SHARED_FFN || axis == NS_AXIS_DENSE_FFN;
    const double *s = axis == NS_ELASTIC_DEPTH ? depth_shares : ffn ? ffn_shares : other_shares;
    int n = 0;
    for (int i = 0; i < 3; i++) {
        int w = ns_elastic_width(k, axis, s[i], false);
        if (n == 0 || w < k->choice[axis][n - 1])
            k->choice[axis][n++] = w;
    }
    k->n_choice[axis] = n;
}

int ns_elastic_read_choices(ns_elastic_planner *k)
{
    for (int i = 0; i < k->o->n_choices; i++)
        if (read_choice(k, k->o->choices[i]) < 0)
            return ns_err_wrap(k->e, "--choices %.100s", k->o->choices[i]);
    for (int i = 0; i < k->n_axes; i++)
        if (k->n_choice[k->axis[i]] == 0)
            usual_choices(k, k->axis[i]);
    return 0;
}
