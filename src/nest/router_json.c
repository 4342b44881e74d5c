/* The "router" object of nest.json: docs/NEST.md has the format. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "arch/config.h"
#include "nest/router.h"
#include "nest/variants_impl.h"

enum { MAX_AXES = NS_AXIS_COUNT + 1 };

/* What is read before it is checked. */
typedef struct draft {
    double budget[NS_ROUTER_MAX_BUDGETS];
    int order[NS_MAX_LAYERS];
    int choice[MAX_AXES][NS_ROUTER_MAX_CHOICES];
    ns_router_axis_spec axis[MAX_AXES];
    ns_router_spec spec;
} draft;

static int read_ints(const json_t *obj, const char *key, int cap, int *out, int *n, ns_err *e)
{
    const json_t *list = json_object_get(obj, key), *v;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) > (size_t)cap)
        return ns_fail(e, NS_EFORMAT, "key \"%s\": expected a list of at most %d whole numbers", key, cap);
    json_array_foreach(list, i, v) {
        json_int_t x = json_integer_value(v);
        if (!json_is_integer(v) || x < 0 || x > INT_MAX)
            return ns_fail(e, NS_EFORMAT, "key \"%s\": entry %zu is not a whole number in 0..%d", key, i, INT_MAX);
        out[i] = (int)x;
    }
    *n = (int)json_array_size(list);
    return 0;
}

static int read_budgets(const json_t *obj, draft *d, ns_err *e)
{
    const json_t *list = json_object_get(obj, "budgets"), *v;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) > NS_ROUTER_MAX_BUDGETS)
        return ns_fail(e, NS_EFORMAT, "key \"budgets\": expected a list of at most %d numbers", NS_ROUTER_MAX_BUDGETS);
    json_array_foreach(list, i, v) {
        if (!json_is_number(v))
            return ns_fail(e, NS_EFORMAT, "key \"budgets\": entry %zu is not a number", i);
        d->budget[i] = json_number_value(v);
    }
    d->spec.n_budgets = (int)json_array_size(list);
    return 0;
}

static int read_axis(const ns_arch *a, const json_t *obj, draft *d, int k, ns_err *e)
{
    static const char *const known[] = { "axis", "choices", "per_layer", "order", NULL };
    ns_router_axis_spec *s = &d->axis[k];
    const char *name;
    if (ns_nest_check_keys(obj, known, e) < 0 || ns_json_str(obj, "axis", "", &name, e) < 0 ||
        ns_json_bool(obj, "per_layer", false, &s->per_layer, e) < 0)
        return -1;
    s->axis = ns_axis_find(name);
    s->choice = d->choice[k];
    if (s->axis < 0 && strcmp(name, "depth") != 0)
        return ns_fail(e, NS_EFORMAT, "key \"axis\": unknown axis \"%.60s\"", name);
    if (s->axis < 0) {
        if (read_ints(obj, "order", a->n_layers, d->order, &d->spec.n_order, e) < 0)
            return -1;
    } else if (json_object_get(obj, "order")) {
        return ns_fail(e, NS_EFORMAT, "key \"order\": only the axis \"depth\" has one");
    }
    return read_ints(obj, "choices", NS_ROUTER_MAX_CHOICES, d->choice[k], &s->n_choices, e);
}

static int read_spec(const ns_arch *a, const json_t *obj, draft *d, ns_err *e)
{
    static const char *const known[] = { "budgets", "target", "inner", "axes", "note", NULL };
    const json_t *list = json_object_get(obj, "axes"), *v;
    const char *note;
    int64_t inner;
    size_t i;
    if (ns_nest_check_keys(obj, known, e) < 0 || read_budgets(obj, d, e) < 0 ||
        ns_json_int(obj, "inner", 1, NS_ROUTER_MAX_INNER, 256, &inner, e) < 0 ||
        ns_json_str(obj, "target", "active", &d->spec.target, e) < 0 || ns_json_str(obj, "note", "", &note, e) < 0)
        return -1;
    if (!json_is_array(list) || json_array_size(list) > MAX_AXES)
        return ns_fail(e, NS_EFORMAT, "key \"axes\": expected a list of at most %d", MAX_AXES);
    json_array_foreach(list, i, v)
        if (read_axis(a, v, d, (int)i, e) < 0)
            return ns_err_wrap(e, "axes[%zu]", i);
    d->spec.inner = (int)inner;
    d->spec.n_axes = (int)json_array_size(list);
    return 0;
}

ns_router *ns_router_parse(const ns_arch *a, const json_t *obj, ns_err *e)
{
    draft *d = calloc(1, sizeof *d);
    ns_router *r = NULL;
    if (!d) {
        ns_fail(e, NS_ENOMEM, "out of memory");
        return NULL;
    }
    d->spec.budget = d->budget;
    d->spec.order = d->order;
    d->spec.axis = d->axis;
    if (read_spec(a, obj, d, e) == 0)
        r = ns_router_new(a, &d->spec, e);
    free(d);
    if (!r)
        ns_err_wrap(e, "key \"router\"");
    return r;
}

/* ---- writing ---- */

static json_t *order_json(const ns_router *r)
{
    json_t *list = json_array();
    for (int rank = 0; rank < r->n_layers; rank++)
        for (int i = 0; i < r->n_layers; i++)
            if (r->drop_rank[i] == rank)
                json_array_append_new(list, json_integer(i));
    return list;
}

static json_t *axis_json(const ns_router *r, const ns_router_axis *x)
{
    json_t *choices = json_array();
    for (int k = 0; k < x->n_choices; k++)
        json_array_append_new(choices, json_integer(x->choice[k]));
    json_t *obj = json_pack("{s:s, s:o}", "axis", ns_router_axis_name(x), "choices", choices);
    if (obj && x->per_layer)
        json_object_set_new(obj, "per_layer", json_true());
    if (obj && x->depth)
        json_object_set_new(obj, "order", order_json(r));
    return obj;
}

json_t *ns_router_json(const ns_router *r, ns_err *e)
{
    json_t *budgets = json_array(), *axes = json_array();
    for (int i = 0; i < r->n_budgets; i++)
        json_array_append_new(budgets, json_real(r->budget[i]));
    for (int k = 0; k < r->n_axes; k++)
        json_array_append_new(axes, axis_json(r, &r->axis[k]));
    bool whole = json_array_size(budgets) == (size_t)r->n_budgets && json_array_size(axes) == (size_t)r->n_axes;
    json_t *obj = json_pack("{s:o, s:s, s:i, s:o}", "budgets", budgets, "target", r->target, "inner", r->inner, "axes", axes);
    if (obj && whole)
        return obj;
    json_decref(obj);
    ns_fail(e, NS_ENOMEM, "nest.json: out of memory");
    return NULL;
}
