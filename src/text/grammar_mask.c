/* The tokens that may come next. What a set of threads allows is all that each of them allows, so threads are taken apart by what is
 * quickest: where most tokens are content, those are known beforehand and only the rest of the vocabulary is walked. */
#include <stdlib.h>
#include <string.h>

#include "text/grammar_impl.h"

static void set_bit(uint64_t *bits, int id)
{
    bits[id / 64] |= UINT64_C(1) << id % 64;
}

/* Tokens of twigs [i, end) along which the threads of levels[0] survive. Without memory for a step, not
 * these. */
static void walk_tree(ns_gram_run *r, ns_gram_level *levels, const ns_gram_vtree *t, uint32_t i, uint32_t end, uint64_t *bits)
{
    while (i < end) {
        const ns_gram_twig *x = &t->twigs[i];
        const ns_gram_level *above = &levels[x->depth - 1];
        r->n = above->to;
        r->n_frames = above->frames;
        r->n_links = above->links;
        ns_gram_step(r, above->from, above->to, x->byte);
        if (r->n == r->set) {
            i = x->skip;
            continue;
        }
        levels[x->depth] = (ns_gram_level){ r->set, r->n, r->n_frames, r->n_links };
        for (uint32_t k = x->first; k < t->twigs[i + 1].first; k++)
            set_bit(bits, t->ids[k]);
        i++;
    }
}

/* The node whose content thread t takes, but for bytes that have an edge at its own node; 0: none. */
static uint32_t content_node(const ns_gram_run *r, const ns_gram_thread *t)
{
    const ns_gram_node *x = &r->g->nodes[t->node];
    if (x->cls)
        return t->node;
    return x->c && r->g->nodes[x->c].cls && (x->kind != NS_GRAM_KEY || ns_gram_extra(r, t)) ? x->c : 0;
}

static void add_plain(const ns_grammar_vocab *v, enum ns_gram_class cls, uint32_t chars, uint64_t *bits)
{
    const ns_gram_plain *p = &v->plain[cls];
    bool all = chars == NS_GRAM_ANY;
    if (chars == 0)
        return;
    const uint64_t *upto = p->upto[all ? NS_GRAM_SHORT : chars < NS_GRAM_SHORT ? chars : NS_GRAM_SHORT - 1];
    for (size_t i = 0; i < v->words; i++)
        bits[i] |= upto[i];
    for (uint32_t i = 0; !all && i < p->n_longer; i++)
        if (p->chars[i] <= chars)
            set_bit(bits, p->longer[i]);
}

typedef struct masking {
    ns_gram_run *r;
    const ns_grammar_walk *w;
    const ns_grammar_vocab *v;
    uint64_t *bits;
} masking;

/* An empty set above the walk's own. */
static void begin(masking *k)
{
    k->r->n = k->w->now;
    k->r->n_frames = k->w->now_frames;
    k->r->n_links = k->w->now_links;
}

static void add(masking *k, ns_gram_thread t)
{
    if (ns_gram_reserve(k->r))
        k->r->threads[k->r->n++] = t;
}

/* Walks the set since begin, which is kept. */
static void walk(masking *k, const ns_gram_vtree *t, uint32_t from, uint32_t end)
{
    size_t top = k->r->n;
    k->w->levels[0] = (ns_gram_level){ k->w->now, top, k->w->now_frames, k->w->now_links };
    if (top > k->w->now)
        walk_tree(k->r, k->w->levels, t, from, end, k->bits);
    k->r->n = top;
}

/* The tokens that begin with c, anew. */
static void walk_below(masking *k, unsigned char c)
{
    const ns_gram_vtree *t = &k->v->all;
    uint32_t i = 0;
    while (i < t->n && t->twigs[i].byte != c)
        i = t->twigs[i].skip;
    if (i == t->n)
        return;
    for (uint32_t j = t->twigs[i].first; j < t->twigs[t->twigs[i].skip].first; j++)
        k->bits[t->ids[j] / 64] &= ~(UINT64_C(1) << t->ids[j] % 64);
    walk(k, t, i, t->twigs[i].skip);
}

/* A thread that takes content but for the bytes of its own edges: no other may have set bits yet. */
static void mask_almost(masking *k, ns_gram_thread t, uint32_t like)
{
    const ns_grammar *g = k->r->g;
    enum ns_gram_class cls = (enum ns_gram_class)g->nodes[like].cls;
    begin(k);
    add(k, t);
    add_plain(k->v, cls, NS_GRAM_ANY, k->bits);
    for (uint32_t e = g->nodes[t.node].edges; e; e = g->edges[e].next)
        walk_below(k, g->edges[e].lo);
    walk(k, &k->v->plain[cls].rest, 0, k->v->plain[cls].rest.n);
}

static void mask_content(masking *k, enum ns_gram_class cls)
{
    const ns_gram_run *r = k->r;
    begin(k);
    for (size_t i = 0; i < k->w->now; i++) {
        ns_gram_thread t = r->threads[i];
        const ns_gram_node *x = &r->g->nodes[t.node];
        if (x->cls != cls)
            continue;
        add_plain(k->v, cls, x->a == NS_GRAM_ANY ? x->a : x->a - t.count + 1, k->bits); /* this character is counted already */
        add(k, t);
    }
    walk(k, &k->v->plain[cls].rest, 0, k->v->plain[cls].rest.n);
}

void ns_grammar_mask(ns_grammar_walk *w, const ns_grammar_vocab *v, uint64_t *bits)
{
    masking k = { .r = w->run, .w = w, .v = v, .bits = bits };
    const ns_gram_run *r = w->run;
    size_t almost = w->now;
    memset(bits, 0, v->words * sizeof *bits);
    if (w->n_levels < v->depth + 1) {
        ns_gram_level *p = realloc(w->levels, (v->depth + 1) * sizeof *p);
        if (!p)
            return;
        w->levels = p;
        w->n_levels = v->depth + 1;
    }
    for (size_t i = 0; i < w->now && almost == w->now; i++) {
        uint32_t like = content_node(r, &r->threads[i]);
        if (like && like != r->threads[i].node)
            mask_almost(&k, r->threads[almost = i], like);
    }
    for (int c = NS_GRAM_STRING; c < NS_GRAM_CLASSES; c++)
        mask_content(&k, (enum ns_gram_class)c);
    begin(&k);
    for (size_t i = 0; i < w->now; i++)
        if (i != almost && !r->g->nodes[r->threads[i].node].cls)
            add(&k, r->threads[i]);
    walk(&k, &v->all, 0, v->all.n);
    begin(&k);
}
