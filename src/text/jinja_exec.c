/* Statements. Scopes: for, with, generation, macros, set, call and filter blocks have one of their own; if has none. */
#include <string.h>

#include "text/jinja_run.h"

static int assign(ns_jrun *r, const ns_jnode *target, ns_jval v);

static int assign_tuple(ns_jrun *r, const ns_jnode *target, ns_jval v)
{
    ns_jlist *l;
    size_t want = 0, i = 0;
    for (const ns_jnode *k = target->a; k; k = k->next)
        want++;
    if (ns_jval_list(r, v, &l))
        return -1;
    if (l->n != want)
        return ns_jrun_fail(r, NS_EINVAL, "%s values to unpack (expected %zu, got %zu)",
                            l->n > want ? "too many" : "not enough", want, l->n);
    for (const ns_jnode *k = target->a; k; k = k->next)
        if (assign(r, k, l->v[i++]))
            return -1;
    return 0;
}

static int assign_attribute(ns_jrun *r, const ns_jnode *target, ns_jval v)
{
    const char *attr = r->tpl->names[target->id2];
    const ns_jval *ns = ns_jscope_find(r->scope, target->id);
    if (!ns || ns->kind == NS_J_UNDEF)
        return ns_jrun_fail(r, NS_EINVAL, "'%s' is undefined", r->tpl->names[target->id]);
    if (ns->kind != NS_J_SPACE)
        return ns_jrun_fail(r, NS_EINVAL, "cannot assign attribute on non-namespace object '%s'", r->tpl->names[target->id]);
    const ns_jstr *key = ns_jstr_new(r, attr, strlen(attr), false);
    return key ? ns_jdict_put(r, ns->d, ns_jv_str(key), v) : -1;
}

static int assign(ns_jrun *r, const ns_jnode *target, ns_jval v)
{
    if (target->kind == NS_JN_NAME)
        return ns_jscope_set(r, r->scope, target->id, v);
    if (target->kind == NS_JN_NSREF)
        return assign_attribute(r, target, v);
    return assign_tuple(r, target, v);
}

static int exec_set(ns_jrun *r, const ns_jnode *n)
{
    ns_jval v;
    if (ns_jrun_eval(r, n->b, &v))
        return -1;
    r->line = n->line;
    return assign(r, n->a, v);
}

static int exec_output(ns_jrun *r, const ns_jnode *n)
{
    ns_jval v;
    if (ns_jrun_eval(r, n->a, &v))
        return -1;
    r->line = n->line;
    ns_jprint_str(r, v, r->out);
    return r->out->failed ? -1 : 0;
}

static int exec_if(ns_jrun *r, const ns_jnode *n)
{
    for (;;) {
        ns_jval test;
        if (ns_jrun_eval(r, n->a, &test))
            return -1;
        if (ns_jval_truth(test))
            return ns_jrun_exec(r, n->b);
        const ns_jnode *other = n->c;
        if (!other || other->kind != NS_JN_IF || other->next)
            return other ? ns_jrun_exec(r, other) : 0;
        n = other;
    }
}

/* Whether the loop's filter lets the item pass; its names are the loop's targets over what is around the loop. */
static int passes(ns_jrun *r, ns_jloop *lp, ns_jval item, bool *yes)
{
    ns_jval v = ns_jv_bool(true);
    ns_jscope *saved = r->scope;
    int rc = 0;
    if (lp->node && lp->node->c) {
        r->scope = ns_jscope_push(r, lp->outer);
        rc = r->scope && assign(r, lp->node->a, item) == 0 ? ns_jrun_eval(r, lp->node->c, &v) : -1;
        r->scope = saved;
    }
    *yes = ns_jval_truth(v);
    return rc;
}

/* The next item that passes: 1, 0 at the end. */
static int pull(ns_jrun *r, ns_jloop *lp, ns_jval *out)
{
    bool yes = false;
    int rc = 0;
    while (!yes && (rc = ns_jiter_next(r, &lp->it, out)) > 0)
        if (passes(r, lp, *out, &yes))
            return -1;
    return rc;
}

static int peek(ns_jrun *r, ns_jloop *lp)
{
    if (lp->has_after)
        return 1;
    int rc = pull(r, lp, &lp->after);
    lp->has_after = rc > 0;
    return rc;
}

int ns_jloop_next(ns_jrun *r, ns_jloop *lp, ns_jval *out)
{
    int rc = peek(r, lp);
    if (rc <= 0)
        return rc;
    lp->has_after = false;
    lp->index0++;
    lp->before = lp->current;
    lp->current = *out = lp->after;
    return 1;
}

