/* One rendering: memory, limits, scopes, and the calls between the interpreter's files. */
#ifndef NS_TEXT_JINJA_RUN_H
#define NS_TEXT_JINJA_RUN_H
#include "base/err.h"
#include "base/mem.h"
#include "text/jinja.h"
#include "text/jinja_ast.h"
#include "text/jinja_value.h"

enum {
    NS_JRUN_DEPTH = 2500,  /* nested evaluations, of expressions, statements and values together */
    NS_JRUN_CALLS = 200,   /* nested macro calls */
    NS_JRUN_RANGE = 100000 /* the sandbox's own limit on range() */
};

typedef struct ns_jbinding {
    int id;
    ns_jval v;
} ns_jbinding;

typedef struct ns_jscope {
    struct ns_jscope *parent;
    ns_jbinding *v;
    int n, cap;
    bool captured; /* a macro closes over it: it must not be reused by the next iteration */
} ns_jscope;

enum ns_jflow { NS_JFLOW_ON, NS_JFLOW_BREAK, NS_JFLOW_CONTINUE };

typedef struct ns_jrun {
    const ns_jinja *tpl;
    ns_arena arena;
    char *chunk; /* small allocations are cut from here */
    size_t chunk_left, mem;
    ns_jinja_opts opts;
    int64_t steps;
    size_t bytes; /* string work not yet counted as a step */
    int depth, calls, line;
    enum ns_jflow flow;
    ns_jbuf *out;
    ns_jscope *scope;
    ns_jval captured; /* what a filter block or block set hands to its filter */
    ns_err *err;
} ns_jrun;

typedef struct ns_jargs {
    int n, nkw;
    ns_jval *v;
    const char **kw;
    ns_jval *kwv;
} ns_jargs;

/* A filter, test, method or global. `self` is the filtered value or the object; a[] are the arguments by the order of
 * `spec`, NS_J_MISSING where not given. */
typedef int ns_jfn(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out);

/* spec: "old new ?count": names in order, ? before the optional ones, / in front when none may be given by name.
 * NULL: the function takes `args` as they are. fn NULL: exists in Python or Jinja, refused here. */
typedef struct ns_jbuiltin {
    const char *name, *spec;
    ns_jfn *fn;
} ns_jbuiltin;

/* A filter that Jinja writes as a generator: nothing happens, and nothing fails, before the first item is asked for. */
typedef struct ns_jlazy {
    ns_jfn *fn; /* gives a list */
    ns_jval self, a[4];
    ns_jargs args;
} ns_jlazy;

typedef struct ns_jmethod {
    const ns_jbuiltin *b;
    ns_jval self;
} ns_jmethod;

typedef struct ns_jmacro {
    const ns_jnode *node;
    ns_jscope *scope;
} ns_jmacro;

/* loop: looks one item ahead only when asked, because a loop's filter may depend on what the body did. */
typedef struct ns_jloop {
    ns_jiter it;
    const ns_jnode *node;
    ns_jscope *outer;
    ns_jval before, current, after;
    bool has_after, completed; /* completed: one iteration ended without break or continue; else `else` runs */
    int64_t index0, length; /* length -1: not known yet */
    int depth0;
} ns_jloop;

void *ns_jrun_alloc(ns_jrun *r, size_t size);
void *ns_jrun_array(ns_jrun *r, size_t n, size_t size);
int ns_jrun_fail(ns_jrun *r, enum ns_code code, const char *fmt, ...) NS_PRINTF(3, 4);
int ns_jrun_undefined(ns_jrun *r, ns_jval v); /* fails with the undefined value's own message */
int ns_jrun_step(ns_jrun *r, size_t bytes);   /* one step, and more for string work */
int ns_jrun_work(ns_jrun *r, size_t bytes);   /* string work alone */
int ns_jrun_enter(ns_jrun *r);                /* one level deeper; pair with r->depth-- */

ns_jscope *ns_jscope_push(ns_jrun *r, ns_jscope *parent);
int ns_jscope_set(ns_jrun *r, ns_jscope *s, int id, ns_jval v);
const ns_jval *ns_jscope_find(const ns_jscope *s, int id);

