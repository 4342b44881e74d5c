/* The operands of expressions: literals, names, and what follows them: subscripts, calls, filters, tests. */
#include <string.h>

#include "text/jinja_parse.h"
#include "text/jinja_run.h"

/* Appends to a list whose last link is *tail. */
void ns_jparse_append(ns_jnode ***tail, ns_jnode *n)
{
    **tail = n;
    *tail = &n->next;
}

ns_jnode *ns_jparse_wrap(ns_jparser *p, enum ns_jnode_kind kind, int line, ns_jnode *a, ns_jnode *b)
{
    ns_jnode *n = a ? ns_jparse_node(p, kind, line) : NULL;
    if (n) {
        n->a = a;
        n->b = b;
    }
    return n;
}

ns_jnode *ns_jparse_named(ns_jparser *p, enum ns_jnode_kind kind, int line, const char *name)
{
    ns_jnode *n = ns_jparse_node(p, kind, line);
    if (n && (n->id = ns_jparse_intern(p, name)) < 0)
        return NULL;
    return n;
}

static ns_jnode *constant(ns_jparser *p, int line, ns_jval v)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_CONST, line);
    if (n)
        n->val = v;
    return n;
}

static ns_jnode *parse_string(ns_jparser *p)
{
    const ns_jtok *first = p->tok;
    size_t n = 0;
    for (; p->tok->kind == NS_JT_STR; p->tok++)
        n += p->tok->n;
    ns_jstr *s = ns_arena_alloc(&p->tpl->arena, sizeof *s);
    char *text = ns_arena_alloc(&p->tpl->arena, n + 1);
    if (!s || !text)
        return ns_jparse_fail(p, first->line, NS_ENOMEM, "out of memory");
    *s = (ns_jstr){ .p = text, .n = n };
    for (const ns_jtok *t = first; t != p->tok; t++) {
        memcpy(text, t->p, t->n);
        text += t->n;
    }
    return constant(p, first->line, ns_jv_str(s));
}

static ns_jnode *parse_name(ns_jparser *p)
{
    static const struct { const char *name; unsigned use; } uses[] = {
        { "caller", NS_JUSES_CALLER }, { "varargs", NS_JUSES_VARARGS }, { "kwargs", NS_JUSES_KWARGS }
    };
    const ns_jtok *t = p->tok++;
    if (strcmp(t->p, "true") == 0 || strcmp(t->p, "True") == 0)
        return constant(p, t->line, ns_jv_bool(true));
    if (strcmp(t->p, "false") == 0 || strcmp(t->p, "False") == 0)
        return constant(p, t->line, ns_jv_bool(false));
    if (strcmp(t->p, "none") == 0 || strcmp(t->p, "None") == 0)
        return constant(p, t->line, ns_jv_none());
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++)
        if (strcmp(t->p, uses[i].name) == 0)
            p->uses |= uses[i].use;
    return ns_jparse_named(p, NS_JN_NAME, t->line, t->p);
}

/* [a, b] and {k: v}, behind the opening bracket. */
static ns_jnode *parse_items(ns_jparser *p, enum ns_jnode_kind kind, int line, int close)
{
    ns_jnode *n = ns_jparse_node(p, kind, line), **tail = n ? &n->a : NULL;
    while (n && !ns_jparse_is_op(p, close)) {
        if (n->a && !ns_jparse_expect_op(p, ','))
            return NULL;
        if (ns_jparse_is_op(p, close))
            break;
        ns_jnode *item = ns_jparse_expression(p, true);
        if (!item)
            return NULL;
        ns_jparse_append(&tail, item);
        if (kind != NS_JN_DICT)
            continue;
        if (!ns_jparse_expect_op(p, ':') || !(item = ns_jparse_expression(p, true)))
            return NULL;
        ns_jparse_append(&tail, item);
    }
    return n && ns_jparse_expect_op(p, close) ? n : NULL;
}

ns_jnode *ns_jparse_primary(ns_jparser *p)
{
    const ns_jtok *t = p->tok;
    char got[60];
    if (t->kind == NS_JT_NAME)
        return parse_name(p);
    if (t->kind == NS_JT_STR)
        return parse_string(p);
    p->tok++;
    if (t->kind == NS_JT_INT)
        return constant(p, t->line, ns_jv_int(t->i));
    if (t->kind == NS_JT_FLOAT)
        return constant(p, t->line, ns_jv_float(t->f));
    if (t->kind == NS_JT_OP && t->op == '(') {
        ns_jnode *n = ns_jparse_tuple(p, true, true, NULL);
        return n && ns_jparse_expect_op(p, ')') ? n : NULL;
    }
    if (t->kind == NS_JT_OP && t->op == '[')
        return parse_items(p, NS_JN_LIST, t->line, ']');
    if (t->kind == NS_JT_OP && t->op == '{')
        return parse_items(p, NS_JN_DICT, t->line, '}');
    p->tok = t;
    return ns_jparse_fail(p, t->line, NS_EFORMAT, "unexpected %s", ns_jparse_describe(t, got));
}

