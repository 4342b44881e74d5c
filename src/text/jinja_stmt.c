/* Statements, and the refusal of those outside the subset. */
#include <string.h>

#include "text/jinja_parse.h"

static ns_jnode *parse_body(ns_jparser *p, const char *end1, const char *end2, const char *end3);

/* A body that is a scope of its own for `soft` (see ns_junknown). */
static ns_jnode *parse_hard_body(ns_jparser *p, const char *end1, const char *end2)
{
    bool soft = p->soft;
    p->soft = false;
    ns_jnode *n = parse_body(p, end1, end2, NULL);
    p->soft = soft;
    return n;
}

static bool parse_if_branches(ns_jparser *p, ns_jnode *n)
{
    for (;;) {
        n->a = ns_jparse_tuple(p, false, false, NULL);
        if (!n->a || !(n->b = parse_body(p, "elif", "else", "endif")))
            return false;
        int line = p->tok->line;
        if (ns_jparse_skip_name(p, "else"))
            return (n->c = parse_body(p, "endif", NULL, NULL)) != NULL && ns_jparse_skip_name(p, "endif");
        if (ns_jparse_skip_name(p, "endif"))
            return true;
        p->tok++; /* elif */
        n = n->c = ns_jparse_node(p, NS_JN_IF, line);
        if (!n)
            return false;
    }
}

static ns_jnode *parse_if(ns_jparser *p, int line)
{
    bool soft = p->soft;
    ns_jnode *n = ns_jparse_node(p, NS_JN_IF, line);
    p->soft = true;
    bool ok = n && parse_if_branches(p, n);
    p->soft = soft;
    return ok ? n : NULL;
}

static ns_jnode *parse_for(ns_jparser *p, int line)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_FOR, line);
    if (!n || !(n->a = ns_jparse_target(p, false, "in")))
        return NULL;
    if (!ns_jparse_skip_name(p, "in"))
        return ns_jparse_fail(p, line, NS_EFORMAT, "for without `in`");
    if (!(n->b = ns_jparse_tuple(p, false, false, "recursive")))
        return NULL;
    if (ns_jparse_skip_name(p, "if") && !(n->c = ns_jparse_expression(p, true)))
        return NULL;
    if (ns_jparse_is_name(p, "recursive"))
        return ns_jparse_fail(p, line, NS_EUNSUPPORTED, "for .. recursive is not supported");
    p->loops++;
    n->d = parse_hard_body(p, "endfor", "else");
    p->loops--;
    if (n->d && ns_jparse_skip_name(p, "else") && !(n->e = parse_hard_body(p, "endfor", NULL)))
        return NULL;
    return n->d && ns_jparse_skip_name(p, "endfor") ? n : NULL;
}

static ns_jnode *parse_set(ns_jparser *p, int line)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_SET, line);
    if (!n || !(n->a = ns_jparse_target(p, true, NULL)))
        return NULL;
    if (ns_jparse_skip_op(p, '='))
        return (n->b = ns_jparse_tuple(p, true, false, NULL)) ? n : NULL;
    n->kind = NS_JN_SETBLOCK;
    if (ns_jparse_is_op(p, '|') && !(n->b = ns_jparse_filters(p, NULL, false)))
        return NULL;
    n->d = parse_hard_body(p, "endset", NULL);
    return n->d && ns_jparse_skip_name(p, "endset") ? n : NULL;
}

static bool parse_params(ns_jparser *p, ns_jnode **out)
{
    ns_jnode **tail = out;
    bool defaults = false;
    if (!ns_jparse_expect_op(p, '('))
        return false;
    while (!ns_jparse_is_op(p, ')')) {
        if (*out && !ns_jparse_expect_op(p, ','))
            return false;
        int line = p->tok->line;
        const char *name = ns_jparse_expect_name(p);
        ns_jnode *n = name ? ns_jparse_node(p, NS_JN_PARAM, line) : NULL;
        if (!n || (n->id = ns_jparse_intern(p, name)) < 0)
            return false;
        if (ns_jparse_skip_op(p, '=')) {
            if (!(n->a = ns_jparse_expression(p, true)))
                return false;
            defaults = true;
        } else if (defaults) {
            ns_jparse_fail(p, line, NS_EFORMAT, "parameter '%s' without a default behind one with a default", name);
            return false;
        }
        *tail = n;
        tail = &n->next;
    }
    return ns_jparse_expect_op(p, ')');
}

