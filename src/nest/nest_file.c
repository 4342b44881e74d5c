/* nest.json: docs/NEST.md has the format. */
#include <stdlib.h>
#include <string.h>

#include "nest/variants_impl.h"

enum { NEST_VERSION = 1, MAX_VARIANTS = 64, MAX_NAME = 64 };

int ns_nest_check_keys(const json_t *obj, const char *const *known, ns_err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(obj))
        return ns_fail(e, NS_EFORMAT, "expected an object");
    json_object_foreach((json_t *)(uintptr_t)obj, key, v) {
        int i = 0;
        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        if (!known[i])
            return ns_fail(e, NS_EFORMAT, "unknown key \"%.60s\"", key);
    }
    return 0;
}

static int read_layers(const json_t *list, ns_cut *cut, ns_err *e)
{
    size_t i;
    const json_t *v;
    if (!json_is_array(list))
        return ns_fail(e, NS_EFORMAT, "key \"layers\": expected a list of layer numbers");
    for (int k = 0; k < cut->n_layers; k++)
        cut->layer[k].keep = false;
    json_array_foreach(list, i, v) {
        json_int_t k = json_integer_value(v);
        if (!json_is_integer(v) || k < 0 || k >= cut->n_layers)
            return ns_fail(e, NS_EFORMAT, "key \"layers\": entry %zu is not a layer in 0..%d", i, cut->n_layers - 1);
        if (cut->layer[k].keep)
            return ns_fail(e, NS_EFORMAT, "key \"layers\": layer %d stands there twice", (int)k);
        cut->layer[k].keep = true;
    }
    return 0;
}

static int count_layers(const ns_arch *a, ns_axis axis)
{
    int n = 0;
    for (int i = 0; i < a->n_layers; i++)
        n += a->layers[i].width[axis] > 0;
    return n;
}

/* One width for all layers that have the axis, or a list with one width for each of them. */
static int read_axis(const ns_arch *a, ns_axis axis, const json_t *v, ns_cut *cut, ns_err *e)
{
    int n = count_layers(a, axis), at = 0;
    bool list = json_is_array(v) && axis != NS_AXIS_HIDDEN;
    if (n == 0)
        return ns_fail(e, NS_EFORMAT, "key \"%s\": no layer of this model has that axis", ns_axis_name(axis));
    if (list && json_array_size(v) != (size_t)n)
        return ns_fail(e, NS_EFORMAT, "key \"%s\": %zu widths for the %d layers that have the axis", ns_axis_name(axis),
                       json_array_size(v), n);
    for (int i = 0; i < a->n_layers; i++) {
        int full = a->layers[i].width[axis];
        const json_t *w = list ? json_array_get(v, (size_t)at) : v;
        if (full == 0)
            continue;
        at++;
        if (!json_is_integer(w) || json_integer_value(w) < 1 || json_integer_value(w) > full)
            return ns_fail(e, NS_EFORMAT, "key \"%s\": layer %d: expected a width in 1..%d", ns_axis_name(axis), i, full);
        cut->layer[i].width[axis] = (int)json_integer_value(w);
    }
    return 0;
}

static int read_cut(const ns_arch *a, const json_t *obj, ns_cut *cut, ns_err *e)
{
    const char *key;
    json_t *v;
    if (ns_cut_full(a, cut, e) < 0)
        return -1;
    if (!obj || json_is_null(obj))
        return 0;
    if (!json_is_object(obj))
        return ns_fail(e, NS_EFORMAT, "key \"cut\": expected an object");
    json_object_foreach((json_t *)(uintptr_t)obj, key, v) {
        int axis = ns_axis_find(key), rc;
        if (strcmp(key, "layers") == 0)
            rc = read_layers(v, cut, e);
        else if (axis >= 0)
            rc = read_axis(a, (ns_axis)axis, v, cut, e);
        else
            rc = ns_fail(e, NS_EFORMAT, "key \"cut\": unknown axis \"%.60s\"", key);
        if (rc < 0)
            return -1;
    }
    return ns_cut_validate(a, cut, NULL, NULL, e);
}

