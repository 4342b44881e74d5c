/* Calls: arguments, macros, builtins. */
#include <string.h>

#include "text/jinja_run.h"

static int add_starred(ns_jrun *r, ns_jval v, ns_jargs *args)
{
    ns_jlist *l;
    if (ns_jval_list(r, v, &l))
        return -1;
    ns_jval *all = ns_jrun_array(r, (size_t)args->n + l->n, sizeof *all);
    if (!all)
        return -1;
    if (args->n)
        memcpy(all, args->v, (size_t)args->n * sizeof *all);
    if (l->n)
        memcpy(all + args->n, l->v, l->n * sizeof *all);
    args->v = all;
    args->n += (int)l->n;
    return 0;
}

static int add_keyword(ns_jrun *r, ns_jargs *args, const char *name, ns_jval v)
{
    for (int i = 0; i < args->nkw; i++)
        if (strcmp(args->kw[i], name) == 0)
            return ns_jrun_fail(r, NS_EINVAL, "keyword argument '%s' given twice", name);
    const char **kw = ns_jrun_array(r, (size_t)args->nkw + 1, sizeof *kw);
    ns_jval *kwv = ns_jrun_array(r, (size_t)args->nkw + 1, sizeof *kwv);
    if (!kw || !kwv)
        return -1;
    if (args->nkw) {
        memcpy(kw, args->kw, (size_t)args->nkw * sizeof *kw);
        memcpy(kwv, args->kwv, (size_t)args->nkw * sizeof *kwv);
    }
    kw[args->nkw] = name;
    kwv[args->nkw] = v;
    args->kw = kw;
    args->kwv = kwv;
    args->nkw++;
    return ns_jrun_step(r, (size_t)args->nkw * 16);
}

static int add_double_starred(ns_jrun *r, ns_jval v, ns_jargs *args)
{
    if (v.kind != NS_J_DICT)
        return ns_jrun_fail(r, NS_EINVAL, "argument after ** must be a mapping, not %s", ns_jval_type(v));
    for (size_t i = 0; i < v.d->n; i++) {
        if (v.d->v[i].k.kind != NS_J_STR)
            return ns_jrun_fail(r, NS_EINVAL, "keywords must be strings");
        const char *name = ns_jstr_cstr(r, v.d->v[i].k.s);
        if (!name || add_keyword(r, args, name, v.d->v[i].v))
            return -1;
    }
    return 0;
}

int ns_jrun_args(ns_jrun *r, const ns_jnode *first, ns_jargs *out)
{
    size_t plain = 0;
    for (const ns_jnode *k = first; k; k = k->next)
        plain += k->kind < NS_JN_KEYWORD || k->kind > NS_JN_STARSTAR;
    *out = (ns_jargs){ 0 };
    if (plain && !(out->v = ns_jrun_array(r, plain, sizeof *out->v)))
        return -1;
    for (const ns_jnode *k = first; k; k = k->next) {
        bool special = k->kind >= NS_JN_KEYWORD && k->kind <= NS_JN_STARSTAR;
        ns_jval v;
        if (ns_jrun_eval(r, special ? k->a : k, &v))
            return -1;
        if (!special)
            out->v[out->n++] = v;
        else if (k->kind == NS_JN_KEYWORD ? add_keyword(r, out, r->tpl->names[k->id], v)
                 : k->kind == NS_JN_STAR  ? add_starred(r, v, out)
                                          : add_double_starred(r, v, out))
            return -1;
    }
    return 0;
}

/* The next name of a spec into word[30]; false at its end. */
static bool next_param(const char **spec, char word[30], bool *optional)
{
    while (**spec == ' ')
        (*spec)++;
    if (!**spec)
        return false;
    *optional = **spec == '?';
    *spec += *optional;
    size_t n = strcspn(*spec, " ");
    memcpy(word, *spec, n);
    word[n] = '\0';
    *spec += n;
    return true;
}

enum { PARAMS = 8 };

