/* Strings with provenance, and the buffers they grow in. */
#include <string.h>

#include "text/jinja_run.h"
#include "text/utf8.h"

/* The room a concatenated string lies in, from its first byte. Appending to the string that ends where the room is used up
 * writes in place, so that building a text piece by piece stays linear. */
typedef struct ns_jgrow {
    char *p;
    uint8_t *t;
    size_t used, cap;
} ns_jgrow;

enum { GROW_FROM = 256 };

bool ns_jstr_is(const ns_jstr *s, const char *lit)
{
    return strlen(lit) == s->n && memcmp(s->p, lit, s->n) == 0;
}

bool ns_jstr_eq(const ns_jstr *a, const ns_jstr *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->p, b->p, a->n) == 0);
}

bool ns_jstr_any_untrusted(const ns_jstr *s)
{
    return s->t ? memchr(s->t, 1, s->n) != NULL : s->untrusted;
}

const ns_jstr *ns_jstr_new(ns_jrun *r, const char *p, size_t n, bool untrusted)
{
    ns_jstr *s = ns_jrun_alloc(r, sizeof *s);
    if (s)
        *s = (ns_jstr){ .p = p, .n = n, .untrusted = untrusted };
    return s;
}

const ns_jstr *ns_jstr_sub(ns_jrun *r, const ns_jstr *s, size_t off, size_t n)
{
    ns_jstr *sub = ns_jrun_alloc(r, sizeof *sub);
    if (sub)
        *sub = (ns_jstr){ s->p + off, s->t ? s->t + off : NULL, n, NULL, s->untrusted, s->markup };
    return sub;
}

const char *ns_jstr_cstr(ns_jrun *r, const ns_jstr *s)
{
    char *p = ns_jrun_alloc(r, s->n + 1);
    if (p) {
        memcpy(p, s->p, s->n);
        p[s->n] = '\0';
    }
    return p;
}

/* t[0..n) for the bytes of s, unless that is where s has them already. */
static void put_taint(uint8_t *t, const ns_jstr *s)
{
    if (!s->t)
        memset(t, s->untrusted, s->n);
    else if (s->t != t)
        memcpy(t, s->t, s->n);
}

static ns_jgrow *new_room(ns_jrun *r, const ns_jstr *a, size_t n)
{
    ns_jgrow *g = ns_jrun_alloc(r, sizeof *g);
    size_t cap = n < GROW_FROM ? n : 2 * n;
    if (!g || ns_jrun_step(r, a->n))
        return NULL;
    *g = (ns_jgrow){ .p = ns_jrun_alloc(r, cap), .used = a->n, .cap = cap };
    if (!g->p)
        return NULL;
    memcpy(g->p, a->p, a->n);
    return g;
}

/* Provenance of a + b in g, when the two differ or a already has a map. */
static int grow_taint(ns_jrun *r, ns_jgrow *g, const ns_jstr *a, const ns_jstr *b)
{
    if (!g->t)
        g->t = ns_jrun_alloc(r, g->cap);
    if (!g->t)
        return -1;
    put_taint(g->t, a);
    put_taint(g->t + a->n, b);
    return 0;
}

const ns_jstr *ns_jstr_cat(ns_jrun *r, const ns_jstr *a, const ns_jstr *b)
{
    if (b->n == 0 || a->n == 0)
        return b->n == 0 ? a : b;
    size_t n = a->n + b->n;
    ns_jgrow *g = a->grow;
    if (!g || a->n != g->used || g->cap - g->used < b->n)
        g = new_room(r, a, n);
    ns_jstr *s = ns_jrun_alloc(r, sizeof *s);
    if (!g || !s || ns_jrun_step(r, b->n))
        return NULL;
    bool mixed = a->t || b->t || a->untrusted != b->untrusted;
    memcpy(g->p + a->n, b->p, b->n);
    if (mixed && grow_taint(r, g, a, b))
        return NULL;
    g->used = n;
    *s = (ns_jstr){ .p = g->p, .t = mixed ? g->t : NULL, .n = n, .grow = g->cap > n ? g : NULL, .untrusted = a->untrusted };
    return s;
}

static void release_into(ns_jbuf *b, char *p, uint8_t *t, size_t cap)
{
    if (b->n) {
        memcpy(p, b->p, b->n);
        if (t)
            memcpy(t, b->t, b->n);
    }
    b->p = p;
    b->t = t;
    b->cap = cap;
}

static bool reserve(ns_jrun *r, ns_jbuf *b, size_t n)
{
    if (b->failed)
        return false;
    b->failed = true;
    if (n > r->opts.max_output || b->n > r->opts.max_output - n) {
        ns_jrun_fail(r, NS_EINVAL, "the result is over %zu MiB", r->opts.max_output >> 20);
        return false;
    }
    if (b->n + n > b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 48;
        cap = cap < b->n + n ? b->n + n : cap;
        char *p = ns_jrun_alloc(r, cap);
        uint8_t *t = p && b->t ? ns_jrun_alloc(r, cap) : NULL;
        if (!p || (b->t && !t))
            return false;
        release_into(b, p, t, cap);
    }
    b->failed = ns_jrun_work(r, n) != 0;
    return !b->failed;
}

/* Gives b a map when what comes next is not like what it holds. */
static bool make_map(ns_jrun *r, ns_jbuf *b)
{
    if (b->t)
        return true;
    b->t = ns_jrun_alloc(r, b->cap);
    b->failed = !b->t;
    if (b->t)
        memset(b->t, b->untrusted, b->n);
    return b->t != NULL;
}

void ns_jbuf_add(ns_jrun *r, ns_jbuf *b, const char *p, size_t n, bool untrusted)
{
    if (n == 0 || !reserve(r, b, n))
        return;
    if (b->n == 0 && !b->t)
        b->untrusted = untrusted;
    if ((b->t || b->untrusted != untrusted) && !make_map(r, b))
        return;
    memcpy(b->p + b->n, p, n);
    if (b->t)
        memset(b->t + b->n, untrusted, n);
    b->n += n;
}

void ns_jbuf_addz(ns_jrun *r, ns_jbuf *b, const char *z, bool untrusted)
{
    ns_jbuf_add(r, b, z, strlen(z), untrusted);
}

void ns_jbuf_adds(ns_jrun *r, ns_jbuf *b, const ns_jstr *s)
{
    if (!s->t) {
        ns_jbuf_add(r, b, s->p, s->n, s->untrusted);
        return;
    }
    if (s->n == 0 || !reserve(r, b, s->n) || !make_map(r, b))
        return;
    memcpy(b->p + b->n, s->p, s->n);
    memcpy(b->t + b->n, s->t, s->n);
    b->n += s->n;
}

void ns_jbuf_addc(ns_jrun *r, ns_jbuf *b, uint32_t c, bool untrusted)
{
    char utf8[4];
    ns_jbuf_add(r, b, utf8, ns_utf8_encode(c, utf8), untrusted);
}

const ns_jstr *ns_jbuf_take(ns_jrun *r, ns_jbuf *b)
{
    ns_jstr *s = b->failed ? NULL : ns_jrun_alloc(r, sizeof *s);
    if (s)
        *s = (ns_jstr){ .p = b->p ? b->p : "", .t = b->t, .n = b->n, .untrusted = b->untrusted };
    return s;
}
