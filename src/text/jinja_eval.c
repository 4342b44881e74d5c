/* Expressions. */
#include <string.h>

#include "text/jinja_run.h"

static int eval_name(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    const char *name = r->tpl->names[n->id];
    const ns_jval *v = ns_jscope_find(r->scope, n->id);
    if (v && v->kind != NS_J_MISSING) {
        *out = *v;
        return 0;
    }
    const ns_jbuiltin *g = v ? NULL : ns_jglobal_find(name);
    *out = g ? (ns_jval){ .kind = NS_J_FUNC, .func = g } : ns_jv_undef(name, NS_JUNDEF_NAME);
    return 0;
}

static int eval_list(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    size_t count = 0;
    for (const ns_jnode *k = n->a; k; k = k->next)
        count++;
    ns_jlist *l = ns_jlist_new(r, count, false);
    if (!l)
        return -1;
    count = 0;
    for (const ns_jnode *k = n->a; k; k = k->next)
        if (ns_jrun_eval(r, k, &l->v[count++]))
            return -1;
    *out = (ns_jval){ .kind = n->kind == NS_JN_TUPLE ? NS_J_TUPLE : NS_J_LIST, .l = l };
    return 0;
}

static int eval_dict(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jdict *d = ns_jdict_new(r, 4, false);
    if (!d)
        return -1;
    for (const ns_jnode *k = n->a; k; k = k->next->next) {
        ns_jval key, v;
        if (ns_jrun_eval(r, k, &key) || ns_jrun_eval(r, k->next, &v) || ns_jdict_put(r, d, key, v))
            return -1;
    }
    *out = (ns_jval){ .kind = NS_J_DICT, .d = d };
    return 0;
}

static int eval_cond(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    if (ns_jrun_eval(r, n->a, out))
        return -1;
    if (ns_jval_truth(*out))
        return ns_jrun_eval(r, n->b, out);
    if (n->c)
        return ns_jrun_eval(r, n->c, out);
    *out = ns_jv_undef("the inline if was false and has no else", NS_JUNDEF_HINT);
    return 0;
}

static int eval_logic(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    if (ns_jrun_eval(r, n->a, out))
        return -1;
    if (n->kind == NS_JN_NOT) {
        *out = ns_jv_bool(!ns_jval_truth(*out));
        return 0;
    }
    return ns_jval_truth(*out) == (n->kind == NS_JN_AND) ? ns_jrun_eval(r, n->b, out) : 0;
}

static int eval_compare(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jval left, right;
    bool yes = true;
    if (ns_jrun_eval(r, n->a, &left))
        return -1;
    for (const ns_jnode *o = n->b; o && yes; o = o->next, left = right)
        if (ns_jrun_eval(r, o->a, &right) || ns_jrun_compare(r, o->op, left, right, &yes))
            return -1;
    *out = ns_jv_bool(yes);
    return 0;
}

static int eval_binary(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jval a, b;
    if (ns_jrun_eval(r, n->a, &a) || ns_jrun_eval(r, n->b, &b))
        return -1;
    r->line = n->line;
    return ns_jrun_binary(r, n->op, a, b, out);
}

static int eval_sign(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jval a;
    if (ns_jrun_eval(r, n->a, &a) || ns_jrun_negate(r, a, out))
        return -1;
    if (n->kind == NS_JN_POS) /* negated only for its checks; True becomes 1 */
        *out = a.kind == NS_J_FLOAT ? a : ns_jv_int(a.i);
    return 0;
}

static int eval_concat(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    const ns_jstr *s = NULL;
    for (const ns_jnode *k = n->a; k; k = k->next) {
        ns_jval v;
        if (ns_jrun_eval(r, k, &v))
            return -1;
        const ns_jstr *part = ns_jval_str(r, v);
        if (part && part->markup) { /* ~ makes plain strings of everything */
            ns_jstr *plain = (ns_jstr *)ns_jstr_sub(r, part, 0, part->n);
            if (plain)
                plain->markup = false;
            part = plain;
        }
        s = part && s ? ns_jstr_cat(r, s, part) : part;
        if (!s)
            return -1;
    }
    *out = ns_jv_str(s);
    return 0;
}

static int eval_getattr(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jval o;
    if (ns_jrun_eval(r, n->a, &o))
        return -1;
    r->line = n->line;
    return ns_jrun_getattr(r, o, r->tpl->names[n->id], out);
}

static int eval_getitem(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jval o, key;
    if (ns_jrun_eval(r, n->a, &o) || ns_jrun_eval(r, n->b, &key))
        return -1;
    r->line = n->line;
    return ns_jrun_getitem(r, o, key, out);
}

static int eval_slice(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jval o, bound[3];
    const ns_jnode *const at[3] = { n->b, n->c, n->d };
    if (ns_jrun_eval(r, n->a, &o))
        return -1;
    for (int i = 0; i < 3; i++) {
        bound[i] = ns_jv_none();
        if (at[i] && ns_jrun_eval(r, at[i], &bound[i]))
            return -1;
    }
    r->line = n->line;
    return ns_jrun_slice(r, o, bound, out);
}

static int eval_call(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jval f;
    ns_jargs args;
    if (ns_jrun_eval(r, n->a, &f) || ns_jrun_args(r, n->b, &args))
        return -1;
    r->line = n->line;
    int rc = ns_jrun_call(r, f, &args, out);
    r->line = n->line;
    return rc;
}

static int eval_filter(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jval self = r->captured;
    ns_jargs args;
    const char *sort = n->kind == NS_JN_FILTER ? "filter" : "test";
    if ((n->a && ns_jrun_eval(r, n->a, &self)) || ns_jrun_args(r, n->b, &args))
        return -1;
    r->line = n->line;
    if (!n->builtin)
        return ns_jrun_fail(r, NS_EINVAL, "no %s named '%s'", sort, r->tpl->names[n->id]);
    return ns_jrun_invoke(r, n->builtin, sort, self, &args, out);
}

static int eval(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    switch (n->kind) {
    case NS_JN_CONST:
        *out = n->val;
        return 0;
    case NS_JN_NAME:
        return eval_name(r, n, out);
    case NS_JN_LIST:
    case NS_JN_TUPLE:
        return eval_list(r, n, out);
    case NS_JN_DICT:
        return eval_dict(r, n, out);
    case NS_JN_COND:
        return eval_cond(r, n, out);
    case NS_JN_OR:
    case NS_JN_AND:
    case NS_JN_NOT:
        return eval_logic(r, n, out);
    case NS_JN_COMPARE:
        return eval_compare(r, n, out);
    case NS_JN_BINARY:
        return eval_binary(r, n, out);
    case NS_JN_NEG:
    case NS_JN_POS:
        return eval_sign(r, n, out);
    case NS_JN_CONCAT:
        return eval_concat(r, n, out);
    case NS_JN_GETATTR:
        return eval_getattr(r, n, out);
    case NS_JN_GETITEM:
        return eval_getitem(r, n, out);
    case NS_JN_SLICE:
        return eval_slice(r, n, out);
    case NS_JN_CALL:
        return eval_call(r, n, out);
    default:
        return eval_filter(r, n, out);
    }
}

int ns_jrun_eval(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    r->line = n->line;
    if (ns_jrun_enter(r))
        return -1;
    int rc = eval(r, n, out);
    r->depth--;
    return rc;
}
