#include "run/prefix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A piece, or the root of the tree of one cut and kv type: a piece of no tokens. No piece begins with all of a sibling's tokens, so at
 * most one of them can be followed to its end. Siblings may share their beginnings all the same, keys and values included: they part
 * where there is no recurrent state to go on from. */
struct node {
    struct node *parent, *child, *sibling; /* child: the first; sibling: the next */
    struct node *newer, *older;            /* by use; a node is never older than its children */
    int n, end;         /* tokens; where they end in the sequence */
    int *ids;           /* [n] */
    uint8_t *rows;      /* [n / NS_SCAN_CHUNK] keys and values of so many tokens each (ns_state_rows_out) */
    size_t row_bytes;   /* of one of them */
    float *recurrent;   /* at the end */
    int64_t bytes;      /* all memory of this node */
    /* roots only: */
    ns_cut cut;
    ns_dtype kv;
    size_t floats;      /* of the recurrent parts: a state that went over from another size may have more */
};

struct ns_prefix {
    struct node *root;            /* the first; its siblings are roots too */
    struct node *newest, *oldest; /* of all nodes; the oldest is a leaf */
    int64_t bytes, max;
};

ns_prefix *ns_prefix_new(int64_t max_bytes, ns_err *e)
{
    ns_prefix *p = calloc(1, sizeof *p);
    if (!p) {
        ns_fail(e, NS_ENOMEM, "kept prefixes: out of memory");
        return NULL;
    }
    p->max = max_bytes;
    return p;
}

int64_t ns_prefix_bytes(const ns_prefix *p)
{
    return p->bytes;
}

/* ---- nodes ---- */

static void node_free(struct node *n)
{
    if (!n)
        return;
    ns_cut_release(&n->cut);
    free(n->ids);
    free(n->rows);
    free(n->recurrent);
    free(n);
}

static int64_t root_bytes(const ns_state *s)
{
    return (int64_t)(sizeof(struct node) + (size_t)s->cut.n_layers * sizeof *s->cut.layer);
}

static int64_t piece_bytes(const ns_state *s, int n)
{
    return (int64_t)(sizeof(struct node) + (size_t)n * sizeof(int) + ns_state_rows_bytes(s, n) + ns_state_recurrent(s) * sizeof(float));
}

static struct node *root_new(const ns_state *s)
{
    struct node *r = calloc(1, sizeof *r);
    if (r && ns_cut_copy(&s->cut, &r->cut, NULL) != 0) {
        free(r);
        return NULL;
    }
    if (r) {
        r->kv = s->kv;
        r->floats = ns_state_recurrent(s);
        r->bytes = root_bytes(s);
    }
    return r;
}

/* The state's tokens from `from` to its end. */
static struct node *piece_new(const ns_state *s, const int *ids, int from)
{
    int n = s->len - from;
    size_t step = ns_state_rows_bytes(s, NS_SCAN_CHUNK), rows = step * (size_t)(n / NS_SCAN_CHUNK), floats = ns_state_recurrent(s);
    struct node *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->ids = malloc((size_t)n * sizeof *p->ids);
    p->rows = malloc(rows ? rows : 1); /* a size may keep no attention layer, or no Mamba layer */
    p->recurrent = malloc((floats ? floats : 1) * sizeof *p->recurrent);
    if (!p->ids || !p->rows || !p->recurrent) {
        node_free(p);
        return NULL;
    }
    p->n = n;
    p->end = s->len;
    p->row_bytes = step;
    p->bytes = piece_bytes(s, n);
    memcpy(p->ids, ids + from, (size_t)n * sizeof *ids);
    for (int at = 0; at < n; at += NS_SCAN_CHUNK)
        ns_state_rows_out(s, from + at, NS_SCAN_CHUNK, p->rows + step * (size_t)(at / NS_SCAN_CHUNK));
    ns_state_recurrent_out(s, p->recurrent);
    return p;
}

/* ---- the order of use ---- */

static void unlink_use(ns_prefix *p, struct node *n)
{
    *(n->newer ? &n->newer->older : &p->newest) = n->older;
    *(n->older ? &n->older->newer : &p->oldest) = n->newer;
}

static void link_newest(ns_prefix *p, struct node *n)
{
    n->newer = NULL;
    n->older = p->newest;
    *(p->newest ? &p->newest->newer : &p->oldest) = n;
    p->newest = n;
}

/* A node and all above it, those last. */
static void touch(ns_prefix *p, struct node *n)
{
    for (; n; n = n->parent) {
        unlink_use(p, n);
        link_newest(p, n);
    }
}

/* ---- the tree ---- */

static struct node **children_of(ns_prefix *p, struct node *parent)
{
    return parent ? &parent->child : &p->root;
}

static void detach(ns_prefix *p, struct node *n)
{
    struct node **at = children_of(p, n->parent);
    while (*at != n)
        at = &(*at)->sibling;
    *at = n->sibling;
}

static void attach(ns_prefix *p, struct node *n, struct node *parent)
{
    struct node **at = children_of(p, parent);
    n->parent = parent;
    n->sibling = *at;
    *at = n;
}

