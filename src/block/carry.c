#include "block/carry.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "block/space.h"

/* Counts, and places where `s` has a base. */
static void place(const ns_arch *a, int n_tokens, int n_seqs, ns_space *s, ns_real **layer)
{
    for (int i = 0; i < a->n_layers; i++) {
        const ns_mixer *m = ns_mixer_of(a->layers[i].kind);
        ns_real *at = m->carried ? ns_space_take(s, m->carried(a, i, n_tokens, n_seqs)) : NULL;
        if (layer)
            layer[i] = at;
    }
}

int ns_carry_reserve(ns_carry *c, const ns_arch *a, int n_tokens, int n_seqs, ns_err *e)
{
    ns_space s = { 0 };
    if (!c->layer)
        c->layer = calloc((size_t)a->n_layers, sizeof *c->layer);
    place(a, n_tokens, n_seqs, &s, NULL);
    if (s.used > c->room) {
        free(c->memory);
        c->memory = ns_alloc_aligned(s.used * sizeof *c->memory);
        c->room = c->memory ? s.used : 0;
    }
    return c->layer && s.used <= c->room ? 0 : ns_fail(e, NS_ENOMEM, "the states of %d sequences, %zu MB: out of memory", n_seqs,
                                                       s.used * sizeof *c->memory >> 20);
}

void ns_carry_release(ns_carry *c)
{
    free(c->layer);
    free(c->memory);
    *c = (ns_carry){ 0 };
}

void ns_carry_begin(ns_carry *c, const ns_arch *a, const ns_seqs *beginnings)
{
    ns_space s = { .base = c->memory };
    place(a, beginnings->n_tokens, beginnings->n_seqs, &s, c->layer);
    assert(s.used <= c->room);
    c->start = beginnings->start;
    memset(c->memory, 0, s.used * sizeof *c->memory);
}
