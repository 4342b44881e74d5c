/* The machinery of the parser: failures, nodes, identifiers, tokens; and the entry point. */
#include "text/jinja_parse.h"

#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

void *ns_jparse_fail(ns_jparser *p, int line, enum ns_code code, const char *fmt, ...)
{
    ns_err inner = { 0 };
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ns_fail(&inner, code, "%s:%d: %s", p->tpl->what, line, text);
    ns_fail(p->err, code, "%s", inner.msg);
    return NULL;
}

ns_jnode *ns_jparse_node(ns_jparser *p, enum ns_jnode_kind kind, int line)
{
    ns_jnode *n = ns_arena_alloc(&p->tpl->arena, sizeof *n);
    if (!n)
        return ns_jparse_fail(p, line, NS_ENOMEM, "out of memory");
    n->kind = (uint8_t)kind;
    n->line = line;
    return n;
}

bool ns_jparse_enter(ns_jparser *p)
{
    if (p->depth >= NS_JAST_NESTING) {
        ns_jparse_fail(p, p->tok->line, NS_EUNSUPPORTED, "nesting deeper than %d", NS_JAST_NESTING);
        return false;
    }
    p->depth++;
    return true;
}

static unsigned hash(const char *s)
{
    unsigned h = 2166136261u; /* FNV-1a */
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

/* Doubles the identifier table and the array of names with it. */
static int grow_names(ns_jparser *p)
{
    int size = p->table_size ? 2 * p->table_size : 256;
    int *table = ns_arena_array(&p->tpl->arena, (size_t)size, sizeof *table);
    const char **names = ns_arena_array(&p->tpl->arena, (size_t)size, sizeof *names);
    if (!table || !names)
        return -1;
    for (int i = 0; i < p->tpl->n_names; i++) {
        unsigned at = hash(names[i] = p->tpl->names[i]) & (unsigned)(size - 1);
        while (table[at])
            at = (at + 1) & (unsigned)(size - 1);
        table[at] = i + 1;
    }
    p->table = table;
    p->table_size = size;
    p->tpl->names = names;
    return 0;
}

int ns_jparse_intern(ns_jparser *p, const char *name)
{
    if (2 * p->tpl->n_names >= p->table_size && grow_names(p)) {
        ns_jparse_fail(p, p->tok->line, NS_ENOMEM, "out of memory");
        return -1;
    }
    unsigned mask = (unsigned)(p->table_size - 1), at = hash(name) & mask;
    for (; p->table[at]; at = (at + 1) & mask)
        if (strcmp(p->tpl->names[p->table[at] - 1], name) == 0)
            return p->table[at] - 1;
    p->tpl->names[p->tpl->n_names] = name;
    p->table[at] = p->tpl->n_names + 1;
    return p->tpl->n_names++;
}

bool ns_jparse_is_name(const ns_jparser *p, const char *name)
{
    return p->tok->kind == NS_JT_NAME && strcmp(p->tok->p, name) == 0;
}

bool ns_jparse_is_op(const ns_jparser *p, int op)
{
    return p->tok->kind == NS_JT_OP && p->tok->op == op;
}

bool ns_jparse_skip_name(ns_jparser *p, const char *name)
{
    bool yes = ns_jparse_is_name(p, name);
    p->tok += yes;
    return yes;
}

bool ns_jparse_skip_op(ns_jparser *p, int op)
{
    bool yes = ns_jparse_is_op(p, op);
    p->tok += yes;
    return yes;
}

const char *ns_jparse_describe(const ns_jtok *t, char out[60])
{
    static const char *const fixed[] = { "the end of the template", "text", "{{", "}}", "{%", "%}" };
    if (t->kind < NS_JT_NAME)
        return fixed[t->kind];
    snprintf(out, 60, t->kind == NS_JT_STR ? "the string '%.*s'" : "'%.*s'", (int)(t->n < 40 ? t->n : 40), t->p);
    return out;
}

bool ns_jparse_expect_op(ns_jparser *p, int op)
{
    char got[60], want[3] = { (char)op, (char)(op >> 8), '\0' };
    if (ns_jparse_skip_op(p, op))
        return true;
    ns_jparse_fail(p, p->tok->line, NS_EFORMAT, "expected '%s', got %s", want, ns_jparse_describe(p->tok, got));
    return false;
}

const char *ns_jparse_expect_name(ns_jparser *p)
{
    char got[60];
    if (p->tok->kind == NS_JT_NAME)
        return p->tok++->p;
    return ns_jparse_fail(p, p->tok->line, NS_EFORMAT, "expected a name, got %s", ns_jparse_describe(p->tok, got));
}

bool ns_jparse_expect(ns_jparser *p, enum ns_jtok_kind kind)
{
    char got[60];
    if (p->tok->kind == kind) {
        p->tok++;
        return true;
    }
    ns_jparse_fail(p, p->tok->line, NS_EFORMAT, "expected %s, got %s", kind == NS_JT_VAR_END ? "}}" : "%}",
                   ns_jparse_describe(p->tok, got));
    return false;
}

static int parse_all(ns_jinja *t, const ns_jtok *tok, ns_err *e)
{
    static const char *const own[NS_JID_COUNT] = { "loop", "caller", "varargs", "kwargs" };
    ns_jparser p = { .tpl = t, .tok = tok, .err = e };
    for (int i = 0; i < NS_JID_COUNT; i++)
        if (ns_jparse_intern(&p, own[i]) != i)
            return -1;
    t->root = ns_jparse_list(&p, NULL, NULL, NULL);
    if (t->root && p.unknown.n)
        ns_jparse_fail(&p, p.unknown.line, NS_EFORMAT, "no %s named '%s'", p.unknown.sort, p.unknown.name);
    return t->root && p.unknown.n == 0 ? 0 : -1;
}

ns_jinja *ns_jinja_parse(const char *src, size_t n, const char *what, ns_err *e)
{
    ns_jtok *tok = NULL;
    ns_jinja *t = NULL, *ok = NULL;
    if (n > NS_JAST_SOURCE || ns_utf8_valid(src, n) != n) {
        ns_fail(e, NS_EFORMAT, n > NS_JAST_SOURCE ? "%s: template over 1 MiB" : "%s: template is not UTF-8", what);
        goto out;
    }
    t = calloc(1, sizeof *t);
    if (!t || !(t->what = ns_arena_strdup(&t->arena, what))) {
        ns_fail(e, NS_ENOMEM, "%s: out of memory", what);
        goto out;
    }
    tok = ns_jlex(&t->arena, t->what, src, n, e);
    if (tok && parse_all(t, tok, e) == 0)
        ok = t;
out:
    free(tok);
    if (!ok)
        ns_jinja_free(t);
    return ok;
}

void ns_jinja_free(ns_jinja *t)
{
    if (!t)
        return;
    ns_arena_release(&t->arena);
    free(t);
}