static void add(ns_prefix *p, struct node *n, struct node *parent)
{
    attach(p, n, parent);
    link_newest(p, n);
    touch(p, parent);
    p->bytes += n->bytes;
}

static void drop(ns_prefix *p, struct node *n)
{
    assert(!n->child);
    detach(p, n);
    unlink_use(p, n);
    p->bytes -= n->bytes;
    node_free(n);
}

void ns_prefix_free(ns_prefix *p)
{
    while (p && p->oldest)
        drop(p, p->oldest);
    free(p);
}

/* How many of its tokens, in whole steps, ids[0..n) begin with. */
static int agreement(const struct node *c, const int *ids, int n)
{
    int most = c->n < n ? c->n : n, k = 0;
    while (k + NS_SCAN_CHUNK <= most && memcmp(c->ids + k, ids + k, NS_SCAN_CHUNK * sizeof *ids) == 0)
        k += NS_SCAN_CHUNK;
    return k;
}

static struct node *root_of(const ns_prefix *p, const ns_state *s)
{
    struct node *r = p->root;
    while (r && (r->kv != s->kv || r->floats != ns_state_recurrent(s) || !ns_cut_equal(&r->cut, &s->cut)))
        r = r->sibling;
    return r;
}

/* The last node on the way along ids[0..n), from the root; `more`: tokens behind it that a child has too, without ending there. */
static struct node *find(const ns_prefix *p, const ns_state *s, const int *ids, int n, int *more)
{
    struct node *at = root_of(p, s), *next = at;
    while (next) {
        at = next;
        next = NULL;
        *more = 0;
        for (struct node *c = at->child; c && !next; c = c->sibling) {
            int k = agreement(c, ids + at->end, n - at->end);
            if (k == c->n)
                next = c;
            else if (k > *more)
                *more = k;
        }
    }
    return at;
}

int ns_prefix_get(ns_prefix *p, ns_state *s, const int *ids, int limit)
{
    int more;
    assert(s->len == 0);
    struct node *last = find(p, s, ids, limit < s->context ? limit : s->context, &more);
    if (!last || last->n == 0)
        return 0;
    for (const struct node *n = last; n; n = n->parent)
        for (int at = 0; at < n->n; at += NS_SCAN_CHUNK)
            ns_state_rows_in(s, n->end - n->n + at, NS_SCAN_CHUNK, n->rows + n->row_bytes * (size_t)(at / NS_SCAN_CHUNK));
    ns_state_recurrent_in(s, last->recurrent);
    touch(p, last);
    return s->len = last->end;
}

int ns_prefix_branch(const ns_prefix *p, const ns_state *s, const int *ids, int limit)
{
    int more;
    const struct node *at = find(p, s, ids, limit, &more);
    return at && more ? at->end + more : 0;
}

/* ---- keeping ---- */

/* The first k tokens of `c` are now those of its new parent. */
static void trim(ns_prefix *p, struct node *c, int k)
{
    size_t rows = c->row_bytes * (size_t)(k / NS_SCAN_CHUNK), left = c->row_bytes * (size_t)((c->n - k) / NS_SCAN_CHUNK);
    int64_t gone = (int64_t)(rows + (size_t)k * sizeof *c->ids);
    c->n -= k;
    memmove(c->ids, c->ids + k, (size_t)c->n * sizeof *c->ids);
    memmove(c->rows, c->rows + rows, left);
    int *ids = realloc(c->ids, (size_t)c->n * sizeof *ids);
    uint8_t *r = realloc(c->rows, left ? left : 1);
    c->ids = ids ? ids : c->ids; /* it gets smaller: a failure changes nothing */
    c->rows = r ? r : c->rows;
    c->bytes -= gone;
    p->bytes -= gone;
}

/* Siblings that begin with all of the new node's tokens continue it from now on. */
static void take_in(ns_prefix *p, struct node *n)
{
    for (struct node *c = n->parent->child, *next; c; c = next) {
        next = c->sibling;
        if (c == n || agreement(c, n->ids, n->n) != n->n)
            continue;
        detach(p, c);
        trim(p, c, n->n);
        attach(p, c, n);
    }
}

static int64_t chain_bytes(const struct node *n)
{
    int64_t sum = 0;
    for (; n; n = n->parent)
        sum += n->bytes;
    return sum;
}

int ns_prefix_put(ns_prefix *p, const ns_state *s, const int *ids, ns_err *e)
{
    int more;
    assert(s->len % NS_SCAN_CHUNK == 0);
    struct node *at = find(p, s, ids, s->len, &more), *root = NULL;
    int from = at ? at->end : 0;
    int64_t need = piece_bytes(s, s->len - from) + (at ? 0 : root_bytes(s));
    touch(p, at); /* what the piece hangs from stays */
    if (from == s->len || chain_bytes(at) + need > p->max)
        return 0;
    while (p->bytes + need > p->max)
        drop(p, p->oldest);
    struct node *piece = piece_new(s, ids, from);
    if (!piece || (!at && !(root = root_new(s)))) {
        node_free(piece);
        return ns_fail(e, NS_ENOMEM, "kept prefixes: out of memory for %d tokens", s->len);
    }
    if (root)
        add(p, root, NULL);
    add(p, piece, root ? root : at);
    take_in(p, piece);
    return 0;
}