/* The length: of what is walked, or for a filtered or one-way walk by taking the rest into a list. */
static int loop_length(ns_jrun *r, ns_jloop *lp)
{
    ns_jlist *rest;
    if (lp->length >= 0)
        return 0;
    if (!lp->node->c && ns_jval_has_len(lp->it.v))
        return ns_jval_len(r, lp->it.v, &lp->length);
    ns_jloop copy = *lp;
    ns_jval walk = { .kind = NS_J_LOOP, .loop = &copy };
    int64_t done = lp->index0 + 1;
    if (ns_jval_list(r, walk, &rest))
        return -1;
    lp->length = done + (int64_t)rest->n;
    lp->it = (ns_jiter){ .v = { .kind = NS_J_LIST, .l = rest } };
    lp->has_after = false;
    lp->node = NULL; /* the filter has been applied */
    return 0;
}

static int loop_neighbour(ns_jrun *r, ns_jloop *lp, bool next, ns_jval *out)
{
    int has = next ? peek(r, lp) : lp->index0 > 0;
    if (has < 0)
        return -1;
    if (has)
        *out = next ? lp->after : lp->before;
    else
        *out = ns_jv_undef(next ? "there is no next item" : "there is no previous item", NS_JUNDEF_HINT);
    return 0;
}

/* out is MISSING when loop has no such attribute. */
int ns_jloop_attr(ns_jrun *r, ns_jloop *lp, const char *name, ns_jval *out)
{
    static const char *const refused[] = { "cycle", "changed" };
    *out = (ns_jval){ .kind = NS_J_MISSING };
    if (strcmp(name, "previtem") == 0 || strcmp(name, "nextitem") == 0)
        return loop_neighbour(r, lp, *name == 'n', out);
    if (strcmp(name, "last") == 0) {
        int more = peek(r, lp);
        *out = ns_jv_bool(more == 0);
        return more < 0 ? -1 : 0;
    }
    bool length = strcmp(name, "length") == 0, rev = strcmp(name, "revindex") == 0, rev0 = strcmp(name, "revindex0") == 0;
    if ((length || rev || rev0) && loop_length(r, lp))
        return -1;
    if (strcmp(name, "index") == 0)
        *out = ns_jv_int(lp->index0 + 1);
    else if (strcmp(name, "index0") == 0)
        *out = ns_jv_int(lp->index0);
    else if (strcmp(name, "first") == 0)
        *out = ns_jv_bool(lp->index0 == 0);
    else if (strcmp(name, "depth") == 0 || strcmp(name, "depth0") == 0)
        *out = ns_jv_int(name[5] ? 0 : 1);
    else if (length || rev || rev0)
        *out = ns_jv_int(lp->length - (rev ? lp->index0 : rev0 ? lp->index0 + 1 : 0));
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(name, refused[i]) == 0)
            return ns_jrun_fail(r, NS_EUNSUPPORTED, "loop.%s is not supported", name);
    return 0;
}

/* One iteration in scope s, whose parent is the loop's surroundings. */
static int iterate(ns_jrun *r, const ns_jnode *n, ns_jloop *lp, ns_jscope *s, ns_jval item)
{
    ns_jval loop = { .kind = NS_J_LOOP, .loop = lp };
    r->scope = s;
    if (assign(r, n->a, item) || ns_jscope_set(r, s, NS_JID_LOOP, loop) || ns_jrun_exec(r, n->d))
        return -1;
    return 0;
}

static int run_loop(ns_jrun *r, const ns_jnode *n, ns_jloop *lp)
{
    ns_jscope *outer = r->scope, *s = NULL;
    ns_jval item;
    int rc;
    while ((rc = ns_jloop_next(r, lp, &item)) > 0) {
        if (!s || s->captured)
            s = ns_jscope_push(r, outer);
        if (!s)
            return -1;
        s->n = 0;
        rc = iterate(r, n, lp, s, item);
        r->scope = outer;
        if (rc)
            return -1;
        bool leave = r->flow == NS_JFLOW_BREAK;
        lp->completed |= r->flow == NS_JFLOW_ON;
        r->flow = NS_JFLOW_ON;
        if (leave)
            return 0;
    }
    return rc;
}

static int exec_scope(ns_jrun *r, const ns_jnode *sets, const ns_jnode *body)
{
    ns_jscope *outer = r->scope, *s = ns_jscope_push(r, outer);
    if (!s)
        return -1;
    for (const ns_jnode *k = sets; k; k = k->next) {
        ns_jval v;
        if (ns_jrun_eval(r, k->b, &v)) /* outside: the new names do not see each other */
            return -1;
        r->scope = s;
        int rc = assign(r, k->a, v);
        r->scope = outer;
        if (rc)
            return -1;
    }
    r->scope = s;
    int rc = ns_jrun_exec(r, body);
    r->scope = outer;
    return rc;
}

static int exec_for(ns_jrun *r, const ns_jnode *n)
{
    ns_jval v;
    ns_jloop *lp = ns_jrun_alloc(r, sizeof *lp);
    if (!lp || ns_jrun_eval(r, n->b, &v))
        return -1;
    *lp = (ns_jloop){ .node = n, .outer = r->scope, .index0 = -1, .length = -1 };
    r->line = n->line;
    if (ns_jiter_init(r, &lp->it, v) || run_loop(r, n, lp))
        return -1;
    return !lp->completed && n->e ? exec_scope(r, NULL, n->e) : 0;
}

