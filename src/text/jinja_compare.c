/* Equality, order, membership and sorting, as Python defines them. */
#include <string.h>

#include "text/jinja_run.h"

static int eq_lists(ns_jrun *r, const ns_jlist *a, const ns_jlist *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++)
        if (ns_jval_eq(r, a->v[i], b->v[i], out))
            return -1;
    return 0;
}

static int eq_dicts(ns_jrun *r, const ns_jdict *a, const ns_jdict *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        ns_jval other;
        int found = ns_jdict_find(r, b, a->v[i].k, &other);
        if (found < 0)
            return -1;
        *out = found > 0;
        if (found && ns_jval_eq(r, a->v[i].v, other, out))
            return -1;
    }
    return 0;
}

static int eq_same_kind(ns_jrun *r, ns_jval a, ns_jval b, bool *out)
{
    switch (a.kind) {
    case NS_J_UNDEF:
    case NS_J_NONE:
        *out = true;
        return 0;
    case NS_J_STR:
        *out = ns_jstr_eq(a.s, b.s);
        return ns_jrun_step(r, a.s->n == b.s->n ? a.s->n : 0);
    case NS_J_LIST:
    case NS_J_TUPLE:
        return eq_lists(r, a.l, b.l, out);
    case NS_J_DICT:
        return eq_dicts(r, a.d, b.d, out);
    case NS_J_RANGE:
        *out = a.r->n == b.r->n && (a.r->n == 0 || (a.r->start == b.r->start && (a.r->n == 1 || a.r->step == b.r->step)));
        return 0;
    case NS_J_VIEW: {
        ns_jlist *la, *lb;
        if (a.aux != b.aux || a.aux == NS_JVIEW_VALUES) {
            *out = false;
            return 0;
        }
        return ns_jval_list(r, a, &la) || ns_jval_list(r, b, &lb) ? -1 : eq_lists(r, la, lb, out);
    }
    default:
        *out = a.text == b.text; /* identity */
        return 0;
    }
}

int ns_jval_eq(ns_jrun *r, ns_jval a, ns_jval b, bool *out)
{
    int rc = 0;
    if (ns_jrun_enter(r))
        return -1;
    if (ns_jv_is_int(a) && ns_jv_is_int(b))
        *out = a.i == b.i;
    else if (ns_jv_is_num(a) && ns_jv_is_num(b))
        *out = ns_jv_num(a) == ns_jv_num(b);
    else if (a.kind != b.kind)
        *out = false;
    else
        rc = eq_same_kind(r, a, b, out);
    r->depth--;
    return rc;
}

static int cmp_strings(const ns_jstr *a, const ns_jstr *b)
{
    size_t n = a->n < b->n ? a->n : b->n;
    int c = n ? memcmp(a->p, b->p, n) : 0; /* UTF-8 keeps the order of code points */
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

static int cmp_lists(ns_jrun *r, const char *op, const ns_jlist *a, const ns_jlist *b, int *out)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool eq;
        if (ns_jval_eq(r, a->v[i], b->v[i], &eq))
            return -1;
        if (!eq)
            return ns_jval_cmp(r, op, a->v[i], b->v[i], out);
    }
    *out = (a->n > b->n) - (a->n < b->n);
    return 0;
}

