/* Filters over sequences. Where Jinja returns a generator so do these; its list is made when the first item is asked for. */
#include <string.h>

#include "text/jinja_run.h"

#define FILTER(name) static int name(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
#define UNUSED (void)args, (void)a

/* filter `f_name` as a generator over `name_now`, which takes n bound arguments. */
#define LATER(name, now, n)                                     \
    FILTER(name)                                                \
    {                                                           \
        return ns_jfilter_later(r, now, self, args, a, n, out); \
    }

FILTER(f_length)
{
    UNUSED;
    int64_t n;
    if (ns_jval_len(r, self, &n))
        return -1;
    *out = ns_jv_int(n);
    return 0;
}

FILTER(f_list)
{
    UNUSED;
    ns_jlist *l;
    return ns_jval_list(r, self, &l) ? -1 : ns_jfilter_list(l, out);
}

FILTER(items_now)
{
    UNUSED;
    ns_jlist *l;
    ns_jval items = { .kind = NS_J_VIEW, .aux = NS_JVIEW_ITEMS, .d = self.d };
    if (self.kind != NS_J_DICT && self.kind != NS_J_UNDEF)
        return ns_jrun_fail(r, NS_EINVAL, "filter items wants a mapping, not a %s", ns_jval_type(self));
    return ns_jval_list(r, self.kind == NS_J_DICT ? items : self, &l) ? -1 : ns_jfilter_list(l, out);
}

LATER(f_items, items_now, 0)

FILTER(f_first)
{
    UNUSED;
    ns_jiter local, *it = &local;
    if (ns_jiter_init(r, it, self))
        return -1;
    int rc = ns_jiter_next(r, it, out);
    if (rc == 0)
        *out = ns_jv_undef("no first item, sequence was empty", NS_JUNDEF_HINT);
    return rc < 0 ? -1 : 0;
}

static int check_reversible(ns_jrun *r, ns_jval v)
{
    if (v.kind == NS_J_ITER || v.kind == NS_J_LOOP || !ns_jval_iterable(v))
        return ns_jrun_fail(r, NS_EINVAL, "'%s' object is not reversible", ns_jval_type(v));
    return 0;
}

FILTER(f_last)
{
    UNUSED;
    ns_jlist *l;
    if (check_reversible(r, self) || ns_jval_list(r, self, &l))
        return -1;
    *out = l->n ? l->v[l->n - 1] : ns_jv_undef("no last item, sequence was empty", NS_JUNDEF_HINT);
    return 0;
}

