/* Tokens and the parser's state, shared by the files of the parser: jinja_lex.c, jinja_parse.c (its
 * machinery), jinja_stmt.c (statements), jinja_expr.c (operators) and jinja_primary.c (operands). */
#ifndef NS_TEXT_JINJA_PARSE_H
#define NS_TEXT_JINJA_PARSE_H
#include "text/jinja.h"
#include "text/jinja_ast.h"

enum ns_jtok_kind {
    NS_JT_EOF,
    NS_JT_DATA,
    NS_JT_VAR_BEGIN,
    NS_JT_VAR_END,
    NS_JT_BLOCK_BEGIN,
    NS_JT_BLOCK_END,
    NS_JT_NAME,
    NS_JT_STR,
    NS_JT_INT,
    NS_JT_FLOAT,
    NS_JT_OP
};

typedef struct ns_jtok {
    uint8_t kind;
    uint16_t op;
    int line;
    const char *p; /* data, name, or the decoded string; NUL-terminated for names */
    size_t n;
    union {
        int64_t i;
        double f;
    };
} ns_jtok;

/* Unknown filters and tests are errors at once, except inside an if, where Jinja leaves them to the run. An inline `if`
 * shows itself only after its first operand, so the first unknown name is kept and may be taken back. */
typedef struct ns_junknown {
    int n, line;
    const char *sort, *name;
} ns_junknown;

typedef struct ns_jparser {
    ns_jinja *tpl;
    const ns_jtok *tok; /* the current one; the array ends with NS_JT_EOF */
    int depth;
    int loops;      /* loops around this point, up to the nearest macro */
    unsigned uses;  /* NS_JUSES_* seen since the nearest macro began */
    bool soft;      /* inside an if */
    ns_junknown unknown;
    int *table, table_size; /* identifiers by hash */
    ns_err *err;
} ns_jparser;

/* Tokens of the whole source, malloc'ed; NULL on error. Copies of strings go to the arena. */
ns_jtok *ns_jlex(ns_arena *a, const char *what, const char *src, size_t n, ns_err *e);

/* Returns NULL so that a parse function may return it. */
void *ns_jparse_fail(ns_jparser *p, int line, enum ns_code code, const char *fmt, ...) NS_PRINTF(4, 5);
ns_jnode *ns_jparse_node(ns_jparser *p, enum ns_jnode_kind kind, int line);
int ns_jparse_intern(ns_jparser *p, const char *name); /* -1 when memory is out */
bool ns_jparse_enter(ns_jparser *p); /* one level deeper; pair with p->depth-- */
bool ns_jparse_is_name(const ns_jparser *p, const char *name);
bool ns_jparse_is_op(const ns_jparser *p, int op);
bool ns_jparse_skip_name(ns_jparser *p, const char *name);
bool ns_jparse_skip_op(ns_jparser *p, int op);
bool ns_jparse_expect_op(ns_jparser *p, int op);
const char *ns_jparse_expect_name(ns_jparser *p);
bool ns_jparse_expect(ns_jparser *p, enum ns_jtok_kind kind); /* the end of a tag */
/* Appends to a list whose last link is *tail. */
void ns_jparse_append(ns_jnode ***tail, ns_jnode *n);
/* A node over a and b; NULL when a is, so that failures pass through. */
ns_jnode *ns_jparse_wrap(ns_jparser *p, enum ns_jnode_kind kind, int line, ns_jnode *a, ns_jnode *b);
ns_jnode *ns_jparse_named(ns_jparser *p, enum ns_jnode_kind kind, int line, const char *name);
const char *ns_jparse_describe(const ns_jtok *t, char out[60]);

/* Pieces up to an end tag, or to the end of the template when end1 is NULL. */
ns_jnode *ns_jparse_list(ns_jparser *p, const char *end1, const char *end2, const char *end3);
ns_jnode *ns_jparse_primary(ns_jparser *p);
ns_jnode *ns_jparse_postfix(ns_jparser *p, ns_jnode *n); /* .name, [index], (call) */
ns_jnode *ns_jparse_tail(ns_jparser *p, ns_jnode *n);    /* |filter, is test, (call) */
ns_jnode *ns_jparse_expression(ns_jparser *p, bool with_cond);
/* An expression, or a tuple of them without parentheses. `stop`: a name that ends it, or NULL. */
ns_jnode *ns_jparse_tuple(ns_jparser *p, bool with_cond, bool parentheses, const char *stop);
/* What stands left of `=` or `in`: names, tuples of them, ns.attr when allowed. */
ns_jnode *ns_jparse_target(ns_jparser *p, bool with_ns, const char *stop);
/* {% filter x|y %}: a chain of filters over the captured block. */
ns_jnode *ns_jparse_filters(ns_jparser *p, ns_jnode *node, bool at_name);
#endif
