/* Pieces of one array, handed out in order: the same walk counts (base NULL) and places. Inside block/. */
#ifndef NS_BLOCK_SPACE_H
#define NS_BLOCK_SPACE_H
#include <stddef.h>
#include <stdint.h>

#include "block/real.h"

typedef struct ns_space {
    ns_real *base; /* NULL: nothing is placed */
    size_t used;   /* elements */
} ns_space;

/* Saved activations are written by forward and only read by backward: both find their parts with this. */
static inline ns_space ns_space_of(const ns_real *base)
{
    return (ns_space){ .base = (ns_real *)(uintptr_t)base };
}

static inline ns_real *ns_space_take(ns_space *s, size_t n)
{
    ns_real *at = s->base ? s->base + s->used : NULL;
    s->used += (n + 15) / 16 * 16; /* whole cache lines */
    return at;
}

/* Integers take an element each. */
static inline int *ns_space_ints(ns_space *s, size_t n)
{
    return (int *)(void *)ns_space_take(s, n);
}
#endif
