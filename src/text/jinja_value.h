/* Values of the template language. Everything is immutable except namespaces, and lives in the arena of one rendering.
 *
 * A string is bytes plus their provenance: `t` holds one byte per byte of text (1 untrusted, 0 trusted); NULL when the
 * whole string is alike, and then `untrusted` says which. Strings share bytes: a slice points into what it was cut from. */
#ifndef NS_TEXT_JINJA_VALUE_H
#define NS_TEXT_JINJA_VALUE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ns_jrun;
struct ns_jbuiltin;
struct ns_jnode;
struct ns_jscope;
struct ns_jgrow;

enum ns_jkind {
    NS_J_MISSING, /* an argument that was not given; never seen by a template */
    NS_J_UNDEF,
    NS_J_NONE,
    NS_J_BOOL,
    NS_J_INT,
    NS_J_FLOAT,
    NS_J_STR,
    NS_J_LIST,
    NS_J_TUPLE,
    NS_J_DICT,
    NS_J_VIEW,  /* dict.keys(), values(), items(): aux is enum ns_jview, d the dict */
    NS_J_RANGE,
    NS_J_ITER,  /* a generator: gives its values once */
    NS_J_SPACE, /* namespace() */
    NS_J_LOOP,
    NS_J_MACRO,
    NS_J_FUNC,  /* a global function */
    NS_J_METHOD /* a builtin bound to its object */
};

enum ns_jview { NS_JVIEW_KEYS, NS_JVIEW_VALUES, NS_JVIEW_ITEMS };

/* aux of an undefined value: how to say what is missing; `text` is the name or the whole message. */
enum { NS_JUNDEF_NAME = 0, NS_JUNDEF_HINT = 100, NS_JUNDEF_UNSAFE = 101 /* else: the kind of the object that lacks it */ };

typedef struct ns_jstr {
    const char *p;
    const uint8_t *t;
    size_t n;
    struct ns_jgrow *grow; /* set when bytes may be appended in place behind the string */
    bool untrusted, markup; /* markup: made by |safe or |escape; `+` escapes what it is joined with */
} ns_jstr;

typedef struct ns_jval {
    uint8_t kind, aux;
    union {
        int64_t i; /* int, bool */
        double f;
        const ns_jstr *s;
        const struct ns_jlist *l; /* list, tuple */
        struct ns_jdict *d;       /* dict, view, namespace */
        const struct ns_jrange *r;
        struct ns_jiter *it;
        struct ns_jloop *loop;
        const struct ns_jmacro *macro;
        const struct ns_jbuiltin *func;
        const struct ns_jmethod *method;
        const char *text;
    };
} ns_jval;

typedef struct ns_jlist {
    size_t n, cap;
    ns_jval *v;
    bool untrusted; /* whether its brackets are, when printed */
} ns_jlist;

typedef struct ns_jpair {
    ns_jval k, v;
} ns_jpair;

typedef struct ns_jdict {
    size_t n, cap;
    ns_jpair *v; /* in insertion order */
    bool untrusted;
} ns_jdict;

typedef struct ns_jrange {
    int64_t start, stop, step, n;
} ns_jrange;

/* Walks any iterable; pos counts items, or bytes of a string. */
typedef struct ns_jiter {
    ns_jval v;
    size_t pos;
    struct ns_jlazy *lazy; /* a generator nobody has asked yet: makes the list that v becomes; until then v is its source */
} ns_jiter;

/* A growing string. Failure (memory, output size) is sticky and already reported to the run. */
typedef struct ns_jbuf {
    char *p;
    uint8_t *t; /* NULL while every byte is alike */
    size_t n, cap;
    bool untrusted, failed;
} ns_jbuf;

static inline ns_jval ns_jv_none(void)
{
    return (ns_jval){ .kind = NS_J_NONE };
}

static inline ns_jval ns_jv_bool(bool b)
{
    return (ns_jval){ .kind = NS_J_BOOL, .i = b };
}

static inline ns_jval ns_jv_int(int64_t i)
{
    return (ns_jval){ .kind = NS_J_INT, .i = i };
}

static inline ns_jval ns_jv_float(double f)
{
    return (ns_jval){ .kind = NS_J_FLOAT, .f = f };
}