static bool slice_bound(ns_jparser *p, ns_jnode **out)
{
    if (ns_jparse_is_op(p, ':') || ns_jparse_is_op(p, ']') || ns_jparse_is_op(p, ','))
        return true;
    *out = ns_jparse_expression(p, true);
    return *out != NULL;
}

/* Behind "[": an index or a slice. */
static ns_jnode *parse_bracket(ns_jparser *p, ns_jnode *object, int line)
{
    ns_jnode *bound[3] = { NULL, NULL, NULL };
    if (!slice_bound(p, &bound[0]))
        return NULL;
    if (!ns_jparse_is_op(p, ':')) {
        if (!bound[0])
            return ns_jparse_fail(p, line, NS_EFORMAT, "empty subscript");
        if (ns_jparse_is_op(p, ','))
            return ns_jparse_fail(p, line, NS_EUNSUPPORTED, "a subscript of several parts is not supported");
        return ns_jparse_expect_op(p, ']') ? ns_jparse_wrap(p, NS_JN_GETITEM, line, object, bound[0]) : NULL;
    }
    for (int i = 1; i < 3 && ns_jparse_skip_op(p, ':'); i++)
        if (!slice_bound(p, &bound[i]))
            return NULL;
    if (!ns_jparse_expect_op(p, ']'))
        return NULL;
    ns_jnode *n = ns_jparse_wrap(p, NS_JN_SLICE, line, object, bound[0]);
    if (n) {
        n->c = bound[1];
        n->d = bound[2];
    }
    return n;
}

static ns_jnode *parse_subscript(ns_jparser *p, ns_jnode *object)
{
    const ns_jtok *t = p->tok++;
    if (t->op == '[')
        return parse_bracket(p, object, t->line);
    if (p->tok->kind == NS_JT_NAME) {
        ns_jnode *n = ns_jparse_named(p, NS_JN_GETATTR, t->line, p->tok->p);
        if (n)
            n->a = object;
        p->tok++;
        return n;
    }
    if (p->tok->kind != NS_JT_INT)
        return ns_jparse_fail(p, t->line, NS_EFORMAT, "expected a name or number behind the dot");
    ns_jnode *index = constant(p, t->line, ns_jv_int(p->tok->i));
    p->tok++;
    return index ? ns_jparse_wrap(p, NS_JN_GETITEM, t->line, object, index) : NULL;
}

static ns_jnode *parse_arg(ns_jparser *p)
{
    int line = p->tok->line;
    if (ns_jparse_skip_op(p, '*'))
        return ns_jparse_wrap(p, NS_JN_STAR, line, ns_jparse_expression(p, true), NULL);
    if (ns_jparse_skip_op(p, NS_JOP('*', '*')))
        return ns_jparse_wrap(p, NS_JN_STARSTAR, line, ns_jparse_expression(p, true), NULL);
    if (p->tok->kind != NS_JT_NAME || p->tok[1].kind != NS_JT_OP || p->tok[1].op != '=')
        return ns_jparse_expression(p, true);
    ns_jnode *n = ns_jparse_named(p, NS_JN_KEYWORD, line, p->tok->p);
    p->tok += 2;
    if (n && !(n->a = ns_jparse_expression(p, true)))
        return NULL;
    return n;
}

/* "(a, *b, c=1, **d)"; *out is the list, possibly empty. The order is Python's: plain, starred, named, double-starred. */
static bool parse_args(ns_jparser *p, ns_jnode **out)
{
    int line = p->tok->line, stage = 0;
    ns_jnode **tail = out;
    *out = NULL;
    if (!ns_jparse_expect_op(p, '('))
        return false;
    while (!ns_jparse_is_op(p, ')')) {
        if (*out && !ns_jparse_expect_op(p, ','))
            return false;
        if (ns_jparse_is_op(p, ')'))
            break;
        ns_jnode *n = parse_arg(p);
        if (!n)
            return false;
        bool star = n->kind == NS_JN_STAR, star2 = n->kind == NS_JN_STARSTAR, key = n->kind == NS_JN_KEYWORD;
        int rank = star2 ? 3 : star ? 2 : key ? 1 : 0;
        if (stage == 3 || (rank == 0 && stage > 0) || (rank == 2 && stage == 2)) {
            ns_jparse_fail(p, line, NS_EFORMAT, "arguments in an order Python does not allow");
            return false;
        }
        stage = rank > stage ? rank : stage;
        ns_jparse_append(&tail, n);
    }
    return ns_jparse_expect_op(p, ')');
}