/* A name must be usable as --size and as a model name in a URL or on a command line. */
static int check_name(const ns_variants *v, const char *name, ns_err *e)
{
    if (!name || !*name || strlen(name) >= MAX_NAME)
        return ns_fail(e, NS_EFORMAT, "key \"name\": expected 1 to %d characters", MAX_NAME - 1);
    for (const char *p = name; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *p))
            return ns_fail(e, NS_EFORMAT, "key \"name\": only letters, digits and . _ - are allowed");
    if (ns_variants_find(v, name))
        return ns_fail(e, NS_EFORMAT, "variant \"%s\": the name stands there twice", name);
    return 0;
}

/* Counts of parameters are optional, but a file that states others than there are was made for another model. */
static int check_params(const ns_arch *a, const json_t *obj, const ns_cut *cut, ns_err *e)
{
    ns_cost c;
    int64_t total, active;
    if (ns_cut_cost(a, cut, NULL, NULL, &c, e) < 0 ||
        ns_json_int(obj, "params_total", 0, INT64_MAX, c.params_total, &total, e) < 0 ||
        ns_json_int(obj, "params_active", 0, INT64_MAX, c.params_active, &active, e) < 0)
        return -1;
    if (total != c.params_total)
        return ns_fail(e, NS_EFORMAT, "key \"params_total\": %lld, but the cut has %lld", (long long)total, (long long)c.params_total);
    if (active != c.params_active)
        return ns_fail(e, NS_EFORMAT, "key \"params_active\": %lld, but the cut has %lld", (long long)active, (long long)c.params_active);
    return 0;
}

static int read_variant(const ns_arch *a, const json_t *obj, ns_variants *out, ns_err *e)
{
    static const char *const known[] = { "name", "budget", "cut", "params_total", "params_active", "note", NULL };
    ns_variant v = { 0 };
    const char *name, *note;
    if (ns_nest_check_keys(obj, known, e) < 0 || ns_json_str(obj, "name", NULL, &name, e) < 0 ||
        ns_json_str(obj, "note", "", &note, e) < 0 || check_name(out, name, e) < 0)
        return -1;
    if (ns_json_real(obj, "budget", 0, &v.budget, e) < 0 || read_cut(a, json_object_get(obj, "cut"), &v.cut, e) < 0 ||
        check_params(a, obj, &v.cut, e) < 0)
        goto fail;
    if (!(v.budget >= 0 && v.budget <= 1)) {
        ns_fail(e, NS_EFORMAT, "key \"budget\": %g is not a share of 1", v.budget);
        goto fail;
    }
    v.name = strdup(name);
    if (!v.name) {
        ns_fail(e, NS_ENOMEM, "out of memory");
        goto fail;
    }
    return ns_variants_append(out, &v, e);
fail:
    ns_variant_release(&v);
    return ns_err_wrap(e, "variant \"%s\"", name);
}

static int read_handover(const json_t *v, enum ns_handover *out, ns_err *e)
{
    const char *text = json_string_value(v);
    if (!v)
        return 0;
    if (!text || (strcmp(text, "cache") != 0 && strcmp(text, "prefill") != 0))
        return ns_fail(e, NS_EFORMAT, "key \"handover\": expected \"cache\" or \"prefill\"");
    *out = strcmp(text, "cache") == 0 ? NS_HANDOVER_CACHE : NS_HANDOVER_PREFILL;
    return 0;
}

