/* Methods of str that look for something: affixes, find, count, partition, split. */
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

#define METHOD(name) int name(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
#define UNUSED (void)args, (void)a

static int give(const ns_jstr *s, ns_jval *out)
{
    *out = ns_jv_str(s);
    return s ? 0 : -1;
}

/* Narrows *s to [start:end] as Python's searching methods do; *base: code points cut off in front. false: out of range. */
static int window(ns_jrun *r, const ns_jstr **s, ns_jval start, ns_jval end, int64_t *base, bool *valid)
{
    const ns_jval none = ns_jv_none();
    ns_jval bound[3] = { start.kind == NS_J_MISSING ? none : start, end.kind == NS_J_MISSING ? none : end, none }, cut;
    int64_t len;
    *base = 0;
    *valid = true;
    if (bound[0].kind == NS_J_NONE && bound[1].kind == NS_J_NONE)
        return 0;
    if (ns_jval_len(r, ns_jv_str(*s), &len) || ns_jrun_slice(r, ns_jv_str(*s), bound, &cut))
        return -1;
    if (ns_jv_is_int(bound[0])) {
        *base = bound[0].i < 0 ? bound[0].i + len : bound[0].i;
        *base = *base < 0 ? 0 : *base;
        *valid = *base <= len;
    }
    *s = cut.s;
    return 0;
}

static bool affix(const ns_jstr *s, const ns_jstr *x, bool tail)
{
    return x->n <= s->n && (x->n == 0 || memcmp(tail ? s->p + s->n - x->n : s->p, x->p, x->n) == 0);
}

/* startswith and endswith: a string or a tuple of them. */
static int has_affix(ns_jrun *r, ns_jval self, const ns_jval *a, bool tail, ns_jval *out)
{
    const ns_jstr *s = self.s, *x;
    int64_t base;
    bool yes = false, valid;
    if (window(r, &s, a[1], a[2], &base, &valid))
        return -1;
    if (a[0].kind == NS_J_TUPLE) {
        for (size_t i = 0; i < a[0].l->n; i++) {
            if (ns_jarg_str(r, a[0].l->v[i], &x))
                return -1;
            yes |= valid && affix(s, x, tail);
        }
    } else {
        if (ns_jarg_str(r, a[0], &x))
            return -1;
        yes = valid && affix(s, x, tail);
    }
    *out = ns_jv_bool(yes);
    return 0;
}

METHOD(ns_jmethod_startswith)
{
    UNUSED;
    return has_affix(r, self, a, false, out);
}

METHOD(ns_jmethod_endswith)
{
    UNUSED;
    return has_affix(r, self, a, true, out);
}

static const char *rfind_bytes(const ns_jstr *s, const ns_jstr *x)
{
    if (x->n > s->n)
        return NULL;
    for (const char *p = s->p + (s->n - x->n);; p--) {
        if (x->n == 0 || memcmp(p, x->p, x->n) == 0)
            return p;
        if (p == s->p)
            return NULL;
    }
}

/* Code point index of x in self, -1 when it is not there. */
static int search(ns_jrun *r, ns_jval self, const ns_jval *a, bool last, int64_t *at)
{
    const ns_jstr *s = self.s, *x;
    int64_t base;
    bool valid;
    if (ns_jarg_str(r, a[0], &x) || window(r, &s, a[1], a[2], &base, &valid) || ns_jrun_step(r, s->n + (last ? s->n * 8 : 0)))
        return -1;
    const char *hit = !valid ? NULL : last ? rfind_bytes(s, x) : x->n == 0 ? s->p : memmem(s->p, s->n, x->p, x->n);
    *at = hit ? base + (int64_t)ns_jtext_count(s->p, (size_t)(hit - s->p)) : -1;
    return 0;
}

