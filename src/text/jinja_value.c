#include "text/jinja_value.h"

#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

const char *ns_jval_type(ns_jval v)
{
    static const char *const names[] = { "missing", "Undefined", "NoneType", "bool", "int", "float", "str", "list", "tuple",
                                         "dict", "view", "range", "generator", "Namespace", "LoopContext", "Macro",
                                         "function", "method" };
    static const char *const views[] = { "dict_keys", "dict_values", "dict_items" };
    return v.kind == NS_J_VIEW ? views[v.aux] : names[v.kind];
}

bool ns_jval_untrusted(ns_jval v)
{
    switch (v.kind) {
    case NS_J_STR:
        return ns_jstr_any_untrusted(v.s);
    case NS_J_LIST:
    case NS_J_TUPLE:
        return v.l->untrusted;
    case NS_J_DICT:
    case NS_J_VIEW:
        return v.d->untrusted;
    case NS_J_ITER:
        return ns_jval_untrusted(v.it->v);
    default:
        return false;
    }
}

bool ns_jval_truth(ns_jval v)
{
    switch (v.kind) {
    case NS_J_MISSING:
    case NS_J_UNDEF:
    case NS_J_NONE:
        return false;
    case NS_J_BOOL:
    case NS_J_INT:
        return v.i != 0;
    case NS_J_FLOAT:
        return v.f != 0;
    case NS_J_STR:
        return v.s->n != 0;
    case NS_J_LIST:
    case NS_J_TUPLE:
        return v.l->n != 0;
    case NS_J_DICT:
    case NS_J_VIEW:
        return v.d->n != 0;
    case NS_J_RANGE:
        return v.r->n != 0;
    default:
        return true;
    }
}

bool ns_jval_callable(ns_jval v)
{
    return v.kind == NS_J_UNDEF || v.kind >= NS_J_LOOP;
}

bool ns_jval_has_len(ns_jval v)
{
    return v.kind == NS_J_UNDEF || (v.kind >= NS_J_STR && v.kind <= NS_J_RANGE) || v.kind == NS_J_LOOP;
}

bool ns_jval_iterable(ns_jval v)
{
    return ns_jval_has_len(v) || v.kind == NS_J_ITER;
}

bool ns_jval_hashable(ns_jval v)
{
    if (v.kind == NS_J_TUPLE)
        for (size_t i = 0; i < v.l->n; i++)
            if (!ns_jval_hashable(v.l->v[i]))
                return false;
    return v.kind != NS_J_LIST && v.kind != NS_J_DICT && (v.kind != NS_J_VIEW || v.aux == NS_JVIEW_VALUES);
}

ns_jlist *ns_jlist_new(ns_jrun *r, size_t n, bool untrusted)
{
    ns_jlist *l = ns_jrun_alloc(r, sizeof *l);
    if (!l)
        return NULL;
    *l = (ns_jlist){ .n = n, .cap = n, .v = ns_jrun_array(r, n, sizeof *l->v), .untrusted = untrusted };
    return l->v ? l : NULL;
}

int ns_jlist_push(ns_jrun *r, ns_jlist *l, ns_jval v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 4;
        ns_jval *more = ns_jrun_array(r, cap, sizeof *more);
        if (!more)
            return -1;
        if (l->n)
            memcpy(more, l->v, l->n * sizeof *more);
        l->v = more;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return 0;
}

ns_jdict *ns_jdict_new(ns_jrun *r, size_t cap, bool untrusted)
{
    ns_jdict *d = ns_jrun_alloc(r, sizeof *d);
    if (!d)
        return NULL;
    *d = (ns_jdict){ .cap = cap, .v = ns_jrun_array(r, cap, sizeof *d->v), .untrusted = untrusted };
    return d->v ? d : NULL;
}

static int find_key(ns_jrun *r, const ns_jdict *d, ns_jval key, size_t *at)
{
    if (!ns_jval_hashable(key))
        return ns_jrun_fail(r, NS_EINVAL, "unhashable type: '%s'", ns_jval_type(key));
    if (ns_jrun_step(r, d->n * 8))
        return -1;
    for (size_t i = 0; i < d->n; i++) {
        bool eq = false;
        if (key.kind == NS_J_STR && d->v[i].k.kind == NS_J_STR)
            eq = ns_jstr_eq(key.s, d->v[i].k.s);
        else if (ns_jval_eq(r, key, d->v[i].k, &eq))
            return -1;
        *at = i;
        if (eq)
            return 1;
    }
    return 0;
}

int ns_jdict_find(ns_jrun *r, const ns_jdict *d, ns_jval key, ns_jval *out)
{
    size_t at = 0;
    int found = find_key(r, d, key, &at);
    if (found > 0)
        *out = d->v[at].v;
    return found;
}

int ns_jdict_findz(ns_jrun *r, const ns_jdict *d, const char *key, ns_jval *out)
{
    ns_jstr s = { .p = key, .n = strlen(key) };
    return ns_jdict_find(r, d, ns_jv_str(&s), out);
}