static ns_jnode *parse_call(ns_jparser *p, ns_jnode *callee)
{
    ns_jnode *n = ns_jparse_wrap(p, NS_JN_CALL, p->tok->line, callee, NULL);
    if (!n || !parse_args(p, &n->b))
        return NULL;
    const ns_jbuiltin *g = callee->kind == NS_JN_NAME ? ns_jglobal_find(p->tpl->names[callee->id]) : NULL;
    if (g && !g->fn)
        return ns_jparse_fail(p, n->line, NS_EUNSUPPORTED, "function %s() is not supported", g->name);
    return n;
}

ns_jnode *ns_jparse_postfix(ns_jparser *p, ns_jnode *n)
{
    while (n && (ns_jparse_is_op(p, '.') || ns_jparse_is_op(p, '[') || ns_jparse_is_op(p, '(')))
        n = ns_jparse_is_op(p, '(') ? parse_call(p, n) : parse_subscript(p, n);
    return n;
}

/* Binds a filter or test to its builtin; see ns_junknown for names nobody knows. */
static ns_jnode *resolve(ns_jparser *p, ns_jnode *n, const char *sort, const char *name)
{
    n->builtin = n->kind == NS_JN_FILTER ? ns_jfilter_find(name) : ns_jtest_find(name);
    if (n->builtin && !n->builtin->fn)
        return ns_jparse_fail(p, n->line, NS_EUNSUPPORTED, "%s %s is not supported", sort, name);
    if (!n->builtin && !p->soft && p->unknown.n++ == 0)
        p->unknown = (ns_junknown){ 1, n->line, sort, name };
    return n;
}

static ns_jnode *parse_filter(ns_jparser *p, ns_jnode *object)
{
    int line = p->tok->line;
    const char *name = ns_jparse_expect_name(p);
    ns_jnode *n = name ? ns_jparse_named(p, NS_JN_FILTER, line, name) : NULL;
    if (!n)
        return NULL;
    n->a = object;
    if (ns_jparse_is_op(p, '.'))
        return ns_jparse_fail(p, line, NS_EFORMAT, "no filter named '%s.'", name);
    if (ns_jparse_is_op(p, '(') && !parse_args(p, &n->b))
        return NULL;
    return resolve(p, n, "filter", name);
}

ns_jnode *ns_jparse_filters(ns_jparser *p, ns_jnode *n, bool at_name)
{
    bool first = at_name;
    while (first || ns_jparse_skip_op(p, '|')) {
        first = false;
        n = parse_filter(p, n);
        if (!n)
            return NULL;
    }
    return n;
}

/* `x is divisibleby 3`: an argument without parentheses is a primary with its subscripts. */
static bool test_has_bare_arg(const ns_jparser *p)
{
    const ns_jtok *t = p->tok;
    if (t->kind == NS_JT_NAME)
        return !ns_jparse_is_name(p, "else") && !ns_jparse_is_name(p, "or") && !ns_jparse_is_name(p, "and");
    return t->kind == NS_JT_STR || t->kind == NS_JT_INT || t->kind == NS_JT_FLOAT || ns_jparse_is_op(p, '[') ||
           ns_jparse_is_op(p, '{');
}

static ns_jnode *parse_test(ns_jparser *p, ns_jnode *object)
{
    int line = p->tok++->line;
    bool negated = ns_jparse_skip_name(p, "not");
    const char *name = ns_jparse_expect_name(p);
    ns_jnode *n = name ? ns_jparse_named(p, NS_JN_TEST, line, name) : NULL;
    if (!n)
        return NULL;
    n->a = object;
    if (ns_jparse_is_op(p, '(')) {
        if (!parse_args(p, &n->b))
            return NULL;
    } else if (test_has_bare_arg(p)) {
        if (ns_jparse_is_name(p, "is"))
            return ns_jparse_fail(p, line, NS_EFORMAT, "tests with `is` cannot be chained");
        n->b = ns_jparse_postfix(p, ns_jparse_primary(p));
        if (!n->b)
            return NULL;
    }
    n = resolve(p, n, "test", name);
    return n && negated ? ns_jparse_wrap(p, NS_JN_NOT, line, n, NULL) : n;
}

ns_jnode *ns_jparse_tail(ns_jparser *p, ns_jnode *n)
{
    while (n) {
        if (ns_jparse_is_op(p, '|'))
            n = ns_jparse_filters(p, n, false);
        else if (ns_jparse_is_name(p, "is"))
            n = parse_test(p, n);
        else if (ns_jparse_is_op(p, '('))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}