static int find(ns_jrun *r, ns_jval self, const ns_jval *a, bool last, bool must, ns_jval *out)
{
    int64_t at;
    if (search(r, self, a, last, &at))
        return -1;
    if (must && at < 0)
        return ns_jrun_fail(r, NS_EINVAL, "substring not found");
    *out = ns_jv_int(at);
    return 0;
}

METHOD(ns_jmethod_find)
{
    UNUSED;
    return find(r, self, a, false, false, out);
}

METHOD(ns_jmethod_rfind)
{
    UNUSED;
    return find(r, self, a, true, false, out);
}

METHOD(ns_jmethod_index)
{
    UNUSED;
    return find(r, self, a, false, true, out);
}

METHOD(ns_jmethod_rindex)
{
    UNUSED;
    return find(r, self, a, true, true, out);
}

METHOD(ns_jmethod_count)
{
    UNUSED;
    const ns_jstr *s = self.s, *x;
    int64_t base, n = 0;
    bool valid;
    if (ns_jarg_str(r, a[0], &x) || window(r, &s, a[1], a[2], &base, &valid) || ns_jrun_step(r, s->n))
        return -1;
    if (x->n == 0)
        n = valid ? (int64_t)ns_jtext_count(s->p, s->n) + 1 : 0;
    for (size_t from = 0; x->n && s->n - from >= x->n; n++) {
        const char *hit = memmem(s->p + from, s->n - from, x->p, x->n);
        if (!hit)
            break;
        from = (size_t)(hit - s->p) + x->n;
    }
    *out = ns_jv_int(n);
    return 0;
}

static int remove_affix(ns_jrun *r, ns_jval self, const ns_jval *a, bool tail, ns_jval *out)
{
    const ns_jstr *x;
    if (ns_jarg_str(r, a[0], &x))
        return -1;
    size_t n = affix(self.s, x, tail) ? x->n : 0;
    return give(ns_jstr_sub(r, self.s, tail ? 0 : n, self.s->n - n), out);
}

METHOD(ns_jmethod_removeprefix)
{
    UNUSED;
    return remove_affix(r, self, a, false, out);
}

METHOD(ns_jmethod_removesuffix)
{
    UNUSED;
    return remove_affix(r, self, a, true, out);
}

static int partition(ns_jrun *r, ns_jval self, const ns_jval *a, bool last, ns_jval *out)
{
    const ns_jstr *s = self.s, *x;
    ns_jlist *l = ns_jlist_new(r, 3, ns_jval_untrusted(self));
    if (!l || ns_jarg_str(r, a[0], &x) || ns_jrun_step(r, s->n * (last ? 9 : 1)))
        return -1;
    if (x->n == 0)
        return ns_jrun_fail(r, NS_EINVAL, "empty separator");
    const char *hit = last ? rfind_bytes(s, x) : memmem(s->p, s->n, x->p, x->n);
    size_t at = hit ? (size_t)(hit - s->p) : last ? 0 : s->n, n = hit ? x->n : 0;
    l->v[0] = ns_jv_str(ns_jstr_sub(r, s, 0, at));
    l->v[1] = ns_jv_str(ns_jstr_sub(r, s, at, n));
    l->v[2] = ns_jv_str(ns_jstr_sub(r, s, at + n, s->n - at - n));
    *out = (ns_jval){ .kind = NS_J_TUPLE, .l = l };
    return l->v[0].s && l->v[1].s && l->v[2].s ? 0 : -1;
}

METHOD(ns_jmethod_partition)
{
    UNUSED;
    return partition(r, self, a, false, out);
}

METHOD(ns_jmethod_rpartition)
{
    UNUSED;
    return partition(r, self, a, true, out);
}

typedef struct splitter {
    ns_jrun *r;
    const ns_jstr *s, *sep; /* sep NULL: runs of white space */
    int64_t left;           /* cuts still allowed; negative: any number */
    ns_jlist *l;
} splitter;

static int push(splitter *sp, size_t from, size_t to)
{
    return ns_jlist_push_sub(sp->r, sp->l, sp->s, from, to);
}