int ns_nest_read(const ns_arch *a, const json_t *nest, ns_variants *out, ns_err *e)
{
    static const char *const known[] = { "version", "variants", "handover", "router", "note", NULL };
    const json_t *list = json_object_get(nest, "variants"), *router = json_object_get(nest, "router"), *v;
    int64_t version;
    size_t i;
    if (ns_nest_check_keys(nest, known, e) < 0 || ns_json_int(nest, "version", 0, INT32_MAX, 0, &version, e) < 0)
        return -1;
    if (version != NEST_VERSION)
        return ns_fail(e, NS_EUNSUPPORTED, "key \"version\": %d is expected", NEST_VERSION);
    if (!json_is_array(list) || json_array_size(list) > MAX_VARIANTS)
        return ns_fail(e, NS_EFORMAT, "key \"variants\": expected a list of at most %d", MAX_VARIANTS);
    if (read_handover(json_object_get(nest, "handover"), &out->handover, e) < 0)
        return -1;
    json_array_foreach(list, i, v)
        if (read_variant(a, v, out, e) < 0)
            return ns_err_wrap(e, "variants[%zu]", i);
    return !router || (out->router = ns_router_parse(a, router, e)) ? 0 : -1;
}

/* ---- writing ---- */

/* The axis as nest.json has it: one number, or a list where layers differ; NULL where the whole axis stays. */
static json_t *axis_json(const ns_arch *a, ns_axis axis, const ns_cut *cut)
{
    bool whole = true, alike = true;
    int first = 0;
    json_t *list = json_array();
    for (int i = 0; i < a->n_layers; i++) {
        int full = a->layers[i].width[axis], w = cut->layer[i].width[axis];
        if (full == 0)
            continue;
        whole &= w == full;
        first = first ? first : w;
        alike &= w == first;
        json_array_append_new(list, json_integer(w));
    }
    if (!whole && !alike)
        return list;
    json_decref(list);
    return whole ? NULL : json_integer(first);
}

static json_t *kept_json(const ns_cut *cut)
{
    json_t *list = json_array();
    for (int i = 0; i < cut->n_layers; i++)
        if (cut->layer[i].keep)
            json_array_append_new(list, json_integer(i));
    return list;
}

static json_t *cut_json(const ns_arch *a, const ns_cut *cut)
{
    json_t *obj = json_object(), *kept = kept_json(cut), *axis;
    for (int x = 0; x < NS_AXIS_COUNT; x++)
        if ((axis = axis_json(a, (ns_axis)x, cut)))
            json_object_set_new(obj, ns_axis_name((ns_axis)x), axis);
    if (json_array_size(kept) != (size_t)cut->n_layers)
        json_object_set(obj, "layers", kept);
    json_decref(kept);
    return obj;
}

/* jansson's constructors return NULL without memory and its setters then fail, so one look at the finished list is enough. */
json_t *ns_variants_json(const ns_arch *a, const ns_variants *v, ns_err *e)
{
    json_t *list = json_array(), *root = NULL;
    int bad = 0;
    for (int i = 0; i < v->n; i++) {
        const ns_variant *x = &v->v[i];
        json_t *obj = json_pack("{s:s}", "name", x->alias ? x->alias : x->name), *cut = cut_json(a, &x->cut);
        ns_cost cost;
        bad |= ns_cut_cost(a, &x->cut, NULL, NULL, &cost, e);
        if (x->budget > 0)
            bad |= json_object_set_new(obj, "budget", json_real(x->budget));
        bad |= json_object_set_new(obj, "params_total", json_integer(cost.params_total));
        bad |= json_object_set_new(obj, "params_active", json_integer(cost.params_active));
        bad |= json_object_size(cut) > 0 ? json_object_set(obj, "cut", cut) : 0;
        bad |= !cut || json_array_append_new(list, obj) < 0;
        json_decref(cut);
    }
    if (!bad)
        root = json_pack("{s:i, s:O}", "version", NEST_VERSION, "variants", list);
    json_decref(list);
    if (root && v->handover != NS_HANDOVER_AUTO)
        json_object_set_new(root, "handover", json_string(v->handover == NS_HANDOVER_CACHE ? "cache" : "prefill"));
    if (root && v->router && v->router->has_weights && json_object_set_new(root, "router", ns_router_json(v->router, e)) < 0) {
        json_decref(root);
        root = NULL;
    }
    if (!root)
        ns_fail(e, NS_ENOMEM, "nest.json: out of memory");
    return root;
}
