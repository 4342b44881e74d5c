/* Prefixes kept between requests. Attention keeps keys and values per token, but a Mamba layer only has what it is now: so pieces of the
 * sequence are kept with a snapshot of the recurrent state at their end, as a tree in which a node is a piece of tokens, its keys and
 * values, and the recurrent state behind it. Least recently used leaves go when the bytes run out. Only states computed wholly by one size
 * go in, and they come out for that size. Every boundary is at a multiple of NS_SCAN_CHUNK tokens, where the chunked scan of the prompt
 * has its own: so going on from a kept prefix gives the bits that reading all of it gives, where two things hold. What goes in was read in
 * steps that end at multiples of NS_SCAN_CHUNK, not decoded. And what comes behind must not be cut into a step of one token where reading
 * all would not have been: one token alone takes the recurrence, the same token at the end of a step the chunked scan.
 * Not locked: one thread. */
#ifndef NS_RUN_PREFIX_H
#define NS_RUN_PREFIX_H
#include "model/state.h"

typedef struct ns_prefix ns_prefix;
ns_prefix *ns_prefix_new(int64_t max_bytes, ns_err *e);
void ns_prefix_free(ns_prefix *p);
/* Brings an empty state to the longest kept prefix of ids[0..limit) for its cut and kv type; how many tokens that are. */
int ns_prefix_get(ns_prefix *p, ns_state *s, const int *ids, int limit);
/* Where ids[0..limit) leave what is kept for the state's cut, in the middle of a piece: a put there, on the way, makes a node that both
 * continue. 0: there is no such place behind what get gives. */
int ns_prefix_branch(const ns_prefix *p, const ns_state *s, const int *ids, int limit);
/* Keeps the state's tokens ids[0..s->len); s->len is a multiple of NS_SCAN_CHUNK. What is too large for the budget is not kept, silently:
 * a cache may forget. -1: out of memory. */
int ns_prefix_put(ns_prefix *p, const ns_state *s, const int *ids, ns_err *e);
int64_t ns_prefix_bytes(const ns_prefix *p); /* never more than max_bytes */
#endif
