/* Prefixes kept between requests. Attention keeps keys and values per token, but a Mamba layer only has what it is now: so pieces of the
 * sequence are kept with a snapshot of the recurrent state at their end, as a tree in which a node is a piece of tokens, its keys and
 * values, and the recurrent state behind it. Least recently used leaves go when the bytes run out. Only states computed wholly by one size
 * go in, and they come out for that size. Every boundary is at a multiple of NS_PREFIX_STEP tokens, where the chunked scan of the prompt
 * has its own: so going on from a kept prefix gives the bits that reading all of it gives. Not locked: one thread. */
#ifndef NS_RUN_PREFIX_H
#define NS_RUN_PREFIX_H
#include "model/state.h"

enum { NS_PREFIX_STEP = 64 };

typedef struct ns_prefix ns_prefix;
ns_prefix *ns_prefix_new(int64_t max_bytes, ns_err *e);
void ns_prefix_free(ns_prefix *p);
/* Brings an empty state to the longest kept prefix of ids[0..n) for its cut and kv type, but at most `limit` tokens; how many that are. */
int ns_prefix_get(ns_prefix *p, ns_state *s, const int *ids, int limit);
/* Keeps the state's tokens ids[0..s->len); s->len is a multiple of NS_PREFIX_STEP. What is too large for the budget is not kept, silently:
 * a cache may forget. -1: out of memory. */
int ns_prefix_put(ns_prefix *p, const ns_state *s, const int *ids, ns_err *e);
int64_t ns_prefix_bytes(const ns_prefix *p);
#endif
