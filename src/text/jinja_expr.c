/* Expressions: the precedence and the oddities of jinja2/parser.py (a filter binds to a negated number as a whole, a
 * chained comparison is one node, adjacent string literals join). */
#include <string.h>

#include "text/jinja_parse.h"

static ns_jnode *parse_or(ns_jparser *p);

static ns_jnode *parse_unary(ns_jparser *p, bool with_filters)
{
    int line = p->tok->line;
    ns_jnode *n;
    if (!ns_jparse_enter(p))
        return NULL;
    if (ns_jparse_skip_op(p, '-'))
        n = ns_jparse_wrap(p, NS_JN_NEG, line, parse_unary(p, false), NULL);
    else if (ns_jparse_skip_op(p, '+'))
        n = ns_jparse_wrap(p, NS_JN_POS, line, parse_unary(p, false), NULL);
    else
        n = ns_jparse_primary(p);
    n = ns_jparse_postfix(p, n);
    if (with_filters)
        n = ns_jparse_tail(p, n);
    p->depth--;
    return n;
}

static ns_jnode *binary(ns_jparser *p, int op, ns_jnode *a, ns_jnode *b)
{
    ns_jnode *n = a && b ? ns_jparse_wrap(p, NS_JN_BINARY, a->line, a, b) : NULL;
    if (n)
        n->op = (uint16_t)op;
    return n;
}

static ns_jnode *parse_pow(ns_jparser *p)
{
    ns_jnode *n = parse_unary(p, true);
    while (n && ns_jparse_skip_op(p, NS_JOP('*', '*')))
        n = binary(p, NS_JOP('*', '*'), n, parse_unary(p, true));
    return n;
}

static ns_jnode *parse_product(ns_jparser *p)
{
    ns_jnode *n = parse_pow(p);
    while (n && p->tok->kind == NS_JT_OP) {
        int op = p->tok->op;
        if (op != '*' && op != '/' && op != '%' && op != NS_JOP('/', '/'))
            break;
        p->tok++;
        n = binary(p, op, n, parse_pow(p));
    }
    return n;
}

static ns_jnode *parse_concat(ns_jparser *p)
{
    int line = p->tok->line;
    ns_jnode *first = parse_product(p);
    if (!first || !ns_jparse_is_op(p, '~'))
        return first;
    ns_jnode *n = ns_jparse_wrap(p, NS_JN_CONCAT, line, first, NULL), **tail = &first->next;
    while (n && ns_jparse_skip_op(p, '~')) {
        ns_jnode *item = parse_product(p);
        if (!item)
            return NULL;
        ns_jparse_append(&tail, item);
    }
    return n;
}

static ns_jnode *parse_sum(ns_jparser *p)
{
    ns_jnode *n = parse_concat(p);
    while (n && (ns_jparse_is_op(p, '+') || ns_jparse_is_op(p, '-'))) {
        int op = p->tok++->op;
        n = binary(p, op, n, parse_concat(p));
    }
    return n;
}

/* The comparison operator at the current token, past which it moves; 0 when there is none. */
static int comparison(ns_jparser *p)
{
    static const int ops[] = { NS_JOP('=', '='), NS_JOP('!', '='), NS_JOP('>', '='), NS_JOP('<', '='), '<', '>' };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (ns_jparse_skip_op(p, ops[i]))
            return ops[i];
    if (ns_jparse_skip_name(p, "in"))
        return NS_JOP_IN;
    if (!ns_jparse_is_name(p, "not") || p->tok[1].kind != NS_JT_NAME || strcmp(p->tok[1].p, "in") != 0)
        return 0;
    p->tok += 2;
    return NS_JOP_NOT_IN;
}

static ns_jnode *parse_compare(ns_jparser *p)
{
    int line = p->tok->line, op;
    ns_jnode *first = parse_sum(p), *n = NULL, **tail = NULL;
    while (first && (op = comparison(p)) != 0) {
        if (!n) {
            n = ns_jparse_wrap(p, NS_JN_COMPARE, line, first, NULL);
            if (!n)
                return NULL;
            tail = &n->b;
        }
        ns_jnode *o = ns_jparse_wrap(p, NS_JN_OPERAND, p->tok->line, parse_sum(p), NULL);
        if (!o)
            return NULL;
        o->op = (uint16_t)op;
        ns_jparse_append(&tail, o);
    }
    return n ? n : first;
}

static ns_jnode *parse_not(ns_jparser *p)
{
    int line = p->tok->line;
    if (!ns_jparse_skip_name(p, "not"))
        return parse_compare(p);
    if (!ns_jparse_enter(p))
        return NULL;
    ns_jnode *n = ns_jparse_wrap(p, NS_JN_NOT, line, parse_not(p), NULL);
    p->depth--;
    return n;
}