int ns_jdict_put(ns_jrun *r, ns_jdict *d, ns_jval key, ns_jval v)
{
    size_t at = 0;
    int found = find_key(r, d, key, &at);
    if (found < 0)
        return -1;
    if (found) {
        d->v[at].v = v;
        return 0;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 4;
        ns_jpair *p = ns_jrun_array(r, cap, sizeof *p);
        if (!p)
            return -1;
        if (d->n)
            memcpy(p, d->v, d->n * sizeof *p);
        d->v = p;
        d->cap = cap;
    }
    d->v[d->n++] = (ns_jpair){ key, v };
    return 0;
}

int ns_jiter_init(ns_jrun *r, ns_jiter *it, ns_jval v)
{
    *it = (ns_jiter){ .v = v };
    if (ns_jval_iterable(v))
        return 0;
    return ns_jrun_fail(r, NS_EINVAL, "'%s' object is not iterable", ns_jval_type(v));
}

static int next_pair(ns_jrun *r, const ns_jdict *d, size_t at, int view, ns_jval *out)
{
    if (view == NS_JVIEW_KEYS)
        *out = d->v[at].k;
    else if (view == NS_JVIEW_VALUES)
        *out = d->v[at].v;
    else {
        ns_jlist *l = ns_jlist_new(r, 2, d->untrusted);
        if (!l)
            return -1;
        l->v[0] = d->v[at].k;
        l->v[1] = d->v[at].v;
        *out = (ns_jval){ .kind = NS_J_TUPLE, .l = l };
    }
    return 1;
}

static int next_char(ns_jrun *r, ns_jiter *it, ns_jval *out)
{
    const ns_jstr *s = it->v.s;
    if (it->pos >= s->n)
        return 0;
    const char *p = s->p + it->pos;
    ns_jtext_next(&p, s->p + s->n);
    size_t n = (size_t)(p - s->p) - it->pos;
    ns_jstr *c = (ns_jstr *)ns_jstr_sub(r, s, it->pos, n);
    if (!c)
        return -1;
    c->markup = false; /* walking a safe string gives plain ones, indexing it does not */
    it->pos += n;
    *out = ns_jv_str(c);
    return 1;
}

int ns_jiter_next(ns_jrun *r, ns_jiter *it, ns_jval *out)
{
    if (ns_jrun_step(r, 0))
        return -1;
    switch (it->v.kind) {
    case NS_J_STR:
        return next_char(r, it, out);
    case NS_J_LIST:
    case NS_J_TUPLE:
        if (it->pos >= it->v.l->n)
            return 0;
        *out = it->v.l->v[it->pos++];
        return 1;
    case NS_J_DICT:
    case NS_J_VIEW:
        if (it->pos >= it->v.d->n)
            return 0;
        return next_pair(r, it->v.d, it->pos++, it->v.kind == NS_J_DICT ? NS_JVIEW_KEYS : it->v.aux, out);
    case NS_J_RANGE:
        if ((int64_t)it->pos >= it->v.r->n)
            return 0;
        *out = ns_jv_int(it->v.r->start + (int64_t)it->pos++ * it->v.r->step);
        return 1;
    case NS_J_ITER:
        return ns_jrun_force(r, it->v.it) ? -1 : ns_jiter_next(r, it->v.it, out);
    case NS_J_LOOP:
        return ns_jloop_next(r, it->v.loop, out);
    default:
        return 0;
    }
}

int ns_jval_list(ns_jrun *r, ns_jval v, ns_jlist **out)
{
    ns_jiter it;
    ns_jval item;
    int rc;
    ns_jlist *l = NULL;
    if (ns_jiter_init(r, &it, v) || !(l = ns_jlist_new(r, 0, ns_jval_untrusted(v))))
        return -1;
    while ((rc = ns_jiter_next(r, &it, &item)) > 0)
        if (ns_jlist_push(r, l, item))
            return -1;
    *out = l;
    return rc;
}

int ns_jval_len(ns_jrun *r, ns_jval v, int64_t *out)
{
    switch (v.kind) {
    case NS_J_UNDEF:
        *out = 0;
        return 0;
    case NS_J_STR:
        *out = (int64_t)ns_jtext_count(v.s->p, v.s->n);
        return ns_jrun_step(r, v.s->n);
    case NS_J_LIST:
    case NS_J_TUPLE:
        *out = (int64_t)v.l->n;
        return 0;
    case NS_J_DICT:
    case NS_J_VIEW:
        *out = (int64_t)v.d->n;
        return 0;
    case NS_J_RANGE:
        *out = v.r->n;
        return 0;
    case NS_J_LOOP: {
        ns_jval n;
        if (ns_jloop_attr(r, v.loop, "length", &n))
            return -1;
        *out = n.i;
        return 0;
    }
    default:
        return ns_jrun_fail(r, NS_EINVAL, "object of type '%s' has no len()", ns_jval_type(v));
    }
}
