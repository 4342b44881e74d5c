/* Threads through a grammar, byte by byte. A thread that could not end within the depth is dropped where it would begin, so that every
 * thread there is can be brought to an end. */
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

bool ns_gram_reserve(ns_gram_run *r)
{
    if (r->n + 1 >= r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 256;
        ns_gram_thread *p = realloc(r->threads, cap * sizeof *p);
        if (!p)
            return false;
        r->threads = p;
        r->cap = cap;
    }
    if (r->n_frames + 1 >= r->cap_frames) {
        size_t cap = r->cap_frames ? r->cap_frames * 2 : 256;
        ns_gram_frame *p = realloc(r->frames, cap * sizeof *p);
        if (!p)
            return false;
        r->frames = p;
        r->cap_frames = cap;
    }
    return true;
}

static bool fits(const ns_gram_run *r, uint32_t node, uint32_t up)
{
    return r->frames[up].depth + r->g->nodes[node].need <= NS_GRAM_DEPTH;
}

static void put(ns_gram_run *r, uint32_t node, uint32_t count, uint32_t up)
{
    if (!fits(r, node, up) || r->n - r->set >= NS_GRAM_THREADS)
        return;
    for (size_t i = r->set; i < r->n; i++)
        if (r->threads[i].node == node && r->threads[i].count == count && r->threads[i].up == up)
            return;
    if (!ns_gram_reserve(r)) {
        r->failed = true;
        return;
    }
    r->threads[r->n++] = (ns_gram_thread){ node, count, up };
}

/* A frame; the same one for the same call within a step. 0: memory is out. */
static uint32_t push(ns_gram_run *r, uint32_t ret, uint32_t count, uint32_t up)
{
    for (size_t i = r->fresh; i < r->n_frames; i++)
        if (r->frames[i].ret == ret && r->frames[i].count == count && r->frames[i].up == up)
            return (uint32_t)i;
    if (r->n_frames >= UINT32_MAX || !ns_gram_reserve(r)) {
        r->failed = true;
        return 0;
    }
    r->frames[r->n_frames] = (ns_gram_frame){ ret, count, up, r->frames[up].depth + 1 };
    return (uint32_t)r->n_frames++;
}

static bool may_be(const ns_gram_run *r, const ns_gram_fields *f, uint32_t i, uint32_t count, uint32_t up)
{
    const uint32_t *w = r->g->words;
    return i >= count && i <= w[f->must + count] && fits(r, w[f->start + i], up);
}

static bool extra(const ns_gram_run *r, const ns_gram_fields *f, uint32_t count, uint32_t up)
{
    return f->extra && r->g->words[f->must + count] == f->n && fits(r, f->extra, up);
}

bool ns_gram_extra(const ns_gram_run *r, const ns_gram_thread *t)
{
    return extra(r, &r->g->fields[r->g->nodes[t->node].fields], t->count, t->up);
}

/* Whether a name may go on to `node`, a KEY or a FIELD. */
static bool name_open(const ns_gram_run *r, const ns_gram_thread *t, uint32_t node)
{
    const ns_gram_node *x = &r->g->nodes[node];
    const ns_gram_fields *f = &r->g->fields[x->fields];
    if (x->kind == NS_GRAM_FIELD)
        return may_be(r, f, x->a, t->count, t->up);
    if (extra(r, f, t->count, t->up))
        return true;
    for (uint32_t i = x->a; i < x->b; i++)
        if (may_be(r, f, r->g->words[f->leaves + i], t->count, t->up))
            return true;
    return false;
}

static bool some_field(const ns_gram_run *r, uint32_t fields, uint32_t count, uint32_t up)
{
    const ns_gram_fields *f = &r->g->fields[fields];
    if (extra(r, f, count, up))
        return true;
    for (uint32_t i = count, to = r->g->words[f->must + count]; i < f->n && i <= to; i++)
        if (may_be(r, f, i, count, up))
            return true;
    return false;
}

/* From a node through all that consumes nothing. Only a SPLIT branches; what it branches into was joined when the grammar was made, so
 * this does not go deep. */
static void go(ns_gram_run *r, uint32_t at, uint32_t count, uint32_t up)
{
    const ns_grammar *g = r->g;
    for (;;) {
        const ns_gram_node *x = &g->nodes[at];
        uint32_t next = x->next;
        switch ((enum ns_gram_kind)x->kind) {
        case NS_GRAM_BYTES: case NS_GRAM_KEY:
            put(r, at, count, up);
            return;
        case NS_GRAM_SPLIT:
            for (uint32_t e = x->edges; e; e = g->edges[e].next)
                go(r, g->edges[e].to, count, up);
            return;
        case NS_GRAM_CALL:
            if (!fits(r, at, up))
                return;
            if (g->nodes[next].kind != NS_GRAM_RET && (up = push(r, next, count, up)) == 0)
                return;
            count = 0;
            next = g->entries[x->a];
            break;
        case NS_GRAM_RET:
            next = up ? r->frames[up].ret : 0;
            count = up ? r->frames[up].count : 0;
            up = up ? r->frames[up].up : 0;
            break;
        case NS_GRAM_SET:
            count = x->a;
            break;
        case NS_GRAM_INC:
            count = count < x->a ? count + 1 : x->a;
            break;
        case NS_GRAM_TEST:
            if (count < x->a || count > x->b)
                return;
            break;
        case NS_GRAM_FIELD:
            count = x->a + 1;
            break;
        case NS_GRAM_OPEN:
            if (!some_field(r, x->fields, count, up))
                return;
            break;
        case NS_GRAM_ALL:
            return;
        }
        at = next;
    }
}

