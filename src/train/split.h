/* Inside train/: a pack cut in two, the beginnings of its documents and what follows them, to be computed by two sizes. */
#ifndef NS_TRAIN_SPLIT_H
#define NS_TRAIN_SPLIT_H
#include "base/rng.h"
#include "block/carry.h"
#include "block/net.h"
#include "train/data.h"

/* Both parts have the pack's documents in the pack's order. A counted token follows each cut, so that every document has its part in the
 * loss; where none could follow, the beginning is empty. */
typedef struct ns_split {
    ns_pack head, tail;  /* head.seqs.leave and tail.seqs.from are the carry */
    int *row;            /* [tail tokens] where the token stands in the pack */
    ns_carry carry;      /* its room is the caller's to reserve */
} ns_split;

int ns_split_init(ns_split *s, int max_tokens, ns_err *e);
void ns_split_release(ns_split *s);
/* Where each document is cut comes from rng, uniformly; NULL: in its middle. */
void ns_split_make(ns_split *s, const ns_pack *p, ns_rng *rng);
#endif