static ns_jnode *both(ns_jparser *p, enum ns_jnode_kind kind, ns_jnode *a, ns_jnode *b)
{
    return a && b ? ns_jparse_wrap(p, kind, a->line, a, b) : NULL;
}

static ns_jnode *parse_and(ns_jparser *p)
{
    ns_jnode *n = parse_not(p);
    while (n && ns_jparse_skip_name(p, "and"))
        n = both(p, NS_JN_AND, n, parse_not(p));
    return n;
}

static ns_jnode *parse_or(ns_jparser *p)
{
    ns_jnode *n = parse_and(p);
    while (n && ns_jparse_skip_name(p, "or"))
        n = both(p, NS_JN_OR, n, parse_and(p));
    return n;
}

static ns_jnode *parse_cond(ns_jparser *p)
{
    int unknown = p->unknown.n;
    bool soft = p->soft;
    ns_jnode *n = parse_or(p);
    while (n && ns_jparse_is_name(p, "if")) {
        int line = p->tok++->line;
        p->unknown.n = unknown; /* what n holds is inside an inline if after all */
        p->soft = true;
        ns_jnode *test = parse_or(p), *other = NULL;
        if (test && ns_jparse_skip_name(p, "else") && !(other = ns_jparse_expression(p, true)))
            return NULL;
        p->soft = soft;
        ns_jnode *cond = test ? ns_jparse_wrap(p, NS_JN_COND, line, test, n) : NULL;
        if (cond)
            cond->c = other;
        n = cond;
    }
    return n;
}

ns_jnode *ns_jparse_expression(ns_jparser *p, bool with_cond)
{
    if (!ns_jparse_enter(p))
        return NULL;
    ns_jnode *n = with_cond ? parse_cond(p) : parse_or(p);
    p->depth--;
    return n;
}

static bool tuple_end(const ns_jparser *p, const char *stop)
{
    return p->tok->kind == NS_JT_VAR_END || p->tok->kind == NS_JT_BLOCK_END || ns_jparse_is_op(p, ')') ||
           (stop && ns_jparse_is_name(p, stop));
}

static ns_jnode *parse_member(ns_jparser *p, bool target, bool with_cond, bool with_ns)
{
    if (!target)
        return ns_jparse_expression(p, with_cond);
    if (!with_ns || p->tok->kind != NS_JT_NAME || p->tok[1].kind != NS_JT_OP || p->tok[1].op != '.')
        return ns_jparse_primary(p);
    ns_jnode *n = ns_jparse_named(p, NS_JN_NSREF, p->tok->line, p->tok->p);
    p->tok += 2;
    const char *attr = ns_jparse_expect_name(p);
    if (!n || !attr || (n->id2 = ns_jparse_intern(p, attr)) < 0)
        return NULL;
    return n;
}

static ns_jnode *parse_members(ns_jparser *p, bool target, bool with_cond, bool with_ns, bool parentheses, const char *stop)
{
    int line = p->tok->line;
    bool is_tuple = false;
    char got[60];
    ns_jnode *first = NULL, **tail = &first;
    for (;;) {
        if (first && !ns_jparse_expect_op(p, ','))
            return NULL;
        if (tuple_end(p, stop))
            break;
        ns_jnode *n = parse_member(p, target, with_cond, with_ns);
        if (!n)
            return NULL;
        ns_jparse_append(&tail, n);
        if (!ns_jparse_is_op(p, ','))
            break;
        is_tuple = true;
    }
    if (!is_tuple && first)
        return first;
    if (!is_tuple && !parentheses)
        return ns_jparse_fail(p, line, NS_EFORMAT, "expected an expression, got %s", ns_jparse_describe(p->tok, got));
    ns_jnode *n = ns_jparse_node(p, NS_JN_TUPLE, line);
    if (n)
        n->a = first;
    return n;
}

ns_jnode *ns_jparse_tuple(ns_jparser *p, bool with_cond, bool parentheses, const char *stop)
{
    return parse_members(p, false, with_cond, false, parentheses, stop);
}

static bool assignable(ns_jnode *n)
{
    if (n->kind == NS_JN_NAME || n->kind == NS_JN_NSREF)
        return true;
    if (n->kind != NS_JN_TUPLE)
        return false;
    for (ns_jnode *k = n->a; k; k = k->next)
        if (!assignable(k))
            return false;
    return true;
}

ns_jnode *ns_jparse_target(ns_jparser *p, bool with_ns, const char *stop)
{
    int line = p->tok->line;
    unsigned uses = p->uses;
    ns_jnode *n = parse_members(p, true, false, with_ns, false, stop);
    p->uses = uses; /* assigned to, not used */
    if (n && !assignable(n))
        return ns_jparse_fail(p, line, NS_EFORMAT, "cannot assign to this expression");
    return n;
}
