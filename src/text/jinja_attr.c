/* x.name, x[key] and x[a:b:c] with the sandbox's rules: a dot looks for a method first, brackets for an item first, a name
 * with a leading underscore or a method that changes its object is unsafe, and what is not there is undefined. */
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

static int bind(ns_jrun *r, const ns_jbuiltin *b, ns_jval self, ns_jval *out)
{
    ns_jmethod *m = ns_jrun_alloc(r, sizeof *m);
    if (!m)
        return -1;
    if (!b->fn)
        return ns_jrun_fail(r, NS_EUNSUPPORTED, "method .%s() of a %s is not supported", b->name, ns_jval_type(self));
    *m = (ns_jmethod){ b, self };
    *out = (ns_jval){ .kind = NS_J_METHOD, .method = m };
    return 0;
}

/* Python attributes: 1 found (or unsafe), 0 none, -1 failed. */
static int python_attr(ns_jrun *r, ns_jval o, const char *name, ns_jval *out)
{
    bool mutates = false;
    const ns_jbuiltin *b = NULL;
    if (o.kind == NS_J_STR)
        b = ns_jmethod_find_str(name);
    else if (o.kind == NS_J_DICT || o.kind == NS_J_LIST || o.kind == NS_J_TUPLE || o.kind == NS_J_RANGE)
        b = ns_jmethod_find_box(o.kind, name, &mutates);
    else if (o.kind == NS_J_LOOP)
        return ns_jloop_attr(r, o.loop, name, out) ? -1 : out->kind != NS_J_MISSING;
    else if (o.kind == NS_J_SPACE) {
        int found = ns_jdict_findz(r, o.d, name, out);
        if (found > 0 && name[0] == '_')
            *out = ns_jv_undef(name, NS_JUNDEF_UNSAFE);
        return found;
    }
    if (mutates) {
        *out = ns_jv_undef(name, NS_JUNDEF_UNSAFE);
        return 1;
    }
    if (!b)
        return 0;
    return bind(r, b, o, out) ? -1 : 1;
}

static int undefined(ns_jrun *r, ns_jval o, const ns_jstr *name, ns_jval *out)
{
    const char *z = ns_jstr_cstr(r, name);
    *out = ns_jv_undef(z, o.kind);
    return z ? 0 : -1;
}

int ns_jrun_getattr(ns_jrun *r, ns_jval o, const char *name, ns_jval *out)
{
    if (o.kind == NS_J_UNDEF)
        return ns_jrun_undefined(r, o);
    int found = python_attr(r, o, name, out);
    if (found == 0 && o.kind == NS_J_DICT)
        found = ns_jdict_findz(r, o.d, name, out);
    if (found == 0)
        *out = ns_jv_undef(name, o.kind); /* the name is the template's, or the caller's to keep */
    return found < 0 ? -1 : 0;
}

static int string_at(ns_jrun *r, const ns_jstr *s, int64_t i, ns_jval *out)
{
    size_t off;
    if (ns_jrun_step(r, s->n))
        return -1;
    if (i < 0) {
        i += (int64_t)ns_jtext_count(s->p, s->n);
        if (i < 0)
            return 0;
    }
    off = ns_jtext_offset(s->p, s->n, (size_t)i);
    if (off >= s->n)
        return 0;
    const char *p = s->p + off;
    ns_jtext_next(&p, s->p + s->n);
    const ns_jstr *c = ns_jstr_sub(r, s, off, (size_t)(p - s->p) - off);
    *out = ns_jv_str(c);
    return c ? 1 : -1;
}

/* o[key] as Python has it: 1 found, 0 not. */
static int python_item(ns_jrun *r, ns_jval o, ns_jval key, ns_jval *out)
{
    if (o.kind == NS_J_DICT)
        return ns_jval_hashable(key) ? ns_jdict_find(r, o.d, key, out) : 0;
    if (!ns_jv_is_int(key))
        return 0;
    if (o.kind == NS_J_STR)
        return string_at(r, o.s, key.i, out);
    int64_t n = o.kind == NS_J_RANGE ? o.r->n : o.kind == NS_J_LIST || o.kind == NS_J_TUPLE ? (int64_t)o.l->n : 0;
    int64_t i = key.i < 0 ? key.i + n : key.i;
    if (i < 0 || i >= n)
        return 0;
    *out = o.kind == NS_J_RANGE ? ns_jv_int(o.r->start + i * o.r->step) : o.l->v[i];
    return 1;
}

int ns_jrun_getitem(ns_jrun *r, ns_jval o, ns_jval key, ns_jval *out)
{
    if (o.kind == NS_J_UNDEF)
        return ns_jrun_undefined(r, o);
    int found = python_item(r, o, key, out);
    if (found < 0)
        return -1;
    if (found == 0 && key.kind == NS_J_STR) {
        const char *name = ns_jstr_cstr(r, key.s);
        if (!name)
            return -1;
        found = python_attr(r, o, name, out);
        if (found < 0)
            return -1;
        if (found == 0)
            *out = ns_jv_undef(name, o.kind);
        return 0;
    }
    if (found)
        return 0;
    const ns_jstr *text = key.kind == NS_J_STR ? key.s : ns_jval_str(r, key);
    return text ? undefined(r, o, text, out) : -1;
}