static int bind_spec(ns_jrun *r, const ns_jbuiltin *b, const char *sort, const ns_jargs *args, ns_jval a[PARAMS])
{
    const char *spec = b->spec;
    bool by_name = *spec != '/', optional;
    char word[30];
    int n = 0, used = 0;
    for (spec += !by_name; next_param(&spec, word, &optional); n++) {
        a[n] = n < args->n ? args->v[n] : (ns_jval){ .kind = NS_J_MISSING };
        for (int k = 0; by_name && k < args->nkw; k++) {
            if (strcmp(args->kw[k], word) != 0)
                continue;
            if (a[n].kind != NS_J_MISSING)
                return ns_jrun_fail(r, NS_EINVAL, "%s %s: argument '%s' given twice", sort, b->name, word);
            a[n] = args->kwv[k];
            used++;
        }
        if (a[n].kind == NS_J_MISSING && !optional)
            return ns_jrun_fail(r, NS_EINVAL, "%s %s: argument '%s' is missing", sort, b->name, word);
    }
    if (args->n > n)
        return ns_jrun_fail(r, NS_EINVAL, "%s %s takes at most %d arguments, not %d", sort, b->name, n, args->n);
    for (int k = 0; used < args->nkw && k < args->nkw; k++)
        if (!by_name || !strstr(b->spec, args->kw[k]))
            return ns_jrun_fail(r, NS_EINVAL, "%s %s takes no keyword argument '%s'", sort, b->name, args->kw[k]);
    return used == args->nkw ? 0 : ns_jrun_fail(r, NS_EINVAL, "%s %s: unexpected keyword argument", sort, b->name);
}

int ns_jrun_invoke(ns_jrun *r, const ns_jbuiltin *b, const char *sort, ns_jval self, const ns_jargs *args, ns_jval *out)
{
    ns_jval a[PARAMS];
    if (ns_jrun_enter(r))
        return -1;
    int rc = -1;
    if (!b->fn)
        ns_jrun_fail(r, NS_EUNSUPPORTED, "%s %s is not supported", sort, b->name);
    else if (!b->spec || bind_spec(r, b, sort, args, a) == 0)
        rc = b->fn(r, self, args, a, out);
    r->depth--;
    return rc;
}

int ns_jrun_force(ns_jrun *r, ns_jiter *it)
{
    ns_jlazy *z = it->lazy;
    if (!z)
        return 0;
    it->lazy = NULL;
    if (ns_jrun_enter(r))
        return -1;
    int rc = z->fn(r, z->self, &z->args, z->a, &it->v);
    r->depth--;
    return rc;
}

static int keyword_index(const ns_jargs *args, const char *name)
{
    for (int i = 0; i < args->nkw; i++)
        if (strcmp(args->kw[i], name) == 0)
            return i;
    return -1;
}

/* varargs and kwargs: what no parameter took. */
static int bind_rest(ns_jrun *r, const ns_jnode *m, const ns_jargs *args, int n_params, const bool *taken)
{
    if (m->uses & NS_JUSES_VARARGS) {
        int n = args->n > n_params ? args->n - n_params : 0;
        ns_jlist *l = ns_jlist_new(r, (size_t)n, false);
        if (!l)
            return -1;
        if (n)
            memcpy(l->v, args->v + n_params, (size_t)n * sizeof *l->v);
        if (ns_jscope_set(r, r->scope, NS_JID_VARARGS, (ns_jval){ .kind = NS_J_TUPLE, .l = l }))
            return -1;
    } else if (args->n > n_params)
        return ns_jrun_fail(r, NS_EINVAL, "macro '%s' takes not more than %d arguments", r->tpl->names[m->id], n_params);
    ns_jdict *d = ns_jdict_new(r, (size_t)args->nkw, false);
    if (!d)
        return -1;
    for (int i = 0; i < args->nkw; i++) {
        if (taken[i])
            continue;
        if (!(m->uses & NS_JUSES_KWARGS))
            return ns_jrun_fail(r, NS_EINVAL, "macro '%s' takes no keyword argument '%s'", r->tpl->names[m->id], args->kw[i]);
        const ns_jstr *k = ns_jstr_new(r, args->kw[i], strlen(args->kw[i]), false);
        if (!k || ns_jdict_put(r, d, ns_jv_str(k), args->kwv[i]))
            return -1;
    }
    if (m->uses & NS_JUSES_KWARGS)
        return ns_jscope_set(r, r->scope, NS_JID_KWARGS, (ns_jval){ .kind = NS_J_DICT, .d = d });
    return 0;
}