FILTER(f_reverse)
{
    UNUSED;
    ns_jlist *l;
    ns_jval bound[3] = { ns_jv_none(), ns_jv_none(), ns_jv_int(-1) };
    if (self.kind == NS_J_STR)
        return ns_jrun_slice(r, self, bound, out);
    if (ns_jval_list(r, self, &l))
        return -1;
    for (size_t i = 0; i + 1 < l->n - i; i++) {
        ns_jval v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
    ns_jfilter_list(l, out);
    const ns_jargs none = { 0 };
    return self.kind == NS_J_ITER ? 0 : ns_jfilter_later(r, f_list, *out, &none, NULL, 0, out);
}

/* What sort, unique, min and max compare: the attribute, in lower case unless case matters. */
static int sort_key(ns_jrun *r, ns_jval v, ns_jval path, bool case_sensitive, ns_jval *out)
{
    if (ns_jval_path(r, v, path, (ns_jval){ .kind = NS_J_MISSING }, out))
        return -1;
    if (!case_sensitive && out->kind == NS_J_STR) {
        *out = ns_jv_str(ns_jstr_case(r, out->s, 'l'));
        return out->s ? 0 : -1;
    }
    return 0;
}

/* sort compares lists of keys, one key in the usual case: lists ask whether two members are equal before which is less,
 * and so order what could not be compared by itself. */
static int multi_key(ns_jrun *r, ns_jval v, ns_jval path, bool case_sensitive, ns_jval *out)
{
    ns_jlist *l = ns_jlist_new(r, 0, false);
    ns_jval key;
    if (!l)
        return -1;
    *out = (ns_jval){ .kind = NS_J_LIST, .l = l };
    if (path.kind != NS_J_STR)
        return sort_key(r, v, path, case_sensitive, &key) ? -1 : ns_jlist_push(r, l, key);
    const ns_jstr *s = path.s;
    for (size_t from = 0, to; from <= s->n; from = to + 1) {
        for (to = from; to < s->n && s->p[to] != ','; to++)
            ;
        const ns_jstr *part = ns_jstr_sub(r, s, from, to - from);
        if (!part || sort_key(r, v, ns_jv_str(part), case_sensitive, &key) || ns_jlist_push(r, l, key))
            return -1;
    }
    return 0;
}

FILTER(f_sort)
{
    UNUSED;
    ns_jlist *l;
    if (ns_jval_list(r, self, &l))
        return -1;
    ns_jval *keys = ns_jrun_array(r, l->n, sizeof *keys);
    for (size_t i = 0; keys && i < l->n; i++)
        if (multi_key(r, l->v[i], a[2], ns_jval_truth(a[1]), &keys[i]))
            return -1;
    if (!keys || ns_jlist_sort(r, l, keys, ns_jval_truth(a[0])))
        return -1;
    return ns_jfilter_list(l, out);
}

FILTER(f_dictsort)
{
    UNUSED;
    ns_jlist *l;
    const ns_jstr *by = NULL;
    if (self.kind == NS_J_UNDEF)
        return ns_jrun_undefined(r, self);
    if (self.kind != NS_J_DICT)
        return ns_jrun_fail(r, NS_EINVAL, "filter dictsort: '%s' object has no attribute 'items'", ns_jval_type(self));
    if (a[1].kind != NS_J_MISSING && ns_jarg_str(r, a[1], &by))
        return -1;
    if (by && !ns_jstr_is(by, "key") && !ns_jstr_is(by, "value"))
        return ns_jrun_fail(r, NS_EINVAL, "filter dictsort: by must be \"key\" or \"value\"");
    ns_jval items = { .kind = NS_J_VIEW, .aux = NS_JVIEW_ITEMS, .d = self.d };
    ns_jval *keys = ns_jrun_array(r, self.d->n, sizeof *keys), none = ns_jv_none();
    if (!keys || ns_jval_list(r, items, &l))
        return -1;
    for (size_t i = 0; i < l->n; i++) {
        ns_jval k = l->v[i].l->v[by && ns_jstr_is(by, "value")];
        if (sort_key(r, k, none, ns_jval_truth(a[0]), &keys[i]))
            return -1;
    }
    if (ns_jlist_sort(r, l, keys, ns_jval_truth(a[2])))
        return -1;
    return ns_jfilter_list(l, out);
}

FILTER(unique_now)
{
    UNUSED;
    ns_jiter it;
    ns_jval v, key;
    ns_jlist *l = ns_jlist_new(r, 0, ns_jval_untrusted(self));
    ns_jdict *seen = ns_jdict_new(r, 4, false);
    int rc;
    if (!l || !seen || ns_jiter_init(r, &it, self))
        return -1;
    while ((rc = ns_jiter_next(r, &it, &v)) > 0) {
        if (sort_key(r, v, a[1], ns_jval_truth(a[0]), &key))
            return -1;
        size_t before = seen->n;
        if (ns_jdict_put(r, seen, key, v) || (seen->n > before && ns_jlist_push(r, l, v)))
            return -1;
    }
    return rc < 0 ? -1 : ns_jfilter_list(l, out);
}

LATER(f_unique, unique_now, 2)

static int extreme(ns_jrun *r, ns_jval self, const ns_jval *a, bool max, ns_jval *out)
{
    ns_jlist *l;
    ns_jval best = ns_jv_none(), key;
    if (ns_jval_list(r, self, &l))
        return -1;
    *out = ns_jv_undef("no aggregated item, sequence was empty", NS_JUNDEF_HINT);
    for (size_t i = 0; i < l->n; i++) {
        int c = 0;
        if (sort_key(r, l->v[i], a[1], ns_jval_truth(a[0]), &key))
            return -1;
        if (i && ns_jval_cmp(r, max ? ">" : "<", key, best, &c))
            return -1;
        if (i && (max ? c <= 0 : c >= 0))
            continue;
        best = key;
        *out = l->v[i];
    }
    return 0;
}

FILTER(f_min)
{
    UNUSED;
    return extreme(r, self, a, false, out);
}

FILTER(f_max)
{
    UNUSED;
    return extreme(r, self, a, true, out);
}

FILTER(f_sum)
{
    UNUSED;
    ns_jiter it;
    ns_jval v, term, missing = { .kind = NS_J_MISSING };
    int rc;
    *out = a[1].kind == NS_J_MISSING ? ns_jv_int(0) : a[1];
    if (ns_jiter_init(r, &it, self))
        return -1;
    while ((rc = ns_jiter_next(r, &it, &v)) > 0)
        if (ns_jval_path(r, v, a[0], missing, &term) || ns_jrun_binary(r, '+', *out, term, out))
            return -1;
    return rc;
}

FILTER(f_join)
{
    UNUSED;
    static const ns_jstr empty = { .p = "" };
    const ns_jstr *sep = a[0].kind == NS_J_MISSING ? &empty : ns_jval_str(r, a[0]), *s;
    if (!sep)
        return -1;
    if (a[1].kind != NS_J_MISSING && a[1].kind != NS_J_NONE) {
        ns_jlist *l;
        ns_jval missing = { .kind = NS_J_MISSING };
        if (ns_jval_list(r, self, &l))
            return -1;
        for (size_t i = 0; i < l->n; i++)
            if (ns_jval_path(r, l->v[i], a[1], missing, &l->v[i]))
                return -1;
        self = (ns_jval){ .kind = NS_J_LIST, .l = l };
    }
    if (ns_jstr_join(r, sep, self, false, &s))
        return -1;
    *out = ns_jv_str(s);
    return 0;
}

FILTER(batch_now)
{
    UNUSED;
    int64_t size;
    ns_jlist *all, *rows = ns_jlist_new(r, 0, ns_jval_untrusted(self)), *row = NULL;
    if (!rows || ns_jarg_int(r, a[0], 0, &size) || ns_jval_list(r, self, &all))
        return -1;
    for (size_t i = 0; i < all->n; i++) {
        if (!row || (int64_t)row->n == size) {
            row = ns_jlist_new(r, 0, all->untrusted);
            if (!row || ns_jlist_push(r, rows, (ns_jval){ .kind = NS_J_LIST, .l = row }))
                return -1;
        }
        if (ns_jlist_push(r, row, all->v[i]))
            return -1;
    }
    while (row && a[1].kind != NS_J_MISSING && a[1].kind != NS_J_NONE && (int64_t)row->n < size)
        if (ns_jlist_push(r, row, a[1]))
            return -1;
    return ns_jfilter_list(rows, out);
}

LATER(f_batch, batch_now, 2)

const ns_jbuiltin *ns_jfilter_find_seq(const char *name)
{
    static const ns_jbuiltin table[] = {
        { "batch", "linecount ?fill_with", f_batch },
        { "count", "", f_length },
        { "dictsort", "?case_sensitive ?by ?reverse", f_dictsort },
        { "first", "", f_first },
        { "groupby", NULL, NULL },
        { "items", "", f_items },
        { "join", "?d ?attribute", f_join },
        { "last", "", f_last },
        { "length", "", f_length },
        { "list", "", f_list },
        { "map", NULL, ns_jfilter_map },
        { "max", "?case_sensitive ?attribute", f_max },
        { "min", "?case_sensitive ?attribute", f_min },
        { "reject", NULL, ns_jfilter_reject },
        { "rejectattr", NULL, ns_jfilter_rejectattr },
        { "reverse", "", f_reverse },
        { "select", NULL, ns_jfilter_select },
        { "selectattr", NULL, ns_jfilter_selectattr },
        { "slice", NULL, NULL },
        { "sort", "?reverse ?case_sensitive ?attribute", f_sort },
        { "sum", "?attribute ?start", f_sum },
        { "unique", "?case_sensitive ?attribute", f_unique },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(name, table[i].name) == 0)
            return &table[i];
    return NULL;
}