/* The body of a macro or call block: loops around it cannot be broken out of, and it records which specials it uses. */
static bool parse_macro_body(ns_jparser *p, ns_jnode *n, const char *end)
{
    int loops = p->loops;
    unsigned uses = p->uses;
    p->loops = 0;
    p->uses = 0;
    n->d = parse_hard_body(p, end, NULL);
    n->uses = (uint8_t)p->uses;
    p->uses |= uses;
    p->loops = loops;
    return n->d && ns_jparse_skip_name(p, end);
}

static ns_jnode *parse_macro(ns_jparser *p, int line)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_MACRO, line);
    const char *name = n ? ns_jparse_expect_name(p) : NULL;
    if (!name || (n->id = ns_jparse_intern(p, name)) < 0 || !parse_params(p, &n->a))
        return NULL;
    return parse_macro_body(p, n, "endmacro") ? n : NULL;
}

static ns_jnode *parse_call_block(ns_jparser *p, int line)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_CALLBLOCK, line);
    if (!n || !(n->b = ns_jparse_node(p, NS_JN_MACRO, line)))
        return NULL;
    n->b->id = NS_JID_CALLER;
    if (ns_jparse_is_op(p, '(') && !parse_params(p, &n->b->a))
        return NULL;
    if (!(n->a = ns_jparse_expression(p, true)))
        return NULL;
    if (n->a->kind != NS_JN_CALL)
        return ns_jparse_fail(p, line, NS_EFORMAT, "{%% call %%} without a call");
    return parse_macro_body(p, n->b, "endcall") ? n : NULL;
}

static ns_jnode *parse_filter_block(ns_jparser *p, int line)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_FILTERBLOCK, line);
    if (!n || !(n->b = ns_jparse_filters(p, NULL, true)))
        return NULL;
    n->d = parse_hard_body(p, "endfilter", NULL);
    return n->d && ns_jparse_skip_name(p, "endfilter") ? n : NULL;
}

static ns_jnode *parse_with(ns_jparser *p, int line)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_SCOPE, line), **tail = n ? &n->a : NULL;
    while (n && p->tok->kind != NS_JT_BLOCK_END) {
        if (n->a && !ns_jparse_expect_op(p, ','))
            return NULL;
        ns_jnode *set = ns_jparse_node(p, NS_JN_SET, p->tok->line);
        /* One name each: a tuple here would swallow the comma. */
        if (!set || !(set->a = ns_jparse_target(p, false, NULL)) || !ns_jparse_expect_op(p, '=') ||
            !(set->b = ns_jparse_expression(p, true)))
            return NULL;
        *tail = set;
        tail = &set->next;
    }
    if (n)
        n->d = parse_hard_body(p, "endwith", NULL);
    return n && n->d && ns_jparse_skip_name(p, "endwith") ? n : NULL;
}

/* Hugging Face's mark around what the assistant wrote. It is a call block there, so it has its own scope, and loops cannot
 * be left from inside. */
static ns_jnode *parse_generation(ns_jparser *p, int line)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_SCOPE, line);
    int loops = p->loops;
    p->loops = 0;
    if (n)
        n->d = parse_hard_body(p, "endgeneration", NULL);
    p->loops = loops;
    return n && n->d && ns_jparse_skip_name(p, "endgeneration") ? n : NULL;
}

static ns_jnode *parse_print(ns_jparser *p, int line)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_OUTPUT, line);
    if (!n || !(n->a = ns_jparse_expression(p, true)))
        return NULL;
    if (p->tok->kind != NS_JT_BLOCK_END)
        return ns_jparse_fail(p, line, NS_EUNSUPPORTED, "{%% print %%} of several values is not supported");
    return n;
}

static ns_jnode *parse_jump(ns_jparser *p, enum ns_jnode_kind kind, int line, const char *tag)
{
    if (p->loops == 0)
        return ns_jparse_fail(p, line, NS_EFORMAT, "{%% %s %%} outside a loop", tag);
    return ns_jparse_node(p, kind, line);
}

static ns_jnode *refuse_tag(ns_jparser *p, int line, const char *tag)
{
    static const char *const known[] = { "include", "import", "from", "extends", "block", "autoescape", "do", "trans",
                                         "debug" };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(tag, known[i]) == 0)
            return ns_jparse_fail(p, line, NS_EUNSUPPORTED, "tag {%% %s %%} is not supported", tag);
    return ns_jparse_fail(p, line, NS_EFORMAT, "unknown or misplaced tag {%% %s %%}", tag);
}