static size_t skip(const ns_jstr *s, size_t from, bool spaces)
{
    const char *p = s->p + from, *end = s->p + s->n;
    while (p < end) {
        const char *q = p;
        if (ns_jtext_space(ns_jtext_next(&q, end)) != spaces)
            break;
        p = q;
    }
    return (size_t)(p - s->p);
}

static size_t skip_back(const ns_jstr *s, size_t to, bool spaces)
{
    const char *p = s->p + to;
    while (p > s->p) {
        const char *q = p;
        if (ns_jtext_space(ns_jtext_prev(&q, s->p)) != spaces)
            break;
        p = q;
    }
    return (size_t)(p - s->p);
}

static int split_words(splitter *sp)
{
    size_t from = skip(sp->s, 0, true);
    while (from < sp->s->n) {
        size_t to = sp->left-- == 0 ? sp->s->n : skip(sp->s, from, false);
        /* After the last allowed cut the rest is one part, trailing blanks included. */
        if (push(sp, from, to))
            return -1;
        from = to == sp->s->n ? to : skip(sp->s, to, true);
    }
    return 0;
}

static int rsplit_words(splitter *sp)
{
    size_t to = skip_back(sp->s, sp->s->n, true);
    while (to > 0) {
        size_t from = sp->left-- == 0 ? 0 : skip_back(sp->s, to, false);
        if (push(sp, from, to))
            return -1;
        to = from == 0 ? 0 : skip_back(sp->s, from, true);
    }
    return 0;
}

static int split_at(splitter *sp)
{
    size_t from = 0;
    while (sp->left-- != 0) {
        const char *hit = memmem(sp->s->p + from, sp->s->n - from, sp->sep->p, sp->sep->n);
        if (!hit)
            break;
        size_t at = (size_t)(hit - sp->s->p);
        if (push(sp, from, at))
            return -1;
        from = at + sp->sep->n;
    }
    return push(sp, from, sp->s->n);
}

static int rsplit_at(splitter *sp)
{
    size_t to = sp->s->n;
    while (sp->left-- != 0) {
        size_t at = to;
        bool hit = false;
        for (; !hit && at >= sp->sep->n; at -= !hit)
            hit = memcmp(sp->s->p + at - sp->sep->n, sp->sep->p, sp->sep->n) == 0;
        if (!hit)
            break;
        if (push(sp, at, to))
            return -1;
        to = at - sp->sep->n;
    }
    return push(sp, 0, to);
}

static void reverse(ns_jlist *l)
{
    for (size_t i = 0; i + 1 < l->n - i; i++) {
        ns_jval v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
}

static int split(ns_jrun *r, ns_jval self, const ns_jval *a, bool right, ns_jval *out)
{
    splitter sp = { .r = r, .s = self.s, .l = ns_jlist_new(r, 0, ns_jval_untrusted(self)) };
    if (!sp.l || ns_jarg_int(r, a[1], -1, &sp.left) || ns_jrun_step(r, self.s->n * (right ? 8 : 1)))
        return -1;
    if (a[0].kind != NS_J_MISSING && a[0].kind != NS_J_NONE && ns_jarg_str(r, a[0], &sp.sep))
        return -1;
    if (sp.sep && sp.sep->n == 0)
        return ns_jrun_fail(r, NS_EINVAL, "empty separator");
    if (right ? (sp.sep ? rsplit_at(&sp) : rsplit_words(&sp)) : (sp.sep ? split_at(&sp) : split_words(&sp)))
        return -1;
    if (right && sp.l->n)
        reverse(sp.l);
    *out = (ns_jval){ .kind = NS_J_LIST, .l = sp.l };
    return 0;
}

METHOD(ns_jmethod_split)
{
    UNUSED;
    return split(r, self, a, false, out);
}

METHOD(ns_jmethod_rsplit)
{
    UNUSED;
    return split(r, self, a, true, out);
}