int ns_jrun_capture(ns_jrun *r, const ns_jnode *body, ns_jval *out)
{
    ns_jbuf b = { 0 }, *saved = r->out;
    r->out = &b;
    int rc = ns_jrun_exec(r, body);
    r->out = saved;
    const ns_jstr *s = rc ? NULL : ns_jbuf_take(r, &b);
    *out = ns_jv_str(s);
    return s ? 0 : -1;
}

/* A body's text through a filter chain, if there is one. */
static int captured_value(ns_jrun *r, const ns_jnode *n, ns_jval *out)
{
    ns_jscope *outer = r->scope;
    ns_jval saved = r->captured;
    r->scope = ns_jscope_push(r, outer);
    int rc = r->scope ? ns_jrun_capture(r, n->d, out) : -1;
    r->scope = outer;
    if (rc || !n->b)
        return rc;
    r->captured = *out;
    rc = ns_jrun_eval(r, n->b, out);
    r->captured = saved;
    return rc;
}

static int exec_setblock(ns_jrun *r, const ns_jnode *n)
{
    ns_jval v;
    return captured_value(r, n, &v) ? -1 : assign(r, n->a, v);
}

static int exec_filterblock(ns_jrun *r, const ns_jnode *n)
{
    ns_jval v;
    if (captured_value(r, n, &v))
        return -1;
    ns_jprint_str(r, v, r->out);
    return r->out->failed ? -1 : 0;
}

static ns_jval make_macro(ns_jrun *r, const ns_jnode *n)
{
    ns_jmacro *m = ns_jrun_alloc(r, sizeof *m);
    if (!m)
        return (ns_jval){ .kind = NS_J_MISSING };
    *m = (ns_jmacro){ n, r->scope };
    for (ns_jscope *s = r->scope; s && !s->captured; s = s->parent)
        s->captured = true;
    return (ns_jval){ .kind = NS_J_MACRO, .macro = m };
}

static int exec_macro(ns_jrun *r, const ns_jnode *n)
{
    ns_jval m = make_macro(r, n);
    return m.kind == NS_J_MISSING ? -1 : ns_jscope_set(r, r->scope, n->id, m);
}

static int exec_callblock(ns_jrun *r, const ns_jnode *n)
{
    ns_jval f, body = make_macro(r, n->b), out;
    ns_jargs args;
    if (body.kind == NS_J_MISSING || ns_jrun_eval(r, n->a->a, &f) || ns_jrun_args(r, n->a->b, &args))
        return -1;
    const char **kw = ns_jrun_array(r, (size_t)args.nkw + 1, sizeof *kw);
    ns_jval *kwv = ns_jrun_array(r, (size_t)args.nkw + 1, sizeof *kwv);
    if (!kw || !kwv)
        return -1;
    for (int i = 0; i < args.nkw; i++) {
        kw[i] = args.kw[i];
        kwv[i] = args.kwv[i];
    }
    kw[args.nkw] = "caller";
    kwv[args.nkw++] = body;
    args.kw = kw;
    args.kwv = kwv;
    r->line = n->line;
    if (ns_jrun_call(r, f, &args, &out))
        return -1;
    ns_jprint_str(r, out, r->out);
    return r->out->failed ? -1 : 0;
}

static int exec_one(ns_jrun *r, const ns_jnode *n)
{
    switch (n->kind) {
    case NS_JN_TEXT:
        ns_jbuf_adds(r, r->out, n->val.s);
        return r->out->failed ? -1 : 0;
    case NS_JN_OUTPUT:
        return exec_output(r, n);
    case NS_JN_IF:
        return exec_if(r, n);
    case NS_JN_FOR:
        return exec_for(r, n);
    case NS_JN_SET:
        return exec_set(r, n);
    case NS_JN_SETBLOCK:
        return exec_setblock(r, n);
    case NS_JN_FILTERBLOCK:
        return exec_filterblock(r, n);
    case NS_JN_SCOPE:
        return exec_scope(r, n->a, n->d);
    case NS_JN_MACRO:
        return exec_macro(r, n);
    case NS_JN_CALLBLOCK:
        return exec_callblock(r, n);
    default:
        r->flow = n->kind == NS_JN_BREAK ? NS_JFLOW_BREAK : NS_JFLOW_CONTINUE;
        return 0;
    }
}

int ns_jrun_exec(ns_jrun *r, const ns_jnode *first)
{
    if (ns_jrun_enter(r))
        return -1;
    int rc = 0;
    for (const ns_jnode *n = first; n && rc == 0 && r->flow == NS_JFLOW_ON; n = n->next) {
        r->line = n->line;
        rc = ns_jrun_step(r, 0) ? -1 : exec_one(r, n);
    }
    r->depth--;
    return rc;
}