static inline ns_jval ns_jv_str(const ns_jstr *s)
{
    return (ns_jval){ .kind = NS_J_STR, .s = s };
}

static inline ns_jval ns_jv_undef(const char *name, int aux)
{
    return (ns_jval){ .kind = NS_J_UNDEF, .aux = (uint8_t)aux, .text = name };
}

static inline bool ns_jv_is_int(ns_jval v) /* bool is an int to Python */
{
    return v.kind == NS_J_INT || v.kind == NS_J_BOOL;
}

static inline bool ns_jv_is_num(ns_jval v)
{
    return ns_jv_is_int(v) || v.kind == NS_J_FLOAT;
}

static inline double ns_jv_num(ns_jval v)
{
    return v.kind == NS_J_FLOAT ? v.f : (double)v.i;
}

const char *ns_jval_type(ns_jval v);    /* Python's name of the type */
bool ns_jval_untrusted(ns_jval v);      /* provenance of a container or string; false for the rest */
bool ns_jval_truth(ns_jval v);
bool ns_jval_callable(ns_jval v);
bool ns_jval_iterable(ns_jval v);
bool ns_jval_has_len(ns_jval v);
bool ns_jval_hashable(ns_jval v);
bool ns_jstr_is(const ns_jstr *s, const char *lit);
bool ns_jstr_eq(const ns_jstr *a, const ns_jstr *b);
bool ns_jstr_any_untrusted(const ns_jstr *s);

/* From here on NULL or -1 means the run has failed and holds the error. */
const ns_jstr *ns_jstr_new(struct ns_jrun *r, const char *p, size_t n, bool untrusted); /* does not copy */
const ns_jstr *ns_jstr_sub(struct ns_jrun *r, const ns_jstr *s, size_t off, size_t n);  /* bytes */
const ns_jstr *ns_jstr_cat(struct ns_jrun *r, const ns_jstr *a, const ns_jstr *b);
const char *ns_jstr_cstr(struct ns_jrun *r, const ns_jstr *s);

void ns_jbuf_add(struct ns_jrun *r, ns_jbuf *b, const char *p, size_t n, bool untrusted);
void ns_jbuf_addz(struct ns_jrun *r, ns_jbuf *b, const char *z, bool untrusted);
void ns_jbuf_adds(struct ns_jrun *r, ns_jbuf *b, const ns_jstr *s);
void ns_jbuf_addc(struct ns_jrun *r, ns_jbuf *b, uint32_t c, bool untrusted); /* a code point */
const ns_jstr *ns_jbuf_take(struct ns_jrun *r, ns_jbuf *b);

ns_jlist *ns_jlist_new(struct ns_jrun *r, size_t n, bool untrusted);
int ns_jlist_push(struct ns_jrun *r, ns_jlist *l, ns_jval v);
ns_jdict *ns_jdict_new(struct ns_jrun *r, size_t cap, bool untrusted);
/* 1 found, 0 not, -1 failed (an unhashable key is a failure). */
int ns_jdict_find(struct ns_jrun *r, const ns_jdict *d, ns_jval key, ns_jval *out);
int ns_jdict_findz(struct ns_jrun *r, const ns_jdict *d, const char *key, ns_jval *out);
int ns_jdict_put(struct ns_jrun *r, ns_jdict *d, ns_jval key, ns_jval v);

int ns_jiter_init(struct ns_jrun *r, ns_jiter *it, ns_jval v);
int ns_jiter_next(struct ns_jrun *r, ns_jiter *it, ns_jval *out); /* 1 a value, 0 the end */
int ns_jval_list(struct ns_jrun *r, ns_jval v, ns_jlist **out);   /* list(v): always a new one */
int ns_jval_len(struct ns_jrun *r, ns_jval v, int64_t *out);
int ns_jval_eq(struct ns_jrun *r, ns_jval a, ns_jval b, bool *out);
int ns_jval_cmp(struct ns_jrun *r, const char *op, ns_jval a, ns_jval b, int *out); /* <0 0 >0; fails where Python does */
int ns_jval_in(struct ns_jrun *r, ns_jval v, ns_jval box, bool *out);
/* Stable; keys[i] belongs to l->v[i] and is permuted with it. */
int ns_jlist_sort(struct ns_jrun *r, ns_jlist *l, ns_jval *keys, bool reverse);
#endif