/* A default is evaluated in the macro's scope, so it may use the parameters before it. */
static int bind_default(ns_jrun *r, const ns_jnode *param)
{
    ns_jval v = ns_jv_undef(r->tpl->names[param->id], NS_JUNDEF_NAME);
    if (param->a && ns_jrun_eval(r, param->a, &v))
        return -1;
    return ns_jscope_set(r, r->scope, param->id, v);
}

static int bind_params(ns_jrun *r, const ns_jnode *m, const ns_jargs *args)
{
    int n = 0;
    bool *taken = ns_jrun_array(r, (size_t)args->nkw + 1, sizeof *taken), explicit_caller = false;
    if (!taken)
        return -1;
    memset(taken, 0, (size_t)args->nkw + 1);
    for (const ns_jnode *p = m->a; p; p = p->next, n++) {
        int k = n < args->n ? -1 : keyword_index(args, r->tpl->names[p->id]);
        explicit_caller |= p->id == NS_JID_CALLER;
        if (k >= 0)
            taken[k] = true;
        if (n < args->n || k >= 0 ? ns_jscope_set(r, r->scope, p->id, k >= 0 ? args->kwv[k] : args->v[n]) : 0)
            return -1;
    }
    if ((m->uses & NS_JUSES_CALLER) && !explicit_caller) {
        int k = keyword_index(args, "caller");
        if (k >= 0)
            taken[k] = true;
        ns_jval v = k >= 0 ? args->kwv[k] : ns_jv_undef("No caller defined", NS_JUNDEF_HINT);
        if (ns_jscope_set(r, r->scope, NS_JID_CALLER, v))
            return -1;
    }
    if (bind_rest(r, m, args, n, taken))
        return -1;
    n = 0;
    for (const ns_jnode *p = m->a; p; p = p->next, n++)
        if (n >= args->n && keyword_index(args, r->tpl->names[p->id]) < 0 && bind_default(r, p))
            return -1;
    return 0;
}

static int call_macro(ns_jrun *r, const ns_jmacro *m, const ns_jargs *args, ns_jval *out)
{
    if (r->calls >= NS_JRUN_CALLS)
        return ns_jrun_fail(r, NS_EINVAL, "macro calls nested deeper than %d", NS_JRUN_CALLS);
    ns_jscope *saved = r->scope;
    r->scope = ns_jscope_push(r, m->scope);
    r->calls++;
    int rc = r->scope && bind_params(r, m->node, args) == 0 ? ns_jrun_capture(r, m->node->d, out) : -1;
    r->calls--;
    r->scope = saved;
    return rc;
}

int ns_jrun_call(ns_jrun *r, ns_jval f, const ns_jargs *args, ns_jval *out)
{
    switch (f.kind) {
    case NS_J_MACRO:
        return call_macro(r, f.macro, args, out);
    case NS_J_FUNC:
        return ns_jrun_invoke(r, f.func, "function", ns_jv_none(), args, out);
    case NS_J_METHOD:
        return ns_jrun_invoke(r, f.method->b, "method", f.method->self, args, out);
    case NS_J_UNDEF:
        return ns_jrun_undefined(r, f);
    default:
        return ns_jrun_fail(r, NS_EINVAL, "'%s' object is not callable", ns_jval_type(f));
    }
}
