/* str.split and rsplit, and the methods of list, tuple and dict. The sandbox forbids those that change their object. */
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

#define METHOD(name) static int name(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
#define UNUSED (void)args, (void)a

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

int ns_jmethod_split(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
{
    UNUSED;
    return split(r, self, a, false, out);
}

int ns_jmethod_rsplit(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
{
    UNUSED;
    return split(r, self, a, true, out);
}

METHOD(d_get)
{
    UNUSED;
    int found = ns_jdict_find(r, self.d, a[0], out);
    if (found == 0)
        *out = a[1].kind == NS_J_MISSING ? ns_jv_none() : a[1];
    return found < 0 ? -1 : 0;
}

static int view(ns_jval self, enum ns_jview what, ns_jval *out)
{
    *out = (ns_jval){ .kind = NS_J_VIEW, .aux = (uint8_t)what, .d = self.d };
    return 0;
}

METHOD(d_items)
{
    UNUSED, (void)r;
    return view(self, NS_JVIEW_ITEMS, out);
}

METHOD(d_keys)
{
    UNUSED, (void)r;
    return view(self, NS_JVIEW_KEYS, out);
}

METHOD(d_values)
{
    UNUSED, (void)r;
    return view(self, NS_JVIEW_VALUES, out);
}

METHOD(copy) /* nothing changes, so the same will do */
{
    UNUSED, (void)r;
    *out = self;
    return 0;
}

METHOD(l_count)
{
    UNUSED;
    ns_jiter it;
    ns_jval v;
    int64_t n = 0;
    int rc;
    if (ns_jiter_init(r, &it, self))
        return -1;
    while ((rc = ns_jiter_next(r, &it, &v)) > 0) {
        bool eq;
        if (ns_jval_eq(r, v, a[0], &eq))
            return -1;
        n += eq;
    }
    *out = ns_jv_int(n);
    return rc;
}

METHOD(l_index)
{
    UNUSED;
    ns_jiter it;
    ns_jval v;
    int rc;
    if (ns_jiter_init(r, &it, self))
        return -1;
    for (int64_t i = 0; (rc = ns_jiter_next(r, &it, &v)) > 0; i++) {
        bool eq;
        if (ns_jval_eq(r, v, a[0], &eq))
            return -1;
        if (eq) {
            *out = ns_jv_int(i);
            return 0;
        }
    }
    return rc < 0 ? -1 : ns_jrun_fail(r, NS_EINVAL, "value is not in the %s", ns_jval_type(self));
}

static bool listed(const char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

const ns_jbuiltin *ns_jmethod_find_box(enum ns_jkind kind, const char *name, bool *mutates)
{
    static const ns_jbuiltin dict[] = { { "get", "/key ?default", d_get }, { "items", "", d_items }, { "keys", "", d_keys },
                                        { "values", "", d_values }, { "copy", "", copy }, { "fromkeys", NULL, NULL } };
    static const ns_jbuiltin list[] = { { "count", "/value", l_count }, { "index", "/value", l_index }, { "copy", "", copy } };
    static const char *const dict_changes[] = { "clear", "pop", "popitem", "setdefault", "update" };
    static const char *const list_changes[] = { "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort" };
    bool is_dict = kind == NS_J_DICT;
    *mutates = is_dict ? listed(dict_changes, sizeof dict_changes / sizeof *dict_changes, name)
                       : kind == NS_J_LIST && listed(list_changes, sizeof list_changes / sizeof *list_changes, name);
    size_t n = is_dict ? sizeof dict / sizeof *dict : sizeof list / sizeof *list - (kind != NS_J_LIST); /* tuples lack copy */
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, is_dict ? dict[i].name : list[i].name) == 0)
            return is_dict ? &dict[i] : &list[i];
    return NULL;
}