static bool edges_of(ns_gram_run *r, const ns_gram_thread *t, uint32_t node, bool key, unsigned char c)
{
    const ns_grammar *g = r->g;
    bool hit = false;
    for (uint32_t e = g->nodes[node].edges; e; e = g->edges[e].next)
        if (c >= g->edges[e].lo && c <= g->edges[e].hi) {
            hit = true;
            if (!key || name_open(r, t, g->edges[e].to))
                go(r, g->edges[e].to, t->count, t->up);
        }
    return hit;
}

void ns_gram_step(ns_gram_run *r, size_t from, size_t to, unsigned char c)
{
    r->set = r->n;
    r->fresh = r->n_frames;
    for (size_t i = from; i < to; i++) {
        ns_gram_thread t = r->threads[i]; /* the stack moves */
        const ns_gram_node *x = &r->g->nodes[t.node];
        bool key = x->kind == NS_GRAM_KEY;
        if (!edges_of(r, &t, t.node, key, c) && x->c && (!key || ns_gram_extra(r, &t)))
            edges_of(r, &t, x->c, false, c);
    }
}

/* Frames that no thread needs any more go, the others move down. Without memory for it, later. */
static void collect(ns_grammar_walk *w)
{
    ns_gram_run *r = w->run;
    uint32_t *to = calloc(r->n_frames, sizeof *to), n = 1;
    if (!to)
        return;
    for (size_t i = 0; i < r->n; i++)
        for (uint32_t f = r->threads[i].up; f && !to[f]; f = r->frames[f].up)
            to[f] = 1;
    for (size_t f = 1; f < r->n_frames; f++)
        if (to[f]) {
            to[f] = n;
            r->frames[n] = r->frames[f];
            r->frames[n].up = to[r->frames[f].up];
            n++;
        }
    for (size_t i = 0; i < r->n; i++)
        r->threads[i].up = to[r->threads[i].up];
    r->n_frames = w->now_frames = w->kept = n;
    free(to);
}

ns_grammar_walk *ns_grammar_walk_new(const ns_grammar *g, ns_err *e)
{
    ns_grammar_walk *w = calloc(1, sizeof *w);
    ns_gram_run *r = w ? w->run = calloc(1, sizeof *r) : NULL;
    if (!r || !ns_gram_reserve(r)) {
        ns_fail(e, NS_ENOMEM, "grammar: out of memory");
        ns_grammar_walk_free(w);
        return NULL;
    }
    r->g = g;
    r->frames[0] = (ns_gram_frame){ 0 };
    r->n_frames = r->fresh = 1;
    go(r, g->start, 0, 0);
    if (r->failed) {
        ns_fail(e, NS_ENOMEM, "grammar: out of memory");
        ns_grammar_walk_free(w);
        return NULL;
    }
    w->now = r->n;
    w->now_frames = r->n_frames;
    return w;
}

void ns_grammar_walk_free(ns_grammar_walk *w)
{
    if (!w)
        return;
    if (w->run) {
        free(w->run->threads);
        free(w->run->frames);
    }
    free(w->run);
    free(w->levels);
    free(w);
}

int ns_grammar_take(ns_grammar_walk *w, const char *bytes, size_t n)
{
    ns_gram_run *r = w->run;
    size_t from = 0, to = w->now;
    r->failed = false;
    for (size_t i = 0; i < n && to > from && !r->failed; i++) {
        if (r->n_frames > 2 * w->kept + 1024)
            collect(w);
        ns_gram_step(r, from, to, (unsigned char)bytes[i]);
        if (from > 0) { /* only the start and the latest set are kept */
            memmove(r->threads + w->now, r->threads + r->set, (r->n - r->set) * sizeof *r->threads);
            r->n -= r->set - w->now;
            r->set = w->now;
        }
        from = r->set;
        to = r->n;
    }
    if (to == from || r->failed) {
        r->n = w->now;
        r->n_frames = w->now_frames;
        return -1;
    }
    memmove(r->threads, r->threads + from, (to - from) * sizeof *r->threads);
    r->n = w->now = to - from;
    w->now_frames = r->n_frames;
    return 0;
}

bool ns_grammar_complete(const ns_grammar_walk *w)
{
    for (size_t i = 0; i < w->now; i++)
        if (w->run->threads[i].node == 0)
            return true;
    return false;
}
