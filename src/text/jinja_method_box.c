/* Methods of list, tuple and dict. The sandbox forbids those that change their object. */
#include <string.h>

#include "text/jinja_run.h"

#define METHOD(name) static int name(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
#define UNUSED (void)args, (void)a

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
    static const ns_jbuiltin list[] = { { "count", "/value", l_count }, { "index", "/value", l_index },
                                        { "copy", "", copy } };
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