int ns_jval_cmp(ns_jrun *r, const char *op, ns_jval a, ns_jval b, int *out)
{
    int rc = 0;
    if (ns_jrun_enter(r))
        return -1;
    if (a.kind == NS_J_UNDEF || b.kind == NS_J_UNDEF)
        rc = ns_jrun_undefined(r, a.kind == NS_J_UNDEF ? a : b);
    else if (ns_jv_is_int(a) && ns_jv_is_int(b))
        *out = (a.i > b.i) - (a.i < b.i);
    else if (ns_jv_is_num(a) && ns_jv_is_num(b))
        *out = (ns_jv_num(a) > ns_jv_num(b)) - (ns_jv_num(a) < ns_jv_num(b));
    else if (a.kind == NS_J_STR && b.kind == NS_J_STR) {
        *out = cmp_strings(a.s, b.s);
        rc = ns_jrun_step(r, a.s->n < b.s->n ? a.s->n : b.s->n);
    } else if (a.kind == b.kind && (a.kind == NS_J_LIST || a.kind == NS_J_TUPLE))
        rc = cmp_lists(r, op, a.l, b.l, out);
    else
        rc = ns_jrun_fail(r, NS_EINVAL, "'%s' not supported between '%s' and '%s'", op, ns_jval_type(a), ns_jval_type(b));
    r->depth--;
    return rc;
}

static int in_string(ns_jrun *r, ns_jval v, const ns_jstr *box, bool *out)
{
    if (v.kind != NS_J_STR)
        return ns_jrun_fail(r, NS_EINVAL, "'in <string>' requires string as left operand, not %s", ns_jval_type(v));
    *out = v.s->n == 0 || (v.s->n <= box->n && memmem(box->p, box->n, v.s->p, v.s->n) != NULL);
    return ns_jrun_step(r, box->n);
}

int ns_jval_in(ns_jrun *r, ns_jval v, ns_jval box, bool *out)
{
    ns_jval item;
    if (box.kind == NS_J_STR)
        return in_string(r, v, box.s, out);
    if (box.kind == NS_J_DICT || (box.kind == NS_J_VIEW && box.aux == NS_JVIEW_KEYS)) {
        int found = ns_jdict_find(r, box.d, v, &item);
        *out = found > 0;
        return found < 0 ? -1 : 0;
    }
    ns_jiter it;
    if (!ns_jval_iterable(box))
        return ns_jrun_fail(r, NS_EINVAL, "argument of type '%s' is not iterable", ns_jval_type(box));
    if (ns_jiter_init(r, &it, box))
        return -1;
    *out = false;
    int rc = 0;
    while (!*out && (rc = ns_jiter_next(r, &it, &item)) > 0)
        if (ns_jval_eq(r, v, item, out))
            return -1;
    return rc < 0 ? -1 : 0;
}

typedef struct sorter {
    ns_jrun *r;
    ns_jval *v, *k, *v2, *k2;
    bool reverse;
} sorter;

/* Merges the sorted halves of from..to through v2 and k2. Python asks only "is the right one less", and for a reversed
 * stable sort "is the left one less". */
static int merge(sorter *s, size_t from, size_t mid, size_t to)
{
    size_t i = from, j = mid;
    for (size_t o = from; o < to; o++) {
        int c = 0;
        if (i < mid && j < to && ns_jval_cmp(s->r, "<", s->k[j], s->k[i], &c))
            return -1;
        bool right = i == mid || (j < to && (s->reverse ? c > 0 : c < 0));
        size_t src = right ? j++ : i++;
        s->v2[o] = s->v[src];
        s->k2[o] = s->k[src];
    }
    memcpy(s->v + from, s->v2 + from, (to - from) * sizeof *s->v);
    memcpy(s->k + from, s->k2 + from, (to - from) * sizeof *s->k);
    return 0;
}

int ns_jlist_sort(ns_jrun *r, ns_jlist *l, ns_jval *keys, bool reverse)
{
    sorter s = { .r = r, .v = l->v, .k = keys, .reverse = reverse };
    s.v2 = ns_jrun_array(r, l->n, sizeof *s.v2);
    s.k2 = ns_jrun_array(r, l->n, sizeof *s.k2);
    if (!s.v2 || !s.k2)
        return -1;
    for (size_t width = 1; width < l->n; width *= 2) {
        for (size_t from = 0; from + width < l->n; from += 2 * width) {
            size_t to = l->n - from < 2 * width ? l->n : from + 2 * width;
            if (merge(&s, from, from + width, to))
                return -1;
        }
    }
    return 0;
}
