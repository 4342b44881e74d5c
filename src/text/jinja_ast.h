/* The parsed template: nodes in the template's arena, immutable once parsing is over. */
#ifndef NS_TEXT_JINJA_AST_H
#define NS_TEXT_JINJA_AST_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "text/jinja_value.h"

enum { NS_JAST_NESTING = 200, NS_JAST_SOURCE = 1 << 20 };

/* Field use in brackets. Lists hang together by `next`. */
enum ns_jnode_kind {
    /* statements */
    NS_JN_TEXT,   /* [val] */
    NS_JN_OUTPUT, /* [a] */
    NS_JN_IF,     /* [a test, b body, c else; an elif is an NS_JN_IF alone in c] */
    NS_JN_FOR,    /* [a target, b iterable, c filter or NULL, d body, e else] */
    NS_JN_SET,    /* [a target, b value] */
    NS_JN_SETBLOCK, /* [a target, b filter or NULL, d body] */
    NS_JN_MACRO,  /* [id, a params (NS_JN_PARAM), d body, uses] */
    NS_JN_CALLBLOCK, /* [a the call, b an NS_JN_MACRO for the body] */
    NS_JN_FILTERBLOCK, /* [b filter, d body] */
    NS_JN_SCOPE,  /* [a list of NS_JN_SET, d body]: with, generation */
    NS_JN_BREAK,
    NS_JN_CONTINUE,
    NS_JN_PARAM, /* [id, a default or NULL] */
    /* expressions */
    NS_JN_CONST, /* [val] */
    NS_JN_NAME,  /* [id] */
    NS_JN_NSREF, /* [id, id2]: target of {% set ns.attr = %} */
    NS_JN_LIST,  /* [a] */
    NS_JN_TUPLE, /* [a] */
    NS_JN_DICT,  /* [a: key, value, key, value] */
    NS_JN_COND,  /* [a test, b then, c else or NULL] */
    NS_JN_OR,
    NS_JN_AND,
    NS_JN_NOT,
    NS_JN_COMPARE, /* [a, b: NS_JN_OPERANDs] */
    NS_JN_OPERAND, /* [op, a] */
    NS_JN_BINARY,  /* [op, a, b] */
    NS_JN_NEG,
    NS_JN_POS,
    NS_JN_CONCAT,  /* [a] */
    NS_JN_GETATTR, /* [a, id] */
    NS_JN_GETITEM, /* [a, b] */
    NS_JN_SLICE,   /* [a object, b c d bounds or NULL] */
    NS_JN_CALL,    /* [a, b args] */
    NS_JN_KEYWORD, /* [id, a] */
    NS_JN_STAR,    /* [a]: *args */
    NS_JN_STARSTAR, /* [a]: **kwargs */
    NS_JN_FILTER,  /* [a or NULL for the captured block, b args, id, builtin or NULL when unknown] */
    NS_JN_TEST
};

enum { NS_JUSES_CALLER = 1, NS_JUSES_VARARGS = 2, NS_JUSES_KWARGS = 4 };

/* Operators are their characters, the first one lowest; words get a letter. */
#define NS_JOP(a, b) ((a) | (b) << 8)
enum { NS_JOP_IN = 'i', NS_JOP_NOT_IN = 'n' };

typedef struct ns_jnode {
    uint8_t kind, uses;
    uint16_t op;
    int line, id, id2;
    struct ns_jnode *next, *a, *b, *c, *d, *e;
    ns_jval val;
    const struct ns_jbuiltin *builtin;
} ns_jnode;

struct ns_jinja {
    ns_arena arena;
    const char *what;
    const char **names; /* identifiers by id */
    int n_names;
    ns_jnode *root;
};

/* Identifiers the interpreter itself looks for. */
enum { NS_JID_LOOP, NS_JID_CALLER, NS_JID_VARARGS, NS_JID_KWARGS, NS_JID_COUNT };
#endif