/* jinja_eval.c */
int ns_jrun_eval(ns_jrun *r, const ns_jnode *n, ns_jval *out);
/* jinja_call.c */
int ns_jrun_args(ns_jrun *r, const ns_jnode *first, ns_jargs *out);
int ns_jrun_call(ns_jrun *r, ns_jval f, const ns_jargs *args, ns_jval *out);
int ns_jrun_force(ns_jrun *r, ns_jiter *it); /* runs what a lazy iterator waits for */
int ns_jrun_invoke(ns_jrun *r, const ns_jbuiltin *b, const char *sort, ns_jval self, const ns_jargs *args, ns_jval *out);
/* jinja_exec.c */
int ns_jrun_exec(ns_jrun *r, const ns_jnode *first);
int ns_jrun_capture(ns_jrun *r, const ns_jnode *body, ns_jval *out);
int ns_jloop_next(ns_jrun *r, ns_jloop *lp, ns_jval *out);
int ns_jloop_attr(ns_jrun *r, ns_jloop *lp, const char *name, ns_jval *out);
/* jinja_attr.c */
int ns_jrun_getattr(ns_jrun *r, ns_jval o, const char *name, ns_jval *out);
int ns_jrun_getitem(ns_jrun *r, ns_jval o, ns_jval key, ns_jval *out);
int ns_jrun_slice(ns_jrun *r, ns_jval o, const ns_jval bound[3], ns_jval *out);
/* jinja_op.c */
int ns_jrun_binary(ns_jrun *r, int op, ns_jval a, ns_jval b, ns_jval *out);
int ns_jrun_compare(ns_jrun *r, int op, ns_jval a, ns_jval b, bool *out);
int ns_jrun_negate(ns_jrun *r, ns_jval a, ns_jval *out);
/* jinja_print.c */
void ns_jprint_float(double f, char out[40]);
void ns_jprint_str(ns_jrun *r, ns_jval v, ns_jbuf *b);  /* str(v) */
void ns_jprint_repr(ns_jrun *r, ns_jval v, ns_jbuf *b); /* repr(v) */
const ns_jstr *ns_jval_str(ns_jrun *r, ns_jval v);      /* str(v); a string comes back as it is */
const ns_jstr *ns_jstr_escape(ns_jrun *r, const ns_jstr *s); /* HTML */
/* jinja_tojson.c */
extern const ns_jbuiltin ns_jfilter_tojson;
int ns_jval_from_json(ns_jrun *r, const json_t *j, bool untrusted, ns_jval *out);
/* jinja_format.c */
int ns_jstr_format(ns_jrun *r, const ns_jstr *s, const ns_jargs *args, ns_jval *out);  /* str.format */
int ns_jstr_percent(ns_jrun *r, const ns_jstr *s, ns_jval args, ns_jval *out);         /* str % args */
/* Tables. find: NULL when Jinja has no such thing. */
const ns_jbuiltin *ns_jfilter_find(const char *name);
const ns_jbuiltin *ns_jfilter_find_seq(const char *name);
const ns_jbuiltin *ns_jtest_find(const char *name);
const ns_jbuiltin *ns_jglobal_find(const char *name);
const ns_jbuiltin *ns_jmethod_find_str(const char *name);
const ns_jbuiltin *ns_jmethod_find_box(enum ns_jkind kind, const char *name, bool *mutates);
ns_jfn ns_jmethod_startswith, ns_jmethod_endswith, ns_jmethod_find, ns_jmethod_rfind, ns_jmethod_index, ns_jmethod_rindex,
    ns_jmethod_count, ns_jmethod_removeprefix, ns_jmethod_removesuffix, ns_jmethod_partition, ns_jmethod_rpartition,
    ns_jmethod_split, ns_jmethod_rsplit;

ns_jfn ns_jfilter_map, ns_jfilter_select, ns_jfilter_reject, ns_jfilter_selectattr, ns_jfilter_rejectattr;
int ns_jfilter_list(const ns_jlist *l, ns_jval *out); /* -1 when l is NULL */
/* A generator that will call fn for its list, with the first n_a bound arguments. */
int ns_jfilter_later(ns_jrun *r, ns_jfn *fn, ns_jval self, const ns_jargs *args, const ns_jval *a, int n_a, ns_jval *out);
/* "a.b.0": each part looked up as an item; digits are an index. What is undefined on the way becomes dflt, if given. */
int ns_jval_path(ns_jrun *r, ns_jval v, ns_jval path, ns_jval dflt, ns_jval *out);

/* Shared by string methods and filters. case_op: 'u' upper, 'l' lower, 't' title as str.title, 'T' as the filter, 'c'
 * capitalize, 's' swapcase. */
const ns_jstr *ns_jstr_case(ns_jrun *r, const ns_jstr *s, char case_op);
/* chars NULL: white space */
const ns_jstr *ns_jstr_strip(ns_jrun *r, const ns_jstr *s, const ns_jstr *chars, bool left, bool right);
int ns_jlist_push_sub(ns_jrun *r, ns_jlist *l, const ns_jstr *s, size_t from, size_t to); /* bytes */
int ns_jstr_splitlines(ns_jrun *r, const ns_jstr *s, bool keep, ns_jlist **out);
const ns_jstr *ns_jstr_replace(ns_jrun *r, const ns_jstr *s, const ns_jstr *old, const ns_jstr *by, int64_t count);
int ns_jstr_join(ns_jrun *r, const ns_jstr *sep, ns_jval items, bool strict, const ns_jstr **out);
int ns_jstr_to_int(ns_jrun *r, const ns_jstr *s, int base, int64_t *out);   /* 1 done, 0 not a number */
bool ns_jstr_to_float(ns_jrun *r, const ns_jstr *s, double *out);
/* Arguments of builtins: the value, or the default when missing; -1 when it is of another type. */
int ns_jarg_int(ns_jrun *r, ns_jval v, int64_t dflt, int64_t *out);
int ns_jarg_str(ns_jrun *r, ns_jval v, const ns_jstr **out);
#endif