static ns_jnode *parse_statement(ns_jparser *p)
{
    static const struct { const char *tag; ns_jnode *(*fn)(ns_jparser *, int); } tags[] = {
        { "if", parse_if }, { "for", parse_for }, { "set", parse_set }, { "macro", parse_macro },
        { "call", parse_call_block }, { "filter", parse_filter_block }, { "with", parse_with },
        { "generation", parse_generation }, { "print", parse_print },
    };
    int line = p->tok->line;
    const char *tag = ns_jparse_expect_name(p);
    if (!tag)
        return NULL;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (strcmp(tag, tags[i].tag) == 0)
            return tags[i].fn(p, line);
    if (strcmp(tag, "break") == 0)
        return parse_jump(p, NS_JN_BREAK, line, tag);
    if (strcmp(tag, "continue") == 0)
        return parse_jump(p, NS_JN_CONTINUE, line, tag);
    return refuse_tag(p, line, tag);
}

static ns_jnode *parse_data(ns_jparser *p)
{
    ns_jnode *n = ns_jparse_node(p, NS_JN_TEXT, p->tok->line);
    ns_jstr *s = ns_arena_alloc(&p->tpl->arena, sizeof *s);
    if (!n || !s)
        return ns_jparse_fail(p, p->tok->line, NS_ENOMEM, "out of memory");
    *s = (ns_jstr){ .p = p->tok->p, .n = p->tok->n };
    n->val = ns_jv_str(s);
    p->tok++;
    return n;
}

static bool at_end_tag(const ns_jparser *p, const char *end1, const char *end2, const char *end3)
{
    const char *const ends[] = { end1, end2, end3 };
    for (int i = 0; i < 3; i++)
        if (ends[i] && ns_jparse_is_name(p, ends[i]))
            return true;
    return false;
}

/* One piece of a body. *done: it was the end tag, whose name is now the current token. */
static ns_jnode *parse_piece(ns_jparser *p, const char *end1, const char *end2, const char *end3, bool *done)
{
    int line = p->tok->line;
    if (p->tok->kind == NS_JT_DATA)
        return parse_data(p);
    if (p->tok->kind == NS_JT_VAR_BEGIN) {
        p->tok++;
        ns_jnode *n = ns_jparse_node(p, NS_JN_OUTPUT, line);
        return n && (n->a = ns_jparse_tuple(p, true, false, NULL)) && ns_jparse_expect(p, NS_JT_VAR_END) ? n : NULL;
    }
    p->tok++; /* the lexer gives nothing else here than the beginning of a block */
    if (at_end_tag(p, end1, end2, end3)) {
        *done = true;
        return NULL;
    }
    ns_jnode *n = parse_statement(p);
    return n && ns_jparse_expect(p, NS_JT_BLOCK_END) ? n : NULL;
}

/* Everything up to an end tag (or the end of the template when end1 is NULL). An empty body is an empty text, so that NULL
 * always means an error. */
ns_jnode *ns_jparse_list(ns_jparser *p, const char *end1, const char *end2, const char *end3)
{
    static const ns_jstr nothing = { .p = "" };
    ns_jnode *first = NULL, **tail = &first;
    int line = p->tok->line;
    bool done = false;
    while (p->tok->kind != NS_JT_EOF) {
        ns_jnode *n = parse_piece(p, end1, end2, end3, &done);
        if (done)
            break;
        if (!n)
            return NULL;
        *tail = n;
        tail = &n->next;
    }
    if (!done && end1)
        return ns_jparse_fail(p, line, NS_EFORMAT, "no {%% %s %%} up to the end of the template", end1);
    if (!first && (first = ns_jparse_node(p, NS_JN_TEXT, line)) != NULL)
        first->val = ns_jv_str(&nothing);
    return first;
}

static ns_jnode *parse_body(ns_jparser *p, const char *end1, const char *end2, const char *end3)
{
    ns_jparse_skip_op(p, ':');
    if (!ns_jparse_expect(p, NS_JT_BLOCK_END) || !ns_jparse_enter(p))
        return NULL;
    ns_jnode *n = ns_jparse_list(p, end1, end2, end3);
    p->depth--;
    return n;
}
