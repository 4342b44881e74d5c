/* The text of --size. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "nest/variants.h"

/* A budget is met when the active parameters are over it by no more than this share: published budgets are rounded. */
static const double SLACK = 0.005;

/* A decimal number at *s, moved past; -1 when there is none or it does not fit. */
static int take_int(const char **s)
{
    char *end;
    if (**s < '0' || **s > '9')
        return -1;
    long v = strtol(*s, &end, 10);
    *s = end;
    return v > INT_MAX ? -1 : (int)v;
}

/* ---- names and budgets ---- */

/* "full (30B), 23B, 12B" */
static void list_names(const ns_variants *v, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < v->n && n < cap; i++) {
        const ns_variant *x = &v->v[i];
        int k = snprintf(out + n, cap - n, "%s%s%s%s%s", i ? ", " : "", x->name, x->alias ? " (" : "", x->alias ? x->alias : "",
                         x->alias ? ")" : "");
        n += k > 0 ? (size_t)k : 0;
    }
}

static int by_budget(const ns_arch *a, const ns_variants *v, double share, const ns_variant **out, ns_err *e)
{
    ns_cost full = { 0 }, c;
    double least = 2;
    *out = NULL;
    for (int i = 0; i < v->n; i++) { /* widest first: the first that fits is the largest */
        if (ns_cut_cost(a, &v->v[i].cut, NULL, NULL, &c, e) < 0)
            return -1;
        if (i == 0)
            full = c;
        double is = (double)c.params_active / (double)full.params_active;
        least = is < least ? is : least;
        if (!*out && is <= share * (1 + SLACK))
            *out = &v->v[i];
    }
    return *out ? 0 : ns_fail(e, NS_EINVAL, "no size is that small: the smallest has %.3f of the active parameters", least);
}

/* ---- explicit cuts ---- */

/* "0-9+12-51" */
static int set_layers(ns_cut *c, const char *s, ns_err *e)
{
    for (int i = 0; i < c->n_layers; i++)
        c->layer[i].keep = false;
    for (;; s++) {
        int from = take_int(&s), to = from;
        if (from >= 0 && *s == '-') {
            s++;
            to = take_int(&s);
        }
        if (from < 0 || to < from || to >= c->n_layers || (*s && *s != '+'))
            return ns_fail(e, NS_EINVAL, "layers: expected numbers and ranges in 0..%d, as in \"0-9+12\"", c->n_layers - 1);
        for (int i = from; i <= to; i++)
            c->layer[i].keep = true;
        if (!*s)
            return 0;
    }
}

/* "expert_ffn@3": the axis and its layer, -1 where none is named. */
static int parse_key(const ns_arch *a, const char *key, int *axis, int *layer, ns_err *e)
{
    char name[32];
    size_t n = strcspn(key, "@");
    snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : 0, key);
    *axis = ns_axis_find(name);
    *layer = -1;
    if (*axis < 0)
        return ns_fail(e, NS_EINVAL, "unknown axis \"%.40s\"", key);
    if (!key[n])
        return 0;
    const char *s = key + n + 1;
    *layer = take_int(&s);
    if (*layer < 0 || *layer >= a->n_layers || *s)
        return ns_fail(e, NS_EINVAL, "\"%.40s\": expected a layer in 0..%d behind \"@\"", key, a->n_layers - 1);
    if (*axis == NS_AXIS_HIDDEN)
        return ns_fail(e, NS_EINVAL, "hidden is one width for the whole model");
    if (a->layers[*layer].width[*axis] == 0)
        return ns_fail(e, NS_EINVAL, "layer %d has no %s", *layer, name);
    return 0;
}

/* One "key=value". Single layers are set in a second round, so that the order of the pairs does not matter. */
static int set_pair(const ns_arch *a, ns_cut *c, char *pair, int round, unsigned *seen, ns_err *e)
{
    char *value = strchr(pair, '=');
    int axis, layer;
    if (!value || value == pair)
        return ns_fail(e, NS_EINVAL, "\"%.60s\" is not axis=width", pair);
    *value++ = 0;
    if (strcmp(pair, "layers") == 0)
        return round == 0 ? set_layers(c, value, e) : 0;
    const char *s = value;
    int width = take_int(&s);
    if (parse_key(a, pair, &axis, &layer, e) < 0)
        return -1;
    if (width < 1 || *s)
        return ns_fail(e, NS_EINVAL, "%s: \"%.20s\" is not a width", pair, value);
    if ((layer >= 0) != (round == 1))
        return 0;
    if (layer >= 0) {
        c->layer[layer].width[axis] = width;
        return 0;
    }
    if (*seen & 1u << axis)
        return ns_fail(e, NS_EINVAL, "%s is set twice", pair);
    *seen |= 1u << axis;
    if (!ns_cut_set(a, c, (ns_axis)axis, width))
        return ns_fail(e, NS_EINVAL, "no layer of this model has %s", pair);
    return 0;
}

