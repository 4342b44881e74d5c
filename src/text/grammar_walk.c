/* Threads through a grammar, byte by byte. A thread that could not end within the depth is dropped where it would begin, so that every
 * thread there is can be brought to an end. */
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

static bool room(void **p, size_t *cap, size_t n, size_t size)
{
    if (n < *cap)
        return true;
    size_t want = *cap ? *cap * 2 : 256;
    void *q = want <= UINT32_MAX ? realloc(*p, want * size) : NULL;
    if (!q)
        return false;
    *p = q;
    *cap = want;
    return true;
}

bool ns_gram_reserve(ns_gram_run *r)
{
    return room((void **)&r->threads, &r->cap, r->n, sizeof *r->threads) &&
           room((void **)&r->frames, &r->cap_frames, r->n_frames, sizeof *r->frames) &&
           room((void **)&r->links, &r->cap_links, r->n_links, sizeof *r->links);
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

/* The frame of a call of the rule, with a link back. *old: others called it at this byte too; 0: nothing is left to do, as one of them came
 * from the same place, or memory is out. */
static uint32_t push(ns_gram_run *r, uint32_t rule, ns_gram_link link, bool *old)
{
    uint32_t depth = r->frames[link.up].depth + 1;
    size_t f = r->fresh;
    while (f < r->n_frames && (r->frames[f].rule != rule || r->frames[f].depth != depth))
        f++;
    *old = f < r->n_frames;
    for (uint32_t i = *old ? r->frames[f].links : 0; i; i = r->links[i].next)
        if (r->links[i].ret == link.ret && r->links[i].count == link.count && r->links[i].up == link.up)
            return 0;
    if (!ns_gram_reserve(r)) {
        r->failed = true;
        return 0;
    }
    if (!*old)
        r->frames[r->n_frames++] = (ns_gram_frame){ .rule = rule, .depth = depth };
    link.next = r->frames[f].links;
    r->links[r->n_links] = link;
    r->frames[f].links = (uint32_t)r->n_links++;
    return (uint32_t)f;
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

static void go(ns_gram_run *r, uint32_t at, uint32_t count, uint32_t up);

static void call(ns_gram_run *r, const ns_gram_node *x, uint32_t count, uint32_t up)
{
    const ns_grammar *g = r->g;
    bool old = false;
    if (g->nodes[x->next].kind != NS_GRAM_RET) /* else what it returns to returns at once */
        up = push(r, x->a, (ns_gram_link){ .ret = x->next, .count = count, .up = up }, &old);
    if (g->nodes[x->next].kind != NS_GRAM_RET && !up)
        return;
    if (!old)
        go(r, g->entries[x->a], 0, up);
    else if (x->a == g->space) { /* it was already done, for the others */
        const ns_gram_link l = r->links[r->frames[up].links];
        go(r, l.ret, l.count, l.up);
    }
}

static void leave(ns_gram_run *r, uint32_t up)
{
    if (!up)
        put(r, 0, 0, 0);
    for (uint32_t i = r->frames[up].links; i; i = r->links[i].next) {
        const ns_gram_link l = r->links[i]; /* the stack moves */
        go(r, l.ret, l.count, l.up);
    }
}

/* From a node through all that consumes nothing. What a SPLIT branches into was joined when the grammar was made, and what returns does so
 * before a byte, so this does not go deep. */
static void go(ns_gram_run *r, uint32_t at, uint32_t count, uint32_t up)
{
    const ns_grammar *g = r->g;
    for (;;) {
        const ns_gram_node *x = &g->nodes[at];
        switch ((enum ns_gram_kind)x->kind) {
        case NS_GRAM_BYTES: case NS_GRAM_KEY:
            put(r, at, count, up);
            return;
        case NS_GRAM_SPLIT:
            for (uint32_t e = x->edges; e; e = g->edges[e].next)
                go(r, g->edges[e].to, count, up);
            return;
        case NS_GRAM_CALL:
            if (fits(r, at, up))
                call(r, x, count, up);
            return;
        case NS_GRAM_RET:
            leave(r, up);
            return;
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
        at = x->next;
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

/* Frames and links that no thread needs any more go, the others move down. Without memory for it, later. */
static void collect(ns_grammar_walk *w)
{
    ns_gram_run *r = w->run;
    uint32_t *to = calloc(r->n_frames, sizeof *to), n = 1, n_links = 1;
    ns_gram_link *links = malloc(r->cap_links * sizeof *links);
    if (!to || !links) {
        free(to);
        free(links);
        return;
    }
    for (size_t i = 0; i < r->n; i++)
        to[r->threads[i].up] = 1;
    for (size_t f = r->n_frames; f-- > 1;)
        for (uint32_t i = to[f] ? r->frames[f].links : 0; i; i = r->links[i].next)
            to[r->links[i].up] = 1;
    to[0] = 0;
    for (size_t f = 1; f < r->n_frames; f++)
        if (to[f]) {
            ns_gram_frame x = { .rule = r->frames[f].rule, .depth = r->frames[f].depth };
            for (uint32_t i = r->frames[f].links; i; i = r->links[i].next) {
                links[n_links] = (ns_gram_link){ r->links[i].ret, r->links[i].count, to[r->links[i].up], x.links };
                x.links = n_links++;
            }
            r->frames[n] = x;
            to[f] = n++;
        }
    for (size_t i = 0; i < r->n; i++)
        r->threads[i].up = to[r->threads[i].up];
    free(r->links);
    r->links = links;
    r->n_frames = w->now_frames = n;
    r->n_links = w->now_links = n_links;
    w->kept = n + n_links;
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
    r->links[0] = (ns_gram_link){ 0 };
    r->n_frames = r->n_links = r->fresh = 1;
    go(r, g->start, 0, 0);
    if (r->failed) {
        ns_fail(e, NS_ENOMEM, "grammar: out of memory");
        ns_grammar_walk_free(w);
        return NULL;
    }
    w->now = r->n;
    w->now_frames = r->n_frames;
    w->now_links = r->n_links;
    return w;
}

void ns_grammar_walk_free(ns_grammar_walk *w)
{
    if (!w)
        return;
    if (w->run) {
        free(w->run->threads);
        free(w->run->frames);
        free(w->run->links);
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
        if (r->n_frames + r->n_links > 2 * w->kept + 1024)
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
        r->n_links = w->now_links;
        return -1;
    }
    memmove(r->threads, r->threads + from, (to - from) * sizeof *r->threads);
    r->n = w->now = to - from;
    w->now_frames = r->n_frames;
    w->now_links = r->n_links;
    return 0;
}

bool ns_grammar_complete(const ns_grammar_walk *w)
{
    for (size_t i = 0; i < w->now; i++)
        if (w->run->threads[i].node == 0)
            return true;
    return false;
}