/* Python's slice.indices(). */
static int slice_bounds(ns_jrun *r, const ns_jval bound[3], int64_t len, int64_t *start, int64_t *stop, int64_t *step)
{
    for (int i = 0; i < 3; i++) {
        if (bound[i].kind == NS_J_UNDEF)
            return ns_jrun_undefined(r, bound[i]);
        if (bound[i].kind != NS_J_NONE && !ns_jv_is_int(bound[i]))
            return ns_jrun_fail(r, NS_EINVAL, "slice indices must be integers or None, not %s", ns_jval_type(bound[i]));
    }
    *step = bound[2].kind == NS_J_NONE ? 1 : bound[2].i;
    if (*step == 0)
        return ns_jrun_fail(r, NS_EINVAL, "slice step cannot be zero");
    if (*step < -INT64_MAX)
        *step = -INT64_MAX;
    int64_t low = *step < 0 ? -1 : 0, high = *step < 0 ? len - 1 : len;
    int64_t *to[2] = { start, stop };
    for (int i = 0; i < 2; i++) {
        int64_t v = bound[i].i;
        if (bound[i].kind == NS_J_NONE)
            v = (i == 0) == (*step > 0) ? low : high;
        else if (v < 0)
            v = v + len < low ? low : v + len;
        else if (v > high)
            v = high;
        *to[i] = v;
    }
    return 0;
}

static int64_t slice_count(int64_t start, int64_t stop, int64_t step)
{
    if (step > 0)
        return start < stop ? (stop - start - 1) / step + 1 : 0;
    return start > stop ? (start - stop - 1) / -step + 1 : 0;
}

static int slice_string(ns_jrun *r, const ns_jstr *s, int64_t start, int64_t step, int64_t count, ns_jval *out)
{
    ns_jlist *chars;
    ns_jbuf b = { 0 };
    if (step == 1) {
        size_t from = ns_jtext_offset(s->p, s->n, (size_t)start);
        size_t n = count ? ns_jtext_offset(s->p + from, s->n - from, (size_t)count) : 0;
        s = ns_jstr_sub(r, s, from, n);
        *out = ns_jv_str(s);
        return s ? ns_jrun_step(r, from + n) : -1;
    }
    if (ns_jval_list(r, ns_jv_str(s), &chars))
        return -1;
    for (int64_t i = 0; i < count && !b.failed; i++)
        ns_jbuf_adds(r, &b, chars->v[start + i * step].s);
    ns_jstr *made = (ns_jstr *)ns_jbuf_take(r, &b);
    if (made)
        made->markup = s->markup;
    *out = ns_jv_str(made);
    return made ? 0 : -1;
}

int ns_jrun_slice(ns_jrun *r, ns_jval o, const ns_jval bound[3], ns_jval *out)
{
    int64_t len = 0, start = 0, stop = 0, step = 1;
    if (o.kind == NS_J_UNDEF)
        return ns_jrun_undefined(r, o);
    if (o.kind != NS_J_STR && o.kind != NS_J_LIST && o.kind != NS_J_TUPLE && o.kind != NS_J_RANGE)
        return ns_jrun_fail(r, NS_EINVAL, "'%s' object cannot be sliced", ns_jval_type(o));
    if (ns_jval_len(r, o, &len) || slice_bounds(r, bound, len, &start, &stop, &step))
        return -1;
    int64_t count = slice_count(start, stop, step);
    if (o.kind == NS_J_STR)
        return slice_string(r, o.s, start, step, count, out);
    if (o.kind == NS_J_RANGE) {
        ns_jrange *g = ns_jrun_alloc(r, sizeof *g);
        if (!g || __builtin_mul_overflow(step, o.r->step, &step))
            return g ? ns_jrun_fail(r, NS_EINVAL, "range step does not fit 64 bits") : -1;
        /* The stop may lie past the last item, where only wrapping arithmetic is safe. */
        uint64_t past = (uint64_t)o.r->start + (uint64_t)stop * (uint64_t)o.r->step;
        *g = (ns_jrange){ o.r->start + start * o.r->step, (int64_t)past, step, count };
        *out = (ns_jval){ .kind = NS_J_RANGE, .r = g };
        return 0;
    }
    ns_jlist *l = ns_jlist_new(r, (size_t)count, o.l->untrusted);
    if (!l)
        return -1;
    for (int64_t i = 0; i < count; i++)
        l->v[i] = o.l->v[start + i * step];
    *out = (ns_jval){ .kind = o.kind, .l = l };
    return 0;
}