static int explicit_cut(const ns_arch *a, const char *text, ns_cut *out, ns_err *e)
{
    unsigned seen = 0;
    int rc = 0;
    for (int round = 0; round < 2 && rc == 0; round++) {
        char *copy = strdup(text), *rest = copy;
        if (!copy)
            return ns_fail(e, NS_ENOMEM, "out of memory");
        for (char *pair; rc == 0 && (pair = strsep(&rest, ","));)
            rc = set_pair(a, out, pair, round, &seen, e);
        free(copy);
    }
    return rc;
}

/* ---- */

/* The cost of a cut as a share of the full model's, in what the router counts; 0 for memory, which depends on more than the cut. */
static int share_of(const ns_arch *a, const ns_variants *v, const ns_cut *cut, double *out, ns_err *e)
{
    const bool total = strcmp(v->router->target, "total") == 0;
    ns_cost c, full;
    *out = 0;
    if (strcmp(v->router->target, "memory") == 0)
        return 0;
    if (ns_cut_cost(a, cut, NULL, NULL, &c, e) < 0 || ns_cut_cost(a, &v->v[0].cut, NULL, NULL, &full, e) < 0)
        return -1;
    *out = total ? (double)c.params_total / (double)full.params_total : (double)c.params_active / (double)full.params_active;
    return 0;
}

static bool is_trained(const ns_router *r, double share)
{
    for (int i = 0; i < r->n_budgets; i++)
        if (r->budget[i] == share)
            return true;
    return false;
}

/* What the router gives for a budget; the name is a variant's where it is the same cut. *found: is it a trained budget's size, or within
 * the budget by the 5 % that routers are trained to? One far from the trained ones is answered with the nearest, which may cost more. */
static int routed(const ns_arch *a, const ns_variants *v, double share, ns_cut *out, const char **name, bool *found, ns_err *e)
{
    double is;
    if (ns_router_cut(a, v->router, share, out, e) < 0 || share_of(a, v, out, &is, e) < 0)
        return -1;
    *found = is <= share * 1.05 || is_trained(v->router, share);
    if (!*found) {
        ns_cut_release(out);
        *out = (ns_cut){ 0 };
        return 0;
    }
    for (int i = v->n - 1; i >= 0; i--)
        if (ns_cut_equal(&v->v[i].cut, out))
            *name = v->v[i].name;
    return 0;
}

static int named(const ns_arch *a, const ns_variants *v, const char *text, ns_cut *out, const char **name, ns_err *e)
{
    const ns_variant *found = ns_variants_find(v, text);
    char *end, names[600];
    double share = strtod(text, &end);
    bool is_share = !found && *text && !*end;
    if (is_share && !(share > 0 && share <= 1))
        return ns_fail(e, NS_EINVAL, "a budget is a share of the full model's cost, over 0 and up to 1");
    if (is_share && v->router && v->router->has_weights) {
        bool within = false;
        if (routed(a, v, share, out, name, &within, e) < 0)
            return -1;
        if (within)
            return 0;
    }
    if (is_share && by_budget(a, v, share, &found, e) < 0)
        return -1;
    if (!found) {
        list_names(v, names, sizeof names);
        return ns_fail(e, NS_EINVAL, "no such variant; this checkpoint has %s", names);
    }
    *name = found->alias && strcasecmp(found->alias, text) == 0 ? found->alias : found->name;
    return ns_cut_copy(&found->cut, out, e);
}

int ns_size_parse(const ns_arch *a, const ns_variants *v, const char *text, ns_cut *out, char *name, size_t cap, ns_err *e)
{
    const char *called = text;
    int rc;
    *out = (ns_cut){ 0 };
    if (strchr(text, '='))
        rc = ns_cut_full(a, out, e) < 0 ? -1 : explicit_cut(a, text, out, e);
    else
        rc = named(a, v, text, out, &called, e);
    if (rc < 0) {
        ns_cut_release(out);
        return ns_err_wrap(e, "--size %.100s", text);
    }
    snprintf(name, cap, "%s", called);
    return 0;
}
