/* map, select, reject and their attr forms; generators and attribute paths, which other filters share. */
#include <string.h>

#include "text/jinja_run.h"

#define FILTER(name) int name(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
#define LATER(name, now)                                        \
    FILTER(name)                                                \
    {                                                           \
        return ns_jfilter_later(r, now, self, args, a, 0, out); \
    }

int ns_jfilter_list(const ns_jlist *l, ns_jval *out)
{
    *out = (ns_jval){ .kind = NS_J_LIST, .l = l };
    return l ? 0 : -1;
}

int ns_jfilter_later(ns_jrun *r, ns_jfn *fn, ns_jval self, const ns_jargs *args, const ns_jval *a, int n_a, ns_jval *out)
{
    ns_jiter *it = ns_jrun_alloc(r, sizeof *it);
    ns_jlazy *z = ns_jrun_alloc(r, sizeof *z);
    if (!it || !z)
        return -1;
    *z = (ns_jlazy){ .fn = fn, .self = self, .args = *args };
    for (int i = 0; i < n_a; i++)
        z->a[i] = a[i];
    *it = (ns_jiter){ .v = self, .lazy = z };
    *out = (ns_jval){ .kind = NS_J_ITER, .it = it };
    return 0;
}

int ns_jval_path(ns_jrun *r, ns_jval v, ns_jval path, ns_jval dflt, ns_jval *out)
{
    *out = v;
    if (path.kind == NS_J_MISSING || path.kind == NS_J_NONE)
        return 0;
    if (path.kind != NS_J_STR)
        return ns_jrun_getitem(r, v, path, out);
    const ns_jstr *s = path.s;
    for (size_t from = 0, to; from <= s->n; from = to + 1) {
        for (to = from; to < s->n && s->p[to] != '.'; to++)
            ;
        const ns_jstr *part = ns_jstr_sub(r, s, from, to - from);
        int64_t index;
        if (!part)
            return -1;
        bool number = to > from;
        for (size_t i = from; i < to; i++)
            number &= s->p[i] >= '0' && s->p[i] <= '9';
        if (number && (ns_jstr_to_int(r, part, 10, &index) < 0))
            return -1;
        if (ns_jrun_getitem(r, *out, number ? ns_jv_int(index) : ns_jv_str(part), out))
            return -1;
        if (out->kind == NS_J_UNDEF && dflt.kind != NS_J_MISSING && dflt.kind != NS_J_NONE)
            *out = dflt;
    }
    return 0;
}

static ns_jargs rest(const ns_jargs *args, int from)
{
    ns_jargs left = *args;
    left.v += from;
    left.n -= from;
    return left;
}

/* A filter or test given by name. */
static const ns_jbuiltin *named(ns_jrun *r, ns_jval name, const char *sort, const ns_jbuiltin *(*find)(const char *))
{
    const ns_jstr *s;
    if (ns_jarg_str(r, name, &s))
        return NULL;
    const char *z = ns_jstr_cstr(r, s);
    const ns_jbuiltin *b = z ? find(z) : NULL;
    if (z && !b)
        ns_jrun_fail(r, NS_EINVAL, "no %s named '%.60s'", sort, z);
    return b;
}

static int map_attribute(ns_jrun *r, const ns_jargs *args, ns_jlist *l)
{
    ns_jval path = { .kind = NS_J_MISSING }, dflt = path;
    for (int i = 0; i < args->nkw; i++) {
        if (strcmp(args->kw[i], "attribute") == 0)
            path = args->kwv[i];
        else if (strcmp(args->kw[i], "default") == 0)
            dflt = args->kwv[i];
        else
            return ns_jrun_fail(r, NS_EINVAL, "filter map: unexpected keyword argument '%s'", args->kw[i]);
    }
    if (path.kind == NS_J_MISSING)
        return ns_jrun_fail(r, NS_EINVAL, "filter map requires a filter argument");
    for (size_t i = 0; i < l->n; i++)
        if (ns_jval_path(r, l->v[i], path, dflt, &l->v[i]))
            return -1;
    return 0;
}

static FILTER(map_now)
{
    (void)a;
    ns_jlist *l;
    if (!ns_jval_truth(self))
        return ns_jfilter_list(ns_jlist_new(r, 0, false), out);
    if (ns_jval_list(r, self, &l))
        return -1;
    if (args->n == 0)
        return map_attribute(r, args, l) ? -1 : ns_jfilter_list(l, out);
    const ns_jbuiltin *b = named(r, args->v[0], "filter", ns_jfilter_find);
    ns_jargs left = rest(args, 1);
    for (size_t i = 0; b && i < l->n; i++)
        if (ns_jrun_invoke(r, b, "filter", l->v[i], &left, &l->v[i]))
            return -1;
    return b ? ns_jfilter_list(l, out) : -1;
}

LATER(ns_jfilter_map, map_now)

/* select, reject and their attr forms: keeps what a test (or truth) says `want` about. */
static int choose(ns_jrun *r, ns_jval self, const ns_jargs *args, bool want, bool by_attr, ns_jval *out)
{
    ns_jlist *all, *l = ns_jlist_new(r, 0, ns_jval_untrusted(self));
    ns_jval missing = { .kind = NS_J_MISSING };
    if (!l || !ns_jval_truth(self))
        return ns_jfilter_list(l, out);
    if (by_attr && args->n == 0)
        return ns_jrun_fail(r, NS_EINVAL, "missing parameter for attribute name");
    const ns_jbuiltin *test = NULL;
    if (args->n > by_attr && !(test = named(r, args->v[by_attr], "test", ns_jtest_find)))
        return -1;
    if (ns_jval_list(r, self, &all))
        return -1;
    ns_jargs left = test ? rest(args, 1 + by_attr) : (ns_jargs){ 0 };
    for (size_t i = 0; i < all->n; i++) {
        ns_jval v, yes;
        if (ns_jval_path(r, all->v[i], by_attr ? args->v[0] : missing, missing, &v))
            return -1;
        yes = v;
        if (test && ns_jrun_invoke(r, test, "test", v, &left, &yes))
            return -1;
        if (ns_jval_truth(yes) == want && ns_jlist_push(r, l, all->v[i]))
            return -1;
    }
    return ns_jfilter_list(l, out);
}

static FILTER(select_now)
{
    (void)a;
    return choose(r, self, args, true, false, out);
}

LATER(ns_jfilter_select, select_now)

static FILTER(reject_now)
{
    (void)a;
    return choose(r, self, args, false, false, out);
}

LATER(ns_jfilter_reject, reject_now)

static FILTER(selectattr_now)
{
    (void)a;
    return choose(r, self, args, true, true, out);
}

LATER(ns_jfilter_selectattr, selectattr_now)

static FILTER(rejectattr_now)
{
    (void)a;
    return choose(r, self, args, false, true, out);
}

LATER(ns_jfilter_rejectattr, rejectattr_now)
